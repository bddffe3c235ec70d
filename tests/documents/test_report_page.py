"""The report as a file: it holds everything once, loads nothing, and its policy lets nothing else run."""

import json
import re
from html.parser import HTMLParser

from programs.documents.document import Document
from programs.documents.report import render
from programs.documents.results import Results
from tests.documents.make_results import CONTRACT, answered, cited, made, one

HOSTILE = (
    "</script><script>alert(1)</script><!--<script> ]]> \x1b[31m \x00 \x9b \u202e \u2028 \ufeff \ufffe & \" ' "
    "\ud800 \U0001f600 <\r\n{{ 7*7 }}"
)


class Read(HTMLParser):
    """The tags of a page with their attributes, and the blocks of data by their id."""

    def __init__(self, results: Results) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.blocks: dict[str, str] = {}
        self._block = ""
        self.html = render(results)
        self.feed(self.html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._block = (dict(attrs).get("id") or "") if tag == "script" else ""

    def handle_data(self, data: str) -> None:
        if self._block:
            self.blocks[self._block] = self.blocks.get(self._block, "") + data


def hostile() -> Results:
    document = Document(f"{HOSTILE}.txt", "text", HOSTILE, HOSTILE)
    quote = cited(document, "alert", hint=HOSTILE)
    return one(document, answered(HOSTILE, None, quote, trace=HOSTILE, remarks=(HOSTILE,)))


def test_nothing_is_loaded_and_nothing_runs_but_the_one_script():
    for results in (made(), hostile()):
        read = Read(results)
        assert {tag for tag, _ in read.tags}.isdisjoint({"img", "link", "iframe", "object", "embed", "base"})
        links = [value for _, attributes in read.tags for name, value in attributes.items() if name in ("src", "href")]
        assert links and all(link and link.startswith("#doc=") for link in links)
        assert not [name for _, attributes in read.tags for name in attributes if name.startswith("on")]
        scripts = [attributes for tag, attributes in read.tags if tag == "script"]
        assert [attributes for attributes in scripts if attributes.get("type") != "application/json"] == [{}]
        [policy] = [tag["content"] for _, tag in read.tags if tag.get("http-equiv") == "Content-Security-Policy"]
        assert (
            policy and policy.startswith("default-src 'none';") and "unsafe" not in policy and "img-src" not in policy
        )


def test_each_text_stands_once_and_comes_back_as_it_was():
    read = Read(made())
    assert json.loads(read.blocks["text-0"]) == CONTRACT
    assert read.html.count("payable in ad-\\nvance by the customer") == 1
    assert json.loads(Read(hostile()).blocks["text-0"]) == HOSTILE


def test_the_file_holds_no_control_no_direction_and_no_lone_surrogate():
    html = Read(hostile()).html
    assert html.encode()
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe]", html)
    assert "{{ 7*7 }}" in html  # as text


def test_positions_count_as_javascript_does():
    text = "\U0001f600\U0001f600 a \ud83d\ude00 b \U00020000c"  # the pair in the middle is two characters in Python too
    document = Document("a.txt", "text", "", text)
    row = answered("x", None, *(cited(document, passage) for passage in ("a", "b", "c", "\U0001f600 a", "\U00020000")))
    citations = json.loads(Read(one(document, row)).blocks["data"])["rows"][0][0]["answer"]["citations"]
    units = text.encode("utf-16-le", "surrogatepass")
    found = [units[2 * each["start"] : 2 * each["end"]].decode("utf-16-le") for each in citations]
    assert found == ["a", "b", "c", "\U0001f600 a", "\U00020000"]


def test_the_same_results_are_the_same_page():
    assert render(made()) == render(made())
