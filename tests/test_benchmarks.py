"""The runner of the benchmarks, its page, and the programs on training steps, quality and growth."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from benchmarks import bench, growth, quality
from benchmarks.bench_report import measured, page, target
from benchmarks.harness import Result, Row, in_turn, report
from benchmarks.training_step import CLASSES, SIDES, Network, conv_inputs, flop, plain_model
from segtool.config.registry import Component

ROW = Row("a step", "the plain loop", (1.9, 2.1, 2.0), target=3.0, at_least=True, needs="bf16", note="no loading")
OLD = {"processor": "one", "instruction sets": "avx2"}
NEW = {"processor": "two", "instruction sets": "avx2, avx512_bf16"}
TINY = Network("tiny", Component("conv", {"channels": [4, 8]}), batch=2, rounds=1)


def result(*rows: Row, program: str = "training_step", machine: dict[str, str] = OLD, failed: str = "") -> Result:
    return Result(program, "2026-01-01 00:00", "abc", 1.0, machine, {"torch": "2"}, rows, failed)


def cells(text: str, start: str) -> list[str]:
    """Returns the cells of the table's line that begins so."""
    line = next(line for line in text.splitlines() if line.startswith(f"| {start}"))
    return [cell.strip() for cell in line.strip("|").split("|")]


# The harness


def test_sides_run_in_turn_and_the_warm_up_does_not_count() -> None:
    calls: list[str] = []

    def side(name: str) -> Any:
        return lambda: calls.append(name) or float(len(calls))

    assert in_turn(side("a"), side("b"), side("c"), rounds=2, warmup=1) == [[4.0, 7.0], [5.0, 8.0], [6.0, 9.0]]
    assert "".join(calls) == "abc" * 3


def test_a_row_comes_back_from_json_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    row = replace(ROW, figures={"GFLOP": "3"}, axes=("steps", "MB"), points=((1.0, 2.0), (3.0, 4.0)))
    report(row)
    assert [Row.of(stored) for stored in json.loads(capsys.readouterr().out)] == [row]


# The runner


