"""What tests of several folders share: one nano server for the whole run."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.server import Server


def pytest_configure() -> None:
    """A shell's background job ignores SIGINT, and all it starts would inherit that: tests interrupt processes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def nano_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """`small4 serve` with the bundled nano on a free loopback port, at `nano_server.url`; stopped after the last test.

    Its log is `nano_server.log`; the end of it is shown with every failed test that used the server.
    """
    with Server(log=tmp_path_factory.mktemp("nano-server") / "server.log") as server:
        yield server


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    server = getattr(item, "funcargs", {}).get("nano_server")
    if report.failed and server is not None:
        report.sections.append(("end of the nano server's log", log_end(server.log)))
    return report


def log_end(log: Path, lines: int = 40) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
