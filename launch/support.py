"""`small4 support`: a conversation over a folder's documents, each answer with the passages it rests on."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from launch.ask import GraphEffort
from launch.errors import LaunchError
from launch.server import serving
from launch.terminal import counting, dim_stderr, visible
from programs.documents.document import Document, Unreadable
from programs.documents.read import find_files, read_all
from programs.documents.support import Evidence, Support, Turn
from sgl_small4.errors import UserError
from sgl_small4.prompt.backend import Small4Backend

READERS = 2  # processes
SHOWN = 10  # lines that say what was not read


def support(
    folder: Path,
    questions: Sequence[str],
    effort: GraphEffort,
    passwords: Sequence[str],
    server: str | None,
    as_json: bool,
) -> int:
    """Answer `questions` as turns of one conversation over `folder`; without any, those that are typed, or piped in one
    a line. The exit code: 0, or 2 where a question failed, which is said and ends nothing.

    Answers with their sources go to standard output, the rest dim to standard error; `as_json`: an object a line for
    each question. Raises LaunchError, ProgramError and BackendError, each one sentence, where no conversation begins.
    """
    remarks, answers = dim_stderr(), Console(highlight=False, soft_wrap=True, markup=False)
    documents, unreadable = _read(folder, passwords, remarks)
    asked = failed = 0
    told = None if as_json else remarks
    with serving(server, "for this conversation", told) as url, Small4Backend(url) as backend:
        conversation = Support(documents, backend, effort, unreadable=unreadable)
        for line in _shortened(conversation.unread):
            remarks.print(visible(f"not read: {line}", ""))
        if not as_json:
            number = len(conversation.documents)
            remarks.print(f"{number} document{'s' * (number != 1)} to ask about")
        typed = not questions and sys.stdin.isatty()
        for question in questions or (_typed() if typed else _piped()):
            asked += 1
            if not (as_json or typed):
                remarks.print(visible(f"? {question}"))
            try:
                turn = conversation.ask(question)
            except UserError as error:
                failed += 1
                if as_json:
                    print(json.dumps({"question": question, "error": str(error)}), flush=True)
                else:
                    print(f"small4: {visible(str(error))}", file=sys.stderr)
                continue
            if as_json:
                print(json.dumps(turn.to_dict()), flush=True)
            else:
                _show(turn, answers, remarks)
    if not asked and not typed:
        raise LaunchError('No question is given: add -q "...", or pipe them in, one a line.')
    return 2 if failed else 0


def _read(folder: Path, passwords: Sequence[str], remarks: Console) -> tuple[list[Document], list[Unreadable]]:
    files = find_files([folder])
    documents, unreadable = list[Document](), list[Unreadable]()
    with counting("files read", remarks, not sys.stderr.isatty()) as bar:
        task = bar.add_task("", total=len(files))
        for read in read_all(files, passwords, READERS):
            if isinstance(read, Document):
                documents.append(read)
            else:
                unreadable.append(read)
            bar.advance(task)
    if not any(document.text.strip() for document in documents):
        why = f": {unreadable[0].why}" if unreadable else "."
        raise LaunchError(visible(f"None of the {len(files)} files in {str(folder)!r} gave a text{why}", ""))
    return documents, unreadable


def _typed() -> Iterator[str]:
    """What a person types, until the end of input; a question may be called back and changed."""
    import readline  # noqa: F401 - gives `input` its line editing

    while True:
        try:
            line = input("? ").strip()
        except EOFError:
            print()
            return
        if line:
            yield line


def _piped() -> Iterator[str]:
    for line in sys.stdin.buffer:
        if question := line.decode("utf-8-sig", "replace").strip():
            yield question


def _show(turn: Turn, answers: Console, remarks: Console) -> None:
    if turn.found:
        answers.print(visible(turn.answer))
        for source in turn.sources:
            answers.print(visible(f"  [{source.number}] {source.name}{'' if source.quoted else ' (not quoted)'}", ""))
            for evidence in turn.citations:
                if evidence.document == source.name and evidence.citation.verified:
                    answers.print(visible(f"      {_quoted(evidence)}", ""))
        for evidence in turn.citations:
            if not evidence.citation.verified:
                answers.print(visible(f"  not verified: {_quoted(evidence)}", ""))
    elif turn.state == "not found":
        answers.print("The documents do not hold the answer.")
        for line in _shortened(turn.qualified_by):
            answers.print(visible(f"  not read: {line}", ""))
    else:
        answers.print("No answer came of it: ask again, in other words or at another effort.")
    for remark in turn.remarks:
        remarks.print(visible(remark, ""))
    if turn.removed_references:
        remarks.print(f"{turn.removed_references} references to no document were removed")
    usage = turn.usage
    sure = "" if turn.confidence is None else f", confidence {turn.confidence:.2f}"
    remarks.print(
        f"effort {turn.effort}: {usage.requests} requests, {usage.prompt_tokens} tokens in, {usage.cached_tokens} of "
        f"them cached, {usage.completion_tokens} out, {turn.seconds:.2f} s{sure}"
    )


def _quoted(evidence: Evidence) -> str:
    """A quote, where it stands and how exactly."""
    citation = evidence.citation
    quote = " ".join(citation.quote.split())
    said = f"“{quote}”"
    if citation.page is not None:
        said += f", page {citation.page}"
        said += f" (printed {citation.label})" if citation.label not in ("", str(citation.page)) else ""
    elif evidence.line is not None:
        said += f", line {evidence.line}"
    if citation.grade == "different":
        said += f": {evidence.document} says it differently"
    elif citation.grade == "absent":
        said += ": it is in none of the documents"
    elif citation.rules:
        said += f" (but for {', '.join(citation.rules)})"
    return said + (f" [{citation.hint}]" if citation.hint else "")


def _shortened(lines: Sequence[str]) -> list[str]:
    more = len(lines) - SHOWN
    return [*lines[:SHOWN], f"{more} more"] if more > 0 else list(lines)