@pytest.fixture
def quick_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names a machine at once: to ask torch for a GPU takes seconds."""
    monkeypatch.setattr(bench, "machine", lambda: OLD)


@pytest.mark.usefixtures("quick_machine")
def test_a_program_that_fails_is_a_result_with_its_last_words_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PROGRAMS", ("no_such_program", "harness"))
    bench.run(("no_such_program", "harness"), tmp_path, data=tmp_path, quick=True)
    failed, empty = bench.results(tmp_path)
    assert failed.failed == "exit code 1: " + f"{sys.executable}: No module named benchmarks.no_such_program"
    assert empty.failed.startswith("printed no rows")  # it is no program: it prints nothing


@pytest.mark.usefixtures("quick_machine")
def test_what_a_program_prints_is_kept_and_replaced_by_its_next_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "PROGRAMS", ("first", "second"))
    printed = {"ratio": 1.0}

    def run(_command: Any, output: Any) -> tuple[int, str]:
        output.write(json.dumps([asdict(replace(ROW, ratios=(printed["ratio"],)))]))
        return 0, "a progress bar"

    monkeypatch.setattr(bench, "_run", run)
    bench.run(("first", "second"), tmp_path, data=tmp_path, quick=True)
    printed["ratio"] = 5.0
    bench.run(("second",), tmp_path, data=tmp_path, quick=True)
    assert [(r.program, r.failed, r.rows[0].median) for r in bench.results(tmp_path)] == [
        ("first", "", 1.0),
        ("second", "", 5.0),
    ]


def test_there_is_nothing_to_report_before_anything_was_measured(tmp_path: Path) -> None:
    assert bench.main(["--report", "--out", str(tmp_path), "--docs", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())


def test_the_page_and_its_plots_are_made_from_what_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = ((1.0, 10.0), (2.0, 20.0), (3.0, 31.0))
    time = replace(ROW, what="time", axes=("images", "seconds"), points=points)
    memory = replace(ROW, what="memory", axes=("steps", "MB resident"), points=points)
    kept = asdict(result(ROW, time, memory, program="growth"))
    (tmp_path / "growth.json").write_text(json.dumps(kept), encoding="utf-8")
    assert bench.main(["--report", "--out", str(tmp_path), "--docs", str(tmp_path / "docs")]) == 0
    names = sorted(path.name for path in (tmp_path / "docs" / "images").iterdir())
    assert names == ["bench-growth-of-memory.png", "bench-growth-of-time.png"]
    text = (tmp_path / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    assert all(f"(images/{name})" in text for name in names)


# The page


def test_a_line_of_the_table_has_target_median_range_and_verdict() -> None:
    text = page([result(ROW, machine=NEW)], [])
    assert cells(text, "a step")[1:] == ["the plain loop", "≥ 3", "2 (1.9 to 2.1 in 3 rounds)", "no"]
    assert cells(page([result(replace(ROW, target=2.0))], []), "a step")[-1] == "yes"
    assert cells(page([result(replace(ROW, at_least=False))], []), "a step")[-1] == "yes"


def test_units_stand_behind_both_numbers() -> None:
    row = replace(ROW, ratios=(0.25,), target=0.3, at_least=False, unit="s")
    assert (target(row), measured(row)) == ("≤ 0.3 s", "0.25 s")


@pytest.mark.parametrize(
    ("machine", "needs", "shown"),
    [
        (OLD, "bf16", False),
        (NEW, "bf16", True),
        (OLD, "", True),
        (NEW, "cuda", False),
        ({**NEW, "gpu": "x"}, "cuda", True),
    ],
)
def test_the_machine_decides_which_targets_cannot_be_shown(machine: dict[str, str], needs: Any, shown: bool) -> None:
    text = page([result(replace(ROW, needs=needs), machine=machine)], [])
    assert ("What cannot be shown" not in text) == shown
    assert cells(text, "a step")[-1] == ("no" if shown else "no (cannot be shown here)")


def test_a_program_that_failed_and_one_without_rows_are_lines_of_the_table() -> None:
    text = page([result(program="scoring", failed="exit code 2: a | b"), result(program="cuda")], [])
    assert "| scoring |  |  | failed: exit code 2: a \\| b | no |" in text
    assert cells(text, "cuda |  |")[-1] == "not measured"
    assert "`cuda` measured nothing" in text


def test_results_of_two_machines_are_told_apart() -> None:
    text = page([result(ROW), result(ROW, program="quality", machine=NEW)], [])
    assert "training_step: processor: one" in text
    assert "quality: processor: two" in text


# The training step


def test_the_operations_of_a_step_are_those_of_its_convolutions_written_out() -> None:
    size, total = (16, 24), 0
    modules = dict(plain_model(TINY).named_modules())
    for number, (name, (images, channels, height, width)) in enumerate(conv_inputs(TINY, size)):
        conv = modules[name]
        assert isinstance(conv, nn.Conv2d | nn.ConvTranspose2d)
        # Each value of the smaller map meets each weight: of a transposed convolution that is the input.
        across = conv.out_channels * conv.kernel_size[0] * conv.kernel_size[1]
        forward = 2 * images * height * width * channels * across
        total += forward * (2 if number == 0 else 3)  # the images have no gradient
    assert flop(TINY, size) == total


def test_every_convolution_is_measured_once() -> None:
    convs = [n for n, m in plain_model(TINY).named_modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert sorted(name for name, _ in conv_inputs(TINY, (16, 16))) == sorted(convs)


@pytest.mark.parametrize("side", SIDES)
def test_each_side_does_its_work_again_and_again(side: str) -> None:
    work = SIDES[side](TINY, (16, 16))
    assert work() > 0
    assert work() > 0


def test_both_sides_have_the_same_layers() -> None:
    from segtool.models.segmenter import build_model

    ours = build_model(TINY.resolved((16, 16)).model, CLASSES)
    assert {n: p.shape for n, p in ours.named_parameters()} == {
        n: p.shape for n, p in plain_model(TINY).named_parameters()
    }


def test_a_trial_of_the_program_prints_its_row() -> None:
    command = [sys.executable, "-m", "benchmarks.training_step", "--quick", "--network", "unet16"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    (row,) = [Row.of(stored) for stored in json.loads(done.stdout)]
    assert row.target == 1.5
    assert row.median > 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="one core")
def test_a_step_beside_a_busy_core_is_compared_with_two_others() -> None:
    from benchmarks import busy_cores

    one, other = busy_cores.measure(rounds=1, quick=True)
    assert one.median > 0
    assert other.median > 0
    assert one.what == other.what
    assert one.against != other.against


# Quality


def test_quality_is_the_difference_of_means_over_the_spread_of_the_plain_seeds() -> None:
    scores = {
        "auto": [{"test": 0.80}, {"test": 0.86}, {"test": 0.80}],  # mean 0.82
        "plain": [{"test": 0.80}, {"test": 0.84}, {"test": 0.88}],  # mean 0.84, spread 0.08
    }
    row = quality.row_of("test", scores, how="bf16", note="", steps=1)
    assert row.median == pytest.approx(0.25)
    assert row.reached


def test_a_trial_of_quality_trains_both_sides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "chosen", lambda _: ("fp32", False))
    rows = quality.measure(tmp_path, seeds=(0,), steps=2, quick=True)
    assert [row.median for row in rows] == [0.0, 0.0]
    assert "are equal bit by bit" in rows[0].note
    assert {path.name for path in tmp_path.iterdir()} == {"data", "auto-0", "plain-0"}


# Growth


def test_a_straight_line_is_told_from_a_bent_one() -> None:
    assert growth.straight([(1, 3), (2, 5), (3, 7), (4, 9)]) == pytest.approx(1)
    # 0 1 4 9 against 0 1 2 3: the line 3x - 1 leaves 1, -1, -1, 1 of a sum of squares of 49.
    assert growth.straight([(0, 0), (1, 1), (2, 4), (3, 9)]) == pytest.approx(1 - 4 / 49)


def test_the_second_half_of_a_training_is_compared_with_the_first_after_it_has_settled() -> None:
    points = [(20.0, 900.0), (60.0, 500.0), (100.0, 510.0), (140.0, 505.0), (200.0, 535.0)]
    assert growth.training_row(points, 200).median == 25.0
    assert not growth.training_row(points, 200).reached


def test_the_slope_of_memory_is_that_of_the_largest_images() -> None:
    assert growth.size_row([(0.1, 700.0), (1.0, 800.0), (4.0, 900.0), (9.0, 832.0)]).median == 4.0


def test_the_last_whole_line_of_a_log_tells_the_step(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    assert growth.steps_done(log) == 0
    log.write_text('{"step": 1}\n{"step": 20}\n{"step": 4', encoding="utf-8")
    assert growth.steps_done(log) == 20


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="Linux counts memory there")
def test_the_memory_of_a_process_holds_its_childrens() -> None:
    hold = "import sys; held = b'x' * 60_000_000; print(flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        size = growth.resident(process.pid)
        process.communicate()
    assert 60e6 < size < 120e6
    assert growth.resident(process.pid) == 0


def test_copies_take_the_sources_in_turn(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    made = growth.copies([tmp_path / "a", tmp_path / "b"], tmp_path / "made", 3)
    assert [path.read_text() for path in sorted(made.iterdir())] == ["a", "b", "a"]


@pytest.mark.slow
def test_a_trial_of_growth_prints_its_rows(capsys: pytest.CaptureFixture[str]) -> None:
    growth.main(["--quick"])
    assert len(json.loads(capsys.readouterr().out)) == 4


def test_the_page_names_the_programs_that_nothing_is_kept_of():
    assert "Not measured: growth, cuda." in page([result(ROW)], [], ["growth", "cuda"])
    assert "Not measured" not in page([result(ROW)], [])
