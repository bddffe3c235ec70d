"""The graphs, on a scripted model: which requests are made, what is taken, what happens where nothing came."""

import re
import threading
from collections.abc import Callable

import pytest
from pydantic import BaseModel

from programs.calibration import Calibration, identity
from programs.effort import solve
from programs.errors import ProgramError
from programs.many import solve_each, solve_many
from sgl_small4.prompt.backend import BackendError, Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from tests.programs.hostile import HOSTILE
from tests.prompt.scripted import EOS, FORMAT, Scripted, control, ids_of

EFFORTS = ("none", "high", "auto", "deliberate")


def question_of(ids: list[int]) -> str:
    """What the last user said, as the model reads it."""
    begin = len(ids) - ids[::-1].index(control("[INST]"))
    return FORMAT.tokenizer.decode(ids[begin : ids.index(control("[/INST]"), begin)])


def is_high(ids: list[int]) -> bool:
    return "high" in FORMAT.tokenizer.decode(ids[: ids.index(control("[INST]"))])


class Model:
    """Answers `direct` at effort none, thinks the next of `thoughts` at high, and finds right what is in `right`."""

    def __init__(
        self, direct: str = "1", thoughts: Callable[[int], str] = lambda n: "7", right: tuple[str, ...] = ("7",)
    ):
        self.direct, self.thoughts, self.right = direct, thoughts, right
        self.thought = 0
        self.checked: list[str] = []
        self._lock = threading.Lock()
        self.script = Scripted(self.reply)
        self.backend = Small4Backend(self.script)

    def reply(self, ids, fields):
        if not is_high(ids):
            return f"{self.direct}</s>"
        checked = re.search(r"Answer: (.*)\nIs the answer right", question_of(ids))
        if checked:
            self.checked.append(checked[1])
            return f"[THINK]hm[/THINK]{'yes' if checked[1] in self.right else 'no'}</s>"
        with self._lock:
            self.thought += 1
            number = self.thought
        thought = self.thoughts(number)
        whole = not isinstance(thought, str) or thought.startswith("[THINK]")
        return thought if whole else f"[THINK]t[/THINK]{thought}</s>"

    def solve(self, effort, **options):
        return solve("What is 3+4?", effort, backend=self.backend, **options)


def names(result) -> list[str]:
    return [node.name for node in result.graph.nodes]


def test_direct_is_one_request_at_effort_none():
    result = Model(direct="7").solve("none")
    assert (result.answer, result.trace, result.state) == ("7", None, "answered")
    assert names(result) == ["direct"] and result.usage.requests == 1


def test_think_gives_trace_and_answer_apart():
    result = Model().solve("high", budget=50, max_tokens=10)
    assert (result.answer, result.trace, result.state) == ("7", "t", "answered")
    assert names(result) == ["think"]


def test_the_budget_and_the_answers_limit_are_apart():
    model = Model()
    model.solve("high", budget=50, max_tokens=10)
    sampling = model.script.asked[-1]["sampling_params"]
    assert sampling["custom_params"] == {"thinking_budget": 50} and sampling["max_new_tokens"] == 62


@pytest.mark.parametrize("thought", ["[THINK]and on and on", "[THINK]done[/THINK]</s>", "[THINK]done[/THINK]  </s>"])
def test_a_reply_without_an_answer_is_said_and_one_other_step_is_taken(thought):
    model = Model(direct="6", thoughts=lambda n: thought)
    result = model.solve("high", budget=4, max_tokens=4)
    assert (result.answer, result.state) == ("6", "answered")
    assert names(result) == ["think", "direct"] and model.thought == 1
    first = result.graph.nodes[0]
    assert first.state.startswith("no answer") and first.next_step == "answered at effort none"
    assert result.usage.completion_tokens == sum(node.completion_tokens for node in result.graph.nodes)


def test_a_server_that_answers_nothing_is_asked_at_each_effort_once():
    for effort in EFFORTS:
        model = Model(direct="", thoughts=lambda n: "[THINK]")
        result = model.solve(effort, k=3)
        assert result.state == "empty" and result.answer == ""
        asked = {"none": ["direct"], "high": ["think", "direct"]}
        asked["deliberate"] = ["question", "think 1", "think 2", "think 3", "direct"]
        asked["auto"] = ["direct", "think", *asked["deliberate"][:-1]]
        assert sorted(names(result)) == sorted(asked[effort])


def test_a_missing_trace_is_said_and_the_answer_taken():
    script = Scripted(lambda ids, fields: "It is Friday.</s>")
    result = solve("Which day?", "high", backend=Small4Backend(script))
    assert (result.answer, result.trace) == ("It is Friday.", None)
    assert result.graph.nodes[0].state == "no trace"


