"""What stands on one page of a PDF: characters with their boxes, the objects that draw them, pictures and shapes.

Positions are in points of the page as it is displayed, turned and cropped, from its upper left corner, y downwards.
Everything here is called with `LOCK` held: pdfium is not thread-safe.
"""

import ctypes
import math
import re
import threading
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from numpy.typing import NDArray

LOCK = threading.Lock()  # around every use of pdfium in this process

MOST_CHARACTERS = 400_000  # of a page; a full page of small print has 20,000
MOST_OBJECTS = 200_000
MOST_TWINS = 2_000
DEPTH = 8  # of drawings inside drawings
INVISIBLE_MODES = (3, 7)  # neither filled nor stroked, PDF 32000-1, 9.3.6

_BOLD = re.compile(r"bold|black|heavy|demi", re.IGNORECASE)
_HYPHEN_AT_LINE_END = 0x02  # what pdfium makes of it when it joins the word
_BULLETS = {0xF0B7: 0x2022, 0xF0A7: 0x25AA, 0xF0D8: 0x27A2, 0xF0FC: 0x2713}  # of Symbol and Wingdings, as Word writes
UNKNOWN = 0xFFFD


@dataclass(frozen=True)
class Drawn:
    """A text object: `order` counts what the page draws, first to last; `angle` in degrees against the displayed
    page, clockwise; `size` in points."""

    handle: Any
    order: int
    mode: int
    colour: tuple[int, int, int, int]
    size: float
    angle: float
    bold: bool


@dataclass
class PageContent:
    """`boxes` [n, 4] are left, top, right, bottom of what a character takes up, `ink` [n, 4] of what it shows, `origin`
    [n, 2] where it stands on its baseline; `drawn` [n] is its place in `objects`; `spaced` [n]: white space precedes.

    `images` and `shapes` have a row each of order, left, top, right, bottom, and whether it surely fills its box.
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


def read_page(page: pdfium.PdfPage) -> PageContent:
    width, height = page.get_size()
    to_display = _to_display(page, width, height)
    texts, images, shapes = _walk(page, to_display)
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


def _to_display(page: pdfium.PdfPage, width: float, height: float) -> NDArray[np.float64]:
    """[2, 3]: what makes display points of page coordinates, found by three points in a fine grid."""
    fine = 1_000_000
    x, y = ctypes.c_int(), ctypes.c_int()
    points = []
    for at in ((0.0, 0.0), (width, 0.0), (0.0, height)):
        raw.FPDF_PageToDevice(page.raw, 0, 0, fine, fine, 0, *at, x, y)
        points.append((x.value * width / fine, y.value * height / fine))
    (x0, y0), (x1, y1), (x2, y2) = points
    w, h = max(width, 1e-6), max(height, 1e-6)
    return np.array([[(x1 - x0) / w, (x2 - x0) / h, x0], [(y1 - y0) / w, (y2 - y0) / h, y0]])


def displayed(boxes: NDArray[np.float64], to_display: NDArray[np.float64]) -> NDArray[np.float64]:
    """[n, 4] left, bottom, right, top in page coordinates, as left, top, right, bottom on the display."""
    (a, c, e), (b, d, f) = to_display
    x = np.stack([a * boxes[:, i] + c * boxes[:, j] + e for i in (0, 2) for j in (1, 3)])
    y = np.stack([b * boxes[:, i] + d * boxes[:, j] + f for i in (0, 2) for j in (1, 3)])
    return np.stack([x.min(0), y.min(0), x.max(0), y.max(0)], axis=1)


def _walk(
    page: pdfium.PdfPage, to_display: NDArray[np.float64]
) -> tuple[dict[int, tuple[int, Any]], NDArray[np.float64], NDArray[np.float64]]:
    """The page's text objects by their address, with the order in which they are drawn; its images; other shapes."""
    texts: dict[int, tuple[int, Any]] = {}
    pictures: dict[int, list[tuple[float, ...]]] = {raw.FPDF_PAGEOBJ_IMAGE: [], 0: []}
    count = 0
    sides = [ctypes.c_float() for _ in range(4)]

    def visit(holder: Any, size: Any, get: Any, matrix: NDArray[np.float64], depth: int) -> None:
        nonlocal count
        for index in range(size(holder)):
            if count >= MOST_OBJECTS:
                return
            count += 1
            handle = get(holder, index)
            kind = raw.FPDFPageObj_GetType(handle)
            if kind == raw.FPDF_PAGEOBJ_TEXT:
                texts[_address(handle)] = count, handle
            elif kind == raw.FPDF_PAGEOBJ_FORM:
                if depth < DEPTH:
                    inner = raw.FS_MATRIX()
                    raw.FPDFPageObj_GetMatrix(handle, inner)
                    own = np.array([[inner.a, inner.c, inner.e], [inner.b, inner.d, inner.f], [0, 0, 1]])
                    visit(handle, raw.FPDFFormObj_CountObjects, raw.FPDFFormObj_GetObject, matrix @ own, depth + 1)
            elif raw.FPDFPageObj_GetBounds(handle, *sides):
                box = displayed(np.array([[side.value for side in sides]], dtype=np.float64), matrix[:2])[0]
                kept = pictures[kind if kind == raw.FPDF_PAGEOBJ_IMAGE else 0]
                kept.append((float(count), *map(float, box), float(_is_solid(handle, kind))))

    visit(page.raw, raw.FPDFPage_CountObjects, raw.FPDFPage_GetObject, np.vstack([to_display, [0, 0, 1]]), 0)
    images, shapes = (np.array(rows, dtype=np.float64).reshape(-1, 6) for rows in pictures.values())
    return texts, images, shapes


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _is_solid(handle: Any, kind: int) -> bool:
    """Whether it is a rectangle that hides what lies below it."""
    if kind != raw.FPDF_PAGEOBJ_PATH or not 4 <= raw.FPDFPath_CountSegments(handle) <= 5:
        return False
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPath_GetDrawMode(handle, fill, stroke)
    channels = [ctypes.c_uint() for _ in range(4)]
    known = raw.FPDFPageObj_GetFillColor(handle, *channels)
    return bool(fill.value and known) and channels[3].value == 255 and not raw.FPDFPageObj_HasTransparency(handle)


