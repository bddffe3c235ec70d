"""Plain text, source code, logs, tables of values: the file's characters are the text."""

import hashlib

from programs.documents.document import Document
from programs.documents.readers.encoding import decode


def read_text(content: bytes, name: str) -> Document:
    """Raises ReadError for bytes that are no text."""
    decoded = decode(content, name)
    return Document(name, "text", hashlib.sha256(content).hexdigest(), decoded.text, remarks=decoded.remarks)
