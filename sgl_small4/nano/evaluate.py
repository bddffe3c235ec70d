"""The nano checkpoint's held-out figures: `python -m sgl_small4.nano.evaluate [--cases 500] [--json FILE]`.

Every reply is generated, greedily, and its answer must be exactly right. Intervals are Wilson's, 95 %."""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import torch

from sgl_small4.nano import CHECKPOINT, cases, compiled
from sgl_small4.nano.checkpoint_io import load_checkpoint
from sgl_small4.nano.conversation import Format
from sgl_small4.nano.generate import Ask, greedy
from sgl_small4.nano.operators import Plain
from sgl_small4.nano.tasks import tools
from sgl_small4.nano.tasks.documents import MISSING
from sgl_small4.nano.tokenizer import CONTROL, Coder

LENGTHS = (500, 2000, 4000, 8000)  # of documents, in tokens
ABSENT_LENGTHS = (500, 2000)
QUOTE_LENGTHS = (500, 2000, 4000)
BEFORE = 3  # questions answered before the one whose evidence is asked for
QUESTIONS = 5  # to a document
SUM_TOKENS, DOCUMENT_TOKENS = 400, 120  # limits of a reply


@dataclass(frozen=True)
class Figure:
    """A row of the table: `right` of `count`, and the mean number of tokens of a reply."""

    name: str
    effort: str
    right: int
    count: int
    tokens: float

    def interval(self) -> tuple[float, float]:
        """Wilson's, at 95 %, in per cent."""
        z, n = 1.96, self.count
        share = self.right / n
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
        return max(0.0, 100 * (middle - half)), min(100.0, 100 * (middle + half))

    def __str__(self) -> str:
        low, high = self.interval()
        percent = f"{100 * self.right / self.count:.1f} %"
        return (
            f"| {self.name} | {self.effort} | {percent} | {low:.1f} to {high:.1f} | {self.count} | {self.tokens:.1f} |"
        )


HEADER = """\
| held-out cases | effort | right | 95 % interval | cases | tokens a reply |
| --- | --- | --- | --- | --- | --- |"""


class Evaluation:
    """Asks the model and counts."""

    def __init__(self, folder: Path, count: int) -> None:
        self.model = load_checkpoint(folder, Plain() if compiled.missing() else compiled.Compiled())
        self.format = Format(Coder(folder / "tekken.json"))
        self.count = count
        self.random = Random("evaluation")
        self.wrong: list[tuple[str, str, str, str]] = []

    def length(self, text: str) -> int:
        return len(self.format.coder(text))

    def short(self, name: str, made: Sequence[cases.Case], high: bool, cut: bool = False) -> Figure:
        """Questions without a document; `cut` closes the trace at a random place before the answer."""
        prompts = []
        for case in made:
            suffix = self.format.user(case.turn.question)
            if cut:
                trace = self.format.trace(case.turn.trace)
                suffix = suffix + trace[: self.random.randint(1, len(trace) - 1)] + trace[-1:]
            prompts.append(suffix)
        replies = greedy(self.model, [Ask(self.format.opening(high), prompts)], SUM_TOKENS)[0]
        return self._count(name, made, high, replies)

    def documents(self, name: str, made: Sequence[cases.Case]) -> list[tuple[Figure, Figure]]:
        """Questions below a document at high, then at none, with the share that was answered "not in the document".
        The document stands before the effort, so both read it once."""
        groups = [made[i : i + QUESTIONS] for i in range(0, len(made), QUESTIONS)]
        asks = []
        for group in groups:
            document = self.format.opening(True, group[0].system)
            settings = document.index(CONTROL["[MODEL_SETTINGS]"])
            suffixes = [
                self.format.opening(high)[1:] + self.format.past(case.history) + self.format.user(case.turn.question)
                for high in (True, False)
                for case in group
            ]
            asks.append(Ask(document[:settings], suffixes))
        replies = greedy(self.model, asks, DOCUMENT_TOKENS)
        figures = []
        for high in (True, False):
            half = [r[: len(g)] if high else r[len(g) :] for r, g in zip(replies, groups, strict=True)]
            flat = [reply for part in half for reply in part]
            said = sum(self.answer(reply) == MISSING for reply in flat)
            effort = "high" if high else "none"
            denied = Figure(f"{name}: said to be absent", effort, said, len(flat), 0.0)
            figures.append((self._count(name, made, high, flat), denied))
        return figures

    def calculator(self, name: str, made: Sequence[tools.Call], high: bool) -> Figure:
        """Right when the call names the tool and gives the expression, and the answer is the tool's result."""
        tool = tools.calculator(Random(0), usual=True)
        opening = self.format.opening(high, tools=[tool.definition])
        asked = [self.format.user(call.question) for call in made]
        calls = greedy(self.model, [Ask(opening, asked)], DOCUMENT_TOKENS)[0]
        given = [
            u + c + self.format.answer("") + self.format.result(m.result)
            for u, c, m in zip(asked, calls, made, strict=True)
        ]
        answers = greedy(self.model, [Ask(opening, given)], DOCUMENT_TOKENS)[0]
        right, tokens = 0, 0
        for call, reply, answer in zip(made, calls, answers, strict=True):
            expected = self.format.call(tool.name, {tool.argument: call.expression})[:-1]
            good = reply[-len(expected) :] == expected and self.answer(answer) == call.answer
            right, tokens = right + good, tokens + len(reply) + len(answer)
            if not good:
                shown = self.format.coder.decode(reply) + " ... " + self.format.coder.decode(answer)
                self.wrong.append((f"{name}, {'high' if high else 'none'}", call.question, call.answer, shown))
        return Figure(name, "high" if high else "none", right, len(made), tokens / len(made))

    def answer(self, reply: list[int]) -> str:
        """What follows the trace."""
        end = CONTROL["[/THINK]"]
        return self.format.coder.decode(reply[reply.index(end) + 1 :] if end in reply else reply)

    def _count(self, name: str, made: Sequence[cases.Case], high: bool, replies: Sequence[list[int]]) -> Figure:
        effort = "high" if high else "none"
        right = 0
        for case, reply in zip(made, replies, strict=True):
            good = self.answer(reply) == case.turn.answer
            right += good
            if not good:
                question = case.turn.question
                self.wrong.append((f"{name}, {effort}", question, case.turn.answer, self.format.coder.decode(reply)))
        return Figure(name, effort, right, len(made), sum(map(len, replies)) / len(made))


