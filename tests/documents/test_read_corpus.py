"""A folder of real documents, read whole: every file is a document or named with the reason."""

from collections import Counter
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from launch.bench.corpus import BROKEN, make_corpus
from programs.documents.document import Document, Unreadable
from programs.documents.read import find_files, read_all


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    assert make_corpus(folder) == sum(path.is_file() for path in folder.rglob("*"))
    return folder


def test_every_file_of_a_real_folder_is_read_or_reported_by_name(corpus: Path) -> None:
    number = sum(path.is_file() for path in corpus.rglob("*"))
    files = find_files([corpus])
    assert number >= 40 and len(files) == number
    read = list(read_all(files, workers=2))
    assert [each.name for each in read] == [name for _, name in files]
    refused = [each for each in read if isinstance(each, Unreadable)]
    assert {each.name for each in refused} == {name for _, name in files if name.startswith(f"{BROKEN}/")}
    assert all(
        each.why.startswith(f"'{each.name}' ") and each.why.endswith(".") and "failed" not in each.why
        for each in refused
    )
    documents = [each for each in read if isinstance(each, Document)]
    assert set(Counter(each.format for each in documents)) == {
        "pdf",
        "docx",
        "html",
        "epub",
        "mail",
        "markdown",
        "text",
    }
    for document in documents:
        assert document.text.strip() or document.unread, document.name
        assert not {"\r", "\0"} & set(document.text), document.name
        assert all(document.text[each.start : each.end].strip() for each in document.headings), document.name
        assert document.coverage.endswith(".")


def test_what_a_manual_says_is_in_the_text_whatever_the_format(corpus: Path) -> None:
    formats = Counter[str]()
    for read in read_all(find_files([corpus / "manuals", corpus / "mail", corpus / "encodings"]), workers=2):
        assert isinstance(read, Document)
        manual = topics[Path(read.name).name.split(".")[0]]
        if read.format == "pdf":  # its fonts have Latin 1
            manual = manual.encode("latin-1", "replace").decode("latin-1")
        said = "".join(manual.split())
        assert said in "".join(read.text.split()), read.name
        formats[read.format] += 1
    assert formats == {"pdf": 6, "docx": 4, "text": 7, "mail": 3}
