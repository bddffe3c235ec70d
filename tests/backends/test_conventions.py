"""Through each attention backend's calling convention the model gives transformers' logits, in the form that is due.

The backends are mocks of the installed classes that compute in PyTorch from exactly what they were given; see
conventions.py. Which form runs when is SGLang's choice (`attention_backend_handler.py`) and part of what is checked.
"""

from pathlib import Path

import pytest
import torch

from tests.backends.conventions import BACKENDS
from tests.backends.early_steps import EarlySteps
from tests.backends.through import Setting, Step, run
from tests.checkpoints import Checkpoint, Shape, write_hf
from tests.model.oracle import oracle, reference_logits
from tests.model.served import in_fresh_process

SHAPE = Shape()
ABSORBED = {(SHAPE.kv_lora + SHAPE.rope, 1)}  # width and heads of the keys
EXPANDED = {(SHAPE.nope + SHAPE.rope, SHAPE.heads)}
ROPE_APART = {"fa3": True, "flashinfer": True, "trtllm_mla": True, "triton": False}

COLD, PREFIX, SECOND_PREFIX = Step("extend", (20, 9)), Step("extend", (33, 30)), Step("extend", (40, 44))
DECODE, VERIFY = Step("decode", (41, 45)), Step("verify", (44, 48))
STEPS = [COLD, PREFIX, SECOND_PREFIX, DECODE, VERIFY]
LENGTHS = VERIFY.ends

AS_SHIPPED = Setting()
EXPAND_BEHIND_PREFIXES = Setting(threshold=1)
EXPAND_IN_CHUNKS = Setting(threshold=1, capacity=24)  # of 12 per sequence: three chunks, the shorter ones empty
NO_CHUNKED_PREFIX_CACHE = Setting(disable_chunked_prefix_cache=True)

# Of each backend and setting: whether the cold prefill, and the extends behind a prefix, are expanded.
CASES = {
    ("fa3", AS_SHIPPED): (True, False),
    ("fa3", EXPAND_BEHIND_PREFIXES): (True, True),
    ("fa3", EXPAND_IN_CHUNKS): (True, True),
    ("fa3", NO_CHUNKED_PREFIX_CACHE): (True, False),
    ("flashinfer", AS_SHIPPED): (True, False),
    ("flashinfer", EXPAND_BEHIND_PREFIXES): (True, True),
    ("flashinfer", EXPAND_IN_CHUNKS): (True, True),
    ("flashinfer", NO_CHUNKED_PREFIX_CACHE): (True, False),
    ("trtllm_mla", AS_SHIPPED): (True, True),
    ("trtllm_mla", EXPAND_IN_CHUNKS): (True, True),
    ("trtllm_mla", NO_CHUNKED_PREFIX_CACHE): (True, False),
    ("triton", AS_SHIPPED): (True, False),
}


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return EarlySteps.random(SHAPE)


@pytest.fixture(scope="module")
def folder(checkpoint: Checkpoint, tmp_path_factory) -> Path:
    return write_hf(checkpoint, tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="module")
def sequences() -> list[tuple[int, ...]]:
    tokens = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(0, SHAPE.vocab, (length,), generator=tokens).tolist()) for length in LENGTHS]


@pytest.fixture(scope="module")
def expected(checkpoint: Checkpoint, sequences) -> list[torch.Tensor]:
    """Of each step, the reference's rows for the tokens whose logits SGLang returns."""
    model = oracle(checkpoint)
    whole = [reference_logits(model, ids) for ids in sequences]
    rows, done = [], [0] * len(sequences)
    for step in STEPS:
        first = done if step.mode == "verify" else [end - 1 for end in step.ends]
        spans = zip(whole, first, step.ends, strict=True)
        rows.append(torch.cat([logits[start:end] for logits, start, end in spans]))
        done = list(step.ends)
    return rows


@pytest.mark.parametrize(("backend", "setting"), CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_the_model_through_the_backend_equals_transformers(backend, setting, folder, sequences, expected):
    logits, calls = in_fresh_process(run, backend, setting, folder, sequences, STEPS)

    cold, behind_a_prefix = CASES[backend, setting]
    for step, made in zip(STEPS, calls, strict=True):
        expanded = cold if step is COLD else behind_a_prefix and step.mode == "extend"
        assert {(call.key_width, call.key_heads) for call in made} == (EXPANDED if expanded else ABSORBED), step
        apart = {"q_rope", "k_rope"} if ROPE_APART[backend] and not expanded else set()
        assert {call.keywords for call in made} == {frozenset(apart)}, step
    for step, found, reference in zip(STEPS, logits, expected, strict=True):
        assert (torch.from_numpy(found) - reference).abs().max() < 1e-4 * reference.abs().max(), step


def test_every_stand_in_has_a_case():
    assert {backend for backend, _ in CASES} == set(BACKENDS) == set(ROPE_APART)
