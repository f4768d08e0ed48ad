"""Training: from a config and a run directory to checkpoints and scores."""

from __future__ import annotations

import copy
import logging
import math
import shlex
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from segtool import checkpoint, disk
from segtool.allocator import keep_freed_memory
from segtool.checkpoint import Progress, TrainState
from segtool.config import Config, Train, located
from segtool.data.cache import make_cache
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet, stream_keys
from segtool.data.formats import Record
from segtool.data.loader import little_shared_memory, num_cores, num_workers, training_batches
from segtool.data.opening import shown
from segtool.data.reader import Reader
from segtool.data.statistics import ClassFrequencies
from segtool.distributed import World, apart, convolutions_by_trial, failed_together
from segtool.divergence import NOWHERE, batch_files, first_appearance, not_finite
from segtool.draw import png
from segtool.draw import sample as draw_sample
from segtool.errors import DivergedError, Interrupted, SegtoolError
from segtool.evaluate import evaluate
from segtool.inference import Normalize, Predictor, fast_dtype
from segtool.losses import Criterion
from segtool.metrics import Scores, iou
from segtool.models.encoders import Encoder
from segtool.models.segmenter import Segmenter, build_model, deep_supervision_weights
from segtool.optim import Ema, begin_momentum, build_optimizer, learning_rate
from segtool.plan import Plan, parts_of, steps_of
from segtool.runs import RunDirectory, relocate
from segtool.shortage import shortage_told
from segtool.signals import catch_signals
from segtool.terminal import Reporter, duration, percent
from segtool.watchdogs import Validations, Waiting, lighter, waiting_warning

FLUSH_STEPS = 20  # steps between two writes of the logs
LATE_STEPS = 1  # what a device that runs ahead has queued before what came of a step is read
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}
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
    network: nn.Module
    """What images go through: the model, and with several processes what makes their gradients one."""
    scaler: torch.amp.GradScaler | None = None
    """Of the loss, in fp16."""

    @property
    def state(self) -> TrainState:
        """What a checkpoint saves."""
        return TrainState(self.model, self.ema.model if self.ema else None, self.optimizer, self.scaler)

    @property
    def runs_ahead(self) -> bool:
        """Whether a step is only queued on the device when `train_step` returns, and what came of it is read later."""
        return self.device.type == "cuda" or self.scaler is not None

    @property
    def scored(self) -> Segmenter:
        """The network that is validated and predicted with: the averaged one where there is one."""
        return self.ema.model if self.ema else self.model  # type: ignore[return-value]


