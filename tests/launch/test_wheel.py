"""The wheel, installed plainly elsewhere, does what the tree does."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that neither leftovers of the tree get in nor a build folder stays there."""
    tree = tmp_path_factory.mktemp("tree")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("sgl_small4", "programs", "launch"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", "."]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (built,) = (tree / "dist").glob("*.whl")
    return built


def test_the_wheel_holds_every_file_of_the_packages(wheel: Path):
    held = set(zipfile.ZipFile(wheel).namelist())
    for package in ("sgl_small4", "programs", "launch"):
        for file in (ROOT / package).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                assert str(file.relative_to(ROOT)) in held


def test_the_wheel_declares_both_entry_points_and_the_command(wheel: Path):
    archive = zipfile.ZipFile(wheel)
    (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
    declared = archive.read(name).decode()
    for line in ("small4 = launch.cli:main", "entry:load_plugin", "entry:load_platform"):
        assert line in declared


@pytest.mark.slow
def test_the_demo_runs_from_the_wheel(wheel: Path, tmp_path: Path):
    site = tmp_path / "site"
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(site), str(wheel)]
    subprocess.run(command, check=True, capture_output=True)
    code = f"import launch.cli; assert launch.cli.__file__.startswith({str(site)!r}); launch.cli.main()"
    result = subprocess.run(
        [sys.executable, "-c", code, "demo"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},  # before the tree that .venv knows
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    quick, thought, *read, settled, phone, maker, absent = result.stdout.splitlines()
    assert thought == "197"
    assert read == ["71934", "71934"]
    assert settled.isdigit() and "think 5 (generate)" in result.stderr  # five samples; most often 39
    assert phone.endswith(" 71934") and maker.endswith(" Stravo") and absent.endswith(" That is not in the document.")
    assert result.stderr.count("exact, line ") == 2
    assert "effort high: " in result.stderr and "effort none: " in result.stderr
    assert "server stopped" in result.stderr
