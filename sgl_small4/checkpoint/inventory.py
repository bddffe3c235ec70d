"""The account of a checkpoint: which tensors a configuration needs, and whether each came once and in its shape."""

import torch

from sgl_small4.checkpoint.names import SCALES, ignored, pieces, scale_name, shapes
from sgl_small4.config import Small4Config

FP8 = torch.float8_e4m3fn


class CheckpointError(RuntimeError):
    """A checkpoint does not fit the model; the message names the tensors or the file."""


class Inventory:
    """Enter every tensor of a checkpoint, then `close`; tensors may be on the meta device."""

    def __init__(self, config: Small4Config) -> None:
        self.shapes = shapes(config)
        self.quantization = config.quantization
        self.seen: set[str] = set()
        self.fp8: set[str] = set()  # weights stored in FP8: each needs its scales
        self.left_out: dict[str, int] = {}  # reason to number of tensors
        self.problems: dict[str, list[str]] = {
            kind: [] for kind in ("missing", "unknown", "twice", "of another shape", "of another type")
        }

    def enter(self, stored_as: str, tensor: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        """The canonical tensors that this one holds, those without a problem; none when it is left out by name."""
        reason = ignored(stored_as)
        if reason:
            self.left_out[reason] = self.left_out.get(reason, 0) + 1
            return []
        return [piece for piece in pieces(stored_as, tensor) if self._fits(piece.name, piece.tensor, stored_as)]

    def close(self) -> None:
        """Raise CheckpointError, with the names, when anything was wrong or is missing."""
        scales = SCALES if self.quantization == "static" else SCALES[:1]
        needed = set(self.shapes) | {scale_name(weight, scale) for weight in self.fp8 for scale in scales}
        self.problems["missing"] += sorted(needed - self.seen)
        idle = sorted(name for name in self.seen - needed if owner(name)[0] in self.shapes)
        self.problems["unknown"] += [f"{name} (a scale that no FP8 weight uses)" for name in idle]
        found = {kind: names for kind, names in self.problems.items() if names}
        if found:
            listed = "; ".join(f"{len(names)} {kind}: {some(names)}" for kind, names in found.items())
            raise CheckpointError(f"the checkpoint does not fit its configuration, tensors {listed}")

    def _fits(self, name: str, tensor: torch.Tensor, stored_as: str) -> bool:
        weight, scale = owner(name)
        label = name if name == stored_as else f"{stored_as} ({name})"
        if weight not in self.shapes or (scale and not self.quantization):
            kind, label = "unknown", stored_as
        elif name in self.seen:
            kind = "twice"
        elif scale and tensor.numel() != 1:
            kind, label = "of another shape", f"{label} {list(tensor.shape)}, expected one scale per tensor"
        elif not scale and tuple(tensor.shape) != self.shapes[weight]:
            kind, label = "of another shape", f"{label} {list(tensor.shape)}, expected {list(self.shapes[weight])}"
        elif not tensor.dtype.is_floating_point or (tensor.dtype == FP8 and not self.quantization):
            kind, label = "of another type", f"{label} {tensor.dtype}"
        else:
            kind = ""
            if tensor.dtype == FP8:
                self.fp8.add(name)
        if kind and label not in self.problems[kind]:
            self.problems[kind].append(label)
        self.seen.add(name)
        return not kind


def owner(name: str) -> tuple[str, str | None]:
    """The weight that a canonical tensor belongs to, and which scale of it the tensor is, if it is one."""
    module, _, suffix = name.rpartition(".")
    return (f"{module}.weight", suffix) if suffix in SCALES else (name, None)


def some(names: list[str], limit: int = 12) -> str:
    """The first names of a list, and how many more there are."""
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
