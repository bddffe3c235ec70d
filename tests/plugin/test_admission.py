"""What is refused before it is scheduled, and what is not."""

import pytest

from sgl_small4.admission import RequestError, Room, check_bias, check_id, check_pattern, check_sampling


@pytest.mark.parametrize("cache", [4096, 10_000])
def test_a_context_is_filled_to_its_last_token_and_no_further(cache: int):
    room = Room.of(4096, min(4096, cache) - 6)
    room.check(96, 4000)
    room.check(96, None)
    with pytest.raises(RequestError, match=r"prompt 97 \+ max tokens 4000 = 4097 tokens > context 4096.*at most 3999"):
        room.check(97, 4000)


def test_a_cache_smaller_than_the_context_is_the_limit():
    room = Room.of(4096, 1000 - 6)
    room.check(900, 100)
    with pytest.raises(RequestError, match=r"prompt 901 \+ max tokens 100 = 1001 tokens > cache 1000"):
        room.check(901, 100)


def test_a_prompt_that_leaves_no_room_is_refused_whatever_the_answer():
    room = Room.of(4096, 4096 - 6)
    room.check(4089, None)
    with pytest.raises(RequestError, match="prompt 4090 tokens > 4089"):
        room.check(4090, None)


@pytest.mark.parametrize("rid", ["", "HEALTH_CHECK_x", "job", "job-1", "job-10"])
def test_ids_that_begin_like_a_running_one_are_refused(rid: str):
    with pytest.raises(RequestError):
        check_id(rid, ["job-1"])


def test_other_ids_are_let_in():
    check_id("job-2", ["job-1"])


@pytest.mark.parametrize("pattern", [r"a+b", r"\n\n+", r"(foo|bar)+", r"(\d{3})+", r"[a-z]{2,5}\.", "Übung"])
def test_patterns_that_end_are_let_in(pattern: str):
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern", [r"(a+)+", r"(a*b?)*c", r"((x{1,9}))+", r"(?:\w+\s?)*!", "(", "[", "a{99999999999}"]
)
def test_patterns_that_do_not_compile_or_may_run_for_ever_are_refused(pattern: str):
    with pytest.raises(RequestError, match="stop_regex"):
        check_pattern(pattern)


@pytest.mark.parametrize("bias", [{"5": 101}, {"5": float("nan")}, {"5": True}, {"-1": 1}, {"50": 1}, {"x": 1}, [5]])
def test_biases_that_are_no_number_of_a_token_are_refused(bias):
    with pytest.raises(RequestError, match="logit_bias"):
        check_bias(bias, vocab_size=50)


def test_biases_at_the_ends_of_their_range_are_let_in():
    check_bias({"0": -100, 49: 100.0}, vocab_size=50)


@pytest.mark.parametrize(
    "sampling",
    [{"top_k": 2**31}, {"max_new_tokens": 2**70}, {"temperature": "hot"}, {"stop": [""]}, {"stop_token_ids": [50]},
     {"stream_interval": 0}, {"nonsense": 1}, {"custom_params": {"a": {"b": {"c": 1}}}}, {"min_new_tokens": 1.5}],
    ids=lambda sampling: next(iter(sampling)),
)  # fmt: skip
def test_sampling_parameters_that_would_fail_in_the_scheduler_are_refused_by_name(sampling):
    with pytest.raises(RequestError, match=next(iter(sampling))):
        check_sampling(sampling, vocab_size=50)


def test_usual_sampling_parameters_are_let_in():
    check_sampling(
        {"temperature": 1, "top_k": -1, "max_new_tokens": None, "stop": ["\n", "END"], "stop_token_ids": [3],
         "custom_params": {"thinking_budget": 32}, "json_schema": "{}", "n": 2}, vocab_size=50,
    )  # fmt: skip
