"""Word files: what a reader of the page sees is the text, and what the file holds beside it is told."""

import io

import docx as python_docx
import pytest

from programs.documents.document import Document, ReadError
from programs.documents.readers.docx import read_docx
from tests.documents.make_files import SPACES, docx, paragraph, run, zipped

DELETED = '<w:del w:id="1" w:author="A"><w:r><w:delText>500</w:delText></w:r></w:del>'
INSERTED = f'<w:ins w:id="2" w:author="A">{run("700")}</w:ins>'


def read(body: str, **parts: str) -> Document:
    return read_docx(docx(body, **parts), "contract.docx")


def said(document: Document, kind: str) -> str:
    return " | ".join(f"{remark.what}: {remark.text}" for remark in document.remarks if remark.kind == kind)


def test_an_insertion_is_read_a_deletion_is_not_and_both_are_told() -> None:
    document = read(paragraph("The fee is ", DELETED, INSERTED, " euros."))
    assert document.text == "The fee is 700 euros."
    assert "tracked changes (insertions, which are read: 1, and deletions, which are not: 1)" in said(document, "note")


def test_a_file_without_changes_says_nothing_of_changes() -> None:
    assert read(paragraph("The fee is 700 euros.")).remarks == ()


def test_a_moved_passage_stands_where_it_was_moved_to_only() -> None:
    moved = f"<w:moveFrom>{run('Clause.')}</w:moveFrom>", f"<w:moveTo>{run('Clause.')}</w:moveTo>"
    document = read(paragraph("Before", moved[0]) + paragraph("After ", moved[1]))
    assert document.text == "Before\n\nAfter Clause."


def test_a_deleted_row_of_a_table_is_not_read() -> None:
    row = "<w:tr><w:trPr>{}</w:trPr><w:tc>{}</w:tc><w:tc>{}</w:tc></w:tr>"
    table = row.format("", paragraph("Fee"), paragraph("700")) + row.format(
        '<w:del w:id="1" w:author="A"/>', paragraph("Old fee"), paragraph("500")
    )
    assert read(f"<w:tbl>{table}</w:tbl>").text == "Fee\t700"


def test_footnotes_and_endnotes_stand_at_the_end_and_their_marks_in_the_text() -> None:
    document = read(
        paragraph(
            "Fees apply",
            '<w:r><w:footnoteReference w:id="2"/></w:r>',
            ", always",
            '<w:r><w:endnoteReference w:id="3"/></w:r>',
        ),
        footnotes=f'<w:footnote w:id="2">{paragraph("Except in March.")}</w:footnote>',
        endnotes=f'<w:endnote w:id="3">{paragraph("Since 1999.")}</w:endnote>',
    )
    assert document.text == "Fees apply[1], always[2]\n\n1. Except in March.\n\n2. Since 1999."


BOX = f"<w:txbxContent>{paragraph('The box says 42.')}</w:txbxContent>"


@pytest.mark.parametrize(
    "box",
    [
        f"<w:drawing><wps:txbx>{BOX}</wps:txbx></w:drawing>",
        f"<w:pict><v:shape><v:textbox>{BOX}</v:textbox></v:shape></w:pict>",
        f"<mc:AlternateContent><mc:Choice><w:drawing><wps:txbx>{BOX}</wps:txbx></w:drawing></mc:Choice>"
        f"<mc:Fallback><w:pict><v:textbox>{BOX}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent>",
    ],
    ids=["new", "old", "both forms"],
)
def test_a_text_box_is_read_once_behind_its_paragraph(box: str) -> None:
    document = read(paragraph("Before ", f"<w:r>{box}</w:r>", "goes on.") + paragraph("After."))
    assert document.text == "Before goes on.\n\nThe box says 42.\n\nAfter."


def test_a_text_box_within_a_deletion_is_not_read() -> None:
    box = f"<w:del><w:r><w:pict><v:textbox>{BOX}</v:textbox></w:pict></w:r></w:del>"
    assert read(paragraph("Before.", box)).text == "Before."


def test_a_comment_is_told_and_is_not_in_the_text() -> None:
    document = read(
        paragraph("The fee.", '<w:r><w:commentReference w:id="0"/></w:r>'),
        comments=f'<w:comment w:id="0" w:author="A">{paragraph("Is it 9?")}</w:comment>',
    )
    assert document.text == "The fee."
    assert said(document, "note") == "it holds comments, which are not read: 1: "


