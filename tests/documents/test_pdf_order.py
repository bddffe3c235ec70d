"""A page of a PDF is read in the order in which a person reads it, however the file draws it."""

import textwrap
from itertools import zip_longest

import pytest
from fpdf import FPDF

from programs.documents.document import Document
from programs.documents.readers.pdf import read_pdf
from tests.documents.make_pdf import Raw, draw, lines, raw_pdf

SENTENCES = {
    "left": "The supplier delivers the goods within ten days. The buyer names the place in writing before they leave. "
    "Costs of carriage are borne by the party that chose the carrier. Nothing here limits what the law requires. "
    "Delay of more than a month ends the order.",
    "middle": "Fees are due at the end of each quarter. Interest runs from the day after. A fee of zero is no fee. "
    "The account is named in the annex that both have signed. Receipts are sent by mail within the week.",
    "right": "Notice is given three months before the end of the term. It is given in writing only. Silence is not "
    "consent under this agreement. A term that has ended is not renewed by use of the goods. Courts decide.",
}


def flat(text: str) -> str:
    return " ".join(text.split())


def stands_once_each(document: Document, *columns: str) -> None:
    for column in columns:
        assert column in flat(document.text)


def wrapped(name: str, width: int) -> list[str]:
    return textwrap.wrap(SENTENCES[name], width, break_on_hyphens=False)


def by_rows(columns: list[list[str]], lefts: list[int], top: int = 740) -> str:
    """Columns drawn line by line across the page."""
    return "".join(
        draw(text, left, top - 14 * number)
        for number, row in enumerate(zip_longest(*columns))
        for text, left in zip(row, lefts, strict=True)
        if text
    )


def test_two_columns_are_read_one_after_the_other() -> None:
    page = lines(wrapped("left", 42), 50, 740) + lines(wrapped("right", 42), 310, 740)
    document = read_pdf(raw_pdf(page), "two.pdf")
    stands_once_each(document, SENTENCES["left"], SENTENCES["right"])
    assert document.remarks == ()


def test_columns_that_are_drawn_line_by_line_across_the_page_are_still_columns() -> None:
    page = by_rows([wrapped("left", 42), wrapped("right", 42)], [50, 310])
    stands_once_each(read_pdf(raw_pdf(page), "two.pdf"), SENTENCES["left"], SENTENCES["right"])


def test_columns_that_are_drawn_from_the_right_are_read_from_the_left() -> None:
    page = lines(wrapped("right", 42), 310, 740) + lines(wrapped("left", 42), 50, 740)
    text = flat(read_pdf(raw_pdf(page), "two.pdf").text)
    assert text == f"{SENTENCES['left']} {SENTENCES['right']}"


@pytest.mark.parametrize("shift", [2, 5, 7, 9])
def test_columns_whose_lines_do_not_align_are_still_columns(shift: int) -> None:
    page = lines(wrapped("left", 42), 50, 740) + lines(wrapped("right", 42), 310, 740 - shift)
    stands_once_each(read_pdf(raw_pdf(page), "two.pdf"), SENTENCES["left"], SENTENCES["right"])


@pytest.mark.parametrize("across", [False, True])
def test_three_columns_are_read_one_after_the_other(across: bool) -> None:
    columns, lefts = [wrapped(name, 27) for name in SENTENCES], [50, 215, 380]
    page = (
        by_rows(columns, lefts)
        if across
        else "".join(lines(column, left, 740) for column, left in zip(columns, lefts, strict=True))
    )
    stands_once_each(read_pdf(raw_pdf(page), "three.pdf"), *SENTENCES.values())


def test_a_title_above_and_a_foot_below_the_columns_stay_outside_them() -> None:
    title = draw("An agreement on goods and what becomes of them between two parties", 90, 790, 15)
    foot = draw("Confidential", 50, 30, 9) + draw("Page 3", 500, 30, 9)
    page = title + by_rows([wrapped("left", 42), wrapped("right", 42)], [50, 310]) + foot
    text = read_pdf(raw_pdf(page), "two.pdf").text
    assert text.startswith("An agreement on goods and what becomes of them between two parties\n")
    assert f"{SENTENCES['left']} {SENTENCES['right']}" in flat(text)
    assert flat(text.splitlines()[-1]) == "Confidential Page 3"


def test_columns_above_and_below_a_line_of_full_width_are_two_regions() -> None:
    bar = draw("A heading that runs over the whole width of the page, between two regions of it", 50, 600, 13)
    page = by_rows([wrapped("left", 42), wrapped("right", 42)], [50, 310]) + bar
    page += by_rows([wrapped("middle", 42), wrapped("left", 42)], [50, 310], top=570)
    text = flat(read_pdf(raw_pdf(page), "two.pdf").text)
    order = [text.index(part) for part in (SENTENCES["left"], SENTENCES["right"], "A heading", SENTENCES["middle"])]
    assert order == sorted(order)


def test_justified_columns_of_fpdf2_are_read_in_order() -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    with pdf.text_columns(ncols=2, gutter=10, text_align="J") as columns:
        columns.write(" ".join(SENTENCES.values()))
    assert flat(read_pdf(bytes(pdf.output()), "two.pdf").text) == " ".join(SENTENCES.values())


TABLE = [("Item", "Quantity", "Price"), ("Bolt", "12", "3.50"), ("Nut", "40", "1.25"), ("Washer", "7", "0.10")]


@pytest.mark.parametrize("by_column", [False, True])
def test_a_table_is_read_row_by_row(by_column: bool) -> None:
    cells = [(value, 50 + 120 * x, 700 - 16 * y) for y, row in enumerate(TABLE) for x, value in enumerate(row)]
    if by_column:
        cells.sort(key=lambda cell: cell[1])
    text = read_pdf(raw_pdf("".join(draw(*cell) for cell in cells)), "table.pdf").text
    assert [tuple(line.split()) for line in text.splitlines()] == TABLE


