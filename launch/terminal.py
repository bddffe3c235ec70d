"""What a model, a document or a diff says, on a terminal: characters that would steer it are shown, not obeyed."""

from unicodedata import category

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

CONTROL_PICTURES = 0x2400  # U+2400 is the picture of NUL, and so on up to U+001F
DELETE, DELETE_PICTURE = 0x7F, "\N{SYMBOL FOR DELETE}"
JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # part of how words and emoji are written


def visible(text: str, keep: str = "\n\t") -> str:
    """`text` with control characters, direction marks and what else has no form of its own made visible.

    `keep`: those that stay as they are.
    """
    return "".join(char if char in keep else _visible(char) for char in text)


def dim_stderr() -> Console:
    """For what is said beside an answer."""
    return Console(stderr=True, highlight=False, soft_wrap=True, markup=False, style="dim")


def _visible(char: str) -> str:
    if ord(char) < 0x20:
        return chr(CONTROL_PICTURES + ord(char))
    if ord(char) == DELETE:
        return DELETE_PICTURE
    hidden = category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") and char not in JOINERS
    return f"<U+{ord(char):04X}>" if hidden else char


def counting(what: str, remarks: Console, disable: bool) -> Progress:
    """A bar that counts `what` on `remarks`, and leaves nothing behind."""
    return Progress(
        TextColumn("{task.completed} of {task.total} " + what),
        BarColumn(),
        TimeRemainingColumn(),
        console=remarks,
        transient=True,
        disable=disable,
    )