def test_a_table_in_a_table_is_read_cell_by_cell() -> None:
    def table(*cells: str) -> str:
        return "<w:tbl><w:tr>" + "".join(f"<w:tc>{cell}</w:tc>" for cell in cells) + "</w:tr></w:tbl>"

    inner = table(paragraph("Year"), paragraph("2031"))
    assert read(table(paragraph("Term"), inner + paragraph())).text == "Term\n\nYear\t2031"
    assert read(table(paragraph("Term"), paragraph("5 years"))).text == "Term\t5 years"


@pytest.mark.parametrize(
    ("properties", "why"),
    [
        ("<w:vanish/>", "hidden letters"),
        ('<w:color w:val="FFFFFF"/>', "colour of their background"),
        ('<w:color w:val="FEFDFE"/>', "colour of their background"),
        ('<w:sz w:val="1"/>', "smaller than 2 pixels"),
        ('<w:color w:val="000000"/><w:shd w:val="clear" w:fill="000000"/>', "colour of their background"),
        ('<w:rStyle w:val="Ghost"/>', "hidden letters"),
    ],
)
def test_text_that_the_page_does_not_show_is_left_out_and_told(properties: str, why: str) -> None:
    styles = '<w:style w:type="character" w:styleId="Base"><w:rPr><w:vanish/></w:rPr></w:style>'
    styles += '<w:style w:type="character" w:styleId="Ghost"><w:basedOn w:val="Base"/></w:style>'
    document = read(paragraph("The fee is 2,150.", run("The true fee is 9.", properties)), styles=styles)
    assert document.text == "The fee is 2,150."
    assert why in said(document, "hidden") and "The true fee is 9." in said(document, "hidden")


@pytest.mark.parametrize(
    "properties",
    [
        '<w:vanish w:val="0"/>',
        '<w:color w:val="FFFFFF"/><w:shd w:val="clear" w:fill="1F3864"/>',
        '<w:color w:val="FFFFFF"/><w:highlight w:val="darkBlue"/>',
        '<w:color w:val="auto"/>',
        '<w:sz w:val="12"/>',
        '<w:color w:val="000000"/>',
    ],
)
def test_text_that_looks_hidden_and_is_seen_is_read(properties: str) -> None:
    document = read(paragraph("The fee is 2,150.", run(" Plus 9.", properties)))
    assert (document.text, document.remarks) == ("The fee is 2,150. Plus 9.", ())


def test_white_letters_in_a_dark_cell_are_read_and_in_a_plain_one_are_not() -> None:
    cell = (
        "<w:tbl><w:tr><w:tc><w:tcPr>{}</w:tcPr>"
        + paragraph(run("Fee", '<w:color w:val="FFFFFF"/>'))
        + "</w:tc></w:tr></w:tbl>"
    )
    assert read(cell.format('<w:shd w:val="clear" w:fill="000080"/>')).text == "Fee"
    assert read(cell.format("")).text == ""


LIST_ONE = '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'


def test_numbers_that_word_computes_are_read() -> None:
    level = '<w:lvl w:ilvl="{}"><w:start w:val="1"/><w:numFmt w:val="{}"/><w:lvlText w:val="{}"/></w:lvl>'
    levels = (
        level.format(0, "decimal", "%1.") + level.format(1, "decimal", "%1.%2") + level.format(2, "lowerLetter", "(%3)")
    )
    numbering = f'<w:abstractNum w:abstractNumId="0">{levels}</w:abstractNum>{LIST_ONE}'

    def clause(text: str, level: int) -> str:
        return paragraph(text, properties=f'<w:numPr><w:ilvl w:val="{level}"/><w:numId w:val="1"/></w:numPr>')

    body = clause("Term", 0) + clause("Fees", 0) + clause("Base fee", 1) + clause("Extra fee", 1)
    body += clause("in March", 2) + clause("in May", 2) + clause("End", 0) + clause("Notice", 1)
    document = read(body, numbering=numbering)
    lines = document.text.split("\n\n")
    assert lines == [
        "1. Term",
        "2. Fees",
        "2.1 Base fee",
        "2.2 Extra fee",
        "(a) in March",
        "(b) in May",
        "3. End",
        "3.1 Notice",
    ]


