"""The thresholds of `auto` are the cheapest that reach a target, on what was measured and on nothing else."""

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest

from launch.calibrate import calibrate
from launch.errors import LaunchError
from programs.calibrate import NEVER, Measured, Outcome, choose, deliberations, measure
from programs.calibration import Calibration
from programs.errors import ProgramError
from programs.eval.cases import read_cases
from programs.eval.scorers import chooser
from sgl_small4.prompt.backend import BackendError, Small4Backend, shown
from tests.programs.scripted import ScriptServer, served
from tests.prompt.scripted import FORMAT, Scripted

DIRECT, THINK, DELIBERATE = 4, 40, 200  # tokens of each in the cases made here


def case(
    number: int, sure: float, right: bool, *, thought: bool = True, think: float = 0.9, deliberated: bool | None = None
) -> Measured:
    third = None if deliberated is None else Outcome(float(deliberated), DELIBERATE, 1.0)
    first, second = Outcome(float(right), DIRECT, sure), Outcome(float(thought), THINK, think)
    return Measured(f"question:{number}", first, second, third)


def easy_and_hard(easy: int = 50, hard: int = 50) -> list[Measured]:
    """Direct is right and sure on the easy half, wrong and unsure on the other; thinking is always right."""
    made = [case(number, 0.95, True) for number in range(easy)]
    return made + [case(number + easy, 0.1, False) for number in range(hard)]


def test_a_target_accuracy_is_reached_with_the_fewest_tokens():
    choice = choose(easy_and_hard(), accuracy=1.0)
    assert choice.met and 0.1 < choice.point.direct < 0.95
    assert choice.point.accuracy == 1.0
    assert choice.point.tokens == (50 * DIRECT + 50 * (DIRECT + THINK)) / 100
    assert choice.point.ended == (0.5, 0.5, 0.0)


def test_a_low_target_is_answered_directly():
    choice = choose(easy_and_hard(), accuracy=0.5)
    assert choice.met and choice.point.tokens == DIRECT


def test_a_target_cost_is_kept_with_the_best_accuracy():
    measured = [case(n, n / 100, n >= 60) for n in range(100)]  # the less sure, the wronger: 40 of 100 right
    choice = choose(measured, cost=DIRECT + 0.3 * THINK)
    assert choice.met and choice.point.tokens <= DIRECT + 0.3 * THINK
    assert choice.point.accuracy == pytest.approx(0.7)  # the 30 least sure are thought about


def test_a_target_that_cannot_be_met_gives_the_nearest():
    never_right = [case(number, 0.5, False, thought=number < 80) for number in range(100)]
    choice = choose(never_right, accuracy=0.9)
    assert not choice.met and choice.point.accuracy == pytest.approx(0.8)
    cheap = choose(never_right, cost=1.0)
    assert not cheap.met and cheap.point.tokens == DIRECT


def test_a_sure_direct_answer_is_never_thought_over_where_that_only_costs():
    measured = [case(number, 0.99, True, thought=False) for number in range(60)]
    assert choose(measured, accuracy=0.99).point.ended == (1.0, 0.0, 0.0)


def test_deliberating_is_weighed_where_it_was_tried():
    measured = [case(n, 0.1, False, thought=False, think=0.2, deliberated=True) for n in range(25)]
    measured += [case(n + 25, 0.1, False, think=0.9) for n in range(75)]
    choice = choose(measured, accuracy=1.0)
    assert choice.met and 0.2 < choice.point.think <= 0.9
    assert choice.point.tokens == DIRECT + THINK + 0.25 * DELIBERATE
    assert choose(measured, accuracy=0.75).point.ended[2] == 0.0


def test_no_threshold_sends_cases_to_a_deliberation_that_was_not_tried():
    measured = [case(n, 0.1, False, think=0.2, deliberated=True) for n in range(25)]
    measured += [case(n + 25, 0.1, False, thought=False, think=0.6 + n / 1000) for n in range(75)]
    choice = choose(measured, accuracy=1.0)
    assert not choice.met
    assert all(point.think <= 0.6 for point in [choice.point, *choice.curve])


def test_cases_that_always_go_on_are_counted_at_the_price_of_those_tried():
    measured = [case(n, 0.1, False, think=-1.0, deliberated=True) for n in range(25)]
    measured += [case(n + 25, 0.1, False, think=-1.0) for n in range(75)]
    assert choose(measured, accuracy=1.0).point.tokens == DIRECT + THINK + DELIBERATE


def test_where_all_are_unsure_and_wrong_direct_answers_may_be_taken_never():
    measured = [case(number, 1.0, False) for number in range(60)]
    assert choose(measured, accuracy=1.0).point.direct == NEVER


def test_thresholds_lie_between_confidences_so_that_a_last_digit_changes_nothing():
    point = choose(easy_and_hard(), accuracy=1.0).point
    assert point.direct == pytest.approx((0.1 + 0.95) / 2)


