"""Sums and differences, small stories over them, comparisons, and given answers to check.

A trace repeats the expression, then has a line a step: digit by digit with the carry, the result, and what is left,
as in `84+60:4+0+0=4,8+6+0=14>144+19-33`. Carrying what is left matters: without it most errors were a wrong operand."""

from random import Random
from typing import NamedTuple
from zlib import crc32

from sgl_small4.nano.tasks import words
from sgl_small4.nano.tasks.turns import Turn, answer_check, compare, digit_pairs

EASY = 20  # sums of two numbers below this are the easy cases


class Share(NamedTuple):
    """What training emphasises: at high `checks` of all turns; at none `easy` sums and `pairs` below 100, of which
    `near` are below 40."""

    checks: float = 0.14
    easy: float = 0.42
    pairs: float = 0.43
    near: float = 0.0


def held_out(numbers: list[int], operators: str) -> bool:
    """Whether this expression is for evaluation only: an easy sum in either order, or an expression as it stands.
    One in seven and one in ten, by a hash."""
    if len(numbers) == 2 and operators == "+":
        key, share = f"{min(numbers)}+{max(numbers)}", 7
    else:
        key, share = expression(numbers, operators), 10
    return crc32(key.encode()) % share == 0


def expression(numbers: list[int], operators: str) -> str:
    return str(numbers[0]) + "".join(f"{o}{n}" for o, n in zip(operators, numbers[1:], strict=True))


def work(numbers: list[int], operators: str) -> tuple[str, str]:
    """The trace and the result."""
    lines, total = [expression(numbers, operators)], numbers[0]
    for at, (operator, number) in enumerate(zip(operators, numbers[1:], strict=True)):
        left = expression([0, *numbers[at + 2 :]], operators[at + 1 :])[1:]
        digits = _digits(total, number, operator)
        before, total = total, total + number if operator == "+" else total - number
        lines.append(f"{before}{operator}{number}:{digits}>{total}{left}")
    return "\n".join(lines), str(total)


def _digits(a: int, b: int, operator: str) -> str:
    """From the last digit on: `4+7+0=11,8+2+1=11`, or with borrowing `14-7-0=7,8-2-1=5`."""
    steps, carry = [], 0
    for _ in range(max(len(str(a)), len(str(b)))):
        x, y = a % 10, b % 10
        a, b = a // 10, b // 10
        if operator == "+":
            steps.append(f"{x}+{y}+{carry}={x + y + carry}")
            carry = (x + y + carry) // 10
        else:
            borrowed = x + 10 if x - y - carry < 0 else x
            steps.append(f"{borrowed}-{y}-{carry}={borrowed - y - carry}")
            carry = int(borrowed > x)
    return ",".join(steps)


def draw_easy(random: Random, kept: bool = False) -> tuple[list[int], str]:
    """Two numbers below 20 to add; `kept` draws those of the evaluation."""
    while True:
        numbers = [random.randrange(EASY), random.randrange(EASY)]
        if held_out(numbers, "+") == kept:
            return numbers, "+"


def draw_pair(random: Random, near: float = 0.0) -> tuple[list[int], str]:
    """Two numbers below 100, in either operation: what the easy cases generalise from. `near` of them are below 40."""
    top = 40 if near and random.random() < near else 100
    while True:
        numbers = [random.randrange(top), random.randrange(top)]
        operators = "+" if random.random() < 0.75 else "-"
        if operators == "-":
            numbers.sort(reverse=True)
        if not held_out(numbers, operators):
            return numbers, operators


def draw_long(random: Random, count: int, mixed: bool = True, kept: bool = False) -> tuple[list[int], str]:
    """`count` numbers; `mixed` has differences and other sizes among them, else they are sums of two digits.
    Repeated operands are common: they are where a copied expression loses its place."""
    while True:
        numbers, operators, total = [_operand(random, mixed)], "", 0
        total = numbers[0]
        minus = mixed and random.random() < 0.3
        again = 0.12 if not kept and random.random() < 0.5 else 0.0
        for _ in range(count - 1):
            number = random.choice(numbers) if random.random() < again else _operand(random, mixed)
            operator = "-" if minus and random.random() < 0.6 and total >= number else "+"
            total += number if operator == "+" else -number
            numbers.append(number)
            operators += operator
        if held_out(numbers, operators) == kept:
            return numbers, operators


def draw(random: Random, high: bool, share: Share) -> tuple[list[int], str]:
    """The training mixture: effort none is mostly for what can be known at a glance."""
    kind = random.random()
    if kind < (0.1 if high else share.easy):
        return draw_easy(random)
    if kind < (0.18 if high else share.easy + share.pairs):
        return draw_pair(random, share.near)
    count = random.choice((3, 3, 4, 4, 5, 5, 6) if high else (2, 3, 3, 4, 5))
    return draw_long(random, count, random.random() < 0.55)


