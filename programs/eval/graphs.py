"""Small 4 itself, asked by the graphs of `programs.effort`."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from programs.eval.cases import Case
from programs.eval.reply import Reply, failed, replied
from programs.eval.usage import Counts
from programs.result import Result
from sgl_small4.prompt.cancellation import Cancellation

Solve = Callable[..., Result]  # programs.effort.solve


class Graphs:
    """`solve` at one effort. `options` are passed on to it: the backend, a temperature, limits.

    Its answers are taken as they are: trace and answer were told apart by token ids, so text that looks like a tag is
    text. Its counts include the trace (`sgl_small4.prompt.node.Node`).
    """

    def __init__(self, solve: Solve, effort: str, options: dict[str, Any], alive: Callable[[], bool]) -> None:
        self.name = "small4"
        self.effort = effort
        self._solve = solve
        self._cancel = Cancellation()
        self._options = {**options, "cancel": self._cancel}
        self._alive = alive

    def ask(self, case: Case) -> Reply:
        began = time.perf_counter()
        result = self._solve(case.question, effort=self.effort, document=case.document, **self._options)
        seconds = time.perf_counter() - began
        usage = result.usage
        counts = Counts(
            prompt=usage.prompt_tokens,
            completion=usage.completion_tokens,
            cached=usage.cached_tokens,
            reasoning=usage.trace_tokens,
            total=usage.prompt_tokens + usage.completion_tokens,
        )
        if result.state == "failed":
            return replace(failed(result.error or "it failed without a reason", seconds), counts=counts)
        empty = result.state == "empty" or not result.answer.strip()
        at_limit = result.state == "cut" or (
            empty and any(node.finish_reason == "length" for node in result.graph.nodes)
        )
        return replied("" if empty else result.answer, result.trace or "", seconds, counts, at_limit)

    def stop(self) -> None:
        self._cancel.set()

    def alive(self) -> bool:
        return self._alive()
