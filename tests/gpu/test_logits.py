"""The served model's logits on a GPU against transformers' in float32, through every attention backend the card runs.

The same checkpoints, reference and steps as tests/model; skipped by name where there is no GPU. The calling conventions
and the Triton kernels are checked without one in tests/backends.
"""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.checkpoints import Checkpoint, Shape, write_hf, write_native
from tests.model import served
from tests.model.oracle import oracle, reference_logits
from tests.model.served import Request, in_fresh_process

# Published head sizes; with as many experts active as there are, bf16 cannot tip the router's choice.
DENSE = Shape(hidden=256, heads=8, q_lora=128, kv_lora=256, nope=64, rope=64, v=128, experts=4, active=4, inner=128)
SPARSE = Shape(hidden=256, heads=8, q_lora=128, kv_lora=256, nope=64, rope=64, v=128, experts=16, active=4, inner=128)

# Major compute capabilities that each backend has kernels of this shape for.
BACKENDS = {"fa3": {9}, "flashinfer": {8, 9, 10}, "trtllm_mla": {10}, "triton": {8, 9, 10, 12}}
# How a prefix is attended to: in latent space, expanded whole, or expanded in chunks (where the backend has the form).
FORMS = {
    "absorbed": {},
    "one shot": {"SGLANG_CHUNKED_PREFIX_CACHE_THRESHOLD": "1"},
    "chunks": {"SGLANG_CHUNKED_PREFIX_CACHE_THRESHOLD": "1", "SGLANG_MAX_KV_CHUNK_CAPACITY": "96"},
}


def skip_unless_it_runs(backend: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this host")
    major, minor = torch.cuda.get_device_capability()
    if major not in BACKENDS[backend]:
        pytest.skip(f"{backend} has no kernels of this shape for compute capability {major}.{minor}")


def sequence(length: int, vocab: int, seed: int) -> tuple[int, ...]:
    return tuple(torch.randint(0, vocab, (length,), generator=torch.Generator().manual_seed(seed)).tolist())


def requests(vocab: int) -> list[Request]:
    """A prefill, a chunk behind it, a short question, decode steps and another question, in one batch of two."""
    return [
        Request(sequence(300, vocab, 1), (130, 260, 270, 271, 272, 273, 300)),
        Request(sequence(200, vocab, 2), (40, 180, 183, 184, 185, 186, 200)),
    ]


def run(environment: dict[str, str], folder: str, wanted: list[Request], server_args: dict) -> list[np.ndarray]:
    os.environ.update(environment)
    return served._run(folder, wanted, server_args)


def errors(folder: Path, checkpoint: Checkpoint, environment: dict[str, str], **server_args) -> torch.Tensor:
    """Of each request's pieces, how far the logits are from the reference, relative to their size."""
    wanted = requests(checkpoint.shape.vocab)
    reference = oracle(checkpoint)
    found = in_fresh_process(run, environment, str(folder), wanted, server_args)
    relative = []
    for request, rows in zip(wanted, found, strict=True):
        expected = reference_logits(reference, request.ids)[[end - 1 for end in request.ends]]
        relative.append((torch.from_numpy(rows) - expected).norm(dim=-1) / expected.norm(dim=-1))
    return torch.cat(relative)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_logits_equal_the_reference_through(backend, form, tmp_path):
    skip_unless_it_runs(backend)
    checkpoint = Checkpoint.random(DENSE, dtype=torch.bfloat16)
    folder = write_hf(checkpoint, tmp_path / "random")
    found = errors(folder, checkpoint, FORMS[form], attention_backend=backend, dtype="bfloat16")
    assert found.max() < 0.03, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_bf16_logits_without_captured_graphs_equal_the_reference_through(backend, tmp_path):
    skip_unless_it_runs(backend)
    checkpoint = Checkpoint.random(DENSE, dtype=torch.bfloat16)
    folder = write_native(checkpoint, tmp_path / "random")
    options = {"attention_backend": backend, "dtype": "bfloat16", "disable_cuda_graph": True}
    assert errors(folder, checkpoint, {}, **options, disable_prefill_cuda_graph=True).max() < 0.03


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("moe_runner", ["auto", "triton", "flashinfer_trtllm"])
def test_routed_experts_in_bf16_equal_the_reference_with(moe_runner, backend, tmp_path):
    """A router on the edge may choose another expert in bf16, so most rows are close and none is elsewhere."""
    skip_unless_it_runs(backend)
    if moe_runner == "flashinfer_trtllm" and torch.cuda.get_device_capability()[0] != 10:
        pytest.skip("flashinfer_trtllm experts are for compute capability 10")
    checkpoint = Checkpoint.random(SPARSE, dtype=torch.bfloat16)
    folder = write_hf(checkpoint, tmp_path / "random")
    options = {"attention_backend": backend, "moe_runner_backend": moe_runner, "dtype": "bfloat16"}
    found = errors(folder, checkpoint, {}, **options)
    assert found.median() < 0.03, found
    assert found.max() < 0.5, found


@pytest.mark.parametrize("write", [write_hf, write_native], ids=["hf", "native"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_fp8_logits_equal_those_of_the_dequantised_weights_through(backend, write, tmp_path):
    skip_unless_it_runs(backend)
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("no FP8 matrix units on this card")
    checkpoint = Checkpoint.random(DENSE, dtype=torch.bfloat16).quantised()
    folder = write(checkpoint, tmp_path / "random")
    found = errors(folder, checkpoint, {}, attention_backend=backend, dtype="bfloat16")
    assert found.median() < 0.1, found  # activations in e4m3: 3 bits of mantissa
    assert found.max() < 0.3, found


def test_an_fp8_cache_keeps_the_logits_close_on_trtllm_mla(tmp_path):
    skip_unless_it_runs("trtllm_mla")
    checkpoint = Checkpoint.random(DENSE, dtype=torch.bfloat16)
    folder = write_hf(checkpoint, tmp_path / "random")
    options = {"attention_backend": "trtllm_mla", "kv_cache_dtype": "fp8_e4m3", "page_size": 64, "dtype": "bfloat16"}
    assert errors(folder, checkpoint, {}, **options).median() < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_query_scale_steps_at_position_8192_through(backend, tmp_path):
    """Stock SGLang leaves the scale out on most of these paths: 7 % of the query from here on."""
    skip_unless_it_runs(backend)
    checkpoint = Checkpoint.random(DENSE, dtype=torch.bfloat16)
    folder = write_hf(checkpoint, tmp_path / "random")
    ids = sequence(8200, DENSE.vocab, 3)
    ends = (4096, 8190, 8191, 8192, 8193, 8194, 8200)
    found = in_fresh_process(
        run, {}, str(folder), [Request(ids, ends)], {"attention_backend": backend, "dtype": "bfloat16"}
    )
    expected = reference_logits(oracle(checkpoint), ids)[[end - 1 for end in ends]]
    relative = (torch.from_numpy(found[0]) - expected).norm(dim=-1) / expected.norm(dim=-1)
    assert relative.max() < 0.03, relative
