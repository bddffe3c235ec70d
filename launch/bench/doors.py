"""What comes out of every door: by client, budget and constraint, at what cost, and under requests made to break it.

All rows but the parser's are asked of one nano server, which is started for them. Each row says its target; see
clients.py, held.py, streams.py and fuzz.py for what exactly is asked and compared.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from launch.bench.clients import Question, doors
from launch.bench.figures import Row, report
from launch.bench.fuzz import fuzz, in_hand, settled
from launch.bench.held import BUDGET, constrained, limited
from launch.bench.streams import PAIRS, median_and_interval, pairs
from launch.server import Server

TIMES_STOCK = 1.1

PARAMETERS = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
CALCULATOR = {"name": "calculator", "description": "A calculator.", "parameters": PARAMETERS}
TOOL = {"type": "function", "function": CALCULATOR}


def conversations() -> Iterator[Question]:
    """Answers, calls, and what follows a call, at both efforts."""
    for effort in ("none", "high"):
        for text in ("What is 47+86+35?", "12+3", "Add 20, 31 and 40."):
            yield Question(({"role": "user", "content": text},), effort)
        product = {"role": "user", "content": "What is 387*150?"}
        yield Question((product,), effort, (TOOL,))
        function = {"name": "calculator", "arguments": '{"expression": "387*150"}'}
        call = {"id": "abcDEF123", "type": "function", "function": function}
        called = {"role": "assistant", "content": None, "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": call["id"], "content": "58050"}
        yield Question((product, called, result), effort, (TOOL,))


def through_all_doors(url: str) -> Iterator[Row]:
    """The same reply through each door, whole and streamed, against the raw route's ids and our parser."""
    opened = doors(url)
    right, different = 0, []
    asked = list(conversations())
    for question in asked:
        opened["/generate"](question, False)  # so that all find the same in the cache
        expected = opened["/generate"](question, False)
        for name, door in opened.items():
            for stream in (False, True):
                differences = door(question, stream).differences(expected)
                right += not differences
                if differences:
                    different.append(f"{name}, {'streamed' if stream else 'whole'}: {', '.join(differences)}")
    count = len(asked) * len(opened) * 2
    for line in different:
        print(line, file=sys.stderr)
    yield Row(
        f"the same {len(asked)} replies through {len(opened)} doors (routes and clients), whole and streamed",
        "equal text, trace, calls and counts",
        f"{right} of {count}",
        right == count,
    )


def with_budget(url: str, count: int) -> Iterator[Row]:
    found = limited(url, count)
    most = max(one.trace_tokens for one in found)
    answered = sum(bool(one.answer.strip()) for one in found)
    what = f"budget of {BUDGET} on {count} sums that need about 60"
    yield Row(f"{what}: most trace tokens", f"at most {BUDGET}", str(most), most <= BUDGET)
    share = f"{100 * answered / count:g} % ({sum(one.right for one in found)} of {count} right)"
    yield Row(f"{what}: answers given", "100 %", share, answered == count)


def with_constraint(url: str, count: int) -> Iterator[Row]:
    found = constrained(url, count)
    for kind in sorted({one.kind for one in found if not one.valid}):
        print(f"not valid: {kind}", file=sys.stderr)
    for effort in ("none", "high"):
        held = [one for one in found if one.effort == effort]
        valid = sum(one.valid for one in held)
        what = f"{len(held)} constrained requests at {effort}"
        yield Row(f"{what}: valid", "100 %", f"{100 * valid / len(held):g} %", valid == len(held))
        if effort == "high":
            free = sum(one.free_trace for one in held)
            yield Row(f"{what}: free traces", "100 %", f"{100 * free / len(held):g} %", free == len(held))


def made_to_break(url: str, count: int) -> Iterator[Row]:
    before = in_hand(url)
    found = fuzz(url, count)
    for failure in found.failures:
        print(failure, file=sys.stderr)
    left = settled(url)  # asks the server, so it fails when there is none
    statuses = ", ".join(f"{times} times {status}" for status, times in sorted(found.statuses.items()))
    failed = len(found.failures)
    yield Row(f"{found.count} fuzzed requests: failures", "none", f"{failed} ({statuses})", not failed)
    yield Row("memory pool and queue after them", f"{before} in hand, as before", str(left), left == before)


def cost_of_parsing(count: int) -> Iterator[Row]:
    found = pairs(count)
    median, low, high = median_and_interval([ours / stock for ours, stock in found])
    per_thousand = " and ".join(f"{1000 * sum(side) / count:.1f}" for side in zip(*found, strict=True))
    yield Row(
        f"CPU of 1,000 streamed tokens against the stock parser, 16 streams, {count} interleaved pairs",
        f"median at most {TIMES_STOCK} times",
        f"{median:.2f} times (95 % interval {low:.2f} to {high:.2f}; mean ms {per_thousand})",
        median <= TIMES_STOCK,
    )


PARTS: dict[str, Callable[..., Iterator[Row]]] = {
    "doors": through_all_doors,
    "budget": with_budget,
    "constraints": with_constraint,
    "fuzz": made_to_break,
    "streams": cost_of_parsing,
}


def measure(given: argparse.Namespace) -> Iterator[Row]:
    """The rows of the parts that were asked for, the server's first."""
    wanted = [part for part in PARTS if part in (given.only or PARTS)]
    counts: dict[str, tuple[Any, ...]] = {
        "budget": (given.questions,),
        "constraints": (given.questions,),
        "fuzz": (given.requests,),
    }
    if served := [part for part in wanted if part != "streams"]:
        with Server() as server:
            for part in served:
                yield from PARTS[part](server.url, *counts.get(part, ()))
    if "streams" in wanted:
        yield from cost_of_parsing(PAIRS)


def main() -> int:
    """Print the rows; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="Measure what comes out of every route, by every client.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--only", action="append", choices=PARTS, help="a part instead of all; may be repeated")
    parser.add_argument("--questions", type=int, default=200, help="with a budget, and with a constraint")
    parser.add_argument("--requests", type=int, default=1000, help="made by the fuzzer")
    given = parser.parse_args()
    found = list(measure(given))
    return report(found, given.json)


if __name__ == "__main__":
    sys.exit(main())
