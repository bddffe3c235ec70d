"""Bytes to text: the right letters, told where they are a guess, and never letters made of other bytes."""

import os

import pytest

from programs.documents.document import ReadError
from programs.documents.readers.text import read_text

ENGLISH = "The café’s façade cost €2,150 — naïve, said the Zürich office’s résumé in “March”."
GERMAN = "Die Gebühr beträgt 2.150 € und wird für Größe, Straße, Übung und Ärger fällig."
FRENCH = "Les élèves ont été reçus à l’école où le père de Noël a payé 300 francs pour la façade."
SPANISH = "El señor Muñoz pagó la señal; ¿cuándo llegará la compañía a la reunión del miércoles?"
DANISH = "Gebyret på 2150 kroner skal betales i Århus, også når kunden rejser på ferie i sommerhuset på øen."
POLISH = "Opłata wynosi 2150 złotych i będzie płatna w czwartek, źródło i ćwierć są w załączniku."
RUSSIAN = "Плата составляет 2150 рублей и должна быть внесена до первого марта, иначе договор считается расторгнутым."
GREEK = "Το τέλος είναι 2150 ευρώ και πρέπει να καταβληθεί μέχρι την πρώτη Μαρτίου."
JAPANESE = (
    "手数料は二千百五十円であり、三月一日までに支払わなければならない。そうでない場合、契約は解除されたものとみなす。"
)
CHINESE = "费用为二千一百五十元，应在三月一日之前支付，否则合同视为解除。双方应当遵守本协议的规定。"
KOREAN = "수수료는 이천백오십 원이며 삼월 일일까지 지불해야 합니다. 그렇지 않으면 계약이 해지된 것으로 간주합니다."
ALL = [ENGLISH, GERMAN, FRENCH, POLISH, RUSSIAN, GREEK, JAPANESE, CHINESE, KOREAN]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ALL)
def test_unicode_is_read_with_and_without_its_mark(text: str, encoding: str) -> None:
    document = read_text(text.encode(encoding), "x.txt")
    assert (document.text, document.remarks) == (text, ())


def test_utf_16_with_a_mark_is_read_in_either_order() -> None:
    assert read_text(b"\xff\xfe" + GERMAN.encode("utf-16-le"), "x").text == GERMAN
    assert read_text(b"\xfe\xff" + GERMAN.encode("utf-16-be"), "x").text == GERMAN


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "cp1252"),
        (GERMAN, "cp1252"),
        (GERMAN, "iso-8859-15"),
        (GERMAN, "cp850"),
        (FRENCH, "cp1252"),
        (FRENCH, "mac_roman"),
        (SPANISH, "cp1252"),
        (DANISH, "cp1252"),
        (POLISH, "cp1250"),
        (POLISH, "iso-8859-2"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (RUSSIAN, "cp866"),
        (GREEK, "cp1253"),
        (JAPANESE, "shift_jis"),
        (JAPANESE, "euc-jp"),
        (CHINESE, "gb18030"),
        (KOREAN, "euc-kr"),
    ],
)
def test_other_encodings_are_guessed_and_told(text: str, encoding: str) -> None:
    text = text.replace("€", "EUR") if encoding in ("cp850",) else text
    document = read_text(text.encode(encoding), "x.txt")
    assert document.text == text
    assert len(document.remarks) == 1 and "its encoding was guessed as" in document.remarks[0].what
    assert document.remarks[0].kind == "note"


def test_a_few_foreign_letters_in_much_ascii_are_guessed_by_their_lines() -> None:
    text = "nothing but ASCII here\n" * 20_000 + "the naïve café charges 20 °C at 5 µm, § 4\n" + "and here\n" * 20_000
    assert read_text(text.encode("cp1252"), "x.txt").text == text


def test_japanese_of_iso_2022_is_read_and_a_terminals_colours_stay_as_they_are() -> None:
    assert read_text(JAPANESE.encode("iso2022_jp"), "x").text == JAPANESE
    assert read_text(b"\x1b[31mred\x1b[0m ascii", "x").text == "\x1b[31mred\x1b[0m ascii"


@pytest.mark.parametrize("stray", [b"\xff", b"\xc3", b"\x80"])
def test_a_stray_byte_costs_one_character_and_is_told(stray: bytes) -> None:
    document = read_text(GERMAN.encode() + stray + b" " + FRENCH.encode(), "x.txt")
    assert document.text == f"{GERMAN}\ufffd {FRENCH}"
    assert [(each.kind, each.what) for each in document.remarks] == [
        ("doubtful", "one damaged character was read as \ufffd")
    ]


def test_damage_in_many_places_is_no_other_encoding() -> None:
    damaged = b"\xff".join(word.encode() for word in (GERMAN * 8).split(" Gr")) + RUSSIAN.encode()
    document = read_text(damaged, "x.txt")
    assert RUSSIAN in document.text and document.text.count("\ufffd") == 8
    assert [each.what for each in document.remarks] == ["8 damaged characters were read as \ufffd"]


@pytest.mark.parametrize(
    "content", [os.urandom(5_000), bytes(5_000), b"text\x00with\x00zeros" * 20, b"\xff\xfe" + os.urandom(5_001)]
)
def test_bytes_that_are_no_text_are_refused(content: bytes) -> None:
    with pytest.raises(ReadError, match=r"^'x\.bin' is "):
        read_text(content, "x.bin")


def test_line_ends_are_one_and_nul_is_none() -> None:
    assert read_text(b"a\r\nb\rc\nd\x00", "x").text == "a\nb\nc\nd"
