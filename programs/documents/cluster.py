"""A job's units asked by the workers of a Ray cluster: each document's by one worker, whose server keeps its prefix.

A worker is a process of the cluster with a server of its own to ask, or with an engine of its own. What it answered is
here as soon as it answered; the journal stays with this process. The documents of a worker that died go on elsewhere.
"""

import logging
import os
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from programs.documents.cluster_worker import Ask, Asking, Done, Event, Lost, Ready, Reply, Said, Worker
from programs.documents.document import Document
from programs.documents.job import Outcome, Unit
from programs.documents.run import IN_A_ROW, JobStopped
from programs.errors import ProgramError

DOCUMENTS = 2  # that a worker has in hand: the second begins while the last questions on the first are answered
TRIES = 3  # workers that a document may cost
LIVES = 6  # workers that may die in a place with no answer between them
CONNECT_SECONDS = 15.0  # for a cluster to say that it is one
START_SECONDS = 1800.0  # until a first worker must be there: an engine reads its weights in this time
STOP_SECONDS = 10.0  # for workers to let go of what they ask
POLL = 1.0
SIZES = ("tp_size", "pp_size", "dp_size")  # of an engine: their product is its GPUs


@dataclass
class _Work:
    """A document's units that are not answered, by their keys. `tries`: workers that were lost over it."""

    number: int
    document: Document
    units: dict[str, Unit]
    tries: int = 0


@dataclass
class _Place:
    """Where a worker is, or its successor. `actor` is None where there is to be none any more."""

    target: str | Mapping[str, Any]
    actor: Any = None
    ready: bool = False
    deaths: int = 0  # without an answer between them
    works: dict[int, _Work] = field(default_factory=dict)

    def takes(self, work: _Work) -> bool:
        """A document that cost a worker is asked alone, so that it does not cost another one its worker again."""
        alone = work.tries > 0 or any(other.tries for other in self.works.values())
        return self.ready and len(self.works) < (1 if alone else DOCUMENTS)