def test_an_answer_that_ends_at_its_limit_is_cut_and_kept():
    result = Model(direct="one two three four five six").solve("none", max_tokens=3)
    assert result.state == "cut" and result.answer and result.value is None


def test_deliberate_takes_the_checked_majority_over_the_plain_one():
    model = Model(thoughts=lambda n: "9" if n <= 3 else "7", right=("7",))
    result = model.solve("deliberate", k=5)
    assert result.answer == "7" and 0.5 < result.confidence <= 1
    assert sorted(model.checked) == ["7", "9"]  # each answer once


def test_unanimous_answers_are_not_checked():
    model = Model()
    assert model.solve("deliberate", k=3).confidence == 1.0
    assert not model.checked


def test_where_nothing_holds_the_most_frequent_doubted_answer_stands():
    model = Model(thoughts=lambda n: "9" if n <= 3 else "8", right=())
    assert model.solve("deliberate", k=5).answer == "9"


def test_deliberate_reads_the_question_once_and_its_branches_go_on_from_there():
    result = Model().solve("deliberate", k=3)
    prefill = result.graph.nodes[0]
    assert prefill.kind == "prefill"
    branches = [node for node in result.graph.nodes if node.name.startswith("think")]
    assert {node.parent for node in branches} == {prefill.id}


def test_a_settled_outcome_ends_the_branches_that_still_run():
    slow, aborted = threading.Event(), []

    def thoughts(number):
        if number > 4:
            assert slow.wait(10)
        return "7"

    model = Model(thoughts=thoughts)
    model.script.abort = lambda rid: (aborted.append(rid), slow.set())
    result = model.solve("deliberate", k=5)
    assert result.answer == "7" and result.confidence == 1.0
    assert len(aborted) == 1 and not model.script.running


def test_one_branch_that_fails_does_not_end_the_others_and_all_that_fail_do():
    model = Model(thoughts=lambda n: BackendError("Gone.") if n == 2 else "7")
    assert model.solve("deliberate", k=3).answer == "7"
    with pytest.raises(BackendError, match="Gone"):
        Model(thoughts=lambda n: BackendError("Gone.")).solve("deliberate", k=3)


def sure(direct: float, think: float) -> Calibration:
    return Calibration(direct=direct, think=think)


def test_auto_keeps_a_sure_direct_answer():
    result = Model(direct="6").solve("auto", calibration=sure(0.5, 0.5))
    assert result.answer == "6" and names(result) == ["direct"]


def test_auto_thinks_where_it_is_not_sure():
    result = Model().solve("auto", calibration=sure(1.01, 0.5))
    assert result.answer == "7" and names(result) == ["direct", "think"]
    assert [node.next_step for node in result.graph.nodes] == ["think", "taken"]


@pytest.mark.parametrize(("place", "said"), [("question", True), ("document", False)])
def test_a_document_in_the_question_is_read_for_each_effort_and_that_is_said(place, said, caplog):
    model = Model()
    asked = {"question": "What is 3+4?", "document": "d", place: "a line of a document. " * 500}
    solve(**asked, effort="auto", backend=model.backend, calibration=sure(1.01, 0.5))
    assert ("read once for all" in caplog.text) == said
    prompts = [fields["input_ids"] for fields in model.script.asked]
    shared = next(n for n, (a, b) in enumerate(zip(*prompts[:2], strict=False)) if a != b)
    assert (shared > len(prompts[0]) / 2) != said  # the system prompt is shared by both efforts, the question is not


def test_auto_deliberates_where_thinking_did_not_help():
    result = Model().solve("auto", calibration=sure(1.01, 1.01), k=3)
    assert result.answer == "7" and "think 3" in names(result)


def test_a_calibration_of_another_model_is_refused(tmp_path):
    path = tmp_path / "effort.json"
    Calibration(direct=0.3, model="another").write(path)
    with pytest.raises(ProgramError, match="another model"):
        Calibration.of({"model_path": str(tmp_path)})
    info = {"model_path": "/nowhere/model"}
    Calibration(direct=0.3, model=identity(info)).write(path)
    assert Calibration.of(info, path).direct == 0.3
    path.write_text("{}x")
    with pytest.raises(ProgramError, match="small4 calibrate"):
        Calibration.of(info, path)


class Total(BaseModel):
    total: int


