"""Strict loading: every tensor of the checkpoint fills one place or is left out by name, every parameter is filled."""

import logging
from collections.abc import Iterable

import torch
from sglang.srt.layers.moe.fused_moe_triton.layer import FusedMoE
from sglang.srt.layers.utils import PPMissingLayer
from sglang.srt.model_loader.weight_utils import default_weight_loader
from torch import nn

from sgl_small4.checkpoint.inventory import FP8, CheckpointError, Inventory, owner, some
from sgl_small4.config import Small4Config

logger = logging.getLogger(__name__)

# The parameter and shard of each projection, as `FusedMoE.weight_loader` and `MergedColumnParallelLinear` name them.
EXPERT_SHARDS = {"gate_proj": ("w13", "w1"), "down_proj": ("w2", "w2"), "up_proj": ("w13", "w3")}
MERGED_SHARDS = {"gate_proj": 0, "up_proj": 1}


def load(model: nn.Module, config: Small4Config, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Fill `model`'s parameters from (name, tensor) pairs of either format.

    FP8 weights go into FP8 parameters where the model has them and are multiplied by their scale where it has not
    (on a CPU). Raises CheckpointError with the names when a tensor is missing, unknown, misshapen or there twice.
    """
    inventory, placer = Inventory(config), _Placer(model)
    for stored_as, tensor in weights:
        for name, piece in inventory.enter(stored_as, tensor):
            placer.place(name, piece)
    inventory.close()
    placer.close()
    for reason, count in inventory.left_out.items():
        logger.info("Checkpoint: %d tensors left out: %s", count, reason)


class _Placer:
    """Puts canonical tensors into the parameters of this rank; layers of other pipeline ranks are passed over."""

    def __init__(self, model: nn.Module) -> None:
        self.parameters = dict(model.named_parameters())
        self.modules = dict(model.named_modules())
        self.filled: set[str] = set()
        self.waiting: dict[str, torch.Tensor] = {}  # one of two that belong together, until the other has come

    def place(self, name: str, tensor: torch.Tensor) -> None:
        weight, scale = owner(name)
        parameter, module, _ = self._destination(name)
        if module is None:
            return
        dequantised = self.parameters[self._destination(weight)[0]].dtype != FP8
        if dequantised and scale == "input_scale":
            return  # activations are not quantised on this platform
        if dequantised and (scale or tensor.dtype == FP8):
            both = self._both(name, tensor, weight, f"{weight}_scale")
            if both:
                self._fill(weight, both[0].to(torch.float32) * both[1].to(torch.float32))
        elif scale == "input_scale" and parameter.endswith("w13_input_scale"):
            # Gate and up read the same input through one number, where the last one written would win.
            pair = name.replace(".up_proj.", ".gate_proj."), name.replace(".gate_proj.", ".up_proj.")
            both = self._both(name, tensor, *pair)
            if both:
                for projection in pair:
                    self._fill(projection, torch.maximum(*both))
        else:
            self._fill(name, tensor)

    def close(self) -> None:
        unfilled = [name for name in self.parameters if name not in self.filled]
        if unfilled:
            raise CheckpointError(f"parameters that no tensor fills: {some(unfilled)}")

    def _both(
        self, name: str, tensor: torch.Tensor, first: str, second: str
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The two tensors `first` and `second` once both have come, None before; `name` is one of them."""
        other = second if name == first else first
        if other not in self.waiting:
            self.waiting[name] = tensor
            return None
        known = {name: tensor, other: self.waiting.pop(other)}
        return known[first], known[second]

    def _destination(self, name: str) -> tuple[str, nn.Module | None, tuple]:
        """Parameter name, the module of this rank that owns it, and which shard of it to fill."""
        path, _, suffix = name.rpartition(".")
        parent, _, projection = path.rpartition(".")
        if ".mlp.experts." in name:
            experts, _, expert = parent.rpartition(".")
            fused, shard = EXPERT_SHARDS[projection]
            return f"{experts}.{fused}_{suffix}", self.modules.get(experts), (shard, int(expert))
        if parent.endswith("shared_experts") and projection in MERGED_SHARDS:
            merged = f"{parent}.gate_up_proj"
            return f"{merged}.{suffix}", self.modules.get(merged), (MERGED_SHARDS[projection],)
        module = self.modules.get(path)
        return name, None if isinstance(module, PPMissingLayer) else module, ()

    def _fill(self, name: str, tensor: torch.Tensor) -> None:
        parameter_name, module, shard = self._destination(name)
        parameter = self.parameters[parameter_name]
        self.filled.add(parameter_name)
        if isinstance(module, FusedMoE):
            # It tells weights from scales by the parameter's own name, drops experts of other ranks, and swaps gate and
            # up for the kernels that want them so: only this per-expert loader does.
            module.weight_loader(parameter, tensor, parameter_name, shard_id=shard[0], expert_id=shard[1])
            return
        getattr(parameter, "weight_loader", default_weight_loader)(parameter, tensor, *shard)
