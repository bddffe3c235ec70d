"""A fault inside the server ends it with one last line and exit code 1, and leaves no process and no waiting client."""

import os
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from launch.server import Server
from sgl_small4.ending import CRASHED
from sgl_small4.nano import CHECKPOINT
from tests.serve import faulty

pytestmark = pytest.mark.slow
LAUNCHER = (sys.executable, faulty.__file__, "serve", "--model-path")
ARGUMENTS = ("--max-running-requests", "16", "--context-length", "8192", "--max-total-tokens", "2048")
END_SECONDS = 20


def refused(http: httpx.Client, prompt_tokens: int, max_tokens: int) -> str:
    body = {"input_ids": [300] * prompt_tokens, "sampling_params": {"max_new_tokens": max_tokens}}
    response = http.post("/generate", json=body)
    assert response.status_code == 400, response.text
    return response.json()["error"]["message"]


def check_limits_of_a_small_cache(http: httpx.Client) -> None:
    """The cache of 2,048 tokens is smaller than the context, and what it cannot hold never waits."""
    assert "prompt 10 + max tokens 2039 = 2049 tokens > cache 2048" in refused(http, 10, 2039)
    assert "prompt 2045 tokens > 2041" in refused(http, 2045, 1)
    assert "prompt 3000 + max tokens 1 = 3001 tokens > cache 2048" in refused(http, 3000, 1)
    fits = http.post("/generate", json={"input_ids": [300] * 2000, "sampling_params": {"max_new_tokens": 40}})
    assert fits.status_code == 200


def group_ends(pid: int) -> bool:
    """Whether the server's process group is empty soon: its helpers end when they see that it has."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        try:
            os.killpg(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize("place", ["forward", "detokenizer"])
def test_a_fault_ends_the_server_and_every_waiting_client(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SMALL4_FAULT", place)
    with Server(CHECKPOINT, ARGUMENTS, tmp_path / "log", LAUNCHER) as server:
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as http:
            if place == "forward":
                check_limits_of_a_small_cache(http)
            outcomes: list[str] = []

            def ask(*ids: int, tokens: int = 4) -> None:
                sampling = {"max_new_tokens": tokens, "ignore_eos": True}
                try:
                    http.post("/generate", json={"input_ids": ids, "sampling_params": sampling})
                except httpx.TransportError as error:
                    outcomes.append(type(error).__name__)

            clients = [threading.Thread(target=ask, args=(300,), kwargs={"tokens": 1200})]
            clients[0].start()
            while not http.get("/v1/loads").json()["loads"][0]["num_running_reqs"]:
                time.sleep(0.05)
            began = time.monotonic()
            clients.append(threading.Thread(target=ask, args=(300, faulty.FAULTY)))
            clients[1].start()
            assert server.process.wait(END_SECONDS) == 1
            for client in clients:
                client.join(END_SECONDS)
            assert time.monotonic() - began < END_SECONDS
        assert len(outcomes) == 2  # both were told by their connections, and none waits
        assert "ZeroDivisionError: broken on purpose" in server.log.read_text()
        assert server.last_words() == CRASHED.removeprefix("small4: ")
        assert group_ends(server.process.pid)
