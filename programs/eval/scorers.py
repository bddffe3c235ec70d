"""Whether an answer is right. A scorer is given the answer and the case, never the trace."""

import importlib.util
import json
import math
import unicodedata
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import regex

from programs.errors import ProgramError
from programs.eval.cases import Case
from programs.eval.choice import chosen
from programs.eval.number import last_number

Scorer = Callable[[str, Case], float]
REGEX_SECONDS = 1.0


class CannotScore(Exception):
    """Why this answer could not be scored; it counts as neither right nor wrong."""


def scorer(name: str) -> Scorer:
    """`exact`, `contains`, `number`, `choice`, `regex`, `json`, or `path.py:function`, called with the answer and the
    case's fields and giving a bool or a number from 0 to 1. Raises ProgramError where there is no such scorer."""
    if name in SCORERS:
        return SCORERS[name]
    path, _, function = name.rpartition(":")
    if path.endswith(".py"):
        return _users(Path(path), function)
    raise ProgramError(f"There is no scorer {name!r}: use one of {', '.join(SCORERS)} or path.py:function.")


def chooser(name: str | None, cases: Sequence[Case]) -> Callable[[Case], Scorer]:
    """The scorer of each case: `name` for all of them, else the one that its line names, else `exact`.

    A line may name only one of ours: a file of cases must not choose what Python runs here. Raises ProgramError.
    """
    if name is not None:
        one = scorer(name)
        return lambda case: one
    for case in cases:
        if case.scorer is not None and case.scorer not in SCORERS:
            raise ProgramError(
                f"Line {case.number} names the scorer {case.scorer!r:.80}: a line may name one of "
                f"{', '.join(SCORERS)}; correct it, or give --scorer, which then holds for every line."
            )
    return lambda case: SCORERS[case.scorer or "exact"]


def exact(answer: str, case: Case) -> float:
    """Equal to the case's answer, or to one of a list, after the ends are stripped and both are in Unicode's NFC."""
    return float(_normal(answer) in [_normal(expected) for expected in _expected(case)])


def contains(answer: str, case: Case) -> float:
    """The case's answer, or one of a list, stands somewhere in it."""
    return float(any(_normal(expected) in _normal(answer) for expected in _expected(case)))


def number(answer: str, case: Case) -> float:
    """The answer's last number equals the case's; see `last_number` for what is read as one."""
    given = last_number(answer)
    wanted = [last_number(expected) for expected in _expected(case)]
    if None in wanted:
        raise CannotScore(f"the case's answer {_expected(case)[wanted.index(None)]!r} holds no number")
    return float(given is not None and any(want is not None and given.equals(want) for want in wanted))


def choice(answer: str, case: Case) -> float:
    """The option that the answer settles on is the case's; see `chosen`."""
    return float(any(chosen(answer, expected, case.choices) for expected in _expected(case)))


def by_regex(answer: str, case: Case) -> float:
    """The case's answer is a pattern, and the whole stripped answer matches it within a second."""
    for pattern in _expected(case):
        try:
            if regex.fullmatch(pattern, answer.strip(), timeout=REGEX_SECONDS):
                return 1.0
        except regex.error as error:
            raise CannotScore(f"the pattern {pattern!r} is not valid: {error}") from error
        except TimeoutError as error:
            raise CannotScore(f"the pattern {pattern!r} took longer than {REGEX_SECONDS:g} s on the answer") from error
    return 0.0


def as_json(answer: str, case: Case) -> float:
    """Equal after reading: the order of keys does not count, 1 and 1.0 are equal, true and 1 are not. A fence of
    Markdown around the whole answer is taken off; text beside the JSON, or a key that stands twice, is wrong."""
    if isinstance(case.answer, str):
        try:
            wanted = _json(case.answer)
        except ValueError as error:
            raise CannotScore(f"the case's answer is not JSON: {error}") from error
    else:
        wanted = _json(json.dumps(case.answer))
    try:
        return float(_same(_json(_unfenced(answer)), wanted))
    except (ValueError, RecursionError):
        return 0.0


SCORERS: dict[str, Scorer] = {
    "exact": exact,
    "contains": contains,
    "number": number,
    "choice": choice,
    "regex": by_regex,
    "json": as_json,
}


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip()


def _expected(case: Case) -> list[str]:
    """The case's answers as text: a list holds several that are right."""
    answers = case.answer if isinstance(case.answer, list) else [case.answer]
    return [answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False) for answer in answers]


def _unfenced(answer: str) -> str:
    lines = answer.strip().split("\n")
    if len(lines) > 2 and lines[0].strip() in ("```", "```json", "```JSON") and lines[-1].strip() == "```":
        return "\n".join(lines[1:-1])
    return answer


def _json(text: str) -> Any:
    """Numbers as decimals, so that none is rounded. Raises ValueError for what is no JSON, NaN and Infinity too."""
    try:
        return json.loads(
            text, parse_int=_decimal, parse_float=_decimal, parse_constant=_no_number, object_pairs_hook=_object
        )
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation as error:
        raise ValueError("a number has too large an exponent") from error


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _same(one: Any, other: Any) -> bool:
    if type(one) is not type(other):  # true is no number here, though Python says that True == 1
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(value, other[key]) for key, value in one.items())
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _users(path: Path, name: str) -> Scorer:
    """The user's function, loaded once."""
    if not path.is_file():
        raise ProgramError(f"The scorer's file {str(path)!r} is not there: correct --scorer.")
    spec = importlib.util.spec_from_file_location(f"small4_scorer_{path.stem}", path)
    assert spec and spec.loader  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's file raises, SyntaxError too
        raise ProgramError(f"The scorer {str(path)!r} cannot be loaded: {type(error).__name__}: {error}.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise ProgramError(f"The file {str(path)!r} has no function {name!r}: correct --scorer.")

    def score(answer: str, case: Case) -> float:
        try:
            value = function(answer, dict(case.fields))
        except (Exception, SystemExit) as error:  # the user's code: counted with its reason, the run goes on
            raise CannotScore(f"{name} raised {type(error).__name__}: {error}") from error
        # numpy's booleans and floats are fine: anything that is a number in range
        try:
            points = float(value)
        except (TypeError, ValueError) as error:
            raise CannotScore(f"{name} gave {value!r}, neither true nor false nor a number") from error
        if not math.isfinite(points) or not 0 <= points <= 1:
            raise CannotScore(f"{name} gave {value!r}, which is not from 0 to 1")
        return points

    return score
