"""What holds for a program beside the language: what it has said as ids, its effort and tools, where it is recorded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from sglang.lang.interpreter import ProgramState
from sglang.lang.ir import SglConstantText, SglExpr, SglExprList, SglRoleBegin, SglRoleEnd

from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.format import Effort, effort_of
from sgl_small4.prompt.node import Node
from sgl_small4.prompt.parse import Reply
from sgl_small4.prompt.transcript import Transcript

STATE = "small4.state"  # the one key of ours in a program's variables: what `fork` copies, and nothing else does


class Recorder(Protocol):
    """Where nodes go: `programs.graph.Graph`, or anything that counts and keeps."""

    def next_id(self) -> int: ...

    def clock(self) -> float: ...

    def record(self, node: Node) -> None: ...


@dataclass(frozen=True)
class State:
    """What one program state has said and how it asks; copied by `fork`."""

    transcript: Transcript = field(default_factory=Transcript)
    effort: Effort | None = None  # None: the backend's
    thinking_budget: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    probabilities: bool = False
    name: str = ""
    recorder: Recorder | None = None
    cancellation: Cancellation | None = None
    parent: int | None = None  # the node this state goes on from
    known: int = 0  # ids of the prompt that the parent has shown already


def configure(
    s: ProgramState,
    *,
    effort: Effort | None = None,
    thinking_budget: int | None = None,
    tools: Sequence[Mapping[str, Any]] | None = None,
    probabilities: bool | None = None,
    graph: Recorder | None = None,
    cancellation: Cancellation | None = None,
    name: str | None = None,
) -> None:
    """Set what holds for the generations that follow on this state and on its forks; what is not given stays.

    It first waits for what the state has still to do. `thinking_budget`: most tokens of a trace. `tools`: definitions
    in OpenAI's form. `probabilities`: have the probability of each answer in its node and meta information.
    """
    if s.stream_executor.error_:
        raise s.stream_executor.error_  # its thread has ended, and would be waited for without end
    s.sync()
    variables = s.stream_executor.variables
    given: dict[str, Any] = {
        "effort": None if effort is None else effort_of(effort),
        "thinking_budget": thinking_budget,
        "tools": None if tools is None else tuple(tools),
        "probabilities": probabilities,
        "recorder": graph,
        "cancellation": cancellation,
        "name": name,
    }
    variables[STATE] = replace(state_of(variables), **{key: value for key, value in given.items() if value is not None})


def reply_of(s: ProgramState, variable: str) -> Reply:
    """Trace, answer and calls of the generation `variable`, in the model's order."""
    s.get_var(variable)
    return s.get_meta_info(variable)["reply"]


def node_of(s: ProgramState) -> int:
    """The graph's node that this state last made; 0 where nothing is recorded."""
    s.sync()
    return state_of(s.stream_executor.variables).parent or 0


def tool_result(text: str) -> SglExpr:
    """A tool's result, as a turn of its own."""
    return SglExprList([SglRoleBegin("tool"), SglConstantText(text), SglRoleEnd("tool")])


def state_of(variables: Mapping[str, Any]) -> State:
    """The state under our key; `join` may leave a list of its branches' there, which is none."""
    found = variables.get(STATE)
    return found if isinstance(found, State) else State()
