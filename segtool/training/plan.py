"""What a config leaves open, decided before training: crop, length, arithmetic. Each choice carries its reason."""

from __future__ import annotations

import importlib.util
import math
import shutil
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

import torch
from torch.utils.flop_counter import FlopCounterMode

from segtool.config import Config, Train
from segtool.config.yaml_io import flow
from segtool.data.cache import choose_cache
from segtool.data.loader import num_workers
from segtool.data.pairs import Record
from segtool.data.statistics import ClassFrequencies
from segtool.errors import ConfigError, Problem, SegtoolError
from segtool.models.segmenter import Segmenter, check_crop, verify
from segtool.prediction.inference import fast_dtype
from segtool.system.distributed import ALONE, World
from segtool.system.terminal import counted, duration

COMPILE_SECONDS = 60.0  # measured on two cores: 20 to 60 for a U-Net; on a GPU taken to be as long
# What a training does in a second without compilation, as floating-point operations, a multiply-add being two. On a CPU
# for each core: 122 to 155 GFLOP/s were measured with U-Nets on two cores of a server CPU with AVX512-BF16, torch 2.14,
# in float32. For a GPU it is a guess, between what old and new ones do.
CPU_RATE, GPU_RATE = 65e9, 2e13
# Share of that time which bfloat16 and compilation together save: there 18 % (EfficientNet-Lite0) to 60 % (U-Net
# 32..512), for most 38 to 47. For a GPU a guess, where compilation only joins norms and activations.
CPU_GAIN, GPU_GAIN = 0.35, 0.15
# What a processor takes to start a layer, forward and backward, on a GPU: 21 ms a step for the 100 layers of
# camvid-unet.yaml, of which an H200 computed 5, and 13 ms for 63 others beside an H100. Compiled, the 21 were 38.
LAYER_SECONDS = 2e-4

