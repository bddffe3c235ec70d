"""Reading folders: every file is read or named with the reason, and no file costs another."""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from programs.documents import read as read_module
from programs.documents.document import Document, ReadError, Unreadable
from programs.documents.read import find_files, read_all, read_file
from programs.errors import ProgramError
from tests.documents.make_files import docx, epub, paragraph, zipped


def put(folder: Path, **files: str | bytes) -> None:
    """Files by name, with __ for / and _ for the dot before the suffix."""
    for name, content in files.items():
        path = folder.joinpath(*name.replace("_dot_", ".").split("__"))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def names(*paths: Path) -> list[str]:
    return [name for _, name in find_files(paths)]


def test_a_folder_gives_its_files_sorted_and_named_by_their_path_below_it(tmp_path: Path) -> None:
    put(tmp_path, b_dot_txt="b", a__c_dot_txt="c", a__b__d_dot_txt="d", _dot_hidden="h", a___dot_git__x="x")
    put(tmp_path, **{"~$a_dot_docx": "lock"})
    assert names(tmp_path) == ["a/b/d.txt", "a/c.txt", "b.txt"]
    assert names(tmp_path / "b.txt") == ["b.txt"]


def test_equal_names_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    put(tmp_path, one__readme_dot_md="1", two__readme_dot_md="2", two__other_dot_md="3")
    assert names(tmp_path / "one", tmp_path / "two") == ["one/readme.md", "other.md", "two/readme.md"]
    assert names(tmp_path / "one/readme.md", tmp_path / "one") == ["readme.md"]


def test_links_that_lead_in_circles_end_and_links_to_files_are_files(tmp_path: Path) -> None:
    put(tmp_path, a__b_dot_txt="b")
    (tmp_path / "a/up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "linked.txt").symlink_to("a/b.txt")
    assert names(tmp_path) == ["a/b.txt", "linked.txt", "self"]


def test_a_name_cannot_steer_a_terminal(tmp_path: Path) -> None:
    put(tmp_path, **{"a\x1b[31m\u202etxt": "x", "a\x9b[31m\u202etxt": "y"})
    (Path(os.fsencode(tmp_path).decode()) / os.fsdecode(b"\xff.txt")).write_text("z")
    assert names(tmp_path) == ["a\ufffd[31m\ufffdtxt", "a\ufffd[31m\ufffdtxt (2)", "\ufffd.txt"]


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    put(tmp_path, _dot_hidden="h")
    with pytest.raises(ProgramError, match="holds no files"):
        find_files([tmp_path])
    with pytest.raises(ProgramError, match="no file or folder"):
        find_files([tmp_path / "missing"])
    with pytest.raises(ProgramError, match="nothing to read"):
        find_files([])


def encrypted(archive: bytes) -> bytes:
    """With the mark that its members are."""
    marked = bytearray(archive)
    for header, flags in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        place = -1
        while (place := archive.find(header, place + 1)) >= 0:
            marked[place + flags] |= 1
    return bytes(marked)


WORD_97 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("x.bin", bytes(range(256)) * 8, "is of no format that is read: give PDF"),
        ("x.txt", b"", "is empty"),
        ("x.txt", b" \n\t\n", "holds no text"),
        ("x.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "is a picture (PNG)"),
        ("x.txt", b"\xff\xd8\xff\xe0" + bytes(50), "is a picture (JPEG)"),
        ("x.tar.gz", b"\x1f\x8b\x08\0rest", "is an archive (gzip): unpack it"),
        ("x.zip", zipped({"a.txt": "a"}), "is an archive (ZIP): unpack it"),
        ("x.xlsx", zipped({"xl/workbook.xml": "<a/>"}), "is an Excel workbook"),
        ("x.pptx", zipped({"ppt/presentation.xml": "<a/>"}), "is a presentation"),
        ("x.odt", zipped({"content.xml": "<a/>"}), "is an OpenDocument file"),
        ("x.doc", WORD_97 + "WordDocument".encode("utf-16-le"), "is a Word document of before 2007"),
        ("x.xls", WORD_97 + "Workbook".encode("utf-16-le"), "is an Excel workbook"),
        ("x.docx", WORD_97 + "EncryptedPackage".encode("utf-16-le"), "needs a password: save it without one"),
        ("x.docx", encrypted(docx(paragraph("text"))), "is encrypted and needs a password"),
        ("x.rtf", b"{\\rtf1 hello}", "is rich text (RTF)"),
        ("x.docx", docx(paragraph("text"))[:-60], "is damaged"),
        ("x.docx", b"PK\3\4 and then nothing", "is damaged"),
        ("x.docx", b"no archive at all", "is damaged"),
        ("x.pdf", b"no PDF at all", "is damaged"),
        ("x.epub", b"no book at all", "is damaged"),
        ("x.mp3", b"ID3\4\0\0\0", "is a recording"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_sentence_with_its_name(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ReadError) as refused:
        read_file(tmp_path / name, "folder/" + name)
    said = str(refused.value)
    assert said.startswith(f"'folder/{name}' ") and why in said and said.endswith(".") and said.count("\n") == 0


@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("x.txt", "text", "text"),
        ("x", "text without a suffix", "text"),
        ("x.py", 'page = "<html><p>in a string of code"', "text"),
        ("saved.txt", "<!DOCTYPE html><p>as its source", "text"),
        ("x.json", '{"a": 1}', "text"),
        ("x.csv", "a;b", "text"),
        ("x.log", "BM is how this log begins", "text"),
        ("x.md", "# Title", "markdown"),
        ("x.HTML", "<p>page", "html"),
        ("page", "<!DOCTYPE html><p>page", "html"),
        ("x.eml", "From: a@example.org\n\ntext", "mail"),
        ("wrong.txt", docx(paragraph("text")), "docx"),
        ("wrong.zip", epub({"a.xhtml": "<p>text</p>"}), "epub"),
    ],
)
def test_the_format_is_told_by_the_content_and_then_by_the_suffix(
    tmp_path: Path, name: str, content: str | bytes, format: str
) -> None:
    put(tmp_path, **{name: content})
    document = read_file(tmp_path / name, name)
    assert document.format == format and document.text.strip()
    assert document.sha256 == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def test_what_is_no_file_and_what_is_too_large_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ReadError, match="^'pipe' is no file"):
        read_file(tmp_path / "pipe", "pipe")
    put(tmp_path, x_dot_txt="more than ten bytes")
    monkeypatch.setattr(read_module, "SIZE_LIMIT", 10)
    with pytest.raises(ReadError, match="^'x.txt' is larger"):
        read_file(tmp_path / "x.txt", "x.txt")


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    put(tmp_path, bomb_dot_docx=zipped({"word/document.xml": b" " * (201 << 20)}))
    began = time.monotonic()
    with pytest.raises(ReadError, match="^'bomb.docx' is too large"):
        read_file(tmp_path / "bomb.docx", "bomb.docx")
    assert time.monotonic() - began < 5


