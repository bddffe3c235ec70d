"""Diffs in, findings out, on a scripted model: a review is only as good as its model."""

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xgrammar

from launch import review as command
from launch.errors import LaunchError
from launch.review import decoded, git_diff, to_dict
from launch.terminal import visible
from programs.errors import ProgramError
from programs.review import Review, review_diff
from programs.review.diff import LONGEST_LINE, Diff, read_diff
from programs.review.program import SCHEMA
from sgl_small4.prompt.backend import BackendError, Small4Backend, shown
from sgl_small4.prompt.constraint import check_constraint
from sgl_small4.prompt.grammar import grammar_vocabulary
from tests.programs.hostile import HOSTILE, controls_in
from tests.programs.scripted import ScriptServer, in_turn, prompts, says, served
from tests.prompt.scripted import EOS, FORMAT, Scripted

pytestmark = pytest.mark.filterwarnings("ignore:(?s)Error in stream_executor")  # the interpreter says it in long

DIFF = """\
diff --git a/sum.py b/sum.py
index 1111111..2222222 100644
--- a/sum.py
+++ b/sum.py
@@ -1,4 +1,6 @@
 def total(numbers):
-    return sum(numbers)
+    if not numbers:
+        return None
+    return sum(numbers) / 0
 
 print(total([1]))
"""
OTHER = """\
diff --git a/other.py b/other.py
--- a/other.py
+++ b/other.py
@@ -10,2 +10,3 @@ def other():
     a = 1
+    b = 2
     c = 3
"""


def read(text: str, budget: int = 10_000, count: Callable[[str], int] = len) -> Diff:
    return read_diff(text, budget, count)


def review(script: Scripted, diff: str = DIFF, **options: Any) -> Review:
    return review_diff(diff, backend=Small4Backend(script), **options)


def finding(file: str = "sum.py", line: Any = 4, severity: str = "error", reason: str = "It divides by zero.") -> Any:
    return {"file": file, "line": line, "severity": severity, "reason": reason}


def found(*findings: Any) -> list[int]:
    return says(json.dumps({"findings": findings}))


# The course of a review


def test_a_finding_at_a_shown_line_is_kept_and_says_whether_the_diff_adds_the_line():
    script = in_turn(found(finding(), finding(line=1, severity="info", reason="No docstring.")))
    result = review(script)
    assert to_dict(result)["findings"] == [
        {**finding(), "added": True},
        {**finding(line=1, severity="info", reason="No docstring."), "added": False},
    ]
    assert (result.unplaced, result.failed, result.skipped, result.reviewed) == ((), (), (), 1)
    assert result.usage.requests == 1 and result.usage.prompt_tokens == len(script.asked[0]["input_ids"])


def test_the_model_sees_each_line_with_its_number_on_the_new_side():
    script = in_turn(found())
    review(script)
    assert prompts(script)[0].endswith(
        "[INST]File: sum.py\n\n"
        "     1  def total(numbers):\n"
        "       -    return sum(numbers)\n"
        "     2 +    if not numbers:\n"
        "     3 +        return None\n"
        "     4 +    return sum(numbers) / 0\n"
        "     5  \n"
        "     6  print(total([1]))\n"
        "[/INST]"
    )


def test_the_answer_is_held_to_a_schema_that_the_server_can_compile():
    script = in_turn(found())
    review(script, max_tokens=77)
    sampling = script.asked[0]["sampling_params"]
    assert json.loads(sampling["json_schema"]) == SCHEMA
    assert sampling["max_new_tokens"] == 77
    check_constraint({"json_schema": sampling["json_schema"]})


def admitted(answer: str) -> bool:
    """Whether the schema, compiled over nano's vocabulary as the server does, lets the whole answer through."""
    vocabulary = grammar_vocabulary(FORMAT, FORMAT.tokenizer.n_words, [EOS])
    compiled = xgrammar.GrammarCompiler(vocabulary).compile_json_schema(json.dumps(SCHEMA))
    matcher = xgrammar.GrammarMatcher(compiled)
    return all(matcher.accept_token(id) for id in says(answer))


