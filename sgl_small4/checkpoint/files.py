"""The safetensors files of a checkpoint folder: whether they are whole, and what they hold."""

from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from sgl_small4.checkpoint.inventory import CheckpointError, Inventory
from sgl_small4.config import Small4Config, weight_files

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "I64": torch.int64, "I32": torch.int32,
    "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def check(folder: Path) -> None:
    """Compare the names, shapes and types in the files' headers with the configuration; no weight is read.

    Raises CheckpointError as `load` would, or when a file is cut short or no safetensors file.
    """
    inventory = Inventory(Small4Config.from_folder(folder))
    for file in weight_files(folder):
        for name, tensor in headers(file):
            inventory.enter(name, tensor)
    inventory.close()


def headers(file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and a meta tensor of every tensor in a file."""
    with opened(file) as tensors:
        for name in tensors.keys():
            part = tensors.get_slice(name)
            yield name, torch.empty(part.get_shape(), dtype=DTYPES.get(part.get_dtype(), torch.uint8), device="meta")


def opened(file: Path) -> safe_open:
    """`safe_open`, with an error that names the file; it checks that the file is as long as its header says."""
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a whole safetensors file: {error}") from error
