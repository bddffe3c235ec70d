"""SGLang programs on a served nano: the language as its public examples use it, what is cached, what a death leaves."""

import re
import threading
import time

import pytest
import sglang as sgl

from launch.server import Server
from programs.effort import solve
from programs.eval.cases import NANO, read_cases
from programs.many import solve_many
from sgl_small4.prompt.backend import BackendError, Small4Backend, configure


@pytest.fixture(scope="module")
def backend(nano_server: Server):
    with Small4Backend(nano_server.url, timeout=120) as backend:
        yield backend


def test_a_multi_turn_question(backend):
    @sgl.function
    def multi_turn_question(s, question_1, question_2):
        s += sgl.system("You are a helpful assistant.")
        s += sgl.user(question_1)
        s += sgl.assistant(sgl.gen("answer_1", max_tokens=64, temperature=0))
        s += sgl.user(question_2)
        s += sgl.assistant(sgl.gen("answer_2", max_tokens=64, temperature=0))

    state = multi_turn_question.run(question_1="What is 7+5?", question_2="What is 8+9?", backend=backend)
    assert (state["answer_1"], state["answer_2"]) == ("12", "17")
    assert [message["role"] for message in state.messages()] == ["system", "user", "assistant", "user", "assistant"]
    meta = state.get_meta_info("answer_2")
    assert meta["cached_tokens"] >= state.get_meta_info("answer_1")["prompt_tokens"]


def test_a_batch_keeps_its_order(backend):
    @sgl.function
    def text_qa(s, question):
        s += sgl.user(question)
        s += sgl.assistant(sgl.gen("answer", stop="\n", max_tokens=16))

    states = text_qa.run_batch([{"question": f"What is {n}+5?"} for n in range(8)], backend=backend, temperature=0)
    assert [state["answer"] for state in states] == [str(n + 5) for n in range(8)]


def test_a_stream_grows(backend):
    @sgl.function
    def ask(s):
        s += sgl.user("What is 47+86+35?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=200, temperature=0))

    state = ask.run(backend=backend, stream=True)
    assert "".join(state.text_iter()).startswith("[INST]What is 47+86+35?[/INST]")
    assert state["answer"].isdigit()


def test_a_fork_a_choice_and_a_regex(backend):
    @sgl.function
    def tool_use(s):
        s += sgl.user("What is 7+5?")
        branches = s.fork(2)
        branches[0] += sgl.assistant(sgl.gen("text", choices=["12", "13", "121"]))
        branches[1] += sgl.assistant("It is " + sgl.gen("number", regex="[0-9]{2}", temperature=0) + ".")
        branches.join()

    state = tool_use.run(backend=backend)
    assert state["text"] == ["12"]
    assert state["number"][0].isdigit() and len(state["number"][0]) == 2


def test_the_constraint_holds_the_answer_after_a_free_trace(backend):
    result = solve("What is 47+86+35?", "high", output=int, temperature=0, backend=backend)
    assert result.value == 168 and result.trace


def test_text_outside_of_roles_is_completed(backend):
    @sgl.function
    def raw(s):
        s += "name: Ada | city: Oslo\nname: Ada | city:" + sgl.gen("city", max_tokens=3, temperature=0)

    assert raw.run(backend=backend)["city"]


def test_a_budget_that_is_spent_closes_the_trace_and_an_answer_follows(backend):
    result = solve("What is 47+86+35?", "high", budget=16, temperature=0, backend=backend)
    assert result.answer and result.state == "answered"
    assert result.graph.nodes[0].trace_tokens == 16


def document() -> str:
    return next(case.document for case in read_cases(NANO).cases if case.document)


def test_a_document_in_the_system_prompt_is_read_once_for_both_efforts(backend):
    text = document() + "\n"
    for effort in ("none", "high", "high"):
        result = solve("What is the code?", effort, document=text, backend=backend)
    first = solve("What is the code?", "none", document=text, backend=backend)
    size = len(backend.format.encode_text(text))
    assert first.usage.cached_tokens > size and result.usage.cached_tokens > size


def test_branches_read_their_prompt_from_the_cache(backend):
    result = solve("What is the code? ", "deliberate", document="New. " + document(), k=5, backend=backend)
    branches = [node for node in result.graph.nodes if node.name.startswith("think") and node.prompt_tokens]
    assert sum(node.cached_tokens for node in branches) / sum(node.prompt_tokens for node in branches) >= 0.95


def test_an_unknown_constraint_is_one_sentence_and_the_server_goes_on(backend):
    for output in ({"type": "nonsense"}, re.compile("(?=a)b")):
        with pytest.raises(BackendError, match="cannot be|not supported|look"):
            solve("What is 7+5?", output=output, backend=backend)
    assert solve("What is 7+5?", backend=backend).answer == "12"


def test_what_does_not_fit_is_said_with_the_sum(backend):
    with pytest.raises(BackendError, match=r"prompt \d+ \+ max tokens \d+ = \d+ tokens > context"):
        solve("What is 7+5?", "high", budget=10**6, backend=backend)


def test_a_program_that_gives_up_leaves_nothing_running(backend, nano_server):
    from sgl_small4.prompt.cancellation import Cancellation

    cancel = Cancellation()

    @sgl.function
    def endless(s):
        configure(s, effort="high", cancellation=cancel)
        s += sgl.user("What is 47+86+35?")
        s += sgl.assistant(sgl.gen("answer", max_tokens=20_000, ignore_eos=True))

    began = time.monotonic()
    threading.Timer(1.0, cancel.set).start()
    state = endless.run(backend=backend)
    assert state.get_meta_info("answer")["finish_reason"]["type"] == "abort"
    assert time.monotonic() - began < 20


@pytest.mark.slow
def test_a_server_that_dies_leaves_what_finished_and_names_what_did_not(tmp_path):
    questions = [f"What is {a}+{b}?" for a in range(20) for b in range(6)]
    with Server(log=tmp_path / "log") as server, Small4Backend(server.url, attempts=2) as backend:
        threading.Timer(1.5, server.process.kill).start()
        results = solve_many(questions, "high", backend=backend, concurrency=4)
    finished = [result for result in results if result.state == "answered"]
    failed = [result for result in results if result.state == "failed"]
    assert [result.question for result in results] == questions
    assert finished and failed and len(finished) + len(failed) == len(questions)
    assert all(result.answer for result in finished)
    assert all("cannot be reached" in result.error or "said" in result.error for result in failed)