class ClusterRunner:
    """Asks units on the Ray cluster at `address`: HOST:PORT, "auto" for the one that this host belongs to, or
    ray://HOST:PORT from a host outside of it. `with ClusterRunner(..) as runner:` joins it; the workers begin with the
    first units, and none outlives the block or this process.

    `urls`: servers, which the workers take in turn: one worker for each server and each host, and two at the least, as
    far as the cluster has CPUs. Without them, `engine` is what each worker makes its own `sglang.Engine` with: one for
    each host, or as many as there are GPUs for. `model`: whose answers are wanted; a worker that has another one is not
    asked. `say` is told in a sentence what a user should know while the job goes on.

    Raises ProgramError for a cluster that is not there or has no room, JobStopped where going on has no sense.
    """

    def __init__(
        self,
        address: str,
        model: str,
        asking: Asking,
        *,
        urls: Sequence[str] = (),
        engine: Mapping[str, Any] | None = None,
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        if bool(urls) == bool(engine):
            raise ValueError("a cluster asks servers, or has engines: give one of them")
        self._address, self._model, self._asking = address, model, asking
        self._urls, self._engine, self._say = urls, engine, say
        self._places: list[_Place] = []
        self._calls: dict[Any, tuple[_Place, bool]] = {}  # of workers' methods; whether it is `take`
        self._why = ""  # the last worker was lost

    def __enter__(self) -> Self:
        self._ray = _joined(self._address)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()
        self._ray.shutdown()

    def __call__(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """The outcomes, as they come; leaving the loop gives up what still runs."""
        coming = deque(_works(units))
        if not coming:
            return
        try:
            if not self._places:
                self._begin()
            many = len(coming) > len(self._places)
            concurrency = -(-self._asking.concurrency // (DOCUMENTS if many else 1))  # rounded up
            failed, seen = 0, time.monotonic()
            while coming or any(place.works for place in self._places):
                if not any(place.actor for place in self._places):
                    raise JobStopped(_kept(f"No worker of the Ray cluster is left, the last because: {self._why}"))
                if any(place.ready for place in self._places):
                    seen = time.monotonic()
                elif time.monotonic() - seen > START_SECONDS:
                    raise JobStopped(_kept(f"The Ray cluster had no worker ready for {START_SECONDS:g} s."))
                self._hand_out(coming, concurrency)
                for outcome in self._outcomes(coming):
                    failed = failed + 1 if outcome.answer is None else 0
                    yield outcome
                    if failed == IN_A_ROW:
                        raise JobStopped(
                            _kept(f"{failed} questions in a row failed, the last because: {outcome.failure}")
                        )
        except BaseException:
            self._stop()
            raise

    def _begin(self) -> None:
        places, needs = self._room()
        remote = self._ray.remote(Worker)
        self._worker = remote.options(max_concurrency=4, max_restarts=0, **needs)
        targets: Sequence[str | Mapping[str, Any]] = self._urls or [self._engine or {}]
        self._places = [_Place(targets[number % len(targets)]) for number in range(places)]
        for place in self._places:
            self._hire(place)

    def _room(self) -> tuple[int, dict[str, float]]:
        """How many workers the cluster has room for, and what Ray is to keep for each."""
        hosts = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cpus = [int(host.get("CPU", 0)) for host in hosts if host.get("CPU", 0) >= 1]
        gpus = [int(host.get("GPU", 0)) for host in hosts]
        if not cpus:
            raise ProgramError(f"The Ray cluster at {self._address!r} has no CPU to give: start a node with some.")
        if self._engine is None:
            return min(sum(cpus), max(len(self._urls), len(cpus), 2)), {"num_cpus": 1}
        if not any(gpus):  # Ray has a process use as many threads as it has CPUs
            return len(cpus), {"num_cpus": min(cpus)}
        needed = 1
        for size in SIZES:
            needed *= int(self._engine.get(size, 1))
        places = sum(have // needed for have in gpus)
        if not places:
            raise ProgramError(
                f"No host of the Ray cluster at {self._address!r} has the {needed} GPUs that an engine takes: make it "
                "smaller, or give the URL of a server."
            )
        return places, {"num_cpus": 1, "num_gpus": needed}

    def _hire(self, place: _Place) -> None:
        place.actor, place.ready = self._worker.remote(place.target, self._asking), False
        self._call(place, place.actor.start)

    def _call(self, place: _Place, method: Any, *arguments: Any, listens: bool = False) -> None:
        self._calls[method.remote(*arguments)] = (place, listens)

    def _hand_out(self, coming: deque[_Work], concurrency: int) -> None:
        """Give each document to the worker that has least in hand; one that cost a worker, where fewest died."""
        while coming:
            free = [place for place in self._places if place.takes(coming[0])]
            if not free:
                return
            work = coming.popleft()
            place = min(free, key=lambda each: (each.deaths if work.tries else 0, len(each.works)))
            asks = [Ask(unit.key, unit.part, unit.question, unit.parts) for unit in work.units.values()]
            stored = self._ray.put(work.document)  # from where the worker's host fetches it, once
            self._call(place, place.actor.give, work.number, stored, asks, concurrency)
            place.works[work.number] = work
            if not any(other is place and listens for other, listens in self._calls.values()):
                self._call(place, place.actor.take, listens=True)

    def _outcomes(self, coming: deque[_Work]) -> Iterator[Outcome]:
        """Wait for what comes next, and see to it."""
        for call in self._ray.wait(list(self._calls), num_returns=1, timeout=POLL)[0]:
            place, listens = self._calls.pop(call)
            try:
                events = self._ray.get(call)
            except (self._ray.exceptions.RayActorError, self._ray.exceptions.OutOfMemoryError) as error:
                place.deaths += 1
                yield from self._lost(place, f"A worker of the Ray cluster died ({_last_line(error)}).", coming)
                if place.deaths < LIVES:
                    self._hire(place)
                continue
            yield from self._see_to(events, place, coming)
            if listens and place.works:
                self._call(place, place.actor.take, listens=True)

    def _see_to(self, events: Sequence[Event], place: _Place, coming: deque[_Work]) -> Iterator[Outcome]:
        for event in sorted(events, key=lambda event: isinstance(event, Lost)):  # that last: all was said before
            match event:
                case Ready(model) if model == self._model:
                    place.ready = True
                case Ready(model):
                    where = place.target if isinstance(place.target, str) else "an engine"
                    yield from self._lost(place, f"{where} serves {model!r} and not {self._model!r}.", coming)
                case Reply(number, key, answer, failure) if number in place.works:
                    place.deaths = 0
                    yield Outcome(place.works[number].units.pop(key), answer, failure)
                case Done(number):
                    place.works.pop(number, None)
                case Said(sentence):
                    self._say(sentence)
                case Lost(why) if place.actor:
                    yield from self._lost(place, why, coming)

    def _lost(self, place: _Place, why: str, coming: deque[_Work]) -> Iterator[Outcome]:
        """End a worker; its documents go on elsewhere, unless they cost too many."""
        self._why = why
        self._say(why)
        yield from self._last_replies(place)
        self._ray.kill(place.actor)
        works, place.actor, place.ready, place.works = place.works, None, False, {}
        for work in works.values():
            work.tries += 1
            if work.tries < TRIES:
                coming.appendleft(work)
                continue
            for unit in work.units.values():
                yield Outcome(unit, None, f"{TRIES} workers were lost while they asked it, the last because: {why}")

    def _last_replies(self, place: _Place) -> Iterator[Outcome]:
        """What a worker that is lost had said before."""
        for call in [call for call, (other, _) in self._calls.items() if other is place]:
            del self._calls[call]
            try:
                events = self._ray.get(call, timeout=POLL)
            except self._ray.exceptions.RayError:
                continue
            for event in events:
                if isinstance(event, Reply):
                    yield Outcome(place.works[event.document].units.pop(event.key), event.answer, event.failure)

    def _stop(self) -> None:
        actors = [(place.actor, place.ready) for place in self._places if place.actor]
        self._places, self._calls = [], {}
        if stopping := [actor.stop.remote() for actor, ready in actors if ready]:
            self._ray.wait(stopping, num_returns=len(stopping), timeout=STOP_SECONDS)
        for actor, _ in actors:
            self._ray.kill(actor)


def _works(units: Sequence[Unit]) -> list[_Work]:
    works: dict[str, _Work] = {}
    for unit in units:
        work = works.setdefault(unit.document.text_sha256, _Work(len(works), unit.document, {}))
        work.units[unit.key] = unit
    return list(works.values())


def _joined(address: str) -> Any:
    """Ray, joined to the cluster. It tries for minutes where there is none, and ends the process then: so this asks
    first."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise ProgramError("Ray is not installed: pip install 'sgl-small4[ray]'.") from error
    _check(address)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, ImportError, RuntimeError, ValueError) as error:
        raise ProgramError(
            f"The Ray cluster at {address!r} cannot be joined ({_last_line(error)}): run this on one of its hosts, or "
            "give ray://HOST:10001, with the same versions of Python and Ray."
        ) from error
    return ray


def _check(address: str) -> None:
    """Raises ProgramError for an address where no cluster answers."""
    if address != "auto":
        try:
            parts = urlsplit(address if "://" in address else f"//{address}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port or parts.scheme not in ("", "ray"):
            raise ProgramError(f"{address!r} is no address of a Ray cluster: give HOST:PORT, ray://HOST:PORT or auto.")
        try:
            socket.create_connection((host, port), CONNECT_SECONDS).close()
        except OSError as error:
            raise ProgramError(
                f"No Ray cluster is at {address!r} ({error.strerror or error}): start one with `ray start --head`."
            ) from error
        if parts.scheme == "ray":  # its own check ends in time
            return
    command = [sys.executable, "-m", "ray.scripts.scripts", "health-check"]
    try:
        checked = subprocess.run(
            [*command, *(() if address == "auto" else ("--address", address))],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=CONNECT_SECONDS,
        )
        answers = checked.returncode == 0
    except subprocess.TimeoutExpired:
        answers = False
    if not answers:
        raise ProgramError(
            "No Ray cluster runs on this host: start one with `ray start --head`."
            if address == "auto"
            else f"What listens at {address!r} is no Ray cluster of this version: give the address of one."
        )


def _kept(why: str) -> str:
    return f"{why} What was answered is kept; run the same command again to go on."


def _last_line(error: Exception) -> str:
    """Of Ray's errors the one that says why."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1].strip()[:300]
