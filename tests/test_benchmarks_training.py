"""The benchmark programs on whole trainings and on GPUs go their whole way, on small pictures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import cuda, whole_training
from benchmarks.harness import Row


def test_the_time_between_two_steps_is_that_of_all_rows_between_without_the_validations_after_them(
    tmp_path: Path,
) -> None:
    log = tmp_path / "timing.jsonl"
    rows = [(20, 7.0), (20, 9.0), (30, 1.0), (40, 2.0), (50, 4.0), (50, 9.0)]  # those of 9 s are validations
    log.write_text("".join(json.dumps({"step": step, "seconds": seconds}) + "\n" for step, seconds in rows))
    assert whole_training.seconds_between(log, 20, 50) == 7.0
    assert whole_training.seconds_between(log, 20, 30) == 1.0
    assert whole_training.seconds_between(log, 0, 20) == 7.0


def test_a_whole_training_is_compared_with_its_bare_step(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.whole_training", "--quick", "--data", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (row,) = [Row.of(stored) for stored in json.loads(done.stdout)]
    assert len(row.ratios) == 1
    assert 0 < row.ratios[0] < 2
    assert "synthetic" in row.note


def test_without_a_gpu_nothing_is_measured_and_that_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    cuda.main([])
    printed = capsys.readouterr()
    assert json.loads(printed.out) == []
    assert "no GPU" in printed.err


def test_the_gpu_program_goes_its_whole_way_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "LONG", 10)  # steps that no compilation would pay for
    rows = cuda.measure(torch.device("cpu"), quick=True)
    assert [len(row.ratios) for row in rows] == [1, 1, 1, 1]
    assert all(row.needs == "cuda" for row in rows)
