"""`small4 doctor`: what this host has, what would run on it, what is missing, and what would serve a folder."""

import os
import sys
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from launch.errors import LaunchError
from launch.host import Host
from launch.profiles import Arguments, Profiles
from sgl_small4.cpu.build import form

NEEDED_GIB = 4  # nano's server at the cpu profile, with the two helper processes
HEALTH_SECONDS = 20  # sglang/srt/entrypoints/http_server.py: HEALTH_CHECK_TIMEOUT
PROBE_SECONDS = HEALTH_SECONDS + 5  # the answer of a server that is not well has to arrive


class Missing(BaseModel):
    """Something that is not there; without what is `needed`, nothing runs."""

    what: str
    how: str
    needed: bool


class Serving(BaseModel):
    """What `small4 serve` would start here."""

    platform: str
    profile: str | None
    profile_was_run: bool
    attention_backend: str
    kernels: str
    probe: str
    arguments: Arguments


class Folder(BaseModel):
    """A checkpoint and the class that SGLang would load it with."""

    path: Path
    ours: bool
    served_by: str
    format: str | None = None
    quantization: str | None = None
    images: str | None = None


class Report(BaseModel):
    versions: dict[str, str | None]
    processor: str
    cores: int
    features: list[str]
    memory_gib: float
    available_gib: float
    compiler: str | None
    accelerators: list[dict[str, str | int | float | None]]
    serving: Serving
    missing: list[Missing]
    folder: Folder | None


def doctor(folder: Path | None, as_json: bool) -> int:
    """Print the report; the exit code is 1 when something needed is missing."""
    report = examine(Host(), folder)
    if as_json:
        print(report.model_dump_json())
    else:
        show(report, Console(highlight=False))
    return int(any(item.needed for item in report.missing))


def examine(host: Host, folder: Path | None) -> Report:
    versions = {name: _version(name) for name in ("sgl-small4", "sglang", "torch", "transformers", "mistral_common")}
    return Report(
        versions={"python": sys.version.split()[0], **versions},
        processor=host.processor,
        cores=host.cores,
        features=host.features,
        memory_gib=host.memory_gib,
        available_gib=host.available_gib,
        compiler=host.compiler,
        accelerators=[vars(device) for device in host.accelerators],
        serving=serving(host),
        missing=missing(host, versions["sglang"]),
        folder=examine_folder(folder) if folder else None,
    )


def serving(host: Host) -> Serving:
    profiles = Profiles.load()
    on_cpu = _on_cpu(host)
    name = profiles.fitting([] if on_cpu else host.accelerators)
    profile = profiles.named(name) if name else None
    arguments = profiles.common | (profile.arguments if profile else {})
    return Serving(
        platform="CPU (sgl_small4.cpu)" if on_cpu else "SGLang's own for this accelerator",
        profile=name,
        profile_was_run=profile is not None and profile.run == "here",
        attention_backend=str(arguments.get("attention-backend", "the platform's default")),
        kernels=form() if on_cpu else "SGLang's own",
        probe=probe(),
        arguments=arguments,
    )


def probe() -> str:
    """What an orchestrator should ask of the server, and how long it should wait for an answer.

    The server says 503 when no forward pass has ended for as long as SGLANG_HEALTH_CHECK_TIMEOUT says.
    """
    chosen = os.environ.get("SGLANG_HEALTH_CHECK_TIMEOUT", "")
    wait = int(chosen) + PROBE_SECONDS - HEALTH_SECONDS if chosen.isdigit() else PROBE_SECONDS
    return f"alive: GET /health, timeout {wait} s; takes requests: GET /ready, timeout 2 s"


def missing(host: Host, sglang: str | None) -> list[Missing]:
    found = []
    pinned = next(need.partition("==")[2] for need in requires("sgl-small4") or [] if need.startswith("sglang=="))
    if sglang != pinned:
        what = f"sglang {pinned} (installed: {sglang or 'none'})"
        found.append(Missing(what=what, how=f"pip install sglang=={pinned}", needed=True))
    if host.available_gib < NEEDED_GIB:
        what = f"{NEEDED_GIB} GiB of free memory ({host.available_gib} GiB are free)"
        found.append(Missing(what=what, how="end other programs", needed=True))
    if _on_cpu(host) and host.compiler is None:
        what = "a C++ compiler: the experts and attention run in plain PyTorch, slower"
        found.append(Missing(what=what, how="apt-get install g++ (Debian), or your system's package", needed=False))
    return found


def examine_folder(folder: Path) -> Folder:
    from sgl_small4.config import ConfigError, Small4Config, is_small4, read_json

    if not folder.is_dir():
        raise LaunchError(f"There is no folder {str(folder)!r}: give the folder of a checkpoint.")
    try:
        if not is_small4(folder):
            file = folder / "config.json"
            names = read_json(file).get("architectures") if file.is_file() else None
            served_by = f"SGLang's own class for {', '.join(names)}" if names else "nothing: it describes no model"
            return Folder(path=folder, ours=False, served_by=served_by)
        config = Small4Config.from_folder(folder)
    except ConfigError as error:
        raise LaunchError(str(error)) from error
    return Folder(
        path=folder,
        ours=True,
        served_by=f"sgl_small4.model, as {', '.join(config.to_hf()['architectures'])}",
        format="Hugging Face" if config.source == "hf" else "native",
        quantization=f"FP8 per tensor, {config.quantization} activations" if config.quantization else None,
        images="not served: the vision tensors are left out" if config.has_vision else None,
    )


def show(report: Report, console: Console) -> None:
    table = Table(show_header=False, box=None)
    table.add_row("versions", ", ".join(f"{name} {number or 'missing'}" for name, number in report.versions.items()))
    table.add_row("processor", f"{report.processor}, {report.cores} cores ({', '.join(report.features) or 'baseline'})")
    table.add_row("memory", f"{report.available_gib} of {report.memory_gib} GiB free")
    table.add_row("compiler", report.compiler or "none")
    devices = ", ".join(str(device["name"]) for device in report.accelerators)
    table.add_row("accelerators", devices or "none")
    run = report.serving
    table.add_row("would run on", run.platform)
    table.add_row("profile", f"{run.profile or 'none'} ({'run' if run.profile_was_run else 'not run'} by the authors)")
    table.add_row("attention", run.attention_backend)
    table.add_row("kernels", run.kernels)
    table.add_row("probes", run.probe)
    if report.folder:
        details = [report.folder.format, report.folder.quantization, report.folder.images]
        table.add_row("folder", f"{report.folder.path} {', '.join(filter(None, details))}")
        table.add_row("served by", report.folder.served_by)
    for item in report.missing:
        table.add_row("missing" if item.needed else "optional", f"{item.what}; {item.how}")
    if not report.missing:
        table.add_row("missing", "nothing")
    console.print(table)


def _on_cpu(host: Host) -> bool:
    """The rule of sgl_small4.cpu.platform.install, without importing torch."""
    chosen = os.environ.get("SGLANG_USE_CPU_ENGINE")
    return chosen != "0" and (chosen is not None or not host.accelerators)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
