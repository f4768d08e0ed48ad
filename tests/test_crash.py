"""SIGKILL at any moment, and disks that really are full, limited or read-only: what was acknowledged is there."""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of, draw_dataset, random_image, write_pair
from faults import done, tree
from PIL import Image
from stubs import red
from torch import nn

from segtool.config import Optim
from segtool.errors import CheckpointError
from segtool.prediction.predict import predict
from segtool.prediction.predicted_files import list_jobs
from segtool.runs import checkpoint, history, run_directory
from segtool.runs.checkpoint import Progress, TrainState
from segtool.runs.run_directory import Run
from segtool.training.optim import build_optimizer

# --- SIGKILL


Acknowledge = Callable[[int], None]


def killed(work: Callable[[Acknowledge], object], seconds: float) -> int:
    """Runs `work` in a child that is killed `seconds` after it has acknowledged something; returns the last of it."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a process with threads is forked
        child = os.fork()
    if child == 0:
        try:
            work(lambda number: os.write(writing, f"{number}\n".encode()) and None)
        finally:
            os._exit(1)
    os.close(writing)
    told = os.read(reading, 1 << 16)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    while more := os.read(reading, 1 << 16):
        told += more
    os.close(reading)
    os.waitpid(child, 0)
    return int(told.split()[-1])


def made_state(size: int = 64) -> TrainState:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, size, 3), nn.Conv2d(size, size, 3))
    return TrainState(model, None, build_optimizer(model, Optim()))


Save = Callable[..., object]


def overwrite(directory: Path, state: TrainState, config: Any, progress: Progress) -> None:
    """Known bad: one checkpoint, whose files are written where they are."""
    files = checkpoint._contents(state, config, progress)
    target = directory / "step-00000001"
    target.mkdir(exist_ok=True)
    for name, content in files.items():
        with open(target / name, "wb") as file:
            for start in range(0, len(content), 4096):
                file.write(content[start : start + 4096])


def lost_checkpoints(directory: Path, tiny_ds: Path, rounds: int, save: Save) -> list[str]:
    """Returns what a child that saves and removes checkpoints lost by being killed at random moments."""
    state, config, rng, problems = made_state(), config_of(tiny_ds), random.Random(5), []
    number = 0

    def work(acknowledge: Acknowledge) -> None:
        for step in range(number + 1, 10**6):
            save(directory, state, config, Progress(step=step))
            acknowledge(step)
            history.remove_old(directory, keep=2, warn=pytest.fail)

    for _ in range(rounds):
        acknowledged = killed(work, rng.uniform(0.0, 0.06))
        try:
            found = history.last(directory, warn=problems.append)
        except CheckpointError as error:
            return [*problems, str(error)]
        if found is None or found.progress.step < acknowledged:
            problems.append(f"{acknowledged} was acknowledged, and {found and found.progress.step} is there")
        number = found.progress.step if found else 0
        run_directory.remove_unfinished(directory)
        problems += [path.name for path in directory.iterdir() if path.name.startswith(".")]
    return problems


@pytest.mark.parametrize("rounds", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_a_process_killed_at_any_moment_keeps_every_checkpoint_that_it_acknowledged(tmp_path, tiny_ds, rounds):
    assert lost_checkpoints(tmp_path / "checkpoints", tiny_ds, rounds, checkpoint.save) == []


def test_the_kills_catch_a_writer_that_overwrites_its_checkpoint(tmp_path, tiny_ds):
    """Negative control."""
    (tmp_path / "checkpoints").mkdir()
    assert lost_checkpoints(tmp_path / "checkpoints", tiny_ds, 25, overwrite)


@pytest.mark.parametrize("rounds", [5, pytest.param(25, marks=pytest.mark.slow)])
def test_a_process_killed_while_it_logs_keeps_each_row_once_and_tears_none_but_the_last(tmp_path, rounds):
    rng, last = random.Random(6), 0

    def work(acknowledge: Acknowledge) -> None:
        run = Run(tmp_path)
        run.drop_after(last)
        for step in range(last + 1, 10**6):
            run.append("metrics.jsonl", [{"step": step, "text": "x" * 4000}])
            acknowledge(step)

    for _ in range(rounds):
        last = killed(work, rng.uniform(0.0, 0.03))
        lines = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
        rows = [json.loads(line) for line in lines[:-1]]
        assert [row["step"] for row in rows] == list(range(1, len(lines)))
        run = Run(tmp_path)  # the lock of a process that is gone is free
        run.drop_after(10**9)
        run.close()
        there = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_bytes().splitlines()]
        assert there == list(range(1, len(there) + 1))
        assert len(there) >= last


@pytest.mark.parametrize("rounds", [4, pytest.param(25, marks=pytest.mark.slow)])
def test_predictions_killed_at_any_moment_are_whole_and_resume_to_what_an_undisturbed_one_makes(
    tmp_path, tiny_ds, rounds
):
    rng, random_pixels = random.Random(7), np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for number in range(60):
        pixels = random_pixels.integers(0, 3, (90, 110, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number:02d}.png")
    config = config_of(tiny_ds)
    config = replace(config, data=replace(config.data, mask_mode="L"))

    def made(out: Path, *, resume: bool) -> Iterator[Any]:
        jobs = list_jobs([tmp_path / "images"], out, overlays=True, probabilities=True)
        return predict(red(), config, jobs, resume=resume)

    list(made(tmp_path / "whole", resume=False))
    whole = tree(tmp_path / "whole")
    for number in range(rounds):
        out = tmp_path / f"out{number}"

        def work(acknowledge: Acknowledge, out: Path = out) -> None:
            for count, _ in enumerate(made(out, resume=False)):
                acknowledge(count)
            time.sleep(60)

        last = killed(work, rng.uniform(0.0, 0.15))
        there = {name: content for name, content in tree(out).items() if ".tmp-" not in name}
        assert there.items() <= whole.items()
        assert {f"{count:02d}.png" for count in range(last + 1)} <= there.keys()
        list(made(out, resume=True))
        # One that was killed before its first byte may also be that of a process that has just begun.
        assert {name: content for name, content in tree(out).items() if content or ".tmp-" not in name} == whole


# --- the installed program on disks that do not take what it writes


def program(*arguments: str | Path, limit: int | None = None, handler: Any = None) -> subprocess.CompletedProcess[str]:
    """Runs the program; `limit` bytes are the most that a file may have, and `handler` is that of SIGXFSZ before."""

    def prepare() -> None:
        if handler is not None:
            signal.signal(signal.SIGXFSZ, handler)
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    command = [sys.executable, "-m", "segtool", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, preexec_fn=prepare)


LARGE = ("--set=model.encoder.channels=[16, 32, 64, 128]", "--set=augment.crop=[16, 16]", "--set=train.batch_size=2")
QUICK = (
    "--set=train.workers=0",
    "--set=train.compile=false",
    "--set=train.precision=fp32",
    "--quiet",
    "--no-preflight",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with a test image of 400x400, its config, and a run of one step with checkpoints above 1 MB."""
    folder = tmp_path_factory.mktemp("disk")
    draw_dataset(folder / "data", train=3, val=1, test=1)
    write_pair(folder / "data", "test", "large", random_image((400, 400)), np.zeros((400, 400), np.uint8))
    config = folder / "config.yaml"
    done("init", folder / "data", "--out", config)
    done("train", config, "--run", folder / "run", *LARGE, *QUICK, "--set=train.steps=1")
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of `folder` that a test may spoil."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


