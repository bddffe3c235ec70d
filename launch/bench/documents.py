"""What a document job keeps its word about: the shared prefix, kills, citations, reading and planning.

    the prefix     20 questions over one document of 8,000 tokens, against the same requests with the cache flushed
    kills          `small4 analyze` ended by SIGKILL at a random moment, 20 times, and resumed (kills.py)
    a corpus       mixed files from what is installed here, each read or reported by name
    1,000 pages    of PDF through `small4 analyze --plan`: seconds and memory of all its processes

Quotes have a command of their own (`python -m launch.bench.quotes`).
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import psutil
from fpdf import FPDF

from launch.bench.corpus import make_corpus
from launch.bench.figures import Row, report
from launch.bench.kills import KILLS, kill_rows
from launch.server import Server
from programs.documents.answer import Cost
from programs.documents.ask import Asker, Text
from programs.documents.document import Document, Unreadable
from programs.documents.plan import Budget, Part
from programs.documents.question import Question
from programs.documents.read import find_files, read_all
from sgl_small4.nano import CHECKPOINT, cases
from sgl_small4.prompt.backend import Small4Backend
from sgl_small4.prompt.cancellation import Cancellation
from sgl_small4.prompt.format import PromptFormat
from sgl_small4.prompt.transport import Fields, HttpTransport

QUESTIONS, TOKENS = 20, 8000
CACHED, TIMES = 0.90, 5.0
PAGES, CHARACTERS, PLAN_SECONDS, PLAN_MIB = 1000, 3000, 60.0, 1000
FEWEST_FILES = 40


class Flushing(HttpTransport):
    """Empties the server's prefix cache before each request."""

    def flush(self) -> None:
        self._send("POST", "/flush_cache?timeout=10")  # seconds for the last request to leave the scheduler

    def generate(self, fields: Fields, rid: str) -> Any:
        self.flush()
        return super().generate(fields, rid)


def shared_prefix(url: str) -> Iterator[Row]:
    """The job's own requests, one after the other on both sides, so that the cache alone makes the difference."""
    form = PromptFormat.from_folder(CHECKPOINT)
    made = cases.documents(Random(8), QUESTIONS, TOKENS, QUESTIONS, lambda text: len(form.encode_text(text)))
    document = Document("facts.txt", "text", "", made[0].system)
    questions = [Question(question=case.turn.question, effort="none") for case in made]

    def ask(transport: HttpTransport, is_read: bool, evidence: bool) -> tuple[Cost, float]:
        with Small4Backend(transport) as backend:
            asker = Asker(backend, Budget(32_768, 512, 128), 0.0, Cancellation())
            part = Part(0, len(document.text), TOKENS)
            began = time.perf_counter()
            text = Text(document, part, backend, asker.cancel, _opened=is_read)  # where nothing is kept, why read ahead
            one = asker.ask if evidence else asker.answer
            costs = [one(text, question).cost for question in questions]
            return sum(costs, Cost()), time.perf_counter() - began

    what = f"{QUESTIONS} questions over one document of {TOKENS:,} tokens"
    for evidence in (True, False):
        apart, apart_seconds = ask(Flushing(url, None, 600.0), True, evidence)
        Flushing(url, None, 600.0).flush()
        shared, shared_seconds = ask(HttpTransport(url, None, 600.0), False, evidence)
        share, times = shared.cached_tokens / shared.prompt_tokens, apart_seconds / shared_seconds
        with_what = "answers with their evidence" if evidence else "answers alone"
        yield Row(
            f"{what}, {with_what}: prompt tokens from cache",
            f"at least {CACHED:.0%}",
            f"{share:.1%} of {shared.prompt_tokens:,}, {shared.requests} requests",
            share >= CACHED,
        )
        yield Row(
            f"the same with the cache flushed before each request, {with_what}: wall time",
            f"at least {TIMES:g} times as long",
            f"{times:.1f} times ({apart_seconds:.1f} s against {shared_seconds:.1f} s, either with "
            f"{shared.completion_tokens} tokens written)",
            times >= TIMES,
        )


def corpus(folder: Path) -> Iterator[Row]:
    """Files as they are found, whole and broken."""
    count = make_corpus(folder)
    files = find_files([folder])
    began = time.perf_counter()
    read = list(read_all(files, workers=2))
    seconds = time.perf_counter() - began
    broken = sum(isinstance(each, Unreadable) for each in read)
    formats = sorted({each.format for each in read if isinstance(each, Document)})
    yield Row(
        f"a corpus of {count} files ({', '.join(formats)}): read or reported by name",
        f"100 % of at least {FEWEST_FILES}",
        f"{len(read) - broken} read, {broken} reported, in {seconds:.1f} s",
        len(read) == len(files) >= FEWEST_FILES,
    )


def planning(folder: Path) -> Iterator[Row]:
    """The command as a person runs it, all of its processes counted."""
    book = folder / "book.pdf"
    pages = _book(book)
    command = [sys.executable, "-m", "launch.cli", "analyze", str(book), "-q", "What is the fee?", "--plan", "--json"]
    began, peak = time.perf_counter(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    watched = psutil.Process(process.pid)
    while process.poll() is None:
        peak = max(peak, _resident(watched))
        time.sleep(0.05)
    seconds = time.perf_counter() - began
    mib = peak / 2**20
    yield Row(
        f"{pages:,} pages of PDF read and planned",
        f"under {PLAN_SECONDS:g} s and {PLAN_MIB:,} MiB",
        f"{seconds:.1f} s, {mib:,.0f} MiB",
        process.returncode == 0 and seconds < PLAN_SECONDS and mib < PLAN_MIB,
    )


def _book(path: Path) -> int:
    """PAGES pages of generated prose, about CHARACTERS characters each."""
    random, book = Random(3), FPDF()
    book.set_font("helvetica", size=10)
    words = [line for name in ("LICENSE",) for line in Path(name).read_text(encoding="utf-8").split()]
    for _ in range(PAGES):
        book.add_page()
        text = ""
        while len(text) < CHARACTERS:
            text += " ".join(random.choices(words, k=14)) + ". "
        book.multi_cell(0, 4.5, text.encode("latin-1", "replace").decode("latin-1"))
    book.output(str(path))
    return book.pages_count


def _resident(process: psutil.Process) -> int:
    """Bytes of memory of a process and its children, those of several counted several times."""
    try:
        return sum(each.memory_info().rss for each in (process, *process.children(recursive=True)))
    except psutil.NoSuchProcess:
        return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure the document job and print its figures.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    parser.add_argument("--only", choices=("prefix", "kills", "corpus", "planning"), help="one part instead of all")
    parser.add_argument("--kills", type=int, default=KILLS, metavar="N", help="how often the job is ended")
    given = parser.parse_args()
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as scratch:
        if given.only in (None, "corpus"):
            rows += corpus(Path(scratch) / "corpus")
        if given.only in (None, "planning"):
            rows += planning(Path(scratch))
        if given.only in (None, "prefix", "kills"):
            with Server() as server:
                if given.only in (None, "prefix"):
                    rows += shared_prefix(server.url)
                if given.only in (None, "kills"):
                    rows += kill_rows(server.url, Path(scratch), given.kills)
    return report(rows, given.json)


if __name__ == "__main__":
    sys.exit(main())
