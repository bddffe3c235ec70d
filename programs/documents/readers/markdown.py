"""Markdown: its source is the text, so that every offset is one of the file; markdown-it finds the headings."""

import hashlib
from itertools import accumulate

from markdown_it import MarkdownIt

from programs.documents.document import Document, Heading
from programs.documents.readers.encoding import decode


def read_markdown(content: bytes, name: str) -> Document:
    """Raises ReadError for bytes that are no text."""
    decoded = decode(content, name)
    sha256 = hashlib.sha256(content).hexdigest()
    return Document(name, "markdown", sha256, decoded.text, headings=headings(decoded.text), remarks=decoded.remarks)


def headings(text: str) -> tuple[Heading, ...]:
    """Those of CommonMark, without their marks."""
    blocks = MarkdownIt("commonmark").disable("inline")  # what stands within a paragraph is not needed
    lines = text.split("\n")
    starts = [0, *accumulate(len(line) + 1 for line in lines)]
    tokens = blocks.parse(text)
    found = []
    for token, inline in zip(tokens, tokens[1:], strict=False):
        if token.type == "heading_open" and token.map and inline.content:
            first = inline.content.split("\n")[0]
            start = text.find(first, starts[token.map[0]], starts[token.map[1]])
            if start >= 0:
                end = starts[token.map[1]] if "\n" in inline.content else start + len(first)
                if "\n" in inline.content:  # a heading of several lines ends above its underline
                    last = inline.content.split("\n")[-1]
                    end = text.find(last, start + len(first), end) + len(last)
                found.append(Heading(int(token.tag[1:]), start, end))
    return tuple(found)
