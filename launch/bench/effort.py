"""What effort buys and costs: errors that graphs remove, tokens that `auto` saves, cache, time, encoding and CPU.

All parts but the encoding's are asked of one nano server, which is started for them. Each row says its target; see
dial.py and overhead.py for what exactly is asked and compared.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

from launch.bench.dial import (
    TEMPERATURE,
    Asked,
    K,
    accuracy,
    differences,
    easy_and_hard,
    removed,
    routed,
    sums_of_six,
)
from launch.bench.figures import Row, report
from launch.bench.overhead import AT_ONCE, NEW_TURN, SECONDS, Bare, Httpx, growth, pairs
from launch.bench.streams import PAIRS, median_and_interval
from launch.server import Server
from programs.effort import solve
from programs.eval.statistics import Interval
from programs.graph import Graph
from sgl_small4.nano import cases
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.transport import transport_of

FEWEST_ERRORS = 60
SUMS_OF_SIX = 200
EACH_HALF = 250
DOCUMENTS, DOCUMENT_TOKENS = 20, 2000
PREFIX_TOKENS, TURNS = 200_000, 20
TIMES_BARE = 1.1
RUNNING = 64  # requests that the server decodes together


def errors_removed(url: str) -> Iterator[Row]:
    """Where effort removes errors, and where it does not."""
    kinds = {
        "differences of two numbers below 100": differences(),
        "sums of six": sums_of_six(SUMS_OF_SIX),
    }
    with Small4Backend(url) as backend:
        for kind, asked in kinds.items():
            yield from _removed_rows(kind, asked, backend)


def _removed_rows(kind: str, asked: list[Asked], backend: Small4Backend) -> Iterator[Row]:
    clusters = len({one.cluster for one in asked})
    for number, found in enumerate(removed(asked, backend)):
        if not number:
            enough = found.errors[0] >= FEWEST_ERRORS if kind.startswith("diff") else None
            share = f"{found.errors[0]} of {len(asked)} ({100 * found.errors[0] / len(asked):.1f} %)"
            what = f"{kind} ({clusters} expressions): errors of one think at {TEMPERATURE:g}"
            yield Row(what, f"at least {FEWEST_ERRORS}" if enough is not None else "reported", share, enough)
        measured = (
            f"{100 * found.share:.0f} % ({found.errors[0]} to {found.errors[1]}); paired difference "
            f"{points(found.interval)}; {found.tokens[1]:.0f} tokens a question against {found.tokens[0]:.0f}"
        )
        target = "reported" if number else "at least a third, interval above 0"
        yield Row(f"{kind}, {found.what}: errors removed", target, measured, None if number else found.enough)


def tokens_saved(url: str) -> Iterator[Row]:
    """`auto` where half of the questions need no thought."""
    with Small4Backend(url) as backend:
        found = routed(EACH_HALF, backend)
    direct, think, auto = map(accuracy, (found.direct, found.think, found.auto))
    what = f"auto on {EACH_HALF} easy and {EACH_HALF} hard cases"
    yield Row(
        f"{what}: accuracy, against always think",
        "at most 2 points less",
        f"{100 * auto:.1f} % against {100 * think:.1f} %, difference {points(found.interval)}",
        found.interval.estimate >= -0.02,
    )
    part = found.part_of_tokens()
    yield Row(f"{what}: output tokens, of always think's", "at most 60 %", f"{100 * part:.0f} %", part <= 0.6)
    yield Row(
        "beside it: a router that knew where direct is right",
        "reported",
        f"{100 * found.perfect():.0f} % of the tokens",
        None,
    )
    easy = found.part_of_tokens(found.easy)
    yield Row("beside it: the easy half alone", "reported", f"{100 * easy:.0f} % of its tokens", None)
    yield Row("beside it: always direct", "reported", f"{100 * direct:.1f} % right", None)
    yield Row("beside it: random router, equal tokens", "reported", f"{100 * found.random():.1f} % right", None)


def served_from_cache(url: str) -> Iterator[Row]:
    with Small4Backend(url) as backend:
        asked = cases.documents(
            Random("shared prefix"),
            DOCUMENTS,
            DOCUMENT_TOKENS,
            questions=1,
            length=lambda text: len(backend.format.encode_text(text)),
        )
        graphs = [
            solve(one.turn.question, "deliberate", document=one.system, k=K, backend=backend).graph for one in asked
        ]
    cached, prompt = map(sum, zip(*map(after_the_first, graphs), strict=True))
    yield Row(
        f"deliberate k={K} on {DOCUMENTS} documents of {DOCUMENT_TOKENS:,} tokens: prompt tokens from the cache, of "
        "branches after the first request",
        "at least 95 %",
        f"{100 * cached / prompt:.2f} % of {prompt:,}",
        cached >= 0.95 * prompt,
    )


def after_the_first(graph: Graph) -> tuple[int, int]:
    """Cached and all prompt tokens of the branches, without the request that was made first: it reads the prefix."""
    nodes = sorted(graph.nodes, key=lambda node: node.id)[1:]
    branches = [node for node in nodes if node.name.startswith("think ") and node.prompt_tokens]
    return sum(node.cached_tokens for node in branches), sum(node.prompt_tokens for node in branches)


def time_taken(url: str) -> Iterator[Row]:
    """Hard questions one at a time: deliberate, and five thinks one after the other, in turn first."""
    asked = easy_and_hard(PAIRS)[0][PAIRS:]
    seconds: dict[str, list[float]] = {"deliberate": [], "thinks": []}
    with Small4Backend(url) as backend:
        for number, one in enumerate(asked):
            for way in ("thinks", "deliberate") if number % 2 else ("deliberate", "thinks"):
                began = time.perf_counter()
                if way == "deliberate":
                    solve(one.question, "deliberate", temperature=TEMPERATURE, k=K, backend=backend)
                else:
                    for _ in range(K):
                        solve(one.question, "high", temperature=TEMPERATURE, backend=backend)
                seconds[way].append(time.perf_counter() - began)
    ratios = [a / b for a, b in zip(seconds["deliberate"], seconds["thinks"], strict=True)]
    median, low, high = (100 * value for value in median_and_interval(ratios))
    means = " and ".join(f"{statistics.fmean(each):.2f}" for each in seconds.values())
    yield Row(
        f"wall time of deliberate k={K} against {K} thinks one after the other, {len(asked)} hard sums, interleaved",
        "median at most 50 %",
        f"{median:.0f} % (95 % interval {low:.0f} to {high:.0f}; mean seconds {means})",
        median <= 50,
    )


def encoding() -> Iterator[Row]:
    found = growth(PREFIX_TOKENS, TURNS)
    characters = sorted({one.characters for one in found})
    turn, again = (statistics.median(getattr(one, name) for one in found) for name in ("turn", "again"))
    yield Row(
        f"characters encoded for a further turn of {NEW_TURN} on {PREFIX_TOKENS:,} tokens, {TURNS} turns",
        f"{NEW_TURN}, the new ones",
        f"{' to '.join(map(str, characters[:: max(1, len(characters) - 1)]))} "
        f"({turn:.1f} ms for the whole turn; encoding all again {again:.0f} ms)",
        characters == [NEW_TURN],
    )


def cost_of_programs(url: str) -> Iterator[Row]:
    senders: tuple[Bare, ...] = (Httpx(url), transport_of(url, None, SECONDS))
    for number, bare in enumerate(senders):
        found = pairs(url, PAIRS, bare)
        median, low, high = median_and_interval([programs / requests for programs, requests in found])
        means = " and ".join(f"{statistics.fmean(side):.2f}" for side in zip(*found, strict=True))
        yield Row(
            f"CPU of our process for direct, think and deliberate over the bare requests they make, {AT_ONCE} at once, "
            f"{PAIRS} interleaved pairs: sent by httpx"
            if not number
            else "the same, sent through our own transport",
            "reported" if number else f"median at most {TIMES_BARE} times",
            f"{median:.2f} times (95 % interval {low:.2f} to {high:.2f}; mean seconds {means})",
            None if number else median <= TIMES_BARE,
        )


def points(interval: Interval) -> str:
    """A difference of two shares, in points, with its interval."""
    bounds = "" if interval.low is None or interval.high is None else (
        f" ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"
    )  # fmt: skip
    return f"{100 * interval.estimate:+.1f}{bounds} points"


SERVED: dict[str, Callable[[str], Iterator[Row]]] = {
    "deliberate": errors_removed,
    "auto": tokens_saved,
    "cache": served_from_cache,
    "time": time_taken,
    "cpu": cost_of_programs,
}
PARTS = (*SERVED, "encoding")


def measure(wanted: list[str]) -> Iterator[Row]:
    """The rows of the parts that were asked for, the server's first."""
    if served := [part for part in SERVED if part in wanted]:
        with Server(arguments=("--max-running-requests", str(RUNNING))) as server:
            for part in served:
                yield from SERVED[part](server.url)
    if "encoding" in wanted:
        yield from encoding()


def main() -> int:
    """Print the rows; the exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description="Measure what effort buys and costs.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--part", action="append", choices=PARTS, help="a part instead of all; may be repeated")
    given = parser.parse_args()
    return report(list(measure(given.part or list(PARTS))), given.json)


if __name__ == "__main__":
    sys.exit(main())
