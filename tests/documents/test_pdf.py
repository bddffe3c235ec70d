"""PDF files: pages, labels, headings, scans, locks, damage, sizes, threads."""

import hashlib
import io
import re
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from PIL import Image

from programs.documents.document import ReadError, Remark
from programs.documents.readers import pdf_worker
from programs.documents.readers.pdf import page_image, read_pdf
from programs.documents.readers.pdf_document import read_document
from tests.documents.make_pdf import HEIGHT, WIDTH, Raw, draw, lines, picture, raw_pdf

PARAGRAPH = [
    "The parties agree on what follows, and each of them",
    "has read it before the day on which it was signed.",
]


def fpdf2() -> FPDF:
    pdf = FPDF()
    pdf.set_font("Helvetica", size=11)
    return pdf


def test_a_page_knows_its_number_its_label_and_its_text() -> None:
    made = Raw()
    made.catalogue = "/PageLabels << /Nums [0 << /S /r >> 2 << /S /D /P (A-) /St 5 >>] >>"
    for text in ("first", "second", "third"):
        made.page(draw(text, 50, 700))
    document = read_pdf(made.bytes, "labels.pdf")
    assert document.text == "first\nsecond\nthird\n"
    assert [(page.number, page.label) for page in document.pages] == [(1, "i"), (2, "ii"), (3, "A-5")]
    assert [document.text[page.start : page.end] for page in document.pages] == ["first\n", "second\n", "third\n"]
    assert (document.name, document.format) == ("labels.pdf", "pdf")
    assert document.sha256 == hashlib.sha256(made.bytes).hexdigest()


def test_without_labels_pages_have_none() -> None:
    assert [page.label for page in read_pdf(raw_pdf(draw("a", 50, 700)), "a.pdf").pages] == [""]


def test_a_line_end_hyphen_stays_in_the_text() -> None:
    page = lines(
        ["It is the respon-", "sibility of a well-", "known party 77-", "1042 and co\xad", "operation"], 50, 700
    )
    text = read_pdf(raw_pdf(page), "hyphens.pdf").text
    assert text == "It is the respon-\nsibility of a well-\nknown party 77-\n1042 and co-\noperation\n"


def with_font(entries: str, text: str) -> bytes:
    made = Raw()
    made.font("F9", f"/Subtype /Type1 /BaseFont /Helvetica {entries}")
    made.page(draw(text, 50, 700, font="F9"))
    return made.bytes


def test_ligatures_are_letters() -> None:
    encoding = "/Encoding << /BaseEncoding /WinAnsiEncoding /Differences [65 /fi /ffi] >>"
    assert read_pdf(with_font(encoding, "oBce pro At"), "a.pdf").text == "office pro fit\n"


def test_a_glyph_without_a_letter_is_damaged_text() -> None:
    encoding = "/Encoding << /BaseEncoding /WinAnsiEncoding /Differences [65 /g001] >>"
    document = read_pdf(with_font(encoding, "proAt"), "a.pdf")
    assert document.text == "pro\ufffdt\n"
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("doubtful", 1)]
    assert "damaged text" in document.remarks[0].what


def test_words_keep_the_spaces_between_them_and_get_no_others() -> None:
    kerned = "BT /F1 11 Tf 50 700 Td [(W) 80 (o) -20 (rds ) -10 (in) -300 (one) 15 ( line)] TJ ET "
    spaced = "BT /F1 11 Tf 2 Tc 50 600 Td (wide letters) Tj ET"
    assert read_pdf(raw_pdf(kerned + spaced), "a.pdf").text == "Words in one line\nwide letters\n"


def test_program_code_keeps_its_indentation() -> None:
    code = ["def read(path):", "    if not path:", "        return None", "    return open(path)"]
    page = "".join(draw(line, 50, 700 - 14 * number, font="F3") for number, line in enumerate(code))
    placed = "".join(
        draw(line.strip(), 50 + 6.6 * (len(line) - len(line.lstrip())), 500 - 14 * number, font="F3")
        for number, line in enumerate(code)
    )
    for operators in (page, placed):
        assert read_pdf(raw_pdf(operators), "code.pdf").text.splitlines() == code
    words = draw("A line", 50, 700) + draw("and an indented one", 90, 686)
    assert read_pdf(raw_pdf(words), "words.pdf").text == "A line\nand an indented one\n"


