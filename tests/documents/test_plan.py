"""Documents in parts: nothing lost, nothing above the room, cut where the text ends something."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from programs.documents.document import Document, Heading, Page
from programs.documents.plan import EVIDENCE, Budget, Planned, parts_of
from programs.documents.question import Question
from programs.errors import ProgramError


def words(text: str) -> int:
    return len(text.split())


def document(text: str, headings=(), pages=()) -> Document:
    return Document("a.txt", "text", "", text, tuple(pages), tuple(headings))


def paragraphs(count: int, each: int = 20) -> str:
    return "\n\n".join(f"p{number} " + "word " * (each - 2) + "end." for number in range(count))


def test_what_fits_goes_in_whole():
    text = paragraphs(10)
    (part,) = parts_of(document(text), 200, 20, words)
    assert (part.start, part.end, part.number, part.of) == (0, len(text), 1, 1)


def test_parts_cover_the_text_overlap_and_stay_within_the_room():
    text = paragraphs(40)
    parts = parts_of(document(text), 200, 40, words)
    assert parts[0].start == 0 and parts[-1].end == len(text)
    for before, after in zip(parts, parts[1:], strict=False):
        assert before.start < after.start <= before.end < after.end
        assert 20 <= words(text[after.start : before.end]) <= 40
    assert all(words(text[part.start : part.end]) <= 200 for part in parts)
    assert [part.number for part in parts] == list(range(1, len(parts) + 1)) and {part.of for part in parts} == {
        len(parts)
    }


def test_a_part_ends_before_a_heading_that_is_near():
    text = paragraphs(40)
    start = text.index("p9 ")
    parts = parts_of(document(text, [Heading(1, start, start + 2)]), 220, 0, words)
    assert parts[0].end == start


def test_a_part_ends_with_a_page_where_no_heading_is_near():
    text = paragraphs(40)
    end = text.index("p8 ")
    parts = parts_of(document(text, pages=[Page(1, "", 0, end), Page(2, "", end, len(text))]), 200, 0, words)
    assert parts[0].end == end


def test_paragraphs_are_not_broken_where_they_fit():
    text = paragraphs(40)
    assert all(text[part.start :].startswith("p") for part in parts_of(document(text), 210, 30, words))


def test_a_line_without_any_border_is_still_cut():
    text = "x" * 100_000
    parts = parts_of(document(text), 5000, 100, len)
    assert parts[-1].end == len(text) and all(part.end - part.start <= 5000 for part in parts)


def test_a_last_piece_above_the_room_ends_the_parts():
    text = "a b\n" + "word " * 300 + "\n"
    parts = parts_of(document(text), 10, 2, words)
    assert parts[-1].end == len(text) and all(part.start < part.end for part in parts)


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="ab .\n。", max_size=3000), st.integers(1, 400), st.integers(0, 300))
def test_any_text_is_covered_by_parts_that_go_forward(text, room, overlap):
    parts = parts_of(document(text), room, overlap, len)
    assert parts[0].start == 0 and parts[-1].end == len(text)
    for before, after in zip(parts, parts[1:], strict=False):
        assert before.start < after.start <= before.end < after.end


def test_a_context_without_room_is_named():
    with pytest.raises(ProgramError, match="leaves no room"):
        Budget(4096, 4096, 1024).room([Question(question="Why?", effort="high")], words)


def test_a_trace_takes_room_only_where_one_is_wanted():
    budget = Budget(40_000, 20_000, 1024)
    quick, deep = (budget.room([Question(question="Why?", effort=effort)], words) for effort in ("none", "high"))
    assert quick - deep == 20_000 - 3 * EVIDENCE


def test_the_expected_cache_share_is_of_the_documents_prompts():
    part = parts_of(document(paragraphs(10)), 200, 0, words)
    planned = Planned("a.txt", part, 20)
    assert planned.requests == 40 and planned.prompt_tokens == 41 * 200 and planned.cached_tokens == 40 * 200
