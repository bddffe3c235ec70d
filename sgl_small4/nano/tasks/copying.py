"""Practice in copying: the skill under quoting, recalling a value and repeating an expression.

The ambiguous kinds matter most: stretches of few different tokens, and lines of records recalled out of order."""

from random import Random

from sgl_small4.nano.conversation import COPYING, SILENT, Segment
from sgl_small4.nano.tasks import words
from sgl_small4.nano.tasks.documents import records
from sgl_small4.nano.tokenizer import CONTROL, SPECIAL_COUNT, Coder


def copying(random: Random, coder: Coder, room: int) -> list[Segment]:
    """At most `room` tokens of one kind of practice."""
    kind = random.random()
    begin: list[Segment] = [([CONTROL["<s>"]], SILENT)]
    if kind < 0.5:
        return begin + _stretch(random, coder, room - 1)
    if kind < 0.65:
        return begin + _pairs(random, coder, room - 1)
    return begin + _lines(random, coder, room - 1)


def _stretch(random: Random, coder: Coder, room: int) -> list[Segment]:
    """A random stretch said again and again, each time from some place on."""
    few: list[int] = []
    if random.random() < 0.6:
        few = coder("0123456789") if random.random() < 0.4 else _random_ids(random, coder, random.randint(3, 12))
    stretch = _symbols(random, coder, few, random.randint(4, max(5, min(60, room // 2 - 2))))
    segments: list[Segment] = [(stretch, SILENT)]
    used = len(stretch)
    while used < room - 1:
        first = 0 if random.random() < 0.5 else random.randrange(len(stretch))
        part = stretch[first : first + room - used]
        lead = min(4 if few else 2, len(part))  # the first tokens of a piece that starts anywhere can't be known
        segments += [(part[:lead], SILENT), (part[lead:], COPYING)]
        used += len(part)
    return segments


def _pairs(random: Random, coder: Coder, room: int) -> list[Segment]:
    """Keys with values, recalled out of order."""
    key, value = random.randint(1, 3), random.randint(1, 4)
    separator = coder(random.choice(("\n", ".", ";", "|", " |")))
    size = key + value + len(separator)
    count = max(2, int((room - 3) * random.uniform(0.2, 0.6)) // size)
    pairs = [(_symbols(random, coder, [], key), _symbols(random, coder, [], value)) for _ in range(count)]
    segments: list[Segment] = [(k + v + separator, SILENT) for k, v in pairs]
    for _ in range(room // size - count):
        k, v = random.choice(pairs)
        segments += [(k, SILENT), (v + separator, COPYING)]
    return segments


def _lines(random: Random, coder: Coder, room: int) -> list[Segment]:
    """Records, recalled out of order by the name in them."""
    source = records(random, lambda make: make(random))
    told: list[tuple[list[int], list[int]]] = []
    segments: list[Segment] = []
    used, limit = 0, room * random.uniform(0.2, 0.6)
    while used < limit:
        fact = next(source)
        cut = fact.line.index(fact.subject) + len(fact.subject)
        line = coder("\n" + fact.line[:cut]), coder(fact.line[cut:])
        if used + len(line[0]) + len(line[1]) > room:
            break
        told.append(line)
        segments.append((line[0] + line[1], SILENT))
        used += len(segments[-1][0])
    while told:
        head, tail = random.choice(told)
        used += len(head) + len(tail)
        if used > room:
            break
        segments += [(head, SILENT), (tail, COPYING)]
    return segments


def _symbols(random: Random, coder: Coder, few: list[int], count: int) -> list[int]:
    if few:
        return [random.choice(few) for _ in range(count)]
    if random.random() < 0.5:
        return _random_ids(random, coder, count)
    ids: list[int] = []
    while len(ids) < count:
        made = random.choice((words.word, words.number, words.person))(random)
        ids += coder(random.choice((" ", "\n")) + made)
    return ids[:count]


def _random_ids(random: Random, coder: Coder, count: int) -> list[int]:
    return [random.randrange(SPECIAL_COUNT, coder.size) for _ in range(count)]
