"""A summary in JSON, and what qualifies its figures, in sentences."""

import unicodedata
from dataclasses import asdict
from typing import Any

from programs.eval.run import Run
from programs.eval.statistics import FEWEST_CLUSTERS
from programs.eval.summary import Counting, Summary

FEW = 5  # of the reasons and of the broken lines that are shown


def as_json(run: Run, summary: Summary, broken: tuple[str, ...]) -> dict[str, Any]:
    """The summary in types that JSON has."""
    return {
        **asdict(summary),
        "complete": not any(run.missing) and not run.ended_by,
        "broken_lines": list(broken),
        "notes": notes(run, summary, broken),
    }


def notes(run: Run, summary: Summary, broken: tuple[str, ...]) -> list[str]:
    """What a reader must know beside the figures, one sentence each."""
    said = [
        "Of asked: right among all replies, so that empty, cut and failed ones are not right. Of answered: right among "
        "those that were scored. Intervals are 95 %, clustered by document (by question where there is none), with "
        "repeats averaged first."
    ]
    if len(summary.differences) > 1:
        said.append("The differences are not corrected for there being several.")
    said += [clean(sentence) for sentence in run.stopped]
    for column in summary.columns:
        name = clean(f"{column.name} at {column.effort}")
        if column.missing:
            said.append(f"{name}: {column.missing} of {column.missing + column.asked} questions have no reply.")
        if column.outcomes["empty"]:
            said.append(f"{name}: {column.at_limit} of {column.outcomes['empty']} empty replies ended at a limit.")
        if column.tagged:
            said.append(f"{name}: of {column.tagged} replies a trace between tags was taken out before scoring.")
        said += [f"{name}: {count} × {clean(why)}" for why, count in list(column.reasons.items())[:FEW]]
        if len(column.reasons) > FEW:
            said.append(f"{name}: {len(column.reasons) - FEW} other reasons are in the results.")
    said += [f"{clean(counting.name)}: {_counting(counting)}" for counting in summary.counting]
    shares = [share for column in summary.columns for share in (column.of_asked, column.of_answered) if share]
    if shares and (fewest := min(share.clusters for share in shares)) < FEWEST_CLUSTERS:
        said.append(
            f"Some intervals rest on {fewest} clusters (documents, or questions without one): below {FEWEST_CLUSTERS} "
            "an interval cannot be trusted; they are marked with a question mark."
        )
    if any(share.estimate in (0, 1) and share.low is not None for share in shares):
        said.append("Where all or none are right, the interval is Wilson's with each cluster as one observation.")
    said += [f"skipped: {clean(line)}" for line in broken[:FEW]]
    if len(broken) > FEW:
        said.append(f"skipped: {len(broken) - FEW} more lines.")
    return said


def _counting(counting: Counting) -> str:
    if not counting.seen:
        return "no reply reports its usage, so nothing is known of tokens and cost."
    replies = sum(counting.seen.values())
    missing = f"; {counting.without_usage} replies came without usage" if counting.without_usage else ""
    if not counting.traced:
        return f"no reply counts a trace, so completion tokens are billed as they are (rule unknown{missing})."
    seen = ", ".join(f"{rule} in {count}" for rule, count in counting.seen.items())
    says = {
        "inclusive": "completion tokens include the trace's, and are billed once",
        "exclusive": "completion tokens leave the trace's out, which are added once",
        "unknown": "no single rule shows for trace tokens; where none does, completion tokens are billed as they are",
    }
    return f"{says[counting.rule]} (rule {counting.rule}; of {replies} replies: {seen}{missing})."


def clean(text: str) -> str:
    """On one line, without anything that steers a terminal or turns the direction of its text."""
    spaced = text.replace("\n", " ").replace("\r", " ").replace("\t", " ")
    steers = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return "".join("\ufffd" if unicodedata.category(c) in steers else c for c in spaced)
