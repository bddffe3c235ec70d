"""E-mail: its headers, then its text; of a text and its HTML twin the text. Attachments are listed, not read."""

import hashlib
import re
from collections import Counter
from dataclasses import replace
from email import policy
from email.header import decode_header
from email.message import EmailMessage, Message
from email.parser import BytesParser

from programs.documents.document import Document, Heading, ReadError, Remark
from programs.documents.readers.encoding import decode
from programs.documents.readers.html import html_text

HEADERS = ("From", "To", "Cc", "Date", "Subject")
PARTS = 5_000  # of one message
NESTED = 30  # messages within messages, and parts within parts
HEADER_LIMIT = 100_000  # characters of one header
LACKING = 0.5  # of a message's words in HTML, from which on its plain text is none
SIGNATURES = {"application/pgp-signature", "application/pkcs7-signature", "application/x-pkcs7-signature"}


def read_mail(content: bytes, name: str) -> Document:
    """Raises ReadError for a message that has neither headers nor text, or too many parts."""
    try:
        message = BytesParser(EmailMessage, policy=policy.default).parsebytes(content)
    except RecursionError as error:
        raise ReadError(f"{name!r} has too many messages one within another: it is not read.") from error
    reader = _Mail(name)
    reader.message(message, 0)
    if not reader.text.strip():
        raise ReadError(f"{name!r} is no e-mail: it has neither headers nor text.")
    sha256 = hashlib.sha256(content).hexdigest()
    return Document(
        name, "mail", sha256, reader.text, headings=tuple(reader.headings), remarks=tuple(dict.fromkeys(reader.remarks))
    )


class _Mail:
    """What is read of a message so far."""

    def __init__(self, name: str):
        self._name = name
        self._parts = 0
        self._pieces: list[str] = []
        self._length = 0
        self.headings: list[Heading] = []
        self.remarks: list[Remark] = []

    @property
    def text(self) -> str:
        return "".join(self._pieces)

    def message(self, message: Message, depth: int) -> None:
        """A message's headers and what is in it."""
        level = 2 if self._length else 1
        self._put("\n\n" if self._length else "")
        for header in HEADERS:
            if value := _header(message, header, self._name):
                self._put(f"{header}: ")
                if header == "Subject":
                    self.headings.append(Heading(level, self._length, self._length + len(value)))
                self._put(f"{value}\n")
        self._part(message, depth)

    def _put(self, text: str) -> None:
        self._pieces.append(text)
        self._length += len(text)

    def _part(self, part: Message, depth: int, listed_only: bool = False) -> None:
        """A part's text, or only the names of what is attached in it."""
        self._parts += 1
        if self._parts > PARTS or depth > NESTED:
            raise ReadError(f"{self._name!r} has too many parts: it is not read.")
        kind = part.get_content_type()
        inside = part.get_payload() if part.is_multipart() else []
        children = [child for child in inside if isinstance(child, Message)] if isinstance(inside, list) else []
        attached = part.get_content_disposition() == "attachment" or part.get_filename() is not None
        if kind == "message/rfc822" and children:
            if not listed_only:
                self.message(children[0], depth + 1)
        elif kind == "multipart/alternative" and children:
            chosen = _preferred(children, self._name)
            for child in children:
                self._part(child, depth + 1, listed_only or child is not chosen)
        elif kind == "message/delivery-status":
            for child in children:
                self._put(
                    "\n" + "".join(f"{header}: {_header(child, header, self._name)}\n" for header in child.keys())
                )
        elif children:
            for child in children:
                self._part(child, depth + 1, listed_only)
        elif kind in SIGNATURES:
            pass
        elif attached or not (kind.startswith("text/") or kind.startswith("multipart/")):
            self._attachment(part, kind)
        elif not listed_only:
            self._body(part, kind)

    def _attachment(self, part: Message, kind: str) -> None:
        filename = (part.get_filename() or "").encode("utf-8", "replace").decode("utf-8")
        shown = "".join(character if character.isprintable() else "\ufffd" for character in filename)[:200]
        self.remarks.append(Remark("unread", f"attachment {shown or 'without a name'}", f"it is not read ({kind})"))

    def _body(self, part: Message, kind: str) -> None:
        payload = part.get_payload(decode=True)
        content = payload if isinstance(payload, bytes) else b""
        if any("Base64" in type(defect).__name__ for defect in part.defects):
            self.remarks.append(Remark("doubtful", "", "a part's Base64 is damaged, so some of it may be missing"))
        try:
            decoded = decode(content, self._name, part.get_content_charset("") or "", "a part of the message")
        except ReadError:
            self.remarks.append(Remark("unread", "", f"a part ({kind}) is no text and is not read"))
            return
        self.remarks += decoded.remarks
        text = decoded.text.strip("\n")
        self._put("\n")
        if kind == "text/html":
            text, headings, remarks = html_text(text, self._name)
            for found in headings:
                moved = replace(found, start=found.start + self._length, end=found.end + self._length)
                self.headings.append(moved)
            self.remarks += remarks
        self._put(text + "\n")


def _preferred(parts: list[Message], name: str) -> Message:
    """Of one text in several forms, the plain one, unless it lacks most of the words of the last, which senders hold
    for the best: programs write "see the HTML version" there."""
    readable = [part for part in parts if part.get_content_type() == "text/html" or part.is_multipart()]
    best = readable[-1] if readable else parts[-1]
    for part in parts:
        if part.get_content_type() == "text/plain" and part.get_content_disposition() != "attachment":
            words = _words(part, name)
            wanted = _words(best, name) if best is not part else Counter()
            if words and (wanted - words).total() <= LACKING * wanted.total():
                return part
    return best


def _words(part: Message, name: str) -> Counter[str]:
    """Those of the first text in a part, each without the signs around it."""
    text = next((each for each in part.walk() if each.get_content_maintype() == "text"), part)
    payload = text.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return Counter()
    try:
        said = decode(payload, name, text.get_content_charset() or "").text
    except ReadError:
        return Counter()
    if text.get_content_type() == "text/html":
        said, _, _ = html_text(said, name)
    return Counter(re.findall(r"\w+", said))


def _header(message: Message, header: str, name: str) -> str:
    """The value on one line: encoded words decoded, and bytes that are not ASCII by what they are."""
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == header.lower()), "")
    raw = " ".join(raw[:HEADER_LIMIT].split())
    try:
        if not raw.isascii():
            said = _bare(raw.encode("utf-8", "surrogateescape"), message, name)
        else:
            chunks = decode_header(raw)
            said = "".join(
                chunk if isinstance(chunk, str) else decode(chunk, name, charset or "").text
                for chunk, charset in chunks
            )
    except (ReadError, ValueError, LookupError):
        said = raw
    return " ".join(said.encode("utf-8", "replace").decode("utf-8").split())


def _bare(value: bytes, message: Message, name: str) -> str:
    """A header's bytes without a word about their encoding: UTF-8, or what the message's text is in; of so few bytes
    a guess says little, so it is made with the text."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        text = next((part for part in message.walk() if part.get_content_maintype() == "text"), message)
        body = text.get_payload(decode=True)
        both = value + b"\n" + (body if isinstance(body, bytes) else b"")
        return decode(both, name, text.get_content_charset() or "").text.partition("\n")[0]
