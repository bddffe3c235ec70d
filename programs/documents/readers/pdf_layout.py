"""A page's characters as the lines that a reader reads.

Lengths are in points along (`left`, `right`) and across (`base`, downwards) the direction in which the text runs.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from programs.documents.readers.pdf_bidi import bracketed, has_rtl, is_rtl, logical, unturned
from programs.documents.readers.pdf_chars import PageContent
from programs.documents.readers.pdf_order import Row, Segment, reading_order

GAP = 0.9  # of the size: wider is no space between words, but between cells or columns
MOST_SPACES = 60
SPACE = 0.2  # of the size: wider is a space where two objects meet
OVERLAP = "lines lie on one another, and may be mixed up"
UNTURNED = "its right-to-left words stand from left to right, and are read so"
TURNED = "text that runs in another direction stands after the rest"


@dataclass(frozen=True)
class Typed:
    """A line of text that is no part of the page's drawing: a form field's value."""

    text: str
    left: float
    right: float
    base: float
    size: float


@dataclass(frozen=True)
class Line:
    """`left`: where it begins; `pitch`: the width of each of its letters where they are all alike, else 0."""

    text: str
    size: float
    bold: bool
    alone: bool  # nothing else stands on its baseline
    left: float
    pitch: float


@dataclass
class Layout:
    lines: list[Line] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Direction:
    """`rtl`: most lines are read from right to left; `unturned`: their letters stand from left to right even so."""

    rtl: bool = False
    unturned: bool = False


def layout(content: PageContent, typed: Sequence[Typed] = ()) -> Layout:
    """The lines of a page's characters, in reading order."""
    made = Layout()
    if not len(content.codes) and not typed:
        return made
    angles = _directions(content)
    runs = sorted(
        (np.flatnonzero(angles == angle) for angle in np.unique(angles)), key=lambda chosen: (-len(chosen), chosen[0])
    )
    for number, chosen in enumerate(runs or [np.zeros(0, np.int64)]):
        segments = _segments(content, chosen, float(angles[chosen[0]])) if len(chosen) else []
        if not number:
            segments += [_placed(each, segments) for each in typed]
        direction = _direction(content, segments)
        if direction.unturned:
            made.doubts.append(UNTURNED)
        rtl = direction.rtl
        rows = reading_order(segments, rtl, content.height, made.doubts)
        made.lines += _indented([line for row in rows if (line := _line(content, row, direction)).text])
        if len(segments) > 1 and _overlapping(segments):
            made.doubts.append(OVERLAP)
    if len(runs) > 1:
        made.notes.append(TURNED)
    made.doubts = sorted(set(made.doubts))
    return made


def _placed(typed: Typed, segments: Sequence[Segment]) -> Segment:
    """Typed text as if it had been drawn right after what stands before it."""
    line = [s for s in segments if abs(s.base - typed.base) < 0.5 * typed.size and s.left < typed.left]
    above = [s for s in segments if s.base < typed.base]
    before = max(line or above, key=lambda segment: (segment.base, segment.left), default=None)
    order = before.order + 0.5 if before else -1.0
    nothing = np.zeros(0, np.int64)
    return Segment(nothing, typed.left, typed.right, typed.base, typed.size, order, typed.text)


def _directions(content: PageContent) -> NDArray[np.float64]:
    """[n] the angle at which each character's line runs, in degrees; upright characters below one another run at 90."""
    if not len(content.codes):
        return np.zeros(0)
    angles = np.array([drawn.angle for drawn in content.objects])[content.drawn]
    angles = np.round(angles / 3) * 3 % 360
    step = np.diff(content.origin, axis=0)
    sizes = content.sizes[1:]
    down = (np.abs(step[:, 0]) < 0.3 * sizes) & (step[:, 1] > 0.7 * sizes) & (step[:, 1] < 2 * sizes)
    if len(step) > 20 and down.mean() > 0.6:
        angles[angles == 0] = 90.0
    return angles


def _segments(content: PageContent, chosen: NDArray[np.int64], angle: float) -> list[Segment]:
    cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    origin, boxes = content.origin[chosen], content.boxes[chosen]
    size = np.maximum(content.sizes[chosen], 0.1)
    base = -origin[:, 0] * sin + origin[:, 1] * cos
    if angle % 90 == 0:
        ends = boxes[:, [0, 2]] * cos + boxes[:, [1, 3]] * sin
        left, right = ends.min(1), ends.max(1)
    else:  # the box of a slanted character says little
        left = origin[:, 0] * cos + origin[:, 1] * sin
        right = left + 0.5 * size
    codes, spaced = content.codes[chosen], content.spaced[chosen]
    strong = _rtl_codes(codes)
    gap = left[1:] - right[:-1]
    apart = np.where(strong[1:] | strong[:-1], np.maximum(gap, left[:-1] - right[1:]), gap)
    larger = np.maximum(size[1:], size[:-1])
    begins = np.concatenate([[True], (np.abs(np.diff(base)) > 0.6 * larger) | (apart > GAP * larger)])
    begins[1:] |= (gap < -0.6 * larger) & ~strong[1:] & ~strong[:-1]
    other = content.drawn[chosen][1:] != content.drawn[chosen][:-1]
    spaces = np.concatenate(
        [[False], np.where(other, (spaced[1:] & (gap > 0.05 * larger)) | (gap > SPACE * larger), spaced[1:])]
    )
    starts = np.flatnonzero(begins)
    ends_at = np.append(starts[1:], len(chosen))
    found = []
    for order, (start, end) in enumerate(zip(starts, ends_at, strict=True)):
        part = slice(start, end)
        letters = [chr(code) for code in codes[part]]
        for place in np.flatnonzero(spaces[part])[::-1]:
            if place:
                letters.insert(place, " ")
        large = size[part] >= 0.75 * size[part].max()
        found.append(
            Segment(
                chosen[part], left[part].min(), right[part].max(), _middle(base[part][large]),
                _middle(size[part][large]), order, "".join(letters),
            )
        )  # fmt: skip
    return found


