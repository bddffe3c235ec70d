"""EPUB: the pages of its spine in their order, each read as HTML."""

import hashlib
import posixpath
import re
from dataclasses import replace
from html import unescape
from urllib.parse import unquote
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from programs.documents.document import Document, Heading, ReadError, Remark
from programs.documents.readers.encoding import decode
from programs.documents.readers.html import html_text
from programs.documents.readers.zipped import Zipped

# Only scrambles fonts, which no reader of the text needs.
FONTS_ONLY = {"http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC"}
LINK = re.compile(r"<link\b[^<>]{1,2000}>", re.IGNORECASE)
HREF = re.compile(r"""\bhref\s*=\s*(["'])(.*?)\1""", re.IGNORECASE)
STYLESHEET = re.compile(r"""\brel\s*=\s*["']?stylesheet\b""", re.IGNORECASE)  # and no alternate one
PAGES = {"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"}


def read_epub(content: bytes, name: str) -> Document:
    """Raises ReadError for a book that is damaged or whose pages are encrypted."""
    archive = Zipped(content, name)
    pages = _spine(archive, name)
    encrypted = _encrypted(archive, name)
    if any(page in encrypted for page, _ in pages):
        raise ReadError(f"{name!r} is protected against copying (DRM), and its pages are encrypted: give it without.")
    styled = _Styled(archive, name)
    texts: list[str] = []
    headings: list[Heading] = []
    remarks: list[Remark] = []
    start = 0
    for page, kind in pages:
        place = f"part {posixpath.basename(page)}"
        if kind not in PAGES or not archive.has(page):
            missing = "it is missing" if not archive.has(page) else f"it is not read ({kind or 'of no known kind'})"
            remarks.append(Remark("unread", place, missing))
            continue
        try:
            decoded = decode(archive.read(page), name, place=place)
            text, found, seen = html_text(styled(decoded.text, page), name, xhtml=True)
        except ReadError as error:
            remarks.append(Remark("unread", place, f"it is not read ({str(error).removesuffix('.')})"))
            continue
        remarks += (*decoded.remarks, *(replace(remark, place=place) for remark in seen))
        if text:
            headings += (replace(each, start=each.start + start, end=each.end + start) for each in found)
            texts.append(text)
            start += len(text) + len("\n\n")
    if not any(page for page, kind in pages if kind in PAGES and archive.has(page)):
        raise ReadError(f"{name!r} is damaged: none of its pages is there.")
    sha256 = hashlib.sha256(content).hexdigest()
    return Document(name, "epub", sha256, "\n\n".join(texts), headings=tuple(headings), remarks=tuple(remarks))


class _Styled:
    """Puts a book's style sheets into the pages that name them: some of their rules hide text."""

    def __init__(self, archive: Zipped, name: str):
        self._archive, self._name = archive, name
        self._sheets: dict[str, str] = {}

    def __call__(self, source: str, page: str) -> str:
        return LINK.sub(lambda link: self._sheet(link[0], posixpath.dirname(page)) or link[0], source)

    def _sheet(self, link: str, folder: str) -> str:
        """A style element with what a link names, "" where that is no style sheet of the book."""
        href = HREF.search(link)
        if not href or not STYLESHEET.search(link):
            return ""
        member = posixpath.normpath(posixpath.join(folder, unquote(unescape(href[2]))))
        if member not in self._sheets:
            try:
                said = decode(self._archive.read(member), self._name).text if self._archive.has(member) else ""
            except ReadError:
                said = ""
            self._sheets[member] = f"<style>{said}</style>" if said and "</style" not in said.lower() else ""
        return self._sheets[member]


def _spine(archive: Zipped, name: str) -> list[tuple[str, str]]:
    """The members that are the book's pages, in reading order, with their media types."""
    container = _xml(archive, "META-INF/container.xml", name)
    package = next((str(each.get("full-path")) for each in container.iter() if _tag(each) == "rootfile"), "")
    opf = _xml(archive, package, name)
    items = {str(each.get("id")): each for each in opf.iter() if _tag(each) == "item"}
    folder = posixpath.dirname(package)
    pages = []
    for reference in opf.iter():
        if _tag(reference) != "itemref":
            continue
        item = items.get(str(reference.get("idref")))
        href = unquote(str(item.get("href") or "")) if item is not None else ""
        path = posixpath.normpath(posixpath.join(folder, href)) if href else str(reference.get("idref"))
        pages.append((path, str(item.get("media-type") or "") if item is not None else ""))
    if not pages:
        raise ReadError(f"{name!r} is damaged: it lists no pages.")
    return pages


def _encrypted(archive: Zipped, name: str) -> set[str]:
    """The members that cannot be read."""
    if not archive.has("META-INF/encryption.xml"):
        return set()
    found = set()
    for data in _xml(archive, "META-INF/encryption.xml", name).iter():
        if _tag(data) != "EncryptedData":
            continue
        method = next((str(each.get("Algorithm")) for each in data.iter() if _tag(each) == "EncryptionMethod"), "")
        if method not in FONTS_ONLY:
            found |= {unquote(str(each.get("URI"))) for each in data.iter() if _tag(each) == "CipherReference"}
    return found


def _xml(archive: Zipped, member: str, name: str) -> Element:
    try:
        return fromstring(archive.read(member))
    except (ParseError, DefusedXmlException, ValueError, LookupError) as error:
        raise ReadError(f"{name!r} is damaged: its part {member[:100]!r} is no XML that can be read.") from error


def _tag(element: Element) -> str:
    return str(element.tag).rpartition("}")[2]
