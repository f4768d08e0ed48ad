"""The memory that a training step takes, from what autograd keeps of network and losses; and how it takes less."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from segtool.config import Config
from segtool.data.statistics import ClassFrequencies
from segtool.errors import ConfigError
from segtool.models.layers import Summary
from segtool.models.segmenter import Segmenter, check_crop
from segtool.system.terminal import amount, counted
from segtool.training.losses import Criterion

PROBE = 32  # side in pixels of the image that a loss is tried on


@dataclass(frozen=True)
class Memory:
    """Bytes that a training step takes on its device, the allocator's reserve and temporary buffers left out."""

    activations: int
    """What autograd keeps of the network's forward pass for the backward pass, in float32."""
    loss: int
    """The logits, and what autograd keeps of the loss."""
    weights: int
    """Parameters and buffers."""
    gradients: int
    """One value for each parameter."""
    optimizer: int
    """AdamW: two values for each parameter; SGD with momentum: one."""
    averages: int
    """A second copy of the weights (`train.ema`)."""

    @property
    def total(self) -> int:
        """Their sum."""
        return sum(vars(self).values())


def training_memory(model: Segmenter, summary: Summary, config: Config) -> Memory:
    """Returns what a training step takes; the losses are tried on a small image and scaled to the batch."""
    parameters = sum(parameter.nbytes for parameter in model.parameters())
    weights = parameters + sum(buffer.nbytes for buffer in model.buffers())
    pixels = summary.batch * summary.input[1] * summary.input[2]
    moments = 2 if config.optim.name == "adamw" else int(config.optim.momentum > 0)
    return Memory(
        activations=summary.kept,
        loss=_kept_by_loss(config, model.num_classes) * (1 + len(model.aux_heads)) * pixels // PROBE**2,
        weights=weights,
        gradients=parameters,
        optimizer=moments * parameters,
        averages=weights if config.train.ema is not None else 0,
    )


def memory_lines(memory: Memory, summary: Summary, config: Config) -> list[str]:
    """Returns what stands under the table: the memory of a training step, and what it is made of."""
    _, height, width = summary.input
    images = f"{counted(summary.batch, 'image')} of {height}x{width}"
    part = f", one of {config.train.accumulate} parts of a batch of {config.train.batch_size}"
    meanings = {
        "activations": f"kept for the backward pass, of {images}{part if config.train.accumulate > 1 else ''}",
        "loss": "the logits, and what the loss keeps",
        "weights": "parameters and buffers",
        "gradients": "one value for each parameter",
        "optimizer": f"what {config.optim.name} keeps for each parameter",
        "averages": "a second copy of the weights (train.ema)",
    }
    head = (
        f"memory of a training step: about {amount(memory.total)} in float32, without the allocator's reserve and "
        "temporary buffers (on a CPU 0.6 of activations and loss more); bf16 halves most activations, and compilation "
        "keeps fewer"
    )
    return [head, *(f"  {key:<11} {amount(getattr(memory, key)):>9}  {text}" for key, text in meanings.items())]


def lighter(config: Config, model: Segmenter, crop: tuple[int, int], at_once: float) -> tuple[str, str] | None:
    """Returns the `--set` that makes a training step take less memory at the least cost, and what it costs.

    None where nothing is left.

    Args:
        crop: Height and width of its crops.
        at_once: Images of this crop that may go through at once in a process; below 1, the share of one.
    """
    train = config.train
    settings, costs = [], []
    parts = -(-train.batch_size // max(1, int(at_once)))
    if parts > train.accumulate and _fits(model, crop, train.batch_size // parts):
        settings.append(f"train.accumulate={parts}")
        costs.append("the batch goes through in more parts, which changes nothing but what BatchNorm sees at once")
    else:
        parts = train.accumulate
    images = -(-train.batch_size // parts)
    smaller = _smaller(model, crop, train.batch_size // parts, at_once / images) if at_once < images else crop
    if smaller < crop:
        settings.append(f"augment.crop=[{smaller[0]},{smaller[1]}]")
        costs.append("the network sees smaller parts of the images")
        if images * smaller[0] * smaller[1] > at_once * crop[0] * crop[1]:
            costs.append("it may not suffice; take a network of fewer channels then")
    if not settings and train.precision == "fp32":
        return "train.precision=bf16", "which keeps half of the digits"
    return (" --set ".join(settings), ", and ".join(costs)) if settings else None


def _kept_by_loss(config: Config, num_classes: int) -> int:
    """Returns the bytes of the logits of one image of PROBE x PROBE pixels, and of what autograd keeps of its loss."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, num_classes, PROBE, PROBE, generator=generator, requires_grad=True)
    target = torch.randint(num_classes, (1, PROBE, PROBE), generator=generator, dtype=torch.uint8)
    criterion = Criterion(config.loss, num_classes, ClassFrequencies((1,) * num_classes, (1,) * num_classes))
    held: dict[int, Tensor] = {logits.untyped_storage().data_ptr(): logits}

    def keep(tensor: Tensor) -> Tensor:
        held.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = criterion(logits, target, criterion.denominators(target))
    assert loss.requires_grad
    return sum(tensor.untyped_storage().nbytes() for tensor in held.values())


def _smaller(model: Segmenter, crop: tuple[int, int], batch: int, share: float) -> tuple[int, int]:
    """Returns the crop with its sides halved until it has a share of its pixels, or as far as the network allows."""
    pixels, stride = share * crop[0] * crop[1], model.stride
    while crop[0] * crop[1] > pixels:
        half = (max(stride, crop[0] // 2 // stride * stride), max(stride, crop[1] // 2 // stride * stride))
        if half == crop or not _fits(model, half, batch):
            break
        crop = half
    return crop


def _fits(model: Segmenter, crop: tuple[int, int], batch: int) -> bool:
    try:
        check_crop(model, crop, batch)
    except ConfigError:
        return False
    return True
