"""The names of DOCX's elements by their usual prefixes, for the transitional and the strict form alike."""

from functools import lru_cache
from xml.etree.ElementTree import Element

OFFICE = "http://schemas.openxmlformats.org/"
STRICT = "http://purl.oclc.org/ooxml/"
PREFIXES = {
    OFFICE + "wordprocessingml/2006/main": "w",
    STRICT + "wordprocessingml/main": "w",
    OFFICE + "officeDocument/2006/math": "m",
    STRICT + "officeDocument/math": "m",
    OFFICE + "markup-compatibility/2006": "mc",
    OFFICE + "drawingml/2006/picture": "pic",
    STRICT + "drawingml/picture": "pic",
    OFFICE + "drawingml/2006/chart": "c",
    STRICT + "drawingml/chart": "c",
    OFFICE + "drawingml/2006/diagram": "dgm",
    STRICT + "drawingml/diagram": "dgm",
    "http://schemas.microsoft.com/office/drawing/2014/chartex": "cx",
    "urn:schemas-microsoft-com:vml": "v",
    "urn:schemas-microsoft-com:office:office": "office",
}


@lru_cache(maxsize=1000)
def _prefixed(tag: str) -> str:
    namespace, _, local = tag.removeprefix("{").rpartition("}")
    return f"{PREFIXES[namespace]}:{local}" if namespace in PREFIXES else local


def name_of(element: Element) -> str:
    """Such as w:p."""
    return _prefixed(element.tag)


def child(element: Element | None, *path: str) -> Element | None:
    """The first child of a name, and its child, and so on; None where one is missing."""
    for name in path:
        element = next((each for each in element if name_of(each) == name), None) if element is not None else None
    return element


def attribute(element: Element | None, name: str = "val") -> str:
    """An attribute by its name without prefix; "" where it is missing."""
    if element is None:
        return ""
    return next((value for key, value in element.attrib.items() if key.rpartition("}")[2] == name), "")


def like(element: Element, local: str, **attributes: str) -> Element:
    """A new element in the namespace of another, as its attributes are."""
    space = element.tag.rpartition("}")[0] + "}" if "}" in element.tag else ""
    return Element(space + local, {space + key: value for key, value in attributes.items()})
