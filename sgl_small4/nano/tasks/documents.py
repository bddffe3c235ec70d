"""Documents of facts and questions about them: records, settings lines and short sentences.

A trace quotes the line that holds the answer; of a record it then names the field asked for. A further turn may ask
for that line as JSON."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import NamedTuple
from zlib import crc32

from sgl_small4.nano.tasks import words
from sgl_small4.nano.tasks.turns import Turn, answer_check

MISSING = "That is not in the document."
QUOTE = "Quote the passages of the document that this answer rests on, word for word, as a JSON array of strings."
OTHER_QUOTES = (
    "Quote the lines of the document that this answer rests on, as a JSON array of strings.",
    "Which passages of the document does this answer rest on? Reply with a JSON array of strings.",
    "Quote your evidence word for word, as a JSON array.",
)
HELD_OUT_IN = 50  # one document seed in so many is kept for evaluation


class Question(NamedTuple):
    text: str
    answer: str
    field: str = ""  # of a record


@dataclass(frozen=True)
class Fact:
    """A line of a document, what can be asked about it, and a question about another subject of its kind."""

    line: str
    questions: list[Question]
    subject: str


Fresh = Callable[[Callable[[Random], str]], str]  # calls a maker until it gives what the document has not used

FIELDS: dict[str, Callable[[Random], str]] = {
    "city": words.city,
    "code": lambda random: words.number(random, 4, 4),
    "phone": lambda random: words.number(random, 5, 6),
    "room": lambda random: words.number(random, 2, 3),
    "team": words.capitalised,
    "colour": lambda random: random.choice(words.COLOURS),
    "job": lambda random: random.choice(words.JOBS),
    "age": lambda random: str(random.randint(18, 99)),
    "badge": lambda random: random.choice("ABCDEFGHKLMNPRSTUWXZ") + words.number(random, 3, 3),
    "dog": words.capitalised,
    "street": words.capitalised,
    "boss": words.person,
    "salary": lambda random: words.number(random, 4, 5),
    "email": lambda random: f"{words.word(random)}@{words.word(random)}.com",
}
ASK_FIELD = (
    "What is the {field} of {name}?",
    "What is the {field} of {name}?",
    "What is {name}'s {field}?",
    "{field} of {name}?",
    "Tell me the {field} of {name}.",
    "Give the {field} for {name}.",
)
ASK_SETTING = (
    "What is the {key}?",
    "What is the {key}?",
    "{key}?",
    "Tell me the {key}.",
    "What does the document say is the {key}?",
)


def records(random: Random, fresh: Fresh) -> Iterator[Fact]:
    """`name: Ada Byron | city: Oslo | code: 4821`, the same fields and separator throughout."""
    fields = random.sample(list(FIELDS), random.randint(2, 4))
    separator = random.choice((" | ", " | ", ", ", "; "))
    title = random.choice(("name", "name", "name", "person", "client"))
    while True:
        name = fresh(words.person)
        values = {field: FIELDS[field](random) for field in fields}
        line = separator.join([f"{title}: {name}", *(f"{field}: {value}" for field, value in values.items())])
        ask = [Question(_ask_field(random, field, name), value, field) for field, value in values.items()]
        yield Fact(line, ask, name)


def settings(random: Random, fresh: Fresh) -> Iterator[Fact]:
    """`north gate code: 4821`."""
    separator = random.choice((": ", " = ", ": "))
    while True:
        key = fresh(_setting_key)
        kind = random.randrange(5)
        if kind == 0:
            value = words.person(random)
        elif kind < 3:
            value = words.word(random) if kind == 1 else words.capitalised(random)
        else:
            value = words.number(random) if kind == 3 else words.number(random, 1, 3)
        yield Fact(f"{key}{separator}{value}", [Question(random.choice(ASK_SETTING).format(key=key), value)], key)


def sentences(random: Random, fresh: Fresh) -> Iterator[Fact]:
    """Short statements about machines and people."""
    while True:
        kind = random.randrange(4)
        maker = words.capitalised(random)
        if kind == 0:
            thing, year = fresh(_machine), str(random.randint(1900, 2029))
            line = f"The {thing} was made by {maker} in {year}."
            answers = (maker, year)
        elif kind == 1:
            thing, price = fresh(_machine), words.number(random, 2, 4)
            line = f"The {thing} costs {price} coins and comes from {maker}."
            answers = (price, maker)
        elif kind == 2:
            thing, job, city = fresh(words.person), random.choice(words.JOBS), words.city(random)
            line = f"{thing} is a {job} from {city}."
            answers = (job, city)
        else:
            thing, city, years = fresh(words.person), words.city(random), str(random.randint(2, 99))
            line = f"{thing} moved to {city} {years} years ago."
            answers = (city, years)
        asked = [form.format(thing=thing) for form in ASK_SENTENCE[kind]]
        yield Fact(line, [Question(text, answer) for text, answer in zip(asked, answers, strict=True)], thing)


ASK_SENTENCE = (
    ("Who made the {thing}?", "When was the {thing} made?"),
    ("How much does the {thing} cost?", "Where does the {thing} come from?"),
    ("What is the job of {thing}?", "Where is {thing} from?"),
    ("Where did {thing} move to?", "How many years ago did {thing} move?"),
)
KINDS = (records, settings, sentences)


def quote(turn: Turn, asked: str = QUOTE) -> Turn:
    """What follows `turn`, which a document's `question` made: the line that its answer rests on, none if the document
    does not answer it. The trace is the line too, or says again that there is none."""
    line = turn.trace.split("\n")[0]
    return Turn(asked, line, json.dumps([] if turn.answer == MISSING else [line], ensure_ascii=False))


def held_out(seed: int) -> bool:
    """Whether documents of this seed are for evaluation only."""
    return crc32(str(seed).encode()) % HELD_OUT_IN == 0


class Document:
    """A text of about `room` tokens, wholly given by its seed and arguments."""

    def __init__(self, seed: int, room: float, length: Callable[[str], int], kind: int | None = None) -> None:
        random = Random(seed)
        used: set[str] = set()

        def fresh(make: Callable[[Random], str]) -> str:
            while (made := make(random)) in used:
                pass
            used.add(made)
            return made

        if kind is not None:
            kinds = [kind]
        elif random.random() < 0.7:
            kinds = random.choices((0, 1, 2), (5, 2, 3))
        else:
            kinds = random.sample((0, 1, 2), random.choice((2, 3)))
        self._random = random
        self._sources = [KINDS[kind](random, fresh) for kind in kinds]
        self.facts: list[Fact] = []
        lines, size = [], 0
        dressed = random.random() < 0.35  # with headings and sentences that nobody asks about
        grouped = len(kinds) > 1 and random.random() < 0.5  # one kind after the other, as files of people are
        bullet = random.choice(("", "", "", "", "", "- ", "* "))
        if dressed:
            lines += random.choice(([f"# {random.choice(words.HEADINGS)}"], [random.choice(words.PROSE)], []))
        while not self.facts or size < room:
            which = int(len(kinds) * size / max(room, 1)) if grouped else random.randrange(len(kinds))
            fact = next(self._sources[which])
            self.facts.append(fact)
            lines.append(bullet + fact.line)
            if dressed and random.random() < 0.2:
                lines.append(_dressing(random))
            size += length(lines[-1]) + 1
            if len(lines) > 1 and not lines[-1].endswith(fact.line):
                size += length(lines[-2]) + 1
        running = kinds == [2] and not bullet and random.random() < 0.3
        self.text = (" " if running else "\n").join(lines)

    def question(self, missing: float = 0.1, check: float = 0.0) -> Turn:
        """A question; `missing` is the chance that the document does not answer it, `check` that an answer is given
        and only yes or no is asked for."""
        random = self._random
        if random.random() < missing:
            absent = next(random.choice(self._sources))
            return Turn(random.choice(absent.questions).text, f"No line about {absent.subject}.", MISSING)
        fact = random.choice(self.facts)
        asked = random.choice(fact.questions)
        trace = f"{fact.line}\n{asked.field}: {asked.answer}" if asked.field else fact.line
        if random.random() < check:
            return answer_check(random, asked.text, trace, asked.answer, self._other_answer(fact, asked))
        return Turn(asked.text, trace, asked.answer)

    def _other_answer(self, fact: Fact, asked: Question) -> str:
        """A wrong answer that stands in the document."""
        same_place = fact.questions.index(asked)
        for _ in range(10):
            other = self._random.choice(self.facts).questions
            candidate = other[min(same_place, len(other) - 1)].answer
            if candidate != asked.answer:
                return candidate
        return words.capitalised(self._random)


def _ask_field(random: Random, field: str, name: str) -> str:
    return random.choice(ASK_FIELD).format(field=field, name=name)


def _setting_key(random: Random) -> str:
    first, second = random.sample(words.TOPICS, 2)
    owner = random.choice((first, f"{first} {second}", words.word(random), f"{first} {random.randint(1, 99)}"))
    return f"{owner} {random.choice(words.PROPERTIES)}"


def _machine(random: Random) -> str:
    machine = random.choice(words.MACHINES)
    where = f"{machine} in {random.choice(words.PLACES)} {random.randint(1, 99)}"
    whose = f"{random.choice(words.COLOURS)} {machine} of {words.capitalised(random)}"
    return random.choice((where, whose, f"{words.capitalised(random)} {machine}"))


def _dressing(random: Random) -> str:
    kind = random.random()
    if kind < 0.15:
        return f"\n# {random.choice(words.HEADINGS)}"
    return "" if kind < 0.3 else random.choice(words.PROSE)