def figures(evaluation: Evaluation, show: Callable[[Figure], None], longest: int) -> None:
    """All rows, each shown as it is known."""
    random, count = evaluation.random, evaluation.count
    short = {
        "sums of 3 to 5 two-digit numbers": cases.sums(random, count),
        "sums of two numbers below 20": cases.easy_sums(random, count),
        "is this sum right? yes or no": cases.checks(random, count),
        "small stories over 2 to 4 numbers": cases.stories(random, count),
    }
    for name, made in short.items():
        for high in (True, False):
            show(evaluation.short(name, made, high))
    show(evaluation.short("sums, trace cut at random", short["sums of 3 to 5 two-digit numbers"], True, cut=True))
    calls = cases.calculations(random, count)
    for high in (True, False):
        show(evaluation.calculator("calculator call and its result", calls, high))
    for tokens in LENGTHS:
        if tokens <= longest:
            made = cases.documents(random, count, tokens, QUESTIONS, evaluation.length)
            for figure, denied in evaluation.documents(f"question on a document of {tokens:,} tokens", made):
                show(figure)
                show(denied)
    for tokens in ABSENT_LENGTHS:
        if tokens <= longest:
            made = cases.documents(random, count, tokens, QUESTIONS, evaluation.length, missing=True)
            for figure, _ in evaluation.documents(f"not in the document, {tokens:,} tokens", made):
                show(figure)
    quotes(evaluation, show, longest)


def quotes(evaluation: Evaluation, show: Callable[[Figure], None], longest: int) -> None:
    """The rows about evidence, asked for after the right answer; a quote must be the whole line and nothing else."""

    def made(tokens: int, missing: bool = False) -> list[cases.Case]:
        return cases.documents(evaluation.random, evaluation.count, tokens, QUESTIONS, evaluation.length, missing)

    rows = [
        (f"quote of the answered line, {tokens:,} tokens", tokens, cases.quotes(made(tokens), QUESTIONS))
        for tokens in QUOTE_LENGTHS
    ]
    later = cases.quotes(made(500), QUESTIONS, BEFORE)
    rows.append((f"quote of the answered line, 500 tokens, {BEFORE} other questions before", 500, later))
    absent = cases.quotes(made(500, missing=True), QUESTIONS)
    rows.append(("quotes nothing where the document does not answer, 500 tokens", 500, absent))
    for name, tokens, asked in rows:
        if tokens <= longest:
            for figure, _ in evaluation.documents(name, asked):
                show(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a nano checkpoint on its held-out cases.")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--cases", type=int, default=500, help="of each kind")
    parser.add_argument("--longest", type=int, default=max(LENGTHS), help="leave longer documents out")
    parser.add_argument("--json", type=Path, help="also write figures and wrong answers here")
    options = parser.parse_args()
    evaluation, shown = Evaluation(options.checkpoint, options.cases), []
    began = time.monotonic()
    print(HEADER, flush=True)

    def show(figure: Figure) -> None:
        shown.append(asdict(figure))
        print(figure, flush=True)

    figures(evaluation, show, options.longest)
    print(f"\n{time.monotonic() - began:.0f} s on {torch.get_num_threads()} threads, {QUESTIONS} questions a document.")
    if options.json:
        options.json.write_text(json.dumps({"figures": shown, "wrong": evaluation.wrong}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