def question(random: Random, numbers: list[int], operators: str) -> str:
    """One of many ways to ask for the result."""
    close = expression(numbers, operators)
    wide = "".join(f" {c} " if c in "+-" else c for c in close)
    forms = [
        close,
        close,
        f"What is {close}?",
        f"What is {wide}?",
        wide,
        f"{close}=?",
        f"{wide} =",
        f"Compute {close}.",
        f"How much is {wide}?",
    ]
    if set(operators) == {"+"}:
        listed = ", ".join(map(str, numbers[:-1])) + f" and {numbers[-1]}"
        forms += [f"Add {listed}.", f"What is the sum of {listed}?", f"Add up {listed}."]
        if len(numbers) == 2:
            forms.append(f"What is {numbers[0]} plus {numbers[1]}?")
    elif len(numbers) == 2:
        forms += [f"Subtract {numbers[1]} from {numbers[0]}.", f"What is {numbers[0]} minus {numbers[1]}?"]
    return random.choice(forms)


def plain(random: Random, numbers: list[int], operators: str) -> Turn:
    trace, result = work(numbers, operators)
    return Turn(question(random, numbers, operators), trace, result)


def story(random: Random, numbers: list[int], operators: str) -> Turn:
    """`Ada has 12 pens. Ada finds 7. How many now?`"""
    who, item = random.choice(words.FIRST_NAMES), random.choice(words.ITEMS)
    parts = [random.choice((f"{who} has {numbers[0]} {item}", f"There are {numbers[0]} {item} in a box"))]
    for number, operator in zip(numbers[1:], operators, strict=True):
        gain = (f"{who} buys {number} more", f"{who} finds {number}", f"{who} gets {number}")
        loss = (f"{who} loses {number}", f"{who} gives away {number}", f"{who} sells {number}")
        parts.append(random.choice(gain if operator == "+" else loss))
    end = random.choice((f"How many {item} are there?", "How many now?", f"How many {item} now?"))
    text = random.choice((". ", " and then ", ". ")).join(parts)
    trace, result = work(numbers, operators)
    return Turn(f"{text}. {end}", trace, result)


def comparison(random: Random) -> Turn:
    """Which of two numbers is larger or smaller; the trace compares digit by digit until they differ."""
    a = random.randint(1, 999)
    b = int("".join(random.sample(str(a), len(str(a))))) if random.random() < 0.5 else random.randint(1, 999)
    if a == b:
        b = a + 1
    larger = random.random() < 0.6
    adjective = random.choice(("larger", "bigger", "greater") if larger else ("smaller", "less"))
    form = random.choice(("Which is {}, {} or {}?", "{}: {} or {}?")).format(adjective, a, b)
    trace = f"{a},{b}:{digit_pairs(str(a), str(b), '<>')}"
    return Turn(form[0].upper() + form[1:], trace, str(max(a, b) if larger else min(a, b)))


def check(random: Random, numbers: list[int], operators: str) -> Turn:
    """A given result, right or wrong by little."""
    trace, result = work(numbers, operators)
    value = int(result)
    wrong = value
    while wrong == value or wrong < 0:
        wrong = random.choice(
            (
                value + random.randint(-10, 10),
                value + random.choice((-10, 10, -1, 1, 100)),
                random.randint(0, 2 * value + 2),
            )
        )
    if random.random() < 0.6:
        return answer_check(random, question(random, numbers, operators), trace, result, str(wrong))
    given = random.choice((value, wrong))
    close = expression(numbers, operators)
    form = random.choice(
        ("Is {} = {}?", "Is {}={} right?", "{}={}. Right?", "Is {} equal to {}? yes or no", "{} = {}: yes or no?")
    )
    return Turn(form.format(close, given), f"{trace}\n{compare(result, str(given))}", "yes" if given == value else "no")


def turn(random: Random, high: bool, share: Share) -> Turn:
    """A turn of the training mixture."""
    kind = random.random()
    if kind < 0.07:
        return comparison(random)
    numbers, operators = draw(random, high, share)
    if kind < 0.22 and len(numbers) < 6:
        return story(random, numbers, operators)
    if kind < 0.22 + (share.checks if high else 0.05):
        return check(random, *(draw_pair(random) if random.random() < 0.4 else (numbers, operators)))
    return plain(random, numbers, operators)


def _operand(random: Random, mixed: bool) -> int:
    size = random.random() if mixed else 0.0
    if size < 0.75:
        return random.randint(10, 99)
    return random.randint(1, 9) if size < 0.87 else random.randint(100, 999)
