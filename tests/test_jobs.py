"""Whole jobs of several processes, as people start them: what is killed, hangs, is interrupted or started again."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import config_of, draw_dataset, is_running
from training import metrics_of

from segtool.config import dump_config
from segtool.runs import checkpoint, history

pytestmark = pytest.mark.slow

QUICK = ("--device", "cpu", "--no-preflight")
LONG = {"steps": 4000, "batch_size": 4, "eval_every": 5}
START_SECONDS = 240  # that a job may take to begin on a machine that does other things too


@pytest.fixture
def config(tiny_ds: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a config of the tiny data set."""

    def write(*, root: Path = tiny_ds, **train: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(config_of(root, train={**LONG, **train})))
        return path

    return write


class Job:
    """A command that runs, in a session of its own as in a terminal."""

    def __init__(self, *command: str | Path, cwd: Path, **environment: str) -> None:
        self.log = cwd / "stderr.txt"
        with open(self.log, "w") as stderr, open(cwd / "stdout.txt", "w") as stdout:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
                start_new_session=True,
            )

    def until(self, happened: Callable[[], bool]) -> None:
        """Waits until something happened; a job that ends before fails the test."""
        deadline = time.monotonic() + START_SECONDS
        while not happened():
            assert self.process.poll() is None, self.said
            assert time.monotonic() < deadline, self.said
            time.sleep(0.05)

    def end(self, seconds: float = START_SECONDS) -> int:
        """Returns the exit code, for which it is waited so long."""
        return self.process.wait(seconds)

    @property
    def said(self) -> str:
        return self.log.read_text()

    @property
    def last_line(self) -> str:
        return self.said.rstrip().splitlines()[-1]

    def rank(self, rank: int) -> int:
        """Returns the process of a rank."""
        return next(pid for pid in self.processes() if f"RANK={rank}".encode() in _words_of(pid, "environ"))

    def processes(self) -> list[int]:
        """Returns those that are below this one."""
        found, below = [], [self.process.pid]
        while below:
            pid = below.pop()
            for path in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    below += [int(child) for child in path.read_text().split()]
            found.append(pid)
        return found[1:]


