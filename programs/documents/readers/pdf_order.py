"""The order in which lines are read: columns one after the other, tables row by row.

Lengths are in points along (`left`, `right`) and across (`base`, downwards) the direction in which the text runs.
"""

from dataclasses import dataclass
from itertools import groupby, pairwise

import numpy as np
from numpy.typing import NDArray

NARROWEST = 3.0  # points that must be free from top to bottom between two columns
SHORT = 8  # characters: lines of values, not of words
DEPTH = 5  # of columns inside columns
ORDER = "the order of its columns or tables is uncertain"


@dataclass(frozen=True)
class Segment:
    """Characters on one baseline without a wide gap; `chars` are their places on the page, `order` the place among the
    segments as drawn. Text that was typed into a form has none."""

    chars: NDArray[np.int64]
    left: float
    right: float
    base: float
    size: float
    order: float
    text: str


@dataclass
class Row:
    """A line to be: its segments in reading order."""

    segments: list[Segment]


@dataclass
class Band:
    """Segments whose heights overlap: a line of text, or columns whose lines do not align."""

    segments: list[Segment]
    top: float
    bottom: float

    def free(self, least: float) -> list[tuple[float, float]]:
        """Where no segment stands, from the far left to the far right."""
        spans, at = [], -1e9
        for segment in sorted(self.segments, key=lambda segment: segment.left):
            if segment.left - at >= least:
                spans.append((at, segment.left))
            at = max(at, segment.right)
        return [*spans, (at, 1e9)]


def reading_order(segments: list[Segment], rtl: bool, height: float, doubts: list[str], depth: int = 0) -> list[Row]:
    """The lines of a page of a height, in order; says in `doubts` where that is a guess."""
    bands = _bands(segments)
    if all(len(band.segments) == 1 for band in bands):
        return [Row(band.segments) for band in bands]
    rows: list[Row] = []
    at = 0
    while at < len(bands):
        end, gutters = _group(bands, at)
        group = bands[at:end]
        at = end
        if not gutters or (len(group) == 1 and len(_visual(group[0].segments, rtl)) == 1):
            for band in group:
                rows += _visual(band.segments, rtl)
            continue
        head, group, foot = _edges(group, height)
        rows += _visual([segment for band in head for segment in band.segments], rtl)
        rows += _parallel(group, gutters, rtl, height, doubts, depth)
        rows += _visual([segment for band in foot for segment in band.segments], rtl)
    return rows


def _bands(segments: list[Segment]) -> list[Band]:
    bands: list[Band] = []
    for segment in sorted(segments, key=lambda segment: segment.base - 0.45 * segment.size):
        top = segment.base - 0.45 * segment.size
        if bands and (top < bands[-1].bottom or _beside(segment, bands[-1].segments[-1])):
            bands[-1].segments.append(segment)
            bands[-1].bottom = max(bands[-1].bottom, segment.base)
        else:
            bands.append(Band([segment], top, segment.base))
    return bands


def _beside(segment: Segment, other: Segment) -> bool:
    """Whether they are lines of two columns that do not align: closer than lines of one column would be."""
    apart = max(segment.left - other.right, other.left - segment.right)
    return apart >= NARROWEST and abs(segment.base - other.base) < 1.1 * max(segment.size, other.size)


def _group(bands: list[Band], at: int) -> tuple[int, list[tuple[float, float]]]:
    """The bands from `at` on through which the same gutters run, as the place after the last, and the gutters."""
    size = float(np.median([segment.size for segment in bands[at].segments]))
    gutters = bands[at].free(0.8 * size)[1:-1]
    if at + 1 < len(bands) and _goes_on(bands[at], bands[at + 1]):
        gutters = _through(bands[at + 1].free(0.8 * size)[1:-1], bands[at])
    end = at + 1
    while gutters and end < len(bands) and (narrower := _through(gutters, bands[end])):
        gutters = narrower
        end += 1
    return end, gutters


