"""Files to documents: which files a folder holds, what each says, and all of them in processes of their own.

A parser in C that crashes or never ends costs the file it read and nothing else; pdfium is not thread-safe, so files
are read side by side in processes only.
"""

import hashlib
import os
import re
import stat
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path

import programs
from programs.documents import JOURNAL
from programs.documents.document import Document, ReadError, Unreadable
from programs.documents.readers.docx import read_docx
from programs.documents.readers.epub import read_epub
from programs.documents.readers.html import read_html
from programs.documents.readers.kind import kind_of
from programs.documents.readers.mail import read_mail
from programs.documents.readers.markdown import read_markdown
from programs.documents.readers.pdf import read_pdf
from programs.documents.readers.text import read_text
from programs.errors import ProgramError

SIZE_LIMIT = 500 << 20  # bytes of one file
TIME_LIMIT = 300.0  # seconds that one file may take
PROCESS = "programs.documents.read_process"
START_LIMIT = 120.0  # seconds that a process may take to start, on a machine that does much else
# What must not stand in a name that terminals and pages show: controls, changes of direction, half characters.
NOT_IN_NAMES = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def find_files(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """The files of folders and their folders, sorted, and the files given, each with the name that results give it:
    its path below the folder; for a file its own name; where two are equal, with their parents' names before them.

    Left out are hidden files, Office's lock files, the folders of jobs, and folders that were met before (links may
    lead in circles). Raises ProgramError for a path that is not there and for a folder without files.
    """
    found: dict[Path, tuple[str, ...]] = {}  # by absolute path, the parts of its name
    for path in paths:
        if not os.path.lexists(path):
            raise ProgramError(f"There is no file or folder {str(path)!r}.")
        if os.path.isdir(path):
            inside = sorted(_inside(path))
            if not inside:
                raise ProgramError(f"The folder {str(path)!r} holds no files.")
            for parts in inside:
                found.setdefault(Path(os.path.abspath(path.joinpath(*parts))), parts or (path.name,))
        else:
            found.setdefault(Path(os.path.abspath(path)), (path.name,))
    if not found:
        raise ProgramError("There is nothing to read: give a file or a folder.")
    return [(path, name) for path, name in zip(found, _names(found), strict=True)]


def _inside(folder: Path) -> Iterator[tuple[str, ...]]:
    """The parts of each file's path below a folder."""
    met: set[tuple[int, int]] = set()
    waiting: list[tuple[str, ...]] = [()]
    while waiting:
        parts = waiting.pop()
        try:
            here = folder.joinpath(*parts)
            known = here.stat()
            if (known.st_dev, known.st_ino) in met:
                continue
            met.add((known.st_dev, known.st_ino))
            entries = sorted(os.scandir(here), key=lambda entry: entry.name)
            if any(entry.name == JOURNAL for entry in entries):
                continue  # what a job wrote is no document
        except OSError:
            yield parts  # a folder that cannot be opened: reading it says why
            continue
        for entry in entries:
            if entry.name.startswith((".", "~$")):
                continue
            if os.path.isdir(entry.path):
                waiting.append((*parts, entry.name))
            else:
                yield (*parts, entry.name)


def _names(found: dict[Path, tuple[str, ...]]) -> list[str]:
    """A name for each file, no two equal."""
    lengths = {path: len(parts) for path, parts in found.items()}
    while True:
        counted = Counter(path.parts[-lengths[path] :] for path in found)
        twice = [path for path in found if counted[path.parts[-lengths[path] :]] > 1]
        if not twice:
            break
        for path in twice:  # two paths differ, so this ends
            lengths[path] += 1
    unique: dict[str, None] = {}
    for path in found:
        name = shown = NOT_IN_NAMES.sub("\ufffd", "/".join(path.parts[-lengths[path] :]))
        for number in count(2):  # some may differ only in what may not stand in a name
            if shown not in unique:
                break
            shown = f"{name} ({number})"
        unique[shown] = None
    return list(unique)


def read_file(path: Path, name: str, passwords: Sequence[str] = ()) -> Document:
    """Raises ReadError, one sentence that names the file, whatever is wrong with it."""
    content = _content(path, name)
    try:
        match kind_of(content, name):
            case "pdf":
                document = read_pdf(content, name, passwords)
            case "docx":
                document = read_docx(content, name)
            case "epub":
                document = read_epub(content, name)
            case "mail":
                document = read_mail(content, name)
            case "html":
                document = read_html(content, name)
            case "markdown":
                document = read_markdown(content, name)
            case "text":
                document = read_text(content, name)
    except ReadError:
        raise
    except MemoryError as error:
        raise ReadError(f"{name!r} needs more memory than a document is given: split it.") from error
    except RecursionError as error:
        raise ReadError(f"{name!r} is nested deeper than its reader can follow.") from error
    except Exception as error:  # what a parser does not bear is a damaged file, whatever it raises
        said = " ".join(str(error).split())[:200]
        raise ReadError(f"{name!r} is damaged: its reader failed ({type(error).__name__}: {said}).") from error
    if not document.text.strip() and not document.remarks:
        raise ReadError(f"{name!r} holds no text.")
    return document


def _content(path: Path, name: str) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            if path.is_dir():
                os.scandir(path).close()
            raise ReadError(f"{name!r} is no file.")
        with path.open("rb") as file:
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise ReadError(f"{name!r} cannot be read: {error.strerror or error}.") from error
    if len(content) > SIZE_LIMIT:
        raise ReadError(f"{name!r} is larger than {SIZE_LIMIT >> 20} MB: split it.")
    if not content:
        raise ReadError(f"{name!r} is empty.")
    return content


def read_all(
    files: Sequence[tuple[Path, str]], passwords: Sequence[str] = (), workers: int = 1
) -> Iterator[Document | Unreadable]:
    """Each file's document, or why there is none, in the order given; read in `workers` processes.

    Raises ProgramError where no process can be started.
    """
    readers = [_Reader(passwords) for _ in range(max(1, min(workers, len(files))))]
    ready: dict[int, Document | Unreadable] = {}
    begun = given = 0
    try:
        while given < len(files):
            for reader in readers:
                # What is read ahead of a slow taker stays in memory, so it is little.
                if reader.index is None and begun < min(len(files), given + 2 * len(readers)):
                    reader.begin(begun, *files[begun])
                    begun += 1
            if given in ready:
                yield ready.pop(given)
                given += 1
                continue
            busy = [reader for reader in readers if reader.index is not None]
            wait(
                [reader.connection for reader in busy],
                max(0.0, min(reader.until for reader in busy) - time.monotonic()),
            )
            for reader in busy:
                if (result := reader.result()) is not None:
                    ready[result[0]] = result[1]
    finally:
        for reader in readers:
            reader.stop()


class _Reader:
    """A process that reads one file at a time, started anew when one has ended it. `index`: of the file it is at."""

    connection: Connection

    def __init__(self, passwords: Sequence[str]):
        self._passwords = tuple(passwords)
        self._process: subprocess.Popen[bytes] | None = None
        self._path = Path()
        self._name = ""
        self.index: int | None = None
        self.until = 0.0

    def begin(self, index: int, path: Path, name: str) -> None:
        if self._process is None:
            self._start()
        self.index, self._path, self._name = index, path, name
        self.until = time.monotonic() + TIME_LIMIT
        try:
            self.connection.send((path, name, self._passwords, TIME_LIMIT))
        except OSError:  # it has ended while it had nothing to do
            self.stop()
            self._start()
            self.connection.send((path, name, self._passwords, TIME_LIMIT))

    def result(self) -> tuple[int, Document | Unreadable] | None:
        """What came of the file, once it is known."""
        assert self.index is not None
        read: Document | Unreadable
        if self.connection.poll():
            try:
                read = self.connection.recv()
            except (EOFError, OSError):
                read = self._lost(f"{self._name!r} is damaged: its reader crashed.")
        elif time.monotonic() >= self.until:
            read = self._lost(f"{self._name!r} takes longer than {TIME_LIMIT:.0f} seconds to read: split it.")
        else:
            return None
        index, self.index = self.index, None
        return index, read

    def _lost(self, why: str) -> Unreadable:
        self.stop()
        return Unreadable(self._name, why, sha256_of(self._path))

    def _start(self) -> None:
        ours, theirs = Pipe()
        # A folder of documents may hold an email.py, which must not be what Python imports: -P keeps the current folder
        # out of the path, and an empty entry would bring it back.
        own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        path = [str(Path(programs.__file__).parents[1]), *(entry for entry in own if os.path.isabs(entry))]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
        command = [sys.executable, "-P", "-m", PROCESS, str(theirs.fileno())]
        with tempfile.TemporaryFile() as said, theirs:
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
            theirs.close()
            self.connection = ours
            try:
                started = ours.poll(START_LIMIT) and ours.recv()
            except (EOFError, OSError):
                started = False
            if not started:
                self.stop()
                said.seek(0)
                last = said.read()[-1000:].decode("utf-8", "replace").strip().rpartition("\n")[2][:200]
                raise ProgramError(f"No process that reads documents can be started: {last or 'it gave no reason'}.")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self.connection.close()
            self._process = None


def sha256_of(path: Path) -> str:
    """Of a file's bytes; "" where it cannot be read, or is larger than what is."""
    try:
        if not stat.S_ISREG(path.stat().st_mode) or path.stat().st_size > SIZE_LIMIT:
            return ""
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