def test_raised_and_lowered_signs_stay_in_their_line() -> None:
    page = (
        draw("x", 50, 700)
        + draw("2", 55.5, 704, 6)
        + draw(" and H", 59, 700)
        + draw("2", 91, 698, 6)
        + draw("O", 94.5, 700)
    )
    assert read_pdf(raw_pdf(page), "a.pdf").text == "x2 and H2O\n"


def test_headings_are_the_bookmarks_that_stand_on_their_pages() -> None:
    pdf = fpdf2()
    for title, level in (("1 Scope", 0), ("1.1 Parties and their heirs", 1), ("2 Fees", 0)):
        pdf.add_page()
        pdf.start_section(title, level)
        pdf.multi_cell(0, text=f"{title}\nThe words {title} stand in this line too, and more words after them.")
    document = read_pdf(bytes(pdf.output()), "outline.pdf")
    said = [(heading.level, document.text[heading.start : heading.end]) for heading in document.headings]
    assert said == [(1, "1 Scope"), (2, "1.1 Parties and their heirs"), (1, "2 Fees")]


def test_without_bookmarks_large_and_bold_lines_are_headings() -> None:
    page = draw("Agreement", 50, 800, 18, font="F2") + draw("Scope of it", 50, 760, 11, font="F2")
    page += lines(PARAGRAPH * 8, 50, 740) + draw("Fees", 50, 500, 11, font="F2") + lines(PARAGRAPH * 8, 50, 480)
    document = read_pdf(raw_pdf(page), "sizes.pdf")
    said = [(heading.level, document.text[heading.start : heading.end]) for heading in document.headings]
    assert said == [(1, "Agreement"), (2, "Scope of it"), (2, "Fees")]


def test_plain_lines_are_no_headings() -> None:
    assert read_pdf(raw_pdf(lines(PARAGRAPH * 8, 50, 740)), "plain.pdf").headings == ()


def five_pages() -> bytes:
    """Two pages of text, two that are images, one that is an image with a stamp."""
    made = Raw()
    made.image("Im1", bytes(range(256)) * 4, 32, 32)
    scan = picture(0, 0, WIDTH, HEIGHT)
    for operators in (
        lines(PARAGRAPH, 50, 700),
        scan,
        lines(PARAGRAPH, 50, 700),
        scan + draw("COPY", 200, 400, 60),
        scan,
    ):
        made.page(operators)
    return made.bytes


def test_pages_without_text_are_named_as_unread() -> None:
    document = read_pdf(five_pages(), "scans.pdf")
    assert [(remark.place, remark.page, remark.what) for remark in document.unread] == [
        ("page 2", 2, "no text: an image only"),
        ("page 4", 4, "almost no text over an image"),
        ("page 5", 5, "no text: an image only"),
    ]
    assert [page.number for page in document.pages if page.start == page.end] == [2, 5]


FETCHED = [f"Downloaded from example.org on 3 May 2024 by reader {number:07}." for number in range(4)]
SLANTED = "BT 0.8 g /F1 60 Tf 0.7 0.7 -0.7 0.7 100 200 Tm (CONFIDENTIAL) Tj ET\n"


@pytest.mark.parametrize(
    ("operators", "unread"),
    [
        (picture(0, 0, WIDTH, HEIGHT) + lines(FETCHED, 40, 70), ["almost no text over an image"]),
        (picture(0, 0, WIDTH, HEIGHT) + SLANTED + lines(FETCHED, 40, 820), ["almost no text over an image"]),
        (picture(0, 0, WIDTH, HEIGHT) + lines(FETCHED, 80, 500), []),
        (picture(60, 300, 400, 400) + lines(FETCHED, 40, 70), []),
        (SLANTED, ["no text but a slanted stamp"]),
        (SLANTED + draw("See overleaf.", 80, 500), []),
        (draw("Part Two", 200, 500, 40), []),
    ],
)
def test_stamps_and_margins_do_not_make_a_scan_read(operators: str, unread: list[str]) -> None:
    made = Raw()
    made.image("Im1", bytes(range(256)), 16, 16)
    made.page(operators)
    assert [remark.what for remark in read_pdf(made.bytes, "stamped.pdf").unread] == unread


def test_a_blank_page_has_nothing_to_be_read() -> None:
    document = read_pdf(raw_pdf("", "0 G 40 40 500 700 re S"), "blank.pdf")
    assert (document.text, document.remarks, len(document.pages)) == ("", (), 2)


