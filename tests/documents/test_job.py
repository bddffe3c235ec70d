"""A job's folder: what is left is asked, what was answered stays, and what is not its own is left alone."""

import errno
import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from programs.documents import job
from programs.documents.answer import Answer, Cost
from programs.documents.job import Job, Outcome
from programs.documents.question import Question
from programs.documents.settings import Settings
from programs.documents.spec import Spec
from programs.errors import ProgramError
from programs.files import write_whole
from tests.documents.make_pdf import Raw, lines, picture


class Asked:
    """A runner that answers everything with the question and the text, and keeps what it was asked."""

    def __init__(self, fails=lambda unit: False, stops_after: int | None = None) -> None:
        self.units, self._fails, self._stops = [], fails, stops_after

    def __call__(self, units):
        for unit in units:
            if self._stops is not None and len(self.units) == self._stops:
                return
            self.units.append(unit)
            if self._fails(unit):
                yield Outcome(unit, None, "The server failed.")
            else:
                said = f"{unit.question.question} {unit.document.text[:10]}"
                yield Outcome(
                    unit, Answer(answer=said, value=said, state="answered", effort="none", cost=Cost(requests=2))
                )

    @property
    def pairs(self) -> set[tuple[str, str]]:
        return {(unit.document.name, unit.question.question) for unit in self.units}


@pytest.fixture
def folder(tmp_path) -> Path:
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in "abc":
        (docs / f"{name}.txt").write_text(f"{name}: a document about {name}\n")
    return docs


def spec(folder: Path, *questions: str, **settings) -> Spec:
    asked = tuple(Question(question=question) for question in questions)
    return Spec(documents=(str(folder),), questions=asked, settings=Settings(**settings))


def run(out: Path, given: Spec, asked: Asked, context=32_768):
    with Job.open(out, given) as opened:
        list(opened.read())
        opened.plan_for("model", context, lambda text: len(text.split()))
        list(opened.run(asked))
        results = opened.results()
        opened.write(results)
    return results


def test_a_second_run_asks_nothing(folder, tmp_path):
    first, second = Asked(), Asked()
    run(tmp_path / "out", spec(folder, "one?", "two?"), first)
    results = run(tmp_path / "out", Spec(), second)
    assert len(first.pairs) == 6 and not second.units
    assert len(results.rows) == 6 and all(row.answer for row in results.rows)
    assert {path.name for path in (tmp_path / "out").iterdir()} >= {
        "job.toml",
        "results.jsonl",
        "results.csv",
        "report.html",
    }


def test_what_was_not_asked_before_a_stop_is_asked_after_it(folder, tmp_path):
    first, second = Asked(stops_after=2), Asked()
    run(tmp_path / "out", spec(folder, "one?", "two?"), first)
    run(tmp_path / "out", spec(folder, "one?", "two?"), second)
    assert len(first.units) == 2 and len(second.units) == 4 and not first.pairs & second.pairs


def test_failures_alone_are_asked_again(folder, tmp_path):
    first, second = Asked(lambda unit: unit.document.name == "b.txt"), Asked()
    results = run(tmp_path / "out", spec(folder, "one?", "two?"), first)
    assert [row.failure for row in results.rows if row.answer is None] == ["The server failed."] * 2
    run(tmp_path / "out", spec(folder, "one?", "two?"), second)
    assert second.pairs == {("b.txt", "one?"), ("b.txt", "two?")}