@pytest.mark.parametrize(
    ("output", "said", "value"),
    [
        (int, "7", 7),
        (float, "7.5", 7.5),
        (bool, "True", True),
        (re.compile(r"\d"), "7", "7"),
        (Total, '{"total": 7}', Total(total=7)),
        ({"type": "object"}, '{"a": 1}', {"a": 1}),
        (list[int], "[1]", [1]),
    ],
)
@pytest.mark.parametrize("effort", ["none", "high"])
def test_an_answer_has_the_form_that_was_asked_for(output, said, value, effort):
    model = Model(direct=said, thoughts=lambda n: said)
    assert model.solve(effort, output=output).value == value
    sampling = model.script.asked[-1]["sampling_params"]
    assert bool(sampling["regex"]) != bool(sampling["json_schema"])


def test_choices_are_selected_directly_and_held_after_a_trace():
    model = Model(thoughts=lambda n: "no")
    result = model.solve("none", output=["yes", "no"])
    assert result.value in ("yes", "no") and result.graph.nodes[-1].kind == "select"
    assert model.solve("high", output=["yes", "no"]).value == "no"
    assert model.script.asked[-1]["sampling_params"]["regex"] == "(yes|no)"


@pytest.mark.parametrize(
    "options",
    [
        {"output": 7}, {"output": []}, {"output": ["a", ""]}, {"output": ["a", "a"]}, {"output": {"a": {1}}},
        {"output": re.compile(b"x")}, {"output": re.compile("x", re.IGNORECASE)}, {"document": 5}, {"question": None},
        {"question": ["x"]}, {"budget": "9"}, {"k": 2.5}, {"temperature": float("nan")}, {"temperature": -1},
        {"budget": -1}, {"max_tokens": 0}, {"k": 0}, {"effort": "huge"}, {"question": " "}, {"question": []},
        {"question": [{"role": "assistant", "content": "x"}]}, {"question": [{"role": "tool", "content": "x"}]},
    ],
)  # fmt: skip
def test_what_cannot_be_asked_is_one_sentence(options):
    model = Model()
    with pytest.raises(ProgramError, match=r"\.$"):
        solve(**{"question": "q", "effort": "none", "backend": model.backend, **options})
    assert not model.script.asked


def test_many_questions_keep_their_order_and_one_failure_does_not_end_the_rest():
    def reply(ids, fields):
        question = question_of(ids)
        return BackendError("The model is gone.") if question == "q3" else f"{question}</s>"

    results = solve_many([f"q{n}" for n in range(8)], backend=Small4Backend(Scripted(reply)), concurrency=3)
    assert [result.answer for result in results] == ["q0", "q1", "q2", "", "q4", "q5", "q6", "q7"]
    assert results[3].state == "failed" and results[3].error == "The model is gone."


def test_what_is_no_question_fails_alone():
    results = solve_many(["q", None, ["x"], "r"], backend=Model(direct="7").backend)
    assert [result.state for result in results] == ["answered", "failed", "failed", "answered"]
    assert all(result.error.endswith(".") for result in results[1:3])


def test_one_stop_string_is_not_its_letters():
    model = Model(direct="7")
    model.solve("none", stop="12")
    assert model.script.asked[-1]["sampling_params"]["stop"] == ["12"]


def test_leaving_the_loop_early_gives_up_what_still_runs():
    first, rest = threading.Event(), threading.Event()

    def reply(ids, fields):
        if question_of(ids) != "q0":
            first.set()
            assert rest.wait(10)
        return "a</s>"

    script = Scripted(reply)
    script.abort = lambda rid: rest.set()
    for _ in solve_each([f"q{n}" for n in range(9)], backend=Small4Backend(script), concurrency=2):
        assert first.wait(10)
        break
    assert len(script.asked) <= 3 and not script.running


def test_giving_a_graph_up_from_another_thread_ends_it():
    cancel = Cancellation()
    cancel.set()
    model = Model()
    with pytest.raises(BackendError, match="gave this request up"):
        model.solve("deliberate", cancel=cancel)
    assert not model.script.asked


@pytest.mark.parametrize("effort", EFFORTS)
def test_no_control_id_comes_from_a_question_a_document_or_an_answer(effort):
    def controls(text: str, said: str) -> set[tuple[int, ...]]:
        """The control ids of the requests about a document and a question."""
        model.script.asked.clear()
        model.thoughts = lambda number: [*ids_of("[THINK]t[/THINK]"), *FORMAT.encode_text(said), EOS]
        options = {"document": f"{text}.", "max_tokens": 100_000, "calibration": sure(1.01, 1.01), "k": 2}
        solve(f"{text}?", effort, backend=model.backend, **options)
        return {tuple(id for id in a["input_ids"] if id in FORMAT.control_ids) for a in model.script.asked}

    model = Model()
    harmless = controls("a", "7")
    for first in range(0, len(HOSTILE), 20):
        text = " ".join(HOSTILE[first : first + 20])
        assert controls(text, f"{text}.") == harmless
