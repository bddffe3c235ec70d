"""A trace is billed once, whichever way a server counts it."""

import pytest

from programs.errors import ProgramError
from programs.eval.usage import Counts, Prices, settled_rule

PRICES = Prices(0.15, 0.015, 0.6)


def billed(counts: Counts) -> float:
    return PRICES.cost(counts.whole_prompt, counts.cached, counts.output(counts.rule))


def test_a_trace_within_the_completion_is_billed_once():
    counts = Counts(prompt=500, cached=400, completion=500, reasoning=200, total=1000)
    assert counts.rule == "inclusive" and counts.output(counts.rule) == 500
    assert billed(counts) == pytest.approx((100 * 0.15 + 400 * 0.015 + 500 * 0.6) / 1e6)


def test_a_trace_beside_the_completion_is_added_once():
    counts = Counts(prompt=500, cached=400, completion=500, reasoning=200, total=1200)
    assert counts.rule == "exclusive" and counts.output(counts.rule) == 700
    assert billed(counts) == pytest.approx((100 * 0.15 + 400 * 0.015 + 700 * 0.6) / 1e6)


@pytest.mark.parametrize(
    ("counts", "rule"),
    [
        (Counts(500, 500, 0, None, 1000), "unknown"),
        (Counts(500, 500, 0, 0, 1000), "unknown"),
        (Counts(500, 500, 0, 200, None), "unknown"),
        (Counts(500, 500, 0, 200, 1111), "unknown"),
        (Counts(500, 5, 0, 200, None), "exclusive"),
        (Counts(500, 200, 0, 200, 700), "inclusive"),
        (Counts(100, 500, 400, 200, 1000), "inclusive"),
        (Counts(100, 500, 400, 200, 1200), "exclusive"),
    ],
)
def test_the_rule_is_seen_or_said_to_be_unknown(counts: Counts, rule: str):
    assert counts.rule == rule


def test_cached_tokens_beside_the_prompts_never_make_a_negative_cost():
    for counts in (Counts(100, 500, 400, None, 1000), Counts(100, 500, 400), Counts(100, 500, 400, 200, 1200)):
        assert counts.whole_prompt == 500
        assert billed(counts) > 0
    assert Counts(500, 500, 400, None, 1000).whole_prompt == 500


def test_a_reply_that_shows_no_rule_follows_those_of_its_server_where_they_agree():
    inclusive, exclusive = Counts(1, 5, 0, 2, 6), Counts(1, 5, 0, 2, 8)
    silent = Counts(1, 5, 0, 2)
    assert settled_rule([exclusive, silent]) == ("exclusive", {"exclusive": 1, "unknown": 1})
    assert settled_rule([inclusive, silent])[0] == "inclusive"
    assert settled_rule([inclusive, exclusive, silent])[0] == "unknown"
    assert settled_rule([silent]) == ("unknown", {"unknown": 1})


def test_prices_are_three_numbers_or_one_sentence():
    assert Prices.parse("0.15, 0.015,0.6") == PRICES
    for text in ("1,2", "1,2,3,4", "a,b,c", "-1,2,3", "nan,1,1", "inf,1,1", ""):
        with pytest.raises(ProgramError, match="are not three numbers"):
            Prices.parse(text)
