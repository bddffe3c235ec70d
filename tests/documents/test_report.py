"""The report in a real browser: what a reader opens, filters, clicks and sees."""

import base64
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from programs.documents.document import Document, Page
from programs.documents.report import render
from programs.documents.results import Results
from tests.documents.make_results import CONTRACT, NOTICE, answered, cited, contract, made, one

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="the report's tests need playwright: pip install playwright"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="the report's tests need Chromium: apt-get install chromium")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
Open = Callable[..., "sync_api.Page"]


@pytest.fixture(scope="module")
def browser() -> Iterator["sync_api.Browser"]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def open_report(browser: "sync_api.Browser", tmp_path: Path) -> Iterator[Open]:
    """Opens results as a file, at a fragment. Whatever the page complains of or loads from outside its folder fails
    the test, and so does a load of anything but images."""
    complaints: list[str] = []
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    path = tmp_path / "report.html"

    def check(request: "sync_api.Request") -> None:
        image = request.resource_type == "image" and request.url.startswith(f"{tmp_path.as_uri()}/")
        if not image and request.url.partition("#")[0] != path.as_uri():
            complaints.append(request.url)

    def opened(results: Results, fragment: str = "") -> "sync_api.Page":
        path.write_bytes(render(results).encode())
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("request", check)
        page.goto(path.as_uri() + fragment)
        return page

    yield opened
    context.close()
    assert not complaints


def cell(page: "sync_api.Page", document: int, question: int) -> "sync_api.Locator":
    return page.locator(f"tr[data-d='{document}'] td[data-q='{question}'] a")


def chosen(page: "sync_api.Page") -> str:
    """The text that is highlighted as the chosen citation's, as the page holds it."""
    return "".join(page.locator("mark.current").evaluate_all("marks => marks.map(mark => mark.textContent)"))


def shown_in_viewer(page: "sync_api.Page", selector: str) -> bool:
    """Whether a part of the document is where the reader of the viewer sees it."""
    page.wait_for_timeout(100)
    return page.locator(selector).first.evaluate(
        """node => {
          const box = node.getBoundingClientRect();
          const frame = document.querySelector("#viewer .text").getBoundingClientRect();
          return box.height > 0 && box.top >= frame.top && box.top < frame.bottom;
        }"""
    )


def test_it_opens_from_a_file_and_shows_what_was_asked_found_and_spent(open_report: Open):
    page = open_report(made())
    header = page.locator("header").inner_text()
    for said in (
        "Contracts of March",
        "7,000",
        "90 % cached",
        "1 min 15 s",
        "supported 3",
        "unsupported 1",
        "failed 1",
    ):
        assert said in header
    assert cell(page, 0, 0).inner_text().startswith("2150")
    assert "'locked.pdf' needs a password." in page.locator("tr.unreadable").inner_text()


def test_unsupported_answers_say_so_and_supported_ones_do_not(open_report: Open):
    page = open_report(made())
    assert "unsupported, 0 of 2 quotes" in cell(page, 0, 1).inner_text()
    assert "unsupported" not in cell(page, 0, 0).inner_text()
    cell(page, 0, 1).click()
    assert "Nothing in the document is shown to support this answer." in page.locator("#detail").inner_text()
    cell(page, 0, 0).click()
    assert "Nothing in the document" not in page.locator("#detail").inner_text()


def test_not_in_the_document_comes_with_what_was_not_read(open_report: Open):
    page = open_report(made())
    assert "1 part not read" in cell(page, 0, 2).inner_text()
    assert "not read" not in cell(page, 1, 0).inner_text()
    cell(page, 0, 2).click()
    assert "page 3: no text: an image only" in page.locator("#detail .notice").inner_text()
    cell(page, 1, 0).click()
    assert page.locator("#detail .notice").count() == 0


def test_the_document_shows_its_pages_and_in_their_place_what_was_not_read(open_report: Open):
    page = open_report(made())
    page.locator("tbody th a").first.click()
    dividers = page.locator("#viewer .divider").all_inner_texts()
    assert dividers == [
        *("page 1, printed i", "page 2, printed ii", "page 3: not read: no text: an image only", "page 4, printed 1")
    ]
    assert "".join(page.locator("#viewer .chunk").all_text_contents()) == CONTRACT
    assert "page 3: no text: an image only" in page.locator("#viewer .coverage").inner_text()


def test_hidden_text_is_remarked_and_shown_only_on_request(open_report: Open):
    page = open_report(made())
    page.locator("tbody th a").first.click()
    remark = page.locator("#viewer .page[data-page='2'] .remark.hidden")
    assert "hidden" in remark.inner_text() and "the true fee is 9" not in page.locator("#viewer").inner_text()
    remark.locator("summary").click()
    assert "the true fee is 9" in remark.inner_text()


