"""Processors and memory that a container or a scheduler leaves are those that are planned with."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segtool.commands.doctor import facts
from segtool.system import control_group, devices, pools

Groups = Callable[..., None]


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Groups:
    """Makes the files of control groups, by their paths, and puts this process into some."""

    def make(own: str, files: dict[str, str]) -> None:
        (tmp_path / "own").write_text(own)
        for name, text in files.items():
            path = tmp_path / "sys" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(control_group, "OWN", tmp_path / "own")
        monkeypatch.setattr(control_group, "ROOT", tmp_path / "sys")

    return make


SECOND = {
    "cpu.max": "max 100000\n",
    "job/cpu.max": "250000 100000\n",
    "job/step/cpu.max": "max 100000\n",
    "job/memory.max": "1000\n",
    "job/memory.current": "700\n",
    "job/memory.stat": "anon 5\ninactive_file 50\n",
    "job/step/memory.max": "max\n",
    "job/step/memory.current": "600\n",
    "job/step/memory.stat": "inactive_file 40\n",
    "other/cpu.max": "100000 100000\n",
}
FIRST = {
    "cpu/cpu.cfs_quota_us": "-1\n",
    "cpu/docker/a/cpu.cfs_quota_us": "50000\n",
    "cpu/docker/a/cpu.cfs_period_us": "100000\n",
    "memory/memory.limit_in_bytes": "9000\n",  # as a container sees its own
    "memory/memory.usage_in_bytes": "1000\n",
    "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 7\n",
}


@pytest.mark.parametrize(
    ("own", "files", "processors", "memory"),
    [
        ("0::/job/step\n", SECOND, 3, 350),
        ("0::/\n", SECOND, None, None),
        ("5:cpu,cpuacct:/docker/a\n4:memory:/docker/a\n1:name=systemd:/x\n", FIRST, 1, 8007),
        ("0::/../..\n", {"cpu.max": "200000 100000"}, 2, None),
        ("", SECOND, None, None),
    ],
)
def test_the_narrowest_limit_of_the_group_and_of_those_around_it_counts(groups, own, files, processors, memory):
    groups(own, files)
    assert control_group.processors() == processors
    assert control_group.free_memory() == memory


def test_where_there_are_no_groups_there_are_no_limits(monkeypatch, tmp_path):
    monkeypatch.setattr(control_group, "OWN", tmp_path / "none")
    assert control_group.processors() is control_group.free_memory() is None


def test_torch_has_no_more_threads_than_the_group_has_processors(groups, monkeypatch):
    """On a host of many, threads that wait for each other would use up the time of the few."""
    threads = [64]
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads[-1])
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    groups("0::/job/step\n", SECOND)
    assert pools.num_cores() == 3
    devices.choose_device("cpu")
    devices.choose_device("cpu")
    assert threads == [64, 3]


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="only Linux tells its memory there")
def test_doctor_tells_the_memory_that_the_group_leaves(monkeypatch):
    monkeypatch.setattr(control_group, "free_memory", lambda: 2**29)
    assert dict(facts())["memory"].endswith(", 0.5 GiB free for this process")
