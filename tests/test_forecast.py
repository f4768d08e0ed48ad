"""What a dry run foretells: the sum of its parts, counted as a training does them, and nothing written."""

from __future__ import annotations

import os
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from training import Trainer, prepared

from segtool.data.reader import Reader
from segtool.prediction.inference import Predictor
from segtool.runs import checkpoint
from segtool.system.distributed import ALONE
from segtool.system.terminal import Reporter
from segtool.training import forecast, plan, preflight, training_step
from segtool.training.forecast import Forecast, Times, describe, num_validations

CPU = torch.device("cpu")
TIMES = Times(starting=10.0, step=0.5, validation=3.0, samples=1.0, saving=0.25)


def made(**changes: Any) -> plan.Plan:
    return replace(plan.Plan(images=8, crop=(16, 16), steps=7, eval_steps=3, batch_size=3), **changes)


@pytest.mark.parametrize(("steps", "every"), [(7, 3), (6, 3), (2, 3), (1, 1), (7, 1)])
def test_validations_and_checkpoints_are_counted_as_a_training_makes_them(trainer, make_config, steps, every):
    run = trainer("run", make_config(train={"steps": steps, "eval_every": every * 3 / 8, "keep": 99}))
    validations = sum("split" in row for row in run.metrics)
    assert validations == num_validations(made(steps=steps, eval_steps=every))
    checkpoints = len(checkpoint.committed(run.directory / "checkpoints"))
    wanted = 10 + steps * 0.5 + validations * 4 + checkpoints * 0.25
    assert TIMES.total(made(steps=steps, eval_steps=every)) == pytest.approx(wanted)


def test_the_steps_that_warm_up_count_as_start_up_and_not_in_the_time_of_a_step(make_config, monkeypatch):
    clock = [0.0]
    costs = iter([30.0, 2.0, 2.0, *[1.0] * 99])

    def step(*_: Any) -> None:
        clock[0] += next(costs)

    monkeypatch.setattr(forecast.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training_step, "train_step", step)
    times = measured(make_config()).times
    assert times.step == 1.0
    assert times.starting == 30 + 2 + 2 - 3 * 1


@pytest.mark.parametrize(("within", "steps"), [(60.0, 3 + 4), (240.0, 3 + 7), (None, 3 + 16)])
def test_measuring_takes_less_of_a_short_budget(make_config, monkeypatch, within, steps):
    clock = [0.0]

    def step(*_: Any) -> None:
        clock[0] += 1.0

    monkeypatch.setattr(forecast.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training_step, "train_step", step)
    measured(make_config(), within=within)
    assert clock[0] == steps


@pytest.mark.parametrize(("each", "threads", "told"), [(0.9, 2, True), (0.4, 2, False), (0.9, 1, False)])
def test_steps_whose_threads_wait_for_cores_are_warned_of(make_config, monkeypatch, capsys, each, threads, told):
    clock = [0.0]

    def step(*_: Any) -> None:
        clock[0] += 1.0

    monkeypatch.setattr(forecast.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(training_step, "train_step", step)
    # While the first steps warm up, all of their time; processes that compile have the cores then.
    monkeypatch.setattr(forecast, "seconds_without_core", lambda: min(clock[0], 3) + each * max(clock[0] - 3, 0))
    monkeypatch.setattr(forecast, "num_threads", lambda: threads)
    measured(make_config())
    assert ("2 threads wait for a core for 0.9 s in each second" in " ".join(capsys.readouterr().err.split())) == told


def test_what_was_measured_is_of_the_size_of_what_is_saved_and_leaves_no_file(
    make_config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    config = make_config(train={"samples": 2})
    found = measured(config)
    assert os.listdir(tmp_path) == []
    times = found.times
    assert all(value > 0 for value in (times.step, times.validation, times.samples, times.saving))
    assert found.memory is None or found.memory > 2**20
    run = Trainer(tmp_path, monkeypatch)("run", config)
    on_disk = sum(path.stat().st_size for path in run.final.path.iterdir())
    assert found.checkpoint == pytest.approx(on_disk, rel=0.02)
    drawn = [path.stat().st_size for path in (run.directory / "samples").iterdir()]
    assert len(drawn) == 2
    assert sum(drawn) <= forecast.sample_bytes(prepared(config)) == 2 * 9 * 32 * 32


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_take_long_are_foretold_from_a_part_of_one(make_config, monkeypatch, workers):
    clock, seen = [0.0], []

    def classes(_: Predictor, image: torch.Tensor, *__: Any) -> Any:
        seen.append(image[0].numel())
        clock[0] += seen[-1]  # a second for each pixel
        return np.zeros(image.shape[1:], np.uint8)

    def read(self: Reader, record: Any) -> Any:
        clock[0] += 9.0
        return pair(self, record)

    pair = Reader.pair
    work = prepared(make_config(train={"samples": 2}))
    training = training_step.build_training(work.config, None, CPU, ALONE)
    images = [pair(Reader.of(work.config), record)[0] for record in work.records["val"]]
    monkeypatch.setattr(forecast.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(Reader, "pair", read)
    monkeypatch.setattr(forecast, "PART", 4)
    monkeypatch.setattr(Predictor, "classes", classes)
    pixels = [image[..., 0].size for image in images]
    validation, samples = forecast._scoring(training, work.records, workers, 1.0)
    assert seen == [4 * 4]
    each = statistics.fmean(pixels) + (0 if workers else 9)
    assert len(pixels) <= forecast.LEAST_IMAGES
    assert validation == pytest.approx(9 + len(pixels) * each)
    assert samples == 9 * min(2, len(pixels))

    seen.clear()  # where there is time for it, all of them are scored
    forecast._scoring(training, work.records, 0, 1e6)
    assert sum(seen) >= sum(pixels)


def measured(config: Any, within: float | None = None) -> Forecast:
    return forecast.measure(prepared(config), Reporter(quiet=True), within=within)


def test_the_lines_tell_the_whole_time_from_the_start_of_the_command(make_config, tmp_path: Path):
    work = replace(prepared(make_config()), plan=made())
    found = Forecast(TIMES, memory=3 * 2**30, checkpoint=5 * 2**20)
    lines = describe(found, work, prepared=60.0, directory=tmp_path / "not" / "there")
    assert "70 s to begin with" in lines[0]
    assert f"about {round(60 + TIMES.total(made()))} s in all" in lines[0]
    assert "about 3.22 GB" in lines[1]
    assert "5.2 MB a checkpoint, at most 4 at a time, and up to 0.0 kB of samples; " in lines[2]


@pytest.mark.parametrize(("steps", "most"), [(1, 2), (100, 4)])
def test_preflight_and_dry_run_tell_one_number_of_checkpoints(make_config, tmp_path: Path, steps: int, most: int):
    """Between its validations, of which there is one here, a training saves a checkpoint each ten minutes."""
    work = replace(prepared(make_config()), plan=made(steps=steps, eval_steps=100))
    told = describe(Forecast(TIMES, None, 10**6), work, prepared=0.0, directory=tmp_path)[2]
    assert f"at most {most} at a time" in told
    assert f"at most {most} at a time" in preflight._disk(10**6, work, tmp_path).found


def test_the_memory_that_a_dry_run_calls_free_is_that_of_the_device(make_config, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (5 * 10**9, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 3 * 10**9)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _: 10**9)
    work = replace(prepared(make_config()), device=torch.device("cuda"))
    told = describe(Forecast(TIMES, 2**30, 10**6), work, prepared=0.0, directory=tmp_path)[1]
    assert told.endswith("; 7.00 GB are free")
