"""Whatever ends, and however, nothing is left running and the other side says so in one sentence."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from launch.server import Server
from tests.launch.commands import the_sentence

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]
LONG = "What is 47+86+35+29+58+17?"


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A variable in the environment of all that a test starts, by which it can be found afterwards."""
    mark = f"SMALL4_TEST={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))
    yield mark
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """The running processes that carry the mark, without this one, whose own environment was set after its start."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue  # another user's, or ended meanwhile
    return found


def nothing_is_left(mark: str, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while marked(mark):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def ask(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "launch.cli", "ask", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result_of(process: subprocess.Popen[str]) -> subprocess.CompletedProcess[str]:
    stdout, stderr = process.communicate(timeout=300)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def test_a_question_without_a_server_starts_one_and_leaves_none(mark: str):
    result = subprocess.run(
        [sys.executable, "-m", "launch.cli", "ask", "What is 7+5?"],
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert (result.returncode, result.stdout.strip()) == (0, "12"), result.stderr
    assert "small4 serve" in result.stderr and "--server" in result.stderr  # how to keep one warm
    assert nothing_is_left(mark)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM], ids=["interrupted", "terminated"])
def test_a_question_that_is_stopped_while_its_server_starts_leaves_none(how: signal.Signals, mark: str):
    process = ask("What is 7+5?")
    while len(marked(mark)) < 4:  # the question, the server, its resource tracker and its scheduler
        assert process.poll() is None
        time.sleep(0.2)
    process.send_signal(how)
    assert process.wait(30) != 0
    assert nothing_is_left(mark)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_that_ends_in_the_middle_of_an_answer(how: signal.Signals, mark: str, tmp_path: Path):
    with Server(log=tmp_path / "log") as server:
        process = ask(LONG, "--effort", "high", "--server", server.url)
        assert process.stderr is not None
        assert process.stderr.read(3)  # the trace has begun
        os.kill(server.process.pid, how)
        result = result_of(process)
        if how is signal.SIGKILL:
            assert "went away in the middle of the answer" in the_sentence(result)
        else:  # SGLang may let a running answer end before it does
            assert result.returncode == 0 or the_sentence(result)
        server.process.wait(30)
        assert nothing_is_left(mark)