@pytest.mark.parametrize(("question", "citation", "number"), [(0, 0, 2), (0, 1, 2), (1, 0, 4), (3, 0, 1), (3, 1, 1)])
def test_a_click_on_a_citation_shows_exactly_its_source(open_report: Open, question: int, citation: int, number: int):
    results = made()
    page = open_report(results)
    cell(page, 0, question).click()
    page.locator(".citation").nth(citation).click()
    cited_there = results.rows[question].answer.citations[citation]
    assert chosen(page) == CONTRACT[cited_there.start : cited_there.end]
    assert page.locator("mark.current").first.evaluate("mark => mark.closest('.page').dataset.page") == str(number)
    assert shown_in_viewer(page, "mark.current")


def test_a_quote_that_is_not_there_leads_nowhere(open_report: Open):
    page = open_report(made())
    cell(page, 0, 1).click()
    absent = page.locator(".citation.absent")
    assert "not found in the document" in absent.inner_text() and absent.get_attribute("href") is None
    assert page.locator("mark").count() == 1  # of the other quote


def test_a_different_quote_shows_the_difference_and_a_folded_one_its_rules(open_report: Open):
    page = open_report(made())
    cell(page, 0, 1).click()
    different = page.locator(".citation.different")
    assert different.locator("blockquote del").all_inner_texts() == ["six"]
    assert different.locator("blockquote ins").all_inner_texts() == ["three"]
    assert "✓" not in different.inner_text()
    cell(page, 0, 0).click()
    assert "hyphen, white space" in page.locator(".citation.folded").inner_text()
    assert "page 2, printed ii, line 4" in page.locator(".citation.exact").inner_text()


def test_overlapping_citations_are_both_seen(open_report: Open):
    page = open_report(made())
    cell(page, 0, 3).click()
    both = page.locator("mark[data-citations='1 2']")
    assert both.text_content() == "the backup for ninety days"
    for citation in (0, 1, 0):
        page.locator(".citation").nth(citation).click()
        where = made().rows[3].answer.citations[citation]
        assert chosen(page) == CONTRACT[where.start : where.end]


def test_the_trace_is_there_on_request(open_report: Open):
    page = open_report(made())
    cell(page, 0, 1).click()
    assert "Six or three?" not in page.locator("#detail").inner_html()
    page.locator("details.trace summary").click()
    sync_api.expect(page.locator("details.trace")).to_contain_text("Six or three?")
    cell(page, 0, 0).click()
    assert page.locator("details.trace").count() == 0


def test_effort_confidence_and_cost_are_told(open_report: Open):
    page = open_report(made())
    cell(page, 0, 3).click()
    told = page.locator("#detail").inner_text()
    for said in ("0.93", "1,000", "900 (90 %)", "2 parts", "The first reply was no JSON; it was asked again."):
        assert said in told
    cell(page, 1, 2).click()
    assert "not given" in page.locator("#detail .cost").inner_text()


def visible(page: "sync_api.Page") -> list[str]:
    return [text.split("\n")[0] for text in page.locator("a.cell:visible").all_inner_texts()]


def test_filters_hide_what_does_not_match(open_report: Open):
    page = open_report(made())
    assert page.locator("a.cell:visible").count() == 8
    page.locator("#search").fill("HAMBURG")
    assert visible(page) == ["Hamburg"] and page.locator("tbody tr:visible").count() == 1
    page.locator("#search").fill("no such words")
    assert page.locator("tbody tr:visible").count() == 0
    page.locator("#search").fill("")
    page.locator("#by-document").select_option("1")
    assert page.locator("a.cell:visible").count() == 4 and page.locator("tr[data-d='0']:visible").count() == 0
    page.locator("#by-document").select_option("")
    page.locator("#by-question").select_option("1")
    assert visible(page) == ["Six months.", "The server answered 400 (Bad Request)."]
    page.locator("#by-question").select_option("")
    assert page.locator("a.cell:visible").count() == 8 and page.locator("tr.unreadable:visible").count() == 1


@pytest.mark.parametrize(
    ("standing", "count"), [("supported", 3), ("unsupported", 1), ("not found", 2), ("incomplete", 1), ("failed", 1)]
)
def test_a_state_can_be_filtered(open_report: Open, standing: str, count: int):
    page = open_report(made())
    page.locator(f"input[value='{standing}']").check(force=True)
    shown = page.locator("a.cell:visible")
    assert shown.count() == count == page.locator(f"a.cell.{standing.replace(' ', '-')}:visible").count()


