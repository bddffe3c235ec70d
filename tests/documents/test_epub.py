"""EPUB: the pages of the spine in their order; what is protected or damaged is said."""

import io
import zipfile

import pytest

from programs.documents.document import ReadError
from programs.documents.readers.epub import read_epub
from tests.documents.make_files import epub, zipped

PAGES = {"one.xhtml": "<h1>One</h1><p>First &amp; best.</p>", "two.xhtml": "<h1>Two</h1><p>Second.</p><p hidden>x</p>"}


def data(member: str, method: str) -> str:
    return (
        f'<enc:EncryptedData><enc:EncryptionMethod Algorithm="{method}"/><enc:CipherData>'
        f'<enc:CipherReference URI="{member}"/></enc:CipherData></enc:EncryptedData>'
    )


def test_pages_come_in_the_spines_order_with_their_headings() -> None:
    document = read_epub(epub(PAGES, spine=("two.xhtml", "one.xhtml")), "book.epub")
    assert document.text == "Two\n\nSecond.\n\nOne\n\nFirst & best."
    assert [document.text[each.start : each.end] for each in document.headings] == ["Two", "One"]
    assert [(each.place, each.text) for each in document.of_kind("hidden")] == [("part two.xhtml", "x")]


def test_a_missing_page_is_told_and_the_others_are_read() -> None:
    packed = epub(PAGES, spine=("one.xhtml", "gone.xhtml", "two.xhtml"))
    document = read_epub(packed, "book.epub")
    assert "First" in document.text and "Second" in document.text
    assert [(each.place, each.what) for each in document.unread] == [("part gone.xhtml", "it is missing")]


def test_pages_that_are_encrypted_are_refused_and_fonts_that_are_scrambled_are_not() -> None:
    protected = epub(PAGES, encrypted=data("OEBPS/one.xhtml", "http://www.w3.org/2001/04/xmlenc#aes256-cbc"))
    with pytest.raises(ReadError, match=r"^'book.epub' is protected against copying \(DRM\)"):
        read_epub(protected, "book.epub")
    fonts = epub(PAGES, encrypted=data("OEBPS/font.otf", "http://www.idpf.org/2008/embedding"))
    assert "First" in read_epub(fonts, "book.epub").text


@pytest.mark.parametrize(
    "members",
    [
        {"META-INF/container.xml": "<container"},
        {"META-INF/container.xml": '<container><rootfile full-path="../../etc/passwd"/></container>'},
        {"META-INF/container.xml": '<container><rootfile full-path="a.opf"/></container>', "a.opf": "<package/>"},
        {"META-INF/container.xml": '<!DOCTYPE x [<!ENTITY a "b">]><container>&a;</container>'},
    ],
)
def test_damaged_books_are_refused_by_name(members: dict[str, str]) -> None:
    with pytest.raises(ReadError, match=r"^'book.epub' is damaged"):
        read_epub(zipped(members), "book.epub")


def test_what_a_books_style_sheet_hides_is_left_out_and_said() -> None:
    page = '<link rel="{}" type="text/css" href="styles/my%20book.css"/><p class="h">The fee is 9.</p><p>Seen.</p>'
    for rel, hidden in (("stylesheet", ["The fee is 9."]), ("alternate stylesheet", []), ("icon", [])):
        packed = io.BytesIO(epub({"one.xhtml": page.format(rel), "two.xhtml": '<p class="h">Not hidden here.</p>'}))
        with zipfile.ZipFile(packed, "a") as archive:
            archive.writestr("OEBPS/styles/my book.css", ".h { display: none }")
        document = read_epub(packed.getvalue(), "book.epub")
        assert [remark.text for remark in document.of_kind("hidden")] == hidden
        assert ("The fee is 9." in document.text) is (not hidden)
        assert document.text.endswith("Seen.\n\nNot hidden here.")


def test_a_style_sheet_that_is_missing_or_no_text_hides_nothing() -> None:
    page = '<link rel="stylesheet" href="gone.css"/><p class="h">Seen.</p>'
    assert read_epub(epub({"one.xhtml": page}), "book.epub").text == "Seen."
    packed = io.BytesIO(epub({"one.xhtml": page}))
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("OEBPS/gone.css", b"\x00\x01\x02\x03" * 400)
    assert read_epub(packed.getvalue(), "book.epub").text == "Seen."
