"""The README's tree is the tree on disk, and what it tells people to type exists."""

import re
from pathlib import Path

from tests.launch.commands import small4

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def listed() -> list[Path]:
    """The paths of the tree block; two more spaces in front are one folder deeper."""
    block = README.split("## Tree")[1].split("```")[1]
    paths: list[Path] = []
    folders: list[Path] = []
    for line in block.strip("\n").splitlines():
        name = line.split()[0]
        del folders[(len(line) - len(line.lstrip())) // 2 :]
        path = Path(*folders[-1:], name)
        paths.append(path)
        folders.append(path)
    return paths


def test_everything_listed_is_there():
    assert [path for path in listed() if not (ROOT / path).exists()] == []


def test_every_file_of_the_packages_is_listed_itself_or_with_its_folder():
    paths = listed()
    parents = {parent for path in paths for parent in path.parents}
    whole_folders = [path for path in paths if path not in parents and (ROOT / path).is_dir()]
    for package in ("sgl_small4", "programs", "launch"):
        for file in (ROOT / package).rglob("*"):
            path = file.relative_to(ROOT)
            if file.is_dir() or "__pycache__" in path.parts or path.name == "__init__.py":
                continue
            assert path in paths or any(folder in path.parents for folder in whole_folders), path


def test_every_command_in_the_readme_exists():
    known = small4("--help").stdout
    for command in set(re.findall(r"\bsmall4 ([a-z]+)", README)):
        assert re.search(rf"\b{command}\b", known), command
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_runs_exactly_the_readmes_test_command():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().strip().splitlines()[-1] == "exec make test"
    assert "\nmake test " in README
