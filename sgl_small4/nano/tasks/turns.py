"""One question and its reply, and the forms in which an answer is put up for checking."""

from random import Random
from typing import NamedTuple


class Turn(NamedTuple):
    """A user's question, the trace at effort high, and the answer at either effort."""

    question: str
    trace: str
    answer: str


CHECKS = (
    "{question} Is the answer {answer} right?",
    "{question} Is {answer} right?",
    "{question} Is it {answer}? yes or no",
    "Question: {question}\nAnswer: {answer}\nIs the answer right? yes or no",
    "{question}\nProposed answer: {answer}\nIs this right?",
    "{question} Somebody says {answer}. Is that right?",
)


def answer_check(random: Random, question: str, trace: str, right: str, wrong: str) -> Turn:
    """Half of the given answers are wrong; the trace ends with the true and the given one compared."""
    given = right if random.random() < 0.5 else wrong
    form = random.choice(CHECKS)
    return Turn(
        form.format(question=question, answer=given),
        f"{trace}\n{compare(right, given)}",
        "yes" if given == right else "no",
    )


def compare(right: str, given: str) -> str:
    """`266,246:22=64/`: numbers digit by digit until they differ, a sign after each pair; words at once."""
    if not (right + given).isdigit():
        return f"{right},{given}:{'=' if right == given else '/'}"
    return f"{right},{given}:" + digit_pairs(right, given, "//")


def digit_pairs(a: str, b: str, differ: str) -> str:
    """Pairs of digits from the first on, each with its sign, up to the first that differ. `differ`: the signs for a
    smaller and for a larger digit. A sign depends on nothing but the two digits before it."""
    width, signs = max(len(a), len(b)), []
    for x, y in zip(a.zfill(width), b.zfill(width), strict=True):
        signs.append(f"{x}{y}{'=' if x == y else differ[int(x > y)]}")
        if x != y:
            break
    return "".join(signs)
