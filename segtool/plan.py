"""What a config leaves open, decided before training: crop, length, arithmetic. Each choice carries its reason."""

from __future__ import annotations

import math
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from segtool.config import Config
from segtool.models.segmenter import Segmenter, check_crop, verify

# Multiply-adds of a whole training (forward and backward) from which a compilation of about a minute pays for itself.
COMPILE_WORK = 2.5e14


@dataclass(frozen=True)
class Choice:
    """One thing that was decided for the user."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """The length and shape of a run."""

    images: int
    """Training images: an epoch."""
    crop: tuple[int, int]
    """Height and width in pixels."""
    steps: int
    """Optimizer steps in all."""
    eval_steps: int
    """Steps between two validations."""
    batch_size: int
    choices: tuple[Choice, ...] = ()

    @property
    def epochs(self) -> float:
        """Passes over the training images."""
        return self.steps * self.batch_size / self.images


def make_plan(config: Config, *, images: int, first_size: tuple[int, int], device: torch.device) -> tuple[Config, Plan]:
    """Returns the config with nothing left to decide, and the plan.

    Args:
        images: number of training images.
        first_size: height and width of the first of them.

    Raises:
        ConfigError: crop or batch do not suit the network.
    """
    train = config.train
    model = verify(config.model, len(config.data.classes), config.data.channels)
    crop, choices = _crop(config, first_size, model.stride)
    check_crop(model, crop, train.batch_size // train.accumulate)
    steps = train.steps or steps_of(train.epochs or 0, images, train.batch_size)
    eval_steps = max(1, round(train.eval_every * images / train.batch_size))
    precision, why = _precision(train.precision, device)
    choices.append(Choice("train.precision", precision, why))
    work = 3 * _multiply_adds(model, config.data.channels, crop) * train.batch_size * steps
    compiled, why = _compile(train.compile, precision, work, device)
    choices.append(Choice("train.compile", str(compiled).lower(), why))
    config = replace(
        config,
        augment=replace(config.augment, crop=crop),
        train=replace(train, precision=precision, compile=compiled),
    )
    return config, Plan(images, crop, steps, eval_steps, train.batch_size, tuple(choices))


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Returns the steps that epochs of so many images take, rounded up."""
    # As a fraction: 1.1 * 10 is a little more than 11 in binary.
    return math.ceil(Fraction(str(epochs)) * images / batch_size)


def _crop(config: Config, size: tuple[int, int], stride: int) -> tuple[tuple[int, int], list[Choice]]:
    crop = config.augment.crop
    if crop is None:
        crop = (max(size[0], stride), max(size[1], stride))
        return crop, [Choice("augment.crop", f"{crop[0]} x {crop[1]}", "size of the first training image")]
    return crop, []


def _precision(setting: Literal["auto", "fp32", "bf16"], device: torch.device) -> tuple[Literal["fp32", "bf16"], str]:
    if setting != "auto":
        return setting, "as the config says"
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    if fast:
        return "bf16", "this processor computes bfloat16 faster than float32"
    return "fp32", "this processor has no fast bfloat16"


def _compile(setting: str | bool, precision: str, work: float, device: torch.device) -> tuple[bool, str]:
    if setting != "auto":
        return bool(setting), "as the config says"
    if work < COMPILE_WORK:
        return False, f"{work / 1e12:.1f} T multiply-adds in all would not repay a minute of compilation"
    if device.type == "cpu" and precision != "bf16":
        return False, "measured: float32 convolutions on a CPU gain nothing from it"
    if device.type == "mps":
        return False, "not tried on this kind of device"
    if device.type == "cpu" and not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        return False, "it would pay, but there is no C++ compiler here; install one for a faster run"
    return True, f"{work / 1e12:.0f} T multiply-adds in all repay the compilation"


def _multiply_adds(model: Segmenter, channels: int, crop: tuple[int, int]) -> int:
    """Returns the multiply-adds of one image's forward pass; nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, channels, *crop, device="meta"))
    return counter.get_total_flops() // 2
