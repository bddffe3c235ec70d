"""What stands on one page of a PDF: characters with their boxes, the objects that draw them, pictures and shapes.

Positions are in points of the page as it is displayed, turned and cropped, from its upper left corner, y downwards.
"""

import ctypes
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from numpy.typing import NDArray

from programs.documents.readers.pdf_objects import (
    MOST_OBJECTS,
    Drawn,
    Text,
    address_of,
    bounds_of,
    describe,
    display_matrix,
    displayed,
    put_last_drawn,
    walk,
)

MOST_CHARACTERS = 400_000  # of a page; a full page of small print has 20,000

_WHITE = (0x20, 0x0D, 0x0A, 0x09)
_MEANT = {  # 2: what pdfium makes of a hyphen at a line's end; the others: bullets of Symbol and Wingdings, as in Word
    0x02: 0x2D, 0xF0B7: 0x2022, 0xF0A7: 0x25AA, 0xF0D8: 0x27A2, 0xF0FC: 0x2713,
}  # fmt: skip
UNKNOWN = 0xFFFD


@dataclass
class PageContent:
    """`boxes` [n, 4] are left, top, right, bottom of what a character takes up, `ink` [n, 4] of what it shows, `origin`
    [n, 2] where it stands on its baseline; `drawn` [n] is its place in `objects`; `spaced` [n]: white space precedes.

    `images` and `shapes` have a row each of order, left, top, right, bottom, and how surely it fills its box.
    """

    width: float
    height: float
    codes: NDArray[np.int32]
    boxes: NDArray[np.float64]
    ink: NDArray[np.float64]
    origin: NDArray[np.float64]
    drawn: NDArray[np.int32]
    spaced: NDArray[np.bool_]
    objects: list[Drawn]
    images: NDArray[np.float64]
    shapes: NDArray[np.float64]
    to_display: NDArray[np.float64]
    cut: bool = False

    def keep(self, chosen: NDArray[Any]) -> None:
        """Only these characters, or in this order. What was spaced from a character that is gone stays spaced."""
        for name in ("codes", "boxes", "ink", "origin", "drawn", "spaced"):
            setattr(self, name, getattr(self, name)[chosen])

    @property
    def orders(self) -> NDArray[np.int64]:
        return np.array([drawn.order for drawn in self.objects], dtype=np.int64)[self.drawn]

    @property
    def sizes(self) -> NDArray[np.float64]:
        return np.array([drawn.size for drawn in self.objects], dtype=np.float64)[self.drawn]

    @property
    def pictured(self) -> float:
        """The share of the page that images cover; more than 1 where they lie on one another."""
        if not len(self.images):
            return 0.0
        left, top = np.maximum(self.images[:, 1], 0), np.maximum(self.images[:, 2], 0)
        right, bottom = np.minimum(self.images[:, 3], self.width), np.minimum(self.images[:, 4], self.height)
        covered = (np.maximum(right - left, 0) * np.maximum(bottom - top, 0)).sum()
        return float(covered / max(self.width * self.height, 1.0))


def _direct(name: str, result: Any, *arguments: Any) -> Any:
    """One of pdfium's functions on plain addresses: a third of the time that its checked form takes, and a page calls
    it for each character."""
    return ctypes.CFUNCTYPE(result, *arguments)(ctypes.cast(getattr(raw, name), ctypes.c_void_p).value or 0)


_POINTER, _INT = ctypes.c_void_p, ctypes.c_int
_object_of = _direct("FPDFText_GetTextObject", _POINTER, _POINTER, _INT)
_unicode = _direct("FPDFText_GetUnicode", ctypes.c_uint, _POINTER, _INT)
_unmapped = _direct("FPDFText_HasUnicodeMapError", _INT, _POINTER, _INT)
_ink_box = _direct("FPDFText_GetCharBox", _INT, _POINTER, _INT, *[_POINTER] * 4)  # left, right, bottom, top
_loose_box = _direct("FPDFText_GetLooseCharBox", _INT, _POINTER, _INT, _POINTER)  # left, top, right, bottom
_origin = _direct("FPDFText_GetCharOrigin", _INT, _POINTER, _INT, _POINTER, _POINTER)


def characters(page: pdfium.PdfPage) -> PageContent:
    width, height = page.get_size()
    to_display = display_matrix(page, width, height)
    texts, images, shapes = walk(page, to_display)
    text = page.get_textpage()
    try:
        content = _characters(text, texts, to_display)
    finally:
        text.close()
    codes, boxes, ink, origin, drawn, spaced, objects, cut = content
    found = PageContent(
        width, height, codes, boxes, ink, origin, drawn, spaced, objects, images, shapes, to_display, cut
    )
    # As the page draws them: pdfium sorts by place, and reverses what it takes for right-to-left.
    found.keep(np.argsort(found.orders, kind="stable"))
    return found


def _each(call: Any, page: int, n: int, *more: Iterable[int]) -> Any:
    """A function's results for characters 0 to n - 1; the loop is `map`'s own, for speed."""
    return map(call, repeat(page), range(n), *more)


