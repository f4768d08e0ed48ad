"""Decoders: an encoder's maps become one map at stride 1, from which the head makes logits.

A new decoder is a class here, registered as "decoder", built from the encoder's channels and strides (finest first);
what stands after `*` in its `__init__` may be set in a config.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segtool.errors import ConfigError, Problem
from segtool.models.blocks import Activation, Norm, conv_block, linear_conv
from segtool.models.encoders import Features
from segtool.models.upsamplers import Upsampler
from segtool.registry import Component, build, register

PATH = "model.decoder"
TRANSPOSED = Component("transposed")


class Decoder(nn.Module):
    """The contract of a decoder: `forward` takes an encoder's Features and returns N out_channels H W."""

    out_channels: int
    """Width of the map that `forward` returns."""
    needs_indices: bool = False
    """Whether it needs `Features.pool_indices`."""

    def forward(self, features: Features) -> Tensor:
        """Returns N out_channels H W, at stride 1."""
        raise NotImplementedError


class Step(NamedTuple):
    """One upsampling on the way from the deepest map to stride 1."""

    in_channels: int
    """Width of what comes from below."""
    width: int
    """Width of the level that is reached."""
    ratio: int
    """How many times larger that level is."""
    has_skip: bool
    """Whether the encoder has a map at that level; it has none at stride 1 where its first stride is larger."""


def steps(channels: tuple[int, ...], strides: tuple[int, ...]) -> list[Step]:
    """Returns the upsamplings from the deepest of an encoder's levels up to stride 1, in that order."""
    path = [
        Step(channels[i + 1], channels[i], strides[i + 1] // strides[i], True)
        for i in reversed(range(len(strides) - 1))
    ]
    if strides[0] > 1:
        path.append(Step(channels[0], channels[0], strides[0], False))
    return path


@register("decoder", "unet")
class UNet(Decoder):
    """Each level is upsampled to the next finer one, concatenated with the encoder's map there, and convolved.

    Source: Ronneberger et al. 2015, "U-Net", figure 1, with padded convolutions.

    Args:
        upsample: Upsampler between levels, by name or as a mapping of `name` and its options.
        activation: Function after each convolution.
        norm: Normalisation after each convolution; group is of at most 8 groups.
        blocks: Convolutions per level.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        upsample: Component = TRANSPOSED,
        activation: Activation = "relu",
        norm: Norm = "batch",
        blocks: int = 2,
    ) -> None:
        super().__init__()
        self.out_channels = channels[0]
        self.ups = nn.ModuleList()
        self.levels = nn.ModuleList()
        for step in steps(channels, strides):
            self.ups.append(_upsampler(upsample, step.in_channels, step))
            joined = step.width * (2 if step.has_skip else 1)
            self.levels.append(
                conv_block(joined, step.width, activation=activation, norm=norm, blocks=blocks, path=PATH)
            )
        self.needs_indices = _need_indices(self.ups)

    def forward(self, features: Features) -> Tensor:
        x = features.maps[-1]
        skips, indices = _deepest_first(features)
        for number, (up, level) in enumerate(zip(self.ups, self.levels, strict=True)):
            x = up(x, indices[number])
            skip = skips[number]
            x = level(x if skip is None else torch.cat([skip, x], dim=1))
        return x


@register("decoder", "fcn")
class FCN(Decoder):
    """Each level is convolved to the next finer level's width, upsampled, and convolved; the deepest sum skips.

    Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 4.2, with the
    upsampling made level by level.

    Args:
        skips: How many of the deepest skips are summed, each encoder map projected by a 1x1 convolution: none
            (FCN-32s), one (FCN-16s) or two (FCN-8s).
        upsample: Upsampler between levels, by name or as a mapping of `name` and its options.
        activation: Function after each 3x3 convolution.
        norm: Normalisation after each 3x3 convolution; group is of at most 8 groups.
        blocks: 3x3 convolutions before, and after, each upsampling.
    """

    def __init__(
        self,
        channels: tuple[int, ...],
        strides: tuple[int, ...],
        *,
        skips: Literal[0, 1, 2] = 2,
        upsample: Component = TRANSPOSED,
        activation: Activation = "relu",
        norm: Norm = "batch",
        blocks: int = 1,
    ) -> None:
        super().__init__()
        if skips > len(channels) - 1:
            message = f"{skips} skips need an encoder of at least {skips + 1} levels, found {len(channels)}"
            raise ConfigError(Problem(f"{PATH}.skips", message))
        self.out_channels = channels[0]
        self.reduces = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.skips = nn.ModuleList()  # the deepest `skips` steps; the others have none
        self.levels = nn.ModuleList()

        def block(in_channels: int, out_channels: int) -> nn.Sequential:
            return conv_block(in_channels, out_channels, activation=activation, norm=norm, blocks=blocks, path=PATH)

        for number, step in enumerate(steps(channels, strides)):
            self.reduces.append(block(step.in_channels, step.width))
            self.ups.append(_upsampler(upsample, step.width, step))
            if number < skips:
                self.skips.append(linear_conv(step.width, step.width))
            self.levels.append(block(step.width, step.width))
        self.needs_indices = _need_indices(self.ups)

    def forward(self, features: Features) -> Tensor:
        x = features.maps[-1]
        skips, indices = _deepest_first(features)
        for number, (reduce, up, level) in enumerate(zip(self.reduces, self.ups, self.levels, strict=True)):
            x = up(reduce(x), indices[number])
            x = level(x + self.skips[number](skips[number]) if number < len(self.skips) else x)
        return x


def _upsampler(upsample: Component, in_channels: int, step: Step) -> Upsampler:
    return build("upsampler", upsample, in_channels, step.width, step.ratio, path=f"{PATH}.upsample")


def _need_indices(ups: nn.ModuleList) -> bool:
    return any(isinstance(up, Upsampler) and up.needs_indices for up in ups)


def _deepest_first(features: Features) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Returns the encoder's map and its pooling indices for each step, None where there is none."""
    levels = len(features.maps)
    skips = [*features.maps[:-1][::-1], None]
    return skips, [*features.pool_indices[::-1], *[None] * (levels - len(features.pool_indices))]
