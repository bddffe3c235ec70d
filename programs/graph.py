"""What a program ran for one question: its requests as a tree, what they cost, and what came out."""

import json
import math
import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, model_validator

from programs.errors import ProgramError
from programs.files import write_whole
from programs.picture import Picture, as_png, as_svg, draw, fit, outcome_line, visible
from sgl_small4.prompt.node import Kind, Node

VERSION = 1  # of the stored form


@dataclass(frozen=True)
class Usage:
    """Tokens and requests; `cached_tokens` are part of the prompt's, `trace_tokens` of the completion's."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    trace_tokens: int = 0
    requests: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(Usage)))


@dataclass(frozen=True)
class Outcome:
    """What the graph came to, and how many seconds after its beginning."""

    answer: str
    state: str
    confidence: float | None
    seconds: float


class Graph:
    """The requests of one question. All methods may be called from several threads.

    Whoever makes a node takes its id from `next_id()` before its request is sent and its `began` from `clock()`; a
    parent's id is therefore lower than its children's. Nodes may be recorded in any order of ending.
    """

    def __init__(self, effort: str, question: str) -> None:
        self.id = uuid.uuid4().hex
        self.effort = effort
        self.question = question
        self.outcome: Outcome | None = None
        self._nodes: dict[int, Node] = {}
        self._marks: dict[int, tuple[str, str]] = {}  # of nodes whose request is still running
        self._next_id = 0
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def next_id(self) -> int:
        """0, 1, 2 and so on, each given once."""
        with self._lock:
            self._next_id += 1
            return self._next_id - 1

    def clock(self) -> float:
        """Seconds since the graph began."""
        return time.monotonic() - self._began

    def record(self, node: Node) -> None:
        """Takes a request that ended. The same request again, such as one that was cancelled and then told its counts,
        replaces what was known of it and is counted once; another request under the same id is a ValueError."""
        if node.parent is not None and node.parent >= node.id:
            raise ValueError(f"Node {node.id} cannot go on from node {node.parent}, which was made later.")
        if node.probability is not None and not math.isfinite(node.probability):
            node = replace(node, probability=None)  # a log probability of a masked token; JSON has no NaN
        with self._lock:
            known = self._nodes.get(node.id)
            if known and (known.parent, known.kind, known.name) != (node.parent, node.kind, node.name):
                raise ValueError(f"There is a node {node.id} already: take ids from next_id().")
            state, next_step = self._marks.pop(node.id, (known.state, known.next_step) if known else ("", ""))
            if not node.state:
                node = replace(node, state=state, next_step=next_step)
            self._nodes[node.id] = node
            self._next_id = max(self._next_id, node.id + 1)

    def mark(self, id: int, state: str, next_step: str = "") -> None:
        """Says what the graph made of a node and the one thing it does about it; of a node whose request is still
        running it holds once that is recorded. An id that was never given is a KeyError."""
        with self._lock:
            if id in self._nodes:
                self._nodes[id] = replace(self._nodes[id], state=state, next_step=next_step)
            elif 0 <= id < self._next_id:
                self._marks[id] = (state, next_step)
            else:
                raise KeyError(id)

    def finish(self, answer: str, state: str, confidence: float | None) -> None:
        """Keeps what came out, and when. Requests that end later still count; the last call holds."""
        if confidence is not None and not math.isfinite(confidence):
            confidence = None
        self.outcome = Outcome(answer, state, confidence, self.clock())

    @property
    def nodes(self) -> tuple[Node, ...]:
        """The requests that ended, by id."""
        with self._lock:
            return tuple(self._nodes[id] for id in sorted(self._nodes))

    @property
    def usage(self) -> Usage:
        """The sum over all nodes, cancelled and failed ones too."""
        return _usage(self.nodes)

    @property
    def seconds(self) -> float:
        """Until the answer was there; while there is none, until the end of the last request that ended."""
        if self.outcome:
            return self.outcome.seconds
        return max((node.began + node.seconds for node in self.nodes), default=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Everything, in types that JSON has; `from_dict` reads it."""
        nodes = self.nodes
        return {
            "version": VERSION,
            "id": self.id,
            "effort": self.effort,
            "question": self.question,
            "outcome": asdict(self.outcome) if self.outcome else None,
            "usage": asdict(_usage(nodes)),
            "nodes": [asdict(node) for node in nodes],
        }

    @classmethod
    def from_dict(cls, stored: Any) -> Self:
        """The graph that `to_dict` stored. Anything else is a ProgramError that says what is wrong with it."""
        try:
            checked = _StoredGraph.model_validate(stored)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise ProgramError(f"This is not a stored graph: {place!r}: {first['msg']}.") from None
        graph = cls(checked.effort, checked.question)
        graph.id = checked.id
        graph.outcome = Outcome(**dict(checked.outcome)) if checked.outcome else None
        for node in checked.nodes:
            graph.record(Node(**dict(node)))
        graph._began = time.monotonic() - graph.seconds
        return graph

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as stored, so that a result that holds a graph can be."""
        return Graph.from_dict, (self.to_dict(),)

    def json(self) -> str:
        """`to_dict` as JSON in ASCII, in which no text can be a terminal escape."""
        return json.dumps(self.to_dict(), indent=1, allow_nan=False) + "\n"

    def svg(self) -> str:
        """The tree as a picture, the same for the same graph."""
        return as_svg(self._picture(self.nodes))

    def html(self) -> str:
        """One page that loads nothing: the picture, and what each request was asked and said."""
        nodes = self.nodes
        return _PAGES.get_template("graph.html.jinja").render(
            graph=self,
            nodes=nodes,
            usage=_usage(nodes),
            seconds=self.seconds,
            outcome=outcome_line(self.outcome),
            picture=Markup(as_svg(self._picture(nodes), linked=True)),
            cut=_cut,
            line=lambda text: fit(text, 200),
        )

    def _picture(self, nodes: Sequence[Node]) -> Picture:
        return draw(
            nodes, _usage(nodes), self.outcome, question=self.question, effort=self.effort, seconds=self.seconds
        )

    def save(self, path: str | Path) -> None:
        """Writes the form that the suffix names, whole or not at all; a ProgramError says why it could not."""
        makers = {
            ".json": lambda: self.json().encode(),
            ".svg": lambda: self.svg().encode(),
            ".html": lambda: self.html().encode(),
            ".png": lambda: as_png(self._picture(self.nodes)),
        }
        make = makers.get(Path(path).suffix.lower())
        shown = fit(str(path), 200)
        if make is None:
            raise ProgramError(f"A graph is saved as {', '.join(makers)}, none of which {shown} ends in.")
        content = make()
        try:
            write_whole(path, content)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ProgramError(f"The graph could not be saved as {shown} ({reason}): name another place.") from None


def _usage(nodes: "Sequence[Node | _StoredNode]") -> Usage:
    each = (Usage(n.prompt_tokens, n.cached_tokens, n.completion_tokens, n.trace_tokens, 1) for n in nodes)
    return sum(each, Usage())


# A lone surrogate, which pydantic's own str refuses, is kept.
_Text = InstanceOf[str]
_Count = Annotated[int, Field(ge=0, le=2**53)]  # what every reader of JSON keeps
_Seconds = Annotated[float, Field(ge=0)]


class _Stored(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _StoredNode(_Stored):
    id: _Count
    parent: _Count | None
    kind: Kind
    name: _Text
    prompt: _Text
    text: _Text
    trace: _Text | None
    prompt_tokens: _Count
    cached_tokens: _Count
    completion_tokens: _Count
    trace_tokens: _Count
    began: _Seconds
    seconds: _Seconds
    finish_reason: _Text
    probability: float | None
    state: _Text
    next_step: _Text


class _StoredOutcome(_Stored):
    answer: _Text
    state: _Text
    confidence: float | None
    seconds: _Seconds


class _StoredGraph(_Stored):
    version: Literal[1]
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    effort: _Text
    question: _Text
    outcome: _StoredOutcome | None
    usage: dict[str, int]
    nodes: list[_StoredNode]

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        ids = [node.id for node in self.nodes]
        if len(set(ids)) < len(ids):
            raise ValueError("two nodes have the same id")
        for node in self.nodes:
            if node.parent is not None and node.parent >= node.id:
                raise ValueError(f"node {node.id} goes on from a later one")
        if self.usage != asdict(_usage(self.nodes)):
            raise ValueError("its usage is not the sum of its nodes")
        return self


LONGEST, TAIL = 20_000, 5_000  # characters of a text that a page shows, and how many of them are its last


def _cut(text: str) -> list[str | int]:
    """A text as a page shows it: whole, or its beginning, the number of characters left out, and its end."""
    if len(text) <= LONGEST:
        return [visible(text)]
    return [visible(text[: LONGEST - TAIL]), len(text) - LONGEST, visible(text[-TAIL:])]


_PAGES = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined)
