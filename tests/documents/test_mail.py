"""E-mail: headers and text come out in the right letters once, and attachments are told."""

import base64
from email import policy
from email.message import EmailMessage

import pytest

from programs.documents.document import Document, ReadError
from programs.documents.readers.mail import read_mail

PARAGRAPH = "Die Gebühr beträgt 2.150 € und wird für Größe fällig."


def read(content: bytes) -> Document:
    return read_mail(content, "mail.eml")


def raw(headers: str, body: bytes) -> bytes:
    return b"From: Ann <ann@example.org>\nSubject: Fees\nMIME-Version: 1.0\n" + headers.encode() + b"\n\n" + body


HEADERS = "From: Ann <ann@example.org>\nSubject: Fees\n\n"


def test_quoted_printable_in_latin_1_is_decoded_once() -> None:
    body = b"Die Geb=FChr betr=E4gt 700=20EUR=\n, immer =3D gleich."
    headers = "Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: quoted-printable"
    document = read(raw(headers, body))
    assert document.text == HEADERS + "Die Gebühr beträgt 700 EUR, immer = gleich.\n"
    assert document.remarks == ()


def test_base64_in_utf_8_is_decoded() -> None:
    message = EmailMessage()
    message["From"], message["Subject"] = "Ann <ann@example.org>", "Fees"
    message.set_content(PARAGRAPH, cte="base64")
    document = read(message.as_bytes())
    assert document.text == HEADERS + PARAGRAPH + "\n"


@pytest.mark.parametrize("charset", ["koi8-r", "shift_jis", "utf-16", "windows-1252"])
def test_each_part_is_read_in_its_own_charset(charset: str) -> None:
    words = {"koi8-r": "плата", "shift_jis": "手数料"}.get(charset, "Gebühr")
    headers = f"Content-Type: text/plain; charset={charset}\nContent-Transfer-Encoding: base64"
    assert read(raw(headers, base64.b64encode(words.encode(charset)))).text == HEADERS + words + "\n"


def test_an_unknown_charset_is_guessed_and_told() -> None:
    headers = "Content-Type: text/plain; charset=x-no-such\nContent-Transfer-Encoding: 8bit"
    document = read(raw(headers, PARAGRAPH.encode("cp1252")))
    assert PARAGRAPH in document.text
    assert "it says it is x-no-such, which does not fit; its encoding was guessed as cp1252" in document.coverage


def test_the_text_is_read_and_its_html_twin_is_not() -> None:
    message = EmailMessage()
    message["Subject"] = "Fees"
    message.set_content("The fee is 700.")
    message.add_alternative("<p>The fee is <b>700</b> in HTML.</p>", subtype="html")
    assert read(message.as_bytes()).text == "Subject: Fees\n\nThe fee is 700.\n"


@pytest.mark.parametrize(("plain", "seen"), [("Please see the HTML version.", False), ("Total: 1,450.00 (Rent)", True)])
def test_a_plain_text_that_only_points_at_the_html_is_not_read_for_it(plain: str, seen: bool) -> None:
    message = EmailMessage()
    message["Subject"] = "Bill"
    message.set_content(plain)
    message.add_alternative("<table><tr><td>Rent<td>1,450.00<tr><td>Total<td>1,450.00</table>", subtype="html")
    message.get_payload(1).add_related(b"x", maintype="image", subtype="png", cid="<logo>")  # type: ignore[union-attr]
    document = read(message.as_bytes())
    assert (plain in document.text) is seen
    assert ("Rent\t1,450.00\nTotal\t1,450.00" in document.text) is not seen
    assert [remark.what for remark in document.unread] == ["it is not read (image/png)"]


@pytest.mark.parametrize("charset", ["iso-8859-1", "koi8-r", "x-unknown"])
def test_a_header_in_bare_bytes_is_read_as_the_text_is(charset: str) -> None:
    words, encoding = ("плата", "koi8-r") if charset == "koi8-r" else ("café", "cp1252")
    body = f"{words} {words}, {words}. {PARAGRAPH if encoding == 'cp1252' else ''}".encode(encoding)
    content = (
        b"Subject: " + words.encode(encoding) + f"\nContent-Type: text/plain; charset={charset}\n\n".encode() + body
    )
    assert read(content).text.startswith(f"Subject: {words}\n\n{words}")