def test_a_deleted_clause_is_not_counted() -> None:
    level = '<w:lvl w:ilvl="0"><w:numFmt w:val="decimal"/><w:lvlText w:val="%1."/></w:lvl>'
    numbering = f'<w:abstractNum w:abstractNumId="0">{level}</w:abstractNum>{LIST_ONE}'
    number = '<w:numPr><w:ilvl w:val="0"/><w:numId w:val="1"/></w:numPr>'
    gone = paragraph(
        "<w:del><w:r><w:delText>Old</w:delText></w:r></w:del>", properties=number + "<w:rPr><w:del/></w:rPr>"
    )
    document = read(
        paragraph("One", properties=number) + gone + paragraph("Two", properties=number), numbering=numbering
    )
    assert document.text == "1. One\n\n2. Two"


def test_headings_are_known_by_style_and_by_outline_level() -> None:
    styles = '<w:style w:type="paragraph" w:styleId="berschrift1"><w:name w:val="heading 1"/></w:style>'
    styles += '<w:style w:type="paragraph" w:styleId="Clause"><w:pPr><w:outlineLvl w:val="1"/></w:pPr></w:style>'
    document = read(
        paragraph("Eins", properties='<w:pStyle w:val="berschrift1"/>')
        + paragraph("Text")
        + paragraph("Zwei", properties='<w:pStyle w:val="Clause"/>'),
        styles=styles,
    )
    assert [(each.level, document.text[each.start : each.end]) for each in document.headings] == [
        (1, "Eins"),
        (2, "Zwei"),
    ]


def test_fields_formulas_links_and_special_characters_are_read() -> None:
    field = f'<w:fldSimple w:instr="DATE">{run("1 March")}</w:fldSimple>'
    link = f'<w:hyperlink r:id="missing">{run("the annex")}</w:hyperlink>'
    fraction = (
        "<m:oMath><m:f><m:num><m:r><m:t>a+b</m:t></m:r></m:num><m:den><m:r><m:t>2</m:t></m:r></m:den></m:f></m:oMath>"
    )
    special = "<w:r><w:t>well</w:t><w:noBreakHyphen/><w:t>known</w:t><w:cr/><w:t>next</w:t></w:r>"
    document = read(paragraph("On ", field, " see ", link, ": ", fraction, " ", special))
    assert document.text == "On 1 March see the annex: (a+b)/2 well\u2011known\nnext"
    assert "formulas" in said(document, "doubtful")


def test_headers_and_footers_stand_around_the_text_and_pictures_are_told_as_unread() -> None:
    section = (
        '<w:sectPr><w:headerReference w:type="default" r:id="rheader1"/><w:footerReference r:id="rfooter1"/></w:sectPr>'
    )
    document = read(
        paragraph("Text.", "<w:r><w:drawing><pic:pic/></w:drawing></w:r>") + section,
        header1=paragraph("DRAFT 3"),
        footer1=paragraph("Confidential"),
    )
    assert document.text == "DRAFT 3\n\nText.\n\nConfidential"
    assert [remark.what for remark in document.unread] == ["a picture is not read"]


def test_a_header_that_no_section_shows_is_not_read() -> None:
    assert read(paragraph("Text."), header1=paragraph("DRAFT 3")).text == "Text."


def test_what_word_itself_would_write_is_read() -> None:
    made = python_docx.Document()
    made.add_heading("Fees", 1)
    made.add_paragraph("The fee is 700 euros.")
    made.add_paragraph("a bullet", style="List Bullet")
    table = made.add_table(1, 2)
    table.cell(0, 0).text, table.cell(0, 1).text = "Term", "5 years"
    packed = io.BytesIO()
    made.save(packed)
    document = read_docx(packed.getvalue(), "made.docx")
    assert document.text == "Fees\n\nThe fee is 700 euros.\n\n- a bullet\n\nTerm\t5 years"
    assert (document.format, document.headings[0].level, document.pages) == ("docx", 1, ())


BOMB = '<!DOCTYPE x [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'


@pytest.mark.parametrize(
    ("member", "content", "why"),
    [
        ("word/document.xml", f"{BOMB}<w:document {SPACES}><w:body>&b;</w:body></w:document>", "defines entities"),
        ("word/styles.xml", f"{BOMB}<w:styles {SPACES}>&b;</w:styles>", "defines entities"),
        ("word/document.xml", "<w:document", "no XML"),
        ("word/other.txt", "no document at all", "no text part"),
    ],
)
def test_harmful_and_damaged_files_are_refused_by_name(member: str, content: str, why: str) -> None:
    members = {"word/document.xml": f"<w:document {SPACES}><w:body/></w:document>"} if "other" not in member else {}
    with pytest.raises(ReadError, match=rf"^'contract\.docx' .*{why}.*\.$"):
        read_docx(zipped({**members, member: content}), "contract.docx")
