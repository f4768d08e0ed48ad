"""What a training notes: the rows of its files and the line of progress."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any

from segtool.config import Config, Optim
from segtool.data.dataset import Sample
from segtool.data.statistics import ClassFrequencies
from segtool.errors import DivergedError
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Progress
from segtool.runs.run_directory import RunDirectory
from segtool.scoring.metrics import Scores, iou
from segtool.system.distributed import World
from segtool.system.pools import num_cores, num_threads
from segtool.system.terminal import Reporter, counted, duration, percent
from segtool.system.threads import seconds_without_core
from segtool.training.plan import Plan
from segtool.training.training_step import Outcome
from segtool.training.watchdogs import CROWDED, SLOW, Validations, Waiting, crowding_warning, waiting_warning

HIGH_RATE = 0.1  # what is proposed at most after a divergence, at whatever learning rate it was
FLUSH_STEPS = 20  # steps between two writes of the logs


class Logs:
    """The rows of `metrics.jsonl` and `timing.jsonl`, and the line of progress."""

    def __init__(
        self,
        run: RunDirectory,
        world: World,
        reporter: Reporter,
        config: Config,
        plan: Plan,
        *,
        workers: int,
        frequencies: ClassFrequencies | None,
    ) -> None:
        self.run = run
        self.world = world
        self.reporter = reporter
        self.plan = plan
        self.batch_size = config.train.batch_size
        self.names = [spec.name for spec in config.data.classes]
        self.workers = workers
        pixels = frequencies.pixels if frequencies else ()
        absent = [name for name, count in zip(self.names, pixels, strict=False) if not count]
        self.validations = Validations(config, plan.steps, run.validations(), absent=absent)
        self.unread: deque[tuple[Progress, Outcome]] = deque()
        """Steps that are made, and of which is not known yet what came of them."""
        self.stepped_at = time.monotonic()
        self.paced_from: tuple[int, float] | None = None
        """The first step, which compiles, and when it was done: the time that is left is told by those after it."""
        self.loading = Waiting(SLOW)
        self.crowding = Waiting(CROWDED)
        self.without_core = seconds_without_core()
        self.images_per_second = 0.0
        self._begin_interval()

    def resize(self, plan: Plan) -> None:
        """Says that the run is of another length from now on."""
        self.reporter.say(
            f"budget: {counted(plan.steps, 'step')} in place of {self.plan.steps:,}, by the time of those up to here"
        )
        self.plan, self.validations.steps = plan, plan.steps

    def awaited(self, batches: Iterator[Sample]) -> Iterator[Sample]:
        """Yields the batches, and warns where the steps mostly wait for them."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            if batch is None:
                return
            waited = time.monotonic() - asked
            self.waited += waited
            yield batch
            share = self.loading.add(waited, self.stepped_at - asked)
            if share is not None:
                cores = num_cores()
                warning = waiting_warning(share, workers=self.workers, cores=cores, cached=self.plan.cache)
                self.reporter.warn(warning)

    def step(self, progress: Progress, outcome: Outcome, *, late: int = 0) -> None:
        """Notes a step, and reads those that were made more than `late` before. Raises DivergedError of one of them."""
        self.unread.append((progress, outcome))
        self.settle(late=late)
        self.stepped_at = time.monotonic()

    def settle(self, *, late: int = 0) -> None:
        """Reads what came of all steps but the last `late`. Raises as `step`."""
        while len(self.unread) > late:
            progress, outcome = self.unread.popleft()
            self._note(progress, *outcome.read(), outcome.rate)

    @contextmanager
    def flushed_where_it_diverges(self, config: Config) -> Generator[None]:
        """Writes how it came to a divergence that is raised inside, and adds what is saved and how to go on."""
        try:
            yield
        except DivergedError as error:
            self.flush()
            saved = checkpoint.committed(self.run.checkpoints)[-1]
            resume = self.run.resume_command
            raise DivergedError(
                f"{error}\nThe last checkpoint, {saved.name}, is intact. {resume} meets the same batches again; with "
                f"{_remedy(config, resume)}"
            ) from error

    def _note(self, progress: Progress, loss: float, norm: float, rate: float) -> None:
        """Adds the row of a step; what is not reproducible goes to `timing.jsonl`."""
        self.paced_from = self.paced_from or (progress.step, time.monotonic())
        self.steps += 1
        epoch = round(self._epoch(progress), 4)
        row = {"step": progress.step, "epoch": epoch, "loss": _number(loss), "grad_norm": _number(norm), "lr": rate}
        self.rows.append(row)
        elapsed = time.monotonic() - self.flushed_at - self.validating
        self.images_per_second = self.steps * self.batch_size / max(elapsed, 1e-9)
        self.reporter.step(self._line(progress, loss), done=progress.step, total=self.plan.steps)
        if self.steps >= FLUSH_STEPS:
            self.flush()

    def validation(self, progress: Progress, scores: Scores, seconds: float, *, better: bool) -> None:
        """Notes a validation and says it."""
        self.validating += seconds
        classes = dict(zip(self.names, iou(scores.confusion), strict=True))
        row = {"step": progress.step, "split": "val", **scores.summary, "iou": classes}
        self.rows.append(row)
        self.reporter.say(
            f"step {progress.step} (epoch {self._epoch(progress):.1f}): val mIoU {percent(scores.miou)}, "
            f"pixel accuracy {percent(scores.summary['pixel_accuracy'])}{', best so far' if better else ''} "
            f"({counted(len(scores.images), 'image')} in {duration(seconds)})"
        )
        for warning in self.validations.look(row, scores.confusion):
            self.reporter.warn(warning)

    def flush(self) -> None:
        """Writes what has been noted."""
        if self.world.is_main and self.rows:
            self.run.append("metrics.jsonl", self.rows)
            seconds = time.monotonic() - self.flushed_at
            row = {
                "step": self.rows[-1]["step"],
                "seconds": round(seconds, 3),
                "validation_seconds": round(self.validating, 3),
                "images_per_second": round(self.images_per_second, 3),
                "waiting": round(self.waited / max(seconds - self.validating, 1e-9), 4),
            }
            self.run.append("timing.jsonl", [row])
            self._look_for_crowding(seconds)
        self._begin_interval()

    def _begin_interval(self) -> None:
        """Starts what is counted from one flush to the next."""
        self.flushed_at = time.monotonic()
        self.rows: list[dict[str, Any]] = []
        self.steps = 0
        self.validating = 0.0  # seconds
        self.waited = 0.0  # seconds, for images

    def _look_for_crowding(self, seconds: float) -> None:
        """Warns where the threads of the steps since the last flush mostly waited for a core."""
        before, self.without_core = self.without_core, seconds_without_core()
        share = self.crowding.add(max(0.0, self.without_core - before), seconds, steps=self.steps)
        if share is not None and num_threads() > 1:
            self.reporter.warn(crowding_warning(share, threads=num_threads()))

    def _epoch(self, progress: Progress) -> float:
        return progress.step * self.batch_size / self.plan.images

    def _line(self, progress: Progress, loss: float) -> str:
        epoch = self._epoch(progress)
        best = "" if progress.best is None else f"  best mIoU {percent(progress.best)}"
        return (
            f"epoch {epoch:.1f}/{self.plan.epochs:.1f}  step {progress.step}/{self.plan.steps}  loss {loss:.4f}{best}  "
            f"{self.images_per_second:.1f} img/s{self._left(progress.step)}"
        )

    def _left(self, step: int) -> str:
        first, since = self.paced_from or (step, 0.0)
        if step == first:
            return ""
        return f"  {duration((time.monotonic() - since) / (step - first) * (self.plan.steps - step))} left"


def _remedy(config: Config, resume: str) -> str:
    """Returns what to change after a divergence, and the command that goes on with it."""
    optim = config.optim
    if optim.weight_decay > 1 and optim.lr * optim.weight_decay >= 1:  # a step turns the signs of weights
        return (
            f"less weight decay, of which a step now takes {optim.lr * optim.weight_decay:g} of each weight: {resume} "
            f"--set optim.weight_decay={Optim().weight_decay:g}"
        )
    clip = " --set optim.clip=1" if optim.clip is None else ""
    fp32 = " --set train.precision=fp32" if config.train.precision == "fp16" else ""
    return f"another learning rate: {resume} --set optim.lr={min(optim.lr / 2, HIGH_RATE):g}{clip}{fp32}"


def _number(value: float) -> float | None:
    """Returns what JSON has for a number; of a step that fp16 left out, the norm is none."""
    return value if math.isfinite(value) else None