def test_text_drawn_as_shapes_is_unread() -> None:
    shapes = "".join(f"{50 + 3 * n} 700 2 8 re f " for n in range(200))
    assert [remark.kind for remark in read_pdf(raw_pdf(shapes), "curves.pdf").remarks] == ["unread"]


def test_a_picture_beside_text_is_noted() -> None:
    made = Raw()
    made.image("Im1", bytes(range(256)) * 4, 32, 32)
    made.page(lines(PARAGRAPH * 3, 50, 700) + picture(50, 100, 400, 300))
    made.page(lines(PARAGRAPH * 3, 50, 700) + picture(50, 100, 400, 300))
    made.page(lines(PARAGRAPH * 3, 50, 700) + picture(50, 100, 40, 30))
    remarks = read_pdf(made.bytes, "pictures.pdf").remarks
    assert [(remark.kind, remark.place, remark.what) for remark in remarks] == [
        ("note", "pages 1-2", "a picture on it is not read")
    ]


def test_a_page_image_is_a_png_of_bounded_size() -> None:
    image = Image.open(io.BytesIO(page_image(five_pages(), 2)))
    assert image.format == "PNG" and max(image.size) == 1540
    small = Image.open(io.BytesIO(page_image(five_pages(), 1, dpi=72)))
    assert small.size == (WIDTH, HEIGHT)
    poster = Raw()
    poster.page(draw("large", 50, 700), width=14_000, height=200)
    assert max(Image.open(io.BytesIO(page_image(poster.bytes, 1))).size) == 1540


def test_there_is_no_image_of_a_page_that_is_not_there() -> None:
    for number in (0, 6, -1):
        with pytest.raises(ReadError, match="There is no page .*: the PDF has 5"):
            page_image(five_pages(), number)


def locked(user: str | None, owner: str, method: EncryptionMethod = EncryptionMethod.RC4) -> bytes:
    pdf = fpdf2()
    pdf.set_encryption(owner_password=owner, user_password=user, encryption_method=method)
    pdf.add_page()
    pdf.cell(text="The fee is 2,150.")
    return bytes(pdf.output())


def test_an_owner_lock_does_not_keep_from_reading() -> None:
    assert read_pdf(locked(None, "boss"), "owner.pdf").text == "The fee is 2,150.\n"


def test_a_user_lock_needs_its_password() -> None:
    content = locked("open sesame", "boss")
    with pytest.raises(ReadError, match="'locked.pdf' needs a password: give it with --password."):
        read_pdf(content, "locked.pdf")
    with pytest.raises(ReadError, match="'locked.pdf' needs a password, and none of those given opens it"):
        read_pdf(content, "locked.pdf", ["wrong", ""])
    assert read_pdf(content, "locked.pdf", ["wrong", "open sesame"]).text == "The fee is 2,150.\n"
    assert page_image(content, 1, ["open sesame"]).startswith(b"\x89PNG")


DAMAGES = [
    (EncryptionMethod.RC4, rb"/V \d", b"/V 9"),
    (EncryptionMethod.RC4, rb"/O\s*<\w*>", b"/O <00>"),
    (EncryptionMethod.RC4, rb"/U\s*<\w*>", b"/U <>"),
    (EncryptionMethod.RC4, rb"/Encrypt \d+ 0 R", b"/Encrypt 999 0 R"),
    (EncryptionMethod.RC4, rb"/ID \[[^]]*\]", b""),
    (EncryptionMethod.AES_128, rb"/CFM /AESV2", b"/CFM /XYZ"),
    (EncryptionMethod.AES_256, rb"/UE\s*<\w*>", b"/UE <>"),
]


@pytest.mark.parametrize(("method", "what", "by"), DAMAGES)
@pytest.mark.parametrize("user", ["open sesame", None])
def test_damaged_encryption_data_are_said_to_be_damaged(
    user: str | None, method: EncryptionMethod, what: bytes, by: bytes
) -> None:
    content = locked(user, "boss", method)
    broken = re.sub(what, by, content)
    assert broken != content
    with pytest.raises(ReadError, match="'x.pdf'.*damaged"):
        read_pdf(broken, "x.pdf")
    assert read_pdf(content, "x.pdf", ["open sesame"]).text == "The fee is 2,150.\n"


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"\n\n\0\0", "is empty"),
        (b"%PDF-1.7\n%%EOF\n", "damaged"),
        (b"no PDF at all", "damaged"),
        (Raw().bytes, "damaged"),
    ],
)
def test_what_cannot_be_read_is_named(content: bytes, what: str) -> None:
    with pytest.raises(ReadError, match=f"'x.pdf'.*{what}"):
        read_pdf(content, "x.pdf")