def test_a_cell_of_several_lines_stays_together() -> None:
    pdf = FPDF()
    pdf.add_page()
    pdf.set_font("Helvetica", size=10)
    long = "The supplier delivers the goods within ten days of the order, or pays the buyer for each day thereafter."
    with pdf.table() as table:
        for cells in (("Clause", "What it says", "Fee"), ("Delivery", long, "500"), ("Notice", long[:60], "700")):
            row = table.row()
            for cell in cells:
                row.cell(cell)
    text = flat(read_pdf(bytes(pdf.output()), "table.pdf").text)
    assert f"Delivery {long} 500" in text


def test_side_by_side_sentences_that_do_not_go_on_are_called_doubtful() -> None:
    left = [f"Number {word} of these sentences ends on its own line." for word in ("one", "two", "three", "four")]
    right = [f"Answer {word} of the other side ends there too." for word in ("one", "two", "three", "four")]
    document = read_pdf(raw_pdf(by_rows([left, right], [50, 320])), "doubt.pdf")
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("doubtful", 1)]
    stands_once_each(document, *left, *right)


def test_one_column_is_not_called_doubtful() -> None:
    document = read_pdf(raw_pdf(lines(wrapped("left", 80), 50, 740)), "one.pdf")
    assert document.remarks == ()
    assert flat(document.text) == SENTENCES["left"]


def test_a_numbered_list_keeps_its_numbers_with_its_items() -> None:
    page = "".join(
        draw(f"{number}.", 50, 740 - 30 * number)
        + lines(
            [f"Item {number} has a text that goes on in", f"a second line below, for item {number}."],
            80,
            740 - 30 * number,
        )
        for number in range(4)
    )
    text = flat(read_pdf(raw_pdf(page), "list.pdf").text)
    for number in range(4):
        assert f"{number}. Item {number} has a text that goes on in a second line below, for item {number}." in text


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_a_turned_page_is_read_as_it_is_shown(turn: int) -> None:
    made = Raw()
    matrix = {0: "1 0 0 1 0 0", 90: "0 1 -1 0 595 0", 180: "-1 0 0 -1 595 842", 270: "0 -1 1 0 0 842"}[turn]
    made.page(
        f"q {matrix} cm " + by_rows([wrapped("left", 42), wrapped("right", 42)], [50, 310], 500) + "Q",
        f"/Rotate {turn}",
    )
    document = read_pdf(made.bytes, "turned.pdf")
    stands_once_each(document, SENTENCES["left"], SENTENCES["right"])
    assert document.remarks == ()


@pytest.mark.parametrize("matrix", ["0 1 -1 0", "0 -1 1 0", ".8 .6 -.6 .8"])
def test_text_in_another_direction_is_read_and_said(matrix: str) -> None:
    side = "".join(
        f"BT /F1 11 Tf {matrix} {400 + 15 * n} 400 Tm ({text}) Tj ET " for n, text in enumerate(["Side note"])
    )
    document = read_pdf(raw_pdf(lines(wrapped("left", 50), 50, 740) + side), "side.pdf")
    assert flat(document.text) == SENTENCES["left"] + " Side note"
    assert [remark.kind for remark in document.remarks] == ["note"]


def test_characters_below_one_another_are_a_line() -> None:
    columns = ["stand upright", "in two lines "]
    page = "".join(
        draw(letter, 400 - 20 * x, 700 - 12 * y)
        for x, column in enumerate(columns)
        for y, letter in enumerate(column.replace(" ", "-"))
    )
    assert read_pdf(raw_pdf(page), "vertical.pdf").text == "stand-upright\nin-two-lines-\n"


def test_a_column_that_begins_above_the_heading_of_the_other_keeps_its_first_lines() -> None:
    right = wrapped("right", 42)
    page = draw("1 Introduction", 50, 768, 16) + lines(wrapped("left", 42), 50, 741.5)
    document = read_pdf(raw_pdf(page + lines(right, 310, 792)), "two.pdf")
    assert flat(document.text) == f"1 Introduction {SENTENCES['left']} {SENTENCES['right']}"
    above = draw("A line of its own, far above the columns", 50, 810)
    document = read_pdf(raw_pdf(above + page + lines(right, 310, 770)), "two.pdf")
    assert document.text.startswith("A line of its own, far above the columns\n1 Introduction\n")


def test_a_table_beside_a_column_of_text_stays_out_of_its_sentences() -> None:
    words = lines(wrapped("left", 42), 50, 740)
    cells = [(f"Part {number}", f"{number * 7}.50", "in stock") for number in range(1, 7)]
    table = "".join(
        draw(cell, 320 + 70 * column, 735 - 24 * number)
        for number, row in enumerate(cells)
        for column, cell in enumerate(row)
    )
    for page in (words + table, table + words):
        document = read_pdf(raw_pdf(page), "beside.pdf")
        stands_once_each(document, SENTENCES["left"])
        assert all("  ".join(row) in document.text.splitlines() for row in cells)


def test_notes_in_the_margin_stay_out_of_the_paragraphs_beside_them() -> None:
    page, top = "", 740.0
    paragraphs = [wrapped(name, 70) for name in SENTENCES]
    for number, paragraph in enumerate(paragraphs):
        page += lines(paragraph, 180, top) + lines([f"Note {number}: see the", "annex."], 50, top, 8, 10)
        top -= 14 * len(paragraph) + 10
    document = read_pdf(raw_pdf(page), "margin.pdf")
    stands_once_each(document, *SENTENCES.values(), *(f"Note {number}: see the annex." for number in range(3)))
