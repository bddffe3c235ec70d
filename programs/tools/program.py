"""Function calling: the model asks in its own format, a registered function runs, the model reads the result.

    [AVAILABLE_TOOLS]..[/AVAILABLE_TOOLS]..[INST]question[/INST]
    [TOOL_CALLS]calculator[ARGS]{"expression": "1234*77"}</s>[TOOL_RESULTS]95018[/TOOL_RESULTS]answer</s>

A result is text, whatever it says. So is what the model is told in place of a result: that a name or arguments are
wrong, that a function raised or took too long, that a call was made before. It then decides what to do, within a number
of rounds that the caller sets.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sglang.lang.api as sgl
from sglang.lang.interpreter import ProgramState

from programs.effort import TEMPERATURES
from programs.errors import ProgramError
from programs.graph import Graph
from programs.result import Result
from programs.tools.functions import Outcome, State, Tool, cut
from sgl_small4.prompt.backend import BackendError, configure, reply_of, tool_result
from sgl_small4.prompt.parse import Segment

Effort = Literal["none", "high"]

MAX_TOKENS = 2048  # of one reply, its trace with it
MOST_CALLS = 16  # run of one reply
ARGUMENTS_SHOWN = 2000  # characters of a call's arguments that are kept for the caller


@dataclass(frozen=True)
class Called:
    """One call: in which round, what the model asked for, and what it was told. `state` is "done" for a result."""

    round: int
    name: str
    arguments: str
    state: State
    result: str


@dataclass(frozen=True)
class ToolsResult(Result):
    """A question's outcome and the calls that were made for it, in their order."""

    calls: tuple[Called, ...] = ()


def use_tools(
    question: str,
    tools: Sequence[Tool],
    *,
    effort: Effort = "none",
    rounds: int = 4,
    timeout: float = 10.0,
    max_tokens: int = MAX_TOKENS,
    temperature: float | None = None,
    backend: Any,
    graph: Graph | None = None,
) -> ToolsResult:
    """Answer a question with the help of functions.

    `rounds` bounds how often the model may ask for calls: once they are spent it reads the last results, and a reply
    that asks for more ends with state "cut". `timeout` bounds each call, in seconds; `max_tokens` each reply. Calls of
    one reply run one after the other. A call that was made before, unchanged, is not run again: the model is told so.
    A request that fails is the state "failed". Raises ProgramError for a question, tools or limits that cannot work.
    """
    if not question.strip():
        raise ProgramError("The question is empty: say what is to be answered.")
    if effort not in TEMPERATURES:
        raise ProgramError(f"Tools are called at effort none or high, not at {effort!r}.")
    if not tools:
        raise ProgramError("No tool is given: give at least one function that the model may call.")
    twice = [name for name, times in Counter(tool.name for tool in tools).items() if times > 1]
    if twice:
        raise ProgramError(f"Two tools are named {twice[0]!r}: the model tells them apart by name.")
    if rounds < 1 or max_tokens < 1 or not 0 < timeout < float("inf"):
        raise ProgramError("Rounds and tokens must be at least 1, and the timeout a number of seconds above 0.")
    graph = graph or Graph(effort, question)
    work = _Work({tool.name: tool for tool in tools}, timeout, rounds)
    heat = TEMPERATURES[effort] if temperature is None else temperature
    ending = _Ending("failed", "", None)
    try:
        state = _rounds.run(question, work, effort, graph, max_new_tokens=max_tokens, temperature=heat, backend=backend)
        ending = state.ret_value
    except BackendError as failure:
        ending = _Ending("failed", "", None, str(failure))
    graph.finish(ending.answer, ending.state, None)
    return ToolsResult(
        question=question,
        answer=ending.answer,
        value=ending.answer,
        trace=ending.trace,
        confidence=None,
        effort=effort,
        state=ending.state,
        graph=graph,
        error=ending.error,
        calls=tuple(work.called),
    )


@dataclass(frozen=True)
class _Ending:
    state: Literal["answered", "cut", "empty", "failed"]
    answer: str
    trace: str | None
    error: str | None = None


@sgl.function
def _rounds(s: ProgramState, question: str, work: "_Work", effort: Effort, graph: Graph) -> _Ending:
    configure(s, effort=effort, tools=[tool.definition for tool in work.tools.values()], graph=graph)
    s += sgl.user(question)
    for round in range(1, work.rounds + 2):  # the last one reads results, and may not ask for calls
        said = f"round {round}"  # a name of its own: after a failed request the last round's reply would be read again
        configure(s, name=said)
        s += sgl.assistant(sgl.gen(said))
        reply, node = reply_of(s, said), graph.nodes[-1]
        if node.finish_reason != "stop":
            graph.mark(node.id, "cut", "the end")
            why = "its limit of tokens" if node.finish_reason == "length" else f"{node.finish_reason!r}"
            return _Ending("cut", reply.answer, reply.trace, f"The reply in round {round} was cut off by {why}.")
        if not reply.calls:
            state: Literal["answered", "empty"] = "answered" if reply.answer.strip() else "empty"
            graph.mark(node.id, state, "the end")
            error = None if state == "answered" else "The model said nothing: ask in other words, or at another effort."
            return _Ending(state, reply.answer, reply.trace, error)
        if round > work.rounds:
            break
        called = work.run(round, reply.calls)
        states = Counter(call.state for call in called)
        graph.mark(node.id, ", ".join(f"{count} {state}" for state, count in states.items()), "results read")
        for call in called:
            s += tool_result(call.result)
    graph.mark(node.id, "rounds spent", "the end")
    error = f"The model asked for more calls after {work.rounds} rounds: allow more rounds, or ask for less."
    return _Ending("cut", reply.answer, reply.trace, error)


class _Work:
    """The functions of one question, and the calls that were made."""

    def __init__(self, tools: dict[str, Tool], timeout: float, rounds: int) -> None:
        self.tools = tools
        self.rounds = rounds
        self.called: list[Called] = []
        self._timeout = timeout
        self._told: dict[tuple[str, str], Outcome] = {}

    def run(self, round: int, calls: Sequence[Segment]) -> list[Called]:
        """What each call came to, in the order of the calls."""
        called = []
        for number, call in enumerate(calls):
            outcome = self._outcome(call) if number < MOST_CALLS else _TOO_MANY
            name, arguments = cut(call.name, ARGUMENTS_SHOWN), cut(call.text, ARGUMENTS_SHOWN)
            called.append(Called(round, name, arguments, outcome.state, outcome.text))
        self.called += called
        return called

    def _outcome(self, call: Segment) -> Outcome:
        if (tool := self.tools.get(call.name)) is None:
            known = ", ".join(self.tools)
            return Outcome("unknown", f"There is no function {cut(call.name, 64)!r}; there are: {known}.")
        key = (call.name, _canonical(call.text))
        if (told := self._told.get(key)) is not None:
            return Outcome("repeated", f"This call was made before, unchanged; it gave: {told.text}")
        outcome = self._told[key] = tool.call(call.text, self._timeout)
        return outcome


_TOO_MANY = Outcome("not run", f"Not run: one reply may make {MOST_CALLS} calls.")


def _canonical(arguments: str) -> str:
    """One spelling of the same JSON; what is no JSON is its own."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return arguments