def test_a_bad_page_does_not_lose_the_others() -> None:
    made = Raw()
    made.page(draw("first", 50, 700))
    made.pages.append(made.add("<< /Type /Page /Parent 2 0 R /MediaBox 7 /Contents 999 0 R >>"))
    made.pages.append(made.add("null"))
    made.page(draw("last", 50, 700))
    document = read_pdf(made.bytes, "bad.pdf")
    assert document.text.split() == ["first", "last"]
    assert 3 in {remark.page for remark in document.unread}


def test_a_file_without_its_end_is_doubtful() -> None:
    content = raw_pdf(*[draw(f"page {number}", 50, 700) for number in range(3)])
    document = read_pdf(content[: content.rindex(b"startxref")], "cut.pdf")
    assert document.text == "page 0\npage 1\npage 2\n"
    assert [remark.kind for remark in document.remarks] == ["doubtful"]


def test_no_cut_or_changed_file_does_worse_than_a_sentence() -> None:
    content = five_pages() + locked("a", "b")
    for step in range(60):
        at = len(content) * step // 60
        changed = bytearray(content)
        changed[at : at + 40] = bytes((byte * 7 + step) % 256 for byte in changed[at : at + 40])
        for broken in (bytes(changed), content[:at]):
            try:
                read_pdf(broken, "x.pdf")
            except ReadError as error:
                assert str(error).startswith("'x.pdf' ")


def test_too_many_pages_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.documents.readers.pdf_open.MOST_PAGES", 4)
    with pytest.raises(ReadError, match="'x.pdf' is too large to be read: it has 5 pages"):
        read_document(five_pages(), "x.pdf")


def test_too_many_bytes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.documents.readers.pdf_open.LARGEST", 100)
    with pytest.raises(ReadError, match="'x.pdf' is too large to be read: it has more than 100 bytes"):
        read_document(five_pages(), "x.pdf")


def test_a_page_with_too_many_characters_is_cut_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.documents.readers.pdf_chars.MOST_CHARACTERS", 60)
    document = read_document(raw_pdf(lines(PARAGRAPH, 50, 700)), "x.pdf")
    assert document.text.startswith(PARAGRAPH[0])
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("unread", 1)]


def test_pages_after_too_much_text_are_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.documents.readers.pdf_document.MOST_TEXT", 10)
    document = read_document(raw_pdf(draw("twelve signs", 50, 700), draw("more", 50, 700)), "x.pdf")
    assert document.text == "twelve signs\n"
    assert [remark.place for remark in document.unread] == ["page 2"]


def with_endless_page() -> bytes:
    """Three pages; to draw the second, thirty forms draw each other three times."""
    made = Raw()
    made.page(draw("first", 50, 700))
    form = "/Type /XObject /Subtype /Form /BBox [0 0 595 842] /Resources"
    inner = made.stream(draw("deep", 50, 50).encode(), f"{form} << /Font << /F1 3 0 R >> >>")
    for _ in range(30):
        inner = made.stream(b"/X Do /X Do /X Do", f"{form} << /XObject << /X {inner} 0 R >> >>")
    made.images["X"] = inner
    made.page("/X Do")
    made.page(draw("last", 50, 700))
    return made.bytes


def test_a_page_without_end_is_given_up_and_the_others_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("programs.documents.readers.pdf_worker.SECONDS", 4.0)
    content = with_endless_page()
    document = read_pdf(content, "x.pdf")
    assert document.text == "first\nlast\n"
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("unread", 2)]
    with pytest.raises(ReadError, match="Page 2 of the PDF cannot be drawn"):
        page_image(content, 2)


def test_the_end_of_the_process_that_reads_costs_a_page_and_not_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, ...]] = []
    once = pdf_worker.Worker.ask

    def ask(self: pdf_worker.Worker, request: tuple[Any, ...]) -> Any:
        asked.append(request[-1])
        if len(asked) == 1:
            self.process.kill()
            raise pdf_worker.Failed(2)
        return once(self, request)

    monkeypatch.setattr(pdf_worker.Worker, "ask", ask)
    document = read_pdf(five_pages(), "x.pdf")
    assert asked == [(), (2,)]
    assert [page.number for page in document.pages] == [1, 2, 3, 4, 5]
    assert Remark("unread", "page 2", "reading it fails or takes too long", 2) in document.remarks


