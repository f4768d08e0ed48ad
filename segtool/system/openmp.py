"""GNU's OpenMP, which runs torch's threads on Linux, told how long a thread waits for the others without sleeping."""

from __future__ import annotations

import os

SPINS = "1000"
"""Looks before a thread sleeps, some microseconds; the library's own number, 300,000, is some milliseconds."""


def let_waiting_threads_sleep() -> None:
    """Has threads that wait sleep soon; to be called before torch is imported. What the user has set is left.

    A thread that spins uses up the time of the core that it should have for its next part, and where anything else
    runs there, loading processes or another program, all threads wait until it gets the core back. On two cores of
    which another program had one, the training steps of three small networks took 512, 33 and 104 ms in place of
    1652, 294 and 1441. On idle cores they took the same time as before (docs/performance.md).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
