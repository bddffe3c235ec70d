"""Document jobs on a real Ray cluster of this host, whose workers share one server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.documents.ray_cluster import Cluster, UntilTwoAsk, ray_cluster, runner_on, units_of, watched

pytestmark = pytest.mark.slow

DRIVER = """
import sys
from tests.documents.ray_cluster import runner_on, units_of

try:
    with runner_on(sys.argv[1], sys.argv[2]) as runner:
        for outcome in runner(units_of(6, 3)):
            print(outcome.unit.key, flush=True)
except KeyboardInterrupt:
    print("given up", flush=True)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with ray_cluster() as started:
        yield started


def test_each_document_is_asked_by_one_worker_and_all_are_answered(cluster: Cluster) -> None:
    units = units_of(6, 3)
    with watched(UntilTwoAsk()) as server, runner_on(cluster.address, server.url) as runner:
        outcomes = list(runner(units))
        assert list(runner([])) == []
    assert sorted(outcome.unit.key for outcome in outcomes) == [unit.key for unit in units]
    assert all(outcome.answer and outcome.answer.answer == "grey" for outcome in outcomes)
    assert all(outcome.answer and outcome.answer.citations[0].grade == "exact" for outcome in outcomes)
    assert all(outcome.unit in units for outcome in outcomes)
    workers = server.workers()
    assert all(len(processes) == 1 for processes in workers.values())
    assert len(set.union(*workers.values())) == 2 and os.getpid() not in set.union(*workers.values())
    assert len(server.requests) == 6 * (1 + 2 * 3)  # the text, then an answer and its quotes for each question
    texts = {unit.document.text_sha256: unit.document.text for unit in units}
    assert all(key and texts[key] in prompt for _, key, prompt in server.requests)


def test_a_host_outside_of_the_cluster_can_have_it_ask(cluster: Cluster) -> None:
    with watched() as server, runner_on(cluster.client, server.url) as runner:
        outcomes = list(runner(units_of(2, 2)))
    assert [bool(outcome.answer) for outcome in outcomes] == [True] * 4
    assert all(len(processes) == 1 for processes in server.workers().values())


def test_what_a_killed_worker_left_is_asked_by_another_and_nothing_twice(cluster: Cluster) -> None:
    units, said = units_of(6, 4), []
    before: set[str] = set()
    keys: list[str] = []
    with watched(UntilTwoAsk()) as server, runner_on(cluster.address, server.url, say=said.append) as runner:
        for outcome in runner(units):
            assert outcome.answer is not None
            keys.append(outcome.unit.key)
            if len(keys) == 5:
                before = set(keys)
                victim = next(iter(server.workers()[outcome.unit.document.name.removesuffix(".txt")]))
                os.kill(victim, signal.SIGKILL)
    assert sorted(keys) == [unit.key for unit in units]
    asked = server.asked()
    assert {key: asked[key] for key in before} == dict.fromkeys(before, 1)
    assert any(len(processes) > 1 for processes in server.workers().values())
    assert len(said) == 1 and said[0].startswith("A worker of the Ray cluster died")


@pytest.mark.parametrize("end, words", [(signal.SIGKILL, []), (signal.SIGINT, ["given up"])])
def test_no_worker_outlives_the_job(cluster: Cluster, end: signal.Signals, words: list[str]) -> None:
    both = UntilTwoAsk()
    with watched(both) as server:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, cluster.address, server.url],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert driver.stdout and driver.stdout.readline().strip() in {unit.key for unit in units_of(6, 3)}
        driver.send_signal(end)
        printed, errors = driver.communicate(timeout=30)
        until = time.monotonic() + 20
        while any(map(psutil.pid_exists, both.processes)) and time.monotonic() < until:
            time.sleep(0.1)
        assert len(both.processes) == 2 and not any(map(psutil.pid_exists, both.processes))
    assert printed.splitlines()[-1:] == words or not words
    assert "Traceback" not in errors
