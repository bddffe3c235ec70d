"""nano itself, computed by transformers in this process, as the one who replies; greedy, and without a constraint."""

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch
from transformers import Mistral4ForCausalLM

from sgl_small4.nano import CHECKPOINT
from tests.prompt.scripted import EOS

MOST = 200  # tokens of a reply


@cache
def _model() -> Mistral4ForCausalLM:
    return Mistral4ForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32).eval()


def nano(ids: list[int], fields: Mapping[str, Any]) -> list[int]:
    """A reply for `Scripted`."""
    prompt = torch.tensor([ids])
    with torch.no_grad():
        whole = _model().generate(prompt, max_new_tokens=MOST, do_sample=False, eos_token_id=EOS, pad_token_id=EOS)
    return whole[0, prompt.shape[1] :].tolist()
