"""Held-out cases: what evaluation asks, none of it ever generated in training."""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from sgl_small4.nano.tasks import arithmetic, tools
from sgl_small4.nano.tasks.documents import KINDS, Document, held_out, quote
from sgl_small4.nano.tasks.turns import Turn


@dataclass(frozen=True)
class Case:
    """One question below a system prompt that is empty or a document, and below earlier turns without their traces."""

    system: str
    turn: Turn
    history: tuple[Turn, ...] = ()


def sums(random: Random, count: int) -> list[Case]:
    """Sums of three to five two-digit numbers."""
    return [Case("", arithmetic.plain(random, *_long_sum(random))) for _ in range(count)]


def easy_sums(random: Random, count: int) -> list[Case]:
    """Sums of two numbers below 20 whose unordered pair is held out, in all forms of the question."""
    return [Case("", arithmetic.plain(random, *arithmetic.draw_easy(random, kept=True))) for _ in range(count)]


def checks(random: Random, count: int) -> list[Case]:
    """Is a given result of such a sum right? Half are not."""
    return [Case("", arithmetic.check(random, *_long_sum(random))) for _ in range(count)]


def calculations(random: Random, count: int) -> list[tools.Call]:
    """Questions for the calculator."""
    return [tools.call(random, kept=True) for _ in range(count)]


def documents(
    random: Random, count: int, tokens: int, questions: int, length: Callable[[str], int], missing: bool = False
) -> list[Case]:
    """`count` questions, `questions` to a document of about `tokens` tokens, kinds of fact in turn; `missing` asks only
    for what is not there."""
    cases: list[Case] = []
    while len(cases) < count:
        seed = random.getrandbits(40)
        if not held_out(seed):
            continue
        document = Document(seed, tokens, length, (len(cases) // questions) % len(KINDS))
        asked = min(questions, count - len(cases))
        cases += [Case(document.text, document.question(float(missing))) for _ in range(asked)]
    return cases


def quotes(made: list[Case], questions: int, before: int = 0) -> list[Case]:
    """The evidence asked for after the right answer to each of `made`, `questions` of which share a document; `before`
    other questions of that document stand answered before."""
    cases = []
    for at, case in enumerate(made):
        first = at - at % questions
        others = [other.turn for other in made[first : first + questions] if other is not case]
        cases.append(Case(case.system, quote(case.turn), (*others[:before], case.turn)))
    return cases


def _long_sum(random: Random) -> tuple[list[int], str]:
    return arithmetic.draw_long(random, random.choice((3, 4, 5)), mixed=False, kept=True)


def stories(random: Random, count: int) -> list[Case]:
    """Word problems over held-out expressions of two to four numbers."""
    drawn = (arithmetic.draw_long(random, random.choice((2, 3, 4)), mixed=True, kept=True) for _ in range(count))
    return [Case("", arithmetic.story(random, *numbers)) for numbers in drawn]
