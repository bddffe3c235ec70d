"""Triton's attention kernels compile at Small 4's head sizes for every GPU generation the triton backend serves."""

import pytest
import torch
from sglang.kernels.ops.attention import decode_attention, extend_attention, kv_indices, merge_state
from sglang.kernels.ops.kvcache import mla_buffer
from sglang.srt.platforms import current_platform
from sglang.srt.platforms.interface import PlatformCapabilities
from triton.compiler.errors import CompilationError

from sgl_small4.plugin import engine
from tests.backends.triton_build import SHARED_MEMORY, Launch, build, record

LATENT, ROPE = 256, 64
HEADS = pytest.mark.parametrize("heads", [32, 8], ids=["tp1", "tp4"])
CAPABILITIES = pytest.mark.parametrize("capability", SHARED_MEMORY, ids=lambda capability: f"sm{capability}")


def bf16(*shape: int) -> torch.Tensor:
    return torch.zeros(shape, dtype=torch.bfloat16)


def decode_launches(monkeypatch, heads: int, page_size: int = 1) -> list[Launch]:
    """Both stages of one absorbed decode step over 2 sequences, as the backend asks for it."""
    stages = [
        record(monkeypatch, decode_attention, f"_{name}") for name in ("fwd_grouped_kernel_stage1", "fwd_kernel_stage2")
    ]
    splits = 8
    cache = bf16(512, 1, LATENT + ROPE)
    decode_attention.decode_attention_fwd(
        q=bf16(2, heads, LATENT + ROPE),
        k_buffer=cache,
        v_buffer=cache[..., :LATENT],
        o=bf16(2, heads, LATENT),
        kv_indptr=torch.zeros(3, dtype=torch.int32),
        kv_indices=torch.zeros(64, dtype=torch.int64),
        attn_logits=torch.zeros(2, heads, splits, LATENT),
        attn_lse=torch.zeros(2, heads, splits),
        num_kv_splits=torch.zeros(2, dtype=torch.int32),
        max_kv_splits=splits,
        sm_scale=0.08,
        k_scale=1.0,
        v_scale=1.0,
        has_mla=True,
        page_size=page_size,
    )
    return [launch for stage in stages for launch in stage.launches]


@pytest.fixture
def hooked(monkeypatch) -> None:
    """The plugin's hook on the decode launcher, and only that one, for one test."""
    upstream = decode_attention._decode_grouped_att_m_fwd
    upstream = getattr(upstream, "__wrapped__", upstream)
    monkeypatch.setattr(
        decode_attention,
        "_decode_grouped_att_m_fwd",
        lambda *args, **kwargs: engine.load_values_apart(upstream, *args, **kwargs),
    )


@CAPABILITIES
@HEADS
def test_the_decode_kernel_compiles_with_the_hook(capability, heads, hooked, monkeypatch):
    for launch in decode_launches(monkeypatch, heads):
        assert build(launch, capability) <= SHARED_MEMORY[capability]


def test_the_decode_kernel_compiles_over_pages_of_64(hooked, monkeypatch):
    for launch in decode_launches(monkeypatch, heads=32, page_size=64):
        assert build(launch, 90) <= SHARED_MEMORY[90]


def test_without_the_hook_the_decode_kernel_does_not_compile(monkeypatch):
    """The day this fails, upstream knows rows of 320 and the hook can go."""
    launcher = decode_attention._decode_grouped_att_m_fwd
    monkeypatch.setattr(decode_attention, "_decode_grouped_att_m_fwd", getattr(launcher, "__wrapped__", launcher))
    stage1, _ = decode_launches(monkeypatch, heads=32)
    with pytest.raises(CompilationError):
        build(stage1, 90)


