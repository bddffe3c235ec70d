"""`small4 ask`: one question, with the trace and the answer shown apart."""

from pathlib import Path

from rich.console import Console

from launch import client
from launch.client import Effort, Message, Part, Reply
from launch.errors import LaunchError
from launch.server import Server

ESCAPE_MADE_VISIBLE = {0x1B: "\N{SYMBOL FOR ESCAPE}"}  # what a model or a document says must not steer the terminal


class Display:
    """The answer on standard output, everything else (trace, costs, remarks) dim on standard error."""

    def __init__(self) -> None:
        self.answers = Console(highlight=False, soft_wrap=True, markup=False)
        self.remarks = Console(stderr=True, highlight=False, soft_wrap=True, markup=False, style="dim")
        self._open: Part | None = None

    def piece(self, part: Part, text: str) -> None:
        """The next piece of a stream; a line break stands between trace and answer."""
        if self._open not in (None, part):
            self.end()
        self._open = part
        console = self.answers if part == "answer" else self.remarks
        console.print(text.translate(ESCAPE_MADE_VISIBLE), end="")
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


def ask(text: str, file: Path | None, effort: Effort, server: str | None, as_json: bool) -> None:
    """Ask one question of `server`, or of a private server that ends with the answer."""
    messages = conversation(text, file)
    display = Display()
    if server is not None:
        _one(server, messages, effort, as_json, display)
        return
    if not as_json:
        display.remarks.print(
            "starting a server for this one question; to keep one warm, run `small4 serve` "
            "and add --server http://127.0.0.1:30000 here"
        )
    with Server() as private:
        _one(private.url, messages, effort, as_json, display)


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
