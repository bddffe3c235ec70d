"""What Word's styles say of paragraphs and runs: whether they can be seen, and which are headings."""

from dataclasses import replace
from xml.etree.ElementTree import Element

from programs.documents.readers.docx_names import attribute, child, name_of
from programs.documents.readers.styles import Seen, rgb

OFF = {"0", "false", "off", "none"}
PIXELS = 96 / 72 / 2  # in half a point, in which Word counts letters


class DocxStyles:
    """`root`: of styles.xml, None for a file without."""

    def __init__(self, root: Element | None):
        found = [each for each in root if name_of(each) == "w:style"] if root is not None else []
        self._styles = {attribute(style, "styleId"): style for style in found}
        self._chains: dict[str, list[Element]] = {}
        self._base = child(root, "w:docDefaults", "w:rPrDefault", "w:rPr")
        self._normal = next(
            (attribute(style, "styleId") for style in found
             if attribute(style, "type") == "paragraph" and attribute(style, "default") not in ("", *OFF)), ""
        )  # fmt: skip

    def chain(self, name: str) -> list[Element]:
        """A style behind those that it is based on."""
        if name not in self._chains:
            found: list[Element] = []
            style = self._styles.get(name)
            while style is not None and style not in found and len(found) < 20:
                found.append(style)
                style = self._styles.get(attribute(child(style, "w:basedOn")))
            self._chains[name] = found[::-1]
        return self._chains[name]

    def of_paragraph(self, paragraph: Element) -> list[Element]:
        return self.chain(attribute(child(paragraph, "w:pPr", "w:pStyle")) or self._normal)

    def page(self, root: Element) -> Seen:
        """How text without any style shows. Word chooses its colour by what is behind it."""
        seen = Seen(colour="unknown")
        if background := attribute(child(root, "w:background"), "color"):
            seen = replace(seen, background=rgb(background.lower()))
        return _with(seen, self._base)

    def seen(self, element: Element, name: str, around: Seen) -> Seen:
        """How an element shows within one that shows as `around`."""
        if name == "w:p":
            for style in self.of_paragraph(element):
                around = _shaded(_with(around, child(style, "w:rPr")), child(style, "w:pPr", "w:shd"))
            return _shaded(around, child(element, "w:pPr", "w:shd"))
        if name == "w:r":
            properties = child(element, "w:rPr")
            for style in self.chain(attribute(child(properties, "w:rStyle"))):
                around = _with(around, child(style, "w:rPr"))
            return _with(around, properties)
        if name == "w:tc":
            return _shaded(around, child(element, "w:tcPr", "w:shd"))
        if name == "w:txbxContent" or (name == "w:tbl" and child(element, "w:tblPr", "w:tblStyle") is not None):
            return replace(around, background="unknown")  # boxes are filled and tables' styles shade rows
        return around

    def heading_level(self, paragraph: Element) -> int:
        """1 to 6 for a heading by its outline level or that of its style, 0 for text."""
        level = ""
        for style in self.of_paragraph(paragraph):
            level = attribute(child(style, "w:pPr", "w:outlineLvl")) or level
        level = attribute(child(paragraph, "w:pPr", "w:outlineLvl")) or level
        return int(level) + 1 if level in ("0", "1", "2", "3", "4", "5") else 0


def _with(seen: Seen, properties: Element | None) -> Seen:
    """With the properties of a run's."""
    for each in properties if properties is not None else ():
        name, value = name_of(each), attribute(each).lower()
        if name == "w:vanish":
            seen = replace(seen, gone="" if value in OFF else "hidden letters")
        elif name == "w:color":
            seen = replace(seen, colour="unknown" if value in ("", "auto") else rgb(value))
        elif name == "w:sz" and value.isdecimal():
            seen = replace(seen, size=int(value[:9]) * PIXELS)
        elif name == "w:highlight" and value != "none":
            seen = replace(seen, background="unknown")
        elif name == "w:shd":
            seen = _shaded(seen, each)
    return seen


def _shaded(seen: Seen, shading: Element | None) -> Seen:
    fill = attribute(shading, "fill").lower()
    if attribute(shading).lower() not in ("", "clear", "nil"):
        return replace(seen, background="unknown")  # a pattern
    return seen if fill in ("", "auto") else replace(seen, background=rgb(fill))
