"""Trainings of a second in this process, which may be stopped and resumed as those of `segtool train`."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from segtool.config import Config
from segtool.data.formats import split_records
from segtool.data.statistics import resolve_data
from segtool.errors import Interrupted
from segtool.runs import history
from segtool.runs.checkpoint import Progress
from segtool.runs.run_directory import Run
from segtool.system import signals
from segtool.system.distributed import World
from segtool.training import train, training_step
from segtool.training.plan import Prepared, make_plan
from segtool.training.training_step import Training


@dataclass(frozen=True)
class Trained:
    """What a training left."""

    directory: Path
    progress: Progress | None
    """Of the last step; none where it was stopped."""
    final: Any
    """The last checkpoint."""
    said: tuple[str, ...]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return metrics_of(self.directory)


def metrics_of(run: Path) -> list[dict[str, Any]]:
    """Returns the rows that a training logged in its run directory."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def prepared(config: Config, *, device: str = "cpu") -> Prepared:
    """Returns the training of a config whose crop and length are given, of images of 32x32 pixels."""
    records = split_records(config, Path("/"))
    config = resolve_data(config, records["train"])
    where = torch.device(device)
    config, plan = make_plan(config, images=len(records["train"]), first_size=(32, 32), device=where)
    return Prepared(config, plan, records, None, World(), where)


class Trainer:
    """Runs `train` in this process, as the session of `segtool train` does."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.monkeypatch = monkeypatch

    def __call__(
        self,
        name: str,
        config: Config,
        *,
        resume: bool = False,
        stop_after: int | None = None,
        change: Callable[[Any], Any] = lambda checkpoint: checkpoint,
        device: str = "cpu",
    ) -> Trained:
        """Trains in the run directory `name`.

        Args:
            resume: Go on from the last checkpoint, `change`d.
            stop_after: A SIGTERM comes within the step of this number, from 1.
        """
        work = prepared(config, device=device)
        reporter, step = _Reporter(), training_step.train_step

        def stopped_step(training: Any, batch: Any, number: int, *rest: Any) -> Any:
            if number + 1 == stop_after:
                signal.raise_signal(signal.SIGTERM)
            return step(training, batch, number, *rest)

        run = Run(self.directory / name)
        try:
            run.write_config(work.config)
            resumed = change(history.last(run.checkpoints, warn=reporter.warn)) if resume else None
            if resumed:
                run.drop_after(resumed.progress.step)
            progress = None
            with self.monkeypatch.context() as patch:
                patch.setattr(training_step, "train_step", stopped_step)
                patch.setattr(signals, "os", SilentOs)
                try:
                    progress = train.train(work, run, reporter=reporter, resumed=resumed)
                except Interrupted:
                    if stop_after is None:
                        raise
            return Trained(run.directory, progress, history.last(run.checkpoints), tuple(reporter.said))
        finally:
            run.close()


class SilentOs:
    """Stands for `os` in `signals`, whose handler of signals writes to the terminal and ends the process."""

    environ: ClassVar[dict[str, str]] = {}
    written: ClassVar[list[bytes]] = []

    @classmethod
    def write(cls, _descriptor: int, text: bytes) -> None:
        cls.written.append(text)

    @staticmethod
    def _exit(code: int) -> None:
        raise AssertionError(f"the process was ended at once, with {code}")


class _Reporter:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(f"warning: {text}")

    def step(self, text: str, *, done: int, total: int) -> None:
        pass

    def track(self, items: Any, *, total: int, unit: str, label: str) -> Any:
        return iter(items)


def everything(training: Training) -> dict[str, torch.Tensor]:
    """The parameters and moments of a training, copied."""
    found = dict(training.model.named_parameters())
    for number, values in enumerate(training.optimizer.state.values()):
        found |= {f"{number}.{key}": value for key, value in values.items()}
    return {name: value.detach().clone() for name, value in found.items()}
