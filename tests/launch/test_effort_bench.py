"""The figures of effort compare what they say they compare."""

from dataclasses import replace

import pytest

from launch.bench.dial import (
    FORMS,
    Asked,
    Removed,
    Reply,
    Routed,
    differences,
    easy_and_hard,
    majority,
    sums_of_six,
)
from launch.bench.effort import after_the_first, points
from launch.bench.figures import SOURCES
from launch.bench.overhead import Counting, Kept, growth
from programs.calibration import Calibration
from programs.eval.statistics import Interval
from programs.graph import Graph
from sgl_small4.nano.tasks import arithmetic
from sgl_small4.prompt.node import Node
from tests.prompt.scripted import FORMAT, Scripted

SURE = Interval(0.04, 0.02, 0.06, 500, 1500)


def replies(*said: tuple[str, bool], tokens: int = 10) -> list[Reply]:
    return [Reply(answer, right, tokens) for answer, right in said]


def test_every_difference_is_held_out_and_asked_in_several_forms():
    asked = differences()
    assert len(asked) > 1200 and len({one.question for one in asked}) == len(asked)
    for place in range(0, len(asked), FORMS):
        one, *others = asked[place : place + FORMS]
        assert {other.cluster for other in others} == {one.cluster}
        larger, smaller = map(int, one.cluster.split("-"))
        assert 100 > larger >= smaller >= 0 and arithmetic.held_out([larger, smaller], "-")
        assert one.answer == str(larger - smaller)


def test_sums_of_six_are_all_different_and_held_out():
    asked = sums_of_six(40)
    assert len({one.cluster for one in asked}) == 40
    for one in asked:
        numbers = list(map(int, one.cluster.split("+")))
        assert len(numbers) == 6 and arithmetic.held_out(numbers, "+++++") and one.answer == str(sum(numbers))


def test_calibration_and_test_share_no_expression_and_the_easy_come_first():
    asked, others = easy_and_hard(60)
    assert len(asked) == len(others) == 120

    def unordered(some: list[Asked]) -> set[str]:
        return {"+".join(sorted(one.cluster.split("+"))) for one in some}

    assert not unordered(asked) & unordered(others)
    assert [one.cluster.count("+") == 1 for one in asked] == [True] * 60 + [False] * 60
    assert {one.cluster.count("+") + 1 for one in asked[60:]} == {4, 5, 6}


def test_a_majority_pays_for_all_its_votes_and_a_tie_goes_to_the_earliest():
    tie = replies(("8", False), ("7", True), ("7", True), ("8", False))
    assert majority(tie) == Reply("8", False, 40)
    assert majority(replies(("8", False), ("7", True), ("7", True))) == Reply("7", True, 30)
    assert majority(replies(("", False), ("", False), ("7", True))) == Reply("7", True, 30)
    assert majority(replies(("", False), ("", False))) == Reply("", False, 20)


@pytest.mark.parametrize(
    ("errors", "interval", "enough"),
    [((60, 40), SURE, True), ((60, 41), SURE, False), ((60, 20), replace(SURE, low=-0.001), False)],
)
def test_a_third_of_the_errors_must_go_and_surely_some(errors: tuple[int, int], interval: Interval, enough: bool):
    assert Removed("deliberate", errors, interval, (35.0, 180.0)).enough is enough


def test_routers_beside_auto_are_worked_out_from_the_same_replies():
    direct = [Reply("1", True, 4), Reply("1", False, 4), Reply("1", True, 4), Reply("1", False, 4)]
    think = [Reply("1", True, 36)] * 2 + [Reply("1", True, 100)] * 2
    auto = [Reply("1", True, 4), Reply("1", True, 40), Reply("1", True, 4), Reply("1", True, 104)]
    found = Routed(direct, think, auto, 2, SURE, Calibration())
    assert found.part_of_tokens() == pytest.approx(152 / 272)
    assert found.part_of_tokens(found.easy) == pytest.approx(44 / 72)
    assert found.perfect() == pytest.approx((4 + 36 + 4 + 100) / 272)
    part = (38 - 4) / (68 - 4)  # of its questions that a random router may think about
    assert found.random() == pytest.approx((1 - part) * 0.5 + part)


def node(id: int, name: str, prompt: int, cached: int) -> Node:
    counts = {"prompt_tokens": prompt, "cached_tokens": cached, "completion_tokens": 1, "trace_tokens": 0}
    return Node(id, None, "generate", name, "", "", None, **counts, began=0.0, seconds=0.0, finish_reason="stop")


def test_the_first_request_reads_the_prefix_and_checks_are_no_branches():
    graph = Graph("deliberate", "?")
    for one in [
        node(2, "think 2", 2000, 1990),
        node(0, "question", 2000, 0),
        node(1, "think 1", 2000, 1980),
        node(3, "check", 2010, 5),
        node(4, "think 3", 0, 0),  # given up before the server read it
    ]:
        graph.record(one)
    assert after_the_first(graph) == (3970, 4000)


def test_differences_are_shown_in_points_with_their_sign():
    assert points(SURE) == "+4.0 (+2.0 to +6.0) points"
    assert points(replace(SURE, low=None)) == "+4.0 points"


def test_bare_requests_are_those_that_programs_made():
    kept = Kept(Scripted(lambda ids, fields: "15</s>"))
    body = {"input_ids": FORMAT.encode_text("12+3"), "sampling_params": {"max_new_tokens": 8}}
    assert kept.generate(body, "a")["output_ids"] == [*FORMAT.encode_text("15"), 2]
    assert kept.bodies == [body]


def test_a_further_turn_encodes_only_its_own_characters():
    found = growth(tokens=3000, turns=3)
    assert [one.characters for one in found] == [100, 100, 100]
    assert all(one.turn > 0 and one.again > 0 for one in found)


def test_encoding_is_counted_where_it_is_done():
    counting = Counting(FORMAT)
    assert counting.encode_text("12+3") == FORMAT.encode_text("12+3")
    assert counting.characters == 4 and counting.control_ids == FORMAT.control_ids


def test_the_table_of_figures_has_the_figures_of_effort():
    assert SOURCES["effort"].module == "launch.bench.effort"
