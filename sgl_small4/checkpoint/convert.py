"""One checkpoint format to the other: the same numbers under the other names, with the tokenizer files beside them."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors.torch import save_file

from sgl_small4.checkpoint.files import check, opened
from sgl_small4.checkpoint.inventory import FP8, Inventory
from sgl_small4.checkpoint.names import FUSED, SUFFIXES, native
from sgl_small4.config import CONFIG_FILE, ConfigError, Format, Small4Config, weight_files

FILE_BYTES = 5_000_000_000  # of tensors in one weight file
STEM: dict[Format, str] = {"native": "consolidated", "hf": "model"}
# Served by both formats; config.json and params.json, weights and their index are written anew.
COMPANIONS = (
    "tekken.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json",
    "chat_template.jinja",
)  # fmt: skip


def convert(source: Path, target: Path) -> str:
    """Write `source`, a folder of either format, to the new folder `target` in the other; returns one sentence on it.

    Raises ConfigError or CheckpointError, and leaves nothing behind, when the source cannot be served, the target
    exists, or the other format cannot say what the source does. FP8 weights stay as they are, with their scales.
    """
    source, target = Path(source), Path(target)
    config = Small4Config.from_folder(source)
    if target.exists():
        raise ConfigError(f"{target} exists already; name a folder that does not")
    if config.has_vision:
        raise ConfigError(f"{source} holds a vision encoder, which conversion does not support yet")
    check(source)
    other: Format = "hf" if config.source == "native" else "native"
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as unfinished:
        _write_config(config, other, Path(unfinished))
        count = _write_weights(source, config, other, Path(unfinished))
        for name in COMPANIONS:
            if (source / name).is_file():
                shutil.copy(source / name, unfinished)
        os.rename(unfinished, target)
        os.mkdir(unfinished)  # for the context manager to remove
    target.chmod(0o755)
    return f"{target} holds {source} in the {other} format: {count} tensors."


def _write_config(config: Small4Config, other: Format, folder: Path) -> None:
    fields = config.to_native() if other == "native" else config.to_hf()
    if other == "hf" and not config.rope.apply_yarn_scaling:
        # transformers multiplies the softmax scale whenever this is not 0, whatever the weights were trained with.
        fields["rope_parameters"]["mscale_all_dim"] = 0.0
    (folder / CONFIG_FILE[other]).write_text(json.dumps(fields, indent=2) + "\n", encoding="utf-8")


def _write_weights(source: Path, config: Small4Config, other: Format, folder: Path) -> int:
    """Write the tensors in files of at most FILE_BYTES, with an index when there is more than one; returns how many."""
    named = _native(source, config) if other == "native" else _hugging_face(source, config)
    shards: list[dict[str, torch.Tensor]] = [{}]
    written: list[list[str]] = []
    size = 0

    def flush() -> None:
        save_file(shards[-1], folder / f"{len(written):05d}.safetensors", metadata={"format": "pt"})
        written.append(sorted(shards[-1]))
        shards[-1] = {}

    for name, tensor in named:
        if size and size + tensor.nbytes > FILE_BYTES:
            flush()
            size = 0
        shards[-1][name] = tensor.clone(memory_format=torch.contiguous_format)
        size += tensor.nbytes
    flush()
    index: dict[str, str] = {}
    for number, names in enumerate(written):
        file = f"{STEM[other]}.safetensors"
        if len(written) > 1:
            file = f"{STEM[other]}-{number + 1:05d}-of-{len(written):05d}.safetensors"
        os.rename(folder / f"{number:05d}.safetensors", folder / file)
        index |= dict.fromkeys(names, file)
    if len(written) > 1:
        content = {"metadata": {}, "weight_map": index}
        (folder / f"{STEM[other]}.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n")
    return len(index)


def _canonical(source: Path, config: Small4Config) -> Iterator[tuple[str, torch.Tensor]]:
    inventory = Inventory(config)
    for file in weight_files(source):
        with opened(file) as tensors:
            for name in tensors.keys():
                yield from inventory.enter(name, tensors.get_tensor(name))


def _native(source: Path, config: Small4Config) -> Iterator[tuple[str, torch.Tensor]]:
    for name, tensor in _canonical(source, config):
        yield native(name), tensor


def _hugging_face(source: Path, config: Small4Config) -> Iterator[tuple[str, torch.Tensor]]:
    """Experts are stacked layer by layer, so at most the experts of the unfinished layers are held."""
    waiting: dict[str, dict[str, torch.Tensor]] = {}  # layer's experts to "17.gate_proj.weight" to tensor
    quantised = config.quantization is not None
    suffixes = (
        ["weight"] + (["weight_scale"] if quantised else []) + (["input_scale"] * (config.quantization == "static"))
    )
    for name, tensor in _canonical(source, config):
        layer, _, expert = name.partition(".mlp.experts.")
        if not expert:
            module, _, suffix = name.rpartition(".")
            yield f"{module}.{SUFFIXES[suffix][0]}", tensor
            continue
        experts = waiting.setdefault(layer, {})
        experts[expert] = tensor
        if len(experts) == config.n_routed_experts * 3 * len(suffixes):
            yield from _fused(f"{layer}.mlp.experts", waiting.pop(layer), config.n_routed_experts, suffixes)


def _fused(
    prefix: str, experts: dict[str, torch.Tensor], count: int, suffixes: list[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, (projections, suffix) in FUSED.items():
        if suffix not in suffixes:
            continue
        parts = [[experts[f"{expert}.{part}.{suffix}"] for part in projections] for expert in range(count)]
        if suffix == "input_scale":
            tensor = torch.stack([torch.stack(part).max() for part in parts])
        elif suffix == "weight_scale":
            tensor = torch.stack([torch.stack(part).max() for part in parts]).view(-1, 1, 1)
        else:
            scales = [[experts.get(f"{expert}.{part}.weight_scale") for part in projections] for expert in range(count)]
            tensor = torch.stack([_joined(*both) for both in zip(parts, scales, strict=True)])
        yield f"{prefix}.{name}", tensor


def _joined(parts: list[torch.Tensor], scales: list[torch.Tensor | None]) -> torch.Tensor:
    """Gate and up of one expert as one tensor; in FP8 they come to share the larger of their scales."""
    if parts[0].dtype != FP8:
        return torch.cat(parts)
    larger = torch.stack([scale.float() for scale in scales if scale is not None]).max()
    if all(scale is not None and scale.float() == larger for scale in scales):
        return torch.cat([part.view(torch.uint8) for part in parts]).view(FP8)
    rescaled = [part.float() * (scale.float() / larger) for part, scale in zip(parts, scales, strict=True)]  # type: ignore[union-attr]
    return torch.cat(rescaled).to(FP8)
