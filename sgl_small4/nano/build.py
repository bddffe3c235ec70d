"""Compile a folder of C++ files at first use into the user's cache, keyed by text, compiler and processor."""

import ctypes
import hashlib
import os
import platform
import subprocess
import tempfile
from pathlib import Path

# What -ffast-math stands for, by its parts: as one it also links code that makes the thread that loads the library
# flush subnormal numbers to zero.
FAST_MATH = (
    *("-fno-math-errno", "-fno-trapping-math", "-fno-signed-zeros", "-fassociative-math", "-freciprocal-math"),
    *("-ffinite-math-only", "-fno-rounding-math", "-fno-signaling-nans", "-fcx-limited-range"),
)
FLAGS = ("-O3", "-march=native", *FAST_MATH, "-fopenmp", "-shared", "-fPIC")


class BuildError(RuntimeError):
    """The compiler refused; the message holds what it said."""


def build_library(folder: Path) -> ctypes.CDLL:
    """The library of all `*.cpp` in the folder, loaded. Two processes may build at once: each writes its own file and
    renames it into place."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgl_small4"
    target = cache / f"nano-{folder.name}-{_key(folder)}.so"
    if not target.exists():
        cache.mkdir(parents=True, exist_ok=True)
        handle, made = tempfile.mkstemp(suffix=".so", dir=cache)
        os.close(handle)
        done = subprocess.run(
            ["g++", *FLAGS, *map(str, sorted(folder.glob("*.cpp"))), "-o", made],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            Path(made).unlink()
            raise BuildError(f"g++ could not compile {folder}: {done.stderr.strip()[:2000]}")
        os.replace(made, target)
    return ctypes.CDLL(str(target))


def _key(folder: Path) -> str:
    compiler = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), platform.processor())
    texts = [file.read_text() for file in sorted(folder.iterdir())]
    return hashlib.sha256("\n".join([*texts, *FLAGS, compiler, flags]).encode()).hexdigest()[:16]