def test_the_schema_holds_a_reply_to_its_form():
    right = {"findings": [finding(), finding("a b/\u00e9\t.py", 1, "info", "'quoted' \\ [INST] \" text")]}
    assert admitted(json.dumps(right)) and admitted('{"findings": []}')
    wrong: list[Any] = [
        [],
        {},
        {"findings": {}},
        {"findings": [finding()], "verdict": "approved"},
        {"findings": [finding(line="4")]},
        {"findings": [finding(line=4.5)]},
        {"findings": [finding(severity="fatal")]},
        {"findings": [{**finding(), "fix": "rm"}]},
        {"findings": [{"file": "sum.py", "line": 4}]},
        {"findings": [finding()] * 21},
    ]
    for answer in wrong:
        assert not admitted(json.dumps(answer)), answer
    assert not admitted("Looks fine.") and not admitted('{"findings": []} And so on.')


@pytest.mark.parametrize(
    ("claim", "why"),
    [
        (finding(file="other.py"), "The file is not the one that was shown, 'sum.py'."),
        (finding(file="./sum.py"), "The file is not the one that was shown, 'sum.py'."),
        (finding(line=7), "The diff shows no such line of the new side in this part."),
        (finding(line=0), "The diff shows no such line of the new side in this part."),
        (finding(line=-4), "The diff shows no such line of the new side in this part."),
        (finding(reason=""), "It gives no reason."),
        (finding(reason=" \n"), "It gives no reason."),
    ],
)
def test_a_claim_that_does_not_hold_is_listed_as_it_was_made_and_not_put_right(claim: Any, why: str):
    result = review(in_turn(found(claim, finding())))
    assert to_dict(result)["unplaced"] == [{**claim, "part": "sum.py:1-6", "why": why}]
    assert [one.line for one in result.findings] == [4]


def test_a_removed_line_is_no_line_of_the_new_side():
    removed = "--- a/x\n+++ b/x\n@@ -8,2 +7,1 @@\n-gone\n stays\n"
    result = review(in_turn(found(finding("x", 8), finding("x", 7))), removed)
    assert [one.line for one in result.unplaced] == [8]
    assert [(one.line, one.added) for one in result.findings] == [(7, False)]


@pytest.mark.parametrize(
    "said",
    [
        says("The change looks fine."),
        says(""),
        says('{"findings": [{"file": "sum.py"}]}'),
        says('{"findings": []} And so on.'),
        found(finding(line="4")),
        found(finding(severity="fatal")),
        found({**finding(), "fix": "rm"}),
    ],
)
def test_a_reply_of_another_form_fails_its_part_and_no_other(said: list[int]):
    def reply(ids: list[int], fields: Any) -> Any:
        return said if "File: sum.py" in shown(ids, FORMAT) else found(finding("other.py", 11))

    result = review(Scripted(reply), DIFF + OTHER)
    ((place, reason),) = ((one.place, one.reason) for one in result.failed)
    assert place == "sum.py:1-6"
    assert reason == "The reply is not the JSON that was asked for: does the server keep to JSON schemas?"
    assert [one.file for one in result.findings] == ["other.py"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (says('{"findings": [')[:-1], "The reply was cut off by its limit of tokens: allow more tokens"),
        (BackendError("The prompt has 9 tokens too many."), "The prompt has 9 tokens too many."),
    ],
)
def test_a_request_that_fails_is_listed_with_its_reason_and_the_rest_is_kept(said: Any, reason: str):
    def reply(ids: list[int], fields: Any) -> Any:
        return said if "File: sum.py" in shown(ids, FORMAT) else found(finding("other.py", 11))

    result = review(Scripted(reply), DIFF + OTHER)
    assert [one.place for one in result.failed] == ["sum.py:1-6"]
    assert reason in result.failed[0].reason and "\n" not in result.failed[0].reason
    assert [one.file for one in result.findings] == ["other.py"]
    assert result.reviewed == 1


def test_results_stand_in_the_diffs_order_and_so_many_run_at_once_and_no_more():
    files = [DIFF.replace("sum.py", f"sum{n}.py") for n in range(12)]
    first = threading.Event()
    at_once: list[int] = []

    def reply(ids: list[int], fields: Any) -> list[int]:
        at_once.append(len(script.running))
        number = int(re.findall(r"File: sum(\d+)\.py", shown(ids, FORMAT))[0])
        if number == 0:
            first.wait(5)  # the first part is answered after the second
        if number == 1:
            first.set()
        time.sleep(0.01)
        return found(finding(f"sum{number}.py"))

    script = Scripted(reply)
    result = review(script, "".join(files), concurrency=3)
    assert [one.file for one in result.findings] == [f"sum{n}.py" for n in range(12)]
    assert 2 <= max(at_once) <= 3