def _through(gutters: list[tuple[float, float]], band: Band) -> list[tuple[float, float]]:
    """What a band leaves free of gutters."""
    return [
        (max(left, free_left), min(right, free_right))
        for free_left, free_right in band.free(NARROWEST)
        for left, right in gutters
        if min(right, free_right) - max(left, free_left) >= NARROWEST
    ]


def _goes_on(band: Band, following: Band) -> bool:
    """Whether a band is the first line of a column beside which the others begin lower."""
    first = band.segments[0]
    below = [
        segment
        for segment in following.segments
        if segment.left < first.right
        and first.left < segment.right
        and abs(segment.size - first.size) < 0.1 * first.size
    ]
    return len(band.segments) == 1 and any(segment.base - first.base < 1.5 * first.size for segment in below)


def _edges(group: list[Band], height: float) -> tuple[list[Band], list[Band], list[Band]]:
    """A running head and foot taken off: lines near the page's edge, set off from what stands between."""
    if len(group) < 4:
        return [], group, []
    steps = [min(segment.base for segment in after.segments) - before.bottom for before, after in pairwise(group)]
    size = float(np.median([segment.size for band in group for segment in band.segments]))
    wide = max(1.8 * float(np.median(steps)), 1.5 * size)  # columns that do not align step less than a line
    first = next((n + 1 for n in (1, 0) if steps[n] > wide and group[n].bottom < 0.12 * height), 0)
    last = next((n for n in (-2, -1) if steps[n] > wide and group[n].bottom > 0.88 * height), 0)
    return group[:first], group[first : last or None], group[last:] if last else []


def _parallel(
    group: list[Band], gutters: list[tuple[float, float]], rtl: bool, height: float, doubts: list[str], depth: int
) -> list[Row]:
    """What stands side by side: columns, which are read one after the other, or a table.

    Columns are full of words; a table has short cells. Where that leaves it open, the order in which the page draws
    them decides: most programs write in reading order.
    """
    segments = [segment for band in group for segment in band.segments]
    middles = [(left + right) / 2 for left, right in gutters]
    columns: dict[int, list[Segment]] = {}
    for segment in segments:
        place = sum((segment.left + segment.right) / 2 > middle for middle in middles)
        columns.setdefault(place, []).append(segment)
    parts = [_visual(columns[place], rtl) for place in sorted(columns, reverse=rtl)]
    drawn = sorted(
        ((segment.order, place, segment) for place in columns for segment in columns[place]), key=lambda each: each[0]
    )
    blocks = [[segment for *_, segment in run] for _, run in groupby(drawn, key=lambda each: each[1])]
    fewest = min(len(part) for part in parts)
    if len(parts) < 2 or fewest < 2 or depth >= DEPTH:
        return _table(sorted(segments, key=lambda segment: segment.order), rtl)
    prose = all(_is_prose(part) for part in parts)
    by_column = len(blocks) == len(parts)
    values = any(np.mean([_length(row) for row in part]) < SHORT for part in parts)
    if by_column and not prose and values and _aligned(parts):
        return _visual(segments, rtl)  # a table that was drawn column by column
    if not by_column and prose and len(blocks) <= fewest:  # parts of columns, or cells full of words
        return [row for block in blocks for row in reading_order(block, rtl, height, doubts, depth + 1)]
    if by_column or (prose and _continues(parts)):
        ordered = [columns[place] for place in sorted(columns, reverse=rtl)]
        return [row for column in ordered for row in reading_order(column, rtl, height, doubts, depth + 1)]
    if split := _apart(columns, parts):
        sides = [[segment for place in side for segment in columns[place]] for side in split]
        ordered = sides[::-1] if rtl else sides
        return [row for side in ordered for row in reading_order(side, rtl, height, doubts, depth + 1)]
    if prose:
        doubts.append(ORDER)
    return _table(_cells([(place, segment) for _, place, segment in drawn], rtl), rtl)


