"""Letters of a PDF that are drawn in unusual ways stand where the page shows them, once, and spell their words."""

import shutil
import subprocess
from pathlib import Path

import pytest

from programs.documents.cite import cite
from programs.documents.document import Document
from programs.documents.find import Finder
from programs.documents.readers.pdf import read_pdf
from tests.documents.make_pdf import Raw, draw, raw_pdf

CHROMIUM = shutil.which("chromium") or ""


def in_form(matrix: str, x: float, y: float) -> Document:
    """The word Confidential with a sign that stands for its fi, as browsers write it, in a form with a matrix."""
    made = Raw()
    fonts = f"/Resources << /Font << /F1 {made.fonts['F1']} 0 R >> >>"
    word = "(Con) Tj 73.4 0 Td /Span << /ActualText (fi) >> BDC (@) Tj EMC 40.6 0 Td (dential) Tj"
    drawn = f"BT /F1 40 Tf 1 0 0 1 {x} {y} Tm {word} ET".encode()
    entries = f"/Type /XObject /Subtype /Form /BBox [0 0 3000 3000] {fonts}"
    made.images["Fm1"] = made.stream(drawn, entries)
    made.page(draw("A line of the page itself", 50, 820) + f"q {matrix} cm /Fm1 Do Q\n")
    return read_pdf(made.bytes, "form.pdf")


def test_a_ligature_in_a_scaled_drawing_stays_in_its_word() -> None:
    for matrix, x, y in (("0.25 0 0 0.25 40 40", 200, 400), ("0.3 0 0 -0.3 30 800", 900, 1800), ("1 0 0 1 90 0", 9, 9)):
        assert in_form(matrix, x, y).text.splitlines() == ["A line of the page itself", "Confidential"]


def test_a_hidden_word_drawn_letter_by_letter_is_known_by_its_letters() -> None:
    words, x, secret = "", 50.0, "covered words"
    for letter in secret:
        words += draw(letter, x, 600, font="F3")
        x += 6.6  # the width of Courier's letters at 11 points
    box = "1 g 45 595 200 18 re f "
    document = read_pdf(raw_pdf(draw("The fee is 2,150.", 50, 700) + words + box), "hidden.pdf")
    assert [remark.text for remark in document.of_kind("hidden")] == [secret]
    assert "does not show" in cite(document, Finder(document.text), secret).hint
    assert not cite(document, Finder(document.text), "other words").hint


def test_white_letters_below_the_same_letters_are_not_said_to_be_hidden() -> None:
    white = draw("Outlined words", 50, 600, 30, more="1 g 0 Tr")
    places = (0, 23.3, 40, 48.4, 55, 61.7, 78.4, 95, 111.7, 120.1, 141.7, 158.4, 168.4, 185.1)
    letters = zip("Outlined words", places, strict=True)
    outlined = "".join(draw(letter, 50 + place, 600, 30, more="0 G 1 Tr") for letter, place in letters)
    for operators in (white + outlined, outlined + white):
        document = read_pdf(raw_pdf(operators), "outlined.pdf")
        assert (document.text, document.remarks) == ("Outlined words\n", ())
    alone = read_pdf(raw_pdf(draw("Seen", 50, 700) + white), "alone.pdf")
    assert [remark.text for remark in alone.of_kind("hidden")] == ["Outlined words"]
    assert alone.text == "Seen\n"


@pytest.mark.skipif(not CHROMIUM, reason="needs Chromium, which prints the PDF")
def test_words_with_ligatures_that_a_browser_prints_have_no_spaces_in_them(tmp_path: Path) -> None:
    row = '<div style="display:flex"><div style="width:200px">Field {}:</div><div style="{}">{}</div></div>'
    said = (
        "Garden engine engine",
        "Water garden engine",
        "Bridge union office",
        "Quarter budget windo",
        "Window teacher river",
        "Water engine morning",
        "Winter paper value s",
        "Yellow village garde",
        "Office yellow paper",
        "Metal zone value win",
    )
    line = "border-bottom:1px solid"
    rows = "".join(row.format(number, line, text) for number, text in enumerate(said))
    (tmp_path / "form.html").write_text(f'<div style="font:10pt sans-serif">{rows}</div>')
    printed = tmp_path / "form.pdf"
    command = [
        CHROMIUM,
        "--headless",
        "--no-sandbox",
        "--no-pdf-header-footer",
        f"--print-to-pdf={printed}",
        "form.html",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=60)
    text = read_pdf(printed.read_bytes(), "form.pdf").text
    assert all(each in text for each in said)
