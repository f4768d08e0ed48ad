"""The benchmarks of scoring and of start-up go their whole way, and what they compare is the same work."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torchmetrics")

from benchmarks import scoring
from segtool.config import load_config
from segtool.scoring.score import score_folders


def rows(program: str, folder: Path) -> list[dict]:
    command = [sys.executable, "-m", f"benchmarks.{program}", "--quick", "--data", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=240)
    return json.loads(done.stdout)


def test_scoring_is_measured_against_decoding_and_torchmetrics(tmp_path):
    decoding, torchmetrics = rows("scoring", tmp_path)
    assert (decoding["target"], decoding["at_least"]) == (1.3, False)
    assert (torchmetrics["target"], torchmetrics["at_least"]) == (5.0, True)
    assert "Synthetic" in decoding["note"]


def test_start_up_is_measured_in_seconds(tmp_path):
    shown, predicting = rows("startup", tmp_path)
    assert (shown["target"], predicting["target"]) == (0.3, 1.5)
    assert {shown["unit"], predicting["unit"]} == {"s"}
    assert 0 < shown["ratios"][0] < 10


def test_the_pairs_to_score_are_those_of_the_config(tmp_path):
    scoring.write_pairs(tmp_path / "none", tmp_path, 3)
    scores = score_folders(load_config(tmp_path / "config.yaml"), tmp_path / "made", tmp_path / "truth", Path())
    assert len(scores.images) == 3
    assert scores.miou is not None
    assert 0.3 < scores.miou < 1
