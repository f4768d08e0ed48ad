"""A training step: the networks, the optimizer and the loss that it uses, and what comes of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from segtool.config import Config, Train
from segtool.data.dataset import Sample, stream_keys
from segtool.data.pairs import Record
from segtool.data.statistics import ClassFrequencies
from segtool.errors import DivergedError, SegtoolError, few
from segtool.models.encoders import Encoder
from segtool.models.segmenter import Segmenter, build_model, deep_supervision_weights
from segtool.models.trace import unreached
from segtool.prediction.inference import Normalize
from segtool.runs.checkpoint import TrainState
from segtool.system.devices import convolutions_by_trial
from segtool.system.distributed import World, apart, failed_together
from segtool.system.terminal import Reporter
from segtool.training.divergence import NOWHERE, first_appearance
from segtool.training.losses import Criterion
from segtool.training.optim import Ema, begin_momentum, build_optimizer
from segtool.training.plan import parts_of, steps_of

MOST_FILES = 20  # of a batch, that are named
HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    """The model as a step calls it: with several processes, wrapped so that each is left with the mean gradient."""
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
    if world.group is not None:
        side = 2 * model.stride
        for parameter in unreached(model, (model.in_channels, side, side)):
            parameter.requires_grad_(False)  # whose gradient the other processes would wait for
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


def _has_grouped_conv(model: nn.Module) -> bool:
    """Whether depthwise or other grouped convolutions are in it, which are faster with the channels last.

    Measured on two cores with AVX2 in float32: a U-Net on EfficientNet-Lite0 trained 4.5 images/s against 3.7, one of
    plain convolutions as many either way.
    """
    return any(isinstance(module, nn.Conv2d) and module.groups > 1 for module in model.modules())


def load_pretrained(encoder: Encoder, *, base: Path, reporter: Reporter) -> None:
    """Gives an encoder the weights that its config names (a file: from `base`) and says so; or leaves it as it is."""
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
            f"was not made.\nWhere: {self.where()}.\nThe batch was: {few(self.images(), MOST_FILES)}."
        )


def train_step(training: Training, batch: Sample, step: int, rate: float, records: Sequence[Record]) -> Outcome:
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
    parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    scale = training.scaler.scale(torch.ones_like(loss)) if training.scaler else torch.ones_like(loss)
    values = torch.stack([loss, norm, scale])
    if training.runs_ahead:
        leave_out_where_not_finite(optimizer, values, scaled=training.scaler is not None)
    images = partial(_images_of, config.train, step, records)
    where = partial(find_divergence, training, batch, step, len(records))
    outcome = Outcome(step, rate, *_sent_to_cpu(values), images, where)
    if not training.runs_ahead:
        outcome.read()
    if config.optim.clip is not None:
        nn.utils.clip_grads_with_norm_(parameters, config.optim.clip, norm)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    optimizer.step()
    if training.scaler:
        training.scaler.update()
    if training.ema:
        training.ema.update(step)
    return outcome


def compute_gradients(training: Training, batch: Sample, step: int, num_images: int) -> Tensor:
    """Leaves the gradients of a step in the parameters, and returns its loss; a function of step, batch and weights.

    `num_images` are those of the training split, by which the epochs of a frozen encoder become steps.
    """
    config = training.config
    torch.manual_seed(step_seed(config.train.seed, step, training.world.rank))
    freeze_encoder(training, frozen=step < frozen_steps(training, num_images))
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


def step_seed(seed: int, step: int, rank: int) -> int:
    """Returns the seed of what is random within a step (dropout)."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0] >> 1)


def frozen_steps(training: Training, num_images: int) -> int:
    """Returns for how many steps from the first the encoder is frozen (`freeze`)."""
    return steps_of(training.model.encoder.freeze, num_images, training.config.train.batch_size)


def freeze_encoder(training: Training, *, frozen: bool) -> None:
    """Freezes the encoder, or lets it learn like the rest again.

    Frozen, it has no gradients and is in evaluation mode: BatchNorm keeps its statistics, and nothing is dropped.
    """
    encoder = training.model.encoder
    if encoder.training != frozen:
        return
    learned = {parameter for group in training.optimizer.param_groups for parameter in group["params"]}
    for parameter in encoder.parameters():
        parameter.requires_grad_(not frozen and parameter in learned)
    encoder.train(not frozen)
    training.network = training.world.parallel(training.model)


def _sent_to_cpu(values: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """Returns `values` and `arrived` of an Outcome; nothing waits for the device."""
    if not values.is_cuda:
        return values, None
    values = values.to("cpu", non_blocking=True)
    arrived = torch.cuda.Event()
    arrived.record()
    return values, arrived


def leave_out_where_not_finite(optimizer: torch.optim.Optimizer, values: Tensor, *, scaled: bool) -> None:
    """Has the device leave out the step where one of the values, as in `Outcome`, is not finite.

    After a divergence the steps that are queued until it is read are left out too, so that the weights stay those with
    which its cause is looked for. Where the loss is `scaled`, what is not finite is a divergence at a scale of 1 only,
    which the scaler has halved by the next step.
    """
    found = 1.0 - values.isfinite().all().float()
    before = getattr(optimizer, "found_inf", torch.zeros_like(found))
    diverged = before * (values[2] < 1) if scaled else before
    # What torch's gradient scaler sets too: the fused optimizers look at it on the device.
    optimizer.found_inf = torch.maximum(diverged, found)  # type: ignore[attr-defined]


def _images_of(train: Train, step: int, records: Sequence[Record]) -> list[Path]:
    """Returns the images of a step's batch, those of all processes."""
    first = step * train.batch_size
    keys = stream_keys(train.seed, len(records), first, first + train.batch_size)
    return [records[index].image for _, index in keys]


def find_divergence(training: Training, batch: Sample, step: int, num_images: int) -> str:
    """Makes `compute_gradients` of a step once more, and returns where a number that is not finite first appears."""
    training.model._compiled_call_impl = None
    repeat = partial(compute_gradients, training, batch, step, num_images)
    found = first_appearance(training.model, training.criterion, repeat)
    everywhere = training.world.gather_json([found])
    return next((place for place in everywhere if place), NOWHERE)


MakeStep = Callable[[Training, Sample, int, float, Sequence[Record]], Outcome]
"""`train_step`, or what makes the first step in its place."""


def start_compilation(training: Training, reporter: Reporter) -> MakeStep:
    """Has the network compiled in the first step, where the config says so, and returns what makes that step."""
    if not training.config.train.compile:
        return train_step
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it warns of any machine without CUDA
    training.model.compile()
    return partial(compiled_step, reporter)


def compiled_step(
    reporter: Reporter, training: Training, batch: Sample, step: int, rate: float, records: Sequence[Record]
) -> Outcome:
    """Makes the first `train_step` of a network that is to be compiled; where that fails, training goes on without.

    Weights and statistics are then those before the step.
    """
    buffers = {name: buffer.clone() for name, buffer in training.model.named_buffers()}
    try:
        return train_step(training, batch, step, rate, records)
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
    return train_step(training, batch, step, rate, records)
