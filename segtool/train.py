"""Training: from a config and a run directory to checkpoints and scores."""

from __future__ import annotations

import copy
import math
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtool import checkpoint
from segtool.allocator import keep_freed_memory
from segtool.checkpoint import Progress, TrainState
from segtool.config import Config, located
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet
from segtool.data.formats import Record
from segtool.data.loader import num_workers, training_batches
from segtool.data.reader import Reader
from segtool.data.statistics import ClassFrequencies
from segtool.distributed import World
from segtool.draw import png
from segtool.draw import sample as draw_sample
from segtool.errors import DivergedError, Interrupted
from segtool.evaluate import evaluate
from segtool.inference import Normalize, Predictor
from segtool.losses import Criterion
from segtool.metrics import Scores, iou
from segtool.models.encoders import Encoder
from segtool.models.segmenter import Segmenter, build_model, deep_supervision_weights
from segtool.optim import Ema, build_optimizer, learning_rate
from segtool.plan import Plan, steps_of
from segtool.runs import Run, relocate, write_atomically
from segtool.terminal import Reporter, duration, percent

FLUSH_STEPS = 20  # steps between two writes of the logs
CHECKPOINT_SECONDS = 600  # a checkpoint at the latest after this long, whatever the validations do


@dataclass
class Training:
    """Everything that a training step changes or uses."""

    config: Config
    model: Segmenter
    ema: Ema | None
    optimizer: torch.optim.Optimizer
    criterion: Criterion
    normalize: Normalize
    device: torch.device
    world: World

    @property
    def state(self) -> TrainState:
        """What a checkpoint saves."""
        return TrainState(self.model, self.ema.model if self.ema else None, self.optimizer)

    @property
    def scored(self) -> Segmenter:
        """The network that is validated and predicted with: the averaged one where there is one."""
        return self.ema.model if self.ema else self.model  # type: ignore[return-value]


def train(
    config: Config,
    records: dict[str, list[Record]],
    frequencies: ClassFrequencies | None,
    plan: Plan,
    run: Run,
    *,
    world: World,
    device: torch.device,
    reporter: Reporter,
    resumed: checkpoint.Checkpoint | None = None,
    deadline: float | None = None,
) -> Progress:
    """Trains to the end of the plan and returns where it stands then.

    Args:
        config: resolved (`plan.resolve`): nothing in it is `auto` or measured any more.
        records: pairs by split; `val` may be missing or empty, then nothing is scored.
        resumed: the checkpoint to go on from.
        deadline: `time.monotonic()` after which no further step begins.

    Raises:
        ConfigError: the encoder's pretrained weights are not there, or of another network.
        CheckpointError: they cannot be read, or not be downloaded; or a checkpoint cannot be written.
        DivergedError: loss or gradient is not finite; the step was not made, and what was saved before stays.
        Interrupted: SIGINT or SIGTERM; the step was finished and saved.
    """
    keep_freed_memory()
    reader = Reader.of(config)
    training_set = TrainingSet(records["train"], reader, config.augment, plan.crop, config.train.seed, frequencies)
    validation_set = EvaluationSet(records.get("val", []), reader)
    start = None if resumed else partial(load_pretrained, base=run.directory, reporter=reporter)
    with located(config):
        training = build_training(config, frequencies, device, world, start=start)
    progress = resumed.progress if resumed else Progress()
    if resumed:
        resumed.restore(training.state)
        if world.is_main:
            checkpoint.set_aside(run.checkpoints, after=progress.step)
    progress = replace(progress, steps=plan.steps, finished=False)
    saved_config = relocate(config, run.directory, run.checkpoints / "step")
    if resumed is None and world.is_main:
        checkpoint.save(run.checkpoints, training.state, saved_config, progress)
    if config.train.compile:
        training.model.compile()
    workers = num_workers(config.train.workers, device)
    batches = training_batches(
        training_set,
        world,
        batch_size=config.train.batch_size,
        start=progress.step,
        steps=plan.steps,
        workers=workers,
    )
    logs = Logs(run, world, reporter, config, plan)
    saved_at = time.monotonic()
    with catch_signals() as signals:
        while progress.step < plan.steps:
            batch = next(batches)
            rate = learning_rate(config.optim, progress.step, plan.steps)
            try:
                loss, norm = train_step(training, batch, progress.step, rate, records["train"])
            except DivergedError:
                logs.flush()  # how it came to this
                raise
            progress = replace(progress, step=progress.step + 1, score=None)
            logs.step(progress, loss, norm, rate)

            # Once in a while: validate, save, end.
            out_of_time = deadline is not None and time.monotonic() > deadline
            last = progress.step == plan.steps or out_of_time
            if last or progress.step % plan.eval_steps == 0:
                progress = validate(training, validation_set, progress, run, logs, workers)
                patience = config.train.patience
                if patience is not None and progress.stale >= patience and not last:
                    reporter.say(f"no better mean IoU in {patience} validations: training ends here")
                    last = True
            stop = list(signals)  # looked at once: a signal that comes later ends the next step, after its save
            if last or stop or progress.score is not None or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
                logs.flush()
                progress = replace(progress, finished=last)
                if world.is_main:
                    checkpoint.save(run.checkpoints, training.state, saved_config, progress)
                    checkpoint.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)
                saved_at = time.monotonic()
            if last:
                break
            if stop:
                raise Interrupted(stop[0], f"segtool train {run.directory} --resume", progress.step)
    return progress


