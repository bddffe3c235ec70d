"""What is no Ray cluster is told in a sentence, and soon."""

import socket
import sys
import time

import pytest

from programs.documents import cluster
from programs.errors import ProgramError
from tests.documents.ray_cluster import free_port, runner_on
from tests.fake_http import FakeHTTPServer, JSONHandler, running


def joining(address: str) -> str:
    with pytest.raises(ProgramError) as raised, runner_on(address, "http://127.0.0.1:9"):
        pass
    said = str(raised.value)
    assert "\n" not in said and said.endswith((".", "`."))
    return said


@pytest.mark.parametrize("address", ["", "banana", "host:", ":6379", "host:port", "host:99999", "http://host:1"])
def test_what_is_no_address_is_refused(address: str) -> None:
    assert "is no address of a Ray cluster" in joining(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_where_nothing_listens_is_told_at_once(scheme: str) -> None:
    began = time.monotonic()
    assert "No Ray cluster is at" in joining(f"{scheme}127.0.0.1:{free_port()}")
    assert time.monotonic() - began < 5


def test_an_address_where_something_else_listens_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 3.0)
    with running(FakeHTTPServer(JSONHandler)) as server:
        assert "is no Ray cluster" in joining(f"127.0.0.1:{server.server_port}")


def test_an_address_that_never_answers_is_told_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 3.0)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert "is no Ray cluster" in joining(f"127.0.0.1:{silent.getsockname()[1]}")


def test_a_host_without_ray_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert joining("auto") == "Ray is not installed: pip install 'sgl-small4[ray]'."
