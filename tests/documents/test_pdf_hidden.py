"""What a PDF's page does not show is not in its text, and is said; what it shows is."""

import pytest

from programs.documents.document import Document
from programs.documents.readers.pdf import read_pdf
from tests.documents.make_pdf import HEIGHT, WIDTH, Raw, draw, lines, page_picture, picture, raw_pdf

SEEN = draw("the fee is 2,150", 50, 700)
SECRET = "the true fee is 9"


def hidden(document: Document) -> list[str]:
    assert all(remark.page == 1 and remark.place == "page 1" for remark in document.of_kind("hidden"))
    return [remark.text for remark in document.of_kind("hidden")]


HIDDEN = {
    "render mode 3": draw(SECRET, 50, 600, more="0 g 3 Tr"),
    "render mode 7": draw(SECRET, 50, 600, more="0 g 7 Tr"),
    "white": draw(SECRET, 50, 600, more="1 g 0 Tr"),
    "nearly white": draw(SECRET, 50, 600, more="0.98 g 0 Tr"),
    "white in other colours": draw(SECRET, 50, 600, more="0 0 0 0 k 0 Tr"),
    "white outlines": draw(SECRET, 50, 600, more="1 G 1 Tr"),
    "half a point": draw(SECRET, 50, 600, 0.5),
    "scaled down": f"q 0.04 0 0 0.04 50 600 cm {draw(SECRET, 0, 0)} Q ",
    "left of the page": draw(SECRET, -300, 600),
    "above the page": draw(SECRET, 50, HEIGHT + 20),
    "clipped": f"q 0 0 10 10 re W n {draw(SECRET, 50, 600)} Q ",
    "below a black bar": draw(SECRET, 50, 600) + "0 g 45 595 200 18 re f ",
    "below a white box": draw(SECRET, 50, 600) + "1 g 45 595 200 18 re f ",
    "below a box with other words": draw(SECRET, 50, 600) + "1 g 45 595 200 18 re f " + draw("nothing here", 50, 601),
    "black on black": "0 g 45 595 200 18 re f " + draw(SECRET, 50, 600),
    "blue on the same blue": "0 0 1 rg 45 595 200 18 re f " + draw(SECRET, 50, 600, more="0 0 1 rg 0 Tr"),
    "white over what is seen": draw(SECRET, 50, 703, more="1 g 0 Tr"),
    "in a layer that is off": f"/OC /Off BDC {draw(SECRET, 50, 600)} EMC ",
}


def with_layer(operators: str) -> bytes:
    """A page with an optional content group "Off" that is switched off, and a picture "Im1" of a scanned page."""
    made = Raw()
    group = made.add("<< /Type /OCG /Name (Off) >>")
    made.catalogue = f"/OCProperties << /OCGs [{group} 0 R] /D << /OFF [{group} 0 R] >> >>"
    made.resources = f"/Properties << /Off {group} 0 R >>"
    made.page(operators)
    return made.bytes


@pytest.mark.parametrize("way", HIDDEN)
def test_hidden_text_is_left_out_and_said(way: str) -> None:
    before, after = (HIDDEN[way], SEEN) if "over" in way else (SEEN, HIDDEN[way])
    document = read_pdf(with_layer(before + after), "hidden.pdf")
    assert "9" not in document.text
    assert "the fee is 2,150\n" in document.text
    assert hidden(document) == [SECRET]


SHOWN = {
    "black": draw(SECRET, 50, 600),
    "white on a dark ground": "0 0 0.4 rg 45 595 200 18 re f " + draw(SECRET, 50, 600, more="1 g 0 Tr"),
    "light grey": draw(SECRET, 50, 600, more="0.8 g 0 Tr"),
    "yellow": draw(SECRET, 50, 600, more="1 1 0 rg 0 Tr"),
    "small print": draw(SECRET, 50, 600, 4),
    "a size of one that is scaled up": f"q 11 0 0 11 50 600 cm {draw(SECRET, 0, 0, 1)} Q ",
    "outlines": draw(SECRET, 50, 600, more="0 G 1 Tr"),
    "on a grey ground": "0.9 g 45 595 200 18 re f " + draw(SECRET, 50, 600),
    "inside its clip": f"q 40 590 300 30 re W n {draw(SECRET, 50, 600)} Q ",
    "below a frame": draw(SECRET, 50, 600) + "0 G 45 595 200 18 re S ",
    "below a marker's stroke": draw(SECRET, 50, 600) + "/Mark gs 1 1 0 rg 45 595 200 18 re f ",
    "first invisible, then not": draw(SECRET, 50, 600, more="0 g 3 Tr") + draw(SECRET, 50, 600),
    "written again on a box over it": draw(SECRET, 50, 600) + "1 g 45 595 200 18 re f " + draw(SECRET, 50, 600),
    "in a layer that is on": f"/OC /On BDC {draw(SECRET, 50, 600)} EMC ",
}


