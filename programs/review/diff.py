"""A unified diff as parts to review: each line of the new side by its number, each part small enough for one request.

unidiff reads the hunks, a file at a time, so that a broken file costs no other. Which lines belong to which file is
settled before that, by the counts in the hunk headers alone: a line of a hunk may look like any header. Names come from
where git is unambiguous about them: `rename to`, then `+++`, then `diff --git`.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from unidiff import PatchedFile, PatchSet
from unidiff.errors import UnidiffParseError
from unidiff.patch import Line

HUNK = re.compile(r"@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")
COLOUR = re.compile(r"\x1b\[[0-9;]*[mK]")
COLOURED = re.compile(rf"^(?:{COLOUR.pattern})+(?:diff --git|---|@@) ", re.MULTILINE)
GIT_HEADERS = ("diff --git ", "diff --cc ", "diff --combined ")
COMBINED = GIT_HEADERS[1:]
SIGNATURE = "-- \n"  # ends a patch that git wrote as a mail
PREFIXES = ({"a/", "b/"}, {"c/", "i/"}, {"i/", "w/"}, {"c/", "w/"}, {"o/", "w/"}, {"1/", "2/"})  # git's, in pairs
NOTHING = "/dev/null"
LONGEST_LINE = 1000  # characters of a line that are shown

Count = Callable[[str], int]


@dataclass(frozen=True)
class Part:
    """Some hunks of a file. `lines` are the new side's line numbers that `text` shows, `added` those the diff adds."""

    file: str
    text: str
    lines: frozenset[int]
    added: frozenset[int]

    @property
    def place(self) -> str:
        return f"{self.file}:{min(self.lines)}-{max(self.lines)}"


@dataclass(frozen=True)
class Missing:
    """What is not reviewed, and why."""

    place: str
    reason: str


@dataclass(frozen=True)
class Diff:
    """`skipped` has nothing to review in it; `failed` could not be read."""

    parts: tuple[Part, ...]
    skipped: tuple[Missing, ...]
    failed: tuple[Missing, ...]


@dataclass
class _Chunk:
    """The lines of one file: what stands before `---`, then the rest up to its last hunk."""

    at: int  # the first line's number in the diff
    header: list[str] = field(default_factory=list)
    body: list[str] = field(default_factory=list)
    cut: bool = False  # whether a hunk has fewer lines than its header says


def read_diff(text: str, budget: int, count: Count) -> Diff:
    """The parts of a diff, each of at most `budget` tokens by `count`, in the diff's order.

    A hunk over the budget is split between lines; a single line never is. Colours are taken out. Line ends of a diff
    that was saved with CRLF throughout are those of the diff, not of the files.
    """
    parts: list[Part] = []
    skipped: list[Missing] = []
    failed: list[Missing] = []
    for chunk in _chunks(_plain(text)):
        name = _name(chunk)
        reason = _nothing_to_review(chunk)
        if reason:
            skipped.append(Missing(name, reason))
            continue
        if chunk.header and chunk.header[0].startswith(COMBINED):
            failed.append(Missing(name, "It is a merge's combined diff: review it against one parent, as in A..B."))
            continue
        try:
            if chunk.cut:
                raise UnidiffParseError("a hunk has more or fewer lines than its header says")
            (patch,) = PatchSet("".join(chunk.body))
            pieces = list(_parts(name, patch, budget, count))
        except (UnidiffParseError, ValueError) as error:
            said = str(error).strip().splitlines()[0][:120]
            failed.append(Missing(name, f"The diff is broken after its line {chunk.at}: {said}."))
            continue
        parts += [piece for piece in pieces if piece.lines]
        if not pieces:
            skipped.append(Missing(name, "No line of it changes."))
        elif not all(piece.lines for piece in pieces):
            skipped.append(Missing(name, "Only removed lines are shown: there is no line of the new side to point at."))
    return Diff(tuple(parts), tuple(skipped), tuple(failed))


def _plain(text: str) -> list[str]:
    text = text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    if COLOURED.search(text):
        text = COLOUR.sub("", text)
    header = re.search(r"^(?:diff --git|---) [^\n]*\n", text, re.MULTILINE)
    if header and header[0].endswith("\r\n"):
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    return [f"{line}\n" for line in (lines[:-1] if lines[-1] == "" else lines)]


def _chunks(lines: list[str]) -> Iterator[_Chunk]:
    """Files as they come. Only outside of hunks does a line mean what it looks like."""
    chunk: _Chunk | None = None
    old = new = 0  # lines that the hunk has still to come
    just_ended = False  # whether the line before is a hunk's last one
    for number, line in enumerate(lines, 1):
        if chunk and (old > 0 or new > 0):
            if line[0] in " +-\\\n\r":
                old -= line[0] in " -\n\r"
                new -= line[0] in " +\n\r"
                chunk.body.append(line)
                just_ended = True
                continue
            chunk.cut, old, new = True, 0, 0
            if line.startswith("@@ ") and _begins_file(chunk.body[-2:]):  # the cut hunk took the next file's names
                head = _Chunk(number - 2, body=chunk.body[-2:])
                del chunk.body[-2:]
                yield chunk
                chunk = head
        if line.startswith(GIT_HEADERS) or (line.startswith("Binary file") and (chunk is None or chunk.body)):
            if chunk:
                yield chunk
            chunk = _Chunk(number, [line])
        elif _begins_file(lines[number - 1 : number + 1]):
            if chunk is None or chunk.body:
                if chunk:
                    yield chunk
                chunk = _Chunk(number)
            chunk.body.append(line)
        elif chunk and not chunk.body:
            chunk.header.append(line)
        elif chunk and (len(chunk.body) == 1 or line.startswith("\\")):
            chunk.body.append(line)
        elif chunk and line.startswith("@@ "):
            chunk.body.append(line)
            hunk = HUNK.match(line)
            old, new = (int(length or 1) for length in hunk.groups()) if hunk else (0, 0)
            chunk.cut |= hunk is None
        elif chunk and just_ended and line[0] in " +-" and line != SIGNATURE:
            chunk.cut = True  # the hunk has more lines than its header says
        just_ended = False
    if chunk:
        chunk.cut |= old > 0 or new > 0
        yield chunk


