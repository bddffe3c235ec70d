"""One calculator call and the use of its result. The result is copied, so any operation will do."""

import json
from random import Random
from typing import NamedTuple
from zlib import crc32

from sgl_small4.nano.tasks import arithmetic


class Calculator(NamedTuple):
    """A tool as the chat API offers it, and the name of its one argument."""

    definition: dict[str, object]
    name: str
    argument: str


class Call(NamedTuple):
    """A question that needs the calculator, the trace before the call, its argument and result, trace and answer."""

    question: str
    trace: str
    expression: str
    result: str
    closing_trace: str
    answer: str


DESCRIPTIONS = ("Works out an expression.", "Calculate an arithmetic expression.", "A calculator.", "Evaluate a sum.")


def calculator(random: Random, usual: bool = False) -> Calculator:
    """Mostly a tool `calculator` with the argument `expression`; `usual` makes it always so."""
    rare = not usual and random.random() < 0.15
    name = random.choice(("calc", "compute", "math", "evaluate")) if rare else "calculator"
    argument = random.choice(("input", "formula", "text", "query")) if rare else "expression"
    properties = {argument: {"type": "string"}}
    parameters = {"type": "object", "properties": properties, "required": [argument]}
    function = {"name": name, "description": random.choice(DESCRIPTIONS), "parameters": parameters}
    return Calculator({"type": "function", "function": function}, name, argument)


def held_out(expression: str) -> bool:
    """Whether this expression is for evaluation only: one in ten, by a hash."""
    return crc32(expression.encode()) % 10 == 0


def call(random: Random, kept: bool = False) -> Call:
    """A question over two or three numbers of up to four digits."""
    while True:
        numbers = [random.randint(2, random.choice((99, 999, 9999))) for _ in range(random.choice((2, 2, 3)))]
        operators = "".join(random.choice("++-**" if len(numbers) == 2 else "++-") for _ in numbers[1:])
        if operators == "-":
            numbers.sort(reverse=True)
        expression = arithmetic.expression(numbers, operators)
        small = len(numbers) == 2 and operators == "+" and max(numbers) < 100
        if held_out(expression) == kept and not small:
            break
    wide = "".join(f" {c} " if c in "+-*" else c for c in expression)
    forms = [expression, f"What is {expression}?", f"What is {wide}?", f"Compute {expression}.", f"How much is {wide}?"]
    if operators == "*":
        forms += [f"What is {numbers[0]} times {numbers[1]}?", f"Multiply {numbers[0]} by {numbers[1]}."]
    value = eval_expression(numbers, operators)
    result = json.dumps({"result": value}) if random.random() < 0.25 else str(value)
    return Call(random.choice(forms), expression, expression, result, f"The result is {value}.", str(value))


def eval_expression(numbers: list[int], operators: str) -> int:
    total = numbers[0]
    for operator, number in zip(operators, numbers[1:], strict=True):
        total = total + number if operator == "+" else total - number if operator == "-" else total * number
    return total
