"""Builds kernels.cpp for this host at its first use and loads it.

The library lies in the user's cache directory under a name made of everything it depends on: the source, the compiler
and the processor. Several ranks that start together build it once.
"""

import ctypes
import fcntl
import hashlib
import logging
import os
import shutil
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path

from sgl_small4.cpu import host

logger = logging.getLogger(__name__)

SWITCH = "SGL_SMALL4_KERNELS"
SOURCE = Path(__file__).with_name("kernels.cpp")
OPTIONS = ("-O3", "-march=native", "-std=c++17", "-fopenmp", "-shared", "-fPIC", "-Wno-psabi")


class BuildError(RuntimeError):
    """The compiler is missing or does not take the source."""


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where PyTorch runs in their place; the log says once why."""
    if os.environ.get(SWITCH) == "0":
        logger.info("Compiled CPU kernels are switched off (%s=0): running on PyTorch.", SWITCH)
        return None
    try:
        return ctypes.CDLL(str(build()))
    except (BuildError, OSError) as error:
        logger.warning("Running on PyTorch, slower, without compiled CPU kernels: %s", error)
        return None


def form() -> str:
    """Which form of the kernels runs on this host, in words."""
    if library() is None:
        return "PyTorch"
    flags = host.flags()
    if "avx512_bf16" in flags:
        return "compiled, bfloat16 products (AVX-512)"
    return "compiled, float32 products" + (" (AVX-512)" if "avx512f" in flags else "")


def build() -> Path:
    """The library's path; compiles it unless it is there. Raises BuildError."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise BuildError("no C++ compiler found (install g++, or name one in CXX)")
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout
    key = "\n".join((SOURCE.read_text(), version, *OPTIONS, *sorted(host.flags())))
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sgl_small4"
    target = cache / f"kernels-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if target.exists():
        return target
    cache.mkdir(parents=True, exist_ok=True)
    with open(target.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # released when the file is closed
        if not target.exists():
            _compile(compiler, target)
    return target


def _compile(compiler: str, target: Path) -> None:
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        output = Path(folder, target.name)
        run = subprocess.run([compiler, *OPTIONS, str(SOURCE), "-o", str(output)], capture_output=True, text=True)
        if run.returncode != 0:
            raise BuildError(f"{compiler} failed on {SOURCE.name}: {run.stderr.strip()[:500]}")
        output.replace(target)  # at once: no process ever sees half a library
