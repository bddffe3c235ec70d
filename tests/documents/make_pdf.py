"""PDFs for tests: of plain operators, where the exact way of drawing matters, and of fpdf2, as users make them."""

import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from programs.documents.readers.pdf import page_image

WIDTH, HEIGHT = 595, 842  # A4, in points


def draw(text: str, x: float, y: float, size: float = 11, more: str = "0 g 0 Tr", font: str = "F1") -> str:
    """Operators that write `text` (as Latin-1) with its baseline beginning at x, y from the lower left corner."""
    escaped = text.replace("\\", r"\\").replace("(", r"\(").replace(")", r"\)")
    return f"BT {more} /{font} {size} Tf 1 0 0 1 {x} {y} Tm ({escaped}) Tj ET\n"


def lines(texts: Sequence[str], x: float, top: float, size: float = 11, leading: float = 14, font: str = "F1") -> str:
    """One line under the other, the first with its baseline at `top`."""
    return "".join(draw(text, x, top - number * leading, size, font=font) for number, text in enumerate(texts))


def picture(x: float, y: float, width: float, height: float, name: str = "Im1") -> str:
    return f"q {width} 0 0 {height} {x} {y} cm /{name} Do Q\n"


@dataclass
class Raw:
    """A PDF of objects: `add` returns an object's number, `page` adds one with its operators, `bytes` is the file."""

    objects: list[bytes] = field(default_factory=lambda: [b"", b""])  # 1: the catalogue, 2: the page tree
    pages: list[int] = field(default_factory=list)
    fonts: dict[str, int] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)
    catalogue: str = ""
    trailer: str = ""
    resources: str = ""

    def __post_init__(self) -> None:
        self.font("F1", "/Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding")
        self.font("F2", "/Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding")
        self.font("F3", "/Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding")

    def add(self, body: str | bytes) -> int:
        self.objects.append(body.encode("latin-1") if isinstance(body, str) else body)
        return len(self.objects)

    def stream(self, content: bytes, entries: str = "", compress: bool = True) -> int:
        if compress:
            content, entries = zlib.compress(content), f"{entries} /Filter /FlateDecode"
        head = f"<< {entries} /Length {len(content)} >>\nstream\n".encode("latin-1")
        return self.add(head + content + b"\nendstream")

    def font(self, name: str, entries: str) -> int:
        self.fonts[name] = self.add(f"<< /Type /Font {entries} >>")
        return self.fonts[name]

    def image(self, name: str, grey: bytes, width: int, height: int) -> int:
        """An image of 8-bit grey samples, row by row from the top."""
        entries = f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceGray"
        self.images[name] = self.stream(grey, entries + " /BitsPerComponent 8")
        return self.images[name]

    def page(self, operators: str, entries: str = "", width: float = WIDTH, height: float = HEIGHT) -> int:
        content = self.stream(operators.encode("latin-1"))
        fonts = " ".join(f"/{name} {number} 0 R" for name, number in self.fonts.items())
        images = " ".join(f"/{name} {number} 0 R" for name, number in self.images.items())
        resources = f"/Resources << /Font << {fonts} >> /XObject << {images} >> {self.resources} >>"
        page = self.add(
            f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {width} {height}] {resources} /Contents {content} 0 R "
            f"{entries} >>"
        )
        self.pages.append(page)
        return page

    @property
    def bytes(self) -> bytes:
        kids = " ".join(f"{number} 0 R" for number in self.pages)
        self.objects[0] = f"<< /Type /Catalog /Pages 2 0 R {self.catalogue} >>".encode("latin-1")
        self.objects[1] = f"<< /Type /Pages /Kids [{kids}] /Count {len(self.pages)} >>".encode("latin-1")
        out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
        offsets = []
        for number, body in enumerate(self.objects, 1):
            offsets.append(len(out))
            out += f"{number} 0 obj\n".encode() + body + b"\nendobj\n"
        start = len(out)
        out += f"xref\n0 {len(offsets) + 1}\n0000000000 65535 f \n".encode()
        out += b"".join(f"{offset:010d} 00000 n \n".encode() for offset in offsets)
        out += f"trailer\n<< /Size {len(offsets) + 1} /Root 1 0 R {self.trailer} >>\n".encode("latin-1")
        return bytes(out + f"startxref\n{start}\n%%EOF\n".encode())


def raw_pdf(*pages: str) -> bytes:
    """A page each, of operators."""
    made = Raw()
    for operators in pages:
        made.page(operators)
    return made.bytes


def page_picture(content: bytes) -> bytes:
    """The grey samples of a PDF's first page at one pixel a point: what a scanner would make of it."""
    image = Image.open(io.BytesIO(page_image(content, 1, dpi=72))).convert("L").resize((WIDTH, HEIGHT))
    return image.tobytes()
