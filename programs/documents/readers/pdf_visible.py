"""Which characters of a page a reader of it can see; the others are kept apart, with the reason.

What can be seen is looked up in a picture of the page: a word is not to be seen where its box has one colour. A box
without ink has other causes too (a font that this machine lacks), so a word counts as hidden only where the page also
says why: its colour is that of its ground, or something is drawn over it, or it is clipped, or in a layer.
"""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np
import pypdfium2 as pdfium
import pypdfium2.raw as raw
from numpy.typing import NDArray

from programs.documents.readers.pdf_chars import PageContent
from programs.documents.readers.pdf_objects import FILLED, INVISIBLE_MODES, RECTANGLE, Drawn

SMALLEST = 1.0  # points; smaller text is a dot to the eye
SCANNED = 0.5  # the share of a page that its image covers, from which on invisible text is taken for its OCR layer
STRIP = 0.02  # of a page; some scanners cut pages into strips
CONTRAST = 8  # of 255; less is not seen on paper or screen
PIXELS = 4_000_000
MOST_COVERS = 5_000
SHARPNESS = 1.5  # pixels a point

INVISIBLE = "drawn invisibly"
TINY = "drawn smaller than one point"
OUTSIDE = "outside the page's edges"
BLENDED = "drawn in the colour of its background"
COVERED = "covered by what is drawn over it"
CLIPPED = "clipped away"
SWITCHED_OFF = "in a layer that is switched off"
BLANK = "in the OCR layer where the scan shows nothing"


@dataclass(frozen=True)
class Visibility:
    """`hidden` [n]: why a character is not to be seen, "" where it is; `ocr`: the text is an OCR layer."""

    hidden: NDArray[Any]
    ocr: bool


def visibility(page: pdfium.PdfPage, content: PageContent) -> Visibility:
    n = len(content.codes)
    hidden = np.full(n, "", dtype=object)
    if not n:
        return Visibility(hidden, False)
    modes = np.array([drawn.mode for drawn in content.objects])[content.drawn]
    invisible = np.isin(modes, INVISIBLE_MODES)
    layer = invisible | _below_images(content)
    ocr = bool(layer.any()) and content.pictured >= SCANNED and (~layer).sum() <= 0.25 * layer.sum()
    hidden[content.sizes < SMALLEST] = TINY
    hidden[_outside(content)] = OUTSIDE
    if not ocr:
        hidden[invisible] = INVISIBLE
    _look(page, content, hidden, layer if ocr else None)
    return Visibility(hidden, ocr)


def _outside(content: PageContent) -> NDArray[np.bool_]:
    """Characters of which less than half lies on the page."""
    left, top, right, bottom = content.boxes.T
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x < 0) | (y < 0) | (x > content.width) | (y > content.height)


def _below_images(content: PageContent) -> NDArray[np.bool_]:
    """Characters over which the page draws an image of some size: how other programs lay text under a scan."""
    below = np.zeros(len(content.codes), bool)
    (x, y), orders = content.boxes.reshape(-1, 2, 2).mean(axis=1).T, content.orders
    sizes = (content.images[:, 3] - content.images[:, 1]) * (content.images[:, 4] - content.images[:, 2])
    large = content.images[sizes >= STRIP * content.width * content.height]
    for order, left, top, right, bottom, _ in large:
        below |= (orders < order) & (x >= left) & (x <= right) & (y >= top) & (y <= bottom)
    return below


def _look(page: pdfium.PdfPage, content: PageContent, hidden: NDArray[Any], ocr: NDArray[np.bool_] | None) -> None:
    """Names in `hidden` what a picture of the page does not show; `ocr`: the characters of an OCR layer."""
    if _is_plain(content):
        return
    scale = min(SHARPNESS, (PIXELS / max(content.width * content.height, 1.0)) ** 0.5)
    if scale < 0.5 or len(content.shapes) + len(content.images) > 50_000:
        return
    starts = _words(content)
    ends = np.append(starts[1:], len(content.codes))
    image = _picture(page, scale, True)
    whole = _pixels(content.boxes, starts, scale, image.shape)
    boxes = np.where(_tells(content, starts, ends)[:, None], _pixels(content.ink, starts, scale, image.shape), whole)
    light = [n for n, start in enumerate(starts) if max(content.objects[content.drawn[start]].colour[:3]) >= 128]
    blank = set(_uniform(image, boxes))
    buried = _buried(content, starts, blank)
    suspects = sorted(n for n in blank.union(light, buried) if not hidden[starts[n]])
    if not suspects:
        return
    image = _picture(page, scale, False)
    uniform = set(_uniform(image, boxes, [n for n in suspects if n in blank]))
    for number in suspects:
        left, top, right, bottom = whole[number]
        part = image[top:bottom, left:right].reshape(-1, 3)
        ground = np.median(part, axis=0) if len(part) else np.full(3, 255.0)
        start, end = starts[number], ends[number]
        if ocr is not None and ocr[start]:
            hidden[start:end] = BLANK if number in uniform else ""
        elif number in buried:
            hidden[start:end] = COVERED
        else:
            drawn = content.objects[content.drawn[start]]
            hidden[start:end] = _why(content, drawn, boxes[number] / scale, ground, number in uniform)


def _is_plain(content: PageContent) -> bool:
    """Dark letters and nothing else, unclipped and in no layer: nothing that could hide one. Most pages of books."""
    return not len(content.shapes) and not len(content.images) and all(map(_is_dark, content.objects))


def _is_dark(drawn: Drawn) -> bool:
    return (
        drawn.mode == 0
        and max(drawn.colour[:3]) < 128
        and drawn.colour[3] == 255
        and raw.FPDFPageObj_CountMarks(drawn.handle) <= 0
        and raw.FPDFClipPath_CountPaths(raw.FPDFPageObj_GetClipPath(drawn.handle)) <= 0
    )