def train(
    config: Config,
    records: dict[str, list[Record]],
    frequencies: ClassFrequencies | None,
    plan: Plan,
    run: RunDirectory,
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
        Interrupted: a signal came; the step was finished and saved.
    """
    keep_freed_memory()
    reader = Reader.of(config)
    training_set = build_training_set(config, records["train"], plan, frequencies)
    validation_set = EvaluationSet(records.get("val", []), reader)
    start = None if resumed else partial(load_pretrained, base=run.directory, reporter=reporter)
    with located(config):
        training = build_training(config, frequencies, device, world, start=start)
    progress = resumed.progress if resumed else Progress()
    if resumed:
        resumed.restore(training.state)
        if world.is_main:
            checkpoint.set_aside(run.checkpoints, after=progress.step)
            checkpoint.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)
    progress = replace(progress, steps=plan.steps, finished=False)
    saved_config = relocate(config, run.directory, run.checkpoints / "step")
    if resumed is None and world.is_main:
        checkpoint.save(run.checkpoints, training.state, saved_config, progress)
    make_step = start_compilation(training, reporter)
    workers = num_workers(config.train.workers, device, world)
    here = config.train.batch_size * world.local_size // world.size  # images of a batch on this machine
    if warning := little_shared_memory(here * plan.crop[0] * plan.crop[1] * (config.data.channels + 1), workers):
        reporter.warn(warning)
    batches = training_batches(
        training_set,
        world,
        batch_size=config.train.batch_size,
        start=progress.step,
        steps=plan.steps,
        workers=workers,
    )
    logs = Logs(run, world, reporter, config, plan, workers)
    batches = logs.awaited(batches)
    world.meet()
    saved_at = time.monotonic()
    with (
        catch_signals() as signals,
        logs.flushed_where_it_diverges(config),
        shortage_told(partial(shortage_advice, training, plan, run)),
    ):
        while progress.step < plan.steps:
            batch = next(batches)
            rate = learning_rate(config.optim, progress.step, plan.steps)
            outcome = make_step(training, batch, progress.step, rate, records["train"])
            make_step = train_step
            progress = replace(progress, step=progress.step + 1, score=None)
            logs.step(progress, outcome, late=LATE_STEPS if training.runs_ahead else 0)

            # Once in a while: validate, save, end.
            out_of_time = bool(world.largest(deadline is not None and time.monotonic() > deadline))
            last = progress.step == plan.steps or out_of_time
            if last or progress.step % plan.eval_steps == 0:
                logs.settle()
                progress = validate(training, validation_set, progress, run, logs, workers)
                patience = config.train.patience
                if patience is not None and progress.stale >= patience and not last:
                    reporter.say(f"no better mean IoU in {patience} validations: training ends here")
                    last = True
            # Looked at once: a signal that comes later ends the next step, after its save.
            stop = world.largest(signals[0] if signals else 0)
            due = world.largest(time.monotonic() - saved_at > CHECKPOINT_SECONDS)
            if last or stop or due or progress.score is not None:
                logs.settle()  # a step that was not made must not be saved as one
                require_finite(training, progress.step)
                logs.flush()
                progress = replace(progress, finished=last)
                if world.is_main:
                    checkpoint.save(run.checkpoints, training.state, saved_config, progress)
                    checkpoint.remove_old(run.checkpoints, keep=config.train.keep, warn=reporter.warn)
                saved_at = time.monotonic()
            if last:
                break
            if stop:
                raise Interrupted(stop, resume_command(run.directory, world), progress.step)
    return progress


def resume_command(directory: Path, world: World) -> str:
    """Returns what continues a run."""
    return f"segtool train {shlex.quote(str(directory))} --resume" + (f" --gpus {world.size}" if world.size > 1 else "")


def shortage_advice(training: Training, plan: Plan, run: RunDirectory) -> str:
    """Returns, where a training ran out of memory, what is saved and the command to try next."""
    config, train = training.config, training.config.train
    resume = resume_command(run.directory, training.world)
    found = lighter(config, training.model, plan.crop)
    if found and plan.cache and training.device.type == "cpu":
        found = f"{found[0]} --set train.cache=false", found[1]
    advice = f"{resume} --set {found[0]}: {found[1]}" if found else "a network of fewer channels, in a new run"
    saved = checkpoint.committed(run.checkpoints)[-1].name
    return (
        f"with train.batch_size {train.batch_size} in {train.accumulate} part(s), augment.crop "
        f"{plan.crop[0]}x{plan.crop[1]}, train.precision {train.precision}. The last checkpoint, {saved}, is intact; "
        f"try {advice}"
    )


def validation_shortage(
    directory: Path, world: World, _: object, image: Path, size: tuple[int, int], __: object
) -> str:
    """Returns, where a validation ran out of memory, the image and what to try; it has no other size or tile."""
    return (
        f"in validation, at {shown(image)}, {size[1]}x{size[0]} pixels, which goes through the network as a whole "
        "up to 2 megapixels; make the images of the validation split smaller, or leave more memory free: "
        f"{resume_command(directory, world)} --set train.cache=false --set train.workers=0"
    )


def require_finite(training: Training, step: int) -> None:
    """Raises DivergedError where a step, itself finite, left weights or statistics that are not."""
    spoiled = [name for network in dict.fromkeys([training.model, training.scored]) for name in not_finite(network)]
    if spoiled:
        raise DivergedError(
            f"step {step}: loss and gradient were finite, but what it made of {', '.join(spoiled[:3])} is not (of "
            f"{len(spoiled)} tensors in all); nothing of it is saved."
        )


def build_training_set(
    config: Config, records: list[Record], plan: Plan, frequencies: ClassFrequencies | None
) -> TrainingSet:
    """Returns the training images as they come to the network, kept in memory where the plan says so."""
    cache = make_cache(len(records)) if plan.cache else None
    return TrainingSet(
        records, Reader.of(config), config.augment, plan.crop, config.train.seed, frequencies, cache=cache
    )


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
    if device.type == "cuda" or config.train.precision != "fp32" or _has_grouped_conv(model):
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    criterion = Criterion(config.loss, classes, frequencies).to(device)
    if config.train.sync_batch_norm and world.size > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    network = world.parallel(model)
    ema = Ema(model, config.train.ema) if config.train.ema is not None else None
    optimizer = build_optimizer(model, config.optim)
    normalize = Normalize(config.data.mean or (), config.data.std or ())
    scaler = torch.amp.GradScaler(device.type) if config.train.precision == "fp16" else None
    training = Training(config, model.train(), ema, optimizer, criterion, normalize, device, world, network, scaler)
    if training.runs_ahead:
        begin_momentum(optimizer)
    return training


def load_pretrained(encoder: Encoder, *, base: Path, reporter: Reporter) -> None:
    """Gives an encoder the weights that its config names, and says so; without such it is left as it is.

    Args:
        base: Folder that the path of a file of weights is relative to.
    """
    pretrained = encoder.pretrained(base)
    if pretrained:
        fitted = encoder.load(pretrained)
        reporter.say(f"encoder: starts from {pretrained.name}" + (f"; {fitted}" if fitted else ""))


@dataclass(frozen=True)
class Outcome:
    """What came of a step, which may still be on its way from the device."""

    step: int
    """Counted from 0."""
    rate: float
    """The learning rate."""
    values: Tensor
    """Loss, norm of the gradient, and the scale of the loss (1 where it is not scaled); on the CPU."""
    arrived: torch.cuda.Event | None
    """After which `values` can be read; None: they can be."""
    images: Callable[[], list[Path]]
    """Returns those of the batch."""
    where: Callable[[], str]
    """Finds out where in the step a number that is not finite first appears."""

    def read(self) -> tuple[float, float]:
        """Waits for loss and gradient norm and returns them.

        In fp16 a gradient that is not finite is one whose scaled loss was too large: the step is left out, the scale
        is halved, and the norm is told as it is. It is a divergence where the scale is down to 1.

        Raises:
            DivergedError: one of the two is not finite; the step was not made.
        """
        if self.arrived is not None:
            self.arrived.synchronize()
        loss, norm, scale = self.values.tolist()
        overflowed = not math.isfinite(norm) and scale > 1
        if overflowed or (math.isfinite(loss) and math.isfinite(norm)):
            return loss, norm
        scaled = "" if scale == 1 else f", scale of the loss {scale:g}"
        raise DivergedError(
            f"step {self.step + 1}: loss {loss}, gradient norm {norm}, learning rate {self.rate:.3g}{scaled}; the step "
            f"was not made.\nWhere: {self.where()}.\nThe batch was: {batch_files(self.images())}."
        )


def train_step(training: Training, batch: Sample, step: int, rate: float, records: list[Record]) -> Outcome:
    """Makes one optimizer step and returns what came of it.

    With `train.accumulate` the batch goes through the network in parts, whose losses and gradients add up to those of
    the whole, BatchNorm aside. Where loss or gradient is not finite, weights and optimizer stay as they are; the
    statistics of BatchNorm have seen the batch. On a GPU the device decides so by itself, and nothing waits for it.

    Raises:
        DivergedError: on a CPU, that one of the two is not finite; on a GPU `Outcome.read` raises it.
    """
    config, optimizer = training.config, training.optimizer
    loss = compute_gradients(training, batch, step, len(records))
    if training.scaler:
        training.scaler.unscale_(optimizer)
    parameters = [p for p in training.model.parameters() if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    where = partial(find_divergence, training, batch, step, len(records))
    images = partial(_images_of, config.train, step, records)
    outcome = _outcome(training, loss, norm, Outcome(step, rate, loss, None, images, where))
    if not training.runs_ahead:
        outcome.read()
    if config.optim.clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.optim.clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    if training.scaler:
        training.scaler.step(optimizer)
        training.scaler.update()
    else:
        optimizer.step()
    if training.ema:
        training.ema.update(training.model, step)
    return outcome


def _outcome(training: Training, loss: Tensor, norm: Tensor, outcome: Outcome) -> Outcome:
    """Sends loss and norm on their way to the CPU, and has a GPU leave the step out where they are not finite."""
    scale = training.scaler.scale(torch.ones_like(loss)) if training.scaler else torch.ones_like(loss)
    values = torch.stack([loss, norm, scale])
    arrived = None
    if training.device.type == "cuda":
        leave_out_where_not_finite(training.optimizer, values)
        values = values.to("cpu", non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
    return replace(outcome, values=values, arrived=arrived)


def _images_of(train: Train, step: int, records: list[Record]) -> list[Path]:
    """Returns the images of a step's batch, those of all processes."""
    first = step * train.batch_size
    keys = stream_keys(train.seed, len(records), first, first + train.batch_size)
    return [records[index].image for _, index in keys]


def leave_out_where_not_finite(optimizer: torch.optim.Optimizer, values: Tensor) -> None:
    """Has the device leave out the step where one of the values is not finite.

    It then leaves out those that are queued before the first is read too: the weights stay those that the cause is
    looked for with.
    """
    before, found = getattr(optimizer, "found_inf", None), 1.0 - values.isfinite().all().float()
    # What torch's gradient scaler sets too: the fused optimizers look at it on the device.
    optimizer.found_inf = found if before is None else torch.maximum(before, found)  # type: ignore[attr-defined]


def start_compilation(training: Training, reporter: Reporter) -> Callable[..., Outcome]:
    """Has the network compiled in the first step, where the config says so, and returns what makes that step."""
    if not training.config.train.compile:
        return train_step
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of any machine without CUDA
    training.model.compile()
    return partial(compiled_step, reporter)


def compiled_step(reporter: Reporter, training: Training, *step: Any) -> Outcome:
    """Makes the first `train_step` of a network that is to be compiled; where that fails, training goes on without.

    Weights and statistics are then those before the step.
    """
    buffers = {name: buffer.clone() for name, buffer in training.model.named_buffers()}
    try:
        return train_step(training, *step)
    except SegtoolError:
        raise
    except Exception as error:  # whatever a compiler stumbles over; where it is not at fault, the step below fails too
        if failed_together(error, training.world):
            raise
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if training.world.size > 1:  # the others are within the step, which cannot be made again by one alone
            raise SegtoolError(f"compilation failed ({reason}); train with train.compile=false") from error
    reporter.warn(
        f"compilation failed, and training goes on without it ({reason}); train.compile=false spares the attempt"
    )
    training.model._compiled_call_impl = None
    training.model.load_state_dict(buffers, strict=False)
    return train_step(training, *step)


def compute_gradients(training: Training, batch: Sample, step: int, images_in_all: int) -> Tensor:
    """Leaves the gradients of a step in the parameters, and returns its loss; a function of step, batch and weights."""
    config = training.config
    torch.manual_seed(step_seed(config.train.seed, step, training.world.rank))
    if training.model.encoder.freeze:
        hold_encoder(training, held=step < held_steps(training, images_in_all))
    target = batch.target.to(training.device, non_blocking=True)
    images = training.normalize(batch.image.to(training.device, non_blocking=True))
    denominators = training.world.sum(training.criterion.denominators(target))
    training.optimizer.zero_grad(set_to_none=True)
    count = parts_of(config.train, len(images))
    parts = list(zip(images.tensor_split(count), target.tensor_split(count), strict=True))
    with convolutions_by_trial(training.device):
        with apart(training.network):
            losses = [add_gradients(training, *part, denominators) for part in parts[:-1]]
        losses.append(add_gradients(training, *parts[-1], denominators))
    return training.world.sum(torch.stack(losses).sum())


def find_divergence(training: Training, *step: Any) -> str:
    """Makes `compute_gradients` of a step once more, and returns where a number that is not finite first appears."""
    training.model._compiled_call_impl = None
    found = first_appearance(training.model, training.criterion, partial(compute_gradients, training, *step))
    everywhere = training.world.gather_json([found])
    return next((place for place in everywhere if place), NOWHERE)


def add_gradients(training: Training, images: Tensor, target: Tensor, denominators: Tensor) -> Tensor:
    """Adds the gradients of a part of a batch to those that are there, and returns its share of the loss."""
    half = HALF.get(training.config.train.precision)
    with torch.autocast(training.device.type, half, enabled=half is not None):
        outputs = training.network(images)  # N K H W, or with deep supervision a list of such
    outputs = outputs if isinstance(outputs, list) else [outputs]
    weights = deep_supervision_weights(len(outputs))
    losses = [
        weight * training.criterion(logits, target, denominators)
        for weight, logits in zip(weights, outputs, strict=True)
    ]
    loss = torch.stack(losses).sum()
    scaled = loss * training.world.size  # since the gradient becomes the mean over the processes
    (training.scaler.scale(scaled) if training.scaler else scaled).backward()
    return loss.detach()


def held_steps(training: Training, images: int) -> int:
    """Returns in how many steps, from the first, the encoder's weights stay as they are (`freeze`)."""
    return steps_of(training.model.encoder.freeze, images, training.config.train.batch_size)


def hold_encoder(training: Training, *, held: bool) -> None:
    """Makes the encoder what it is in prediction, without gradients, or trains it like the rest again.

    Held, its BatchNorm uses its statistics and leaves them as they are, and it drops nothing.
    """
    encoder = training.model.encoder
    if encoder.training != held:
        return
    encoder.requires_grad_(not held).train(not held)
    training.network = training.world.parallel(training.model)


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
    training: Training, dataset: EvaluationSet, progress: Progress, run: RunDirectory, logs: Logs, workers: int
) -> Progress:
    """Scores the validation split, draws samples where it is the best so far, and returns the scored progress."""
    if not len(dataset):
        return progress
    training.world.spread(training.scored.buffers())  # those of BatchNorm have seen each process's images only
    predictor = build_predictor(training)
    began = time.monotonic()
    advise = partial(validation_shortage, run.directory, training.world)
    scores = evaluate(predictor, dataset, training.world, workers=workers, reporter=logs.reporter, advise=advise)
    score = scores.miou
    better = score is not None and (progress.best is None or score > progress.best)
    if better and training.world.is_main:
        draw_samples(predictor, dataset, run.samples, training.config.train.samples)
    progress = replace(
        progress,
        score=score,
        best=score if better else progress.best,
        stale=0 if better else progress.stale + 1,
    )
    logs.validation(progress, scores, time.monotonic() - began, better=better)
    return progress


