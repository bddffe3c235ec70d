"""What SGLang chooses by architecture name for its own class of this model, it chooses for ours on Blackwell too."""

import pytest
from sglang.srt.runtime_context import override_platform
from sglang.srt.server_args import ServerArgs

from sgl_small4 import plugin


def defaults(on_blackwell: bool, **given) -> dict[str, str]:
    with override_platform(is_sm100=on_blackwell):
        return plugin.restore_defaults(ServerArgs(model_path="unused", **given), hf_config=None)


def test_blackwell_gets_trtllm_mla_and_the_experts_that_go_with_it():
    wanted = {"attention_backend": "trtllm_mla", "moe_runner_backend": "flashinfer_trtllm"}
    assert wanted.items() <= defaults(on_blackwell=True).items()


def test_elsewhere_sglang_chooses_by_the_attention_architecture_alone():
    assert not {"attention_backend", "moe_runner_backend"} & defaults(on_blackwell=False).keys()


@pytest.mark.parametrize("name", ["attention_backend", "prefill_attention_backend", "decode_attention_backend"])
def test_a_backend_that_was_asked_for_stays(name):
    assert "attention_backend" not in defaults(on_blackwell=True, **{name: "triton"})


def test_an_expert_runner_that_was_asked_for_stays():
    assert "moe_runner_backend" not in defaults(on_blackwell=True, moe_runner_backend="triton")
