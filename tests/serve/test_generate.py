"""SGLang's own features on the CPU platform, through `/generate`: streaming, aborts, logprobs, the radix cache,
penalties and constrained decoding."""

import json
import math
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.serve.conftest import Nano

DOCUMENT = "\n".join(f"name: Guest {n} | city: Town{n} | room: {100 + n}" for n in range(60))

CITIES = {
    "Depick Laijai": "Drestoux",
    "Wusha Resho": "Hahix",
    "Zishisteck Staipam": "Porto",
    "Wendy Kiliwoth": "Paikrock",
    "Tara Troutrind": "Quito",
    "Vera Wodraibrer": "Flaisheth",
    "Krecairt Hvdyqei": "Tokyo",
    "Placapin Feback": "Trikrix",
    "Stoga Droukremam": "Athens",
    "Shuplend Kefleal": "Qsym",
    "Jane Luclert": "Kyoto",
    "Cihi Woucon": "Broclaick",
}


def test_a_prompt_given_as_text_is_served(nano: Nano):
    response = nano.http.post("/generate", json={"text": "17+25", "sampling_params": {"max_new_tokens": 4}})
    assert response.status_code == 200
    assert response.json()["meta_info"]["completion_tokens"] >= 1


def test_the_same_prompt_again_is_read_from_the_radix_cache(nano: Nano):
    prompt = nano.prompt("Where is Guest 7?", document=DOCUMENT + f"\n{uuid.uuid4()}")
    first, second = nano.generate(prompt), nano.generate(prompt)
    assert first["meta_info"]["cached_tokens"] < len(prompt) // 4  # the document itself may be known from other tests
    assert second["meta_info"]["cached_tokens"] == len(prompt) - 1  # the last token is computed for its logits
    assert first["text"] == second["text"]


def test_the_cache_can_be_flushed(nano: Nano):
    prompt = nano.prompt("Where is Guest 8?", document=DOCUMENT)
    nano.generate(prompt)
    assert nano.http.post("/flush_cache").status_code == 200
    assert nano.generate(prompt)["meta_info"]["cached_tokens"] == 0


def test_a_long_prompt_is_prefilled_in_chunks_with_the_same_result(nano: Nano):
    prompt = nano.prompt("Where is Guest 41?", document=DOCUMENT * 8)
    assert len(prompt) > 8192  # more than one chunk at SGLang's default
    nano.http.post("/flush_cache")
    whole = nano.generate(prompt)
    assert whole["meta_info"]["cached_tokens"] == 0
    assert nano.generate(prompt)["text"] == whole["text"]


def test_a_stream_grows_to_the_whole_reply(nano: Nano):
    prompt = nano.prompt("What is 47+86+35?", "high")
    whole = nano.generate(prompt, 64)
    request = {"input_ids": prompt, "sampling_params": {"temperature": 0, "max_new_tokens": 64}, "stream": True}
    texts = []
    with nano.http.stream("POST", "/generate", json=request) as response:
        for line in response.iter_lines():
            if line.startswith("data: {"):
                texts.append(json.loads(line.removeprefix("data: "))["text"])
    assert len(texts) > 3
    assert all(later.startswith(earlier) for earlier, later in zip(texts, texts[1:], strict=False))
    assert texts[-1] == whole["text"]


def test_an_aborted_request_ends_and_frees_its_place(nano: Nano):
    rid = uuid.uuid4().hex
    with ThreadPoolExecutor(1) as pool:
        sampling = {"ignore_eos": True}
        reply = pool.submit(nano.generate, nano.prompt("Hello"), 8000, sampling=sampling, rid=rid)
        time.sleep(1)
        assert not reply.done()
        nano.http.post("/abort_request", json={"rid": rid})
        finished = reply.result(20)["meta_info"]
    assert finished["finish_reason"]["type"] == "abort"
    assert 0 < finished["completion_tokens"] < 8000


def test_many_requests_at_once_each_get_their_own_reply(nano: Nano):
    """Of names that nano is sure about: the best token leads by 4 nats and more, whatever stands in the batch."""
    roster = "\n".join(f"name: {name} | city: {city}" for name, city in CITIES.items())
    prompts = [nano.prompt(f"What is the city of {name}?", document=roster) for name in CITIES]
    barrier = threading.Barrier(len(prompts))

    def together(prompt: list[int]) -> str:
        barrier.wait()
        return nano.generate(prompt)["text"]

    with ThreadPoolExecutor(len(prompts)) as pool:
        assert list(pool.map(together, prompts)) == list(CITIES.values())


def test_logprobs_of_the_reply_are_those_of_the_greedy_choice(nano: Nano):
    reply = nano.generate(nano.prompt("What is 7+5?"), 4, return_logprob=True, top_logprobs_num=5)
    meta = reply["meta_info"]
    assert len(meta["output_token_logprobs"]) == meta["completion_tokens"]
    for (logprob, id, _), top in zip(meta["output_token_logprobs"], meta["output_top_logprobs"], strict=True):
        assert len(top) == 5
        best = max(top, key=lambda entry: entry[0])
        assert (logprob, id) == (best[0], best[1])
        assert sum(math.exp(entry[0]) for entry in top) <= 1 + 1e-3


