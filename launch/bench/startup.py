"""From `small4 serve` to the first answer, nano on this host: median of several starts, and what they cost the CPU."""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import httpx
import psutil

from launch.bench.figures import Row, report
from launch.server import Server

QUESTION = {"model": "small4", "messages": [{"role": "user", "content": "What is 12 + 7?"}], "max_tokens": 16}
TARGET = 25


def start_once() -> tuple[float, float]:
    """Seconds until the first answer, and the processor seconds of the server and all its processes until then."""
    began = time.perf_counter()
    with Server() as server:
        reply = httpx.post(f"{server.url}/v1/chat/completions", json=QUESTION, timeout=120, trust_env=False)
        seconds = time.perf_counter() - began
        reply.raise_for_status()
        root = psutil.Process(server.process.pid)
        spent = [process.cpu_times() for process in (root, *root.children(recursive=True))]
        ended = root.cpu_times()
        processor = sum(times.user + times.system for times in spent) + ended.children_user + ended.children_system
    return seconds, processor


def rows(starts: list[tuple[float, float]], loads: list[float]) -> list[Row]:
    seconds, processor = (statistics.median(values) for values in zip(*starts, strict=True))
    all_seconds = ", ".join(f"{one:.1f}" for one, _ in starts)
    load = f"load average before each: {', '.join(f'{load:.1f}' for load in loads)}"
    return [
        Row("from small4 serve to the first answer, nano", f"under {TARGET} s on a quiet machine",
            f"{seconds:.1f} s (median of {all_seconds}; {load})", seconds < TARGET),
        Row("processor time of all its processes until then", "reported", f"{processor:.1f} s", None),
    ]  # fmt: skip


def main() -> int:
    """Print the rows; the exit code is 1 when the target is missed."""
    parser = argparse.ArgumentParser(description="Measure the start of the server on this host.")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    parser.add_argument("--starts", type=int, default=5)
    given = parser.parse_args()
    loads, starts = [], []
    for _ in range(given.starts):
        loads.append(os.getloadavg()[0])
        starts.append(start_once())
    found = rows(starts, loads)
    return report(found, given.json)


if __name__ == "__main__":
    sys.exit(main())
