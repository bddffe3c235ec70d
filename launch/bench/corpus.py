"""A folder of real documents, made of what is installed: licences, read-mes, manuals, in every format that is read."""

import gzip
import importlib
import io
import pydoc
import zipfile
from collections.abc import Iterator, Mapping
from email.message import EmailMessage
from importlib import metadata
from pathlib import Path
from pydoc_data.topics import topics

import docx as python_docx
import fpdf
import matplotlib

BROKEN = "broken"  # the folder of the corpus whose files cannot be read
MODULES = ("argparse", "json.decoder", "email.message", "pathlib", "sqlite3.dbapi2", "textwrap", "csv", "zipfile")
SYSTEM = Path("/usr/share/doc")
LARGEST = 200_000  # bytes of one file that is taken over
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def make_corpus(folder: Path) -> int:
    """Write it, and say how many files it has; those in `BROKEN` are the ones that cannot be read."""
    written = 0
    for place, content in _files():
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        written += 1
    return written


def _files() -> Iterator[tuple[str, bytes]]:
    manuals = sorted(topics.items(), key=lambda topic: -len(topic[1]))[:24]
    licences = list(_installed("LICENSE", 14))
    yield from (("licences/" + name, content) for name, content in licences)
    yield from (("packages/" + name, content) for name, content in _installed("METADATA", 8))
    yield from (("notes/" + name, content) for name, content in _installed(".md", 8))
    for module in MODULES:
        thing = importlib.import_module(module)
        page = pydoc.html.page(module, pydoc.html.document(thing, module))
        yield f"reference/{module}.html", page.encode()
    for name, text in manuals[:6]:
        yield f"manuals/{name}.pdf", _pdf(name, text)
    for ending, number in ((".html", 8), (".pdf", 4), ("changelog.gz", 6)):
        yield from _of_the_system(ending, number)
    for name, text in manuals[6:10]:
        yield f"manuals/{name}.docx", _docx(name, text)
    for name, text in manuals[10:14]:
        yield f"manuals/{name}.txt", text.encode()
    for encoding, (name, text) in zip(("utf-16", "utf-16-le", "cp1252"), manuals[14:17], strict=True):
        yield f"encodings/{name}.{encoding}.txt", f"“{name}” — naïve\n\n{text}".encode(encoding, "replace")
    chapters = {f"{name}.xhtml": _page(name, text) for name, text in manuals[17:20]}
    yield "books/manual.epub", epub(chapters)
    for name, text in manuals[20:23]:
        yield f"mail/{name}.eml", _mail(name, text, *licences[0])
    pdf, word = _pdf(*manuals[0]), _docx(*manuals[1])
    yield f"{BROKEN}/cut.pdf", pdf[:60]
    yield f"{BROKEN}/cut.docx", word[: len(word) // 2]
    yield f"{BROKEN}/encrypted.docx", OLE + bytes(504) + "EncryptedPackage".encode("utf-16-le")
    yield f"{BROKEN}/old.doc", OLE + bytes(504) + "WordDocument".encode("utf-16-le")
    yield f"{BROKEN}/empty.txt", b""
    yield f"{BROKEN}/bytes.dat", bytes(range(256)) * 20
    yield f"{BROKEN}/home.png", Path(matplotlib.get_data_path(), "images", "home.png").read_bytes()


def _installed(ending: str, number: int) -> Iterator[tuple[str, bytes]]:
    """Files of installed packages whose name ends so, or begins so before a suffix; one of each package."""
    found = 0
    for package in sorted(metadata.distributions(), key=lambda each: each.metadata["Name"].lower()):
        for file in package.files or ():
            path = Path(str(package.locate_file(file)))
            if not (file.name.endswith(ending) or file.stem == ending) or not path.is_file():
                continue
            if 500 < path.stat().st_size <= LARGEST:
                yield f"{package.metadata['Name']}-{file.name}", path.read_bytes()
                found += 1
                break
        if found == number:
            return


def _of_the_system(ending: str, number: int) -> Iterator[tuple[str, bytes]]:
    """What Debian's packages bring, where it is there; their changelogs are packed."""
    found = [path for path in sorted(SYSTEM.glob(f"*/**/*{ending}")) if 500 < path.stat().st_size <= LARGEST]
    for path in found[:: max(1, len(found) // number)][:number]:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        yield f"system/{path.relative_to(SYSTEM).parts[0]}-{path.name.removesuffix('.gz')}", content


def _pdf(name: str, text: str) -> bytes:
    pdf = fpdf.FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", "B", 16)
    pdf.cell(text=name)
    pdf.ln(12)
    pdf.set_font("Helvetica", size=10)
    pdf.multi_cell(0, 5, text.encode("latin-1", "replace").decode("latin-1"))
    return bytes(pdf.output())


def _docx(name: str, text: str) -> bytes:
    document = python_docx.Document()
    document.add_heading(name, 1)
    for paragraph in text.split("\n\n"):
        if paragraph.strip():
            document.add_paragraph(" ".join(paragraph.split()))
    packed = io.BytesIO()
    document.save(packed)
    return packed.getvalue()


def _page(name: str, text: str) -> str:
    return f"<h1>{name}</h1><pre>{pydoc.html.escape(text)}</pre>"


def _mail(name: str, text: str, attached: str, content: bytes) -> bytes:
    message = EmailMessage()
    message["From"], message["To"] = "Ann Kestin <ann@example.org>", "Omar Größe <omar@example.org>"
    message["Subject"] = f"The manual on “{name}”"
    message.set_content(text)
    message.add_alternative(_page(name, text), subtype="html")
    message.add_attachment(content, maintype="application", subtype="octet-stream", filename=attached)
    return message.as_bytes()


def epub(pages: Mapping[str, str], spine: tuple[str, ...] = (), encrypted: str = "") -> bytes:
    """An EPUB. `pages`: by file name, the inside of <body>; `encrypted`: the inside of META-INF/encryption.xml."""
    items = "".join(f'<item id="{page}" href="{page}" media-type="application/xhtml+xml"/>' for page in pages)
    references = "".join(f'<itemref idref="{page}"/>' for page in spine or pages)
    members = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>'
        '<rootfile full-path="OEBPS/book.opf"/></rootfiles></container>',
        "OEBPS/book.opf": f'<package xmlns="http://www.idpf.org/2007/opf"><manifest>{items}</manifest>'
        f"<spine>{references}</spine></package>",
    }
    for page, inside in pages.items():
        members[f"OEBPS/{page}"] = (
            '<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head>'
            f"<body>{inside}</body></html>"
        )
    if encrypted:
        members["META-INF/encryption.xml"] = (
            '<encryption xmlns="urn:oasis:names:tc:opendocument:xmlns:container"'
            f' xmlns:enc="http://www.w3.org/2001/04/xmlenc#">{encrypted}</encryption>'
        )
    return zipped(members)


def zipped(members: Mapping[str, str | bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A ZIP of members by their names."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return packed.getvalue()
