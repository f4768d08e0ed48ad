"""Threads that wait for each other sleep soon, unless the user wants otherwise: what OpenMP itself says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from segtool.system.openmp import SPINS


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