@pytest.mark.parametrize(
    ("key_width", "value_width", "kept"),
    [(576, 512, True), (288, 256, True), (512, 512, True), (320, 256, False), (80, 64, False)],
)
def test_the_hook_changes_only_launches_that_cannot_compile(key_width, value_width, kept):
    def launch(query, key_buffer, value_buffer, *args, **kwargs):
        return kwargs["has_mla"]

    query, key, value = bf16(1, 16, key_width), bf16(4, 1, key_width), bf16(4, 1, value_width)
    assert engine.load_values_apart(launch, query, key, value, has_mla=True) is kept
    assert engine.load_values_apart(launch, query, key, value, has_mla=False) is False
    assert engine.load_values_apart(launch, query, key, value) is False


def extend_launch(
    monkeypatch, capability: int, query_width: int, value_width: int, kv_heads: int, mask: bool
) -> Launch:
    """One extend step of 64 new tokens behind a cached prefix."""
    monkeypatch.setattr(extend_attention, "_is_cuda", True)
    monkeypatch.setattr(extend_attention, "CUDA_CAPABILITY", divmod(capability, 10), raising=False)
    kernel = record(monkeypatch, extend_attention, "_fwd_kernel")
    cache = bf16(256, kv_heads, query_width)
    ends = torch.zeros(2, dtype=torch.int32)
    extend_attention.extend_attention_fwd(
        bf16(64, 32, query_width),
        bf16(64, kv_heads, query_width),
        bf16(64, kv_heads, value_width),
        bf16(64, 32, value_width),
        cache,
        cache[..., :value_width],
        ends,
        ends,
        torch.zeros(8, dtype=torch.int64),
        torch.zeros(8, dtype=torch.bool) if mask else None,
        True,
        torch.zeros(2, dtype=torch.int64) if mask else None,
        64,
        1.0,
        1.0,
        sm_scale=0.08,
    )
    return kernel.launches[0]


@CAPABILITIES
@pytest.mark.parametrize(
    ("query_width", "value_width", "kv_heads", "mask"),
    [(LATENT + ROPE, LATENT, 1, False), (LATENT + ROPE, LATENT, 1, True), (128, 128, 32, False)],
    ids=["absorbed", "absorbed-tree-mask", "expanded"],
)
def test_the_extend_kernel_compiles(capability, query_width, value_width, kv_heads, mask, monkeypatch):
    launch = extend_launch(monkeypatch, capability, query_width, value_width, kv_heads, mask)
    assert build(launch, capability) <= SHARED_MEMORY[capability]


@CAPABILITIES
def test_the_kernels_around_attention_compile(capability, monkeypatch):
    """Writing and gathering latents, the indices of a prefix chunk, and joining two partial attentions."""
    monkeypatch.setattr(current_platform, "capabilities", PlatformCapabilities(supports_triton=True))
    monkeypatch.setattr(mla_buffer, "is_arch_support_pdl", lambda: False)
    recorders = [
        record(monkeypatch, mla_buffer, "set_mla_kv_buffer_kernel"),
        record(monkeypatch, mla_buffer, "get_mla_kv_buffer_kernel"),
        record(monkeypatch, merge_state, "merge_state_kernel"),
    ]
    locations = torch.arange(4)
    mla_buffer.set_mla_kv_buffer_triton(bf16(64, 1, LATENT + ROPE), locations, bf16(4, 1, LATENT), bf16(4, 1, ROPE))
    mla_buffer.get_mla_kv_buffer_triton(bf16(64, 1, LATENT + ROPE), locations, bf16(4, 1, LATENT), bf16(4, 1, ROPE))
    half, lse = bf16(4, 32, 128), torch.zeros(4, 32)
    merge_state.merge_state_triton(half, lse, half, lse)
    launches = [launch for recorder in recorders for launch in recorder.launches]
    assert len(launches) == len(recorders)

    number = torch.zeros(2, dtype=torch.int32)
    kernel = kv_indices.create_chunked_prefix_cache_kv_indices
    chunk = dict(zip(kernel.arg_names, [number] * 6 + [4096], strict=True))
    launches.append(Launch(kernel, chunk, {}))
    for launch in launches:
        assert build(launch, capability) <= SHARED_MEMORY[capability]
