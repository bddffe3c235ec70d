"""A private server leaves nothing running, however its owner and it end. A small program stands in for SGLang here."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from launch.errors import LaunchError
from launch.server import Server

# Starts a helper process, says both process ids, then answers every GET with 200, and SIGTERM as it is told to.
STAND_IN = """
import http.server, os, signal, subprocess, sys
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"])
print(os.getpid(), helper.pid, flush=True)
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
port = int(sys.argv[sys.argv.index("--port") + 1])
http.server.HTTPServer(("127.0.0.1", port), Ready).serve_forever()
"""
LAUNCHER = (sys.executable, "-c", STAND_IN)


def processes(log: Path) -> list[int]:
    return [int(pid) for pid in log.read_text().splitlines()[0].split()]


def runs(pid: int) -> bool:
    """Whether a process is there and is not one that ended and waits to be collected."""
    status = Path(f"/proc/{pid}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def all_end(pids: list[int], seconds: float = 5) -> bool:
    return eventually(lambda: not any(map(runs, pids)), seconds)


def eventually(true: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def test_it_answers_inside_the_block_and_is_gone_with_its_helper_after_it(tmp_path: Path):
    with Server(log=tmp_path / "log", launcher=LAUNCHER) as server:
        assert httpx.get(server.url).status_code == 200
        pids = processes(server.log)
        assert all(map(runs, pids))
    assert all_end(pids)
    assert (tmp_path / "log").exists()


def test_the_log_nobody_asked_for_is_removed_when_all_went_well():
    with Server(launcher=LAUNCHER) as server:
        assert server.log.exists()
    assert not server.log.exists()


def test_an_error_inside_the_block_stops_it_and_keeps_the_log():
    with pytest.raises(ZeroDivisionError), Server(launcher=LAUNCHER) as server:
        _ = 1 / 0
    assert all_end(processes(server.log))
    server.log.unlink()


def test_a_server_that_ignores_the_request_to_end_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launch.server.STOP_SECONDS", 0.5)
    with Server(log=tmp_path / "log", launcher=LAUNCHER, arguments=["--stubborn"]) as server:
        pids = processes(server.log)
    assert all_end(pids)


def test_a_server_that_ends_before_it_is_ready_is_an_error_with_its_last_words(tmp_path: Path):
    code = "print('starting'); raise SystemExit('the weights are torn')"
    with pytest.raises(LaunchError, match="the weights are torn"):
        Server(log=tmp_path / "log", launcher=(sys.executable, "-c", code)).__enter__()


def test_a_server_that_is_never_ready_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("launch.server.STARTUP_SECONDS", 1)
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(300)"
    with pytest.raises(LaunchError, match="not ready after 1 s"):
        Server(log=tmp_path / "log", launcher=(sys.executable, "-c", code)).__enter__()
    assert all_end(processes(tmp_path / "log"))


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is Linux's")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_its_owner(how: signal.Signals, tmp_path: Path):
    log = tmp_path / "log"
    owner = textwrap.dedent(f"""
        import signal
        import time
        from pathlib import Path
        from launch.server import Server
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in a shell's background starts with it ignored
        with Server(log=Path({str(log)!r}), launcher={LAUNCHER!r}):
            print("serving", flush=True)
            time.sleep(300)
    """)
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"serving\n"
        server, helper = processes(log)
        os.kill(process.pid, how)
        process.wait(10)
    ended = all_end([server])
    if runs(helper):  # only SGLang's own children watch their parent; this stand-in's does not
        os.kill(helper, signal.SIGKILL)
    assert ended
