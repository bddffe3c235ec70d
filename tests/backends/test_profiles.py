"""The GPU profiles say what the sources of SGLang 0.5.23 say about this model, and hold to what each card can do."""

import pytest

from launch.profiles import Profile, Profiles

GPU_PROFILES = {name: profile for name, profile in Profiles.load().profile.items() if profile.accelerators}
HOPPER = {name: profile for name, profile in GPU_PROFILES.items() if profile.accelerators.name in ("H100", "H200")}
BLACKWELL = {name: profile for name, profile in GPU_PROFILES.items() if profile.accelerators.name == "B200"}


def each(profiles: dict[str, Profile]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("profile", profiles.values(), ids=profiles)


@each(GPU_PROFILES)
def test_a_gpu_profile_uses_every_card_for_the_published_context_and_is_marked_not_run(profile):
    assert profile.run == "not run"
    assert profile.arguments["tp-size"] == profile.accelerators.count
    assert 32 % profile.arguments["tp-size"] == 0  # heads
    assert profile.arguments["context-length"] == 262144


@each(HOPPER)
def test_hopper_runs_flash_attention_3_over_a_bf16_cache(profile):
    """Its 64 + 256 kernels are built for bf16 and fp16 alone, and an FP8 cache would be cast whole in every layer."""
    assert profile.arguments["attention-backend"] == "fa3"
    assert "kv-cache-dtype" not in profile.arguments


@each(BLACKWELL)
def test_blackwell_runs_the_backends_of_stock_sglang_for_this_model(profile):
    """`model_overrides/deepseek_v2.py`, `overrides.py` (pages of 32 or 64 only; the MoE runner for FP8)."""
    wanted = {
        "attention-backend": "trtllm_mla",
        "page-size": 64,
        "kv-cache-dtype": "fp8_e4m3",
        "moe-runner-backend": "flashinfer_trtllm",
    }
    assert wanted.items() <= profile.arguments.items()


def test_the_issues_machines_have_a_profile():
    cards = {(profile.accelerators.name, profile.accelerators.count) for profile in GPU_PROFILES.values()}
    assert {("H100", 4), ("H200", 2), ("H200", 4), ("B200", 2)} <= cards
