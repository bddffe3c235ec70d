"""Arithmetic that a model may ask for: an expression is read as a tree of numbers and operators, nothing else."""

import ast
import math
import operator
from collections.abc import Callable

Number = int | float

LONGEST = 1000  # characters of an expression
LARGEST = 10_000  # bits of a whole number; Python prints no more than 4,300 digits

OPERATORS: dict[type[ast.operator], Callable[[Number, Number], Number]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


def calculator(expression: str) -> int | float:
    """Calculate an arithmetic expression."""
    # The docstring is what the model reads: it is one of those that nano was taught with.
    if len(expression) > LONGEST:
        raise ValueError(f"the expression has {len(expression)} characters, more than {LONGEST}")
    try:
        return _value(ast.parse(expression.strip(), mode="eval").body)
    except (SyntaxError, RecursionError, MemoryError) as error:  # what Python's parser raises for text and for depth
        raise ValueError("the expression is not arithmetic, or nests too deep") from error
    except OverflowError as error:
        raise ValueError("the number is too large") from error


def _value(node: ast.expr) -> Number:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return _bounded(number)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            return _quotient(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return _bounded(OPERATORS[type(op)](_value(left), _value(right)))
    raise ValueError("only numbers, parentheses and + - * / // % ** can be calculated")


def _quotient(left: Number, right: Number) -> Number:
    """A whole number where the division leaves no rest, so that it stays exact."""
    if isinstance(left, int) and isinstance(right, int) and right and left % right == 0:
        return left // right
    return _bounded(left / right)


def _power(base: Number, exponent: Number) -> Number:
    """Looked at before it is worked out: one power can fill the memory."""
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > LARGEST:
        raise ValueError(f"the power has more than {LARGEST} bits")
    power = base**exponent
    if isinstance(power, complex):
        raise ValueError("the power is not a real number")
    return _bounded(power)


def _bounded(number: Number) -> Number:
    if isinstance(number, float) and not math.isfinite(number):
        raise ValueError("the number is too large")
    if isinstance(number, int) and number.bit_length() > LARGEST:
        raise ValueError(f"the number has more than {LARGEST} bits")
    return number