def build_training(
    config: Config,
    frequencies: ClassFrequencies | None,
    device: torch.device,
    world: World,
    *,
    start: Callable[[Encoder], object] | None = None,
) -> Training:
    """Returns a training at its beginning; the weights are a function of `train.seed` and of what `start` loads."""
    torch.manual_seed(config.train.seed)
    classes = len(config.data.classes)
    model = build_model(config.model, classes, config.data.channels)
    if start:
        start(model.encoder)
    model = model.to(device)
    if device.type == "cuda" or config.train.precision == "bf16" or _has_grouped_conv(model):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = Criterion(config.loss, classes, frequencies).to(device)
    ema = Ema(model, config.train.ema) if config.train.ema is not None else None
    optimizer = build_optimizer(model, config.optim)
    normalize = Normalize(config.data.mean or (), config.data.std or ())
    return Training(config, model.train(), ema, optimizer, criterion, normalize, device, world)


def load_pretrained(encoder: Encoder, *, base: Path, reporter: Reporter) -> None:
    """Gives an encoder the weights that its config names, and says so; without such it is left as it is.

    Args:
        base: Folder that the path of a file of weights is relative to.
    """
    pretrained = encoder.pretrained(base)
    if pretrained:
        fitted = encoder.load(pretrained)
        reporter.say(f"encoder: starts from {pretrained.name}" + (f"; {fitted}" if fitted else ""))


def train_step(training: Training, batch: Sample, step: int, rate: float, records: list[Record]) -> tuple[float, float]:
    """Makes one optimizer step and returns the loss before it and the norm of the gradient.

    With `train.accumulate` the batch goes through the network in parts, whose losses and gradients add up to those of
    the whole, BatchNorm aside.

    Raises:
        DivergedError: one of the two is not finite; weights, averages and optimizer are as they were. (The statistics
            of BatchNorm have seen the batch.)
    """
    config, optimizer = training.config, training.optimizer
    torch.manual_seed(step_seed(config.train.seed, step, training.world.rank))
    if training.model.encoder.freeze:
        hold_encoder(training.model, held=step < held_steps(training, len(records)))
    target = batch.target.to(training.device, non_blocking=True)
    images = training.normalize(batch.image.to(training.device, non_blocking=True))
    denominators = training.world.sum(training.criterion.denominators(target))
    optimizer.zero_grad(set_to_none=True)
    count = config.train.accumulate
    parts = zip(images.tensor_split(count), target.tensor_split(count), strict=True)
    losses = [add_gradients(training, *part, denominators) for part in parts]
    parameters = [p for p in training.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    values = torch.stack(losses).sum().item(), norm.item()
    if not all(math.isfinite(value) for value in values):
        files = ", ".join(str(records[int(index)].image) for index in batch.indices)
        raise DivergedError(
            f"step {step + 1}: loss {values[0]}, gradient norm {values[1]}, learning rate {rate:.3g}; the step was not "
            f"made. The batch was: {files}. Try a lower optim.lr, optim.clip=1.0, or a longer optim.warmup"
        )
    if config.optim.clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.optim.clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    if training.ema:
        training.ema.update(training.model, step)
    return values


def add_gradients(training: Training, images: Tensor, target: Tensor, denominators: Tensor) -> Tensor:
    """Adds the gradients of a part of a batch to those that are there, and returns its share of the loss."""
    with torch.autocast(training.device.type, torch.bfloat16, enabled=training.config.train.precision == "bf16"):
        outputs = training.model(images)  # N K H W, or with deep supervision a list of such
    outputs = outputs if isinstance(outputs, list) else [outputs]
    weights = deep_supervision_weights(len(outputs))
    losses = [
        weight * training.criterion(logits, target, denominators)
        for weight, logits in zip(weights, outputs, strict=True)
    ]
    loss = torch.stack(losses).sum()
    loss.backward()
    return loss.detach()


def held_steps(training: Training, images: int) -> int:
    """Returns in how many steps, from the first, the encoder's weights stay as they are (`freeze`)."""
    return steps_of(training.model.encoder.freeze, images, training.config.train.batch_size)


def hold_encoder(model: Segmenter, *, held: bool) -> None:
    """Makes the encoder what it is in prediction, without gradients, or trains it like the rest again.

    Held, its BatchNorm uses its statistics and leaves them as they are, and it drops nothing.
    """
    model.encoder.requires_grad_(not held).train(not held)


def _has_grouped_conv(model: nn.Module) -> bool:
    """Whether depthwise or other grouped convolutions are in it, which are faster with the channels last.

    Measured on two cores with AVX2 in float32: a U-Net on EfficientNet-Lite0 trained 4.5 images/s against 3.7, one of
    plain convolutions as many either way.
    """
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())


