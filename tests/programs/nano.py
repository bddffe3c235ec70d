"""nano itself, computed by transformers in this process, as the one who replies; greedy, and without a constraint."""

from collections.abc import Callable
from functools import cache

import torch
from mistral_common.tokens.tokenizers.base import SpecialTokens
from transformers import Mistral4ForCausalLM

from sgl_small4.nano import CHECKPOINT
from tests.programs.scripted import Request, Said, nano_format


@cache
def _model() -> Mistral4ForCausalLM:
    return Mistral4ForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def nano(most: int = 200) -> Callable[[Request], Said]:
    """A script for `scripted`: replies of at most `most` tokens."""
    eos = nano_format().control(SpecialTokens.eos)

    def reply(request: Request) -> Said:
        prompt = torch.tensor([request.ids])
        with torch.no_grad():
            ids = _model().generate(prompt, max_new_tokens=most, do_sample=False, eos_token_id=eos, pad_token_id=eos)
        new = ids[0, prompt.shape[1] :].tolist()
        return Said(given=tuple(new), finish="stop" if new[-1] == eos else "length")

    return reply