def test_a_page_that_swells_in_memory_is_given_up() -> None:
    inner, outer = zlib.compressobj(9), zlib.compressobj(9)
    swollen = b"".join(outer.compress(inner.compress(b" " * 1_000_000)) for _ in range(1_000))
    swollen += outer.compress(inner.flush()) + outer.flush()
    made = Raw()
    made.page(draw("first", 50, 700))
    entries = f"/Filter [/FlateDecode /FlateDecode] /Length {len(swollen)}"
    content = made.add(f"<< {entries} >>\nstream\n".encode() + swollen + b"\nendstream")
    contents = " ".join([f"{content} 0 R"] * 9)  # a gigabyte each
    made.pages.append(made.add(f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents [{contents}] >>"))
    document = read_pdf(made.bytes, "x.pdf")
    assert len(made.bytes) < 20_000
    assert document.text == "first\n"
    assert [(remark.kind, remark.page) for remark in document.remarks] == [("unread", 2)]


def test_form_values_are_read_where_they_stand_and_comments_are_noted() -> None:
    made = Raw()
    rest = "/Type /Annot /Subtype"
    name = made.add(f"<< {rest} /Widget /FT /Tx /T (n) /V (Ada Lovelace) /Rect [120 696 300 712] >>")
    secret = made.add(f"<< {rest} /Widget /FT /Tx /Ff 8192 /T (s) /V (hunter2) /Rect [120 656 300 672] >>")
    unseen = made.add(f"<< {rest} /Widget /FT /Tx /F 2 /T (u) /V (unseen) /Rect [120 636 300 652] >>")
    look = made.stream(b"0 0 12 12 re S", "/Type /XObject /Subtype /Form /BBox [0 0 12 12]")
    button = f"/FT /Btn /T (t) /V /Yes /AS /Yes /AP << /N << /Yes {look} 0 R >> >>"
    tick = made.add(f"<< {rest} /Widget {button} /Rect [120 616 132 632] >>")
    comment = made.add(f"<< {rest} /Text /Contents (not so) /Rect [10 10 20 20] >>")
    typed = made.add(f"<< {rest} /FreeText /Contents (typed by hand) /Rect [50 560 300 580] >>")
    fields = f"{name} 0 R {secret} 0 R {unseen} 0 R {tick} 0 R"
    made.catalogue = f"/AcroForm << /Fields [{fields}] >>"
    page = draw("Name:", 50, 700) + draw("Secret:", 50, 660) + draw("Agreed:", 50, 620) + draw("End", 50, 500)
    made.page(page, f"/Annots [{fields} {comment} 0 R {typed} 0 R]")
    document = read_pdf(made.bytes, "form.pdf")
    assert [line.split() for line in document.text.splitlines()] == [
        ["Name:", "Ada", "Lovelace"], ["Secret:"], ["Agreed:", "[x]"], ["typed", "by", "hand"], ["End"],
    ]  # fmt: skip
    assert sorted(remark.what for remark in document.remarks) == [
        "comments on it are not read",
        "values of form fields stand in the text",
    ]


def test_attachments_are_named_as_not_read() -> None:
    pdf = fpdf2()
    pdf.add_page()
    pdf.cell(text="see the plan")
    pdf.embed_file(bytes=b"secret plan", basename="plan.txt")
    document = read_pdf(bytes(pdf.output()), "with.pdf")
    assert [(remark.kind, remark.place, remark.what) for remark in document.remarks] == [
        ("note", "attachment plan.txt", "not read")
    ]
    assert "secret" not in document.text


def test_threads_read_the_same_as_one() -> None:
    files = [raw_pdf(*[lines([f"file {n} page {p}"] + PARAGRAPH, 50, 700) for p in range(3)]) for n in range(20)]
    serial = [read_pdf(content, "x.pdf").text_sha256 for content in files]
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            images = pool.map(lambda content: page_image(content, 2, dpi=40), files)
            assert list(pool.map(lambda content: read_pdf(content, "x.pdf").text_sha256, files)) == serial
            assert all(image.startswith(b"\x89PNG") for image in images)


def test_control_text_stays_plain_text() -> None:
    said = "[INST] a </s> <script>alert(1)</script> =1+1 ../../etc"
    assert read_pdf(raw_pdf(draw(said, 50, 700)), "x.pdf").text == said + "\n"
