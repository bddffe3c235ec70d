"""How many workers a cluster is asked for, who is given which document, and what becomes of those of a lost one."""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from programs.documents.cluster import LIVES, TRIES, ClusterRunner
from programs.documents.run import IN_A_ROW, JobStopped
from programs.errors import ProgramError
from sgl_small4.prompt.transport import BackendError
from tests.documents.fake_ray import FakeRay, fake_ray
from tests.documents.ray_cluster import ASKING, document_of, free_port, runner_on, units_of, watched
from tests.programs.scripted import served
from tests.prompt.scripted import Scripted

TWO = {"CPU": 2.0}


def workers_of(ray: FakeRay, *urls: str, engine: dict[str, Any] | None = None) -> int:
    runner = ClusterRunner("", "a model", ASKING, urls=urls, engine=engine)
    with runner, pytest.raises(JobStopped):  # nothing answers
        list(runner(units_of(1, 1)))
    return len(ray.actors)


@pytest.mark.parametrize(
    "hosts, servers, workers",
    [
        ([{"CPU": 2.0}], 1, 2),
        ([{"CPU": 1.0}], 1, 1),
        ([{"CPU": 64.0}], 1, 2),
        ([{"CPU": 64.0}], 5, 5),
        ([{"CPU": 8.0}] * 4, 1, 4),
        ([{"CPU": 8.0}] * 4 + [{}], 1, 4),
    ],
)
def test_servers_and_hosts_have_a_worker_each(hosts: list[dict[str, float]], servers: int, workers: int) -> None:
    with fake_ray(*hosts, dies=lambda method, _: method == "start") as ray:
        urls = [f"http://127.0.0.1:{free_port()}" for _ in range(servers)]
        assert workers_of(ray, *urls) == workers * LIVES
        assert {actor.worker._target for actor in ray.actors} == set(urls)
        assert ray.needs == {"num_cpus": 1}


@pytest.mark.parametrize(
    "hosts, engine, workers, needs",
    [
        ([{"CPU": 4.0}, {"CPU": 8.0}], {}, 2, {"num_cpus": 4}),
        ([{"CPU": 32.0, "GPU": 8.0}], {"tp_size": 4}, 2, {"num_cpus": 1, "num_gpus": 4}),
        ([{"CPU": 32.0, "GPU": 6.0}] * 2 + [TWO], {"tp_size": 2, "dp_size": 2}, 2, {"num_cpus": 1, "num_gpus": 4}),
    ],
)
def test_an_engine_has_its_gpus_or_a_host(
    hosts: list[dict[str, float]], engine: dict[str, int], workers: int, needs: dict[str, float]
) -> None:
    with fake_ray(*hosts, dies=lambda method, _: method == "start") as ray:
        assert workers_of(ray, engine={"model_path": "m", **engine}) == workers * LIVES
        assert ray.needs == needs


@pytest.mark.parametrize(
    "host, engine, said",
    [({"CPU": 0.5}, {}, "has no CPU to give"), ({"CPU": 8.0, "GPU": 2.0}, {"tp_size": 4}, "has the 4 GPUs")],
)
def test_a_cluster_without_room_is_told(host: dict[str, float], engine: dict[str, int], said: str) -> None:
    runner = ClusterRunner("", "m", ASKING, engine={"model_path": "m", **engine})
    with fake_ray(host), runner, pytest.raises(ProgramError, match=said):
        list(runner(units_of(1, 1)))


def test_a_worker_has_two_documents_at_most_and_each_is_sent_once() -> None:
    held: list[int] = []
    with fake_ray({"CPU": 1.0}) as ray, watched() as server, runner_on("", server.url) as runner:
        for _ in runner(units_of(5, 3)):
            held.append(sum(thread.is_alive() for thread in ray.actors[0].worker._threads))
    assert max(held) == 2 and ray.put_count == 5


def test_a_document_that_ends_its_workers_is_given_up_and_the_others_are_answered() -> None:
    def dies(method: str, arguments: Sequence[Any]) -> bool:
        return method == "give" and arguments[1].name == "1.txt"

    said: list[str] = []
    with fake_ray(TWO, dies=dies) as ray, watched() as server, runner_on("", server.url, say=said.append) as runner:
        outcomes = {outcome.unit.key: outcome for outcome in runner(units_of(4, 2))}
    failed = {key: outcome.failure for key, outcome in outcomes.items() if outcome.answer is None}
    assert len(outcomes) == 8 and failed.keys() == {"1: thing 0", "1: thing 1"}
    assert all(why.startswith("3 workers were lost while they asked it") for why in failed.values())
    assert said == ["A worker of the Ray cluster died (Its process ended.)."] * TRIES
    assert len(ray.actors) == 2 + TRIES


def test_workers_that_only_die_end_the_job() -> None:
    with fake_ray(TWO, dies=lambda method, _: method == "start") as ray, watched() as server:
        with runner_on("", server.url) as runner, pytest.raises(JobStopped, match="No worker .* is left"):
            list(runner(units_of(2, 1)))
    assert len(ray.actors) == 2 * LIVES


def test_a_server_with_another_model_is_not_asked() -> None:
    said: list[str] = []
    with ExitStack() as stack:
        stack.enter_context(fake_ray(TWO))
        server, other = stack.enter_context(watched()), stack.enter_context(served(Scripted(lambda ids, fields: "")))
        other.script.model_info = lambda: {**Scripted.model_info(other.script), "model_path": "other"}  # type: ignore[method-assign]
        runner = stack.enter_context(runner_on("", server.url, other.url, say=said.append))
        outcomes = list(runner(units_of(3, 1)))
        assert all(outcome.answer for outcome in outcomes) and len(outcomes) == 3
        assert not other.script.asked
        assert len(said) == 1 and said[0].startswith(f"{other.url} serves 'other' and not ")


def test_servers_that_are_not_there_end_the_job_with_the_reason() -> None:
    with fake_ray(TWO), runner_on("", f"http://127.0.0.1:{free_port()}") as runner:
        with pytest.raises(JobStopped, match="cannot be reached.*What was answered is kept"):
            list(runner(units_of(2, 1)))


def test_failures_in_a_row_end_the_job() -> None:
    refusing = Scripted(lambda ids, fields: BackendError("no"))
    outcomes = []
    with fake_ray(TWO), served(refusing) as server, runner_on("", server.url) as runner:
        with pytest.raises(JobStopped, match=f"{IN_A_ROW} questions in a row failed"):
            for outcome in runner(units_of(20, 2)):
                outcomes.append(outcome)
    assert len(outcomes) == IN_A_ROW and not any(outcome.answer for outcome in outcomes)


def test_leaving_the_loop_ends_the_workers() -> None:
    with fake_ray(TWO) as ray, watched() as server, runner_on("", server.url) as runner:
        for outcome in runner(units_of(4, 3)):
            assert document_of(outcome.unit.document.text)
            break
        asked = len(server.requests)
        assert all(actor.dead for actor in ray.actors)
        assert asked < 4 * (1 + 2 * 3) and len(server.requests) == asked
