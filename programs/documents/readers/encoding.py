"""Bytes to text: what a byte order mark, the bytes themselves or the file say, else a guess that is told as one.

A wrong single-byte guess never fails, it only gives wrong letters; so UTF-8 and UTF-16 are tried first, by rules that
other text does not meet, and what is no text is refused.
"""

import codecs
import re
from dataclasses import dataclass

import charset_normalizer

from programs.documents.document import ReadError, Remark

FORMATS = "PDF, DOCX, HTML, EPUB, e-mail, Markdown or other text"
SAMPLE = 1 << 16  # bytes of the lines that are not ASCII which a guess looks at

MARKS = (  # byte order marks; UTF-32's first, because UTF-16's is its beginning
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What a name on the web means (https://encoding.spec.whatwg.org/#names-and-labels): the larger relative of each.
WIDER = {"ascii": "cp1252", "iso8859-1": "cp1252", "shift_jis": "cp932", "gb2312": "gb18030", "gbk": "gb18030"}
WIDER |= {"euc_kr": "cp949", "iso8859-9": "cp1254", "tis-620": "cp874"}
# Codecs that are no encodings of documents, or whose decoding is slow on hostile input.
NOT_TEXT = {"idna", "punycode", "unicode_escape", "raw_unicode_escape", "utf-7", "undefined", "mbcs", "oem"}
# Bytes that no text holds: control characters, less backspace, tab, line ends, form feed and escape.
CONTROL = bytes([*range(0x08), *range(0x0E, 0x1B), *range(0x1C, 0x20)])
# Single-byte encodings of Latin letters, the likeliest first, with the letters beyond ASCII that their languages use:
# the detector knows them apart by little, and takes German for Polish.
WESTERN = "àâäáãåæçèéêëìíîïñòóôöøœùúûüÿµ"
CENTRAL = "ąćęłńóśźżáčďéěíňřšťúůýžöőüűäĺľŕôşţăâîđ"
ALPHABETS = {
    "cp1252": WESTERN,
    "cp1250": CENTRAL,
    "iso8859_2": CENTRAL,
    "cp1254": "çğıöşüâîû",
    "iso8859_15": WESTERN,
    "cp850": WESTERN,
    "cp852": CENTRAL,
    "mac_roman": WESTERN,
}
LATIN = re.compile(
    r"cp(125[0478]|437|85[0285]|775|86[0135]|037|500|1026|1140|273)|mac_(?!cyr|greek).*|hp_.*"
    r"|iso8859_(1|2|3|4|9|1[03-6])|latin_1"
)
CAPITALS = "".join(letter for letter in map(chr, range(0xC0, 0x180)) if letter.isupper())
LETTER = r"[^\W\d_]"
ODD = re.compile(
    rf"(?<={LETTER})[^\w\s'’.,:;/()\-\u2010-\u2014\u00ad@&](?={LETTER})"  # a sign within a word
    rf"|[¹²³ªº](?={LETTER})|(?<=[a-z])[{CAPITALS}](?=[a-z])|õ(?!e)|[\x80-\x9f¤¦¨´¸]"
)
MANY_BYTES = re.compile(r"cp9\d\d|gb.*|big5.*|euc.*|shift.*|iso2022.*|johab|hz|utf.*")
HALF_WIDTH = re.compile("[\uff61-\uff9f]")  # what single signs of Western text are in Shift-JIS
KANA_AND_STOPS = re.compile("[\u3001\u3002\u3040-\u30ff\uac00-\ud7a3\uff0c]")
EAST_ASIAN = re.compile("[\x20-\x7e\\s\u3000-\u30ff\u4e00-\u9fff\uac00-\ud7a3\uff01-\uffef\u2010-\u2027]")


@dataclass(frozen=True)
class Decoded:
    text: str
    remarks: tuple[Remark, ...] = ()


def decode(content: bytes, name: str, declared: str = "", place: str = "") -> Decoded:
    """The text of `content`, with "\\n" line ends and without NUL. `declared`: the encoding that the file names, kept
    to unless the bytes speak against it. Raises ReadError, which names `name`, for bytes that are no text."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return _replacing(content[len(mark) :], encoding, name, place)
    if encoding := _utf16(content):
        return _replacing(content, encoding, name, place)
    if len(content) - len(content.translate(None, CONTROL)) > max(1, len(content) // 1000):
        raise ReadError(f"{name!r} is of no format that is read: give {FORMATS}.")
    if b"\x1b$" in content or b"\x1b(J" in content:  # the escapes of ISO 2022, whose bytes are all ASCII
        try:
            return Decoded(one_line_end(content.decode("iso2022_jp_ext")))
        except UnicodeDecodeError:
            pass  # escapes of something else, such as a terminal's colours
    said = _known(declared)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        pass
    else:
        told = bool(declared) and said not in ("utf-8", "cp1252") and not content.isascii()
        note = Remark("note", place, f"it says it is {declared[:40]}, but its bytes are UTF-8 and were read as that")
        return Decoded(one_line_end(text), (note,) if told else ())
    if said not in ("", "utf-8") and (kept := _strict(content, said)) is not None:
        return Decoded(kept)
    if strays := _strays(content):
        return Decoded(one_line_end(content.decode("utf-8", "replace")), (_damaged(strays, place),))
    return _guessed(content, name, place, declared)


def one_line_end(text: str) -> str:
    """With "\\n" for each line end, and without NUL."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\x00", "")


def _replacing(content: bytes, encoding: str, name: str, place: str) -> Decoded:
    """Marked as `encoding`, so what does not decode is damage."""
    text = content.decode(encoding, "replace")
    damaged = text.count("\ufffd") - _own_replacements(content, encoding)
    if damaged > max(3, len(text) // 100):
        raise ReadError(f"{name!r} is damaged: it is marked as {encoding.upper()} text, and most of it is not.")
    return Decoded(one_line_end(text), (_damaged(damaged, place),) if damaged > 0 else ())


def _damaged(characters: int, place: str) -> Remark:
    said = "one damaged character was" if characters == 1 else f"{characters} damaged characters were"
    return Remark("doubtful", place, f"{said} read as \ufffd")


def _own_replacements(content: bytes, encoding: str) -> int:
    return content.decode(encoding, "ignore").count("\ufffd")


def _utf16(content: bytes) -> str:
    """The byte order of UTF-16 without a mark, or "": half the bytes of an alphabet's text are below 9, where no other
    text has bytes; East Asian text is known by its syllables and stops."""
    sample = content[: SAMPLE & ~1]
    if len(sample) < 4:
        return ""
    for encoding, high, low in (("utf-16-le", sample[1::2], sample[::2]), ("utf-16-be", sample[::2], sample[1::2])):
        if sum(byte < 9 for byte in high) > 0.6 * len(high) and sum(byte < 9 for byte in low) < 0.2 * len(low):
            return encoding if "\x00" not in sample[: len(sample) & ~1].decode(encoding, "replace") else ""
    if sample.isascii() or len(content) % 2 or len(sample) < 16:
        return ""
    for encoding in ("utf-16-le", "utf-16-be"):
        text = sample.decode(encoding, "replace")
        telling = len(KANA_AND_STOPS.findall(text))
        if telling > 0.03 * len(text) and len(EAST_ASIAN.findall(text)) > 0.95 * len(text):
            return encoding
    return ""


def _known(declared: str) -> str:
    """Python's name for a declared encoding, "" for one that is unknown or no text's."""
    try:
        name = codecs.lookup(declared.strip()).name if declared.strip().isascii() else ""
    except (LookupError, ValueError):
        return ""
    if name in NOT_TEXT or name.endswith(("_codec", "-codec", "hex", "base64", "uu", "zlib", "bz2", "rot13")):
        return ""
    return WIDER.get(name, name)


def _strict(content: bytes, encoding: str) -> str | None:
    """Decoded, or None where it does not fit; the five bytes that Windows-1252 leaves free are read as controls, as
    browsers do."""
    try:
        return one_line_end(content.decode(encoding))
    except UnicodeError:
        return one_line_end(content.decode("latin-1")) if encoding == "cp1252" else None


def _strays(content: bytes) -> int:
    """How many characters of UTF-8 with damaged places are lost; 0 where it is not UTF-8: too much is wrong for what is
    right, and bytes of other encodings are seldom right by chance."""
    text = content.decode("utf-8", "replace")
    lost = text.count("\ufffd") - content.count("\ufffd".encode())
    if lost > len(text) // 20 + 3:
        return 0
    right = sum(1 for character in text if character > "\x7f") - text.count("\ufffd")
    few = lost <= max(3, len(text) // 1000)
    return lost if right >= (lost if few else 5 * lost) else 0


def _guessed(content: bytes, name: str, place: str, declared: str) -> Decoded:
    lines = [line for line in content.split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:SAMPLE]
    # The second try takes text that looks unlikely in every encoding, such as a table of names.
    best = charset_normalizer.from_bytes(sample).best() or charset_normalizer.from_bytes(sample, threshold=0.5).best()
    if best is None:
        raise ReadError(f"{name!r} is not text in any encoding that is known: save it as UTF-8.")
    encoding = best.encoding
    letters = re.findall(rb"[A-Za-z\x80-\xff]", sample)
    mostly_ascii = sum(letter > b"\x7f" for letter in letters) <= 0.3 * len(letters)
    east_asian = MANY_BYTES.fullmatch(encoding) and not HALF_WIDTH.search(str(best))
    if LATIN.fullmatch(encoding) or (mostly_ascii and not east_asian):
        encoding = min((*ALPHABETS, encoding), key=lambda latin: _oddness(sample, latin))
    text = content.decode(encoding, "replace")
    said = f"it says it is {declared[:40]}, which does not fit; " if declared else ""
    note = Remark("note", place, f"{said}its encoding was guessed as {encoding}")
    return Decoded(one_line_end(text), (note,))


def _oddness(sample: bytes, encoding: str) -> float:
    """How many characters of Latin text, read so, are none of its languages' letters, or signs within words."""
    try:
        text = sample.decode(encoding)
    except UnicodeDecodeError:
        return float("inf")
    letters = ALPHABETS.get(encoding, WESTERN)
    odd = sum(1 for letter in text if letter > "\x7f" and letter.isalpha() and letter.lower() not in letters + "ß")
    return odd + 2 * len(ODD.findall(text))
