"""A job's units asked of a server that fails in every way: waited for, tried again within bounds, or recorded."""

import json
import socket
import threading
import time
from collections import deque
from concurrent.futures import ALL_COMPLETED
from contextlib import contextmanager

import pytest

from programs.documents import run
from programs.documents.ask import Asker
from programs.documents.document import Document
from programs.documents.job import Unit
from programs.documents.plan import Budget, Part
from programs.documents.question import Question
from programs.documents.run import JobStopped, Runner
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from tests.documents.reader import asked_questions, reading_model, turns
from tests.fake_http import FakeHTTPServer, JSONHandler, running

TEXT = "fee: 700\nterm: 12 months\n"


class Failing(FakeHTTPServer):
    """Answers as the reading model does, after the given failures."""

    def __init__(self, *failures, of="") -> None:
        super().__init__(Handler)
        self.failures, self.of = deque(failures), of
        self.script = reading_model()
        self.times: list[float] = []


class Handler(JSONHandler):
    server: Failing

    def do_GET(self) -> None:
        self.send(200, self.server.script.model_info())

    def do_POST(self) -> None:
        fields = self.read()
        self.server.times.append(time.monotonic())
        concerned = self.server.of in "".join(turns(fields["input_ids"])) if self.server.of else True
        if concerned and self.server.failures:
            return self.fail(self.server.failures.popleft())
        self.send(200, self.server.script.generate(fields, fields["rid"]))

    def fail(self, failure) -> None:
        match failure:
            case "drop":
                self.connection.shutdown(socket.SHUT_RDWR)
            case "hang":
                time.sleep(2)
            case "cut":
                self.send_response(200)
                self.send_header("Content-Length", "1000")
                self.end_headers()
                self.wfile.write(b'{"output_ids": [1, 2')
                self.connection.shutdown(socket.SHUT_RDWR)
            case (status, headers):
                self.send(status, {"error": {"message": "no"}}, headers)
            case bytes():
                self.send(200, failure)
            case _:
                self.send(failure, {"error": {"message": "no"}})


def units(*names: str, texts=(TEXT,)) -> list[Unit]:
    documents = [Document(f"{place}.txt", "text", "", text) for place, text in enumerate(texts)]
    return [
        Unit(f"{document.name} {name}", document, Part(0, len(document.text), 10), question)
        for document in documents
        for name in names
        for question in [Question(id=name, question=f"What is the {name}?", effort="none")]
    ]


@contextmanager
def runner(server: Failing, concurrency=1, patience=5.0, timeout=60.0, say=lambda sentence: None):
    with Small4Backend(server.url, timeout=timeout) as backend:
        yield Runner(Asker(backend, Budget(32_768, 64, 64), None, Cancellation()), concurrency, patience, say)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch):
    monkeypatch.setattr(run, "FIRST_WAIT", 0.01)
    monkeypatch.setattr(run, "POLL", 0.05)


def values(outcomes) -> dict[str, object]:
    return {outcome.unit.question.id: outcome.answer and outcome.answer.value for outcome in outcomes}


@pytest.mark.parametrize("failure", [500, 502, b"not json", b'{"text": 1}', b'{"output_ids": [', "drop", "cut", "hang"])
def test_one_failure_is_tried_again(failure):
    with running(Failing(failure)) as server, runner(server, timeout=1.0) as run:
        assert values(run(units("fee", "term"))) == {"fee": "700", "term": "12 months"}


def test_a_server_that_asks_for_patience_gets_it():
    with running(Failing((429, {"Retry-After": "2"}), 503)) as server, runner(server) as run:
        assert values(run(units("fee"))) == {"fee": "700"}
        assert server.times[1] - server.times[0] >= 2


def test_what_the_server_calls_wrong_is_not_sent_again_and_the_others_go_on():
    with running(Failing(*[400] * 9, of="fee")) as server, runner(server) as run:
        outcomes = list(run(units("fee", "term")))
        assert values(outcomes) == {"fee": None, "term": "12 months"}
        assert len(server.failures) == 8 and "refused" in outcomes[0].failure


