"""DOCX: mammoth makes HTML of it, and the HTML reader text of that; what mammoth would lose is put in its way first.

Tracked insertions are read and deletions are not, as the page shows once all changes are accepted. Footnotes and
endnotes stand at the end, text boxes behind the paragraph that holds them, headers and footers around the whole.
"""

import hashlib
import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from xml.etree.ElementTree import Element, ParseError, tostring

import mammoth
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from programs.documents.document import Document, ReadError, Remark
from programs.documents.readers.docx_names import attribute, child, name_of
from programs.documents.readers.docx_numbers import DocxNumbers
from programs.documents.readers.docx_part import Told, rewrite
from programs.documents.readers.docx_styles import DocxStyles
from programs.documents.readers.html import html_text
from programs.documents.readers.zipped import Zipped

STYLE_MAP = "p[style-name='Title'] => h1:fresh\np[style-name='Subtitle'] => h2:fresh"
BACK_LINK = re.compile(r'<a href="#(?:footnote|endnote)-ref-[^"]*">↑</a>')
HIDDEN_LIMIT = 2_000  # characters of hidden text that are kept


def read_docx(content: bytes, name: str) -> Document:
    """Raises ReadError for a file that is damaged, or whose XML is built to do harm."""
    archive = Zipped(content, name)
    parts = {member: _xml(archive, member, name) for member in archive.names if _is_read(member)}
    main = _main(parts)
    if main not in parts:
        raise ReadError(f"{name!r} is damaged: it has no text part.")
    told = Told()
    styles = DocxStyles(parts.get(_beside(main, "styles.xml")))
    numbers = DocxNumbers(parts.get(_beside(main, "numbering.xml")), styles)
    margins = list(_margins(parts, main))
    notes = [_beside(main, "footnotes.xml"), _beside(main, "endnotes.xml")]
    for member in (main, *notes, *(member for member, _ in margins)):
        if member in parts:
            rewrite(parts[member], styles, numbers, told)
    _surround(parts, main, margins)
    html = mammoth.convert_to_html(_packed(parts), include_embedded_style_map=False, style_map=STYLE_MAP).value
    text, headings, _ = html_text(BACK_LINK.sub("", html), name)
    comments = parts.get(_beside(main, "comments.xml"))
    remarks = _remarks(told, len(comments) if comments is not None else 0, bool(margins))
    return Document(name, "docx", hashlib.sha256(content).hexdigest(), text, headings=headings, remarks=remarks)


def _is_read(member: str) -> bool:
    """Whether a member may hold text, or say where it is: not what is embedded, and no rules of mammoth's own."""
    embedded = member.startswith(("word/media/", "word/embeddings/", "word/theme/", "customXml/", "docProps/"))
    return member.endswith((".xml", ".rels")) and not embedded


def _xml(archive: Zipped, member: str, name: str) -> Element:
    try:
        return fromstring(archive.read(member))
    except DefusedXmlException as error:
        raise ReadError(
            f"{name!r} is not read: its part {member[:100]!r} defines entities, as harmful files do."
        ) from error
    except (ParseError, ValueError, LookupError) as error:
        raise ReadError(f"{name!r} is damaged: its part {member[:100]!r} is no XML.") from error


def _targets(parts: dict[str, Element], source: str) -> Iterator[tuple[str, str]]:
    """The kind and the member of each relationship of a part."""
    folder, base = posixpath.split(source)
    for relation in parts.get(posixpath.join(folder, "_rels", f"{base}.rels"), ()):
        target = posixpath.normpath(posixpath.join("/", folder, str(relation.get("Target"))))
        yield str(relation.get("Type")).rpartition("/")[2], target.lstrip("/")


def _main(parts: dict[str, Element]) -> str:
    return next((member for kind, member in _targets(parts, "") if kind == "officeDocument"), "word/document.xml")


def _beside(main: str, file: str) -> str:
    return posixpath.join(posixpath.dirname(main), file)


def _margins(parts: dict[str, Element], main: str) -> Iterator[tuple[str, bool]]:
    """The headers and footers that a section shows, and whether each is a footer."""
    references = ("w:headerReference", "w:footerReference")
    shown = {attribute(each, "id") for each in parts[main].iter() if name_of(each) in references}
    relations = parts.get(_beside(main, f"_rels/{posixpath.basename(main)}.rels"), Element("none"))
    for relation, (kind, member) in zip(relations, _targets(parts, main), strict=True):
        if kind in ("header", "footer") and member in parts and relation.get("Id") in shown:
            yield member, kind == "footer"


def _surround(parts: dict[str, Element], main: str, margins: list[tuple[str, bool]]) -> None:
    """Put headers before the text and footers behind it, each wording once."""
    body = child(parts[main], "w:body")
    if body is None:
        return
    seen: set[str] = set()
    before: list[Element] = []
    for member, is_footer in margins:
        words = "".join(parts[member].itertext()).strip()
        if not words or words in seen:
            continue
        seen.add(words)
        if is_footer:
            body.extend(list(parts[member]))
        else:
            before += parts[member]
    body[:] = [*before, *body]


def _packed(parts: dict[str, Element]) -> io.BytesIO:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for member, root in parts.items():
            archive.writestr(member, tostring(root, "utf-8", xml_declaration=True))
    packed.seek(0)
    return packed


def _remarks(told: Told, comments: int, margins: bool) -> tuple[Remark, ...]:
    found = []
    for thing, count in sorted(told.unread.items()):
        found.append(Remark("unread", "", f"{count} {thing}s are not read" if count > 1 else f"a {thing} is not read"))
    if told.insertions or told.deletions:
        changes = f"insertions, which are read: {told.insertions}, and deletions, which are not: {told.deletions}"
        found.append(Remark("note", "", f"it holds tracked changes ({changes})"))
    if comments:
        found.append(Remark("note", "", f"it holds comments, which are not read: {comments}"))
    if told.formulas:
        found.append(Remark("doubtful", "", f"its formulas ({told.formulas}) are written on one line"))
    if margins:
        found.append(Remark("note", "", "its headers and footers stand before and behind the text"))
    for why, pieces in told.hidden.items():
        text = "".join(pieces).strip()
        cut = f", the first {HIDDEN_LIMIT:,} characters of it here" if len(text) > HIDDEN_LIMIT else ""
        found.append(Remark("hidden", "", f"text that the page does not show ({why}{cut})", text=text[:HIDDEN_LIMIT]))
    return tuple(found)