def test_what_a_search_leaves_is_listed_under_its_question(open_report: Open):
    def height(row: int) -> float:
        return page.locator(f"tr[data-d='{row}']").bounding_box()["height"]

    page = open_report(made())
    page.locator("#search").fill("hamburg")
    asked = page.locator("td:visible").evaluate("cell => getComputedStyle(cell, '::before').content")
    assert asked == '"court: Which court is competent?"'
    assert height(1) < 200 and not page.locator("thead").is_visible()
    page.locator("#by-document").select_option("0")
    assert page.locator("a.cell:visible").count() == 0
    page.locator("#search").fill("")
    assert page.locator("a.cell:visible").count() == 4 and page.locator("thead").is_visible()


def test_the_next_answer_is_the_next_that_the_filters_leave(open_report: Open):
    page = open_report(made())
    page.locator("#by-question").select_option("2")
    cell(page, 0, 2).click()
    page.get_by_role("button", name="next").click()
    assert "manual.md" in page.locator("#detail h2").inner_text()
    assert "Hamburg" in page.locator("#detail .answer").inner_text()
    page.get_by_role("button", name="previous").click()
    assert page.locator("#detail .standing.not-found").count() == 1
    page.get_by_role("button", name="close").click()
    assert not page.locator("#viewer").is_visible()


def test_a_question_that_was_not_asked_yet_says_so(open_report: Open):
    page = open_report(made(rows=made().rows[:-1]))
    assert "not asked" in cell(page, 1, 3).inner_text() and "not asked 1" in page.locator("header").inner_text()
    cell(page, 1, 3).click()
    assert "not asked" in page.locator("#detail").inner_text()


def test_a_page_is_gone_to_by_its_number(open_report: Open):
    lines = "".join(f"Line {n}\n" for n in range(5000))
    ends = [lines.index(f"Line {n}\n") for n in range(1000, 5000, 1000)]
    pages = tuple(
        Page(n, "", *ends_of) for n, ends_of in enumerate(zip([0, *ends], [*ends, len(lines)], strict=True), 1)
    )
    page = open_report(one(Document("a.pdf", "pdf", "", lines, pages), answered("x")))
    cell(page, 0, 0).click()
    assert not shown_in_viewer(page, ".page[data-page='4'] .divider")
    page.get_by_label("Go to page").fill("4")
    page.keyboard.press("Enter")
    assert shown_in_viewer(page, ".page[data-page='4'] .divider")


@pytest.mark.parametrize("more", [{"documents": (), "rows": ()}, {"questions": (), "rows": ()}])
def test_a_job_without_documents_or_questions_opens_too(open_report: Open, more: dict):
    page = open_report(made(**more))
    assert "needs a password" in page.locator("tr.unreadable").inner_text()


def test_it_is_used_with_keys_alone(open_report: Open):
    page = open_report(made())
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "search"
    cell(page, 0, 0).focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowRight", "ArrowUp", "ArrowLeft"):
        page.keyboard.press(key)
    page.keyboard.press("Enter")
    assert "How long is the notice period?" in page.locator("#detail").inner_text()
    assert page.locator("#table a[tabindex='0']").count() == 1
    for _ in range(12):
        page.keyboard.press("Tab")
        if "citation" in page.evaluate("document.activeElement.className"):
            break
    page.keyboard.press("Enter")
    assert chosen(page) == "with three months' notice"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()


def test_a_link_opens_what_it_was_copied_from(open_report: Open):
    page = open_report(made())
    cell(page, 0, 0).click()
    page.locator(".citation").nth(1).click()
    fragment = page.evaluate("location.hash")
    other = open_report(made(), fragment)
    assert "What is the monthly fee?" in other.locator("#detail").inner_text()
    assert chosen(other) == "payable in ad-\nvance"
    other.go_back()
    unknown = open_report(made(), "#doc=nothing.pdf&q=fee")
    assert "does not hold what the address names" in unknown.locator("#detail").inner_text()
    assert not unknown.locator("#viewer").is_visible()


HOSTILE = (
    "</script></title></style><script>alert(1)</script><img src=x onerror=alert(2)><!-- \x1b[31mred\x9b0m \x00\x07 "
    "\u202eesrever \u2066 \u2028 \ufeff \ud800 \ufffe ]]> &amp; &lt; {{ 7*7 }} \"'>\njavascript:alert(3)"
)


def test_hostile_text_does_nothing_wherever_it_stands(open_report: Open):
    document = Document(f"{HOSTILE}.pdf", HOSTILE, HOSTILE, f"{HOSTILE}\nfee\n", remarks=contract().remarks)
    quote = cited(document, "fee", hint=HOSTILE, difference=(("quote", HOSTILE), ("source", HOSTILE)))
    answer = answered(HOSTILE, {HOSTILE: HOSTILE}, quote, trace=HOSTILE, effort=HOSTILE, remarks=(HOSTILE,))
    question = NOTICE.model_copy(update={"id": HOSTILE, "question": HOSTILE})
    results = one(document, answer, question)
    failed = one(document, None, question, HOSTILE)
    for shown in (
        results,
        made(documents=(document,), questions=(question,), rows=failed.rows, title=HOSTILE, model=HOSTILE),
    ):
        page = open_report(shown)
        cell(page, 0, 0).click()
        for summary in page.locator("#detail summary").all():
            summary.click()
        assert page.locator("img").count() == 0 and page.locator("script:not([type])").count() == 1
        text = page.locator("#viewer .chunk").evaluate_all("chunks => chunks.map(chunk => chunk.textContent).join('')")
        assert json.dumps(text).replace("\\ufffd", "\\ud800") == json.dumps(document.text)
        assert "onerror=alert(2)" in page.locator("#detail .notice, #detail .answer").first.inner_text()