def test_a_document_nested_without_end_is_refused_and_a_deep_one_is_read(tmp_path: Path) -> None:
    def nested(depth: int) -> bytes:
        return docx("<w:tbl><w:tr><w:tc>" * depth + paragraph("deep") + "</w:tc></w:tr></w:tbl>" * depth)

    put(tmp_path, deep_dot_docx=nested(20), deeper_dot_docx=nested(3_000), deepest_dot_docx=nested(100_000))
    deep, *others = read_all(find_files([tmp_path]))
    assert isinstance(deep, Document) and deep.text == "deep"
    assert [other.why for other in others if isinstance(other, Unreadable)] == [
        f"'{name}.docx' is nested deeper than its reader can follow." for name in ("deeper", "deepest")
    ]


def test_files_come_in_order_whatever_the_number_of_processes(tmp_path: Path) -> None:
    put(tmp_path, **{f"{number:02}_dot_txt": f"text {number}" for number in range(12)}, twin_dot_txt="text 3")
    files = find_files([tmp_path])
    texts = [
        [read.text for read in read_all(files, workers=workers) if isinstance(read, Document)] for workers in (1, 3)
    ]
    assert texts[0] == texts[1] == [f"text {number}" for number in range(12)] + ["text 3"]


def test_a_crash_and_a_hang_cost_the_file_that_did_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "PROCESS", "tests.documents.broken_process")
    monkeypatch.setattr(read_module, "TIME_LIMIT", 2.0)
    put(
        tmp_path,
        a_dot_txt="a",
        b_crash_dot_txt="b",
        c_dot_txt="c",
        d_hang_dot_txt="d",
        e_crash_dot_txt="e",
        f_dot_txt="f",
    )
    read = list(read_all(find_files([tmp_path]), workers=2))
    assert [type(each) for each in read] == [Document, Unreadable, Document, Unreadable, Unreadable, Document]
    crashed, hung = read[1], read[3]
    assert isinstance(crashed, Unreadable) and isinstance(hung, Unreadable)
    assert crashed.why == "'b_crash.txt' is damaged: its reader crashed."
    assert "takes longer than 2 seconds" in hung.why
    assert crashed.sha256 == hashlib.sha256(b"b").hexdigest()


def test_processes_end_with_the_reading_even_when_it_is_left_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def remember(*arguments, **named):
        started.append(popen(*arguments, **named))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", remember)
    put(tmp_path, **{f"{number}_dot_txt": "text" for number in range(6)})
    reading = read_all(find_files([tmp_path]), workers=2)
    next(reading)
    assert started and started[0].poll() is None
    reading.close()  # type: ignore[attr-defined]
    assert all(process.poll() == -signal.SIGKILL for process in started)


def test_a_process_that_cannot_start_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_module, "PROCESS", "no.such.module")
    put(tmp_path, a_dot_txt="a")
    with pytest.raises(ProgramError, match="can be started: .*No module named"):
        list(read_all(find_files([tmp_path])))


def test_a_module_in_the_folder_of_documents_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, email_dot_py="raise SystemExit('this must not run')", a_dot_txt="a")
    monkeypatch.chdir(tmp_path)
    assert [type(each) for each in read_all(find_files([Path(".")]))] == [Document, Document]


def test_readers_import_neither_torch_nor_sglang() -> None:
    check = "import sys, programs.documents.read; print({'torch', 'sglang'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "set()\n"


def test_what_a_job_wrote_is_no_document(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    job = tmp_path / "job"
    job.mkdir()
    for name in ("journal.sqlite", "report.html", "results.csv"):
        (job / name).write_text("what a job wrote")
    assert [name for _, name in find_files([tmp_path])] == ["a.txt"]
    assert [name for _, name in find_files([job / "results.csv"])] == ["results.csv"]  # unless it is meant
    with pytest.raises(ProgramError, match="holds no files"):
        find_files([job])
