"""Jobs behind SGLang's gateway: what it does not tell is found, and it is told which requests belong together."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from programs.documents.ask import Asker
from programs.documents.run import Runner
from programs.effort import solve
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.transport import BackendError, HttpTransport
from tests.documents.fake_ray import fake_ray
from tests.documents.ray_cluster import ASKING, Watched, document_of, nothing, runner_on, units_of, watched
from tests.fake_http import running

CONTEXTS = (32_768, 8_192)


class Gateway(Watched):
    """Knows of `/model_info` what smg 1.13 does: its former name, and contexts only where it lists its workers."""

    def __init__(self, script, contexts=CONTEXTS) -> None:
        super().__init__(script, nothing)
        self.contexts = contexts
        watched_handler = self.RequestHandlerClass

        class Handler(watched_handler):
            def do_GET(self) -> None:
                info = self.server.script.model_info()
                workers = [{"url": "http://w", "models": [{"id": "m", "context_length": c}]} for c in contexts]
                known = {
                    "/get_model_info": {name: info[name] for name in ("model_path", "tokenizer_path", "model_type")},
                    "/v1/models": {"object": "list", "data": [{"id": "m", "object": "model"}]},
                    "/workers": {"workers": workers, "total": len(workers)},
                }
                unknown = {"error": {"message": f"Invalid URL (GET {self.path})"}}
                self.send(200 if self.path in known else 404, known.get(self.path, unknown))

        self.RequestHandlerClass = Handler


@contextmanager
def gateway(contexts=CONTEXTS) -> Iterator[Gateway]:
    with watched() as server, running(Gateway(server.script, contexts)) as started:
        yield started


@pytest.mark.parametrize("contexts, told", [(CONTEXTS, 8_192), ((None, 4_096), 4_096), ((None,), None), ((), None)])
def test_the_smallest_context_behind_a_gateway_counts(contexts, told) -> None:
    with gateway(contexts) as server:
        transport = HttpTransport(server.url, None, 5.0)
        assert transport.model_info()["context_length"] == told
        transport.close()


def test_what_is_neither_server_nor_gateway_is_told_by_the_path_of_a_server() -> None:
    with gateway() as server:
        transport = HttpTransport(server.url + "/elsewhere", None, 5.0)
        with pytest.raises(BackendError, match="does not know /model_info"):
            transport.model_info()
        transport.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_all_requests_of_a_document_carry_its_key(workers: int) -> None:
    units = units_of(4, 2)
    with ExitStack() as stack:
        server = stack.enter_context(gateway())
        if workers:
            stack.enter_context(fake_ray({"CPU": float(workers)}))
            runner = stack.enter_context(runner_on("", server.url))
        else:
            backend = stack.enter_context(Small4Backend(server.url))
            runner = Runner(Asker(backend, ASKING.budget, 0.0, Cancellation()), ASKING.concurrency)
        assert all(outcome.answer for outcome in runner(units))
    keys = {(document_of(prompt), key) for _, key, prompt in server.requests}
    assert len(server.requests) == 4 * (1 + 2 * 2)
    assert keys == {(document_of(unit.document.text), unit.document.text_sha256) for unit in units}


def test_a_backend_without_a_key_sends_none_and_its_routed_twin_does() -> None:
    with gateway() as server, Small4Backend(server.url) as backend:
        for each, key in ((backend, None), (backend.routed("a key"), "a key"), (backend, None)):
            before = len(server.requests)
            assert solve("What is thing 0?", backend=each, document="Report 0. The cat is grey.").answer == "grey"
            assert {sent for _, sent, _ in server.requests[before:]} == {key}
