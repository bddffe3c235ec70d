"""HTML as it is seen: what a browser shows is the text, what a page hides is told apart.

Paragraphs stand between empty lines, a row of a table on one line with tabs between its cells, list items behind
their bullet or number, <pre> as it is. Links are their words. A row that holds a table, a list or a heading, as pages
do that are laid out by tables, is read cell by cell.
"""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass, replace

from selectolax.lexbor import LexborHTMLParser, LexborNode

from programs.documents.document import Document, Heading, ReadError, Remark
from programs.documents.readers.encoding import decode
from programs.documents.readers.numerals import numeral
from programs.documents.readers.styles import Seen, Styles
from programs.documents.readers.writer import Writer

DEPTH_LIMIT = 10_000  # the parser's time grows with the square of the depth: 0.1 s here, 9 s at 100,000
HIDDEN_LIMIT = 2_000  # characters of one hidden passage that are kept

HEADINGS = {"h1": 1, "h2": 2, "h3": 3, "h4": 4, "h5": 5, "h6": 6}
PARAGRAPHS = {"p", "blockquote", "table", "ul", "ol", "dl", "pre", "figure", "hr", "article", "section", "fieldset"}
PARAGRAPHS |= {"header", "footer", "nav", "main", "aside", "details", "form", "address", *HEADINGS}
LINES = {"div", "li", "dt", "dd", "tr", "caption", "figcaption", "summary", "legend", "option", "center", "title"}
LINES |= {"textarea", "thead", "tbody", "tfoot", "menu", "dir", "hgroup", "search"}
CELLS = {"td", "th"}
# What makes a row more than a line of cells.
COMPLEX = {"table", "ul", "ol", "dl", "pre", "hr", *HEADINGS}
NOT_SHOWN = {"script", "style", "template", "noscript", "head", "datalist", "annotation", "annotation-xml", "rp"}
NOT_SHOWN |= {"desc", "metadata", "noframes", "noembed"}
READINGS = {"rt", "rtc"}  # they stand above a line, and within its sentences nobody would find these
UNREAD = {"img": "picture", "iframe": "frame", "frame": "frame", "object": "object"}
UNREAD |= {"embed": "object", "video": "film", "audio": "sound", "canvas": "drawing"}

RAISED = str.maketrans("0123456789+-−()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁽⁾ⁿ")
LOWERED = str.maketrans("0123456789+-−()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₍₎")
SHIFTED = re.compile(r"[0-9+\-−()n]{1,8}")
# Elements that stay open until they are closed.
OPEN_OR_CLOSE = re.compile(
    r"<(/?)(?:div|span|b|i|u|s|em|strong|font|small|big|code|tt|sub|sup|blockquote|section|article|ul|ol|dl|table"
    r"|center|form|main|nav|aside|header|footer|address|details|fieldset|figure|pre|ruby|svg|g|math)\b",
    re.IGNORECASE,
)
CHARSET = re.compile(
    rb"""<\?xml[^>]{0,200}?encoding\s{0,9}=\s{0,9}["']([\w.:-]{1,40})"""
    rb"""|<meta[^>]{0,400}?charset\s{0,9}=\s{0,9}["']?\s{0,9}([\w.:-]{1,40})""",
    re.IGNORECASE,
)
# XHTML's elements that close themselves, of those that HTML would leave open.
SELF_CLOSED = re.compile(
    r"<((?!(?:area|base|br|col|embed|hr|img|input|link|meta|param|source|track|wbr)\b)[a-z][a-z0-9]{0,20})"
    r"((?:\s[^<>]{0,2000})?)/>",
    re.IGNORECASE,
)


def read_html(content: bytes, name: str) -> Document:
    """Raises ReadError for bytes that are no text, and for elements in more than `DEPTH_LIMIT` others."""
    declared = CHARSET.search(content[:4096])
    said = (declared[1] or declared[2]).decode("ascii") if declared else ""
    decoded = decode(content, name, said if not said.lower().startswith("utf-16") else "")
    text, headings, remarks = html_text(decoded.text, name, xhtml=content[:200].lstrip().startswith(b"<?xml"))
    sha256 = hashlib.sha256(content).hexdigest()
    return Document(name, "html", sha256, text, headings=headings, remarks=(*decoded.remarks, *remarks))


