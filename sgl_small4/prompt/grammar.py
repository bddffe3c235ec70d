"""The vocabulary that constrained decoding chooses from: text ids only.

SGLang hands xgrammar the tokenizer's strings, in which `[TOOL_CALLS]` is a text of twelve characters: a regex or a JSON
string that admits them would admit the control id, and a constrained answer could begin a call in the middle. Here a
control id stands for no text, as everywhere in this package, and a grammar never admits it.
"""

from collections.abc import Iterable
from typing import Any

from sglang.srt.runtime_context import get_context, get_serving
from xgrammar import TokenizerInfo, VocabType

from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.served import is_ours, served_format

# White space in a row that a JSON grammar admits: a line break and the indentation of seven levels. Without a bound a
# small model writes white space until its limit (seen with nano), and any model may.
MAX_WHITE_SPACE = 16


def grammar_vocabulary(format: PromptFormat, vocab_size: int, stop_ids: Iterable[int]) -> TokenizerInfo:
    """xgrammar's view of the vocabulary: it never admits an id without bytes, and keeps a leading NUL for itself."""
    pieces = [format.text_bytes(id) for id in range(format.tokenizer.n_words)]
    pieces = [b"" if piece.startswith(b"\0") else piece for piece in pieces]
    return TokenizerInfo(pieces, VocabType.RAW, vocab_size=vocab_size, stop_token_ids=sorted(stop_ids))


def prepare(scheduler: Any) -> None:
    """Before SGLang's xgrammar backend is built: our vocabulary where it asks a tokenizer for one, and bounded JSON."""
    config, serving = scheduler.model_config, get_serving()
    if scheduler.tokenizer is None or not is_ours(config.hf_config):
        return
    vocabulary = grammar_vocabulary(served_format(), config.vocab_size, config.hf_eos_token_id or ())
    scheduler.tokenizer.init_xgrammar = lambda: (vocabulary, None)  # None: no stop ids but those it was built with
    if serving.constrained_json_max_whitespace_cnt is None and not serving.constrained_json_disable_any_whitespace:
        get_context().override("sgl_small4", constrained_json_max_whitespace_cnt=MAX_WHITE_SPACE)