HANDLERS = [signal.SIG_IGN, signal.SIG_DFL]


@pytest.mark.parametrize("handler", [signal.SIG_DFL, pytest.param(signal.SIG_IGN, marks=pytest.mark.slow)])
def test_a_limit_of_1_mb_a_file_ends_a_training_with_4_and_the_checkpoint_before_goes_on(copied, handler):
    run, more = copied / "run", ("--set=train.steps=2", *QUICK)
    kept = tree(run / "checkpoints" / "step-00000001")
    failed = program("train", run, "--resume", *more, limit=1 << 20, handler=handler)
    assert failed.returncode == 4, failed.stderr
    target = run / "checkpoints" / "step-00000002"
    assert f"{target}: cannot be written (File too large): " in failed.stderr
    assert " bytes needed, " in failed.stderr
    assert "the previous checkpoint step-00000001 is intact" in failed.stderr
    assert "ulimit -f" in failed.stderr
    assert f"step 1 is saved and whole; when that is mended, continue with: segtool train {run} --resume" in (
        failed.stderr
    )
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["step-00000000", "step-00000001"]
    assert tree(run / "checkpoints" / "step-00000001") == kept
    done("train", run, "--resume", "--quiet")
    assert checkpoint.load(target).progress.finished


@pytest.mark.slow
@pytest.mark.parametrize("handler", HANDLERS)
def test_a_limit_of_1_mb_a_file_ends_prediction_with_4_and_leaves_no_half_file(copied, handler):
    words = ("predict", copied / "run", copied / "data" / "test" / "images", "--probabilities", "--out", copied / "out")
    failed = program(*words, limit=1 << 20, handler=handler)
    assert failed.returncode == 4, failed.stderr
    large = copied / "out" / "probabilities" / "large.npy"
    assert f"{large}: cannot be written (File too large): 1,920,128 bytes needed, " in failed.stderr
    assert "0 of 2 masks are in" in failed.stderr
    assert "--resume makes the others" in failed.stderr
    assert set(tree(copied / "out")) <= {"probabilities/test0.npy", "test0.png"}
    assert program(*words, "--resume").returncode == 0
    resumed = tree(copied / "out")
    shutil.rmtree(copied / "out")
    assert program(*words).returncode == 0
    assert tree(copied / "out") == resumed


