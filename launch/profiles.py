"""Hardware launch presets: `profiles.toml` as checked objects, and which one fits a host."""

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from launch.errors import LaunchError
from launch.host import Accelerator

FILE = Path(__file__).with_name("profiles.toml")
Arguments = dict[str, bool | int | float | str]


class Devices(BaseModel):
    """The accelerators a profile is written for; `name` is part of the driver's device name."""

    model_config = ConfigDict(extra="forbid")
    name: str
    count: int


class Profile(BaseModel):
    """One preset: SGLang arguments by their long names, without the dashes in front."""

    model_config = ConfigDict(extra="forbid")
    hardware: str
    run: Literal["here", "not run"]
    arguments: Arguments
    accelerators: Devices | None = None

    def fits(self, accelerators: list[Accelerator]) -> bool:
        if self.accelerators is None:
            return not accelerators
        named = [device for device in accelerators if self.accelerators.name in device.name]
        return len(named) == len(accelerators) == self.accelerators.count


class Profiles(BaseModel):
    """All presets, and the arguments common to them."""

    model_config = ConfigDict(extra="forbid")
    common: Arguments
    profile: dict[str, Profile]

    @classmethod
    def load(cls) -> "Profiles":
        return cls.model_validate(tomllib.loads(FILE.read_text()))

    def named(self, name: str) -> Profile:
        if name not in self.profile:
            raise LaunchError(f"There is no profile {name!r}: choose one of {', '.join(self.profile)}.")
        return self.profile[name]

    def fitting(self, accelerators: list[Accelerator]) -> str | None:
        """The name of the profile written for exactly these accelerators, if there is one."""
        return next((name for name, profile in self.profile.items() if profile.fits(accelerators)), None)


def as_command_line(arguments: Arguments) -> list[str]:
    """`{"tp": 2, "enable-cache-report": True}` as `["--tp", "2", "--enable-cache-report"]`; False leaves a flag out."""
    line = []
    for name, value in arguments.items():
        if value is False:
            continue
        line += [f"--{name}"] if value is True else [f"--{name}", str(value)]
    return line
