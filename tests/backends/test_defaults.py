"""What SGLang chooses by architecture name for its own class of this model, it chooses for ours on Blackwell too."""

import json
from pathlib import Path

import pytest
from sglang.srt.runtime_context import override_platform
from sglang.srt.server_args import ServerArgs

from sgl_small4.plugin import engine
from tests.checkpoints import Checkpoint, Shape
from tests.model.served import in_fresh_process


def defaults(on_blackwell: bool, **given) -> dict[str, str]:
    with override_platform(is_sm100=on_blackwell):
        return engine.restore_defaults(ServerArgs(model_path="unused", **given), hf_config=None)


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


LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 1,
    "vocab_size": 96,
}


def prefill_graph(folder: str, given: dict[str, str]) -> str | None:
    """The prefill graph's backend that the arguments resolve to, None where SGLang's own default is left alone."""
    from sglang.srt.arg_groups.model_override_base import resolving_view
    from sglang.srt.plugins import load_plugins

    load_plugins()
    args = ServerArgs(model_path=folder, skip_tokenizer_init=True, **given)
    args.resolve_once()
    return resolving_view(args).cuda_graph_backend_prefill


@pytest.mark.parametrize(
    ("config", "given", "expected"),
    [
        (Checkpoint(Shape()).hf_text_config(), {}, "disabled"),
        (Checkpoint(Shape()).hf_text_config(), {"cuda_graph_backend_prefill": "breakable"}, "breakable"),
        (LLAMA, {}, None),
    ],
    ids=["ours", "ours, asked for", "another model"],
)
def test_no_prefill_graph_is_captured_unless_asked_for(config, given, expected, tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert in_fresh_process(prefill_graph, str(tmp_path), given) == expected