def _rows(array: NDArray[Any], *columns: int) -> list[range]:
    """The addresses of a column's items, row by row, for some columns of an array."""
    start, step, width = array.ctypes.data, array.shape[1] * array.itemsize, array.itemsize
    return [range(start + column * width, start + column * width + len(array) * step, step) for column in columns]


def _characters(text: pdfium.PdfTextPage, texts: dict[int, Text], to_display: NDArray[np.float64]) -> tuple[Any, ...]:
    page = address_of(text.raw)
    total = raw.FPDFText_CountChars(text.raw)
    n = max(0, min(total, MOST_CHARACTERS))
    addresses = list(_each(_object_of, page, n))
    codes = np.fromiter(_each(_unicode, page, n), np.uint32, n)
    unmapped = np.fromiter(_each(_unmapped, page, n), np.int32, n) != 0
    ink, loose, origin = np.zeros((n, 4)), np.zeros((n, 4), np.float32), np.zeros((n, 2))
    deque(_each(_ink_box, page, n, *_rows(ink, 0, 2, 1, 3)), maxlen=0)
    deque(_each(_loose_box, page, n, *_rows(loose, 0)), maxlen=0)
    deque(_each(_origin, page, n, *_rows(origin, 0, 1)), maxlen=0)
    boxes = loose[:, [0, 3, 2, 1]].astype(np.float64)
    empty = (boxes[:, 2] <= boxes[:, 0]) | (boxes[:, 3] <= boxes[:, 1])
    boxes[empty] = ink[empty]

    # Spaces are not kept, nor what pdfium makes up between two objects, which has no object: what follows is spaced.
    real = np.array([address is not None for address in addresses], bool) & ~np.isin(codes, _WHITE)
    spaced = np.concatenate([[False], ~real[:-1]])[:n]
    # Nor is a line's end that pdfium sees behind letters that stand for one sign, whose boxes are too narrow.
    signs = np.flatnonzero(spaced[3:] & (codes[2:-1] == 0x0A) & (codes[1:-2] == 0x0D)) + 3
    spaced[signs[(origin[signs - 3] == origin[signs - 4]).all(axis=1) & real[signs - 3] & real[signs - 4]]] = False
    real &= (np.abs(boxes) < 1e6).all(axis=1) & (np.abs(origin) < 1e6).all(axis=1)  # false for what is no number, too
    objects: list[Drawn] = []
    places: dict[int, int] = {}
    fonts: dict[int, str] = {}
    drawn = np.zeros(n, np.int32)
    for index in np.flatnonzero(real):
        address = addresses[index]
        if (place := places.get(address)) is None:
            place = places[address] = len(objects)
            order = texts[address].order if address in texts else MOST_OBJECTS + place
            objects.append(describe(text.raw, int(index), order, to_display, fonts))
        drawn[index] = place
    put_last_drawn(objects, [text for address, text in texts.items() if address not in places])
    shown, inked = displayed(boxes, to_display), displayed(ink, to_display)
    stands = origin @ to_display[:, :2].T + to_display[:, 2]
    for index, matrix in _astray(addresses, texts, origin, shown, to_display):
        shown[index], inked[index] = displayed(np.stack([boxes[index], ink[index]]), matrix)
        stands[index] = matrix[:, :2] @ origin[index] + matrix[:, 2]
    arrays = (
        _letters(codes, unmapped),
        shown,
        inked,
        stands,
        drawn,
        spaced,
    )
    return (*(array[real] for array in arrays), objects, total > n)


def _astray(
    addresses: list[Any],
    texts: dict[int, Text],
    origin: NDArray[np.float64],
    shown: NDArray[np.float64],
    to_display: NDArray[np.float64],
) -> Iterable[tuple[int, NDArray[np.float64]]]:
    """The letters of ligatures that pdfium places by the coordinates of the form they are drawn in, as if these were
    the page's, and the matrix that puts each where it stands."""
    same = (origin[1:] == origin[:-1]).all(axis=1)
    for index in np.flatnonzero(np.append(same, False) | np.append(False, same)):
        text = texts.get(addresses[index] or 0)
        if text is None or np.allclose(text.to_display, to_display):
            continue
        left, top, right, bottom = displayed(np.array([bounds_of(text.handle)]), text.to_display)[0]
        x, y = shown[index].reshape(2, 2).mean(axis=0)
        if not (left - 1 <= x <= right + 1 and top - 1 <= y <= bottom + 1):
            yield int(index), text.to_display


def _letters(codes: NDArray[np.uint32], unmapped: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Codes that are letters: what a font does not say, what is for private use, and control codes are unknown."""
    private = ((codes >= 0xD800) & (codes < 0xF900)) | (codes >= 0xF0000)
    control = (codes < 0x20) | ((codes >= 0x7F) & (codes < 0xA0)) | np.isin(codes, (UNKNOWN, 0xFFFE, 0xFFFF))
    known = np.where(private | control | unmapped, UNKNOWN, codes).astype(np.int32)
    for code, letter in _MEANT.items():
        known[codes == code] = letter
    return known