def _words_of(pid: int, what: str) -> list[bytes]:
    """Returns the environment of a process (`environ`) or what it was started with (`cmdline`)."""
    try:
        return Path(f"/proc/{pid}/{what}").read_bytes().split(b"\0")
    except OSError:
        return []


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    """Starts jobs, and ends what is left of them."""
    jobs: list[Job] = []

    def begin(*command: str | Path, **environment: str) -> Job:
        jobs.append(Job(*command, cwd=tmp_path, **environment))
        return jobs[-1]

    yield begin
    for job in jobs:
        for pid in [*job.processes(), job.process.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        job.process.wait()


def trains(run: Path, steps: int = 10) -> Callable[[], bool]:
    """Returns whether a run has logged so many steps."""
    return lambda: (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes().splitlines()) > steps


def train_with(config: Path, run: Path, *options: str) -> list[str]:
    return ["-m", "segtool", "train", str(config), "--run", str(run), *QUICK, "--gpus", "2", *options]


def torchrun(*options: str) -> list[str]:
    return [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--local-addr",
        "127.0.0.1",
        "--nproc-per-node",
        "2",
        *options,
    ]


def test_a_killed_process_ends_the_job_and_is_named_last(config, start, tmp_path):
    job = start(*train_with(config(), tmp_path / "run"))
    job.until(trains(tmp_path / "run"))
    others = job.processes()
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.end(30) == 137
    assert job.last_line.startswith("error: rank 1 of 2 was killed (signal 9)")
    assert not any(map(is_running, others))
    assert history.last(tmp_path / "run" / "checkpoints") is not None


def test_a_job_that_starts_again_makes_the_run_that_was_not_disturbed(config, start, tmp_path):
    path = config(steps=400, eval_every=5)
    job = start(*train_with(path, tmp_path / "run", "--max-restarts", "1"))
    job.until(trains(tmp_path / "run"))
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.end() == 0, job.said
    assert "rank 1 of 2 was killed (signal 9)" in job.said
    assert "starting again (1 of 1)" in job.said
    assert "continuing" in job.said
    job = start(*train_with(path, tmp_path / "undisturbed"))
    assert job.end() == 0, job.said
    rows, others = ((tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "undisturbed"))
    assert rows == others


def test_a_process_that_hangs_ends_the_job_within_the_timeout_that_is_named_last(config, start, tmp_path):
    job = start(*train_with(config(timeout=15), tmp_path / "run"))
    job.until(trains(tmp_path / "run"))
    os.kill(job.rank(1), signal.SIGSTOP)
    began = time.monotonic()
    assert job.end(15 + 45) == 4
    assert time.monotonic() - began > 14
    assert "train.timeout" in job.last_line


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_job_after_its_step_is_saved(config, start, tmp_path, number):
    job = start(*train_with(config(), tmp_path / "run"))
    job.until(trains(tmp_path / "run"))
    others = job.processes()
    os.kill(job.process.pid, number)
    assert job.end(60) == 128 + number
    assert f"segtool train {tmp_path / 'run'} --resume --device cpu --gpus 2" in job.said
    assert "Traceback" not in job.said
    assert not any(map(is_running, others))
    saved = history.last(tmp_path / "run" / "checkpoints")
    assert saved is not None
    logged = [row["step"] for row in metrics_of(tmp_path / "run")]
    assert saved.progress.step == logged[-1]


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile finds no compiler")
def test_a_signal_while_the_network_is_compiled_ends_the_job_without_waiting_for_it(config, start, tmp_path):
    """Nothing is in the cache of the compiler, which takes a minute and more for such a network."""
    cache = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor")}
    job = start(*train_with(config(compile=True), tmp_path / "run"), **cache)
    job.until(lambda: any(b"cc1plus" in words for pid in job.processes() for words in _words_of(pid, "cmdline")))
    others = job.processes()
    os.kill(job.process.pid, signal.SIGTERM)
    assert job.end(60) == 143
    again = f"segtool train {tmp_path / 'run'} --resume --device cpu --gpus 2"
    assert job.last_line == f"error: interrupted; step 0 is saved. Continue with: {again}"
    assert "compilation failed" not in job.said
    assert not any(map(is_running, others))
    assert [path.name for path in checkpoint.committed(tmp_path / "run" / "checkpoints")] == ["step-00000000"]


def test_no_process_outlives_a_launcher_that_is_killed(config, start, tmp_path):
    job = start(*train_with(config(), tmp_path / "run"))
    job.until(trains(tmp_path / "run"))
    others = job.processes()
    job.process.kill()
    deadline = time.monotonic() + 60
    while any(map(is_running, others)):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert history.last(tmp_path / "run" / "checkpoints") is not None


def test_what_is_wrong_is_said_once_and_ends_with_the_exit_code_of_its_kind(config, start, tmp_path):
    job = start(*train_with(config(batch_size=1), tmp_path / "run"))
    assert job.end() == 2
    assert job.said.count("train.batch_size") == 1
    job = start(*train_with(config(), tmp_path / "run", "--set", "data.ignore=[77]"))
    assert job.end() == 3
    assert job.last_line.startswith("error: rank 0 of 2 ended the job: ")
    assert "Traceback" not in job.said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("images", [1, 5])
def test_any_number_of_images_ends_and_fewer_than_processes_are_refused(config, start, tmp_path, images):
    path = config(root=draw_dataset(tmp_path / "data", train=images, val=3, test=1), steps=3, batch_size=3)
    job = start(*train_with(path, tmp_path / "run"))
    assert job.end() == (0 if images > 1 else 2)
    assert images > 1 or "1 training image for 2 processes" in job.last_line


def test_under_torchrun_the_error_of_the_process_that_fails_is_the_last_thing_printed(config, start, tmp_path):
    root = draw_dataset(tmp_path / "data", train=4, val=3, test=1)
    run = tmp_path / "run"
    # The validation split is read again and again, its second image by the second process.
    job = start(*torchrun("-m", "segtool", "--", "train", str(config(root=root)), "--run", str(run), *QUICK))
    job.until(trains(run))
    (root / "val" / "images" / "val1.png").write_bytes(b"no image")
    assert job.end() != 0
    assert "val1.png" in "\n".join(job.said.rstrip().splitlines()[-4:])
    assert "rank      : 1 (local_rank: 1)" in job.said.split("Root Cause")[1]


def test_torchrun_starts_a_run_again_where_it_was(config, start, tmp_path):
    run = tmp_path / "run"
    job = start(
        *torchrun("--max-restarts", "1", "-m", "segtool", "--", "train"),
        *(str(config(steps=400)), "--run", str(run), "--device", "cpu"),
    )
    job.until(trains(run))
    os.kill(job.rank(1), signal.SIGKILL)
    assert job.end() == 0, job.said
    assert "continuing" in job.said
    steps = [row["step"] for row in metrics_of(run) if "loss" in row]
    assert steps == list(range(1, 401))


def test_under_torchrun_eval_prints_one_document_and_fails_below_a_limit(config, start, tmp_path):
    run = tmp_path / "run"
    assert start(*train_with(config(steps=2), run)).end() == 0
    job = start(*torchrun("-m", "segtool", "eval", str(run), "--json", "--device", "cpu"))
    assert job.end() == 0, job.said
    together = json.loads((tmp_path / "stdout.txt").read_text())
    job = start("-m", "segtool", "eval", str(run), "--json", "--device", "cpu")
    assert job.end() == 0, job.said
    assert together == json.loads((tmp_path / "stdout.txt").read_text())


@pytest.mark.parametrize("option", ["--dry-run", "--budget=60s"])
def test_a_forecast_and_a_budget_are_of_all_processes(config, start, tmp_path, option):
    job = start(*train_with(config(steps=200), tmp_path / "run", option))
    assert job.end() == 0, job.said
    assert (tmp_path / "run").exists() == (option != "--dry-run")
    assert ("nothing was written" if option == "--dry-run" else "budget: ") in job.said