@pytest.mark.parametrize("plain", [None, "\n \n"])
def test_html_is_read_where_there_is_no_text_beside_it(plain: str | None) -> None:
    message = EmailMessage()
    message["Subject"] = "Fees"
    if plain is not None:
        message.set_content(plain)
        message.add_alternative("<h1>New fee</h1><p>It is 700.</p><p hidden>It is 9.</p>", subtype="html")
    else:
        message.set_content("<h1>New fee</h1><p>It is 700.</p><p hidden>It is 9.</p>", subtype="html")
    document = read(message.as_bytes())
    assert document.text == "Subject: Fees\n\nNew fee\n\nIt is 700.\n"
    assert [document.text[each.start : each.end] for each in document.headings] == ["Fees", "New fee"]
    assert [remark.text for remark in document.of_kind("hidden")] == ["It is 9."]


def test_attachments_are_told_by_name_and_not_read() -> None:
    message = EmailMessage()
    message["Subject"] = "Fees"
    message.set_content("See the plan.")
    message.add_attachment(b"%PDF-1.7 secret", maintype="application", subtype="pdf", filename="Plän.pdf")
    message.add_attachment("a,b\n1,2\n", subtype="csv", filename="fees.csv")
    message.add_attachment(b"x", maintype="image", subtype="png", filename="evil\x1b[31m.png")
    document = read(message.as_bytes())
    assert document.text == "Subject: Fees\n\nSee the plan.\n"
    places = [remark.place for remark in document.unread]
    assert places[:2] == ["attachment Plän.pdf", "attachment fees.csv"] and "\x1b" not in places[2]


def test_a_forwarded_message_is_read_with_its_headers() -> None:
    inner = EmailMessage()
    inner["From"], inner["Subject"] = "Bob <bob@example.org>", "Old fees"
    inner.set_content("It was 500.")
    outer = EmailMessage()
    outer["Subject"] = "Fw: Old fees"
    outer.set_content("See below.")
    outer.add_attachment(inner)
    document = read(outer.as_bytes())
    assert document.text == (
        "Subject: Fw: Old fees\n\nSee below.\n\n\nFrom: Bob <bob@example.org>\nSubject: Old fees\n\nIt was 500.\n"
    )
    assert [(each.level, document.text[each.start : each.end]) for each in document.headings] == [
        (1, "Fw: Old fees"),
        (2, "Old fees"),
    ]


def test_headers_are_decoded_whatever_they_are_written_in() -> None:
    encoded = b"Subject: =?utf-8?Q?Geb=C3=BChr_?= =?iso-8859-1?Q?f=FCr?= Omar\n\nx"
    assert read(encoded).text.startswith("Subject: Gebühr für Omar\n")
    assert read("Subject: Gebühr\n\nx".encode()).text.startswith("Subject: Gebühr\n")
    assert read(b"Subject: =?no-such?Q?x?= \x1b[31m\n\nx").text.startswith("Subject: ")
    assert read(b"Subject: one\n two\n\nx").text.startswith("Subject: one two\n")


def test_crlf_and_a_part_without_its_end_are_read() -> None:
    body = b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nThe fee is 700.\r\n'
    assert read(b"Subject: Fees\r\n" + body).text == "Subject: Fees\n\nThe fee is 700.\n"


def test_a_message_nested_without_end_and_one_with_a_hundred_thousand_addresses_end() -> None:
    nested = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(2_000))
    with pytest.raises(ReadError, match=r"^'mail.eml' has too many"):
        read(b"Subject: x\n" + nested + b"\n\ntext")
    many = ", ".join(f'"Person {number}" <p{number}@example.org>' for number in range(100_000))
    assert "Person 1" in read(f"To: {many}\nSubject: x\n\ntext".encode()).text


def test_what_is_no_message_is_refused() -> None:
    with pytest.raises(ReadError, match=r"^'mail.eml' is no e-mail"):
        read(b"\n\n\n")


def test_a_message_as_outlook_writes_it_is_read() -> None:
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["Subject"] = "Ann <ann@example.org>", "Größe"
    message.set_content(PARAGRAPH, charset="iso-8859-15", cte="quoted-printable")
    assert read(message.as_bytes()).text == f"From: Ann <ann@example.org>\nSubject: Größe\n\n{PARAGRAPH}\n"
