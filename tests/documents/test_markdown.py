"""Markdown: the source is the text, and its headings are found in it."""

import time

from programs.documents.document import Document
from programs.documents.readers.markdown import read_markdown


def read(text: str) -> Document:
    return read_markdown(text.encode(), "x.md")


def found(document: Document) -> list[tuple[int, str]]:
    return [(each.level, document.text[each.start : each.end]) for each in document.headings]


def test_the_text_is_the_source() -> None:
    source = "# Fees\n\nThe **fee** is [700](x).\n\n| a | b |\n|---|---|\n"
    assert read(source).text == source
    assert read(source.replace("\n", "\r\n")).text == source


def test_headings_of_both_forms_are_found_where_they_stand() -> None:
    text = "Fees\n====\n\n## Base `fee` ##\n\n> ### Quoted\n\n- #### In a list\n\nOf two\nlines\n---\n\n#\n"
    assert found(read(text)) == [(1, "Fees"), (2, "Base `fee`"), (3, "Quoted"), (4, "In a list"), (2, "Of two\nlines")]


def test_what_only_looks_like_a_heading_is_none() -> None:
    text = "```\n# a comment in code\n```\n\n    # and here\n\n#hashtag\n\n<!-- # -->\n\n\\# no\n"
    assert found(read(text)) == []


def test_a_large_file_and_deep_quotes_are_read_in_time() -> None:
    began = time.monotonic()
    document = read(
        "# Title\n\nsome words of text\n\n" * 20_000 + ">" * 50_000 + "x\n" + "[" * 50_000 + "\n" + "- " * 20_000
    )
    assert len(document.headings) == 20_000
    assert time.monotonic() - began < 20
