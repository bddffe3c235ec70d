"""The table of figures says what was measured and whether it is enough."""

from typing import Any

import pytest

from launch.bench.figures import Row, nano_rows

ASKED = [
    ("sums of 3 to 5 two-digit numbers", "high", 490, 120.0),
    ("sums of 3 to 5 two-digit numbers", "none", 0, 4.0),
    ("sums of two numbers below 20", "none", 450, 3.0),
    *((f"question on a document of {n} tokens", "high", 480, 40.0) for n in ("500", "2,000", "4,000", "8,000")),
    *((f"not in the document, {n} tokens", effort, 490, 12.0) for n in ("500", "2,000") for effort in ("high", "none")),
    *(
        (f"question on a document of {n} tokens: said to be absent", effort, 5, 0.0)
        for n in ("500", "2,000")
        for effort in ("high", "none")
    ),
    ("is this sum right? yes or no", "high", 480, 90.0),
    *(("calculator call and its result", effort, 480, 30.0) for effort in ("high", "none")),
    ("sums, trace cut at random", "high", 100, 3.0),
    *((f"quote of the answered line, {n} tokens", "none", 460, 30.0) for n in ("500", "2,000", "4,000")),
    ("quotes nothing where the document does not answer, 500 tokens", "none", 490, 3.0),
]


def written(**changed: Any) -> dict[str, Any]:
    """What the evaluation writes; `changed` names a row's number and its count of right answers."""
    rows = [dict(zip(("name", "effort", "right", "tokens"), row, strict=True)) | {"count": 500} for row in ASKED]
    for number, right in changed.items():
        rows[int(number.removeprefix("row"))]["right"] = right
    return {"figures": rows, "wrong": []}


def missed(rows: list[Row]) -> list[str]:
    return [row.what for row in rows if row.met is False]


def test_all_targets_met():
    rows = list(nano_rows(written()))
    assert not missed(rows)
    assert rows[0] == Row("sums of 3 to 5 two-digit numbers, effort high", "at least 97 %", rows[0].measured, True)
    assert rows[0].measured.startswith("98.0 % of 500 (96.")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"row0": 484}, "sums of 3 to 5 two-digit numbers, effort high"),
        ({"row2": 439}, "sums of two numbers below 20, effort none"),
        ({"row3": 474}, "question on a document of 500 tokens, effort high"),
        ({"row11": 11}, "question on a document of 500 tokens: said to be absent, effort high"),
        ({"row20": 440}, "quote of the answered line, 2,000 tokens, effort none"),
    ],
)
def test_a_missed_target_is_named(change: dict[str, int], what: str):
    assert missed(list(nano_rows(written(**change)))) == [what]


def test_replies_at_none_that_are_too_long_are_a_missed_target():
    report = written()
    report["figures"][1]["tokens"] = 30.0
    assert missed(list(nano_rows(report))) == ["tokens of a reply to them, none and high"]


def test_what_has_no_target_is_only_reported():
    reported = [row.what for row in nano_rows(written()) if row.met is None]
    assert reported == [
        "sums of 3 to 5 two-digit numbers, effort none",
        "question on a document of 8,000 tokens, effort high",
        "quote of the answered line, 4,000 tokens, effort none",
        "quotes nothing where the document does not answer, 500 tokens, effort none",
        "sums, trace cut at random, effort high",
    ]