def test_a_failure_that_stays_is_recorded_after_a_bounded_number_of_tries():
    with running(Failing(*[500] * 50, of="fee")) as server, runner(server) as run:
        assert values(run(units("fee", "term"))) == {"fee": None, "term": "12 months"}
        assert len(server.failures) == 50 - run_attempts()


def run_attempts() -> int:
    return run.ATTEMPTS


def test_a_job_of_nothing_but_failures_is_stopped():
    names = [f"n{number}" for number in range(100)]
    with running(Failing(*[500] * 1000)) as server, runner(server, concurrency=4) as run_:
        with pytest.raises(JobStopped, match="in a row failed"):
            list(run_(units(*names)))
        assert len(server.failures) > 1000 - 3 * 40


def test_a_server_that_dies_and_comes_back_is_waited_for():
    said: list[str] = []
    server = Failing()
    address = server.server_address
    with running(server), runner(server, patience=20, say=said.append) as run:
        outcomes = run(units("fee", "term", "fee ", "term "))
        assert next(outcomes).answer
        server.shutdown()
        server.server_close()

        def restart() -> None:
            time.sleep(1.5)
            again = Failing.__new__(Failing)
            again.allow_reuse_address = True
            FakeHTTPServer.__bases__[0].__init__(again, address, Handler)
            again.failures, again.of, again.script, again.times = deque(), "", server.script, []
            again.serve_forever(0.01)

        threading.Thread(target=restart, daemon=True).start()
        assert len(list(outcomes)) == 3
    assert "Waiting" in said[0] and said[-1] == "The server is back."


def test_a_server_that_stays_away_stops_the_job():
    server = Failing()
    with running(server), runner(server, patience=0.3) as run:
        server.shutdown()
        server.server_close()
        with pytest.raises(JobStopped, match="run the same command again"):
            list(run(units("fee")))


def test_each_document_is_read_once_and_they_come_one_after_the_other():
    texts = [f"fee: {number}\nterm: {number} months\n" for number in range(5)]
    with running(Failing()) as server, runner(server, concurrency=4) as run:
        outcomes = list(run(units("fee", "term", texts=texts)))
        assert all(outcome.answer for outcome in outcomes)
        read = [f for f in server.script.asked if not f["sampling_params"]["max_new_tokens"]]
        assert len(read) == 5
        assert len(asked_questions(server.script)) == 5 * 2 * 2


def test_leaving_the_loop_gives_up_what_still_runs():
    with running(Failing()) as server, runner(server, concurrency=2) as run:
        for _ in run(units(*[f"fee{number}" for number in range(50)])):
            break
        assert run.asker.cancel.is_set() and len(server.script.asked) < 20


def test_a_server_that_hangs_does_not_keep_a_job_from_ending(monkeypatch):
    monkeypatch.setattr(run, "GIVING_UP", 0.1)
    with running(Failing("hang", of="term")) as server, runner(server, concurrency=2) as run_:
        outcomes = run_(units("fee", "term"))
        assert next(outcomes).answer
        began = time.monotonic()
        outcomes.close()
        assert time.monotonic() - began < 1
        assert not any(thread.name.startswith("Thread") and not thread.daemon for thread in threading.enumerate())


def test_what_was_answered_beside_a_question_that_stops_the_job_is_given_out(monkeypatch):
    class Stopping(Runner):
        def _outcome(self, unit, text):
            if unit.question.id == "fee":
                raise JobStopped("The server is gone.")
            return super()._outcome(unit, text)

    monkeypatch.setattr(run, "FIRST_COMPLETED", ALL_COMPLETED)
    with running(Failing()) as server, runner(server, concurrency=2) as usual:
        outcomes = Stopping(usual.asker, 2)(units("fee", "term"))
        assert next(outcomes).answer.answer == "12 months"
        with pytest.raises(JobStopped):
            next(outcomes)


def test_failures_are_sentences():
    with running(Failing(*[500] * 9)) as server, runner(server) as run:
        (outcome,) = run(units("fee"))
    assert outcome.failure.count("\n") == 0 and json.dumps(outcome.failure)