def html_text(source: str, name: str, xhtml: bool = False) -> tuple[str, tuple[Heading, ...], tuple[Remark, ...]]:
    """The text of one page, its headings, and what is hidden or not read. `xhtml`: elements may close themselves."""
    depth = _depth(source)
    if depth > DEPTH_LIMIT:
        raise ReadError(f"{name!r} has more than {DEPTH_LIMIT:,} elements one within another: it is not read.")
    tree = LexborHTMLParser(SELF_CLOSED.sub(r"<\1\2></\1>", source) if xhtml else source)
    if tree.root is None:
        return "", (), ()
    reader = _Reader(tree, depth)
    if tree.head and not tree.css_first("h1") and (title := tree.head.css_first("title")):
        reader.writer.text(title.text())
        reader.writer.line(2)
    reader.walk(tree.root)
    return "".join(reader.writer.parts), tuple(reader.headings), tuple(reader.remarks())


def _depth(source: str) -> int:
    """How deep the elements nest, at most."""
    depth = deepest = 0
    for tag in OPEN_OR_CLOSE.finditer(source):
        depth = max(0, depth - 1) if tag[1] else depth + 1
        deepest = max(deepest, depth)
    return deepest


@dataclass(frozen=True)
class _Place:
    """What holds for the text at one place of the page."""

    seen: Seen = Seen()
    kept: bool = False  # within <pre>
    in_row: bool = False  # within a row that is one line
    shifted: dict[int, int] | None = None  # within <sup> or <sub>


