"""A worker of a document job on a Ray cluster, and what goes to it and comes back.

No error crosses to the other process: what ends a worker's use is told as a sentence, like all that happens to it.
"""

import queue
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from programs.documents.answer import Answer
from programs.documents.ask import Asker
from programs.documents.document import Document
from programs.documents.job import Unit
from programs.documents.plan import Budget, Part
from programs.documents.question import Question
from programs.documents.run import JobStopped, Runner
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.transport import BackendError

WAIT = 1.0


@dataclass(frozen=True)
class Ask:
    """A unit on its way to a worker, without its document, which goes beside it."""

    key: str
    part: Part
    question: Question
    parts: tuple[Answer, ...]


@dataclass(frozen=True)
class Ready:
    model: str


@dataclass(frozen=True)
class Reply:
    document: int
    key: str
    answer: Answer | None
    failure: str


@dataclass(frozen=True)
class Done:
    document: int


@dataclass(frozen=True)
class Said:
    sentence: str


@dataclass(frozen=True)
class Lost:
    """The worker is of no use any more; `why` is a sentence."""

    why: str


Event = Ready | Reply | Done | Said | Lost


@dataclass(frozen=True)
class Asking:
    """How a worker asks: within which limits, at what temperature, how many questions at once, and how many seconds it
    waits for a server that is gone."""

    budget: Budget
    temperature: float | None
    concurrency: int = 8
    patience: float = 300.0


class Worker:
    """In a process of the cluster; called from several threads. What it has to say is what `start` and `take` give: its
    errors are among that, as sentences."""

    def __init__(self, target: str | Mapping[str, Any], asking: Asking) -> None:
        self._target, self._asking = target, asking
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._cancel = Cancellation()
        self._threads: list[threading.Thread] = []
        self._engine: Any = None

    def start(self) -> list[Event]:
        """Reach the server, or load the engine."""
        try:
            if not isinstance(self._target, str):
                import sglang

                self._engine = sglang.Engine(**self._target)
            self._backend = Small4Backend(self._engine or self._target)
        except BackendError as error:
            return [Lost(str(error))]
        except (OSError, RuntimeError, ValueError) as error:  # what an engine raises that cannot load its model
            return [Lost(f"The engine did not start ({type(error).__name__}): {' '.join(str(error).split())[:300]}")]
        return [Ready(self._backend.get_model_name())]

    def give(self, number: int, document: Document, asks: Sequence[Ask], concurrency: int) -> list[Event]:
        """Begin to ask about a document, which is told by `number`."""
        thread = threading.Thread(target=self._ask, args=(number, document, asks, concurrency), daemon=True)
        self._threads.append(thread)
        thread.start()
        return []

    def take(self) -> list[Event]:
        """What happened since the last call, after waiting for something for up to `WAIT` seconds."""
        events: list[Event] = []
        try:
            events.append(self._events.get(timeout=WAIT))
            while True:
                events.append(self._events.get_nowait())
        except queue.Empty:
            return events

    def stop(self) -> None:
        """Give up what is asked, and end the engine."""
        self._cancel.set()
        for thread in self._threads:
            thread.join()
        if self._engine is not None:
            self._engine.shutdown()

    def _ask(self, number: int, document: Document, asks: Sequence[Ask], concurrency: int) -> None:
        asker = Asker(self._backend, self._asking.budget, self._asking.temperature, self._cancel)
        runner = Runner(asker, concurrency, self._asking.patience, lambda sentence: self._events.put(Said(sentence)))
        try:
            for outcome in runner([Unit(ask.key, document, ask.part, ask.question, ask.parts) for ask in asks]):
                self._events.put(Reply(number, outcome.unit.key, outcome.answer, outcome.failure))
            self._events.put(Done(number))
        except JobStopped as stopped:
            self._events.put(Lost(str(stopped)))
