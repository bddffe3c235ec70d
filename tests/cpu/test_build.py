"""The kernels are built once, and their absence is said and not felt except in speed."""

import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from sgl_small4.cpu import build

compiler = pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ on this host")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """An empty cache directory, nothing loaded."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(build.SWITCH, raising=False)
    build.library.cache_clear()
    yield tmp_path / "sgl_small4"
    build.library.cache_clear()


def test_one_variable_switches_them_off(fresh, monkeypatch):
    monkeypatch.setenv(build.SWITCH, "0")
    assert build.library() is None and build.form() == "PyTorch"
    assert not fresh.exists()


def test_without_a_compiler_pytorch_runs_and_the_log_says_so_once(fresh, monkeypatch, caplog):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with caplog.at_level(logging.WARNING):
        assert build.library() is None and build.library() is None
    assert [record.message for record in caplog.records] == [
        "Running on PyTorch, slower, without compiled CPU kernels: "
        "no C++ compiler found (install g++, or name one in CXX)"
    ]


@compiler
def test_a_source_that_does_not_compile_is_an_error_with_the_compilers_words(fresh, monkeypatch, tmp_path):
    broken = tmp_path / "broken.cpp"
    broken.write_text("int main( {")
    monkeypatch.setattr(build, "SOURCE", broken)
    with pytest.raises(build.BuildError, match="failed on broken.cpp: .*error"):
        build.build()
    assert not list(fresh.glob("*.so"))


@compiler
def test_processes_that_start_together_build_once(fresh, monkeypatch, tmp_path):
    """Each compiler run leaves a file; the second process waits for the first and finds its library."""
    small, runs, wrapper = tmp_path / "small.cpp", tmp_path / "runs", tmp_path / "c++"
    small.write_text('extern "C" int one() { return 1; }')
    runs.mkdir()
    wrapper.write_text(f'#!/bin/sh\ncase "$1" in --version) ;; *) mktemp -p {runs} ;; esac\nsleep 0.2\nexec g++ "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("CXX", str(wrapper))
    program = f"from sgl_small4.cpu import build; from pathlib import Path; build.SOURCE = Path({str(small)!r})"
    program += "; print(build.build())"
    with ThreadPoolExecutor() as pool:
        outputs = list(pool.map(lambda _: subprocess.check_output([sys.executable, "-c", program]), range(3)))
    assert len(set(outputs)) == 1
    assert len(list(runs.iterdir())) == 1 and len(list(fresh.glob("*.so"))) == 1


@compiler
def test_another_processor_gets_another_library(fresh, monkeypatch, tmp_path):
    small = tmp_path / "small.cpp"
    small.write_text('extern "C" int one() { return 1; }')
    monkeypatch.setattr(build, "SOURCE", small)
    here = build.build()
    monkeypatch.setattr(build.host, "flags", lambda: frozenset({"another"}))
    assert build.build() != here


@pytest.mark.slow
@compiler
@pytest.mark.skipif("avx512_bf16" not in build.host.flags(), reason="needs a processor with both forms")
def test_the_portable_form_agrees_with_the_processors_own(tmp_path):
    """The same source for a processor without bfloat16 products, checked by the same tests."""
    script = (
        "import sys, pytest; from sgl_small4.cpu import build;"
        "build.OPTIONS = tuple('-march=x86-64-v3' if o == '-march=native' else o for o in build.OPTIONS);"
        "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', '-k', 'compiled_experts or mixed',"
        "'tests/cpu/test_experts.py', 'tests/cpu/test_attention.py']))"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=500)
    assert ended.returncode == 0, ended.stdout[-3000:]
