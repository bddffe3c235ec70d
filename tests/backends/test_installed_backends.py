"""Logits through the attention backends of SGLang that can run here themselves, at the published head sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.backends import served_interpreted
from tests.backends.early_steps import EarlySteps
from tests.checkpoints import Checkpoint, Shape, write_hf
from tests.model.oracle import oracle, reference_logits
from tests.model.served import Request, logits

SHAPE = Shape(hidden=128, heads=4, q_lora=64, kv_lora=256, nope=64, rope=64, v=128)


def sequence(length: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, SHAPE.vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


# A cold prefill, a chunk behind it, two decode steps and a question behind them.
REQUESTS = [Request(sequence(44, 1), (20, 33, 34, 35, 44)), Request(sequence(38, 2), (9, 30, 31, 32, 38))]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return EarlySteps.random(SHAPE)


@pytest.fixture(scope="module")
def folder(checkpoint: Checkpoint, tmp_path_factory) -> Path:
    return write_hf(checkpoint, tmp_path_factory.mktemp("random"))


def assert_equals_the_reference(found: list[torch.Tensor], checkpoint: Checkpoint) -> None:
    reference = oracle(checkpoint)
    for request, rows in zip(REQUESTS, found, strict=True):
        expected = reference_logits(reference, request.ids)[[end - 1 for end in request.ends]]
        assert (rows - expected).abs().max() < 1e-4 * expected.abs().max()


def test_torch_native_gives_the_reference_logits(folder, checkpoint):
    """SGLang's fallback everywhere; it reads keys from the cache alone, so only the absorbed form can run on it."""
    assert_equals_the_reference(logits(folder, REQUESTS, attention_backend="torch_native", dtype="float32"), checkpoint)


def test_a_backend_without_kernels_for_this_model_is_refused_by_name(folder):
    with pytest.raises(ValueError, match="flashmla cannot attend to this model's latents of 256: use fa3"):
        logits(folder, REQUESTS, attention_backend="flashmla", dtype="float32")


@pytest.mark.slow
def test_the_triton_backend_in_the_interpreter_gives_the_reference_logits(folder, checkpoint):
    ran = subprocess.run(
        [sys.executable, "-m", served_interpreted.__name__, str(folder)],
        input=json.dumps([[request.ids, request.ends] for request in REQUESTS]),
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert_equals_the_reference([torch.tensor(rows) for rows in json.loads(ran.stdout.splitlines()[-1])], checkpoint)
