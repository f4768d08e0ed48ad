"""The benchmark of samples runs from beginning to end, and its sides make what they are compared for."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytest.importorskip("albumentations")


def test_a_trial_prints_its_four_rows(tmp_path):
    command = [sys.executable, "-m", "benchmarks.sample", "--quick", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["target"], row["at_least"]) for row in rows] == [
        (0.95, True),
        (0.95, True),
        (1.8, False),
        (2.2, False),
    ]
    assert all(len(row["ratios"]) == 1 and row["ratios"][0] > 0 for row in rows)
    assert all("Synthetic" in row["note"] for row in rows)
