"""Where a PDF's headings stand: by its bookmarks where they are found on their page, else by the size of the type."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from programs.documents.document import Heading

LONGEST = 160  # characters of a heading
LEVELS = 6
OFTEN = 3  # a line that stands on more pages is a running head


@dataclass(frozen=True)
class Placed:
    """A line of the text at start:end, on page `page`."""

    start: int
    end: int
    page: int
    size: float
    bold: bool
    alone: bool


@dataclass(frozen=True)
class Bookmark:
    """`page` counts from 1, `level` too."""

    title: str
    page: int
    level: int


def headings(text: str, lines: Sequence[Placed], bookmarks: Sequence[Bookmark]) -> tuple[Heading, ...]:
    """In the order of the text."""
    by_page: dict[int, list[Placed]] = {}
    for line in lines:
        by_page.setdefault(line.page, []).append(line)
    found = {heading.start: heading for mark in bookmarks for heading in _find(text, by_page.get(mark.page, ()), mark)}
    if len(found) < max(1, len(bookmarks) // 2):
        found = {heading.start: heading for heading in _by_size(text, lines)}
    return tuple(found[start] for start in sorted(found))


def _find(text: str, lines: Sequence[Placed], mark: Bookmark) -> Iterator[Heading]:
    """The lines that say a bookmark's title, whatever its spacing, number and punctuation; the largest of several."""
    wanted = _letters(mark.title)
    if not wanted or len(wanted) > LONGEST:
        return
    best: tuple[float, Placed, Placed] | None = None
    for first, line in enumerate(lines):
        said = ""
        for last in lines[first : first + 4]:
            said += _letters(text[last.start : last.end])
            if said == wanted or (said.endswith(wanted) and said[: -len(wanted)].isdigit()):
                if best is None or line.size > best[0]:
                    best = line.size, line, last
                break
            if not wanted.startswith(said) and len(said) >= len(wanted):
                break
    if best is not None:
        yield Heading(min(mark.level, LEVELS), best[1].start, best[2].end)


def _letters(text: str) -> str:
    return "".join(letter for letter in text.casefold() if letter.isalnum())


def _by_size(text: str, lines: Sequence[Placed]) -> list[Heading]:
    """Lines in larger type than most of the text, and bold lines that stand alone; none where that says little."""
    weight: Counter[float] = Counter()
    bold = 0
    for line in lines:
        weight[round(line.size * 2) / 2] += line.end - line.start
        bold += (line.end - line.start) * line.bold
    if not weight:
        return []
    body = weight.most_common(1)[0][0]
    bold_tells = bold < 0.25 * weight.total()
    pages = Counter(said for _, said in {(line.page, text[line.start : line.end]) for line in lines})
    chosen = [
        line
        for line in lines
        if line.end - line.start <= LONGEST
        and pages[text[line.start : line.end]] <= OFTEN
        and line.alone
        and any(letter.isalpha() for letter in text[line.start : line.end])
        and (line.size >= 1.15 * body or (bold_tells and _bold_heading(text, line, body)))
    ]
    if sum(line.end - line.start for line in chosen) > 0.3 * weight.total():
        return []
    sizes = sorted({round(line.size) for line in chosen}, reverse=True)
    made: list[tuple[Placed, Heading]] = []
    for line in chosen:
        level = min(sizes.index(round(line.size)) + 1, LEVELS)
        before = made[-1] if made else None
        if before and _goes_on(before[0], line):
            made[-1] = line, Heading(level, before[1].start, line.end)  # a heading of two lines
        else:
            made.append((line, Heading(level, line.start, line.end)))
    return [heading for _, heading in made]


def _goes_on(above: Placed, below: Placed) -> bool:
    """Whether two headings are lines of one."""
    near = above.page == below.page and below.start - above.end <= 1
    return near and above.bold == below.bold and abs(above.size - below.size) < 0.2


def _bold_heading(text: str, line: Placed, body: float) -> bool:
    said = text[line.start : line.end]
    return line.bold and line.size >= 0.95 * body and len(said) <= 100 and said[-1] not in ".,;:"
