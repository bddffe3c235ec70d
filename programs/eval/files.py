"""A run as files: results.csv, summary.json and accuracy.png, each written whole or not at all."""

import csv
import io
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from programs.errors import ProgramError
from programs.eval.notes import as_json
from programs.eval.picture import picture
from programs.eval.run import Run
from programs.eval.summary import Summary, cost, rules
from programs.eval.usage import Prices
from programs.files import write_whole

_PLAIN_NUMBER = re.compile(r"[+-]?[0-9]+([.,][0-9]+)*")
# What makes spreadsheets read a cell as a formula (OWASP, "CSV Injection"), full-width forms too.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")  # would steer a terminal
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
COLUMNS = (
    "line", "kind", "document_id", "repeat", "model", "effort", "outcome", "score", "reason", "question", "expected",
    "answer", "trace", "seconds", "prompt_tokens", "cached_tokens", "output_tokens", "completion_tokens",
    "trace_tokens", "total_tokens", "counting_rule", "answer_characters", "trace_characters", "ended_at_limit",
    "trace_between_tags", "cost", "extra",
)  # fmt: skip


def prepare(folder: Path) -> None:
    """Makes the folder, before anything is asked. Raises ProgramError where nothing can be written to it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ProgramError(f"Nothing can be written to {str(folder)!r}: {error.strerror or error}.") from error


def write(folder: Path, run: Run, summary: Summary, prices: Sequence[Prices | None], broken: tuple[str, ...]) -> None:
    """Replaces what an earlier run left there. Raises ProgramError where the disk does not take it."""
    try:
        write_whole(folder / "results.csv", _csv(run, prices).encode(errors="replace"))
        document = as_json(run, summary, broken)
        write_whole(
            folder / "summary.json", json.dumps(document, indent=1, ensure_ascii=True, allow_nan=False).encode()
        )
        write_whole(folder / "accuracy.png", picture(summary))
    except OSError as error:
        raise ProgramError(f"The results cannot be written to {str(folder)!r}: {error.strerror or error}.") from error


def _csv(run: Run, prices: Sequence[Prices | None]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    rule = rules(run)
    for number, arm in enumerate(run.arms):
        for row in (row for row in run.rows if row.arm == number):
            counts, reply = row.reply.counts, row.reply
            expected = row.case.answer
            cells: dict[str, Any] = {
                "line": row.case.number,
                "kind": row.case.kind,
                "document_id": row.case.document_id,
                "repeat": row.repeat + 1,
                "model": arm.name,
                "effort": arm.effort,
                "outcome": row.outcome,
                "score": row.score,
                "reason": row.reason,
                "question": row.case.question,
                "expected": expected if isinstance(expected, str) else json.dumps(expected, ensure_ascii=False),
                "answer": reply.answer,
                "trace": reply.trace,
                "seconds": round(reply.seconds, 4),
                "answer_characters": len(reply.answer),
                "trace_characters": len(reply.trace),
                "ended_at_limit": reply.at_limit,
                "trace_between_tags": reply.tagged,
                "cost": cost(row, rule(row), prices[number]),
                "extra": json.dumps(row.case.extra, ensure_ascii=False) if row.case.extra else "",
            }
            if counts:
                cells |= {
                    "prompt_tokens": counts.whole_prompt,
                    "cached_tokens": counts.cached,
                    "output_tokens": counts.output(rule(row)),
                    "completion_tokens": counts.completion,
                    "trace_tokens": counts.reasoning,
                    "total_tokens": counts.total,
                    "counting_rule": rule(row),
                }
            writer.writerow({name: safe_cell(value) for name, value in cells.items()})
    return text.getvalue()


def safe_cell(value: Any) -> Any:
    """Text that a spreadsheet would run as a formula begins with an apostrophe; plain numbers stay as they are."""
    if not isinstance(value, str):
        return value
    value = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", value)
    begins = value.lstrip(" \u00a0\u200b\ufeff")[:1] or value[:1]
    return f"'{value}" if begins in _FORMULA and begins and not _PLAIN_NUMBER.fullmatch(value) else value
