"""Text put down as a page shows it: white space collapsed, lines and cells where they begin."""

import re

WHITE = re.compile(r"[ \t\n\r\f]+")


class Writer:
    """Text put down with collapsed white space. A line end, a tab or a label is only written once text follows it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.length = 0
        self.first: int | None = None  # where the first text since this was None stands
        self._ends = 0
        self._tabs = 0
        self._space = False
        self._label = ""

    def line(self, ends: int = 1) -> None:
        """Begin a line, with an empty one before it for two `ends`; what follows a label stays beside it."""
        if self._label:
            return
        self._ends = max(self._ends, ends)
        self._space = False
        self._tabs = 0

    def next_line(self) -> None:
        self.line(min(self._ends + 1, 2))

    def cell(self) -> None:
        self._tabs += 1
        self._space = False

    def space(self) -> None:
        self._space = True

    def label(self, label: str) -> None:
        self._label = label

    def text(self, text: str) -> None:
        words = WHITE.sub(" ", text)
        if words.startswith(" "):
            self._space = True
        if words := words.strip(" "):
            self._put(words)
            self._space = WHITE.match(text, len(text) - 1) is not None

    def kept(self, text: str) -> None:
        """As it is, but for line ends at its end."""
        body = text.rstrip("\n")
        if body:
            leading = len(body) - len(body.lstrip("\n"))
            self._ends = max(self._ends, leading) if leading else self._ends
            self._put(body[leading:])
        self._ends = max(self._ends, len(text) - len(body))

    def _put(self, text: str) -> None:
        before = ""
        if self.length:
            before = "\n" * self._ends or " " * (self._space and not self._tabs)
        before += "\t" * self._tabs + self._label
        self.parts += (before, text)
        if self.first is None:
            self.first = self.length + len(before)
        self.length += len(before) + len(text)
        self._ends = self._tabs = 0
        self._space = False
        self._label = ""