@pytest.mark.parametrize("way", SHOWN)
def test_text_that_is_seen_is_read(way: str) -> None:
    made = Raw()
    group = made.add("<< /Type /OCG /Name (On) >>")
    made.catalogue = f"/OCProperties << /OCGs [{group} 0 R] /D << /ON [{group} 0 R] >> >>"
    made.resources = f"/Properties << /On {group} 0 R >> /ExtGState << /Mark << /BM /Multiply /ca 0.5 >> >>"
    made.page(SEEN + SHOWN[way])
    document = read_pdf(made.bytes, "seen.pdf")
    assert f"{SECRET}\n" in document.text
    assert hidden(document) == []


def test_words_in_a_font_that_this_machine_lacks_are_read() -> None:
    """They leave no ink, but nothing on the page hides them."""
    made = Raw()
    letters = made.stream(
        b"begincmap 1 begincodespacerange <0000> <FFFF> endcodespacerange "
        b"2 beginbfchar <0041> <0068> <0042> <0069> endbfchar endcmap"
    )
    outline = made.stream(b"0 0 0 0 0 0 d1")
    made.font(
        "F9",
        f"/Subtype /Type3 /FontBBox [0 0 1 1] /FontMatrix [1 0 0 1 0 0] /FirstChar 65 /LastChar 66 /Widths [0.5 0.5] "
        f"/CharProcs << /a {outline} 0 R >> /Encoding << /Differences [65 /a /a] >> /ToUnicode {letters} 0 R",
    )
    frame = "0 G 10 10 500 800 re S 0 0 1 RG 40 590 300 30 re S "
    made.page(SEEN + draw("AB", 50, 600, font="F9") + frame)
    document = read_pdf(made.bytes, "font.pdf")
    assert hidden(document) == []
    assert document.text == "the fee is 2,150\nhi\n"


def test_single_signs_are_not_mistaken_for_hidden() -> None:
    text = "I - . , l | _ 1 = :"
    assert read_pdf(raw_pdf(draw(text, 50, 600)), "signs.pdf").text == text + "\n"


def test_text_below_the_crop_is_hidden() -> None:
    made = Raw()
    made.page(SEEN + draw(SECRET, 50, 100), "/CropBox [0 400 595 842]")
    document = read_pdf(made.bytes, "cropped.pdf")
    assert document.text == "the fee is 2,150\n"
    assert hidden(document) == [SECRET]


def test_overprinted_text_is_read_once() -> None:
    twice = draw("Bold by hand", 50, 700) + draw("Bold by hand", 50.3, 700)
    letters = "".join(
        draw(letter, 50 + 6.6 * n + shift, 600, font="F3") for shift in (0, 0.4) for n, letter in enumerate("SHADOW")
    )
    assert read_pdf(raw_pdf(twice + letters), "bold.pdf").text.split("\n") == ["Bold by hand", "SHADOW", ""]


def test_text_that_is_written_twice_in_two_places_is_read_twice() -> None:
    page = draw("the same", 50, 700) + draw("the same", 50, 686) + draw("the same", 50, 672)
    assert read_pdf(raw_pdf(page), "same.pdf").text == "the same\n" * 3


OCR = ["The lessee pays the rent on the first day", "of each month to the account of the lessor."]


def scanned(shows: str, layer: str) -> bytes:
    """A page that is an image of `shows`, with a layer of text over it."""
    made = Raw()
    made.image("Im1", page_picture(raw_pdf(shows)), WIDTH, HEIGHT)
    made.page(picture(0, 0, WIDTH, HEIGHT) + layer)
    return made.bytes


def test_an_ocr_layer_is_the_text() -> None:
    layer = "".join(draw(text, 50, 700 - 14 * n, more="3 Tr") for n, text in enumerate(OCR))
    document = read_pdf(scanned(lines(OCR, 50, 700), layer), "scan.pdf")
    assert document.text.splitlines() == OCR
    assert [(remark.kind, remark.place, remark.what) for remark in document.remarks] == [
        ("note", "page 1", "the text is an OCR layer over a scan")
    ]


def test_an_ocr_layer_below_the_picture_is_the_text() -> None:
    made = Raw()
    made.image("Im1", page_picture(raw_pdf(lines(OCR, 50, 700))), WIDTH, HEIGHT)
    made.page(lines(OCR, 50, 700) + picture(0, 0, WIDTH, HEIGHT))
    document = read_pdf(made.bytes, "scan.pdf")
    assert document.text.splitlines() == OCR
    assert [remark.what for remark in document.remarks] == ["the text is an OCR layer over a scan"]


def test_a_layer_says_nothing_where_its_scan_is_blank() -> None:
    layer = "".join(draw(text, 50, 700 - 14 * n, more="3 Tr") for n, text in enumerate(OCR))
    document = read_pdf(scanned(lines(OCR, 50, 700), layer + draw(SECRET, 50, 300, more="3 Tr")), "scan.pdf")
    assert document.text.splitlines() == OCR
    assert hidden(document) == [SECRET]


def test_invisible_text_on_a_page_with_a_picture_and_words_is_hidden() -> None:
    made = Raw()
    made.image("Im1", bytes(range(256)) * 4, 32, 32)
    made.page(picture(0, 0, WIDTH, 500) + lines(OCR * 4, 50, 800) + draw(SECRET, 50, 520, more="3 Tr"))
    document = read_pdf(made.bytes, "brochure.pdf")
    assert document.text.splitlines() == OCR * 4
    assert hidden(document) == [SECRET]
