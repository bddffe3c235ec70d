"""Hebrew and Arabic are read in the order in which they are spoken, whichever way a program wrote them."""

from pathlib import Path

import matplotlib
import pytest
from fpdf import FPDF

from programs.documents.readers.pdf import read_pdf
from programs.documents.readers.pdf_bidi import logical

DEJAVU = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
HEBREW = "המחיר הוא 2,150 שקלים לפי Python (סעיף 7)."
ARABIC = "السعر هو 2,150 يورو حسب Python في العقد (البند 7)."
# The same as they stand on paper, from left to right.
HEBREW_STANDS = ".(7 ףיעס) Python יפל םילקש 2,150 אוה ריחמה"
ARABIC_STANDS = ".(7 دنبلا) دقعلا يف Python بسح وروي 2,150 وه رعسلا"


def written(*texts: str) -> bytes:
    """The letters of each text from left to right, unturned and unshaped."""
    pdf = FPDF()
    pdf.add_font("DejaVu", fname=DEJAVU)
    pdf.set_font("DejaVu", size=12)
    pdf.add_page()
    for number, text in enumerate(texts):
        left = 20.0
        for letter in text:
            pdf.text(left, 30 + 10 * number, letter)
            left += pdf.get_string_width(letter)
    return bytes(pdf.output())


def test_lines_that_stand_as_they_should_are_read_from_the_right() -> None:
    document = read_pdf(written(HEBREW_STANDS, ARABIC_STANDS), "rtl.pdf")
    assert document.text.splitlines() == [HEBREW, ARABIC]
    assert document.remarks == ()


def test_lines_that_a_program_wrote_unturned_are_read_as_they_are_meant_and_said() -> None:
    pdf = FPDF()
    pdf.add_font("DejaVu", fname=DEJAVU)
    pdf.set_font("DejaVu", size=12)
    pdf.add_page()
    pdf.multi_cell(0, text=f"{HEBREW}\n{ARABIC}")
    document = read_pdf(bytes(pdf.output()), "rtl.pdf")
    assert document.text.splitlines() == [HEBREW, ARABIC]
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("doubtful", 1)]


def test_right_to_left_words_in_a_left_to_right_line_keep_their_place() -> None:
    document = read_pdf(written("The word םולש means peace, 15% of it."), "mixed.pdf")
    assert document.text == "The word שלום means peace, 15% of it.\n"


def test_a_text_without_such_letters_is_left_alone() -> None:
    assert read_pdf(written("Plain (7) words, 2,150."), "plain.pdf").text == "Plain (7) words, 2,150.\n"


def glyphs(stands: str) -> list[tuple[float, float, str]]:
    return [(float(place), place + 1.0, letter) for place, letter in enumerate(stands)]


@pytest.mark.parametrize(
    ("stands", "meant"),
    [
        (HEBREW_STANDS, HEBREW),
        (ARABIC_STANDS, ARABIC),
        ("abc", "abc"),
        ("-12-5 םויב", "ביום 12-5-"),
        ("12-5- םויב", "ביום 12-5-"),
        ("2024-5-12 םויב", "ביום 2024-5-12"),
        ("50% החנה", "הנחה 50%"),
        ("A B C ןוויכ", "כיוון A B C"),
    ],
)
def test_how_a_line_stands_tells_how_it_is_read(stands: str, meant: str) -> None:
    assert logical(glyphs(stands), True) == meant


def test_a_mark_stays_on_its_letter() -> None:
    marked = [(0.0, 1.0, "ב"), (1.0, 2.0, "א"), (1.4, 1.6, "\u05b8")]  # the mark stands below the right letter
    assert logical(marked, True) == "א\u05b8ב"


def test_the_letters_of_a_ligature_keep_their_order() -> None:
    assert logical([(0.0, 1.0, "م"), (1.0, 2.0, "\u0644"), (1.0, 2.0, "\u0627")], True) == "\u0644\u0627م"
    assert logical([(0.0, 1.0, "م"), (1.0, 2.0, "\u0627"), (1.0, 2.0, "\u0644")], True) == "\u0644\u0627م"
