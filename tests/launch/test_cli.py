"""The command line as a whole."""

import subprocess
import sys
import time

from tests.launch.commands import small4


def test_help_is_quick_and_lists_the_commands():
    started = time.perf_counter()
    result = small4("--help")
    assert time.perf_counter() - started < 3
    assert result.returncode == 0
    for command in ("serve", "ask", "doctor", "convert", "demo"):
        assert command in result.stdout


def test_neither_torch_nor_sglang_is_imported_for_help():
    code = "import sys, launch.cli; sys.exit(bool({'torch', 'sglang', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_unknown_effort_names_the_two():
    result = small4("ask", "17+25?", "--effort", "medium")
    assert result.returncode == 2
    assert "'none'" in result.stderr and "'high'" in result.stderr
