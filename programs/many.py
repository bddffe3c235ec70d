"""Many questions at once: bounded concurrency, order kept, one failure does not end the rest."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any

from tqdm import tqdm

from programs.effort import Message, solve
from programs.errors import ProgramError
from programs.graph import Graph
from programs.result import Result
from sgl_small4.errors import UserError
from sgl_small4.prompt.cancellation import Cancellation

CONCURRENCY = 8


def solve_many(
    questions: Iterable[str | Sequence[Message]],
    effort: str = "none",
    *,
    concurrency: int = CONCURRENCY,
    progress: bool = False,
    **options: Any,
) -> list[Result]:
    """`solve` for each question, in order. A question whose requests fail has a result with state `failed` and the
    reason; what finished is kept whatever happens to the others. Options are `solve`'s."""
    asked = list(questions)
    results: list[Result | None] = [None] * len(asked)
    finished = solve_each(asked, effort, concurrency=concurrency, **options)
    for index, result in tqdm(finished, total=len(asked), disable=not progress, unit="question"):
        results[index] = result
    return [result for result in results if result is not None]


def solve_each(
    questions: Iterable[str | Sequence[Message]],
    effort: str = "none",
    *,
    concurrency: int = CONCURRENCY,
    **options: Any,
) -> Iterator[tuple[int, Result]]:
    """Each question's place and result, as they finish. Leaving the loop early gives up what still runs."""
    if concurrency < 1:
        raise ProgramError(f"concurrency is {concurrency}: it must be at least 1.")
    cancel = Cancellation(options.pop("cancel", None))

    def one(question: str | Sequence[Message]) -> Result:
        try:
            return solve(question, effort, cancel=cancel, **options)  # type: ignore[arg-type]  # solve checks the effort
        except Exception as error:  # noqa: BLE001  # whatever one question runs into, the others go on
            said = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            asked = question if isinstance(question, str) else str(question)
            graph = Graph(effort, asked)
            graph.finish("", "failed", None)
            return Result(asked, "", None, None, None, effort, "failed", graph, said)

    with ThreadPoolExecutor(concurrency) as pool:
        waiting = {pool.submit(one, question): index for index, question in enumerate(questions)}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)


async def solve_async(question: str | Sequence[Message], effort: str = "none", **options: Any) -> Result:
    """`solve` without blocking the event loop; cancelling the task gives the graph up."""
    cancel = Cancellation(options.pop("cancel", None))
    try:
        return await asyncio.to_thread(solve, question, effort, cancel=cancel, **options)  # type: ignore[arg-type]
    finally:
        cancel.set()


async def solve_many_async(
    questions: Iterable[str | Sequence[Message]], effort: str = "none", **options: Any
) -> list[Result]:
    """`solve_many` without blocking the event loop."""
    cancel = Cancellation(options.pop("cancel", None))
    try:
        return await asyncio.to_thread(solve_many, questions, effort, cancel=cancel, **options)
    finally:
        cancel.set()