def test_inserting_deleting_and_reordering_questions_asks_the_new_ones_alone(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?", "two?", "three?"), Asked())
    asked = Asked()
    results = run(tmp_path / "out", spec(folder, "three?", "new?", "one?"), asked)
    assert asked.pairs == {(f"{name}.txt", "new?") for name in "abc"}
    assert [row.question.question for row in results.rows[:3]] == ["three?", "new?", "one?"]
    assert all(row.answer.answer.startswith(row.question.question) for row in results.rows)


def test_a_changed_file_is_asked_again_and_a_renamed_one_is_not(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?"), Asked())
    (folder / "a.txt").rename(folder / "z.txt")
    (folder / "b.txt").write_text("b: changed\n")
    asked = Asked()
    results = run(tmp_path / "out", spec(folder, "one?"), asked)
    assert asked.pairs == {("b.txt", "one?")}
    assert [row.document for row in results.rows] == ["b.txt", "c.txt", "z.txt"]


def test_another_effort_asks_anew_where_it_applies(folder, tmp_path):
    given = spec(folder, "one?")
    given = given.model_copy(update={"questions": (*given.questions, Question(question="two?", effort="none"))})
    run(tmp_path / "out", given, Asked())
    asked = Asked()
    run(tmp_path / "out", given.model_copy(update={"settings": Settings(effort="high")}), asked)
    assert asked.pairs == {(f"{name}.txt", "one?") for name in "abc"}


def test_settings_that_a_later_command_does_not_name_stay(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?", temperature=0.0, effort="high"), Asked())
    asked = Asked()
    run(tmp_path / "out", Spec(questions=(Question(question="one?"),)), asked)
    assert not asked.units


def test_equal_documents_are_asked_once(folder, tmp_path):
    (folder / "copy.txt").write_bytes((folder / "a.txt").read_bytes())
    asked = Asked()
    results = run(tmp_path / "out", spec(folder, "one?"), asked)
    assert len(asked.units) == 3 and all(row.answer for row in results.rows) and len(results.rows) == 4


def test_a_long_document_is_asked_part_by_part_and_joined(folder, tmp_path):
    (folder / "a.txt").write_text("\n\n".join(f"paragraph {n} " + "word " * 50 for n in range(100)))
    first, second = Asked(), Asked()
    results = run(tmp_path / "out", spec(folder, "one?", part_tokens=1000), first)
    parts = [unit for unit in first.units if unit.document.name == "a.txt" and not unit.parts]
    (join,) = [unit for unit in first.units if unit.parts]
    assert len(parts) == len(join.parts) > 4
    assert all(row.answer for row in results.rows)
    run(tmp_path / "out", Spec(), second)
    assert not second.units


def test_a_part_that_failed_keeps_its_document_open_and_is_asked_again_alone(folder, tmp_path):
    (folder / "a.txt").write_text("\n\n".join(f"paragraph {n} " + "word " * 50 for n in range(100)))
    results = run(tmp_path / "out", spec(folder, "one?", part_tokens=1000), Asked(lambda unit: unit.part.number == 3))
    (failure,) = [row.failure for row in results.rows if not row.answer]
    assert failure.startswith("part 3 of ") and failure.endswith(": The server failed.")
    second = Asked()
    run(tmp_path / "out", Spec(), second)
    assert len(second.units) == 2 and second.units[1].parts


def test_the_journal_is_byte_equal_after_a_resume(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?", "two?"), Asked(stops_after=3))

    def rows() -> list[tuple]:
        import sqlite3

        with sqlite3.connect(tmp_path / "out" / "journal.sqlite") as db:
            return db.execute("SELECT * FROM answers ORDER BY at, key").fetchall()

    before = rows()
    run(tmp_path / "out", Spec(), Asked())
    assert len(before) == 3 and set(before) <= set(rows()) and len(rows()) == 6


def test_a_folder_with_other_things_is_left_alone(folder, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(ProgramError, match="holds no job"):
        Job.open(out, spec(folder, "one?"))
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]


def test_a_folder_of_a_job_over_other_documents_is_left_alone(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?"), Asked())
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").write_text("something else\n")
    before = digest(tmp_path / "out")
    with pytest.raises(ProgramError, match="belongs to a job over other documents"):
        run(tmp_path / "out", spec(other, "one?"), Asked())
    assert digest(tmp_path / "out") == before


def test_a_refused_command_changes_nothing_of_the_job(folder, tmp_path):
    run(tmp_path / "out", spec(folder, "one?"), Asked())
    before = digest(tmp_path / "out")
    with Job.open(tmp_path / "out", spec(folder, "another?")) as opened:
        list(opened.read())
        opened.plan_for("model", 32_768, len)
    assert digest(tmp_path / "out") == before


def test_documents_that_cannot_be_read_do_not_make_two_jobs_one(folder, tmp_path):
    (folder / "gone.txt").symlink_to("nowhere")
    run(tmp_path / "out", spec(folder, "one?"), Asked())
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.txt").symlink_to("nowhere")
    with pytest.raises(ProgramError, match="belongs to a job over other documents"):
        run(tmp_path / "out", spec(other, "one?"), Asked())


def test_a_file_whose_name_is_not_utf8_is_read_like_any_other(folder, tmp_path):
    (folder / os.fsdecode(b"d\xff.txt")).write_text("d: a document\n")
    asked = Asked()
    run(tmp_path / "out", spec(folder, "one?"), asked)
    results = run(tmp_path / "out", Spec(), asked)
    assert len(asked.units) == 4 and all(row.answer for row in results.rows)


def test_a_document_given_by_a_name_that_is_not_utf8_is_refused_in_a_sentence(folder, tmp_path):
    path = folder / os.fsdecode(b"d\xff.txt")
    path.write_text("d: a document\n")
    with pytest.raises(ProgramError, match="not UTF-8: rename it, or give the folder"):
        run(tmp_path / "out", spec(path, "one?"), Asked())


def test_what_jobs_wrote_inside_the_documents_folder_is_no_document(folder, tmp_path):
    for out in ("one", "two"):
        results = run(folder / out, spec(folder, "one?"), Asked())
        assert {document.name for document in results.documents} == {"a.txt", "b.txt", "c.txt"}


def test_results_that_find_no_room_leave_the_answers_and_say_so(folder, tmp_path, monkeypatch):
    def full(path, content):
        if path.name == "results.jsonl":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_whole(path, content)

    monkeypatch.setattr(job, "write_whole", full)
    with pytest.raises(ProgramError, match="the answers are in the journal; make room"):
        run(tmp_path / "out", spec(folder, "one?"), Asked())
    monkeypatch.undo()
    again = Asked()
    run(tmp_path / "out", Spec(), again)
    assert not again.units


def digest(folder: Path) -> dict[str, str]:
    names = ("job.toml", "results.jsonl", "results.csv", "report.html")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def test_two_processes_do_not_work_on_one_job(folder, tmp_path):
    with Job.open(tmp_path / "out", spec(folder, "one?")):
        code = f"""
from pathlib import Path
from programs.documents.job import Job
from programs.documents.spec import Spec
Job.open(Path({str(tmp_path / "out")!r}), Spec())
"""
        second = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=False
        )
        assert second.returncode and "Another process works on the job" in second.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Spec(), "No documents are given"),
        (Spec(documents=("x",)), "No question is given"),
    ],
)
def test_a_job_without_documents_or_questions_is_refused(tmp_path, given, said):
    with pytest.raises(ProgramError, match=said):
        Job.open(tmp_path / "out", given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[[questions]", "documents = 7\n", 'colour = "red"\n', "\xff"])
def test_a_broken_job_file_is_named(folder, tmp_path, content):
    run(tmp_path / "out", spec(folder, "one?"), Asked())
    (tmp_path / "out" / "job.toml").write_bytes(content.encode("latin-1"))
    with pytest.raises(ProgramError, match="cannot be read") as error:
        Job.open(tmp_path / "out", Spec())
    assert "\n" not in str(error.value)


def test_the_job_file_reads_back_as_it_was_written(folder, tmp_path):
    schema = {"type": "object", "properties": {"fee": {"enum": [1, None]}}}
    given = Spec(
        documents=(str(folder.resolve()),),
        questions=(
            Question(question='"quoted" \\ and\nlines?', id="a"),
            Question(question="b?", output="json", schema=schema, effort="high"),
            Question(question="c?", output="choice", choices=("yes", "no")),
        ),
        settings=Settings(effort="auto", temperature=0.5),
    )
    given.write(tmp_path / "job.toml")
    assert Spec.read(tmp_path / "job.toml") == given


def test_a_document_without_text_is_not_asked_and_said(folder, tmp_path):
    (folder / "d.txt").write_text(" \n \n")
    asked = Asked()
    results = run(tmp_path / "out", spec(folder, "one?"), asked)
    assert all(unit.document.name != "d.txt" for unit in asked.units)
    assert not any(row.document == "d.txt" and row.answer for row in results.rows)


def scan(folder: Path) -> None:
    made = Raw()
    made.image("Im1", bytes(range(256)) * 4, 32, 32)
    for operators in (lines(["The first page has a text."], 72, 700), picture(0, 0, 595, 842)):
        made.page(operators)
    (folder / "scan.pdf").write_bytes(made.bytes)


def read(out: Path, given: Spec) -> Job:
    job = Job.open(out, given)
    list(job.read())
    return job


def test_pages_without_text_are_drawn_where_that_is_asked_for(folder, tmp_path):
    scan(folder)
    with read(tmp_path / "out", spec(folder, "one?")) as job:
        drawn = job.draw_unread()
    ((name, (path,)),) = drawn.items()
    assert name == "scan.pdf" and path.endswith("page-2.png")
    assert (tmp_path / "out" / path).read_bytes().startswith(b"\x89PNG")


def test_a_disk_that_has_no_room_for_pages_is_named(folder, tmp_path, monkeypatch):
    scan(folder)

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("programs.documents.job.write_whole", full)
    with read(tmp_path / "out", spec(folder, "one?")) as job, pytest.raises(ProgramError, match="leave out --page"):
        job.draw_unread()
