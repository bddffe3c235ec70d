"""All cases through all arms, a few at a time; whatever ends it, what is finished is kept."""

import queue
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from programs.eval.cases import Case
from programs.eval.reply import Arm, Reply, failed
from programs.eval.scorers import CannotScore, Scorer

Outcome = Literal["right", "partial", "wrong", "empty", "cut", "failed", "unscored"]


@dataclass(frozen=True)
class Row:
    """One reply, scored. `score` is None for all but right (1), wrong (0) and partial (between); `reason` says why a
    reply failed or could not be scored."""

    arm: int
    case: Case
    repeat: int
    reply: Reply
    outcome: Outcome
    score: float | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Run:
    """`rows` in order of arm, repeat and case. `missing` says of each arm how many questions were not asked, and
    `stopped` why, in a sentence each. `ended_by` is what ended the run early, None where nothing did."""

    cases: tuple[Case, ...]
    arms: tuple[Arm, ...]
    repeats: int
    rows: tuple[Row, ...]
    missing: tuple[int, ...]
    stopped: tuple[str, ...]
    ended_by: KeyboardInterrupt | SystemExit | None = None


def run(
    cases: Sequence[Case],
    arms: Sequence[Arm],
    scorer: Callable[[Case], Scorer],
    repeats: int = 1,
    concurrency: int = 8,
    advance: Callable[[], None] = lambda: None,
) -> Run:
    """Arm after arm, so that no arm's latency holds another's load; `advance` is called after each reply.

    A reply that fails is a row like any other. Where a server no longer answers at all, its arm stops. An interrupt
    (KeyboardInterrupt, or SystemExit as SIGTERM's handler raises it) ends all of it and is handed back.
    """
    rows: list[Row] = []
    stopped: list[str] = []
    ended_by: KeyboardInterrupt | SystemExit | None = None
    for number, arm in enumerate(arms):
        try:
            _run_arm(number, arm, cases, scorer, repeats, concurrency, advance, rows)
        except _Gone as error:
            stopped.append(str(error))
        except (KeyboardInterrupt, SystemExit) as error:
            ended_by = error
            stopped.append("The run was interrupted.")
            break
    at = {case.number: place for place, case in enumerate(cases)}
    rows.sort(key=lambda row: (row.arm, row.repeat, at[row.case.number]))
    asked = [sum(row.arm == number for row in rows) for number in range(len(arms))]
    missing = tuple(len(cases) * repeats - count for count in asked)
    return Run(tuple(cases), tuple(arms), repeats, tuple(rows), missing, tuple(stopped), ended_by)


class _Gone(Exception):
    """A server that no longer answers."""


def _run_arm(
    number: int,
    arm: Arm,
    cases: Sequence[Case],
    scorer: Callable[[Case], Scorer],
    repeats: int,
    concurrency: int,
    advance: Callable[[], None],
    rows: list[Row],
) -> None:
    waiting: queue.SimpleQueue[tuple[int, Case]] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, Case, Reply]] = queue.SimpleQueue()
    for repeat in range(repeats):
        for case in cases:
            waiting.put((repeat, case))
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                repeat, case = waiting.get_nowait()
            except queue.Empty:
                return
            done.put((repeat, case, _asked(arm, case)))

    left = len(cases) * repeats
    # Daemons: an interrupt must not wait for replies that are still under way.
    for _ in range(min(concurrency, left)):
        threading.Thread(target=work, daemon=True).start()

    def keep(repeat: int, case: Case, reply: Reply) -> None:
        rows.append(_scored(number, case, repeat, reply, scorer(case)))
        advance()

    try:
        while left:
            repeat, case, reply = done.get()
            left -= 1
            keep(repeat, case, reply)
            if reply.state == "failed" and not arm.alive():
                raise _Gone(f"{arm.name} at effort {arm.effort} no longer answers: {reply.error}.")
    finally:
        stop.set()
        if left:
            arm.stop()
            while not done.empty():  # what came in meanwhile is finished too
                keep(*done.get())


def _asked(arm: Arm, case: Case) -> Reply:
    try:
        return arm.ask(case)
    except Exception as error:  # noqa: BLE001 -- one question's error, whatever it is, must not lose the other replies
        return failed(str(error) or type(error).__name__, 0.0)


def _scored(arm: int, case: Case, repeat: int, reply: Reply, scorer: Scorer) -> Row:
    if reply.state != "answered":
        return Row(arm, case, repeat, reply, reply.state, reason=reply.error)
    try:
        score = scorer(reply.answer, case)
    except CannotScore as error:
        return Row(arm, case, repeat, reply, "unscored", reason=str(error))
    outcome: Outcome = "right" if score == 1 else "wrong" if score == 0 else "partial"
    return Row(arm, case, repeat, reply, outcome, score)
