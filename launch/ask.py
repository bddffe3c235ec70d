"""`small4 ask`: one question, with the trace and the answer shown apart."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console

from launch import client
from launch.client import Effort, Message, Part, Reply
from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import dim_stderr, visible

if TYPE_CHECKING:  # the programs import SGLang, which takes seconds that a streamed answer need not wait for
    from programs.result import Result

GraphEffort = Literal["none", "high", "auto", "deliberate"]


class Display:
    """The answer on standard output, everything else (trace, costs, remarks) dim on standard error."""

    def __init__(self) -> None:
        self.answers = Console(highlight=False, soft_wrap=True, markup=False)
        self.remarks = dim_stderr()
        self._open: Part | None = None

    def piece(self, part: Part, text: str) -> None:
        """The next piece of a stream; a line break stands between trace and answer."""
        if self._open not in (None, part):
            self.end()
        self._open = part
        console = self.answers if part == "answer" else self.remarks
        console.print(visible(text), end="")
        console.file.flush()

    def end(self) -> None:
        if self._open is not None:
            (self.answers if self._open == "answer" else self.remarks).print()
        self._open = None

    def costs(self, reply: Reply) -> None:
        cached = "" if reply.cached_tokens is None else f", {reply.cached_tokens} of them cached"
        self.remarks.print(
            f"effort {reply.effort}: {reply.prompt_tokens} tokens in{cached}, "
            f"{reply.completion_tokens} out, {reply.seconds:.2f} s"
        )

    def graph(self, result: "Result") -> None:
        """What a graph did and cost, a line a request."""
        for node in result.graph.nodes:
            state = ", ".join(part for part in (node.state, node.next_step) if part)
            counts = f"{node.prompt_tokens} in, {node.cached_tokens} cached, {node.completion_tokens} out"
            said = f"{node.name} ({node.kind}): {counts}, {node.seconds:.2f} s{': ' + state if state else ''}"
            self.remarks.print(visible(said))
        usage = result.usage
        sure = "" if result.confidence is None else f", confidence {result.confidence:.2f}"
        self.remarks.print(
            f"effort {result.effort}: {usage.requests} requests, {usage.prompt_tokens} tokens in, "
            f"{usage.cached_tokens} of them cached, {usage.completion_tokens} out, {result.graph.seconds:.2f} s{sure}"
        )


def ask(
    text: str,
    file: Path | None,
    effort: GraphEffort,
    server: str | None,
    as_json: bool,
    show_graph: Path | None,
    budget: int | None,
) -> None:
    """Ask one question of `server`, or of a private server that ends with the answer.

    One reply is streamed as it is written; what takes a graph (auto, deliberate), its picture or a budget is shown at
    its end.
    """
    messages = conversation(text, file)
    display = Display()
    if server is None and not as_json:
        display.remarks.print(
            "starting a server for this one question; to keep one warm, run `small4 serve` "
            "and add --server http://127.0.0.1:30000 here"
        )
    with serving(server) as url:
        if effort in ("none", "high") and show_graph is None and budget is None:
            _one(url, messages, effort, as_json, display)
        else:
            by_graph(url, messages, effort, as_json, display, show_graph, budget)


def conversation(text: str, file: Path | None) -> list[Message]:
    """The question as the user's turn, a document as the system prompt.

    The effort stands between the two (the settings block comes before the first user turn), so questions at either
    effort share a document's cached prefix only when the document is the system prompt.
    """
    if not text.strip():
        raise LaunchError('The question is empty: write it after `small4 ask`, as in `small4 ask "17+25?"`.')
    document = [{"role": "system", "content": read_document(file)}] if file else []
    return [*document, {"role": "user", "content": text}]


def read_document(file: Path) -> str:
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise LaunchError(f"The file {str(file)!r} cannot be read: {error.strerror or error}.") from error
    except UnicodeDecodeError as error:
        raise LaunchError(
            f"The file {str(file)!r} is not UTF-8 text (byte {error.start}): convert it to text."
        ) from error
    if "\0" in text:
        raise LaunchError(f"The file {str(file)!r} is not text (it holds a zero byte): convert it to text.")
    if not text.strip():
        raise LaunchError(f"The file {str(file)!r} is empty: there is nothing in it to ask about.")
    return text


def _one(server: str, messages: list[Message], effort: Effort, as_json: bool, display: Display) -> None:
    if as_json:
        print(client.ask(server, messages, effort, lambda part, text: None).model_dump_json())
        return
    try:
        reply = client.ask(server, messages, effort, display.piece)
    finally:
        display.end()
    display.costs(reply)


def by_graph(
    url: str,
    messages: list[Message],
    effort: GraphEffort,
    as_json: bool,
    display: Display,
    show_graph: Path | None = None,
    budget: int | None = None,
) -> "Result":
    """Ask by running a graph, and show at its end what it did."""
    from programs.effort import solve
    from sgl_small4.prompt.backend import Small4Backend

    with Small4Backend(url) as backend:
        result = solve(messages, effort, backend=backend, budget=budget)
    if as_json:
        fields = ("answer", "trace", "confidence", "effort", "state")
        shown = {name: getattr(result, name) for name in fields}
        print(json.dumps({**shown, **asdict(result.usage), "seconds": round(result.graph.seconds, 3)}))
    else:
        if result.trace:
            display.piece("trace", result.trace)
        display.piece("answer", result.answer)
        display.end()
        display.graph(result)
    if show_graph is not None:
        result.graph.save(show_graph)
        display.remarks.print(f"the graph: {show_graph}")
    return result