def test_every_part_is_a_node_of_one_graph_and_begins_with_the_same_tokens():
    script = Scripted(lambda ids, fields: found())
    result = review(script, DIFF + OTHER)
    assert sorted(node.name for node in result.graph.nodes) == ["1: sum.py:1-6", "2: other.py:10-12"]
    assert {node.state for node in result.graph.nodes} == {"0 findings"}
    one, two = (fields["input_ids"] for fields in script.asked)
    shared = next(n for n, (a, b) in enumerate(zip(one, two, strict=False)) if a != b)
    assert shared > 0.5 * min(len(one), len(two))  # the instructions, from the prefix cache for all but the first


def test_who_interrupts_a_review_does_not_wait_for_its_parts():
    asked, release, main = threading.Event(), threading.Event(), threading.get_ident()

    def reply(ids: list[int], fields: Any) -> list[int]:
        if len(script.asked) == 2:
            asked.set()
        release.wait(30)
        return found()

    def interrupt() -> None:
        asked.wait(30)
        signal.pthread_kill(main, signal.SIGINT)

    files = "".join(DIFF.replace("sum.py", f"sum{n}.py") for n in range(8))
    try:
        script = Scripted(reply)
        threading.Thread(target=interrupt).start()
        began = time.monotonic()
        with pytest.raises(KeyboardInterrupt), Small4Backend(script) as backend:
            review_diff(files, backend=backend, concurrency=2)
        assert time.monotonic() - began < 10
        assert len(script.asked) == 2  # the parts that waited are not asked about any more
    finally:
        release.set()


@pytest.mark.parametrize("text", ["", " \n", "hello\n", "+ one\n- two\n", "@@ -1 +1 @@\n-a\n+b\n"])
def test_a_text_without_a_diff_is_refused_before_anything_is_asked(text: str):
    script = in_turn()
    with pytest.raises(ProgramError) as refusal:
        review(script, text)
    assert script.asked == [] and "diff" in str(refusal.value)


@pytest.mark.parametrize("options", [{"effort": "deliberate"}, {"concurrency": 0}, {"part_tokens": 0}])
def test_limits_that_cannot_work_are_refused(options: dict[str, Any]):
    with pytest.raises(ProgramError):
        review_diff(DIFF, backend=None, **options)


# Parts


def test_a_file_over_the_budget_is_split_between_hunks_and_a_hunk_between_lines():
    hunk = "@@ -{0},0 +{0},4 @@\n" + "+0123456789\n" * 4
    text = "--- a/x\n+++ b/x\n" + "".join(hunk.format(at) for at in (1, 101, 201))
    row = len("     1 +0123456789\n")
    assert [sorted(part.lines) for part in read(text, 9 * row).parts] == [
        [1, 2, 3, 4, 101, 102, 103, 104],
        [201, 202, 203, 204],
    ]
    assert [sorted(part.lines) for part in read(text, 3 * row).parts] == [
        [1, 2, 3],
        [4],
        [101, 102, 103],
        [104],
        [201, 202, 203],
        [204],
    ]


def test_a_huge_diff_is_split_into_parts_within_the_budget_that_together_show_every_line():
    lines = "".join(f"+line {n}\n" for n in range(20_000))
    parts = read(f"--- /dev/null\n+++ b/big.txt\n@@ -0,0 +1,20000 @@\n{lines}", 5000).parts
    assert max(len(part.text) for part in parts) <= 5000
    assert sorted(number for part in parts for number in part.lines) == list(range(1, 20_001))


def test_one_line_too_long_to_be_shown_is_cut_where_the_model_can_see_it():
    (part,) = read(f"--- a/x\n+++ b/x\n@@ -0,0 +1 @@\n+{'y' * 50_000}\n").parts
    assert part.text == f"     1 +{'y' * LONGEST_LINE} [cut: the first {LONGEST_LINE} of 50000 characters]\n"