def test_logprobs_of_the_prompt_cover_it_from_where_they_are_asked_for(nano: Nano):
    prompt = nano.prompt("What is 7+5?")
    reply = nano.generate(prompt, 1, return_logprob=True, logprob_start_len=0)
    logprobs = reply["meta_info"]["input_token_logprobs"]
    assert [id for _, id, _ in logprobs] == prompt
    assert all(logprob <= 0 for logprob, _, _ in logprobs[1:])


@pytest.mark.parametrize("penalty", ["frequency_penalty", "presence_penalty", "repetition_penalty"])
def test_penalties_lower_the_logprob_of_a_token_that_was_generated(nano: Nano, penalty: str):
    prompt, other = nano.prompt("Hello"), 60
    first = nano.generate(prompt, 1)["output_ids"][0]

    def lead(**sampling: float) -> float:
        """By how much the first token is likelier than one not generated, at the third place: SGLang's overlap
        scheduler counts a token one step after it was chosen."""
        asked = {
            "return_logprob": True,
            "token_ids_logprob": [first, other],
            "sampling": {"ignore_eos": True, **sampling},
        }
        logprobs = nano.generate(prompt, 3, **asked)["meta_info"]["output_token_ids_logprobs"][2]
        return logprobs[0][0] - logprobs[1][0]

    lowered = lead() - lead(**{penalty: 1.5})
    if penalty == "repetition_penalty":  # divides a positive logit, multiplies a negative one
        assert lowered > 0.05
    else:
        assert lowered == pytest.approx(1.5, abs=0.01)


def test_a_stop_string_ends_the_reply_before_it(nano: Nano):
    prompt = nano.prompt("What is 9+8?")
    assert nano.generate(prompt)["text"] == "17"
    reply = nano.generate(prompt, sampling={"stop": "7"})
    assert reply["text"] == "1"
    assert reply["meta_info"]["finish_reason"]["matched"] == "7"


@pytest.mark.parametrize("pattern", ["(yes|no)", r"-?[1-9][0-9]{2}", r"[A-Z][a-z]{3,8} [A-Z][a-z]{3,8}"])
def test_a_regular_expression_constrains_the_reply(nano: Nano, pattern: str):
    reply = nano.generate(nano.prompt("What is 47+86?"), sampling={"regex": pattern})
    assert re.fullmatch(pattern, reply["text"])
    assert reply["meta_info"]["finish_reason"]["type"] == "stop"


SCHEMA = {
    "type": "object",
    "properties": {"answer": {"enum": ["yes", "no"]}, "sum": {"type": "integer", "minimum": 0, "maximum": 999}},
    "required": ["answer", "sum"],
    "additionalProperties": False,
}


def fits_the_schema(text: str) -> bool:
    reply = json.loads(text)
    return set(reply) == {"answer", "sum"} and reply["answer"] in ("yes", "no") and 0 <= reply["sum"] <= 999


JSON_TOKENS = 256  # a token a character, and white space up to its bound at each of eight places


def test_a_json_schema_constrains_the_reply(nano: Nano):
    reply = nano.generate(nano.prompt("What is 47+86?"), JSON_TOKENS, sampling={"json_schema": json.dumps(SCHEMA)})
    assert fits_the_schema(reply["text"])


def test_a_json_schema_constrains_a_chat_at_effort_none(nano: Nano):
    shape = {"type": "json_schema", "json_schema": {"name": "sum", "schema": SCHEMA, "strict": True}}
    reply = nano.chat([{"role": "user", "content": "What is 47+86?"}], response_format=shape, max_tokens=JSON_TOKENS)
    message = reply["choices"][0]["message"]
    assert fits_the_schema(message["content"])
    assert not message.get("reasoning_content")


def test_a_prompt_longer_than_the_context_is_refused_with_both_numbers(nano: Nano):
    response = nano.http.post("/generate", json={"input_ids": [60] * 40000, "sampling_params": {"max_new_tokens": 1}})
    assert response.status_code == 400
    assert "40000" in response.text and "32768" in response.text


def test_an_empty_prompt_is_refused(nano: Nano):
    response = nano.http.post("/generate", json={"input_ids": [], "sampling_params": {"max_new_tokens": 1}})
    assert response.status_code == 400


def test_a_client_that_hangs_up_leaves_the_server_answering(nano: Nano):
    request = {"input_ids": nano.prompt("Hello"), "sampling_params": {"max_new_tokens": 8000, "ignore_eos": True}}
    with (
        pytest.raises(httpx.ReadTimeout),
        httpx.Client(base_url=nano.http.base_url, timeout=1, trust_env=False) as impatient,
    ):
        impatient.post("/generate", json=request)
    assert nano.generate(nano.prompt("What is 7+5?"))["meta_info"]["finish_reason"]["type"] == "stop"
