"""The plain blocks that encoders and decoders are made of: 3x3 convolutions, each with a norm and an activation."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtool.errors import ConfigError, Problem

Activation = Literal["relu", "sigmoid", "tanh", "leaky_relu", "gelu", "silu"]
Norm = Literal["batch", "group", "instance", "none"]

LEAKY_SLOPE = 0.01
MAX_BLOCKS = 64
GROUPS = 8
GAINS = {
    "linear": 1.0,
    "relu": 1.414,
    "sigmoid": 1.846,
    "tanh": 1.593,
    "leaky_relu": 1.414,
    "gelu": 1.534,
    "silu": 1.677,
}
"""1 / sqrt(E[f(z)^2]) for z from the standard normal distribution."""
# ReLU and leaky ReLU work in place: their gradient needs only their output, and a map is not copied.
ACTIVATIONS = {
    "relu": partial(nn.ReLU, inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "leaky_relu": partial(nn.LeakyReLU, LEAKY_SLOPE, inplace=True),
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def conv_block(
    in_channels: int,
    out_channels: int,
    *,
    activation: Activation,
    norm: Norm,
    blocks: int,
    path: str,
    residual: bool = False,
    dropout: float = 0.0,
) -> nn.Sequential:
    """Returns `blocks` units of 3x3 convolution, norm and activation: N in_channels h w -> N out_channels h w.

    Args:
        path: Dotted path of the component that asks.
        residual: Whether what came in is added before the last activation.
        dropout: Share of the channels that training drops at the end.

    Raises:
        ConfigError: `blocks` is below 1 or above 64, or `dropout` no share.
    """
    if not 1 <= blocks <= MAX_BLOCKS:
        message = f"expected at least 1 convolution and at most {MAX_BLOCKS}, found {blocks}"
        raise ConfigError(Problem(f"{path}.blocks", message))
    if not 0 <= dropout < 1:
        raise ConfigError(Problem(f"{path}.dropout", f"expected a share from 0 to below 1, found {dropout}"))
    widths = [in_channels] + [out_channels] * blocks
    units = [conv_unit(widths[i], widths[i + 1], activation=activation, norm=norm) for i in range(blocks)]
    block = nn.Sequential(*units)
    if residual:
        branch = nn.Sequential(*units[:-1], units[-1][:-1])  # the last activation comes after the sum
        block = nn.Sequential(Residual(branch, in_channels, out_channels, activation=activation, norm=norm))
    if dropout:
        block.append(nn.Dropout2d(dropout))
    return block


class Residual(nn.Module):
    """What came in is added to what a branch of convolutions makes of it, and goes through the activation.

    It is projected by a 1x1 convolution, with a norm, where the width changes.

    Source: He et al. 2016, "Deep Residual Learning for Image Recognition", equations 1 and 2. Without norms the last
    convolution of a branch starts at 0, so that the sums do not grow from level to level: Zhang et al. 2019, "Fixup".
    """

    def __init__(
        self, branch: nn.Sequential, in_channels: int, out_channels: int, *, activation: Activation, norm: Norm
    ) -> None:
        super().__init__()
        self.branch = branch
        self.project = _projection(in_channels, out_channels, activation=activation, norm=norm)
        self.activation = ACTIVATIONS[activation]()
        if norm == "none":
            last = [module for module in branch.modules() if isinstance(module, nn.Conv2d)][-1]
            nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return self.activation(y + centre_crop(self.project(x), y))


def unpad(module: nn.Module) -> None:
    """Leaves the padding out of the 3x3 convolutions of units: each map loses a pixel at each side from then on."""
    for conv in module.modules():
        if isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3):
            conv.padding = (0, 0)


def centre_crop(x: Tensor, like: Tensor) -> Tensor:
    """Returns N C h w of a map N C h+2i w+2j, where h and w are those of `like`."""
    return crop(x, (x.shape[-2] - like.shape[-2]) // 2, (x.shape[-1] - like.shape[-1]) // 2)


def crop(x: Tensor, rows: int, columns: int | None = None) -> Tensor:
    """Returns a map without `rows` at its top and bottom and `columns`, else as many, at its left and right."""
    columns = rows if columns is None else columns
    return F.pad(x, (-columns, -columns, -rows, -rows)) if rows or columns else x


def conv_unit(
    in_channels: int, out_channels: int, *, activation: Activation, norm: Norm, stride: int = 1
) -> nn.Sequential:
    """Returns one 3x3 convolution with its norm and activation, padded by 1.

    The convolution has a bias only where no norm follows, since a norm would take it away again.
    """
    conv = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=norm == "none")
    if norm == "none":
        # Behind a norm the scale of the weights is only the inverse of the learning rate's; torch's own, smaller
        # scale learns faster there (mean IoU after 60 steps on the demo's data: 0.66 against 0.61).
        init_conv(conv, activation)
    parts: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm != "none":
        parts["norm"] = _norm(norm, out_channels)
    parts["activation"] = ACTIVATIONS[activation]()
    return nn.Sequential(parts)


def linear_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Returns a 1x1 convolution with a bias, initialised to keep the variance of what comes in."""
    conv = nn.Conv2d(in_channels, out_channels, 1)
    init_conv(conv, "linear")
    return conv


def init_conv(conv: nn.Conv2d, activation: Activation | Literal["linear"]) -> None:
    """Draws weights that keep the mean square through the activation which follows; a bias starts at 0.

    Source: He et al. 2015, "Delving Deep into Rectifiers", equation 10, with each activation's own gain.
    """
    fan_in = conv.weight[0].numel()
    nn.init.normal_(conv.weight, std=GAINS[activation] / math.sqrt(fan_in))
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


class GroupNorm(nn.GroupNorm):
    """Group normalisation that also takes a single value per group, as a 1x1 map has with one channel a group.

    `torch.nn.functional.group_norm` refuses that with an error about training, in evaluation too; an image no larger
    than the stride would then have no prediction. The value becomes the bias, which is the formula's answer.
    """

    def forward(self, input: Tensor) -> Tensor:
        return torch.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


def _norm(norm: Norm, channels: int) -> nn.Module:
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    groups = channels if norm == "instance" else math.gcd(channels, GROUPS)
    return GroupNorm(groups, channels)


def _projection(in_channels: int, out_channels: int, *, activation: Activation, norm: Norm) -> nn.Module:
    if in_channels == out_channels:
        return nn.Identity()
    conv = nn.Conv2d(in_channels, out_channels, 1, bias=norm == "none")
    if norm == "none":
        init_conv(conv, activation)
        return conv
    return nn.Sequential(OrderedDict(conv=conv, norm=_norm(norm, out_channels)))
