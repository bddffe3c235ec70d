"""HTML: the text is what a browser shows; what a page hides is told and is not in it."""

import time

import pytest

from programs.documents.document import Document, ReadError
from programs.documents.readers.html import read_html


def read(html: str) -> Document:
    return read_html(html.encode(), "page.html")


def hidden(document: Document) -> str:
    return " | ".join(remark.text for remark in document.of_kind("hidden"))


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>One\n  two</p><p>three", "One two\n\nthree"),
        ("a<br>b<br><br>c", "a\nb\n\nc"),
        ("Fish &amp; chips &euro;5&nbsp;&mdash; &#x41;", "Fish & chips €5\u00a0— A"),
        ("the <a href='/x'>fee <b>is</b></a> 700", "the fee is 700"),
        ("re<wbr>spon&shy;sible", "respon\u00adsible"),
        ("<ul><li>a<li><p>b</p></ul>", "- a\n- b"),
        ("<ol start=3><li>c<li>d<ol type=a><li>x</ol></ol>", "3. c\n4. d\n  a. x"),
        ("<ol type=I reversed start=9><li>c<li value=4>d</ol>", "IX. c\nIV. d"),
        ("<table><tr><th>Name<th>Fee<tr><td><p>A</p><td><p>500</p><p>EUR</p></table>", "Name\tFee\nA\t500 EUR"),
        ("<table><tr><td>a<td><td>c</table>", "a\t\tc"),
        ("<table><tr><td>menu<td><h2>Title</h2><p>body</table>", "menu\n\nTitle\n\nbody"),
        ("<pre>\ndef f():\n    return 1\n\n\n# end\n</pre>after", "def f():\n    return 1\n\n\n# end\n\nafter"),
        ("10<sup>3</sup> m<sup>2</sup>, H<sub>2</sub>O, 1<sup>st</sup>", "10³ m², H₂O, 1st"),
        ("<input type=checkbox checked> yes <input type=checkbox> no", "☒ yes ☐ no"),
        ("<div>a</div><div>b</div>c", "a\nb\nc"),
        ("<dl><dt>Fee<dd>700</dl>", "Fee\n700"),
        ("<title>Terms</title><p>text", "Terms\n\ntext"),
        ("<title>Site: Terms</title><h1>Terms</h1><p>text", "Terms\n\ntext"),
        ("<svg><text>axis</text></svg><math><mi>x</mi><annotation>tex</annotation></math>", "axisx"),
    ],
)
def test_the_text_is_what_is_seen(html: str, text: str) -> None:
    assert read(html).text == text


def test_headings_are_found_where_they_stand() -> None:
    document = read("<h1>Fees &amp; terms</h1><p>text<h3> Base\n<i>fee</i> </h3><h2></h2><p>text")
    found = [(each.level, document.text[each.start : each.end]) for each in document.headings]
    assert found == [(1, "Fees & terms"), (3, "Base fee")]


SHEET = """<style>/* .plain { display: none } */ .off { DISPLAY : none }
.tab { display: none } .tab.on { display: block } #ghost { color: #fff } .dark { background: #012 }
@media print { .screen { display: none } } .pale { color: white } .note:hover { display: none }
.strong { display: block !important } p.later { display: none } p.later { display: block }
</style>"""


@pytest.mark.parametrize(
    "html",
    [
        "<p hidden>{}</p>",
        "<p style='display:none'>{}</p>",
        "<p style='color: red; Display: None !important'>{}</p>",
        "<div style='visibility:hidden'><p>{}</p></div>",
        "<p style='font-size:0'>{}</p>",
        "<p style='font: 1px Arial'>{}</p>",
        "<p style='opacity:0'>{}</p>",
        "<p style='color:#fff'>{}</p>",
        "<p style='color:rgb(254, 254, 254)'>{}</p>",
        "<p><font color=white>{}</font></p>",
        "<p style='color:transparent'>{}</p>",
        "<div style='background:black'><p style='color:#000'>{}</p></div>",
        "<p style='position:absolute;left:-9999px'>{}</p>",
        "<p style='text-indent:-9999px'>{}</p>",
        "<p style='height:0;overflow:hidden'>{}</p>",
        "<p style='position:absolute;clip:rect(0,0,0,0)'>{}</p>",
        SHEET + "<p class=off>{}</p>",
        SHEET + "<p class=tab>{}</p>",
        SHEET + "<p id=ghost>{}</p>",
        SHEET + "<p class=pale>{}</p>",
        "<dialog>{}</dialog>",
    ],
)
def test_hidden_text_is_told_and_left_out(html: str) -> None:
    document = read("<p>The fee is 2,150.</p>" + html.replace("{}", "The true <b>fee</b> is 9."))
    assert document.text == "The fee is 2,150."
    assert hidden(document) == "The true fee is 9."