Precision = Literal["fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Choice:
    """One thing that was decided for the user."""

    what: str
    value: str
    reason: str


@dataclass(frozen=True)
class Machine:
    """What the choices depend on beside the config."""

    kind: str
    """Of the device: `cpu`, `cuda` or `mps`."""
    fast_bf16: bool
    """Whether the device computes bfloat16 by instructions of its own, and so faster than float32."""
    fast_fp16: bool
    """Whether it is a GPU with tensor cores for float16."""
    threads: int
    """Threads that torch computes with on a CPU."""
    compiler: str | None
    """The compiler that torch.compile would call; None where there is none."""

    @classmethod
    def of(cls, device: torch.device) -> Machine:
        """Returns what is there."""
        bf16 = fast_dtype(device) == torch.bfloat16
        if device.type == "cuda":
            fp16 = torch.cuda.get_device_capability(device) >= (7, 0)
            compiler = _found("gcc", "clang", "cc") if importlib.util.find_spec("triton") else None
        else:
            fp16 = False
            compiler = _found("g++", "clang++", "c++")
        return cls(device.type, bf16, fp16, torch.get_num_threads(), compiler)


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
    cache: bool = False
    """Whether decoded training images and masks are kept in memory."""
    most_steps: int = 0
    """What a budget may lengthen the run to, once its steps are seen; 0: its length is given."""

    @property
    def epochs(self) -> float:
        """Passes over the training images."""
        return self.steps * self.batch_size / self.images


@dataclass(frozen=True)
class Prepared:
    """All that a training is made from, every choice made, as one process has it on its device."""

    config: Config
    """Resolved by `make_plan`: nothing in it is `auto` or measured any more."""
    plan: Plan
    records: dict[str, list[Record]]
    """Of each split; `val` may be missing or empty, then nothing is scored."""
    frequencies: ClassFrequencies | None
    """Of the classes, where a loss or the augmentation asks for them."""
    world: World
    device: torch.device


def make_plan(
    config: Config,
    *,
    images: int,
    first_size: tuple[int, int],
    value_bytes: int = 1,
    device: torch.device,
    world: World = ALONE,
    budget: float | None = None,
) -> tuple[Config, Plan]:
    """Returns the config with nothing left to decide that changes the result, and the plan.

    Args:
        images: Number of training images.
        first_size: Height and width of the first of them.
        value_bytes: Of one channel of its pixels, 1 or 4.
        budget: Seconds that the training takes, whatever its steps; None: as long as its steps do.

    Raises:
        ConfigError: crop or batch do not suit the network, or the config not the device.
    """
    train = config.train
    model = verify(config.model, len(config.data.classes), config.data.channels)
    crop, choices = config.augment.crop, list[Choice]()
    if crop is None:
        crop = (max(first_size[0], model.stride), max(first_size[1], model.stride))
        choices = [Choice("augment.crop", flow(crop), "height and width of the first training image")]
    check_machine(train, device, world.size)
    if images < world.size:
        told = f"{counted(images, 'training image')} for {world.size} processes"
        raise SegtoolError(f"{told}; start at most one for each image")
    check_crop(model, crop, smallest_part(train, world.size))
    steps = train.steps or steps_of(train.epochs or 0, images, train.batch_size)
    eval_steps = max(1, round(train.eval_every * images / train.batch_size))
    forward = 2 * _multiply_adds(model, config.data.channels, crop)  # the backward pass takes two more of it
    machine, in_a_step = Machine.of(device), 3.0 * forward * train.batch_size
    operations = in_a_step * steps if budget is None else budget * _rate(machine)
    layers = sum(not any(module.children()) for module in model.modules())
    waits = machine.kind == "cuda" and in_a_step / GPU_RATE < LAYER_SECONDS * layers
    precision, compiled, why = arithmetic(train, machine, operations, waits=waits)
    cached, why_cached = choose_cache(
        train.cache,
        images=images * world.local_size,
        size=first_size,
        channels=config.data.channels,
        value_bytes=value_bytes,
    )
    choices += [*why, _workers(train.workers, device, world), Choice("train.cache", str(cached).lower(), why_cached)]
    train = replace(train, precision=precision, compile=compiled)
    config = replace(config, augment=replace(config.augment, crop=crop), train=train)
    return config, Plan(images, crop, steps, eval_steps, train.batch_size, tuple(choices), cached)


def steps_of(epochs: float, images: int, batch_size: int) -> int:
    """Returns the steps that epochs of so many images take, rounded up."""
    # As a fraction: 1.1 * 10 is a little more than 11 in binary.
    return math.ceil(Fraction(str(epochs)) * images / batch_size)


def of_length(config: Config, plan: Plan, steps: int) -> tuple[Config, Plan]:
    """Returns config and plan of a training as they are for one of so many steps."""
    return replace(config, train=replace(config.train, epochs=None, steps=steps)), replace(plan, steps=steps)


def parts_of(train: Train, images: int) -> int:
    """Returns into how many parts a process divides its images of a batch: no part is larger than with one process.

    A single process makes `train.accumulate` parts.
    """
    return -(-train.accumulate * images // train.batch_size)


def largest_part(train: Train, processes: int) -> int:
    """Returns the images of the largest part of a batch that goes through the network at once."""
    return max(-(-share // parts_of(train, share)) for share in _shares(train, processes))


def smallest_part(train: Train, processes: int) -> int:
    """Returns the images of the smallest part of a batch that goes through the network at once."""
    return min(share // parts_of(train, share) for share in _shares(train, processes))


def _shares(train: Train, processes: int) -> set[int]:
    return {train.batch_size // processes, -(-train.batch_size // processes)}


def check_machine(train: Train, device: torch.device, processes: int) -> None:
    """Raises ConfigError where not every process has an image of a batch, or the device lacks what they ask for."""
    problems = []
    if train.batch_size < processes:
        message = f"{counted(train.batch_size, 'image')} for {processes} processes; expected at least one for each"
        problems.append(Problem("train.batch_size", message))
    if train.precision == "fp16" and device.type != "cuda":
        message = f"fp16 is for CUDA, and this run is on {device.type}; expected auto, bf16 or fp32"
        problems.append(Problem("train.precision", message))
    if train.sync_batch_norm and processes > 1 and device.type != "cuda":
        message = "needs CUDA, and these processes compute on the CPU; expected false"
        problems.append(Problem("train.sync_batch_norm", message))
    if problems:
        raise ConfigError(*problems)


def arithmetic(
    train: Train, machine: Machine, operations: float, *, waits: bool = False
) -> tuple[Precision, bool, list[Choice]]:
    """Returns in which precision a training computes, whether it is compiled, and why.

    Args:
        operations: Floating-point operations of the whole training, a multiply-add being two.
        waits: Whether a GPU does a step sooner than a processor starts its layers.
    """
    compiled, why_compiled = _compile(train, machine, operations, waits=waits)
    precision, why = _precision(train.precision, machine, compiled=compiled)
    return (
        precision,
        compiled,
        [Choice("train.precision", precision, why), Choice("train.compile", str(compiled).lower(), why_compiled)],
    )


def _precision(
    setting: Literal["auto", "fp32", "bf16", "fp16"], machine: Machine, *, compiled: bool
) -> tuple[Precision, str]:
    if setting != "auto":
        tf32 = "; convolutions in TF32 where the GPU has it, torch's default" if machine.kind == "cuda" else ""
        return setting, "as the config says" + (tf32 if setting == "fp32" else "")
    if machine.kind == "cuda" and not machine.fast_bf16 and machine.fast_fp16:
        return "fp16", "this GPU has fast float16 and no fast bfloat16; the loss is scaled"
    if not machine.fast_bf16:
        return "fp32", "this processor has no fast bfloat16"
    if machine.kind == "cpu" and not compiled:
        return "fp32", "bfloat16 is faster on this processor only where the network is compiled"
    return "bf16", "this processor computes bfloat16 faster than float32"


def _compile(train: Train, machine: Machine, operations: float, *, waits: bool) -> tuple[bool, str]:
    if train.compile != "auto":
        return train.compile, "as the config says"
    if machine.kind not in ("cpu", "cuda"):
        return False, "not tried on this kind of device"
    if machine.kind == "cpu" and (train.precision == "fp32" or not machine.fast_bf16):
        return False, "float32 convolutions on a CPU gain nothing from it, as measured"
    if waits:
        return (
            False,
            "steps are so small that the GPU waits for the processor; compilation made that worse, as measured",
        )
    gain = CPU_GAIN if machine.kind == "cpu" else GPU_GAIN
    seconds = operations / _rate(machine)
    saves = f"of an estimated {duration(seconds)} of steps it would save {100 * gain:.0f} %"
    if seconds * gain < COMPILE_SECONDS:
        return False, f"{saves}, less than the {duration(COMPILE_SECONDS)} that it takes"
    if machine.compiler is None:
        needed = "g++" if machine.kind == "cpu" else "triton and gcc"
        return False, f"{saves}, but torch.compile finds no compiler here; install {needed}"
    return True, f"{saves}, more than the {duration(COMPILE_SECONDS)} that it takes"


def _rate(machine: Machine) -> float:
    """Returns about how many operations a second of a training step a machine does."""
    return CPU_RATE * machine.threads if machine.kind == "cpu" else GPU_RATE


def _workers(setting: Literal["auto"] | int, device: torch.device, world: World) -> Choice:
    if setting != "auto":
        return Choice("train.workers", str(setting), "as the config says")
    why = "leaves the cores to the network" if device.type == "cpu" else "of the cores one is left to the main process"
    return Choice("train.workers", str(num_workers(setting, device, world)), why)


def _found(*names: str) -> str | None:
    return next((name for name in names if shutil.which(name)), None)


def _multiply_adds(model: Segmenter, channels: int, crop: tuple[int, int]) -> int:
    """Returns the multiply-adds of one image's forward pass; nothing is computed."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.empty(1, channels, *crop, device="meta"))
    return counter.get_total_flops() // 2
