"""The threads that compute: how long one waits for the others without sleeping, and how long all waited for a core."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

SPINS = "1000"
"""Looks before a thread sleeps, some microseconds; that of GNU's OpenMP, 300,000, is some milliseconds."""
TASKS = Path("/proc/self/task")


def let_waiting_threads_sleep() -> None:
    """Has threads of GNU's OpenMP, which torch computes with on Linux, sleep soon where they wait for others.

    To be called before torch is imported. What the user has set is left.

    A thread that spins uses up the time of the core that it should have for its next part, and where anything else
    runs there, loading processes or another program, all threads wait until it gets the core back. On two cores of
    which another program had one, the training steps of three small networks took 512, 33 and 104 ms in place of
    1652, 294 and 1441. On idle cores they took the same time as before (docs/performance.md).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def seconds_without_core() -> float:
    """Returns how long the threads of this process, together, were ready to run and had no core; 0 where no one says.

    Only differences mean something: what a thread has waited goes with it.
    """
    waited = 0
    with contextlib.suppress(OSError):
        for task in TASKS.iterdir():
            with contextlib.suppress(OSError, ValueError, IndexError):  # of a thread that has just ended
                waited += int((task / "schedstat").read_text().split()[1])
    return waited / 1e9
