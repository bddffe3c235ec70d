"""What it costs that OpenMP's threads wait for each other spinning, on free cores and on shared ones.

One nano server as it is (`GOMP_SPINCOUNT=0`) and one with libgomp's own default, asked the same in turns: alone, then
beside as many processes that never rest as there are cores.
"""

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from launch.bench.figures import Row, report
from launch.server import Server
from programs.effort import solve
from sgl_small4.prompt.backend import Small4Backend

SPINS = "GOMP_SPINCOUNT"
LIBGOMPS = "300000"  # its default where OMP_WAIT_POLICY is not set (libgomp, env.c)
QUESTION = "What is 47+86+35+22+91?"
ROUNDS = 9


def rows() -> Iterator[Row]:
    with ExitStack() as stack:
        still, spinning = (stack.enter_context(_served(count)) for count in ("0", LIBGOMPS))
        for beside in (False, True):
            with _busy(os.cpu_count() or 1 if beside else 0):
                pairs = [(_speed(still), _speed(spinning)) for _ in range(ROUNDS)]
            medians = [statistics.median(side) for side in zip(*pairs, strict=True)]
            times = statistics.median(a / b for a, b in pairs)
            yield Row(
                f"decode of one request, threads that do not spin against libgomp's default, "
                f"{'beside a busy process for each core' if beside else 'on free cores'}",
                "reported",
                f"{times:.2f} times ({medians[0]:.0f} and {medians[1]:.0f} tokens/s)",
                None,
            )


@contextmanager
def _served(spins: str) -> Iterator[Small4Backend]:
    os.environ[SPINS] = spins
    try:
        with Server() as server, Small4Backend(server.url) as backend:
            yield backend
    finally:
        os.environ.pop(SPINS, None)


def _speed(backend: Small4Backend) -> float:
    """Tokens a second of one reply."""
    (node,) = solve(QUESTION, "high", temperature=0, backend=backend).graph.nodes
    return node.completion_tokens / node.seconds


@contextmanager
def _busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> int:
    """Print the rows."""
    parser = argparse.ArgumentParser(description="Measure what spinning threads cost.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    return report(list(rows()), parser.parse_args().json)


if __name__ == "__main__":
    sys.exit(main())
