"""The objects that a page of a PDF draws: text with its colour, size and direction, images, shapes.

Positions are in points of the page as it is displayed, turned and cropped, from its upper left corner, y downwards.
"""

import ctypes
import math
import re
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from numpy.typing import NDArray

MOST_OBJECTS = 200_000
MOST_TWINS = 2_000
DEPTH = 8  # of drawings inside drawings
FILLED, RECTANGLE = 1, 2
INVISIBLE_MODES = (3, 7)  # neither filled nor stroked, PDF 32000-1, 9.3.6

_BOLD = re.compile(r"bold|black|heavy|demi", re.IGNORECASE)
_FIXED = re.compile(r"mono|courier|consol|typewriter|cmtt|fixed|menlo|code", re.IGNORECASE)


@dataclass(frozen=True)
class Text:
    """A text object: `order` counts what the page draws, `to_display` [2, 3] makes display points of the coordinates
    it is drawn in, which are those of a form's own, or the page's."""

    handle: Any
    order: int
    to_display: NDArray[np.float64]


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
    fixed: bool  # all its letters have one width


def display_matrix(page: pdfium.PdfPage, width: float, height: float) -> NDArray[np.float64]:
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
    """[n, 4] left, bottom, right, top in page coordinates, as left, top, right, bottom on the display; the matrix is
    one for all, [2, 3], or one for each, [n, 2, 3]."""
    (a, c, e), (b, d, f) = np.moveaxis(to_display, 0, -1) if to_display.ndim == 3 else to_display
    x = np.stack([a * boxes[:, i] + c * boxes[:, j] + e for i in (0, 2) for j in (1, 3)])
    y = np.stack([b * boxes[:, i] + d * boxes[:, j] + f for i in (0, 2) for j in (1, 3)])
    return np.stack([x.min(0), y.min(0), x.max(0), y.max(0)], axis=1)


def walk(
    page: pdfium.PdfPage, to_display: NDArray[np.float64]
) -> tuple[dict[int, Text], NDArray[np.float64], NDArray[np.float64]]:
    """The page's text objects by their address; its images; other shapes."""
    texts: dict[int, Text] = {}
    found: list[tuple[float, ...]] = []
    matrices: list[NDArray[np.float64]] = []
    count = 0
    sides = [ctypes.c_float() for _ in range(4)]

    def visit(holder: Any, size: Any, get: Any, matrix: NDArray[np.float64], depth: int) -> None:
        nonlocal count
        place = len(matrices)
        matrices.append(matrix)
        for index in range(size(holder)):
            if count >= MOST_OBJECTS:
                return
            count += 1
            handle = get(holder, index)
            kind = raw.FPDFPageObj_GetType(handle)
            if kind == raw.FPDF_PAGEOBJ_TEXT:
                texts[address_of(handle)] = Text(handle, count, matrix[:2])
            elif kind == raw.FPDF_PAGEOBJ_FORM:
                if depth < DEPTH:
                    inner = raw.FS_MATRIX()
                    raw.FPDFPageObj_GetMatrix(handle, inner)
                    own = np.array([[inner.a, inner.c, inner.e], [inner.b, inner.d, inner.f], [0, 0, 1]])
                    visit(handle, raw.FPDFFormObj_CountObjects, raw.FPDFFormObj_GetObject, matrix @ own, depth + 1)
            elif raw.FPDFPageObj_GetBounds(handle, *sides):
                image = kind == raw.FPDF_PAGEOBJ_IMAGE
                found.append((place, image, count, *(side.value for side in sides), _cover(handle, kind)))

    visit(page.raw, raw.FPDFPage_CountObjects, raw.FPDFPage_GetObject, np.vstack([to_display, [0, 0, 1]]), 0)
    rows = np.array(found, dtype=np.float64).reshape(-1, 8)
    if len(rows):
        rows[:, 3:7] = displayed(rows[:, 3:7], np.array(matrices)[rows[:, 0].astype(int), :2])
    images = rows[:, 1] > 0
    return texts, rows[images, 2:], rows[~images, 2:]


def address_of(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


def _cover(handle: Any, kind: int) -> int:
    """How surely it hides what lies below it in its box: RECTANGLE, FILLED (in some shape), or not at all."""
    if kind in (raw.FPDF_PAGEOBJ_IMAGE, raw.FPDF_PAGEOBJ_SHADING):
        return FILLED
    fill, stroke = ctypes.c_int(), ctypes.c_int()
    raw.FPDFPath_GetDrawMode(handle, fill, stroke)
    if kind != raw.FPDF_PAGEOBJ_PATH or not fill.value:
        return 0
    channels = [ctypes.c_uint() for _ in range(4)]
    opaque = raw.FPDFPageObj_GetFillColor(handle, *channels) and channels[3].value == 255
    straight = 4 <= raw.FPDFPath_CountSegments(handle) <= 5
    return RECTANGLE if opaque and straight and not raw.FPDFPageObj_HasTransparency(handle) else FILLED


def describe(text: Any, index: int, order: int, to_display: NDArray[np.float64], fonts: dict[int, str]) -> Drawn:
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
    key = address_of(font)
    if key not in fonts:
        fonts[key] = _font_name(font)
    return Drawn(
        handle,
        order,
        mode,
        _colour(handle, mode),
        size,
        angle,
        bool(_BOLD.search(fonts[key])),
        bool(_FIXED.search(fonts[key])),
    )


def put_last_drawn(objects: list[Drawn], dropped: list[Text]) -> None:
    """Of text drawn twice in one place pdfium gives the first, but the last is seen: puts that one in its place."""
    if not dropped or not objects:
        return
    kept = np.array([bounds_of(drawn.handle) for drawn in objects])
    for text in dropped[:MOST_TWINS]:
        order, handle = text.order, text.handle
        bounds = bounds_of(handle)
        if bounds[2] <= bounds[0] or (mode := raw.FPDFTextObj_GetTextRenderMode(handle)) in INVISIBLE_MODES:
            continue
        near = np.flatnonzero((np.abs(kept - bounds) < 1.0).all(axis=1))
        for place in near:
            if order > objects[place].order:
                colour = _colour(handle, mode)
                objects[place] = replace(objects[place], handle=handle, order=order, mode=mode, colour=colour)


def bounds_of(handle: Any) -> list[float]:
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


def _font_name(font: Any) -> str:
    name = ctypes.create_string_buffer(256)
    length = raw.FPDFFont_GetBaseFontName(font, name, 256)
    return name.value.decode("latin-1") if 0 < length <= 256 else ""
