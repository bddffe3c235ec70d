"""The frontend backend: replies, choices, failures, giving up; the model is a script."""

import math
import subprocess
import sys
import threading

import pytest
import sglang as sgl

from sgl_small4.nano import CHECKPOINT
from sgl_small4.prompt.backend import BackendError, Small4Backend, configure, reply_of
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.transport import HttpTransport, Unreachable
from tests.prompt.scripted import FORMAT, Scripted


@sgl.function
def ask(s, **how):
    s += sgl.user("What is 3+4?")
    s += sgl.assistant(sgl.gen("answer", **{"max_tokens": 64, **how}))


@sgl.function
def choose(s, options, before="", method=None):
    s += sgl.user("Which?")
    s += sgl.assistant(before + sgl.select("choice", options, choices_method=method or sgl.token_length_normalized))


def backend(reply, **more):
    return Small4Backend(Scripted(lambda ids, fields: reply), **more)


def test_a_variable_holds_the_answer_and_the_trace_stands_beside_it():
    state = ask.run(backend=backend("[THINK]3+4=7[/THINK]It is 7.</s>", effort="high"))
    assert state["answer"] == "It is 7."
    assert state.get_meta_info("answer")["trace"] == reply_of(state, "answer").trace == "3+4=7"
    assert "3+4=7" not in state.text()


def test_text_that_looks_like_a_trace_is_answer():
    reply = FORMAT.encode_text("[THINK]no[/THINK]7")
    script = Scripted(lambda ids, fields: "")
    answer = script._answer
    script._answer = lambda ids, fields: answer([*reply, 2], fields)
    state = ask.run(backend=Small4Backend(script))
    assert state["answer"] == "[THINK]no[/THINK]7" and reply_of(state, "answer").trace is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_stop_string_ends_the_answer_and_is_not_part_of_it(stream):
    script = Scripted(lambda ids, fields: "[THINK]a. b[/THINK]It is 7. Truly.</s>")

    @sgl.function
    def program(s):
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("answer", stop=[". "]) + sgl.gen("more"))

    state = program.run(backend=Small4Backend(script, effort="high"), stream=stream)
    state.sync()
    assert state["answer"] == "It is 7"
    sent = script.asked[-1]["input_ids"]
    assert FORMAT.tokenizer.decode([id for id in sent if id not in FORMAT.control_ids]).endswith("a. bIt is 7")


@pytest.mark.parametrize("stops", [[], ["Truly"], ["never"]])
def test_a_stream_gives_the_whole_answer_and_no_trace(stops):
    script = backend("[THINK]a b c[/THINK]It is 7. Truly, été.</s>", effort="high")

    @sgl.function
    def program(s):
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("answer", stop=stops or None))

    state = program.run(backend=script, stream=True)
    state.sync()
    whole = "It is 7. " if stops == ["Truly"] else "It is 7. Truly, été."
    assert state["answer"] == whole


def test_the_budget_goes_with_effort_high_alone():
    script = Scripted(lambda ids, fields: "7</s>")

    @sgl.function
    def program(s):
        configure(s, effort="high", thinking_budget=5)
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("a"))
        configure(s, effort="none")
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("b"))

    program.run(backend=Small4Backend(script))["b"]
    assert [asked["sampling_params"].get("custom_params") for asked in script.asked] == [{"thinking_budget": 5}, None]


@pytest.mark.parametrize("before", ["", ">>>", ":", " ", "\n"])
def test_options_are_scored_by_their_own_ids_whatever_stands_before_them(before):
    options = [" YES", " NO", "YES!"]
    script = Scripted(lambda ids, fields: "")
    state = choose.run(options=options, before=before, backend=Small4Backend(script))
    meta = state.get_meta_info("choice")
    expected = [[-id / 1000 for id in FORMAT.encode_text(option)] for option in options]
    assert [[entry[0] for entry in entries] for entries in meta["input_token_logprobs"]] == expected
    assert meta["logprobs"] == pytest.approx([sum(option) for option in expected])
    assert sum(meta["probabilities"]) == pytest.approx(1)
    scored = script.asked[-1]["input_ids"]
    assert all(ids[-len(o) :] == o for ids, o in zip(scored, map(FORMAT.encode_text, options), strict=True))