def _characters(
    text: pdfium.PdfTextPage, texts: dict[int, tuple[int, Any]], to_display: NDArray[np.float64]
) -> tuple[Any, ...]:
    page = _address(text.raw)
    total = raw.FPDFText_CountChars(text.raw)
    n = max(0, min(total, MOST_CHARACTERS))
    codes, drawn = np.zeros(n, np.int32), np.zeros(n, np.int32)
    spaced, real = np.zeros(n, bool), np.zeros(n, bool)
    ink, loose, origin = np.zeros((n, 4), np.float64), np.zeros((n, 4), np.float32), np.zeros((n, 2), np.float64)
    ink_at, loose_at, origin_at = ink.ctypes.data, loose.ctypes.data, origin.ctypes.data
    objects: list[Drawn] = []
    places: dict[int, int] = {}
    fonts: dict[int, bool] = {}
    gap = False
    for index in range(n):
        address = _object_of(page, index)
        code = _unicode(page, index)
        if not address or code in (0x20, 0x0D, 0x0A, 0x09):  # a space, or what pdfium made up between two objects
            gap = True
            continue
        if code < 0x20 or 0xD800 <= code < 0xF900 or code in (UNKNOWN, 0xFFFE, 0xFFFF) or _unmapped(page, index):
            code = ord("-") if code == _HYPHEN_AT_LINE_END else _BULLETS.get(code, UNKNOWN)
        at = ink_at + 32 * index
        _ink_box(page, index, at, at + 16, at + 8, at + 24)
        _loose_box(page, index, loose_at + 16 * index)
        _origin(page, index, origin_at + 16 * index, origin_at + 16 * index + 8)
        place = places.get(address)
        if place is None:
            place = places[address] = len(objects)
            order, _ = texts.get(address, (MOST_OBJECTS + place, None))
            objects.append(_drawn(text.raw, index, order, to_display, fonts))
        codes[index], drawn[index], spaced[index], real[index] = code, place, gap, True
        gap = False
    _last_drawn(objects, [text for address, text in texts.items() if address not in places])
    loose_boxes = loose[:, [0, 3, 2, 1]].astype(np.float64)
    empty = (loose_boxes[:, 2] <= loose_boxes[:, 0]) | (loose_boxes[:, 3] <= loose_boxes[:, 1])
    loose_boxes[empty] = ink[empty]
    origin = origin @ to_display[:, :2].T + to_display[:, 2]
    boxes, shown = displayed(loose_boxes, to_display), displayed(ink, to_display)
    real &= np.isfinite(boxes).all(1) & np.isfinite(origin).all(1) & (np.abs(boxes) < 1e6).all(1)
    return (*(each[real] for each in (codes, boxes, shown, origin, drawn, spaced)), objects, total > n)


