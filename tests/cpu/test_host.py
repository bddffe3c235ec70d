"""What the host offers, and how it is shared among ranks."""

import os

import pytest

from sgl_small4.cpu import host


@pytest.fixture
def eight_cores(monkeypatch, tmp_path):
    """Four cores with two threads each, numbered as Linux does: 0 to 3, then the siblings 4 to 7; no cgroup limits."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    real = host._read

    def read(path):
        if path.name == "thread_siblings_list":
            core = int(path.parts[-3].removeprefix("cpu")) % 4
            return f"{core},{core + 4}"
        return "0" if path.name == "physical_package_id" else real(tmp_path / path.name)

    monkeypatch.setattr(host, "_read", read)
    return tmp_path


def test_one_thread_of_each_core_is_used(eight_cores):
    assert host.cores() == [0, 1, 2, 3]


def test_only_cores_this_process_may_use_are_listed(eight_cores, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 6, 7})
    assert host.cores() == [1, 6, 7]  # in the order of the cores 1, 2, 3


@pytest.mark.parametrize(
    ("ranks", "shares"), [(1, "0,1,2,3"), (2, "0,1|2,3"), (3, "0|1|2,3"), (4, "0|1|2|3"), (6, "0|1|2|3|0|1")]
)
def test_ranks_share_the_cores(eight_cores, ranks, shares):
    assert host.shares(ranks) == shares
    assert all(host.parse_cores(share) for share in shares.split("|"))


def test_a_control_group_limits_cores_and_memory(eight_cores):
    (eight_cores / "cpu.max").write_text("250000 100000\n")
    (eight_cores / "memory.max").write_text("1000000\n")
    (eight_cores / "memory.current").write_text("400000\n")
    assert host.core_limit() == 2
    assert host.memory_total() == 1_000_000
    assert host.memory_available() == 600_000


def test_ranges_of_cores_are_read():
    assert host.parse_cores("0,2-4, 7") == {0, 2, 3, 4, 7}


def test_this_host_has_cores_and_memory():
    assert host.cores() and 0 < host.memory_available() <= host.memory_total()
