"""Constrained decoding: the vocabulary that grammars choose from, forced calls, and what a request is held to.

SGLang hands xgrammar the tokenizer's strings, in which `[TOOL_CALLS]` is a text of twelve characters: a regex or a JSON
string that admits them would admit the control id, and a constrained answer could begin a call in the middle. Here a
control id stands for no text, as everywhere in this package, and no text grammar admits it; a grammar of ids may.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mistral_common.tokens.tokenizers.base import SpecialTokens
from sglang.srt.constrained.base_grammar_backend import BaseGrammarObject
from sglang.srt.constrained.reasoner_grammar_backend import ReasonerGrammarObject
from sglang.srt.runtime_context import get_context, get_exec, get_serving
from xgrammar import StructuralTag, TokenizerInfo, VocabType

from sgl_small4.prompt.budget import Controls, ReplyState, TraceGrammar, thinking_budget
from sgl_small4.prompt.format import PromptError, PromptFormat
from sgl_small4.prompt.served import is_ours, served_format

# White space in a row that a JSON grammar admits: a line break and the indentation of seven levels. Without a bound a
# small model writes white space until its limit (seen with nano), and any model may.
MAX_WHITE_SPACE = 16

NOT_UTF8 = b"\xff"  # no text begins with it, so no text grammar admits a piece that does


class GrammarError(RuntimeError):
    """A server that cannot constrain this model's replies; the sentence is for whoever starts it."""


def grammar_vocabulary(format: PromptFormat, vocab_size: int, stop_ids: Iterable[int]) -> TokenizerInfo:
    """xgrammar's view of the vocabulary: text never admits an id without bytes, nor the id of a leading NUL."""
    # xgrammar keeps pieces that are empty or begin with NUL for itself, and takes them in no grammar at all.
    pieces = [format.text_bytes(id) or NOT_UTF8 + str(id).encode() for id in range(format.tokenizer.n_words)]
    pieces = [b"" if piece.startswith(b"\0") else piece for piece in pieces]
    return TokenizerInfo(pieces, VocabType.RAW, vocab_size=vocab_size, stop_token_ids=sorted(stop_ids))


def calls_tag(
    format: PromptFormat, functions: Sequence[Mapping[str, Any]], *, forced: bool, parallel: bool
) -> StructuralTag:
    """Calls in the model's own spelling to any of `functions` (name, and parameters as JSON schema).

    When `forced`, the reply is one call, or with `parallel` several; otherwise free text, and calls or none after it.
    """

    def control(name: SpecialTokens) -> dict[str, Any]:
        return {"type": "token", "token": format.control(name)}

    calls = [
        {
            "type": "sequence",
            "elements": [
                control(SpecialTokens.tool_calls),
                {"type": "const_string", "value": function["name"]},
                control(SpecialTokens.args),
                {
                    "type": "json_schema",
                    "json_schema": function.get("parameters") or {"type": "object"},
                    "max_whitespace_cnt": MAX_WHITE_SPACE,
                },
            ],
        }
        for function in functions
    ]
    call: dict[str, Any] = {"type": "or", "elements": calls}
    if not forced:
        some = {"type": "star" if parallel else "optional", "content": call}
        return StructuralTag.model_validate({"format": {"type": "sequence", "elements": [{"type": "any_text"}, some]}})
    return StructuralTag.model_validate({"format": {"type": "plus", "content": call} if parallel else call})


def constrain_calls(result: Any, request: Any) -> None:
    """Hold a chat request to calls in the model's own spelling, where it forces them or has strict functions."""
    result.tool_call_constraint = None  # upstream's spell [TOOL_CALLS] in letters, or an array that is no call here
    choice = request.tool_choice
    named = None if isinstance(choice, str) else choice.function.name
    functions = [tool.function for tool in request.tools or [] if named in (None, tool.function.name)]
    forced = named is not None or choice == "required"
    if not functions or not (forced or (choice == "auto" and any(function.strict for function in functions))):
        return
    free = not forced  # where the model may call, what is not strict takes any object
    described = [
        {"name": function.name, "parameters": None if free and not function.strict else function.parameters}
        for function in functions
    ]
    tag = calls_tag(served_format(), described, forced=forced, parallel=request.parallel_tool_calls and named is None)
    result.tool_call_constraint = ("structural_tag", tag)


def prepare(scheduler: Any) -> None:
    """Before SGLang's xgrammar backend is built: our vocabulary where it asks a tokenizer for one, and bounded JSON."""
    config, serving = scheduler.model_config, get_serving()
    if scheduler.tokenizer is None or not is_ours(config.hf_config):
        return
    backend = get_exec().kernel.grammar_backend
    if backend in ("llguidance", "outlines"):
        raise GrammarError(f"--grammar-backend {backend} would take control ids for text; use xgrammar, or none.")
    vocabulary = grammar_vocabulary(served_format(), config.vocab_size, config.hf_eos_token_id or ())
    scheduler.tokenizer.init_xgrammar = lambda: (vocabulary, None)  # None: no stop ids but those it was built with
    if serving.constrained_json_max_whitespace_cnt is None and not serving.constrained_json_disable_any_whitespace:
        get_context().override("sgl_small4", constrained_json_max_whitespace_cnt=MAX_WHITE_SPACE)


def follow_reply(manager: Any, req: Any) -> None:
    """Keep account of a request's reply; the scheduler's counts and stops read it."""
    scheduler = manager.scheduler
    if scheduler.tokenizer is not None and is_ours(scheduler.model_config.hf_config):
        req.small4_reply = ReplyState(Controls.of(served_format()), req.origin_input_ids)


def hold(manager: Any, req: Any) -> None:
    """Give a request that is ready its grammar: the constraint on its answer, its budget, or both."""
    reply: ReplyState | None = getattr(req, "small4_reply", None)
    if reply is None or req.to_finish or req.finished():
        return
    wishes = req.sampling_params.custom_params
    try:
        budget = thinking_budget(wishes.get("thinking_budget") if isinstance(wishes, dict) else None, None)
    except PromptError as refusal:
        req.set_finish_with_abort(str(refusal))
        return
    # --reasoning-parser puts a gate of its own around the constraint.
    answer: BaseGrammarObject | None = req.grammar
    answer = answer.grammar if isinstance(answer, ReasonerGrammarObject) else answer
    if answer is None and budget is None:
        req.grammar = None
        return
    req.grammar = TraceGrammar(
        reply.controls,
        req.origin_input_ids,
        answer=answer,
        budget=budget,
        vocab_size=manager.scheduler.model_config.vocab_size,
    )