class _Reader:
    """A walk over the elements of a page, without recursion."""

    def __init__(self, tree: LexborHTMLParser, depth: int):
        self.writer = Writer()
        self.headings: list[Heading] = []
        self._styles = Styles(tree, depth)
        self._hidden: dict[str, Writer] = {}
        self._unread: Counter[str] = Counter()
        self._readings = False
        self._lists: list[_List] = []
        self._complex: set[int] = set()
        for node in tree.css(",".join(sorted(COMPLEX))):
            above = node.parent
            while above is not None and above.mem_id not in self._complex:
                self._complex.add(above.mem_id)
                above = above.parent

    def walk(self, root: LexborNode) -> None:
        places = [_Place()]
        node = root
        while True:
            inside = self._enter(node, places[-1])
            if inside and (child := node.child) is not None:
                places.append(inside)
                node = child
                continue
            if inside:
                self._leave(node, places[-1])
            while (following := node.next) is None or len(places) == 1:
                if len(places) == 1:
                    return
                places.pop()
                parent = node.parent
                if parent is None:
                    return
                node = parent
                self._leave(node, places[-1])
            node = following

    def remarks(self) -> list[Remark]:
        found = []
        for thing, count in sorted(self._unread.items()):
            found.append(
                Remark("unread", "", f"{count} {thing}s are not read" if count > 1 else f"a {thing} is not read")
            )
        for why, writer in self._hidden.items():
            text = "".join(writer.parts)
            cut = f", the first {HIDDEN_LIMIT:,} characters of it here" if len(text) > HIDDEN_LIMIT else ""
            found.append(
                Remark("hidden", "", f"text that the page does not show ({why}{cut})", text=text[:HIDDEN_LIMIT])
            )
        if self._readings:
            found.append(Remark("note", "", "the readings set above its words (ruby) are left out"))
        if self._styles.unmatched:
            what = f"what {self._styles.unmatched} of its style rules hide is read as if it were seen"
            found.append(Remark("doubtful", "", what))
        return found

    def _enter(self, node: LexborNode, place: _Place) -> _Place | None:
        """What holds in the node, or None where nothing in it is read."""
        tag = node.tag or ""
        if tag == "-text":
            self._text(node.text_content or "", place)
            return None
        if tag in READINGS:
            self._readings = True
            return None
        if tag in NOT_SHOWN or tag.startswith("-") or tag == "!doctype":
            return None
        seen = self._styles.seen(node, place.seen)
        if seen is not place.seen:
            place = replace(place, seen=seen)
        if tag in UNREAD:
            if not seen.why_hidden and not _tiny(node):
                self._unread[UNREAD[tag]] += 1
            return None
        self._break(tag, place)
        if tag == "br":
            self.writer.space() if place.in_row else self.writer.next_line()
        elif tag == "input":
            self._text(_field(node), place)
        elif tag in CELLS and place.in_row:
            if _follows_a_cell(node):
                self.writer.cell()
        elif tag == "tr":
            return replace(place, in_row=place.in_row or node.mem_id not in self._complex)
        elif tag in HEADINGS:
            self.writer.first = None
        elif tag == "pre" or tag == "textarea":
            return replace(place, kept=not place.in_row)
        elif tag in ("sup", "sub"):
            return replace(place, shifted=RAISED if tag == "sup" else LOWERED)
        elif tag in ("ul", "ol", "menu", "dir"):
            self._lists.append(_List.of(node))
        elif tag == "li" and not place.in_row:
            mark = self._lists[-1].next(node) if self._lists else "-"
            self.writer.label("  " * min(len(self._lists) - 1, 8) + mark + " ")
        return place

    def _leave(self, node: LexborNode, place: _Place) -> None:
        tag = node.tag or ""
        if tag in HEADINGS and self.writer.first is not None and not place.in_row:
            self.headings.append(Heading(HEADINGS[tag], self.writer.first, self.writer.length))
        elif tag in ("ul", "ol", "menu", "dir") and self._lists:
            self._lists.pop()
        elif tag == "li":
            self.writer.label("")
        self._break(tag, place)

    def _break(self, tag: str, place: _Place) -> None:
        paragraph = tag in PARAGRAPHS and not (tag in ("ul", "ol") and self._lists)
        if not paragraph and tag not in LINES and tag not in CELLS:
            return
        if place.in_row and tag != "tr":
            if tag not in CELLS:
                self.writer.space()
            return
        self.writer.line(2 if paragraph else 1)
        for writer in self._hidden.values():
            writer.line()

    def _text(self, text: str, place: _Place) -> None:
        if why := place.seen.why_hidden:
            if text.strip():
                self._hidden.setdefault(why, Writer()).text(text)
            return
        if place.shifted and SHIFTED.fullmatch(text):
            text = text.translate(place.shifted)
        if place.kept:
            self.writer.kept(text)
        else:
            self.writer.text(text)


@dataclass
class _List:
    """A list that is open, and how its next item is marked."""

    form: str  # "-", or the `type` of an ordered list
    number: int = 1
    step: int = 1

    @classmethod
    def of(cls, node: LexborNode) -> "_List":
        if node.tag != "ol":
            return cls("-")
        attributes = node.attributes
        start = _integer(attributes.get("start"))
        step = -1 if "reversed" in attributes else 1
        return cls(attributes.get("type") or "1", 1 if start is None else start, step)

    def next(self, item: LexborNode) -> str:
        if self.form == "-":
            return "-"
        if (value := _integer(item.attributes.get("value"))) is not None:
            self.number = value
        number = self.number
        self.number += self.step
        return numeral(number, self.form) + "."


def _integer(value: str | None) -> int | None:
    return int(value) if value and re.fullmatch(r"-?[0-9]{1,9}", value.strip()) else None


def _tiny(node: LexborNode) -> bool:
    """Whether a picture is one of those that only take room."""
    sides = [_integer(node.attributes.get(side)) for side in ("width", "height")]
    return any(side is not None and side <= 2 for side in sides)


def _field(node: LexborNode) -> str:
    """What a form's field shows."""
    attributes = node.attributes
    kind = (attributes.get("type") or "text").lower()
    if kind in ("checkbox", "radio"):
        return "\u2612 " if "checked" in attributes else "\u2610 "
    return "" if kind in ("hidden", "password", "file", "image") else attributes.get("value") or ""


def _follows_a_cell(node: LexborNode) -> bool:
    before = node.prev
    while before is not None and before.tag not in CELLS:
        before = before.prev
    return before is not None
