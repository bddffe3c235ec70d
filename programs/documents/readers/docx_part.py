"""One XML part of a DOCX file, rewritten into what mammoth reads: hidden text taken out, text boxes, fields, formulas
and numbers turned into paragraphs and runs. Nothing recurses, because files can nest as deep as they like."""

from collections import Counter
from dataclasses import dataclass, field
from xml.etree.ElementTree import Element

from programs.documents.readers.docx_names import attribute, child, like, name_of
from programs.documents.readers.docx_numbers import DocxNumbers
from programs.documents.readers.docx_styles import DocxStyles
from programs.documents.readers.styles import Seen

# Wrappers whose content is read as if they were not there.
UNWRAPPED = {"w:fldSimple", "w:hyperlink", "w:dir", "w:bdo", "w:ruby", "w:rubyBase", "w:smartTag", "w:customXml"}
UNWRAPPED |= {"m:oMathPara"}
DROPPED = {"w:rt", "w:rubyPr", "w:customXmlPr", "w:smartTagPr", "w:fldData", "m:oMathParaPr"}
RENAMED = {"w:cr": "br", "w:ptab": "tab"}
DRAWINGS = {"w:drawing", "w:pict", "w:object"}
UNREAD = {"pic:pic": "picture", "v:imagedata": "picture", "c:chart": "chart", "cx:chart": "chart"}
UNREAD |= {"dgm:relIds": "diagram", "office:OLEObject": "embedded object", "office:ink": "drawing by hand"}
UNREAD |= {"w:altChunk": "included file", "w:subDoc": "included file"}
DELETED = {"w:del", "w:moveFrom"}
INSERTED = {"w:ins", "w:moveTo"}


@dataclass
class Told:
    """What the parts of a file hold beside the text that is read. `hidden`: passages by what hides them."""

    insertions: int = 0
    deletions: int = 0
    formulas: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    hidden: dict[str, list[str]] = field(default_factory=dict)


def rewrite(root: Element, styles: DocxStyles, numbers: DocxNumbers, told: Told) -> None:
    """Changes `root` in place and adds to `told`."""
    _choose_alternatives(root)
    left_out = _survey(root, styles, numbers, told)
    floating: dict[Element, list[Element]] = {}  # text boxes on their way to the paragraph that holds them
    for parent in reversed(list(root.iter())):
        kept: list[Element] = []
        for each in parent:
            name = name_of(each)
            boxes = floating.pop(each, [])
            if name in DROPPED or each in left_out:
                continue
            if name in DRAWINGS:
                boxes = [block for box in each.iter() if name_of(box) == "w:txbxContent" for block in box]
            elif name == "m:oMath":
                kept.append(_run(root, _formula(each)))
            elif name in UNWRAPPED:
                kept += each
            elif name in RENAMED:
                kept.append(like(each, RENAMED[name]))
            else:
                kept.append(each)
            if boxes and name == "w:p":
                kept += boxes
            elif boxes:
                floating.setdefault(parent, []).extend(boxes)
        parent[:] = kept


def _choose_alternatives(root: Element) -> None:
    """Of the forms that Word writes for new and for old readers the new one is kept, which mammoth would not read."""
    for parent in root.iter():
        if not any(name_of(each) == "mc:AlternateContent" for each in parent):
            continue
        kept: list[Element] = []
        waiting = list(parent)[::-1]
        while waiting:
            each = waiting.pop()
            if name_of(each) != "mc:AlternateContent":
                kept.append(each)
            elif form := next((form for form in each if len(form)), None):
                waiting += list(form)[::-1]
        parent[:] = kept


