"""Files of each format, made by script."""

from launch.bench.corpus import epub as epub
from launch.bench.corpus import zipped

WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
TYPES = "http://schemas.openxmlformats.org/package/2006/content-types"
RELATIONS = "http://schemas.openxmlformats.org/package/2006/relationships"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
SPACES = (
    f'xmlns:w="{WORD}" xmlns:r="{OFFICE}"'
    ' xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
    ' xmlns:wps="http://schemas.microsoft.com/office/word/2010/wordprocessingShape"'
    ' xmlns:v="urn:schemas-microsoft-com:vml"'
    ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    ' xmlns:pic="http://schemas.openxmlformats.org/drawingml/2006/picture"'
)


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def paragraph(*runs: str, properties: str = "") -> str:
    """Of runs in XML; what is no XML is a run's text."""
    inside = "".join(each if each.startswith("<") else run(each) for each in runs)
    return f"<w:p><w:pPr>{properties}</w:pPr>{inside}</w:p>"


def docx(body: str, **parts: str) -> bytes:
    """`body`: the inside of w:body. `parts`: the inside of other parts' roots, such as footnotes, styles, header1."""
    roots = {"footnotes": "footnotes", "endnotes": "endnotes", "styles": "styles", "numbering": "numbering"}
    roots |= {"comments": "comments", "header1": "hdr", "footer1": "ftr"}
    relations = "".join(
        f'<Relationship Id="r{part}" Type="{OFFICE}/{part.rstrip("1")}" Target="{part}.xml"/>' for part in parts
    )
    overrides = '<Default Extension="xml" ContentType="application/xml"/>'
    members = {
        "[Content_Types].xml": f'<Types xmlns="{TYPES}">{overrides}</Types>',
        "_rels/.rels": f'<Relationships xmlns="{RELATIONS}"><Relationship Id="r1" Type="{OFFICE}/officeDocument"'
        ' Target="word/document.xml"/></Relationships>',
        "word/_rels/document.xml.rels": f'<Relationships xmlns="{RELATIONS}">{relations}</Relationships>',
        "word/document.xml": f"<w:document {SPACES}><w:body>{body}</w:body></w:document>",
    }
    for part, inside in parts.items():
        members[f"word/{part}.xml"] = f"<w:{roots[part]} {SPACES}>{inside}</w:{roots[part]}>"
    return zipped(members)