def _tells(content: PageContent, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a word's ink box has ground in it when the word is seen: that of a single "I" or "-" has none."""
    letters = np.array([chr(code).isalnum() for code in content.codes])
    return (np.add.reduceat(letters, starts) > 0) & (ends - starts >= 3)


def _buried(content: PageContent, starts: NDArray[np.int64], blank: set[int]) -> set[int]:
    """The words that lie below a rectangle drawn after them, and that leave no ink, or none but that of other words
    on the rectangle."""
    first, last = np.minimum.reduceat(content.ink[:, :2], starts), np.maximum.reduceat(content.ink[:, 2:], starts)
    orders = content.orders[starts]
    found: set[int] = set()
    for order, left, top, right, bottom, _ in content.shapes[content.shapes[:, 5] == RECTANGLE][:MOST_COVERS]:
        inside = (first >= (left - 0.5, top - 0.5)).all(1) & (last <= (right + 0.5, bottom + 0.5)).all(1)
        above = orders > order
        for number in np.flatnonzero(inside & ~above):
            written_over = (first[above] < last[number]).all(1) & (last[above] > first[number]).all(1)
            if number in blank or written_over.any():
                found.add(int(number))
    return found


def _words(content: PageContent) -> NDArray[np.int64]:
    """Where each word begins: after white space, or with another object."""
    begins = content.spaced.copy()
    begins[1:] |= content.drawn[1:] != content.drawn[:-1]
    begins[0] = True
    return np.flatnonzero(begins)


def _picture(page: pdfium.PdfPage, scale: float, grey: bool) -> NDArray[np.uint8]:
    bitmap = page.render(scale=scale, grayscale=grey, draw_annots=False, may_draw_forms=False)
    try:
        pixels = bitmap.to_numpy()
        return np.array(pixels[..., :3] if pixels.ndim == 3 else pixels)
    finally:
        bitmap.close()


def _pixels(
    boxes: NDArray[np.float64], starts: NDArray[np.int64], scale: float, shape: tuple[int, ...]
) -> NDArray[np.int64]:
    """[words, 4] the pixels of each word's box, inside the picture."""
    first = np.minimum.reduceat(boxes[:, :2], starts) * scale
    last = np.maximum.reduceat(boxes[:, 2:], starts) * scale
    limit = np.array([shape[1], shape[0]])
    return np.hstack([np.clip(np.floor(first), 0, limit), np.clip(np.ceil(last), 0, limit)]).astype(np.int64)


def _uniform(image: NDArray[np.uint8], boxes: NDArray[np.int64], among: list[int] | None = None) -> list[int]:
    """The words in whose box the picture has one colour."""
    found = []
    for number in range(len(boxes)) if among is None else among:
        left, top, right, bottom = boxes[number]
        part = image[top:bottom, left:right]
        if not part.size:
            found.append(number)
        elif part.ndim == 2:
            if int(part.max()) - int(part.min()) < CONTRAST:
                found.append(number)
        elif (part.max((0, 1)).astype(int) - part.min((0, 1))).max() < CONTRAST:
            found.append(number)
    return found


def _why(
    content: PageContent, drawn: Drawn, box: NDArray[np.float64], ground: NDArray[np.float64], uniform: bool
) -> str:
    """Why a word leaves no ink, "" where the page does not say: then it is taken for visible.

    `ground`: the commonest blue, green and red of its box; `uniform`: whether the box has no other.
    """
    left, top, right, bottom = box
    x, y = (left + right) / 2, (top + bottom) / 2
    over = np.vstack([content.images, content.shapes])
    over = over[(over[:, 0] > drawn.order) & (over[:, 5] >= FILLED)]
    if uniform and ((over[:, 1] <= x) & (over[:, 2] <= y) & (over[:, 3] >= x) & (over[:, 4] >= y)).any():
        return COVERED
    red, green, blue, alpha = drawn.colour
    if alpha < CONTRAST or np.abs(ground - (blue, green, red)).max() <= 1.5 * CONTRAST:
        return BLENDED
    if uniform and _in_layer(drawn.handle):
        return SWITCHED_OFF
    if uniform and _clipped(drawn.handle, content.to_display, x, y):
        return CLIPPED
    return ""


def _in_layer(handle: Any) -> bool:
    """Whether it is marked as optional content, PDF 32000-1, 8.11."""
    for index in range(raw.FPDFPageObj_CountMarks(handle)):
        name, length = (ctypes.c_uint16 * 8)(), ctypes.c_ulong()
        mark = raw.FPDFPageObj_GetMark(handle, index)
        if raw.FPDFPageObjMark_GetName(mark, name, ctypes.sizeof(name), length) and bytes(name)[:6] == b"O\0C\0\0\0":
            return True
    return False


def _clipped(handle: Any, to_display: NDArray[np.float64], x: float, y: float) -> bool:
    """Whether a point lies outside one of the paths that clip an object (outside their boxes)."""
    clip = raw.FPDFPageObj_GetClipPath(handle)
    for path in range(max(0, raw.FPDFClipPath_CountPaths(clip))):
        points = []
        for index in range(min(1000, max(0, raw.FPDFClipPath_CountPathSegments(clip, path)))):
            at_x, at_y = ctypes.c_float(), ctypes.c_float()
            raw.FPDFPathSegment_GetPoint(raw.FPDFClipPath_GetPathSegment(clip, path, index), at_x, at_y)
            points.append(to_display @ (at_x.value, at_y.value, 1.0))
        if points:
            (left, top), (right, bottom) = np.min(points, axis=0), np.max(points, axis=0)
            if not (left <= x <= right and top <= y <= bottom):
                return True
    return False
