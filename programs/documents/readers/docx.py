"""DOCX: mammoth gives its HTML, and the HTML reader the text."""

import hashlib
import io

import mammoth

from programs.documents.document import Document
from programs.documents.readers.html import html_text


def read_docx(content: bytes, name: str) -> Document:
    """Raises ReadError for a file that is damaged."""
    html = mammoth.convert_to_html(
        io.BytesIO(content), convert_image=mammoth.images.img_element(lambda image: {})
    ).value
    text, headings, remarks = html_text(html, name)
    return Document(name, "docx", hashlib.sha256(content).hexdigest(), text, headings=headings, remarks=remarks)
