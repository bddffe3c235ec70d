"""What is said of a document, and a slice of one."""

from programs.documents.document import Document, Heading, Page, Remark

SCAN = "no text: an image only"


def unread(*numbers: int) -> tuple[Remark, ...]:
    return tuple(Remark("unread", f"page {number}", SCAN, number) for number in numbers)


def pages(*lengths: int) -> tuple[Page, ...]:
    ends = [sum(lengths[: place + 1]) for place in range(len(lengths))]
    return tuple(Page(n, "", end - length, end) for n, (end, length) in enumerate(zip(ends, lengths, strict=True), 1))


def test_coverage_joins_neighbouring_pages_and_nothing_else():
    note = Remark("note", "page 4", "a picture is not read", 4)
    document = Document("a.pdf", "pdf", "", "x", pages(1, 0, 0, 0, 0, 0), (), (*unread(2, 3), note, *unread(4, 6)))
    assert document.coverage == (
        f"6 pages, not all of them read; pages 2-4: {SCAN}; page 6: {SCAN}; page 4: a picture is not read."
    )


def test_coverage_of_a_text_that_is_all_there():
    assert Document("a.txt", "text", "", "hello").coverage == "5 characters read."


def test_a_slice_keeps_what_belongs_to_it():
    text = "one\ntwo\nthree\n"
    document = Document(
        "a.pdf", "pdf", "", text, pages(4, 4, 6), (Heading(1, 0, 3), Heading(2, 4, 7)), (*unread(1), *unread(3))
    )
    part = document.slice(4, 10)
    assert part.text == "two\nth" and [page.number for page in part.pages] == [2, 3]
    assert part.page_at(0).number == 2 and part.page_at(5).number == 3
    assert [part.text[heading.start : heading.end] for heading in part.headings] == ["two"]
    assert [remark.page for remark in part.remarks] == [3]


def test_the_text_alone_makes_a_document_the_same():
    one, other = Document("a.txt", "text", "1", "same"), Document("b.md", "markdown", "2", "same")
    assert one.text_sha256 == other.text_sha256 != Document("a.txt", "text", "1", "other").text_sha256
