"""A job's units asked of one server, several at once, in an order that reads each document once.

What fails as a request is tried again within bounds. A server that is gone is waited for; what it then still fails at
is recorded, and the others go on.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field, replace
from random import random

from programs.documents.ask import AnswerError, Asker, Text
from programs.documents.job import Outcome, Unit
from programs.errors import ProgramError
from sgl_small4.prompt.transport import BackendError, Refused, Unreachable

ATTEMPTS = 3  # of a unit; each of its requests is tried again by the backend before that counts
FIRST_WAIT, LONGEST_WAIT = 1.0, 15.0  # seconds between two of them, each twice the last, and up to half more
IN_A_ROW = 20  # units that fail with none between them that does not, after which a job is stopped
GIVING_UP = 5.0  # seconds in which a server ends what is given up; what hangs in it is left behind then
POLL = 1.0  # seconds between two looks at a server that is gone


class JobStopped(ProgramError):
    """Why a job ended before its last unit, in one sentence."""


@dataclass
class Runner:
    """Asks units by `asker`, `concurrency` at once. `patience`: seconds to wait for a server that is gone; `say` is
    told in a sentence when such a wait begins and ends."""

    asker: Asker
    concurrency: int = 8
    patience: float = 300.0
    say: Callable[[str], None] = field(default=lambda sentence: None)
    _waiting: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, units: Sequence[Unit]) -> Iterator[Outcome]:
        """The outcomes, as they come. Raises JobStopped where going on has no sense; leaving the loop gives up what
        still runs."""
        failed = 0
        coming = deque(units)
        running: set[Future[Outcome]] = set()
        outcomes: list[Outcome] = []
        text: Text | None = None
        try:
            while coming or running or outcomes:
                while coming and len(running) < self.concurrency:
                    unit = coming.popleft()
                    if text is None or (text.document, text.part) != (unit.document, unit.part):
                        routed = self.asker.backend.routed(unit.document.text_sha256)  # where its prefix lies
                        text = Text(unit.document, unit.part, routed, self.asker.cancel)
                    running.add(_started(self._outcome, unit, text))
                for outcome in outcomes:
                    failed = failed + 1 if outcome.answer is None else 0
                    yield outcome
                    if failed == IN_A_ROW:
                        raise JobStopped(
                            f"{failed} questions in a row failed, the last because: {outcome.failure} "
                            "What was answered is kept; run the same command again to go on."
                        )
                done, running = wait(running, return_when=FIRST_COMPLETED)
                outcomes = [future.result() for future in done if not future.exception()]
                if error := next((error for future in done if (error := future.exception())), None):
                    yield from outcomes
                    raise error
        except BaseException:
            ending = threading.Thread(target=self.asker.cancel.set, daemon=True)
            ending.start()
            ending.join(GIVING_UP)
            wait(running, GIVING_UP)
            raise

    def _outcome(self, unit: Unit, text: Text) -> Outcome:
        asker = replace(self.asker, backend=text.backend)
        for attempt in range(1, ATTEMPTS + 1):
            try:
                if unit.parts:
                    return Outcome(unit, asker.join(unit.question, unit.parts))
                return Outcome(unit, asker.ask(text, unit.question))
            except Refused as error:
                if error.status != 429:
                    return Outcome(unit, None, str(error))
                failure: Exception = error
            except Unreachable as error:
                self._until_back(error)
                failure = error
            except AnswerError as error:  # it was asked again already
                return Outcome(unit, None, str(error))
            except BackendError as error:
                failure = error
            if attempt < ATTEMPTS:
                self._pause(min(LONGEST_WAIT, FIRST_WAIT * 2 ** (attempt - 1)) * (1 + random() / 2))
        return Outcome(unit, None, str(failure))

    def _until_back(self, error: Unreachable) -> None:
        """Wait for the server, in one thread for all."""
        with self._waiting:
            if self.asker.backend.is_there():
                return
            deadline = time.monotonic() + self.patience
            self.say(f"{error} Waiting up to {self.patience:g} s for it.")
            while not self.asker.backend.is_there():
                if time.monotonic() > deadline:
                    raise JobStopped(
                        f"{error} It did not come back within {self.patience:g} s: what was answered is kept; start it "
                        "and run the same command again."
                    )
                self._pause(POLL)
            self.say("The server is back.")

    def _pause(self, seconds: float) -> None:
        """Sleep, unless the job is given up."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.asker.cancel.is_set():
                raise JobStopped("The job was given up.")
            time.sleep(min(0.1, seconds))


def _started(work: Callable[[Unit, Text], Outcome], unit: Unit, text: Text) -> Future[Outcome]:
    """As a pool's, but in a thread that the end of the process does not wait for: a server may hang."""
    future: Future[Outcome] = Future()

    def run() -> None:
        try:
            future.set_result(work(unit, text))
        except BaseException as error:  # noqa: BLE001 - raised where the outcome is taken
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future
