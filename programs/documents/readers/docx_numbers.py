"""The numbers that Word puts before paragraphs, such as 4.2: they stand in no run, and contracts are cited by them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from programs.documents.readers.docx_names import attribute, child, name_of
from programs.documents.readers.docx_styles import DocxStyles
from programs.documents.readers.numerals import numeral

FORMS = {"lowerLetter": "a", "upperLetter": "A", "lowerRoman": "i", "upperRoman": "I"}
UNNUMBERED = {"bullet", "none", ""}


@dataclass
class _Level:
    start: int
    form: str
    text: str
    legal: bool


@dataclass
class _List:
    """One scheme of numbering: its levels, and how far each has counted."""

    levels: dict[int, _Level]
    counted: dict[int, int] = field(default_factory=dict)

    def next(self, level: int) -> str:
        for deeper in [each for each in self.counted if each > level]:
            del self.counted[deeper]
        for higher in range(level):
            self.counted.setdefault(higher, self.levels[higher].start if higher in self.levels else 1)
        at = self.levels[level]
        self.counted[level] = self.counted[level] + 1 if level in self.counted else at.start
        return re.sub(r"%([1-9])", lambda mark: self._shown(int(mark[1]) - 1, at.legal), at.text).strip()

    def _shown(self, level: int, legal: bool) -> str:
        number = self.counted.get(level, 1)
        form = self.levels[level].form if level in self.levels and not legal else ""
        return f"{number:02}" if form == "decimalZero" else numeral(number, FORMS.get(form, "1"))


class DocxNumbers:
    """`root`: of numbering.xml, None for a file without."""

    def __init__(self, root: Element | None, styles: DocxStyles):
        self._styles = styles
        each: Iterable[Element] = root if root is not None else ()
        self._lists = {
            attribute(one, "abstractNumId"): _List(_levels(one)) for one in each if name_of(one) == "w:abstractNum"
        }
        self._links = {
            attribute(one, "abstractNumId"): attribute(child(one, "w:numStyleLink"))
            for one in each if name_of(one) == "w:abstractNum"
        }  # fmt: skip
        self._nums = {attribute(one, "numId"): one for one in each if name_of(one) == "w:num"}
        self._begun: set[tuple[str, int]] = set()

    def label(self, paragraph: Element) -> str | None:
        """What stands before a paragraph, counted on; None for one without a number, such as a bullet's."""
        number, level = self._of(paragraph)
        if number in ("", "0") or number not in self._nums:
            return None
        num = self._nums[number]
        scheme = self._scheme(num)
        if scheme is None or level not in scheme.levels or scheme.levels[level].form in UNNUMBERED:
            return None
        for override in num:
            if name_of(override) == "w:lvlOverride" and (number, level) not in self._begun:
                start = attribute(child(override, "w:startOverride"))
                if attribute(override, "ilvl") == str(level) and start.isdecimal():
                    scheme.counted[level] = int(start[:9]) - 1
        self._begun.add((number, level))
        return scheme.next(level)

    def _of(self, paragraph: Element) -> tuple[str, int]:
        """The list and the level of a paragraph, its own or its style's."""
        number = level = ""
        for style in self._styles.of_paragraph(paragraph):
            properties = child(style, "w:pPr", "w:numPr")
            number = attribute(child(properties, "w:numId")) or number
            level = attribute(child(properties, "w:ilvl")) or level
        properties = child(paragraph, "w:pPr", "w:numPr")
        number = attribute(child(properties, "w:numId")) or number
        level = attribute(child(properties, "w:ilvl")) or level
        return number, int(level) if level in "012345678" and level else 0

    def _scheme(self, num: Element) -> _List | None:
        abstract = attribute(child(num, "w:abstractNumId"))
        for style in self._styles.chain(self._links.get(abstract, "")):
            linked = self._nums.get(attribute(child(style, "w:pPr", "w:numPr", "w:numId")))
            abstract = attribute(child(linked, "w:abstractNumId")) or abstract
        return self._lists.get(abstract)


def _levels(abstract: Element) -> dict[int, _Level]:
    found = {}
    for level in abstract:
        place = attribute(level, "ilvl")
        if name_of(level) == "w:lvl" and place.isdecimal() and len(place) == 1:
            start = attribute(child(level, "w:start"))
            legal = child(level, "w:isLgl") is not None
            form = attribute(child(level, "w:numFmt")) or "decimal"
            text = attribute(child(level, "w:lvlText"))[:100]
            found[int(place)] = _Level(int(start[:9]) if start.isdecimal() else 1, form, text, legal)
    return found
