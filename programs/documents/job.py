"""A job: many questions on many documents, in a folder that knows what was answered.

    job.toml        what is asked: documents, questions, settings
    journal.sqlite  every answer from the moment it was given
    results.jsonl, results.csv, report.html, pages/   written anew at the end of each run

Stopping a job at any moment loses nothing, and opening its folder again leaves to be done what is not in the journal.
Here is what is to be asked; run.py asks it.
"""

import fcntl
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from programs.documents import JOURNAL
from programs.documents.answer import Answer
from programs.documents.document import Document, ReadError, Unreadable
from programs.documents.journal import Journal, key_of
from programs.documents.plan import Budget, Count, Part, Planned, parts_of
from programs.documents.question import Question
from programs.documents.read import find_files, read_all
from programs.documents.readers.pdf import page_image
from programs.documents.report import render
from programs.documents.results import Results, Row, csv_table, jsonl
from programs.documents.spec import Spec
from programs.errors import ProgramError
from programs.files import write_whole

SPEC, LOCK, PAGES = "job.toml", ".lock", "pages"


@dataclass(frozen=True)
class Unit:
    """One thing to ask: a question on a part of a document or, with `parts`, one answer to make of those of all parts.
    `key` is what the journal keeps it by."""

    key: str
    document: Document
    part: Part
    question: Question
    parts: tuple[Answer, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What came of a unit: an answer, or the reason why there is none."""

    unit: Unit
    answer: Answer | None
    failure: str = ""


Runner = Callable[[Sequence[Unit]], Iterator[Outcome]]


class Job:
    """The job of a folder; `with Job.open(..) as job:` holds it for this process alone.

    In order: `read`, then `plan_for` the model that will be asked, then `run`, then `write`; what is asked is stored
    from `run` on. Raises ProgramError for a folder that is none of its own, for one that another process works on, and
    for a disk that is full.
    """

    def __init__(self, folder: Path, spec: Spec, journal: Journal, lock: int) -> None:
        self.folder, self.spec = folder, spec
        self.documents: tuple[Document, ...] = ()
        self.unreadable: tuple[Unreadable, ...] = ()
        self._journal, self._lock = journal, lock
        self._paths: dict[str, Path] = {}
        self._kept = False
        self._plans: dict[str, tuple[Part, ...]] = {}  # by the text's hash
        self._hashes: dict[tuple[str, int, int], str] = {}
        self.model, self.budget = "", Budget(0, 0, 0)  # of the model that is asked, from `plan_for` on

    @staticmethod
    def is_in(folder: Path) -> bool:
        """Whether the folder holds a job."""
        return (folder / SPEC).exists()

    @classmethod
    def open(cls, folder: Path, given: Spec) -> Self:
        """Make the job, or go on with the one that the folder holds, with what `given` says differently."""
        try:
            if not folder.exists():
                given.check()  # before anything is made
            folder.mkdir(parents=True, exist_ok=True)
            others = [path for path in folder.iterdir() if not path.name.startswith((JOURNAL, LOCK))]
            if others and not cls.is_in(folder):
                raise ProgramError(f"The folder {str(folder)!r} is not empty and holds no job: give another --out.")
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise ProgramError(
                f"The folder {str(folder)!r} cannot be used ({error.strerror or error}): give another --out."
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ProgramError(
                    f"Another process works on the job in {str(folder)!r}: wait for its end, or give another --out."
                ) from error
            stored = Spec.read(folder / SPEC) if cls.is_in(folder) else None
            spec = given if stored is None else stored.changed(given)
            spec.check()
            journal = Journal(folder / JOURNAL)
        except BaseException:
            os.close(lock)
            raise
        return cls(folder, spec, journal, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._journal.close()
        os.close(self._lock)

    def read(self, passwords: Sequence[str] = (), workers: int = 1) -> Iterator[Document | Unreadable]:
        """Read the documents, giving each as it is there."""
        files = find_files([Path(path) for path in self.spec.documents])
        self._paths = {name: path for path, name in files}
        read = []
        for document in read_all(files, passwords, workers):
            read.append(document)
            yield document
        self.documents = tuple(each for each in read if isinstance(each, Document))
        self.unreadable = tuple(each for each in read if isinstance(each, Unreadable))
        self._refuse_others()

    def plan_for(self, model: str, context: int | None, count: Count) -> tuple[Planned, ...]:
        """What goes to `model` of so large a context, whose tokens `count` counts."""
        questions = self._asked()
        self.model, self.budget = model, self.spec.settings.tokens(context)
        room = self.budget.room(questions, count)
        for document in self.documents:
            if document.text_sha256 not in self._plans:
                self._plans[document.text_sha256] = parts_of(document, room, self.budget.overlap, count)
        todo = Counter(unit.document.text_sha256 for unit in self.units())
        return tuple(
            Planned(document.name, self._plans[document.text_sha256], todo.pop(document.text_sha256, 0))
            for document in self.documents
        )

    def units(self) -> list[Unit]:
        """What is still to be asked of the parts, document by document and part by part, so that each is read once."""
        todo: dict[str, Unit] = {}
        asked, answered = self._asked(), self._journal.answered()
        for document in self._distinct():
            parts = self._plans[document.text_sha256]
            left = [question for question in asked if self._key(document, parts, question) not in answered]
            for part in parts:
                for question in left:
                    key = self._part_key(document, part, question)
                    if key not in answered:
                        todo.setdefault(key, Unit(key, document, part, question))
        return list(todo.values())

    def joins(self) -> list[Unit]:
        """The answers that are still to be made of those of all parts."""
        todo: dict[str, Unit] = {}
        asked, answered = self._asked(), self._journal.answered()
        for document in self._distinct():
            parts = self._plans[document.text_sha256]
            for question in asked if len(parts) > 1 else ():
                key = self._key(document, parts, question)
                if key not in answered:
                    answers = [self._journal.answer(self._part_key(document, part, question)) for part in parts]
                    found = tuple(answer for answer in answers if answer is not None)
                    if len(found) == len(parts):
                        todo.setdefault(key, Unit(key, document, parts[0], question, found))
        return list(todo.values())

    def run(self, runner: Runner) -> Iterator[Outcome]:
        """Ask what is left, keeping each answer before it is given out."""
        self._keep()
        began = datetime.now(UTC)
        try:
            for units in (self.units, self.joins):
                for outcome in runner(units()):
                    if outcome.answer is not None:
                        self._journal.keep(outcome.unit.key, outcome.answer)
                    else:
                        self._journal.failed(outcome.unit.key, outcome.failure)
                    yield outcome
        finally:
            self._journal.seconds((datetime.now(UTC) - began).total_seconds())

    def results(self, page_images: dict[str, tuple[str, ...]] | None = None) -> Results:
        """Every question on every document, as far as the journal has come."""
        return Results(
            title=self.folder.resolve().name,
            model=self.model,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            documents=self.documents,
            unreadable=self.unreadable,
            questions=self._asked(),
            rows=tuple(self._rows()),
            seconds=self._journal.seconds(),
            page_images=page_images or {},
        )

    def write(self, results: Results) -> None:
        """The results' files, each whole or not at all."""
        self._keep()
        files = {
            "results.jsonl": jsonl(results),
            "results.csv": csv_table(results),
            "report.html": render(results).encode(),
        }
        for name, content in files.items():
            try:
                write_whole(self.folder / name, content)
            except OSError as error:
                raise ProgramError(
                    f"The file {str(self.folder / name)!r} could not be written ({error.strerror or error}): the "
                    "answers are in the journal; make room, then run the same command again."
                ) from error

    def draw_unread(self, passwords: Sequence[str] = ()) -> dict[str, tuple[str, ...]]:
        """Pictures of the PDF pages that gave no text, in the job's folder; their paths below it, by document."""
        drawn: dict[str, tuple[str, ...]] = {}
        for place, document in enumerate(self.documents, 1):
            pages = [remark.page for remark in document.unread if remark.page] if document.format == "pdf" else []
            if not pages:
                continue
            names = []
            try:
                content = self._paths[document.name].read_bytes()
                (self.folder / PAGES).mkdir(exist_ok=True)
                for page in pages:
                    name = f"{PAGES}/{place}-page-{page}.png"
                    with suppress(ReadError):  # a page that cannot be drawn either is unread as it was
                        write_whole(self.folder / name, page_image(content, page, passwords))
                        names.append(name)
            except OSError as error:
                raise ProgramError(
                    f"The pages of {document.name!r} could not be drawn ({error.strerror or error}): make room, or "
                    "leave out --page-images."
                ) from error
            if names:
                drawn[document.name] = tuple(names)
        return drawn

    def _asked(self) -> tuple[Question, ...]:
        return self.spec.asked()

    def _distinct(self) -> Iterable[Document]:
        return {document.text_sha256: document for document in self.documents if document.text.strip()}.values()

    def _rows(self) -> Iterator[Row]:
        asked = self._asked()
        for document in self.documents:
            parts = self._plans.get(document.text_sha256, ())
            for question in asked:
                if not document.text.strip():
                    yield Row(document.name, question, None, "The document has no text that could be read.")
                    continue
                key = self._key(document, parts, question)
                answer = self._journal.answer(key)
                failure = "" if answer else self._why(document, parts, question, key)
                yield Row(document.name, question, answer, failure)

    def _why(self, document: Document, parts: Sequence[Part], question: Question, key: str) -> str:
        """Why there is no answer, with the place of the failure; "" where it was not asked yet."""
        for part in parts:
            if reason := self._journal.failure(self._part_key(document, part, question)):
                return f"part {part.number} of {part.of}: {reason}" if part.of > 1 else reason
        return self._journal.failure(key)

    def _key(self, document: Document, parts: Sequence[Part], question: Question) -> str:
        if len(parts) == 1:
            return self._part_key(document, parts[0], question)
        return key_of("parts", [self._part_key(document, part, question) for part in parts])

    def _part_key(self, document: Document, part: Part, question: Question) -> str:
        said = question.model_dump(exclude={"id"}, by_alias=True)
        spent = [self.budget.trace, self.budget.answer, self.spec.settings.temperature]
        place = (document.text_sha256, part.start, part.end)
        if place not in self._hashes:
            self._hashes[place] = document.slice(part.start, part.end).text_sha256
        return key_of(self._hashes[place], said, spent, self.model)

    def _files(self) -> dict[str, str]:
        """The hash of each file by its path, in which bytes that are not UTF-8 are written out."""
        hashes = {each.name: each.sha256 for each in self.documents}
        hashes |= {each.name: each.sha256 for each in self.unreadable}
        return {
            os.fsencode(self._paths[name].resolve()).decode("utf-8", "backslashreplace"): sha256
            for name, sha256 in hashes.items()
        }

    def _refuse_others(self) -> None:
        """Refuses to go on with a job that was about other documents altogether."""
        before, files = self._journal.files(), self._files()
        same = set(before.values()) & set(files.values()) - {""}  # the hash of what could not be read
        if before and files and not before.keys() & files.keys() and not same:
            raise ProgramError(
                f"The folder {str(self.folder)!r} belongs to a job over other documents: give another --out."
            )

    def _keep(self) -> None:
        """Store what the job is about, once, for the run that goes on with it."""
        if not self._kept:
            self.spec.write(self.folder / SPEC)
            self._journal.keep_files(self._files().items())
            self._kept = True