def test_the_curve_rises_and_every_point_has_its_interval():
    random = Random(5)
    measured = [case(n, random.random(), random.random() < 0.4) for n in range(400)]
    curve = choose(measured, cost=20).curve
    assert len(curve) > 20
    for before, after in zip(curve, curve[1:], strict=False):
        assert before.tokens < after.tokens and before.accuracy < after.accuracy
    assert all(point.interval and point.interval.low < point.accuracy < point.interval.high for point in curve[:-1])


def test_cases_of_one_document_widen_the_interval():
    alone = easy_and_hard()
    shared = [Measured(f"id:{number // 10}", one.direct, one.think) for number, one in enumerate(alone)]
    widths = [choose(m, accuracy=0.5).point.interval for m in (alone, shared)]
    assert widths[1].high - widths[1].low > 1.5 * (widths[0].high - widths[0].low)


def test_no_cases_are_said_to_be_none():
    with pytest.raises(ProgramError, match="no case"):
        choose([], accuracy=0.9)


# What is measured


def model(right_after_thought: bool = True, refused: str = "") -> Scripted:
    """Directly 4 for everything; thought about, the question's own number."""

    def reply(ids: list[int], fields: Any) -> Any:
        prompt = shown(ids, FORMAT)
        number = re.findall(r"number (\d+)", prompt)[0]
        if number == refused:
            return BackendError("The server refused a request (400): too long")
        if "custom_params" not in fields["sampling_params"]:
            return "4</s>"
        if "Is the answer right?" in prompt:
            return "[THINK]hm[/THINK]yes</s>"
        return f"[THINK]hm[/THINK]{number if right_after_thought else 0}</s>"

    return Scripted(reply)


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    file = tmp_path / "cases.jsonl"
    lines = [f'{{"question": "Which number {n}?", "answer": "{n}"}}' for n in (4, 5, 6, 7, 8, 9, 10, 11)]
    file.write_text("\n".join([*lines, '{"question": "broken"}']), encoding="utf-8")
    return file


def test_every_case_is_answered_and_thought_about_and_the_least_sure_deliberated(labelled: Path):
    cases = read_cases(labelled).cases
    with Small4Backend(model()) as backend:
        measured, left_out = measure(cases, chooser(None, cases), backend=backend)
    assert not left_out
    assert [one.direct.score for one in measured] == [1.0] + [0.0] * 7
    assert [one.think.score for one in measured] == [1.0] * 8
    assert sum(one.deliberate is not None for one in measured) == deliberations(8) == 2
    assert all(one.direct.tokens == 2 and one.think.tokens > one.direct.tokens for one in measured)


def test_a_refused_case_is_named_and_the_others_are_kept(labelled: Path):
    cases = read_cases(labelled).cases
    with Small4Backend(model(refused="7")) as backend:
        measured, left_out = measure(cases, chooser(None, cases), backend=backend)
    assert len(measured) == 7
    assert len(left_out) == 1 and "Line 4 is left out" in left_out[0] and "too long" in left_out[0]


# The command


def command(server: ScriptServer, file: Path, **options: Any) -> int:
    return calibrate(file, server=server.url, **options)


def test_the_command_stores_thresholds_with_the_model_and_what_was_measured(
    labelled: Path, tmp_path: Path, capsys: Any
):
    out = tmp_path / "effort.json"
    script = model()
    with served(script) as server:
        assert command(server, labelled, accuracy=1.0, out=out) == 0
    stored = Calibration.of(script.model_info(), out)  # raises for another model's
    assert stored.measured["cases"] == 8 and stored.measured["met"] is True
    said = " ".join(capsys.readouterr().out.split())
    assert "always high" in said and "8 cases are few" in said and "line 9" in said and "Stored in" in said


def test_a_target_out_of_reach_is_said_and_the_exit_code_tells(labelled: Path, tmp_path: Path, capsys: Any):
    with served(model(right_after_thought=False)) as server:
        assert command(server, labelled, accuracy=1.0, out=tmp_path / "effort.json") == 1
    assert "The target cannot be met" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "Give a target"),
        ({"accuracy": 0.9, "cost": 10.0}, "Give a target"),
        ({"accuracy": 95.0}, "at most 1"),
        ({"cost": 0.0}, "above 0"),
        ({"cost": float("nan")}, "above 0"),
        ({"cost": 9.0, "concurrency": 0}, "--concurrency is 0"),
        ({"cost": 9.0, "limit": 0}, "--limit is 0"),
    ],
)
def test_what_cannot_be_asked_is_said_before_anything_is(labelled: Path, options: dict[str, Any], said: str):
    with pytest.raises(LaunchError, match=said):
        calibrate(labelled, server="http://127.0.0.1:9", **options)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_asked(labelled: Path, tmp_path: Path):
    script = model()
    with served(script) as server, pytest.raises(LaunchError, match="cannot be written"):
        command(server, labelled, accuracy=0.9, out=tmp_path / "nowhere" / "effort.json")
    assert not script.asked
