"""What a PDF's annotations say: values of form fields, typed text, and comments that are not part of the page."""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pypdfium2 as pdfium
import pypdfium2.raw as raw

MOST = 5_000  # annotations of a page
HIDDEN = raw.FPDF_ANNOT_FLAG_HIDDEN | raw.FPDF_ANNOT_FLAG_NOVIEW | raw.FPDF_ANNOT_FLAG_INVISIBLE
TEXT_FIELDS = (raw.FPDF_FORMFIELD_TEXTFIELD, raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX)
CHECKED = (raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON)
PASSWORD = 1 << 13  # a text field's flag, PDF 32000-1, 12.7.4.3
COMMENTS = (
    raw.FPDF_ANNOT_TEXT,
    raw.FPDF_ANNOT_HIGHLIGHT,
    raw.FPDF_ANNOT_UNDERLINE,
    raw.FPDF_ANNOT_STRIKEOUT,
    raw.FPDF_ANNOT_SQUIGGLY,
    raw.FPDF_ANNOT_CARET,
)


@dataclass(frozen=True)
class Said:
    """`kind`: "field" or "typed", which the page shows at `box` (left, bottom, right, top in page coordinates), or
    "comment", which it does not."""

    kind: str
    text: str
    box: tuple[float, float, float, float]


def annotations(page: pdfium.PdfPage, form: Any) -> Iterator[Said]:
    """`form`: the document's form handle, None without a form."""
    for index in range(min(MOST, raw.FPDFPage_GetAnnotCount(page.raw))):
        handle = raw.FPDFPage_GetAnnot(page.raw, index)
        if not handle:
            continue
        try:
            if said := _said(handle, form):
                yield said
        finally:
            raw.FPDFPage_CloseAnnot(handle)


def _said(handle: Any, form: Any) -> Said | None:
    kind = raw.FPDFAnnot_GetSubtype(handle)
    hidden = raw.FPDFAnnot_GetFlags(handle) & HIDDEN
    rect = raw.FS_RECTF()
    raw.FPDFAnnot_GetRect(handle, rect)
    box = rect.left, rect.bottom, rect.right, rect.top
    if kind in COMMENTS:
        text = _wide(lambda buffer, size: raw.FPDFAnnot_GetStringValue(handle, b"Contents", buffer, size))
        return Said("comment", text, box) if text else None
    if hidden:
        return None
    if kind == raw.FPDF_ANNOT_FREETEXT:
        text = _wide(lambda buffer, size: raw.FPDFAnnot_GetStringValue(handle, b"Contents", buffer, size))
        return Said("typed", text, box) if text else None
    if kind == raw.FPDF_ANNOT_WIDGET and form is not None:
        field = raw.FPDFAnnot_GetFormFieldType(form, handle)
        if field in CHECKED:
            return Said("field", "[x]", box) if raw.FPDFAnnot_IsChecked(form, handle) else None
        if field in TEXT_FIELDS and not raw.FPDFAnnot_GetFormFieldFlags(form, handle) & PASSWORD:
            text = _wide(lambda buffer, size: raw.FPDFAnnot_GetFormFieldValue(form, handle, buffer, size))
            return Said("field", text, box) if text else None
    return None


def _wide(read: Any) -> str:
    """A string that pdfium writes as UTF-16 into a buffer whose size in bytes it says first."""
    size = min(read(None, 0), 200_000)
    if size <= 2:
        return ""
    buffer = ctypes.create_string_buffer(size)
    read(ctypes.cast(buffer, ctypes.POINTER(raw.FPDF_WCHAR)), size)
    return buffer.raw[: size - 2].decode("utf-16-le", "replace").strip()
