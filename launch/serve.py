"""`small4 serve`: check what can be checked at once, add a profile's arguments, become `sglang serve`.

Everything that fails here fails before SGLang is imported, which takes many seconds.
"""

import argparse
import os
import socket
import sys
from pathlib import Path
from typing import NoReturn

from launch.errors import LaunchError
from launch.host import Host
from launch.profiles import Profiles, as_command_line

SGLANG = "from launch.serve import sglang; sglang()"
SGLANG_WITH_GRAPHS = "from launch.graphs import sglang; sglang()"


def sglang() -> None:
    """SGLang's own command line, with a checkpoint that does not fit told in one sentence."""
    from sglang.cli.main import main

    from sgl_small4.checkpoint.inventory import CheckpointError
    from sgl_small4.config import ConfigError

    try:
        main()
    except (ConfigError, CheckpointError) as error:
        sys.exit(f"small4: {error}")


def serve(arguments: list[str], profile: str | None, graphs: bool = False) -> NoReturn:
    """Replace this process by SGLang's server, so that signals and the exit code are its own."""
    command = command_line(arguments, profile, Host(), graphs)
    sys.stdout.flush()
    os.execv(command[0], command)


def command_line(arguments: list[str], profile: str | None, host: Host, graphs: bool = False) -> list[str]:
    """The whole command for `[MODEL] [SGLang arguments]`, checked; raises LaunchError with what to do.

    A profile's arguments stand before the caller's: argparse keeps the last value, whichever spelling was used. A
    configuration file (`--config`) would lose against them, so with one the profile is left out. With `graphs` the
    chat route also runs graphs, at the efforts auto and deliberate.
    """
    given, passed_on = _read(arguments)
    model = check_model(given.model_path)
    defaults = {} if given.config else defaults_for(model, profile, host)
    address = (given.host or str(defaults.get("host", "127.0.0.1")), given.port or int(defaults.get("port", 30000)))
    if not given.config:
        check_port_is_free(*address)
    return [
        *(sys.executable, "-c", SGLANG_WITH_GRAPHS if graphs else SGLANG, "serve", "--model-path", str(model)),
        *as_command_line(defaults),
        *passed_on,
    ]


def defaults_for(model: Path, profile: str | None, host: Host) -> dict[str, bool | int | float | str]:
    """The arguments of the named profile, else of the one written for this host, else those common to all."""
    from sgl_small4.config import Small4Config
    from sgl_small4.nano import CHECKPOINT

    profiles = Profiles.load()
    name = profile or profiles.fitting(host.accelerators)
    arguments = dict(profiles.common)
    if name is not None:
        arguments |= profiles.named(name).arguments
    if "context-length" in arguments:
        longest = Small4Config.from_folder(model).max_position_embeddings
        arguments["context-length"] = min(int(arguments["context-length"]), longest)
    # /v1/responses answers to the served name alone, which would be the folder's path.
    arguments["served-model-name"] = "nano" if model == CHECKPOINT else model.resolve().name
    return arguments


def check_model(model: str | Path | None) -> Path:
    """The folder of a Small 4 checkpoint; None means nano, the bundled one."""
    from sgl_small4.config import ConfigError, Small4Config, weight_files
    from sgl_small4.nano import CHECKPOINT

    folder = CHECKPOINT if model is None else Path(model)
    if not folder.is_dir():
        raise LaunchError(
            f"There is no folder {str(folder)!r}: give the folder of a checkpoint "
            "(`hf download ORG/NAME --local-dir FOLDER` fetches one), or leave it out to serve the bundled nano."
        )
    try:
        Small4Config.from_folder(folder)
        weight_files(folder)
    except ConfigError as error:
        raise LaunchError(str(error)) from error
    return folder


def check_port_is_free(host: str, port: int) -> None:
    if not 0 < port < 65536:
        raise LaunchError(f"{port} is no port: choose one from 1 to 65535 with --port.")
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as uvicorn does
            probe.bind(address)
    except OSError as error:
        raise LaunchError(
            f"The server cannot listen on {host}:{port} ({error}): "
            "stop what uses this port, or choose another with --port."
        ) from error


def _read(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """What this command itself needs to know of the arguments, and the arguments without MODEL and --model-path."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--model-path", "--model")
    if arguments and not arguments[0].startswith("-"):
        arguments = ["--model-path", *arguments]
    kept = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    kept.add_argument("--host")
    kept.add_argument("--port", type=int)
    kept.add_argument("--config")
    try:
        model, passed_on = parser.parse_known_args(arguments)
        given, _ = kept.parse_known_args(passed_on)
    except argparse.ArgumentError as error:
        raise LaunchError(f"An argument cannot be read: {error}.") from error
    given.model_path = model.model_path
    return given, passed_on