def build_predictor(training: Training) -> Predictor:
    """Returns what validates: the network as it stands, copied, in the arithmetic that predicts from a checkpoint."""
    dtype = fast_dtype(training.device)
    return Predictor(copy.deepcopy(training.scored), training.normalize, training.device, dtype=dtype)


def draw_samples(predictor: Predictor, dataset: EvaluationSet, directory: Path, count: int) -> None:
    """Writes evenly spaced validation images as image, truth and prediction, named by their stems."""
    for name, picture in sample_pictures(predictor, dataset, count):
        disk.make_folder(directory)
        disk.write_atomically(directory / name, picture)


def sample_pictures(predictor: Predictor, dataset: EvaluationSet, count: int) -> Iterator[tuple[str, bytes]]:
    """Yields name and PNG file of evenly spaced images."""
    for index in np.unique(np.linspace(0, len(dataset) - 1, count).astype(int)):
        record = dataset.records[index]
        image, truth = dataset.reader.pair(record)
        prediction = predictor.classes(torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0))))
        picture = draw_sample(image, truth, prediction, dataset.reader.labels.colors)
        yield f"{record.stem.replace('/', '_')}.png", png(picture)


class Logs:
    """The rows of `metrics.jsonl` and `timing.jsonl`, and the line of progress."""

    def __init__(
        self, run: RunDirectory, world: World, reporter: Reporter, config: Config, plan: Plan, workers: int
    ) -> None:
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
        self.workers = workers
        self.share = Waiting()
        self.waited = 0.0  # seconds spent in waiting for images since the last flush
        self.stepped = self.began
        self.validations = Validations(config, plan.steps, run.validations())
        self.waiting: deque[tuple[Progress, Outcome]] = deque()

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
            share = self.share.add(waited, self.stepped - asked)
            if share is not None:
                cores = num_cores()
                warning = waiting_warning(share, workers=self.workers, cores=cores, cached=self.plan.cache)
                self.reporter.warn(warning)

    def step(self, progress: Progress, outcome: Outcome, *, late: int = 0) -> None:
        """Notes a step, and reads those that were made more than `late` steps before.

        Raises:
            DivergedError: of one of these.
        """
        self.waiting.append((progress, outcome))
        self.settle(late=late)
        self.stepped = time.monotonic()

    def settle(self, *, late: int = 0) -> None:
        """Reads what came of all steps but the last `late`. Raises as `step`."""
        while len(self.waiting) > late:
            progress, outcome = self.waiting.popleft()
            self._note(progress, *outcome.read(), outcome.rate)

    @contextmanager
    def flushed_where_it_diverges(self, config: Config) -> Iterator[None]:
        """Writes how it came to a divergence that is raised inside, and adds what is saved and how to go on."""
        try:
            yield
        except DivergedError as error:
            self.flush()
            saved = checkpoint.committed(self.run.checkpoints)[-1]
            resume = resume_command(self.run.directory, self.world)
            clip = " --set optim.clip=1" if config.optim.clip is None else ""
            fp32 = " --set train.precision=fp32" if config.train.precision == "fp16" else ""
            raise DivergedError(
                f"{error}\nThe last checkpoint, {saved.name}, is intact. {resume} meets the same batches again; with "
                f"another learning rate: {resume} --set optim.lr={config.optim.lr / 2:g}{clip}{fp32}"
            ) from error

    def _note(self, progress: Progress, loss: float, norm: float, rate: float) -> None:
        """Adds the row of a step; what is not reproducible goes to `timing.jsonl`."""
        self.first = progress.step - 1 if self.first is None else self.first
        self.steps_since += 1
        epoch = round(progress.step * self.batch_size / self.plan.images, 4)
        row = {"step": progress.step, "epoch": epoch, "loss": _number(loss), "grad_norm": _number(norm), "lr": rate}
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
        row = {"step": progress.step, "split": "val", **scores.summary, "iou": classes}
        self.rows.append(row)
        epoch = progress.step * self.batch_size / self.plan.images
        self.reporter.say(
            f"step {progress.step} (epoch {epoch:.1f}): val mIoU {percent(scores.miou)}, pixel accuracy "
            f"{percent(scores.summary['pixel_accuracy'])}{', best so far' if better else ''} "
            f"({len(scores.images)} images in {duration(seconds)})"
        )
        for warning in self.validations.look(row, scores.confusion):
            self.reporter.warn(warning)

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
                "waiting": round(self.waited / max(seconds - self.validating, 1e-9), 4),
            }
            self.run.append("timing.jsonl", [row])
        self.rows = []
        self.steps_since = 0
        self.validating = self.waited = 0.0
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


def _number(value: float) -> float | None:
    """Returns what JSON has for a number; of a step that fp16 left out, the norm is none."""
    return value if math.isfinite(value) else None