@pytest.mark.slow
def test_a_limit_on_files_ends_init_with_4_and_keeps_what_was_there(copied):
    (copied / "config.yaml").write_text("precious: true\n")
    failed = program("init", copied / "data", "--out", copied / "config.yaml", "--force", limit=100)
    assert failed.returncode == 4, failed.stderr
    assert "config.yaml: cannot be written (File too large)" in failed.stderr
    assert (copied / "config.yaml").read_text() == "precious: true\n"
    assert not [name for name in tree(copied) if ".tmp" in name]


def test_a_file_in_the_place_of_the_run_directory_is_told_within_five_seconds_and_before_any_training(folder):
    before = tree(folder)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    failed = program("train", folder / "config.yaml", "--run", folder / "config.yaml" / "run")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert failed.returncode == 4, failed.stderr
    assert f"{folder / 'config.yaml' / 'run'}: cannot be made, since" in failed.stderr
    assert "saved" not in failed.stderr + failed.stdout
    assert after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime < 5
    assert tree(folder) == before


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts a file system in memory with options; where that is not allowed, the test is skipped."""
    place = tmp_path / "mounted"
    place.mkdir()

    def mount(options: str) -> Path:
        words = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
        except OSError as error:
            pytest.skip(str(error))
        if done.returncode:
            pytest.skip(done.stderr)
        return place

    yield mount
    subprocess.run(["umount", str(place)], capture_output=True, timeout=30, check=False)


@pytest.mark.slow
def test_a_read_only_file_system_is_told_before_any_training(folder, mounted):
    place = mounted("ro,size=1m")
    for run in (place, place / "run"):
        failed = program("train", folder / "config.yaml", "--run", run, *QUICK)
        assert failed.returncode == 4, failed.stderr
        assert "cannot be" in failed.stderr
        assert "saved" not in failed.stderr.replace("no step is saved", "")
    out = program("predict", folder / "run", folder / "data" / "test" / "images", "--out", place / "out")
    assert out.returncode == 4, out.stderr
    assert "Read-only file system" in out.stderr
    init = program("init", folder / "data", "--out", place / "c.yaml")
    assert init.returncode == 4, init.stderr


@pytest.mark.slow
def test_a_disk_that_really_fills_up_costs_nothing_and_the_run_goes_on_when_there_is_room(copied, mounted):
    one = sum(map(len, tree(copied / "run" / "checkpoints" / "step-00000001").values()))
    place = mounted(f"size={round(1.6 * one)}")
    words = (*LARGE, *QUICK, "--set=train.steps=4", "--set=train.eval_every=1", "--set=train.keep=9")
    whole = program("train", copied / "config.yaml", "--run", copied / "whole", *words)
    assert whole.returncode == 0, whole.stderr
    failed = program("train", copied / "config.yaml", "--run", place / "run", *words)
    assert failed.returncode == 4, failed.stderr
    assert "No space left on device" in failed.stderr
    assert "bytes needed, " in failed.stderr
    saved = [path for path in checkpoint.committed(place / "run" / "checkpoints") if checkpoint.load(path)]
    assert saved
    assert f"step {int(saved[-1].name[5:])} is saved and whole" in failed.stderr
    assert not [name for name in tree(place) if ".tmp" in name]
    subprocess.run(["mount", "-o", "remount,size=60m", str(place)], check=True, timeout=30)
    continued = program("train", place / "run", "--resume", "--quiet")
    assert continued.returncode == 0, continued.stderr
    for path in (copied / "whole" / "checkpoints").iterdir():
        found, expected = tree(place / "run" / "checkpoints" / path.name), tree(path)
        assert found.keys() == expected.keys()
        assert all(found[name] == expected[name] for name in found if name not in ("config.yaml", "manifest.json"))
    assert (place / "run" / "metrics.jsonl").read_bytes() == (copied / "whole" / "metrics.jsonl").read_bytes()


@pytest.mark.slow
def test_a_full_disk_ends_prediction_with_4_and_the_masks_that_are_there_are_whole(folder, mounted):
    place = mounted("size=1m")
    (place / "fill").write_bytes(bytes(900_000))
    words = ("predict", folder / "run", folder / "data" / "test" / "images", "--probabilities", "--out", place / "out")
    failed = program(*words)
    assert failed.returncode == 4, failed.stderr
    assert "No space left on device" in failed.stderr
    for mask in (place / "out").glob("*.png"):
        with Image.open(mask) as image:
            image.load()
    assert not [name for name in tree(place) if ".tmp" in name]
    (place / "fill").unlink()
    subprocess.run(["mount", "-o", "remount,size=20m", str(place)], check=True, timeout=30)
    assert program(*words, "--resume").returncode == 0
    assert len(list((place / "out").glob("*.png"))) == 2
