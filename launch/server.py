"""A private server: `small4 serve` as a child on a free loopback port, stopped with everything it started."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import httpx
from rich.console import Console

from launch.errors import LaunchError
from programs.chat_api import base_url

STARTUP_SECONDS = 600
STOP_SECONDS = 10
SMALL4_SERVE = (sys.executable, "-m", "launch.cli", "serve")
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Server:
    """`with Server(model) as server:` serves `model` at `server.url` until the block ends, however it ends.

    The child leads a process group of its own, which is swept at the end, and is told to end when this process dies
    without reaching the end. Its output goes to `log`; without one, to a file that is removed when all went well.
    `launcher` may be any command that takes a model and SGLang's arguments, such as `sglang serve`.
    """

    def __init__(
        self,
        model: Path | None = None,
        arguments: Sequence[str] = (),
        log: Path | None = None,
        launcher: Sequence[str] = SMALL4_SERVE,
    ) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._keep_log = log is not None
        self.log = log or _new_log()
        self.command = [
            *launcher,
            *([str(model)] if model else []),
            *("--host", "127.0.0.1", "--port", str(self.port)),
            *arguments,
        ]

    def __enter__(self) -> "Server":
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and not self._keep_log:
            self.log.unlink()

    def stop(self) -> None:
        """End the server and its children; after this none of its process group is left."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass  # the sweep below ends it
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass  # the usual case: nothing of the group was left
        self.process.wait()

    def last_words(self) -> str:
        """The last line of the log that is not blank."""
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("small4: ") if lines else "nothing was printed"

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTUP_SECONDS
        with httpx.Client(base_url=self.url, timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self.process.poll() is not None:
                    raise LaunchError(f"The server did not start: {self.last_words()} (its log: {self.log})")
                try:
                    if client.get("/ready").status_code == 200:
                        return
                except httpx.TransportError:
                    pass  # not listening yet
                time.sleep(0.1)
        raise LaunchError(f"The server was not ready after {STARTUP_SECONDS} s: see its log, {self.log}.")


@contextmanager
def serving(
    server: str | None, purpose: str = "", remarks: Console | None = None, model: Path | None = None
) -> Iterator[str]:
    """The URL of `server`; without one, of a private server of `model` (nano without one) that ends with the block,
    which `remarks` say."""
    if server:
        yield base_url(server)
        return
    if remarks is not None:
        remarks.print(f"starting a server {purpose}; add --server URL to use one that runs")
    with Server(model) as private:
        yield private.url


def _new_log() -> Path:
    with tempfile.NamedTemporaryFile(prefix="small4-server-", suffix=".log", delete=False) as file:
        return Path(file.name)


def _end_with_parent() -> None:
    """Runs in the child before it becomes the server: Linux sends it SIGTERM when the parent dies."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
