"""Requests that nobody would write, on the inference routes, made by schemathesis from the server's own description.

The routes are named one by one: the description also lists those that pause the server, release its memory and swap its
weights, and an unknown route is never sent to.

Whole bodies from the description mostly fail its own checks, so they try the border. Most requests are therefore
ordinary ones in which a few fields are replaced by generated values: those reach the handlers and the scheduler.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Any

import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode

# Each with its share of the requests.
ROUTES = {
    ("POST", "/v1/chat/completions"): 30,
    ("POST", "/v1/completions"): 15,
    ("POST", "/v1/responses"): 15,
    ("POST", "/v1/messages"): 15,
    ("POST", "/generate"): 15,
    ("POST", "/v1/messages/count_tokens"): 3,
    ("POST", "/v1/tokenize"): 3,
    ("POST", "/v1/detokenize"): 2,
    ("GET", "/v1/models/{model}"): 1,
    ("GET", "/v1/responses/{response_id}"): 1,
}
NOT_IMPLEMENTED = 501  # an answer, unlike the other codes from 500 on
SECONDS = 60  # for one request
TOKENS = 8  # of a reply to a request that names no small limit: a thousand of them should end today
LONGEST = 64
LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens")
WITH_LIMIT = {
    "/v1/chat/completions": "max_tokens",
    "/v1/completions": "max_tokens",
    "/v1/responses": "max_output_tokens",
    "/v1/messages": "max_tokens",
}


HELLO = [{"role": "user", "content": "What is 12+3?"}]
ORDINARY: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "small4", "messages": HELLO},
    "/v1/completions": {"model": "small4", "prompt": "12+3="},
    "/v1/responses": {"model": "small4", "input": "What is 12+3?"},
    "/v1/messages": {"model": "small4", "messages": HELLO},
    "/generate": {"text": "12+3=", "sampling_params": {"max_new_tokens": TOKENS}},
    "/v1/messages/count_tokens": {"model": "small4", "messages": HELLO},
    "/v1/tokenize": {"model": "small4", "prompt": "12+3="},
    "/v1/detokenize": {"model": "small4", "tokens": [89, 90]},
}
LARGE = ("/v1/chat/completions",)  # schemathesis takes five seconds to break one rule of its description
GRAFTS = st.integers(0, 2) | st.integers(1, 4)  # how many fields are replaced; 0 sends the generated body as it is
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=5), values, max_size=3),
    max_leaves=5,
)
MISFITS: st.SearchStrategy[list[Any]] = (
    st.just([]) | st.just([]) | st.lists(ANYTHING, min_size=1, max_size=2)
)  # values for the first fields replaced


@dataclass
class Fuzzed:
    """What came back: how many answers of each status, and each failure with its request."""

    statuses: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)

    @property
    def count(self) -> int:
        return self.statuses.total() + sum(failure.startswith("no answer") for failure in self.failures)


def fuzz(url: str, count: int, start: int = 0) -> Fuzzed:
    """Send about `count` requests; `start` chooses which."""
    description = httpx.get(f"{url}/openapi.json", timeout=SECONDS, trust_env=False).raise_for_status().json()
    named = {path for _, path in ROUTES}
    description["paths"] = {path: methods for path, methods in description["paths"].items() if path in named}
    schema = schemathesis.openapi.from_dict(description)
    found = Fuzzed()
    with requests.Session() as session:
        session.trust_env = False
        for (method, path), share in ROUTES.items():
            operation = schema[path][method]
            cases = operation.as_strategy(GenerationMode.POSITIVE)
            if method == "POST" and path not in LARGE:
                cases = cases | operation.as_strategy(GenerationMode.NEGATIVE)
            examples = max(1, round(count * share / sum(ROUTES.values())))
            _send_each(cases, examples, start, partial(_send, session, url, found))
    return found


def _send_each(cases: st.SearchStrategy, examples: int, start: int, send: Callable[..., None]) -> None:
    @seed(start)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases, grafts=GRAFTS, misfits=MISFITS, random=st.randoms(use_true_random=False))
    def run(case: Case, grafts: int, misfits: list[Any], random: Random) -> None:
        if grafts and isinstance(case.body, Mapping):
            case.body = graft(case.path, case.body, grafts, misfits, random)
        send(case)

    run()


def graft(path: str, body: Mapping[Any, Any], count: int, misfits: list[Any], random: Random) -> dict[str, Any]:
    """An ordinary body with `count` fields of the generated `body`, the first of them with `misfits` for values."""
    chosen = random.sample(sorted(body), min(count, len(body)))
    return ORDINARY[path] | {name: body[name] for name in chosen} | dict(zip(chosen, misfits, strict=False))


def _send(session: requests.Session, url: str, found: Fuzzed, case: Case) -> None:
    case.body = bounded(case.path, case.body)
    shown = f"{case.method} {case.path} {case.body!r:.2000}"
    try:
        response = case.call(base_url=url, session=session, timeout=SECONDS)
    except requests.RequestException as error:
        found.failures.append(f"no answer ({error}): {shown}")
        return
    found.statuses[response.status_code] += 1
    if response.status_code >= 500 and response.status_code != NOT_IMPLEMENTED:
        found.failures.append(f"{response.status_code} {response.text:.500}: {shown}")


def bounded(path: str, body: Any) -> Any:
    """The same body with a small limit on its reply where it asks for a long one, or for none."""
    if not isinstance(body, Mapping):
        return body
    body = {name: _short(name, value) for name, value in body.items()}
    if path == "/generate" and isinstance(body.get("sampling_params"), Mapping):
        body["sampling_params"] = {name: _short(name, value) for name, value in body["sampling_params"].items()}
    if path in WITH_LIMIT and all(body.get(name) is None for name in LIMITS):
        body[WITH_LIMIT[path]] = TOKENS
    return body


def _short(name: str, value: Any) -> Any:
    long = name in LIMITS and isinstance(value, int) and LONGEST < value < 1_000_000
    return TOKENS if long else value


def in_hand(url: str) -> int:
    """Tokens of the memory pool that are neither free nor only cached, and requests that run or wait."""
    loads = httpx.get(f"{url}/v1/loads", timeout=SECONDS, trust_env=False).raise_for_status().json()["loads"]
    return sum(load["num_used_tokens"] + load["num_waiting_reqs"] + load["num_running_reqs"] for load in loads)


def settled(url: str, seconds: float = 15) -> int:
    """What is still in hand once nothing changes it any more, or `seconds` are over; 0 when all came back."""
    deadline = time.monotonic() + seconds
    while (left := in_hand(url)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return left