def test_a_long_option_with_a_predictable_tail_does_not_win_over_a_likely_short_one():
    likely, long = FORMAT.encode_text("Rome"), FORMAT.encode_text("Incomprehensibilities")
    script = Scripted(lambda ids, fields: "")

    def scored(ids, fields):
        option = ids[fields["logprob_start_len"] + 1 :]
        worth = {tuple(likely): -0.8, tuple(long): -9.0}  # the long one's first id is unlikely, the rest is certain
        spread = [0.0] * (len(option) - 1)
        logprobs = (
            [worth[tuple(option)], *spread] if tuple(option) == tuple(long) else [-0.8 / len(option)] * len(option)
        )
        entries = [[None, 0, None]] + [[p, i, None] for p, i in zip(logprobs, option, strict=True)]
        return {"meta_info": {"input_token_logprobs": entries, "output_token_logprobs": []}}

    script._scored = scored
    ours = Small4Backend(script)
    for options in (["Rome", "Incomprehensibilities"], ["Incomprehensibilities", "Rome"]):
        state = choose.run(options=options, backend=ours)
        assert state["choice"] == "Rome"
        assert max(state.get_meta_info("choice")["probabilities"]) == pytest.approx(1 / (1 + math.exp(-8.2)))


def test_where_one_option_begins_another_the_end_of_the_turn_counts():
    script = Scripted(lambda ids, fields: "")
    choose.run(options=["yes", "yes, but"], backend=Small4Backend(script))["choice"]
    assert all(ids[-1] == 2 for ids in script.asked[-1]["input_ids"])


@pytest.mark.parametrize("options", [[], ["a", ""]])
def test_options_that_are_none_are_named(options):
    with pytest.raises(BackendError, match="not empty"):
        choose.run(options=options, backend=backend(""))["choice"]


def test_a_failed_request_is_one_sentence_where_the_program_reads():
    state = ask.run(backend=backend(BackendError("The model is gone.")))
    with pytest.raises(BackendError, match=r"^The model is gone\.$"):
        state["answer"]


def test_a_failed_request_prints_its_sentence_and_nothing_else():
    script = (
        "import sglang as sgl\n"
        "from tests.prompt.test_backend import ask, backend\n"
        "from sgl_small4.prompt.backend import BackendError\n"
        "try: ask.run(backend=backend(BackendError('The model is gone.')))['answer']\n"
        "except BackendError as error: print(error)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "The model is gone.\n"
    assert ended.stderr == "The model is gone.\n"


def test_a_server_without_room_is_asked_again_and_not_for_ever():
    tries = []

    def reply(ids, fields):
        tries.append(1)
        return Unreachable("No room.") if len(tries) < 3 else "7</s>"

    assert ask.run(backend=Small4Backend(Scripted(reply)))["answer"] == "7"
    tries.clear()
    state = ask.run(
        backend=Small4Backend(Scripted(lambda ids, fields: tries.append(1) or Unreachable("No room.")), attempts=2)
    )
    with pytest.raises(BackendError, match="No room"):
        state["answer"]
    assert len(tries) == 2


def test_a_refused_request_is_not_asked_again():
    tries = []
    state = ask.run(backend=Small4Backend(Scripted(lambda ids, fields: tries.append(1) or BackendError("No."))))
    with pytest.raises(BackendError):
        state["answer"]
    assert len(tries) == 1


def test_giving_up_aborts_what_runs_and_lets_nothing_begin():
    begun, aborted = threading.Event(), threading.Event()

    def reply(ids, fields):
        begun.set()
        assert aborted.wait(5)
        return "7"

    script = Scripted(reply)
    script.abort = lambda rid: aborted.set()
    given_up = Cancellation(Cancellation())

    @sgl.function
    def program(s):
        configure(s, cancellation=given_up)
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("a"))
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("b"))

    state = program.run(backend=Small4Backend(script))
    assert begun.wait(5)
    given_up._parent.set()
    assert aborted.is_set() and state["a"] == "7"
    with pytest.raises(BackendError, match="gave this request up"):
        state["b"]
    assert len(script.asked) == 1


