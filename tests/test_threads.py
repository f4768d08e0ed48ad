"""Threads that wait: for each other, when OpenMP itself says how they do; for a core, which the system counts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from segtool.system import threads
from segtool.system.threads import SPINS, seconds_without_core


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, SPINS), ({"GOMP_SPINCOUNT": "77"}, "77"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")],
)
def test_the_library_that_torch_brings_is_told_how_long_to_wait(given: dict[str, str], spins: str) -> None:
    left = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    done = subprocess.run(
        [sys.executable, "-m", "segtool", "doctor"],
        env={**left, **given, "OMP_DISPLAY_ENV": "VERBOSE"},
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.findall(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if not told:
        pytest.skip("torch's threads are not those of GNU's OpenMP here")
    assert set(told) == {spins}


COUNTS = """
import os, subprocess, sys, time
from segtool.system.threads import seconds_without_core
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
before, end = seconds_without_core(), time.monotonic() + 1
while time.monotonic() < end:
    pass
print(seconds_without_core() - before)
other.kill()
"""


@pytest.mark.skipif(not seconds_without_core(), reason="the system does not count it")
def test_the_time_that_threads_wait_for_a_core_is_what_another_program_had() -> None:
    command = [sys.executable, "-c", COUNTS]
    waited = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert waited > 0.2  # of a second, half of which the other has


def test_where_no_one_counts_it_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "TASKS", Path("/nowhere"))
    assert seconds_without_core() == 0