def _apart(columns: dict[int, list[Segment]], parts: list[list[Row]]) -> tuple[list[int], list[int]] | None:
    """The columns left and right of a gutter beside which one side, of words, is drawn wholly before the other, as a
    column of text is beside a table."""
    places = sorted(columns)
    for cut in range(1, len(places)):
        sides = places[:cut], places[cut:]
        orders = [[segment.order for place in side for segment in columns[place]] for side in sides]
        alone = [side for side in sides if len(side) == 1]
        words = any(_is_prose(_visual(columns[side[0]], False)) for side in alone)
        if words and (max(orders[0]) < min(orders[1]) or max(orders[1]) < min(orders[0])):
            return sides
    return None


def _cells(drawn: list[tuple[int, Segment]], rtl: bool) -> list[Segment]:
    """Segments with their columns, in the order of drawing, put into that of their cells where a row's cells are drawn
    whole and before the next row's: from the first column to the last, whichever was drawn first."""
    rows: list[dict[int, list[Segment]]] = []
    bottom = 0.0
    for place, run in groupby(drawn, key=lambda each: each[0]):
        cell = [segment for _, segment in run]
        top = min(segment.base - 0.5 * segment.size for segment in cell)
        if rows and top < bottom and place not in rows[-1]:
            rows[-1][place] = cell
            bottom = max(bottom, *(segment.base for segment in cell))
        elif rows and top < bottom:
            return [segment for _, segment in drawn]
        else:
            rows.append({place: cell})
            bottom = max(segment.base for segment in cell)
    return [segment for row in rows for place in sorted(row, reverse=rtl) for segment in row[place]]


def _length(row: Row) -> int:
    return sum(len(segment.text) for segment in row.segments)


def _is_prose(rows: list[Row]) -> bool:
    """Lines of words that fill their column."""
    widths = [row.segments[-1].right - row.segments[0].left for row in rows]
    widths = [abs(width) for width in widths]
    text = "".join(segment.text for row in rows for segment in row.segments)
    letters = sum(letter.isalpha() for letter in text)
    return bool(
        np.mean([_length(row) for row in rows]) >= 15
        and np.median(widths) >= 0.5 * max(widths)
        and letters >= 0.6 * len(text)
    )


def _aligned(parts: list[list[Row]]) -> bool:
    """Whether the lines of the shortest column stand on those of all others."""
    shortest = min(parts, key=len)
    return all(
        min(abs(row.segments[0].base - other.segments[0].base) for other in part) < 0.3 * row.segments[0].size
        for part in parts
        for row in shortest
    )


def _continues(parts: list[list[Row]]) -> bool:
    """Whether lines go on from those above them, as sentences do and cells do not."""
    pairs = [(above.segments[-1].text, below.segments[0].text) for part in parts for above, below in pairwise(part)]
    going_on = sum(
        above.endswith(("-", "\u00ad")) or below[:1].islower() or (below[:1].isalpha() and not below[:1].isupper())
        for above, below in pairs
    )
    return going_on >= 0.25 * len(pairs)


def _table(segments: list[Segment], rtl: bool) -> list[Row]:
    """Cells in the order given where that is row by row, so that a cell of several lines stays together; else the lines
    as they stand."""
    rows: list[Row] = []
    before: Segment | None = None
    for segment in segments:
        if before is None:
            rows.append(Row([segment]))
        else:
            fall = segment.base - before.base
            onward = segment.right <= before.left + 1 if rtl else segment.left >= before.right - 1
            if fall > 0.5 * segment.size:
                rows.append(Row([segment]))
            elif onward:
                rows[-1].segments.append(segment)
            else:
                return _visual(segments, rtl)
        before = segment
    return rows


def _visual(segments: list[Segment], rtl: bool) -> list[Row]:
    """Lines by their baselines, each from its beginning to its end."""
    rows: list[Row] = []
    for segment in sorted(segments, key=lambda segment: segment.base):
        if rows and abs(segment.base - rows[-1].segments[-1].base) < 0.5 * segment.size:
            rows[-1].segments.append(segment)
        else:
            rows.append(Row([segment]))
    for row in rows:
        row.segments.sort(key=lambda segment: -segment.right if rtl else segment.left)
    return rows
