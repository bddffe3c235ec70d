"""What the loader leaves in memory for GPU kernels: gate and up in order, FP8 weights with their scales, absorbed keys.

The model is built as on a GPU and filled from a checkpoint; nothing runs.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints import Checkpoint, Shape, write_hf, write_native
from tests.model.served import in_fresh_process

SHAPE = Shape(layers=1)
WRITERS = pytest.mark.parametrize("write", [write_hf, write_native], ids=["hf", "native"])


def fill(folder: str, fp8: bool, flashinfer_trtllm: bool) -> dict[str, np.ndarray]:
    """Parameters and buffers after loading, as float32, by name."""
    from sglang.srt.plugins import load_plugins

    load_plugins()
    import sglang.benchmark.one_batch as one_batch
    from sglang.srt.configs.model_config import ModelConfig
    from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
    from sglang.srt.layers.moe.utils import resolve_shared_experts_config
    from sglang.srt.layers.quantization.fp8 import Fp8Config
    from sglang.srt.runtime_context import SpawnRanks, get_device, get_model, publish
    from sglang.srt.server_args import PortArgs, ServerArgs

    from sgl_small4.model.decoder import Mistral4ForCausalLM

    args = ServerArgs(model_path=folder, skip_tokenizer_init=True, context_length=64, max_total_tokens=64)
    args.resolve_once()
    publish(args, role="scheduler", ranks=SpawnRanks(world_rank=0, gpu_id=0))
    one_batch._init_process_global_configs()
    config = ModelConfig.from_server_args(args)
    port = PortArgs.init_new(args).nccl_port
    one_batch.bootstrap.init_parallel_runtime(server_args=args, device=get_device().device, dist_port=port)
    one_batch.bootstrap.init_layer_runtime(model_config=config)

    quantization = Fp8Config.from_config({"quant_method": "fp8", "activation_scheme": "static"}) if fp8 else None
    torch.set_default_dtype(torch.bfloat16)
    shared = resolve_shared_experts_config(Mistral4ForCausalLM, config.hf_config, quantization)
    with get_model().override(shared_experts=shared):
        model = Mistral4ForCausalLM(config.hf_config, quantization)
    for module in model.modules():
        if isinstance(module, FusedMoE):
            module.use_flashinfer_trtllm_moe = flashinfer_trtllm
    [file] = Path(folder).glob("*.safetensors")
    model.load_weights(load_file(file).items())
    found = dict(model.named_parameters()) | dict(model.named_buffers())
    return {name: tensor.detach().float().numpy() for name, tensor in found.items()}


def bf16(tensor: torch.Tensor) -> np.ndarray:
    return tensor.to(torch.bfloat16).float().numpy()


@WRITERS
@pytest.mark.parametrize("flashinfer_trtllm", [False, True], ids=["gate first", "up first"])
def test_gate_and_up_lie_in_the_order_of_the_kernels(write, flashinfer_trtllm, tmp_path):
    """flashinfer_trtllm wants up before gate; loaded otherwise it computes nonsense without an error."""
    checkpoint = Checkpoint.random(SHAPE)
    found = in_fresh_process(fill, str(write(checkpoint, tmp_path)), False, flashinfer_trtllm)
    fused = found["model.layers.0.mlp.experts.w13_weight"]
    order = ("up_proj", "gate_proj") if flashinfer_trtllm else ("gate_proj", "up_proj")
    for expert in range(SHAPE.experts):
        parts = [checkpoint.tensors[f"model.layers.0.mlp.experts.{expert}.{part}.weight"] for part in order]
        assert np.array_equal(fused[expert], bf16(torch.cat(parts)))


@WRITERS
def test_fp8_weights_stay_fp8_with_their_scales_and_absorbed_keys_are_dequantised(write, tmp_path):
    checkpoint = Checkpoint.random(SHAPE, dtype=torch.bfloat16).quantised()
    for expert in range(SHAPE.experts):  # gate and up get scales of their own where the format can hold them
        name = f"model.layers.0.mlp.experts.{expert}"
        checkpoint.tensors[f"{name}.down_proj.input_scale"] = torch.tensor(0.01 * (expert + 1))
    found = in_fresh_process(fill, str(write(checkpoint, tmp_path)), True, False)
    stored = {name.removeprefix("model.layers.0."): tensor for name, tensor in checkpoint.tensors.items()}
    loaded = {name.removeprefix("model.layers.0."): tensor for name, tensor in found.items()}

    for part in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"):
        assert np.array_equal(loaded[f"self_attn.{part}.weight"], stored[f"self_attn.{part}.weight"].float().numpy())
        for scale in ("weight_scale", "input_scale"):
            assert loaded[f"self_attn.{part}.{scale}"] == stored[f"self_attn.{part}.{scale}"]
    for expert in range(SHAPE.experts):
        for fused, shard, part in (("w13", 0, "gate_proj"), ("w13", 1, "up_proj"), ("w2", ..., "down_proj")):
            one = f"mlp.experts.{expert}.{part}"
            assert (loaded[f"mlp.experts.{fused}_weight_scale"][expert][shard] == stored[f"{one}.weight_scale"]).all()
            assert loaded[f"mlp.experts.{fused}_input_scale"][expert] == stored[f"{one}.input_scale"]

    whole = checkpoint.dequantised().tensors["model.layers.0.self_attn.kv_b_proj.weight"]
    key, value = whole.view(SHAPE.heads, SHAPE.nope + SHAPE.v, SHAPE.kv_lora).split((SHAPE.nope, SHAPE.v), 1)
    assert np.array_equal(loaded["self_attn.key_absorb"], bf16(key))
    assert np.array_equal(loaded["self_attn.value_absorb"], bf16(value.transpose(1, 2)))