@pytest.mark.parametrize(
    "html",
    [
        "<p aria-hidden=true>{}</p>",
        "<p style='display:block; color:#777'>{}</p>",
        "<div style='visibility:hidden'><p style='visibility:visible'>{}</p></div>",
        "<div style='font-size:0'><p style='font-size:12px'>{}</p></div>",
        "<div style='background-color:#012'><p style='color:#fff'>{}</p></div>",
        "<table bgcolor=navy><tr><td><font color=white>{}</font></table>",
        "<div style='background: url(dark.png)'><p style='color:white'>{}</p></div>",
        "<div style='background: linear-gradient(red, blue)'><p style='color:white'>{}</p></div>",
        "<p style='opacity:0.6; text-indent:-20px; height:0'>{}</p>",
        SHEET + "<p class='plain screen note'>{}</p>",
        SHEET + "<p class='tab on'>{}</p>",
        SHEET + "<p class='later'>{}</p>",
        SHEET + "<p class=strong style='display:none'>{}</p>",
        SHEET + "<div class=dark><p class=pale>{}</p></div>",
        "<dialog open>{}</dialog>",
    ],
)
def test_text_that_is_seen_after_all_is_read(html: str) -> None:
    document = read(html.replace("{}", "The fee is 2,150."))
    assert (document.text, hidden(document)) == ("The fee is 2,150.", "")


def test_scripts_and_styles_are_no_text() -> None:
    document = read(
        "<script>var a = '<p>x</p>'</script><style>p {}</style><template><p>t</p></template><!-- c --><p>seen"
    )
    assert (document.text, document.remarks) == ("seen", ())


def test_pictures_and_frames_are_told_as_unread() -> None:
    document = read("<p>text<img src=a.png><img src=b.png><img src=dot.gif width=1 height=1><iframe src=x></iframe>")
    assert [remark.what for remark in document.unread] == ["a frame is not read", "2 pictures are not read"]


@pytest.mark.parametrize("charset", ["windows-1252", "shift_jis", "koi8-r", "utf-8", "ISO-8859-1"])
def test_the_charset_that_a_page_names_is_kept_to(charset: str) -> None:
    words = {"shift_jis": "手数料", "koi8-r": "плата"}.get(charset, "Gebühr é")
    page = f'<html><head><meta http-equiv="Content-Type" content="text/html; charset={charset}"></head><p>{words}'
    document = read_html(page.encode(charset), "page.html")
    assert (document.text, document.remarks) == (words, ())


def test_xhtml_elements_that_close_themselves_hold_nothing() -> None:
    head = '<?xml version="1.0"?><html><head><title/><script src="x"/></head>'
    assert read(head + '<body><a id="p1"/><p>text<br/>more</p></body></html>').text == "text\nmore"


def test_thousands_of_rows_and_nested_elements_are_read_in_time() -> None:
    began = time.monotonic()
    rows = "".join(f"<tr><td>{number}<td>b" for number in range(30_000))
    document = read(f"<table>{rows}</table>" + "<div>" * 5_000 + "deep" + "<ul><li>" * 2_000 + "<span>" * 2_000 + "end")
    assert document.text.startswith("0\tb\n1\tb\n") and "29999\tb\n\ndeep" in document.text
    assert time.monotonic() - began < 20


def test_a_page_nested_without_end_is_refused_at_once() -> None:
    began = time.monotonic()
    with pytest.raises(ReadError, match=r"^'page.html' has more than 10,000 elements one within another"):
        read("<div>" * 1_000_000 + "x")
    assert time.monotonic() - began < 10
    assert read("<div>x</div>" * 20_000).text.startswith("x\nx\n")


def test_a_style_sheet_that_would_take_hours_to_match_is_told_and_an_ordinary_one_is_matched() -> None:
    began = time.monotonic()
    costly = "<style>" + "b div div div p { display: none }" * 300 + "/*" * 100_000 + "</style>"
    document = read(costly + "<div>" * 1_000 + "<p>x</p>" * 100)
    assert [remark.what for remark in document.remarks] == [
        "what 300 of its style rules hide is read as if it were seen"
    ]
    assert read("<style>main div ul li b { display: none }</style><main><div><ul><li><b>x</b> y").text == "- y"
    assert time.monotonic() - began < 10


def test_readings_above_words_do_not_break_a_sentence() -> None:
    ruby = "<p><ruby>漢<rp>(</rp><rt>かん</rt><rp>)</rp>字<rt>じ</rt></ruby>の本</p>"
    document = read_html(f"<meta charset=utf-8>{ruby}".encode(), "page.html")
    assert document.text == "漢字の本"
    assert "ruby" in document.coverage
    assert "ruby" not in read_html("<meta charset=utf-8><p>漢字の本".encode(), "page.html").coverage
