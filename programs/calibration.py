"""How sure is sure enough: the thresholds of `auto`, stored with the model that they were measured on."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from programs.errors import ProgramError
from programs.files import write_whole

FILE = "effort.json"  # in the model's folder


class Calibration(BaseModel):
    """Confidences from which an answer is taken: `direct`'s without thinking, `think`'s without deliberating.

    A confidence is the model's own, from 0 to 1 (sgl_small4/prompt/output.py). `model` says whose these are; None is
    any model's: the values that hold where nothing was measured. `measured` says how they came about.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    direct: float = Field(default=0.9, ge=0.0, le=1.01)  # above 1: never
    think: float = Field(default=0.8, ge=0.0, le=1.01)
    model: str | None = None
    measured: dict[str, Any] = {}

    @classmethod
    def read(cls, path: Path) -> "Calibration":
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise ProgramError(f"The calibration {str(path)!r} cannot be read: {error.strerror or error}.") from error
        except ValidationError as error:
            raise ProgramError(
                f"{str(path)!r} is no calibration ({error.errors()[0]['msg']}): make one with `small4 calibrate`."
            ) from error

    @classmethod
    def of(cls, model_info: Mapping[str, Any], path: Path | None = None) -> "Calibration":
        """The one at `path`, else the one in the model's folder, else the defaults; raises ProgramError for another
        model's."""
        stored = path or Path(model_info["model_path"]) / FILE
        if path is None and not stored.is_file():
            return cls()
        found = cls.read(stored)
        if found.model != identity(model_info):
            raise ProgramError(
                f"The calibration {str(stored)!r} was measured on another model: run `small4 calibrate` for this one."
            )
        return found

    def write(self, path: Path) -> None:
        try:
            write_whole(path, f"{self.model_dump_json(indent=1)}\n".encode())
        except OSError as error:
            raise ProgramError(f"The calibration cannot be written to {str(path)!r}: {error.strerror}.") from error


def identity(model_info: Mapping[str, Any]) -> str:
    """What tells one model from another: a hash of its configuration where its folder is at hand, else its name."""
    folder = Path(model_info["model_path"])
    found = next((folder / name for name in ("params.json", "config.json") if (folder / name).is_file()), None)
    if found is None:
        return str(model_info["model_path"])
    weights = sorted((file.name, file.stat().st_size) for file in folder.glob("*.safetensors"))
    return hashlib.sha256(found.read_bytes() + repr(weights).encode()).hexdigest()[:16]
