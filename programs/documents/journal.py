"""The record of a job: every answer, kept in one SQLite file from the moment it was given.

An answer is kept by what it is an answer to: the text, the question and the settings, never by a place in a list. What
was written is never changed. A failure is kept apart from the answers, and goes when there is one.
"""

import hashlib
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from programs.documents.answer import Answer
from programs.errors import ProgramError

VERSION = "1"
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS failures (key TEXT PRIMARY KEY, reason TEXT NOT NULL, at TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, sha256 TEXT NOT NULL) STRICT;
"""

T = TypeVar("T")


def key_of(*what: Any) -> str:
    """The name of an answer: a hash of all that it depends on."""
    said = json.dumps([VERSION, *what], sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(said.encode()).hexdigest()


class Journal:
    """Answers by key. All methods may be called from several threads; every write is on disk when it returns.

    Raises ProgramError where the file is no journal, or cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._named():
            self._open = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        try:
            with self._named():
                self._open.execute("PRAGMA journal_mode=WAL")
                self._open.execute("PRAGMA synchronous=FULL")
                self._open.executescript(SCHEMA)
                self._open.execute("INSERT OR IGNORE INTO meta VALUES ('version', ?)", (VERSION,))
                (version,) = self._open.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
            if version != VERSION:
                raise ProgramError(f"The journal {str(path)!r} is of another version ({version}): give another --out.")
        except BaseException:
            self._open.close()
            raise

    def close(self) -> None:
        with self._lock:
            self._open.close()

    def answer(self, key: str) -> Answer | None:
        row = self._run(lambda db: db.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone())
        if row is None:
            return None
        try:
            return Answer.model_validate_json(row[0])
        except ValidationError as error:
            raise ProgramError(
                f"The journal {str(self._path)!r} holds an answer that cannot be read: it was changed by other means."
            ) from error

    def answered(self) -> set[str]:
        """The keys of all answers."""
        return {key for (key,) in self._run(lambda db: db.execute("SELECT key FROM answers").fetchall())}

    def keep(self, key: str, answer: Answer) -> None:
        """The first answer to a key stays."""
        said = answer.model_dump_json()

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT OR IGNORE INTO answers VALUES (?, ?, ?)", (key, said, _now()))
            db.execute("DELETE FROM failures WHERE key = ?", (key,))
            db.execute("COMMIT")

        self._run(write)

    def failed(self, key: str, reason: str) -> None:
        values = (key, reason, _now())
        self._run(lambda db: db.execute("INSERT OR REPLACE INTO failures VALUES (?, ?, ?)", values))

    def failure(self, key: str) -> str:
        """Why the last try at a key gave no answer, "" where none failed."""
        row = self._run(lambda db: db.execute("SELECT reason FROM failures WHERE key = ?", (key,)).fetchone())
        return row[0] if row else ""

    def files(self) -> dict[str, str]:
        """The hash of each file of the job's last run, by its path."""
        return dict(self._run(lambda db: db.execute("SELECT path, sha256 FROM files").fetchall()))

    def keep_files(self, files: Iterable[tuple[str, str]]) -> None:
        given = list(files)

        def write(db: sqlite3.Connection) -> None:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM files")
            db.executemany("INSERT OR REPLACE INTO files VALUES (?, ?)", given)
            db.execute("COMMIT")

        self._run(write)

    def seconds(self, more: float = 0.0) -> float:
        """How long all runs of the job took together, after adding `more`."""

        def write(db: sqlite3.Connection) -> float:
            row = db.execute("SELECT value FROM meta WHERE name = 'seconds'").fetchone()
            total = (float(row[0]) if row else 0.0) + more
            if more:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('seconds', ?)", (repr(total),))
            return total

        return self._run(write)

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self._lock, self._named():
            try:
                return work(self._open)
            except sqlite3.Error:
                if self._open.in_transaction:
                    self._open.execute("ROLLBACK")
                raise

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise ProgramError(
                f"The journal {str(self._path)!r} cannot be used ({error}): what it holds is kept; make room, "
                "then run the same command again."
            ) from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