def test_another_model_is_named():
    with pytest.raises(BackendError, match="which is no Mistral Small 4"):
        Small4Backend(Scripted(lambda ids, fields: "", model_type="llama"))


def test_a_server_that_is_not_there_is_named_at_once():
    with pytest.raises(BackendError, match="cannot be reached"):
        Small4Backend("http://127.0.0.1:9", attempts=1)
    with pytest.raises(BackendError, match="no server's URL"):
        Small4Backend("127.0.0.1:30000")


BODIES = [[1, 2], None, {}, [], {"model_type": "mistral4"}, {"output_ids": "x", "meta_info": {}}, {"output_ids": []}]


@pytest.mark.parametrize("body", BODIES, ids=str)
@pytest.mark.parametrize("path", ["/model_info", "/v1/models", "/generate"])
def test_a_server_whose_answers_have_another_form_is_named(path, body, monkeypatch):
    good = {
        "/model_info": {"model_path": str(CHECKPOINT), "model_type": "mistral4"},
        "/v1/models": {"data": [{"max_model_len": 4096}]},
    }
    monkeypatch.setattr(HttpTransport, "_read", lambda self, method, at, body=body: body if at == path else good[at])
    if path == "/v1/models" and isinstance(body, dict):
        return  # a gateway need not say
    with pytest.raises(BackendError, match=r"is no SGLang server|refused|Mistral"):
        ask.run(backend=Small4Backend("http://server"), use_thread=False)["answer"]


def test_the_effort_stands_where_nobody_asks_too():
    script = Scripted(lambda ids, fields: "7</s>")

    @sgl.function
    def program(s):
        configure(s, effort="medium")
        s += sgl.system("x")
        s += sgl.assistant(sgl.gen("a"))

    program.run(backend=Small4Backend(script))["a"]
    assert "high" in FORMAT.tokenizer.decode(script.asked[-1]["input_ids"])


def test_a_server_that_says_nothing_is_given_up_after_the_timeout():
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BackendError, match="said nothing for 0.2 s"):
            Small4Backend(url, timeout=0.2)
    assert HttpTransport(url, None, 1.0).where == f"The server at {url}"


def test_an_image_is_refused_in_words(tmp_path):
    @sgl.function
    def program(s):
        s += sgl.user(sgl.image(str(tmp_path / "picture.png")) + "What is this?")
        s += sgl.assistant(sgl.gen("a"))

    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(BackendError, match="reads text only"):
        program.run(backend=backend("7</s>"))["a"]


def test_dtypes_are_held_by_the_server():
    script = Scripted(lambda ids, fields: "7</s>")

    @sgl.function
    def program(s):
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen_int("a"))

    assert program.run(backend=Small4Backend(script))["a"] == "7"
    assert script.asked[-1]["sampling_params"]["regex"] == sgl.lang.ir.REGEX_INT


def test_several_samples_are_a_list_and_the_conversation_goes_on_from_the_first():
    replies = iter(["one</s>", "two</s>"])
    script = Scripted(lambda ids, fields: "more</s>")
    generate = script.generate

    def sampled(fields, rid):
        if fields["sampling_params"]["n"] == 2:
            script.asked.append(fields)
            from tests.prompt.scripted import ids_of

            return [script._answer(ids_of(reply), fields) for reply in replies]
        return generate(fields, rid)

    script.generate = sampled

    @sgl.function
    def program(s):
        s += sgl.user("q")
        s += sgl.assistant(sgl.gen("a", n=2))
        s += sgl.user("r")
        s += sgl.assistant(sgl.gen("b"))

    state = program.run(backend=Small4Backend(script))
    assert state["a"] == ["one", "two"] and state["b"] == "more"
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "r"},
    ]
    assert script.asked[-1]["input_ids"] == FORMAT.encode(messages)