def _begins_file(lines: list[str]) -> bool:
    return len(lines) == 2 and lines[0].startswith("--- ") and lines[1].startswith("+++ ")


def _nothing_to_review(chunk: _Chunk) -> str:
    header = "".join(chunk.header)
    if re.search(r"^(Binary files? |GIT binary patch)", header, re.MULTILINE):
        return "It is a binary file."
    if chunk.body:
        return "It is deleted." if _path(chunk.body[1], "+++ ") == NOTHING else ""
    if renamed := re.search(r"^(rename|copy) from (.*)", header, re.MULTILINE):
        return f"It is a {renamed[1]} of {_unquoted(renamed[2])} without a change."
    if chunk.header[0].startswith(COMBINED):
        return ""
    return "It is deleted." if "\ndeleted file mode" in header else "No line of it changes."


def _name(chunk: _Chunk) -> str:
    """The new side's name, or the old one's where there is no new side."""
    header = "".join(chunk.header)
    if renamed := re.search(r"^(?:rename|copy) to (.*)", header, re.MULTILINE):
        return _unquoted(renamed[1])
    left, right = _halves(header)
    bare = left == right != ""  # made with --no-prefix: there is nothing to strip
    if len(chunk.body) > 1:
        old, new = _path(chunk.body[0], "--- "), _path(chunk.body[1], "+++ ")
        sides = {path[:2] for path in (old, new) if path != NOTHING}
        prefixed = any(sides <= pair for pair in PREFIXES) and (len(sides) == 2 or NOTHING in (old, new))
        if prefixed and not bare:
            old, new = (path if path == NOTHING else path[2:] for path in (old, new))
        return old if new == NOTHING else new
    if bare:
        return left
    if left[2:] == right[2:] and {left[:2], right[:2]} in PREFIXES:
        return left[2:]
    if chunk.header[0].startswith("Binary file"):
        names = chunk.header[0].partition(" ")[2].partition(" ")[2].rstrip("\n")
        name = names.removesuffix(" has changed").removesuffix(" differ").rpartition(" and ")[2]
        return _unquoted(name).removeprefix("b/")
    return _unquoted(re.sub(r"^diff --\w+ ", "", chunk.header[0]).strip())


def _halves(header: str) -> tuple[str, str]:
    """The two names of `diff --git`, which are of one length where the file is not renamed; else nothing."""
    names = header.split("\n")[0].removeprefix(GIT_HEADERS[0])
    middle = len(names) // 2
    if not header.startswith(GIT_HEADERS[0]) or names[middle : middle + 1] != " ":
        return "", ""
    return _unquoted(names[:middle]), _unquoted(names[middle + 1 :])


def _path(line: str, mark: str) -> str:
    """A name may hold spaces; git then ends it with a tab, and others put a date behind one."""
    return _unquoted(line.removeprefix(mark).rstrip("\n").split("\t")[0])


ESCAPES = {"a": 7, "b": 8, "t": 9, "n": 10, "v": 11, "f": 12, "r": 13}


def _unquoted(name: str) -> str:
    """Git writes a name with quotes, control characters or bytes beyond ASCII as a C string."""
    if len(name) < 2 or name[0] != '"' or name[-1] != '"':
        return name
    named = bytearray()
    for plain, escape in re.findall(r"([^\\]+)|\\([0-7]{3}|.)", name[1:-1]):
        if plain:
            named += plain.encode("utf-8", "replace")
        elif escape.isdigit() and len(escape) == 3:
            named.append(int(escape, 8) & 255)
        else:
            named += bytes([ESCAPES[escape]]) if escape in ESCAPES else escape.encode()
    return named.decode("utf-8", "replace")


@dataclass(frozen=True)
class _Row:
    shown: str
    number: int | None  # on the new side
    is_added: bool


def _parts(file: str, patch: PatchedFile, budget: int, count: Count) -> Iterator[Part]:
    """Whole hunks together while they fit; one that does not fit alone is split between lines."""
    kept: list[_Row] = []
    size = 0
    for hunk in patch:
        rows = [_row(line) for line in hunk]
        costs = [count(row.shown) for row in rows]
        if kept and size + sum(costs) > budget:
            yield _part(file, kept)
            kept, size = [], 0
        if kept:
            kept.append(_Row("...\n", None, False))
        for row, cost in zip(rows, costs, strict=True):
            if kept and size + cost > budget:
                yield _part(file, kept)
                kept, size = [], 0
            kept.append(row)
            size += cost
    if kept:
        yield _part(file, kept)


def _row(line: Line) -> _Row:
    value = line.value.removesuffix("\n")
    if len(value) > LONGEST_LINE:
        value = f"{value[:LONGEST_LINE]} [cut: the first {LONGEST_LINE} of {len(value)} characters]"
    number = line.target_line_no
    return _Row(f"{'' if number is None else number:>6} {line.line_type}{value}\n", number, line.is_added)


def _part(file: str, rows: list[_Row]) -> Part:
    return Part(
        file,
        "".join(row.shown for row in rows),
        frozenset(row.number for row in rows if row.number is not None),
        frozenset(row.number for row in rows if row.number is not None and row.is_added),
    )