def _middle(values: NDArray[np.float64]) -> float:
    return float(np.sort(values)[len(values) // 2])


def _rtl_codes(codes: NDArray[np.int32]) -> NDArray[np.bool_]:
    return (
        ((codes >= 0x590) & (codes < 0x900))
        | ((codes >= 0xFB1D) & (codes < 0xFE00))
        | ((codes >= 0xFE70) & (codes < 0xFF00))
    )


def _line(content: PageContent, row: Row, direction: Direction) -> Line:
    segments = row.segments
    main = max(segments, key=lambda segment: len(segment.text))
    bold = all(len(s.chars) > 0 and content.objects[content.drawn[s.chars[0]]].bold for s in segments)
    fixed = len(main.chars) > 0 and content.objects[content.drawn[main.chars[0]]].fixed
    pitch = _middle(content.boxes[main.chars, 2] - content.boxes[main.chars, 0]) if fixed else 0.0
    return Line(_text(content, segments, direction), main.size, bold, len(segments) == 1, segments[0].left, pitch)


def _indented(lines: list[Line]) -> list[Line]:
    """Lines of program code with the spaces at their beginning, which a page shows by their place."""
    made: list[Line] = []
    for code, run in groupby(lines, key=lambda line: line.pitch > 0):
        group = list(run)
        edge = min(line.left for line in group)
        for line in group:
            spaces = min(MOST_SPACES, round((line.left - edge) / line.pitch)) if code else 0
            made.append(replace(line, text=" " * spaces + line.text))
    return made


def _text(content: PageContent, segments: Sequence[Segment], direction: Direction) -> str:
    drawn = all(len(segment.chars) for segment in segments)
    if drawn and (direction.rtl or any(has_rtl(segment.text) for segment in segments)):
        glyphs = _glyphs(content, segments)
        return bracketed("".join(each[2] for each in glyphs)) if direction.unturned else logical(glyphs, direction.rtl)
    text = ""
    before: Segment | None = None
    for segment in segments:
        if before is not None:
            gap = max(segment.left - before.right, before.left - segment.right)
            same = abs(segment.base - before.base) < 0.6 * max(segment.size, before.size)
            text += "  " if gap > 2 * segment.size or not same else " " if gap > SPACE * segment.size else ""
        text += segment.text
        before = segment
    return text.strip()


def _glyphs(content: PageContent, segments: Sequence[Segment]) -> list[tuple[float, float, str]]:
    """A line's characters from left to right, with spaces: pdfium gives such lines in one order or another."""
    chars = np.concatenate([segment.chars for segment in segments])
    chars = chars[np.argsort(content.boxes[chars, 0], kind="stable")]
    glyphs: list[tuple[float, float, str]] = []
    for place in chars:
        left, _, right, _ = map(float, content.boxes[place])
        letter = chr(content.codes[place])
        if glyphs and not unicodedata.combining(letter):
            end = max(glyph[1] for glyph in glyphs[-3:])
            if left - end > SPACE * segments[0].size:
                glyphs.append((end, left, " "))
        glyphs.append((left, right, letter))
    return glyphs


def _direction(content: PageContent, segments: Sequence[Segment]) -> Direction:
    if not any(has_rtl(segment.text) for segment in segments):
        return Direction()
    lines = ["".join(text for *_, text in _glyphs(content, [each])) for each in segments if len(each.chars)]
    if unturned(lines):
        return Direction(unturned=True)
    return Direction(rtl=sum(is_rtl(line) for line in lines) > len(lines) / 2)


def _overlapping(segments: list[Segment]) -> bool:
    """Whether several segments cover others; single letters may, as in a logo."""
    segments = [segment for segment in segments if len(segment.text) >= 5]
    if not 2 <= len(segments) <= 3_000:
        return False
    box = np.array([(s.left, s.base - 0.6 * s.size, s.right, s.base) for s in segments])
    width = np.minimum(box[:, None, 2], box[None, :, 2]) - np.maximum(box[:, None, 0], box[None, :, 0])
    height = np.minimum(box[:, None, 3], box[None, :, 3]) - np.maximum(box[:, None, 1], box[None, :, 1])
    area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
    shared = np.where((width > 0) & (height > 0), width * height, 0.0)
    np.fill_diagonal(shared, 0.0)
    covered = (shared > 0.4 * np.minimum(area[:, None], area[None, :])).any(axis=1).sum()
    return bool(covered >= 2 and covered > 0.02 * len(segments))
