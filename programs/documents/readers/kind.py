"""Which format a file is of: by its first bytes and, in an archive, its members; by its suffix only between texts."""

import re
from typing import Literal

from programs.documents.document import ReadError
from programs.documents.readers.zipped import Zipped

Kind = Literal["pdf", "docx", "epub", "mail", "html", "markdown", "text"]

SUFFIXES: dict[str, Kind] = {
    ".html": "html", ".htm": "html", ".xhtml": "html", ".xht": "html", ".shtml": "html",
    ".md": "markdown", ".markdown": "markdown", ".mdown": "markdown", ".mkd": "markdown", ".qmd": "markdown",
    ".eml": "mail", ".mht": "mail", ".mhtml": "mail",
}  # fmt: skip

PICTURE = "a picture ({}), which is not read: put it into a PDF"
ARCHIVE = "an archive ({}): unpack it and give what is in it"
SOUND = "a recording ({}), which is not read: give its transcript"
REFUSED = (  # what a file begins with, and what it then is
    (b"\x89PNG", PICTURE.format("PNG")),
    (b"\xff\xd8\xff", PICTURE.format("JPEG")),
    (b"GIF8", PICTURE.format("GIF")),
    (b"BM", PICTURE.format("BMP")),
    (b"II*\0", PICTURE.format("TIFF")),
    (b"MM\0*", PICTURE.format("TIFF")),
    (b"8BPS", PICTURE.format("PSD")),
    (b"\0\0\1\0", PICTURE.format("ICO")),
    (b"\x1f\x8b", ARCHIVE.format("gzip")),
    (b"BZh", ARCHIVE.format("bzip2")),
    (b"\xfd7zXZ\0", ARCHIVE.format("xz")),
    (b"7z\xbc\xaf'\x1c", ARCHIVE.format("7z")),
    (b"Rar!\x1a", ARCHIVE.format("RAR")),
    (b"\x28\xb5\x2f\xfd", ARCHIVE.format("zstd")),
    (b"{\\rtf", "rich text (RTF): save it as DOCX or PDF"),
    (b"%!PS", "PostScript: convert it to PDF"),
    (b"ITOLITLS", "a Microsoft Reader book: save it as EPUB or PDF"),
    (b"ITSF", "compiled HTML help: give its HTML files"),
    (b"SQLite format 3\0", "a database (SQLite): export what is to be read as CSV"),
    (b"PAR1", "a table of values (Parquet): export it as CSV"),
    (b"\x7fELF", "a program, and no document"),
    (b"MZ\x90\0", "a program, and no document"),
    (b"\xca\xfe\xba\xbe", "a program, and no document"),
    (b"ID3", SOUND.format("MP3")),
    (b"OggS", SOUND.format("Ogg")),
    (b"fLaC", SOUND.format("FLAC")),
    (b"\x1aE\xdf\xa3", SOUND.format("Matroska")),
)
# Directory entries of Microsoft's compound files, in UTF-16, and what the file then is.
COMPOUND = (
    ("EncryptedPackage", "encrypted and needs a password: save it without one"),
    ("WordDocument", "a Word document of before 2007 (.doc): save it as DOCX or PDF"),
    ("Workbook", "an Excel workbook (.xls): save its sheets as CSV"),
    ("PowerPoint Document", "a presentation (.ppt): save it as PDF"),
    ("__substg1.0_", "an Outlook message (.msg): save it as .eml"),
)
ZIPPED = (  # a member, and what the archive then is
    ("xl/workbook.xml", "an Excel workbook (.xlsx): save its sheets as CSV"),
    ("xl/workbook.bin", "an Excel workbook (.xlsb): save its sheets as CSV"),
    ("ppt/presentation.xml", "a presentation (.pptx): save it as PDF"),
    ("visio/document.xml", "a drawing (.vsdx): save it as PDF"),
    ("content.xml", "an OpenDocument file: save it as DOCX or PDF"),
    ("Index/Document.iwa", "an Apple iWork file: save it as DOCX or PDF"),
)
HTML = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)*<(?:!doctype\s+html|html)\b", re.I | re.DOTALL
)
MAIL = re.compile(
    rb"(?:From |(?:From|Received|Return-Path|Delivered-To|MIME-Version|Date|Subject|Message-ID|To): )", re.I
)


def kind_of(content: bytes, name: str) -> Kind:
    """Raises ReadError, with what to do, for a format that is not read."""
    suffix = "." + name.rsplit("/", 1)[-1].rpartition(".")[2].lower()
    if re.search(rb"%PDF-\d", content[:1024]):
        return "pdf"
    if content.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return _zipped(content, name)
    if content.startswith(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"):
        said = next((said for entry, said in COMPOUND if entry.encode("utf-16-le") in content), "")
        raise ReadError(f"{name!r} is {said or 'an Office file of before 2007: save it as DOCX or PDF'}.")
    if said := _refused(content):
        raise ReadError(f"{name!r} is {said}.")
    if suffix == ".docx":
        raise ReadError(f"{name!r} is damaged: it has none of a DOCX file's contents.")
    if suffix in (".pdf", ".epub"):
        raise ReadError(f"{name!r} is damaged: it does not begin as {suffix[1:].upper()} files do.")
    if suffix in SUFFIXES:
        return SUFFIXES[suffix]
    if suffix not in (".txt", ".xml", ".svg", ".xsl", ".php", ".jinja") and HTML.match(content[:4096]):
        return "html"
    first = content[:1000].split(b"\n")[:3]
    if suffix == "." + name.lower() and len(first) == 3 and all(MAIL.match(line) for line in first):
        return "mail"  # as maildir keeps them, without a suffix
    return "text"


def _zipped(content: bytes, name: str) -> Kind:
    archive = Zipped(content, name)
    types = archive.read("[Content_Types].xml") if archive.has("[Content_Types].xml") else b""
    if archive.has("word/document.xml") or re.search(rb"(?:wordprocessingml|ms-word)\.[^\"']{1,40}\.main\+xml", types):
        return "docx"
    if archive.has("META-INF/container.xml"):
        return "epub"
    said = next((said for member, said in ZIPPED if archive.has(member)), ARCHIVE.format("ZIP"))
    raise ReadError(f"{name!r} is {said}.")


def _refused(content: bytes) -> str:
    if content[257:262] == b"ustar":
        return ARCHIVE.format("tar")
    if content[:4] == b"RIFF":
        return (
            PICTURE.format("WebP")
            if content[8:12] == b"WEBP"
            else SOUND.format(content[8:12].decode("ascii", "replace").strip())
        )
    if content[4:8] == b"ftyp":
        return PICTURE.format("HEIF") if content[8:11] in (b"hei", b"mif", b"avi") else SOUND.format("MP4")
    for magic, said in REFUSED:
        if content.startswith(magic) and (len(magic) > 2 or b"\0" in content[:64] or magic == b"\x1f\x8b"):
            return said
    return ""
