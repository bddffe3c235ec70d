"""What this host offers: cores that may be used, memory that may be used. Standard library only."""

import os
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cores() -> list[int]:
    """Ids of the physical cores this process may run on, neighbours side by side.

    One id per core: a second hardware thread shares the core's vector units and only adds contention. Ids are sorted by
    package, so that a contiguous share of the list stays within one socket where it can.
    """
    allowed = os.sched_getaffinity(0)
    placed: dict[tuple[int, int], int] = {}  # (package, first hardware thread of the core) -> id
    for cpu in sorted(allowed):
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
        siblings = _ids(_read(topology / "thread_siblings_list") or str(cpu)) & allowed
        package = int(_read(topology / "physical_package_id") or 0)
        placed.setdefault((package, min(siblings, default=cpu)), cpu)
    return [placed[place] for place in sorted(placed)]


def core_limit() -> int:
    """How many cores' worth of time the control group grants this process, at least 1."""
    quota, _, period = (_read(CGROUP / "cpu.max") or "max").partition(" ")
    available = len(cores())
    return available if quota == "max" else max(1, min(available, int(quota) // int(period)))


def shares(ranks: int) -> str:
    """The available cores split among `ranks` processes, as SGLANG_CPU_OMP_THREADS_BIND wants it: ``0,1|2,3``.

    With fewer cores than ranks some ranks share one.
    """
    available = cores()
    if ranks >= len(available):
        return "|".join(str(available[rank % len(available)]) for rank in range(ranks))
    edges = [rank * len(available) // ranks for rank in range(ranks + 1)]
    return "|".join(",".join(map(str, available[start:end])) for start, end in zip(edges[:-1], edges[1:], strict=True))


def parse_cores(text: str) -> set[int]:
    """The ids in ``0,2-4``: one rank's part of SGLANG_CPU_OMP_THREADS_BIND."""
    return _ids(text)


def memory_total() -> int:
    """Bytes of memory this process may use: the machine's, or the control group's limit where that is lower."""
    limit = _read(CGROUP / "memory.max") or "max"
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return physical if limit == "max" else min(physical, int(limit))


def memory_available() -> int:
    """Bytes that can still be allocated without swapping, within the control group's limit."""
    fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
    available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, used = _read(CGROUP / "memory.max") or "max", _read(CGROUP / "memory.current")
    return available if limit == "max" or used is None else min(available, max(0, int(limit) - int(used)))


def flags() -> frozenset[str]:
    """The instruction set extensions the processor reports, in the kernel's names (``avx512_bf16``, ``bf16``)."""
    for line in (_read(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, Arm
            return frozenset(value.split())
    return frozenset()


def _ids(text: str) -> set[int]:
    """``0,2-4`` to {0, 2, 3, 4}."""
    ids: set[int] = set()
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        ids.update(range(int(first), int(last or first) + 1))
    return ids


def _read(path: Path) -> str | None:
    return path.read_text().strip() if path.exists() else None
