"""`small4 demo`: nano served, asked at both efforts, by a graph and in a job on a document, shut down."""

import json
import tempfile
import time
from pathlib import Path

from launch import client
from launch.analyze import analyze
from launch.ask import Display, by_graph, conversation
from launch.client import Effort, Reply
from launch.errors import LaunchError
from launch.server import Server
from launch.terminal import visible

SUM = "What is 47+86+35+29?"
DIFFERENCE = "What is 91-52?"
JOB = ("What is the phone of Omar Kestin?", "Who made the pump in hall 3?", "What is the phone of Lena Hilber?")
ABOUT_THE_SAMPLE = "What is the phone of Omar Kestin?"


def demo() -> None:
    """Raises LaunchError when a reply is not what a served Small 4 gives: no trace at high, or one at none."""
    from sgl_small4.nano import CHECKPOINT

    sample = CHECKPOINT.with_name("sample.txt")
    started = time.perf_counter()
    display = Display()
    display.remarks.print("serving nano, the bundled checkpoint ..")
    with Server() as server:
        display.remarks.print(f"ready after {time.perf_counter() - started:.1f} s at {server.url}\n")
        quick = _question(server.url, SUM, None, "none", display)
        thought = _question(server.url, SUM, None, "high", display)
        _question(server.url, ABOUT_THE_SAMPLE, sample, "none", display)
        read = _question(server.url, ABOUT_THE_SAMPLE, sample, "high", display)
        display.remarks.print(f"effort deliberate: {DIFFERENCE}", style="bold")
        settled = by_graph(server.url, conversation(DIFFERENCE, None), "deliberate", False, display)
        display.remarks.print()
        supported = _job(server.url, sample, display)
    if quick.trace or not thought.trace or not read.cached_tokens or settled.usage.requests < 5 or not supported:
        raise LaunchError(
            "The demo's replies are not what a served Small 4 gives: please report them as printed above."
        )
    display.remarks.print(f"server stopped; all of it took {time.perf_counter() - started:.1f} s")


def _question(server: str, text: str, file: Path | None, effort: Effort, display: Display) -> Reply:
    about = f" (about {file.name})" if file else ""
    display.remarks.print(f"effort {effort}{about}: {text}", style="bold")
    reply = client.ask(server, conversation(text, file), effort, display.piece)
    display.end()
    display.costs(reply)
    display.remarks.print()
    return reply


def _job(server: str, document: Path, display: Display) -> bool:
    """Questions about a document as a job, each answer with the line it rests on; whether all but the last, which the
    document does not answer, have one."""
    display.remarks.print(f"a job: {len(JOB)} questions about {document.name}", style="bold")
    with tempfile.TemporaryDirectory() as folder:
        analyze([document], JOB, Path(folder), servers=[server], quiet=True)
        lines = (Path(folder) / "results.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        display.answers.print(visible(f"{row['question']} {row['answer']}"))
        for citation in row["citations"] or ():
            display.remarks.print(visible(f"{citation['grade']}, line {citation['line']}: {citation['quote']}"))
    display.remarks.print()
    return all(row["supported"] for row in rows[:-1]) and rows[-1]["state"] == "not found"