def test_a_mark_that_turns_the_direction_turns_nothing_around_it(open_report: Open):
    def left(page: "sync_api.Page", word: str) -> float:
        return page.evaluate(
            """word => {
              const walker = document.createTreeWalker(document.querySelector("#viewer .text"), NodeFilter.SHOW_TEXT);
              while (walker.nextNode()) {
                const at = walker.currentNode.data.indexOf(word);
                if (at < 0) continue;
                const range = document.createRange();
                range.setStart(walker.currentNode, at);
                range.setEnd(walker.currentNode, at + word.length);
                return range.getBoundingClientRect().left;
              }
            }""",
            word,
        )

    page = open_report(one(Document("a.txt", "text", "", "Pay \u202eonly the fee.\nNext"), answered("x")))
    cell(page, 0, 0).click()
    assert left(page, "Pay") < left(page, "only") < left(page, "fee")
    assert page.locator("#viewer .control").get_attribute("data-code") == "U+202E"


def test_two_megabytes_are_open_at_the_passage_within_two_seconds(open_report: Open):
    text = "".join(f"Line {n} of a long document, with \U0001f600 and words.\n" for n in range(40_000))
    text = text.replace("Line 39000 ", "Line 39000: the needle ", 1)
    document = Document("long.txt", "text", "", text)
    page = open_report(one(document, answered("x", None, cited(document, "the needle of a long"))))
    fragment = cell(page, 0, 0).get_attribute("href")
    page.evaluate("fragment => { window.began = performance.now(); location.hash = fragment; }", f"{fragment}&c=1")
    seconds = page.evaluate(
        """() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() =>
          requestAnimationFrame(() => done((performance.now() - window.began) / 1000)))))"""
    )
    assert chosen(page) == "the needle of a long" and shown_in_viewer(page, "mark.current")
    assert page.locator("#viewer .text").evaluate("node => node.textContent.length") == len(text) + 40_000
    assert seconds < 2


def test_a_text_without_lines_or_spaces_is_shown_whole(open_report: Open):
    text = "\U00020000" * 30_000 + "針" + "a" * 200_000
    document = Document("line.txt", "text", "", text)
    page = open_report(one(document, answered("x", None, cited(document, "\U00020000針a"))))
    cell(page, 0, 0).click()
    page.locator(".citation").click()
    assert chosen(page) == "\U00020000針a"
    assert "".join(page.locator("#viewer .chunk").all_text_contents()) == text


def test_a_passage_over_a_page_break_is_marked_on_both_pages(open_report: Open):
    page = open_report(made())
    cell(page, 0, 3).click()
    page.locator(".citation").nth(1).click()
    pages = page.locator("mark.current").evaluate_all("marks => marks.map(mark => mark.closest('.page').dataset.page)")
    assert set(pages) == {"1", "2"}


PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize(
    "name",
    [
        *("pages/1-page-3.png", "pages/1 #?%: ü.png"),
        *("//127.0.0.1:9/x.png", "http://127.0.0.1:9/x.png", "javascript:alert(1)"),  # files of these names, no more
    ],
)
def test_the_image_of_an_unread_page_stands_in_its_place(open_report: Open, tmp_path: Path, name: str):
    file = tmp_path / name.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(PICTURE)
    page = open_report(made(page_images={contract().name: (name,)}))
    page.locator("tbody th a").first.click()
    image = page.locator(".page[data-page='3'] img")
    image.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.page img').complete")
    assert image.evaluate("image => image.naturalWidth") == 1


def test_images_that_fit_no_page_are_all_shown(open_report: Open, tmp_path: Path):
    (tmp_path / "a.png").write_bytes(PICTURE)
    page = open_report(made(page_images={contract().name: ("a.png", "a.png")}))
    page.locator("tbody th a").first.click()
    assert page.locator("#viewer .text > a.image").count() == 2


def test_paper_shows_every_answer_with_its_evidence_and_coverage(open_report: Open):
    page = open_report(made())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    printed = page.locator("body").inner_text()
    for said in ("2150", "The supplier answers within one hour.", "page 3: no text: an image only", "needs a password"):
        assert said in printed
    assert "Search" not in printed
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("#print").inner_text() == ""
