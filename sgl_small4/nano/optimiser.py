"""Muon for the matrices inside the layers, AdamW for embedding, head, routers and norms."""

from typing import Any

import torch

from sgl_small4.nano.model import Model

MOMENTUM = 0.95


class Optimiser:
    """One step of both, at rates given by the caller."""

    def __init__(self, model: Model) -> None:
        self._operators = model.operators
        named = dict(model.layers.named_parameters())
        self._matrices = {n: p for n, p in named.items() if p.dim() >= 2 and not n.endswith("router")}
        inside = {id(p) for p in self._matrices.values()}
        self._rest = [p for p in model.parameters() if id(p) not in inside]
        self._momentum = {name: torch.zeros_like(p) for name, p in self._matrices.items()}
        self._adam = torch.optim.AdamW(self._rest, betas=(0.9, 0.95), weight_decay=0.0, fused=True)

    def step(self, muon_rate: float, adam_rate: float) -> None:
        """Use up the gradients."""
        for name, weight in self._matrices.items():
            self._muon(name, weight, muon_rate)
        torch.nn.utils.clip_grad_norm_(self._rest, 1.0)
        self._adam.param_groups[0]["lr"] = adam_rate
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _muon(self, name: str, weight: torch.Tensor, rate: float) -> None:
        """Move by the orthogonal factor of the Nesterov momentum; gate and up of each expert are matrices apart."""
        momentum, gradient = self._momentum[name], weight.grad
        assert gradient is not None
        momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = gradient.lerp_(momentum, MOMENTUM)
        parts = 2 if name.endswith("gate_up") else 1
        for part, target in zip(direction.chunk(parts, -1), weight.chunk(parts, -1), strict=True):
            rows, columns = part.shape[-2:]
            wide = part if rows <= columns else part.transpose(-1, -2)
            factor = self._operators.orthogonalise(wide.reshape(-1, *wide.shape[-2:]).contiguous()).view(wide.shape)
            step = factor if rows <= columns else factor.transpose(-1, -2)
            target.add_(step, alpha=-rate * max(1.0, columns / rows) ** 0.5)
        weight.grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"adam": self._adam.state_dict(), "momentum": self._momentum}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._adam.load_state_dict(state["adam"])
        for name, momentum in self._momentum.items():
            momentum.copy_(state["momentum"][name])
