"""Both forms of latent attention, in PyTorch and compiled, against attention written out token by token."""

from types import SimpleNamespace

import pytest
import torch
from sglang.srt.models.deepseek_common.attention_forward_methods.forward_methods import AttnForwardMethod
from torch.utils.flop_counter import FlopCounterMode

from sgl_small4.cpu import kernels
from sgl_small4.cpu.attention import LatentAttentionBackend, absorbed, choose_form, expanded
from sgl_small4.cpu.build import library
from tests.cpu import plain

BATCHES = {  # new tokens and lengths of each request
    "cold": ([5, 70, 1], [5, 70, 1]),
    "decode": ([1, 1, 1, 1], [1, 17, 64, 700]),
    "question on a prefix": ([20], [600]),
    "mixed": ([4, 33, 1, 130], [4, 40, 900, 131]),
    "several tasks of rows and of keys": ([150], [1400]),
}
SIZES = {"published": (4, 256, 64), "nano": (4, 96, 16), "odd": (3, 16, 6)}  # heads, kv_lora_rank, rope
FORMS = {"PyTorch": absorbed, "compiled": kernels.latent_attention}
HEAD_FORMS = {"PyTorch": expanded, "compiled": kernels.expanded_attention}


def forms_of(dtype: torch.dtype, forms: dict) -> list:
    """The forms that serve this type here: compiled ones are for bfloat16."""
    return [forms["PyTorch"]] + ([forms["compiled"]] if dtype == torch.bfloat16 and library() else [])


def cached(lens: list[int], dim: int, dtype: torch.dtype) -> tuple:
    """Latent rows at scattered slots: rows [slots, dim], req_to_token, requests, and the slots as lists."""
    order = torch.randperm(2 * sum(lens)).int().split([*lens, sum(lens)])[:-1]
    requests = torch.randperm(len(lens) + 3)[: len(lens)]
    req_to_token = torch.full((len(lens) + 3, max(lens) + 9), 10**6, dtype=torch.int32)
    for request, slots in zip(requests.tolist(), order, strict=True):
        req_to_token[request, : len(slots)] = slots
    return torch.randn(2 * sum(lens), dim).to(dtype), req_to_token, requests, [slots.tolist() for slots in order]


def worst(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 0.01)])
def test_absorbed_attention(batch, size, dtype, error):
    (new_lens, lens), (heads, rank, rope) = BATCHES[batch], SIZES[size]
    torch.manual_seed(0)
    rows, req_to_token, requests, slots = cached(lens, rank + rope, dtype)
    query = torch.randn(sum(new_lens), heads, rank + rope).to(dtype)
    expected = plain.latent_attention(query, rows, slots, new_lens, rank, 0.07)
    for attend in forms_of(dtype, FORMS):
        found = attend(query, rows, req_to_token, requests, new_lens, lens, rank, 0.07)
        assert found.shape == expected.shape and found.dtype == dtype
        assert worst(found, expected) < error


@pytest.mark.parametrize("size", [(4, 128, 128), (3, 48, 32)])
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 2e-6), (torch.bfloat16, 0.01)])
def test_expanded_attention(batch, size, dtype, error):
    (new_lens, lens), (heads, dim, v_head_dim) = BATCHES[batch], size
    torch.manual_seed(0)
    query = torch.randn(sum(new_lens), heads, dim).to(dtype)
    key, value = torch.randn(sum(lens), heads, dim).to(dtype), torch.randn(sum(lens), heads, v_head_dim).to(dtype)
    expected = plain.head_attention(query, key, value, new_lens, lens, dim**-0.5)
    for attend in forms_of(dtype, HEAD_FORMS):
        assert worst(attend(query, key, value, new_lens, lens, dim**-0.5), expected) < error


def test_scores_that_overflow_bfloat16_stay_finite():
    rows, req_to_token, requests, _ = cached([90], 40, torch.bfloat16)
    query = torch.randn(90, 2, 40).to(torch.bfloat16) * 300
    for attend in forms_of(torch.bfloat16, FORMS):
        assert attend(query, rows * 300, req_to_token, requests, [90], [90], 32, 1.0).isfinite().all()


def test_a_long_batch_is_scored_in_parts(monkeypatch):
    new_lens, lens = BATCHES["mixed"]
    rows, req_to_token, requests, _ = cached(lens, 40, torch.float32)
    query = torch.randn(sum(new_lens), 2, 40)
    whole = absorbed(query, rows, req_to_token, requests, new_lens, lens, 32, 0.1)
    monkeypatch.setattr("sgl_small4.cpu.attention.SCORES", 700)
    assert worst(absorbed(query, rows, req_to_token, requests, new_lens, lens, 32, 0.1), whole.double()) < 1e-6


def test_cost_of_a_question_grows_with_the_prefix_and_not_with_its_square():
    def operations(prefix: int) -> int:
        rows, req_to_token, requests, _ = cached([prefix + 20], 40, torch.float32)
        with FlopCounterMode(display=False) as counter:
            absorbed(torch.randn(20, 2, 40), rows, req_to_token, requests, [20], [prefix + 20], 32, 0.1)
        return counter.get_total_flops()

    assert operations(8000) < 2.01 * operations(4000) < 4.03 * operations(2000)


def batch_of(prefix_lens: list[int], new_lens: list[int], decode: bool = False) -> SimpleNamespace:
    mode = SimpleNamespace(is_extend_without_speculative=lambda: not decode)
    return SimpleNamespace(forward_mode=mode, extend_prefix_lens_cpu=prefix_lens, extend_seq_lens_cpu=new_lens)


@pytest.mark.parametrize(
    ("batch", "form"),
    [
        (batch_of([0], [1]), AttnForwardMethod.MHA_ONE_SHOT),
        (batch_of([0, 0], [500, 3]), AttnForwardMethod.MHA_ONE_SHOT),
        (batch_of([8000], [20]), AttnForwardMethod.MLA),
        (batch_of([4096], [4096]), AttnForwardMethod.MHA_ONE_SHOT),  # the second chunk of a long prompt
        (batch_of([], [], decode=True), AttnForwardMethod.MLA),
    ],
)
def test_the_cheaper_form_is_chosen(batch, form):
    published = SimpleNamespace(kv_lora_rank=256, qk_nope_head_dim=64, v_head_dim=128)
    assert choose_form(published, batch) == form


def test_a_model_without_latent_attention_is_refused_in_words():
    runner = SimpleNamespace(token_to_kv_pool=object())
    with pytest.raises(ValueError, match="small4_cpu is for models with latent attention.*torch_native"):
        LatentAttentionBackend(runner)
