"""Opening a PDF: with a password where it needs one, and with a sentence where it cannot be read."""

import logging
import re
from collections.abc import Sequence

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from programs.documents.document import ReadError

LARGEST = 1_000_000_000  # bytes
MOST_PAGES = 20_000
PASSWORD_OPTION = "--password"

logging.getLogger("pypdfium2").setLevel(logging.ERROR)  # its warnings are for programmers


def open_pdf(content: bytes, name: str, passwords: Sequence[str]) -> pdfium.PdfDocument:
    """Raises ReadError."""
    if not content.strip(b"\0\t\r\n "):
        raise ReadError(f"{name!r} is empty.")
    if len(content) > LARGEST:
        raise ReadError(f"{name!r} is too large to be read: it has more than {LARGEST:,} bytes.")
    pdf = _unlocked(content, name, passwords)
    if not 0 < len(pdf) <= MOST_PAGES:
        pages = len(pdf)
        pdf.close()
        if pages > 0:
            raise ReadError(f"{name!r} is too large to be read: it has {pages:,} pages, more than {MOST_PAGES:,}.")
        raise ReadError(f"{name!r} is damaged: it has no pages.")
    return pdf


def _unlocked(content: bytes, name: str, passwords: Sequence[str]) -> pdfium.PdfDocument:
    for password in (None, *passwords):
        try:
            pdf = pdfium.PdfDocument(content, password=password)
            revision = raw.FPDF_GetSecurityHandlerRevision(pdf.raw)
            if (revision < 0 and _encryption_damaged(content)) or (revision >= 4 and _unknown_cipher(content)):
                pdf.close()  # pdfium takes a file whose encryption dictionary is gone for one that has none
                break
            if pdf.get_formtype() != raw.FORMTYPE_NONE:
                pdf.init_forms()
            return pdf
        except pdfium.PdfiumError as error:
            if error.err_code == raw.FPDF_ERR_SECURITY:
                raise ReadError(f"{name!r} cannot be read: its encryption is damaged or of an unknown kind.") from error
            if error.err_code != raw.FPDF_ERR_PASSWORD:
                raise ReadError(f"{name!r} is damaged, or no PDF: it cannot be opened.") from error
    if _encryption_damaged(content) or _unknown_cipher(content):
        raise ReadError(f"{name!r} is damaged: its encryption data cannot be used.")
    if passwords:
        raise ReadError(
            f"{name!r} needs a password, and none of those given opens it: give another with {PASSWORD_OPTION}, "
            "or, if one of them is right, a file whose encryption data is not damaged."
        )
    raise ReadError(f"{name!r} needs a password: give it with {PASSWORD_OPTION}.")


def _encryption_damaged(content: bytes) -> bool:
    """Whether the encryption dictionary lacks what a password is checked by (PDF 32000-2, 7.6.4); pdfium says of such a
    file, too, that the password is wrong."""
    body = _encryption(content)
    if not body:
        return body is not None
    revision = re.search(rb"/R\s+(\d+)", body)
    if not revision or not re.search(rb"/P\s+-?\d", body) or not re.search(rb"/V\s+[1-5]\b", body):
        return True
    if int(revision.group(1)) < 5:  # these make the key of the file's identifier, too
        return any(_string_length(body, key) < 32 for key in (b"/O", b"/U")) or b"/ID" not in content
    lengths = {b"/O": 48, b"/U": 48, b"/OE": 32, b"/UE": 32}
    return any(_string_length(body, key) < length for key, length in lengths.items())


def _unknown_cipher(content: bytes) -> bool:
    """Whether its streams are encrypted by what no reader knows; pdfium reads them as if they were empty."""
    methods = re.findall(rb"/CFM\s*/(\w*)", _encryption(content) or b"")
    return bool(methods) and not {b"None", b"V2", b"AESV2", b"AESV3"}.issuperset(methods)


def _encryption(content: bytes) -> bytes | None:
    """The encryption dictionary, empty where it is missing; None for a file that names none."""
    place = content.rfind(b"/Encrypt")
    if place < 0:
        return None
    start = place
    if reference := re.match(rb"/Encrypt\s+(\d{1,10})\s+(\d{1,5})\s+R", content[place : place + 64]):
        number, generation = reference.groups()
        found = list(re.finditer(rb"(?<!\d)" + number + rb"\s+" + generation + rb"\s+obj", content))
        if not found:
            return b""
        start = found[-1].end()
    return content[start : start + 20_000].split(b"endobj")[0]


def _string_length(body: bytes, key: bytes) -> int:
    """Bytes of the string that follows a key, written in hexadecimal digits or in brackets with escapes; 0 without."""
    found = re.search(re.escape(key) + rb"\s*([(<])", body)
    if not found:
        return 0
    at = found.end()
    if found.group(1) == b"<":
        return len(re.sub(rb"\s", b"", body[at:].split(b">")[0])) // 2
    length, depth = 0, 1
    while at < len(body):
        byte = body[at : at + 1]
        if byte == b"\\":
            octal = re.match(rb"[0-7]{1,3}", body[at + 1 : at + 4])
            at += len(octal.group()) if octal else 1
        elif byte in b"()":
            depth += 1 if byte == b"(" else -1
            if not depth:
                return length
        length += 1
        at += 1
    return 0