def step_seed(seed: int, step: int, rank: int) -> int:
    """Returns the seed of what is random within a step (dropout)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def validate(
    training: Training, dataset: EvaluationSet, progress: Progress, run: Run, logs: Logs, workers: int
) -> Progress:
    """Scores the validation split, draws samples where it is the best so far, and returns the scored progress."""
    if not len(dataset):
        return progress
    predictor = Predictor(copy.deepcopy(training.scored), training.normalize, training.device)
    began = time.monotonic()
    scores = evaluate(predictor, dataset, training.world, workers=workers, reporter=logs.reporter)
    score = scores.miou
    better = score is not None and (progress.best is None or score > progress.best)
    if better and training.world.is_main:
        draw_samples(predictor, dataset, run.directory / "samples", training.config.train.samples)
    progress = replace(
        progress,
        score=score,
        best=score if better else progress.best,
        stale=0 if better else progress.stale + 1,
    )
    logs.validation(progress, scores, time.monotonic() - began, better=better)
    return progress


def draw_samples(predictor: Predictor, dataset: EvaluationSet, directory: Path, count: int) -> None:
    """Writes evenly spaced validation images as image, truth and prediction, named by their stems."""
    if count == 0:
        return
    directory.mkdir(exist_ok=True)
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)):
        record = dataset.records[index]
        image, truth = dataset.reader.pair(record)
        prediction = predictor.classes(torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0))))
        picture = draw_sample(image, truth, prediction, dataset.reader.labels.colors)
        write_atomically(directory / f"{record.stem.replace('/', '_')}.png", png(picture))


class Logs:
    """The rows of `metrics.jsonl` and `timing.jsonl`, and the line of progress."""

    def __init__(self, run: Run, world: World, reporter: Reporter, config: Config, plan: Plan) -> None:
        self.run = run
        self.world = world
        self.reporter = reporter
        self.plan = plan
        self.batch_size = config.train.batch_size
        self.names = [spec.name for spec in config.data.classes]
        self.rows: list[dict[str, Any]] = []
        self.began = self.flushed = time.monotonic()
        self.first: int | None = None
        self.steps_since = 0
        self.rate = 0.0
        self.validating = 0.0  # seconds spent in validation since the last flush

    def step(self, progress: Progress, loss: float, norm: float, rate: float) -> None:
        """Notes a step; what is not reproducible goes to `timing.jsonl`."""
        self.first = progress.step - 1 if self.first is None else self.first
        self.steps_since += 1
        epoch = progress.step * self.batch_size / self.plan.images
        row = {"step": progress.step, "epoch": round(epoch, 4), "loss": loss, "grad_norm": norm, "lr": rate}
        self.rows.append(row)
        elapsed = time.monotonic() - self.flushed - self.validating
        self.rate = self.steps_since * self.batch_size / max(elapsed, 1e-9)
        self.reporter.step(self._line(progress, loss), done=progress.step, total=self.plan.steps)
        if self.steps_since >= FLUSH_STEPS:
            self.flush()

    def validation(self, progress: Progress, scores: Scores, seconds: float, *, better: bool) -> None:
        """Notes a validation and says it."""
        self.validating += seconds
        classes = dict(zip(self.names, iou(scores.confusion), strict=True))
        self.rows.append({"step": progress.step, "split": "val", **scores.summary, "iou": classes})
        epoch = progress.step * self.batch_size / self.plan.images
        self.reporter.say(
            f"step {progress.step} (epoch {epoch:.1f}): val mIoU {percent(scores.miou)}, pixel accuracy "
            f"{percent(scores.summary['pixel_accuracy'])}{', best so far' if better else ''} "
            f"({len(scores.images)} images in {duration(seconds)})"
        )

    def flush(self) -> None:
        """Writes what has been noted."""
        if self.world.is_main and self.rows:
            self.run.append("metrics.jsonl", self.rows)
            seconds = time.monotonic() - self.flushed
            row = {
                "step": self.rows[-1]["step"],
                "seconds": round(seconds, 3),
                "validation_seconds": round(self.validating, 3),
                "images_per_second": round(self.rate, 3),
            }
            self.run.append("timing.jsonl", [row])
        self.rows = []
        self.steps_since = 0
        self.validating = 0.0
        self.flushed = time.monotonic()

    def _line(self, progress: Progress, loss: float) -> str:
        done = progress.step - (self.first or 0)
        left = (time.monotonic() - self.began) / done * (self.plan.steps - progress.step)
        epoch = progress.step * self.batch_size / self.plan.images
        best = "" if progress.best is None else f"  best mIoU {percent(progress.best)}"
        return (
            f"epoch {epoch:.1f}/{self.plan.epochs:.1f}  step {progress.step}/{self.plan.steps}  loss {loss:.4f}{best}  "
            f"{self.rate:.1f} img/s  {duration(left)} left"
        )


class catch_signals:  # noqa: N801 -- a context manager, used like a function
    """Collects SIGINT and SIGTERM in a list, so that the step at hand can be finished; a second one ends at once."""

    def __enter__(self) -> list[int]:
        self.caught: list[int] = []
        self.before = {number: signal.signal(number, self._catch) for number in (signal.SIGINT, signal.SIGTERM)}
        return self.caught

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _catch(self, number: int, _frame: object) -> None:
        if self.caught:
            os._exit(128 + number)
        self.caught.append(number)
        text = "\nsignal received: finishing this step and saving; once more to stop at once\n"
        os.write(2, text.encode())


@dataclass(frozen=True)
class Times:
    """Seconds of a training step, and of scoring the validation split."""

    step: float
    validation: float


def measure(
    config: Config,
    records: dict[str, list[Record]],
    frequencies: ClassFrequencies | None,
    plan: Plan,
    world: World,
    device: torch.device,
) -> Times:
    """Returns measured times, compilation left out; it is made on a training that is thrown away.

    Two steps warm up and six are timed, all of them with the whole network in training; of the validation images one
    warms up and up to eight are timed.
    """
    keep_freed_memory()
    training = build_training(config, frequencies, device, world)
    if config.train.compile:
        training.model.compile()
    reader = Reader.of(config)
    dataset = TrainingSet(records["train"], reader, config.augment, plan.crop, config.train.seed, frequencies)
    workers = num_workers(config.train.workers, device)
    size = config.train.batch_size
    times = []
    first = held_steps(training, len(records["train"]))
    batches = training_batches(dataset, world, batch_size=size, start=first, steps=first + 8, workers=workers)
    for step, batch in enumerate(batches, start=first):
        train_step(training, batch, step, learning_rate(config.optim, 0, plan.steps), records["train"])
        times.append(time.monotonic())
    return Times((times[-1] - times[1]) / 6, _validation_seconds(training, records.get("val", []), reader))


def _validation_seconds(training: Training, records: list[Record], reader: Reader) -> float:
    if not records:
        return 0.0
    predictor = Predictor(copy.deepcopy(training.scored), training.normalize, training.device)
    picked = [records[index] for index in np.linspace(0, len(records) - 1, 9).astype(int)]
    began = 0.0
    for i, record in enumerate(picked):
        began = time.monotonic() if i == 1 else began
        image, _ = reader.pair(record)
        predictor.classes(torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0))))
    return (time.monotonic() - began) / 8 * len(records)