def _survey(root: Element, styles: DocxStyles, numbers: DocxNumbers, told: Told) -> set[Element]:
    """What is deleted, and the runs that cannot be seen. Counts on the way what the part holds, and makes
    headings and numbers plain."""
    left_out: set[Element] = set()
    around: dict[Element, Seen] = {root: styles.page(root)}
    gone: set[Element] = set()  # what is deleted, and everything in it
    for parent in root.iter():
        seen = around.pop(parent)
        if name_of(parent) == "w:p" and parent not in gone:
            _make_plain(parent, styles, numbers)
            for pieces in told.hidden.values():
                if pieces[-1] != "\n":
                    pieces.append("\n")
        for each in parent:
            name = name_of(each)
            around[each] = here = styles.seen(each, name, seen)
            if _is_deleted(each, name, name_of(parent)):
                left_out.add(each)
            if is_gone := parent in gone or each in left_out:
                gone.add(each)
            if name in INSERTED | DELETED and name_of(parent) != "w:rPr":
                told.insertions += name in INSERTED
                told.deletions += name in DELETED
            elif not is_gone:
                told.formulas += name == "m:oMath"
                if name in UNREAD:
                    told.unread[UNREAD[name]] += 1
                if name == "w:r" and here.why_hidden:
                    left_out.add(each)
                    if text := "".join(one.text or "" for one in each.iter() if name_of(one) == "w:t"):
                        told.hidden.setdefault(here.why_hidden, []).append(text)
    return left_out


def _is_deleted(element: Element, name: str, parent: str) -> bool:
    """Whether a tracked change takes it away: runs, a row or a cell. The mark of a paragraph is left to mammoth."""
    if name in DELETED:
        return parent not in ("w:rPr", "w:trPr")
    if name == "w:tr":
        return child(element, "w:trPr", "w:del") is not None
    return name == "w:tc" and child(element, "w:tcPr", "w:cellDel") is not None


def _make_plain(paragraph: Element, styles: DocxStyles, numbers: DocxNumbers) -> None:
    """A heading by outline becomes one by style, and a number that Word would put before it becomes text."""
    properties = child(paragraph, "w:pPr")
    if child(properties, "w:rPr", "w:del") is not None:
        return  # it is joined with the next one
    label = numbers.label(paragraph)
    level = styles.heading_level(paragraph)
    if label is None and not level:
        return
    if properties is None:
        properties = like(paragraph, "pPr")
        paragraph.insert(0, properties)
    if level:
        _replace(properties, "w:pStyle", like(paragraph, "pStyle", val=f"Heading{level}"))
    if label is not None:
        without = like(paragraph, "numPr")  # a list that is not defined: mammoth makes no item of it
        without.extend([like(paragraph, "ilvl", val="0"), like(paragraph, "numId", val="0")])
        _replace(properties, "w:numPr", without)
        paragraph.insert(list(paragraph).index(properties) + 1, _run(paragraph, f"{label} " if label else ""))


def _replace(parent: Element, name: str, new: Element) -> None:
    parent[:] = [*(each for each in parent if name_of(each) != name), new]


def _run(near: Element, text: str) -> Element:
    run = like(near, "r")
    words = like(near, "t")
    words.text = text
    run.append(words)
    return run


def _formula(formula: Element) -> str:
    """On one line: a/b, a^b, a_b, √(a)."""
    said: dict[Element, str] = {}
    for each in reversed(list(formula.iter())):
        inside = [(name_of(one), said.pop(one)) for one in each]
        named = {name: _grouped(text) for name, text in inside}
        whole = "".join(text for _, text in inside)
        match name_of(each):
            case "m:t" | "w:t":
                said[each] = each.text or ""
            case "m:f":
                said[each] = f"{named.get('m:num', '')}/{named.get('m:den', '')}"
            case "m:sSup":
                said[each] = f"{named.get('m:e', '')}^{named.get('m:sup', '')}"
            case "m:sSub":
                said[each] = f"{named.get('m:e', '')}_{named.get('m:sub', '')}"
            case "m:rad":
                said[each] = f"√{named.get('m:e', '')}"
            case "m:d":
                marks = child(each, "m:dPr")
                opened, closed = (attribute(child(marks, name)) for name in ("m:begChr", "m:endChr"))
                said[each] = f"{opened or '('}{whole}{closed or ')'}"
            case "m:nary":
                said[each] = (attribute(child(each, "m:naryPr", "m:chr")) or "∫") + whole
            case _:
                said[each] = whole
    return said.get(formula, "")


def _grouped(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() else f"({text})"
