"""What `cluster.py` uses of Ray, with threads of this process as workers; one may be told to die."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from programs.documents import cluster


class RayError(Exception):
    pass


class ActorDied(RayError):
    pass


class FakeRay:
    """`hosts`: what each has, as in {"CPU": 2.0}. `dies(method, arguments)`: whether a worker ends when so called."""

    exceptions = SimpleNamespace(RayError=RayError, RayActorError=ActorDied, OutOfMemoryError=MemoryError)

    def __init__(self, *hosts: Mapping[str, float], dies: Callable[[str, Sequence[Any]], bool]) -> None:
        self.hosts, self.dies = hosts, dies
        self.needs: dict[str, float] = {}
        self.actors: list[Actor] = []
        self.put_count = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": host} for host in self.hosts]

    def remote(self, kind: type) -> Any:
        def options(max_concurrency: int, max_restarts: int, **needs: float) -> Any:
            self.needs = needs
            return SimpleNamespace(remote=lambda *arguments: self._begin(kind(*arguments)))

        return SimpleNamespace(options=options)

    def _begin(self, worker: Any) -> "Actor":
        self.actors.append(Actor(self, worker))
        return self.actors[-1]

    def put(self, value: Any) -> Any:
        self.put_count += 1
        return value

    def get(self, call: Future[Any], timeout: float | None = None) -> Any:
        return call.result(timeout)

    def wait(self, calls: Sequence[Future[Any]], num_returns: int, timeout: float) -> tuple[list[Future[Any]], None]:
        assert calls
        done = wait(calls, timeout, FIRST_COMPLETED).done
        return [call for call in calls if call in done][:num_returns], None

    def kill(self, actor: "Actor") -> None:
        actor.die()

    def shutdown(self) -> None:
        for actor in self.actors:
            actor.pool.shutdown()


class Actor:
    def __init__(self, ray: FakeRay, worker: Any) -> None:
        self.ray, self.worker, self.dead = ray, worker, False
        self.pool = ThreadPoolExecutor(4)

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *arguments: self.pool.submit(self._called, name, arguments))

    def _called(self, name: str, arguments: Sequence[Any]) -> Any:
        if self.ray.dies(name, arguments):
            self.die()
        result = None if self.dead else getattr(self.worker, name)(*arguments)
        if self.dead:
            raise ActorDied("what Ray says\nIts process ended.")
        return result

    def die(self) -> None:
        self.dead = True
        self.worker._cancel.set()


@contextmanager
def fake_ray(
    *hosts: Mapping[str, float], dies: Callable[[str, Sequence[Any]], bool] = lambda method, arguments: False
) -> Iterator[FakeRay]:
    ray = FakeRay(*hosts, dies=dies)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cluster, "_joined", lambda address: ray)
        yield ray