# Diffs as they come


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Two commits, the second of which changes a file in each way that git knows."""

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q", "-b", "main")
    git("config", "user.email", "a@example.invalid")
    git("config", "user.name", "A")
    before = {
        "plain.txt": b"one\ntwo\nthree\n",
        "crlf.txt": b"a\r\nb\r\n",
        "with space.txt": b"x",
        'qu"ote.txt': b"q\n",
        "\u00e9.txt": b"e\n",
        "tab\tname.txt": b"z\n",
        "x b": b"x\n",
        "b/inner.txt": b"n\n",
        "picture": b"\0\1",
        "moved.txt": b"".join(b"%d\n" % n for n in range(20)),
        "changed.txt": b"".join(b"line %d\n" % n for n in range(20)),
        "deleted.txt": b"d\n",
        "mode.sh": b"#!\n",
        "sql.sql": b"-- old\n-- a\nselect\n",
        "latin.txt": b"\xe4\n",
    }
    after = {
        "plain.txt": b"one\n2\nthree\nfour",
        "crlf.txt": b"a\r\nc\r\n",
        "with space.txt": b"y",
        'qu"ote.txt': b"r\n",
        "\u00e9.txt": b"f\n",
        "tab\tname.txt": b"w\n",
        "x b": b"y\n",
        "b/inner.txt": b"m\n",
        "picture": b"\0\2",
        "sql.sql": b"++ new\n-- a\nselect\n",
        "latin.txt": b"\xf6\n",
        "empty.txt": b"",
        "b/new.txt": b"new\n",
    }
    (tmp_path / "b").mkdir()
    for name, content in before.items():
        (tmp_path / name).write_bytes(content)
    git("add", "-A")
    git("commit", "-qm", "one")
    for name, content in after.items():
        (tmp_path / name).write_bytes(content)
    git("mv", "moved.txt", "there.txt")
    git("mv", "changed.txt", "changed-too.txt")
    with (tmp_path / "changed-too.txt").open("ab") as file:
        file.write(b"more\n")
    (tmp_path / "deleted.txt").unlink()
    (tmp_path / "mode.sh").chmod(0o755)
    git("add", "-A")
    git("commit", "-qm", "two")
    return tmp_path


ADDED = {
    "plain.txt": [2, 4],
    "crlf.txt": [2],
    "with space.txt": [1],
    'qu"ote.txt': [1],
    "\u00e9.txt": [1],
    "tab\tname.txt": [1],
    "x b": [1],
    "b/inner.txt": [1],
    "b/new.txt": [1],
    "changed-too.txt": [21],
    "sql.sql": [1],
    "latin.txt": [1],
}
SKIPPED = {
    "picture": "It is a binary file.",
    "deleted.txt": "It is deleted.",
    "empty.txt": "No line of it changes.",
    "mode.sh": "No line of it changes.",
    "there.txt": "It is a rename of moved.txt without a change.",
}


@pytest.mark.parametrize(
    "options",
    [(), ("--no-prefix",), ("-U0",), ("--color=always",), ("--binary",), ("--src-prefix=i/", "--dst-prefix=w/")],
)
def test_all_that_git_does_to_a_file_is_read_by_its_name(repository: Path, options: tuple[str, ...]):
    made = subprocess.run(["git", "diff", *options, "HEAD~1"], cwd=repository, capture_output=True, check=True)
    diff = read(decoded(made.stdout))
    assert {part.file: sorted(part.added) for part in diff.parts} == ADDED
    assert {one.place: one.reason for one in diff.skipped} == SKIPPED
    assert diff.failed == ()


def test_patches_that_git_wrote_as_mails_are_read(repository: Path):
    made = subprocess.run(
        ["git", "format-patch", "--stdout", "--root", "HEAD"], cwd=repository, capture_output=True, check=True
    )
    diff = read(decoded(made.stdout))
    assert diff.failed == ()
    assert {part.file for part in diff.parts} >= ADDED.keys()


def test_line_ends_of_the_files_are_kept_and_those_of_the_diff_are_not():
    kept = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\r\n"
    saved = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n+b\n".replace("\n", "\r\n")
    assert read(kept).parts[0].text == "       -a\n     1 +b\r\n"
    ((part),) = read(saved).parts
    assert (part.file, part.text) == ("x", "       -a\n     1 +b\n")


def test_a_missing_newline_at_the_end_is_shown_and_counts_as_no_line():
    (part,) = read(
        "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+b\n\\ No newline at end of file\n"
    ).parts
    assert part.lines == {1}
    assert part.text.endswith("     1 +b\n       \\ No newline at end of file\n")


def test_a_line_of_a_hunk_is_never_taken_for_a_header():
    text = "--- a/q.sql\n+++ b/q.sql\n@@ -1,3 +1,3 @@\n--- a/evil\n+++ b/evil\n diff --git a/e b/e\n--- x\n+++ y\n"
    ((part),) = read(text).parts
    assert (part.file, sorted(part.added)) == ("q.sql", [1, 3])


BROKEN = {
    "short": DIFF.replace("@@ -1,4 +1,6 @@", "@@ -1,4 +1,9 @@"),
    "long": DIFF.replace("@@ -1,4 +1,6 @@", "@@ -1,4 +1,3 @@"),
    "no numbers": DIFF.replace("@@ -1,4 +1,6 @@", "@@ somewhere @@"),
    "a stray line": DIFF.replace("+        return None", "        return None?\nreturn"),
}
PLAIN_OTHER = OTHER[OTHER.index("---") :]


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("other", [OTHER, PLAIN_OTHER], ids=["git", "plain"])
def test_a_broken_file_is_named_and_the_files_around_it_are_kept(broken: str, other: str):
    diff = read(other.replace("other", "before") + broken + other)
    ((place, reason),) = ((one.place, one.reason) for one in diff.failed)
    assert place == "sum.py"
    assert reason.startswith("The diff is broken after its line ") and "\n" not in reason
    assert [part.file for part in diff.parts] == ["before.py", "other.py"]


def test_a_diff_that_was_cut_off_says_so_for_its_last_file():
    diff = read(OTHER + "\n".join(DIFF.splitlines()[:-3]))
    assert [one.place for one in diff.failed] == ["sum.py"]
    assert [part.file for part in diff.parts] == ["other.py"]


def test_a_merges_combined_diff_is_refused_by_name():
    combined = "diff --cc x.py\nindex 1,2..3\n--- a/x.py\n+++ b/x.py\n@@@ -1,1 -1,1 +1,1 @@@\n- a\n -b\n++c\n"
    diff = read(combined + OTHER)
    assert [(one.place, "combined" in one.reason) for one in diff.failed] == [("x.py", True)]
    assert [part.file for part in diff.parts] == ["other.py"]


def test_diffs_of_other_tools_are_read():
    plain = "--- old/x.c\t2026-01-01 00:00:00\n+++ new/x.c\t2026-01-02 00:00:00\n@@ -1 +1 @@\n-a\n+b\n"
    svn = f"Index: y.c\n{'=' * 67}\n--- y.c\t(revision 1)\n+++ y.c\t(working copy)\n@@ -1 +1 @@\n-a\n+b\n"
    only = "Binary files old/z and new/z differ\n"
    diff = read(plain + svn + only)
    assert [part.file for part in diff.parts] == ["new/x.c", "y.c"]
    assert [one.place for one in diff.skipped] == ["new/z"]


def test_utf_16_and_a_byte_order_mark_are_no_trouble():
    for encoding in ("utf-16", "utf-8-sig"):
        assert read(decoded(DIFF.encode(encoding))).parts == read(DIFF).parts


# A range of git's


def test_a_range_is_read_from_the_repository(repository: Path):
    diff = read(decoded(git_diff("HEAD~1..HEAD", repository)))
    assert {part.file: sorted(part.added) for part in diff.parts} == ADDED


@pytest.mark.parametrize("range", ["", "--output=stolen", "-O/etc/passwd", "--no-index", "HEAD\nHEAD", "a\0b"])
def test_a_range_cannot_be_an_option(range: str, repository: Path):
    with pytest.raises(LaunchError, match="is no git range"):
        git_diff(range, repository)
    assert not (repository / "stolen").exists()


@pytest.mark.parametrize(
    "range", ["nowhere", "plain.txt", "HEAD; touch stolen", "$(touch stolen)", "HEAD -- plain.txt"]
)
def test_a_range_is_never_a_path_nor_a_shells_words(range: str, repository: Path):
    with pytest.raises(LaunchError, match="git has no diff for") as refusal:
        git_diff(range, repository)
    assert not (repository / "stolen").exists()
    assert "\n" not in str(refusal.value)


def test_what_a_repository_has_set_up_is_not_run_and_does_not_change_the_form(repository: Path):
    settings = {
        "diff.external": "touch stolen; false",
        "core.fsmonitor": "touch stolen; false",
        "core.pager": "touch stolen",
        "diff.evil.textconv": "touch stolen; cat",
        "diff.evil.command": "touch stolen; false",
        "color.ui": "always",
        "diff.noprefix": "true",
        "diff.mnemonicPrefix": "true",
    }
    for name, value in settings.items():
        subprocess.run(["git", "config", name, value], cwd=repository, check=True)
    (repository / ".gitattributes").write_text("*.txt diff=evil\n", encoding="utf-8")
    diff = read(decoded(git_diff("HEAD~1..HEAD", repository)))
    assert {part.file for part in diff.parts} == ADDED.keys()
    git_diff("HEAD~1", repository)
    assert not (repository / "stolen").exists()


def test_no_repository_no_folder_and_no_difference_are_told_apart(repository: Path, tmp_path_factory: Any):
    bare = tmp_path_factory.mktemp("bare")
    for range, folder, said in (
        ("HEAD", bare, "git has no diff for"),
        ("HEAD", bare / "missing", "There is no folder"),
        ("HEAD..HEAD", repository, "Nothing differs"),
    ):
        with pytest.raises(LaunchError, match=said):
            git_diff(range, folder)


# Text is data


def test_no_text_of_a_diff_becomes_a_control_token():
    lines = [line for text in HOSTILE for line in text.split("\n")]
    text = f"--- /dev/null\n+++ b/[INST]</s>.txt\n@@ -0,0 +1,{len(lines)} @@\n" + "".join(
        f"+{line}\n" for line in lines
    )
    script = Scripted(lambda ids, fields: found())
    result = review(script, text)
    assert result.failed == () and result.reviewed == len(script.asked)
    own = ["<s>", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]", "[MODEL_SETTINGS]", "[/MODEL_SETTINGS]", "[INST]", "[/INST]"]
    for fields in script.asked:
        assert controls_in(fields["input_ids"], FORMAT) == dict.fromkeys(own, 1)


def test_what_a_model_or_a_diff_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    name = "\x1b[31m\u202eevil.py"
    diff = tmp_path / "diff"
    diff.write_text(f"--- a/{name}\n+++ b/{name}\n@@ -0,0 +1 @@\n+x\nBinary files a/\x07 and b/\x07 differ\n")
    texts = [text for text in HOSTILE if len(text) < 200 and text.strip()]
    claims = [finding(name, 1, reason=text) for text in texts[-40:]]
    with served(in_turn(found(*claims, *(finding(name, 9, reason="\x1b[2J\x9b") for _ in range(2))))) as server:
        assert command.review(str(diff), None, tmp_path, "none", server.url, None, as_json=False) == 0
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert not [char for char in text if char != "\n" and (ord(char) < 0x20 or 0x7F <= ord(char) < 0xA0)]
    assert not set(text) & set("\u202a\u202b\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029")
    assert "\N{SYMBOL FOR ESCAPE}[31m<U+202E>evil.py:1" in text.replace("\n", "")


def test_made_visible_means_that_nothing_is_left_out():
    assert visible("a\x1bb\x00\x7f\x9b\u202e\n\t") == "a\u241bb\u2400\u2421<U+009B><U+202E>\n\t"
    assert visible("\n\t", "") == "\u240a\u2409"


# The command


def run(server: ScriptServer, diff: Path, as_json: bool = True, graph: Path | None = None) -> int:
    return command.review(str(diff), None, diff.parent, "none", server.url, graph, as_json)


def test_json_is_exactly_one_object_in_ascii(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "diff").write_text(DIFF)
    with served(in_turn(found(finding(reason="é\x1b"), finding(line=99)))) as server:
        code = run(server, tmp_path / "diff", graph=tmp_path / "graph.json")
    out, err = capsys.readouterr()
    assert (code, err, out.count("\n")) == (0, "", 1)
    assert out.isascii() and "\x1b" not in out
    said = json.loads(out)
    assert list(said) == ["findings", "unplaced", "failed", "skipped", "usage"]
    assert (len(said["findings"]), len(said["unplaced"]), said["usage"]["requests"]) == (1, 1, 1)
    assert json.loads((tmp_path / "graph.json").read_text())["nodes"][0]["name"] == "1: sum.py:1-6"


@pytest.mark.parametrize(
    ("replies", "code"),
    [([found(finding())] * 2, 0), ([found(), BackendError("No.")], 0), ([BackendError("No.")] * 2, 1)],
)
def test_the_exit_code_says_whether_anything_could_be_reviewed(replies: list[Any], code: int, tmp_path: Path):
    (tmp_path / "diff").write_text(DIFF + OTHER)
    with served(in_turn(*replies)) as server:
        assert run(server, tmp_path / "diff") == code


def test_a_diff_that_is_not_there_and_two_sources_are_named(tmp_path: Path):
    with pytest.raises(LaunchError, match="cannot be read: No such file"):
        command.review(str(tmp_path / "none"), None, tmp_path, "none", "http://127.0.0.1:9", None, False)
    with pytest.raises(LaunchError, match="two sources"):
        command.review("-", "HEAD", tmp_path, "none", "http://127.0.0.1:9", None, False)
