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
    """Half of the given answers are wrong; the trace ends with the true and the given one side by side."""
    given = right if random.random() < 0.5 else wrong
    sign = "=" if given == right else "/"
    form = random.choice(CHECKS)
    return Turn(
        form.format(question=question, answer=given), f"{trace}\n{right}{sign}{given}", "yes" if given == right else "no"
    )
