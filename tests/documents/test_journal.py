"""The journal: what was written stays, failures are no answers, and a full disk is said in words."""

import sqlite3
import threading

import pytest

from programs.documents.answer import Answer
from programs.documents.journal import Journal, key_of
from programs.errors import ProgramError


def answer(text: str) -> Answer:
    return Answer(answer=text, value=text, state="answered", effort="none")


@pytest.fixture
def journal(tmp_path):
    with_file = Journal(tmp_path / "journal.sqlite")
    yield with_file
    with_file.close()


def test_the_first_answer_to_a_key_stays(journal):
    journal.keep("k", answer("one"))
    journal.keep("k", answer("two"))
    assert journal.answer("k") == answer("one")


def test_a_failure_is_no_answer_and_goes_when_there_is_one(journal):
    journal.failed("k", "The server failed.")
    assert journal.answer("k") is None and journal.failure("k") == "The server failed."
    journal.keep("k", answer("one"))
    assert journal.failure("k") == ""


def test_an_answer_survives_a_process_that_does_not_close(journal, tmp_path):
    journal.keep("k", answer("ünï"))
    other = Journal(tmp_path / "journal.sqlite")
    assert other.answer("k") == answer("ünï")
    other.close()


def test_many_threads_write_at_once(journal):
    threads = [threading.Thread(target=journal.keep, args=(f"k{n}", answer(str(n)))) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(journal.answer(f"k{n}") == answer(str(n)) for n in range(40))


def test_a_key_depends_on_all_it_is_made_of_and_on_nothing_else():
    assert key_of("a", {"x": 1, "y": 2}) == key_of("a", {"y": 2, "x": 1}) != key_of("a", {"x": 1, "y": 3})


def test_a_file_that_is_no_journal_is_left_alone(tmp_path):
    path = tmp_path / "journal.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(ProgramError, match="cannot be used"):
        Journal(path)
    assert path.read_bytes() == b"not a database" * 100


def test_a_journal_of_another_version_is_refused(journal, tmp_path):
    with sqlite3.connect(tmp_path / "journal.sqlite") as db:
        db.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    with pytest.raises(ProgramError, match="another version"):
        Journal(tmp_path / "journal.sqlite")


def test_a_full_disk_is_said_and_what_was_kept_stays(journal):
    journal.keep("k", answer("one"))
    pages = journal._open.execute("PRAGMA page_count").fetchone()[0]
    journal._open.execute(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(ProgramError, match="make room"):
        for number in range(1000):
            journal.keep(f"more {number}", answer("x" * 10_000))
    assert journal.answer("k") == answer("one")


def test_the_keys_of_answers_are_told_and_those_of_failures_are_not(journal):
    journal.keep("k", answer("one"))
    journal.failed("l", "The server failed.")
    assert journal.answered() == {"k"}