def _drawn(text: Any, index: int, order: int, to_display: NDArray[np.float64], fonts: dict[int, bool]) -> Drawn:
    handle = raw.FPDFText_GetTextObject(text, index)
    mode = raw.FPDFTextObj_GetTextRenderMode(handle)
    matrix = raw.FS_MATRIX()
    raw.FPDFText_GetMatrix(text, index, matrix)
    along = to_display[:, :2] @ np.array([matrix.a, matrix.b])
    up = math.hypot(matrix.c, matrix.d)
    angle = math.degrees(math.atan2(along[1], along[0])) if along.any() else 0.0
    size = abs(raw.FPDFText_GetFontSize(text, index)) * up
    if not 0.0 <= size < 1e5 or not math.isfinite(angle):
        size, angle = 0.0, 0.0
    font = raw.FPDFTextObj_GetFont(handle)
    key = _address(font)
    if key not in fonts:
        fonts[key] = _is_bold(font)
    return Drawn(handle, order, mode, _colour(handle, mode), size, angle, fonts[key])


def _last_drawn(objects: list[Drawn], dropped: list[tuple[int, Any]]) -> None:
    """Of text drawn twice in one place pdfium gives the first, but the last is seen: puts that one in its place."""
    if not dropped or not objects:
        return
    kept = np.array([_bounds(drawn.handle) for drawn in objects])
    for order, handle in dropped[:MOST_TWINS]:
        bounds = _bounds(handle)
        if bounds[2] <= bounds[0] or (mode := raw.FPDFTextObj_GetTextRenderMode(handle)) in INVISIBLE_MODES:
            continue
        near = np.flatnonzero((np.abs(kept - bounds) < 1.0).all(axis=1))
        for place in near:
            if order > objects[place].order:
                colour = _colour(handle, mode)
                objects[place] = replace(objects[place], handle=handle, order=order, mode=mode, colour=colour)


def _bounds(handle: Any) -> list[float]:
    sides = [ctypes.c_float() for _ in range(4)]
    raw.FPDFPageObj_GetBounds(handle, *sides)
    return [side.value for side in sides]


def _colour(handle: Any, mode: int) -> tuple[int, int, int, int]:
    channels = [ctypes.c_uint() for _ in range(4)]
    read = raw.FPDFPageObj_GetStrokeColor if mode in (1, 5) else raw.FPDFPageObj_GetFillColor
    if not read(handle, *channels):
        return 0, 0, 0, 255
    red, green, blue, alpha = (channel.value for channel in channels)
    return red, green, blue, alpha


def _is_bold(font: Any) -> bool:
    name = ctypes.create_string_buffer(256)
    length = raw.FPDFFont_GetBaseFontName(font, name, 256)
    return bool(_BOLD.search(name.value.decode("latin-1"))) if 0 < length <= 256 else False
