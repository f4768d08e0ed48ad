"""Decoders: an encoder's maps become one map at stride 1, from which the head makes logits.

A new decoder is a class here, registered as "decoder", built from the encoder's channels and strides (finest first) and
the image's channels; what stands after `*` in its `__init__` may be set in a config.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segtool.config.registry import Component, build, register
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import Activation, Norm, centre_crop, conv_block, crop, linear_conv, unpad
from segtool.models.encoders import Features
from segtool.models.upsamplers import Upsampler

PATH = "model.decoder"
TRANSPOSED = Component("transposed")
FINEST_WIDTH = 16  # at least, of a level at stride 1 for which the encoder has no width


class Decoder(nn.Module):
    """The contract of a decoder: `forward` takes an encoder's Features and returns maps, of which the first is N
    out_channels H W."""

    out_channels: int
    """Width of the map at stride 1."""
    aux_channels: tuple[int, ...] = ()
    """Widths of the coarser maps that are supervised too, finest first."""
    aux_strides: tuple[int, ...] = ()
    """Their strides."""
    needs_indices: bool = False
    """Whether it needs `Features.pool_indices`."""
    valid: bool = False
    """Whether its convolutions are not padded, and the encoder's shall not be; then the maps of `Features` are larger
    than what reaches their level, equally at all sides, and so are the maps of `aux_channels`."""
    margin: int = 0
    """How many pixels at each side of the deepest map's image it leaves out, where it is `valid`."""

    aux_steps: range = range(0)
    """Which upsamplings, from the deepest, lead to them."""

    def forward(self, features: Features) -> list[Tensor]:
        """Returns the map N out_channels H W, and in training those of `aux_channels` behind it."""
        raise NotImplementedError

    def _supervise(self, path: list[Step]) -> None:
        """Chooses the levels that training supervises besides the finest: all, or all but the coarsest."""
        if len(path) < 2:
            message = "there is no level but the finest to supervise; use an encoder of more levels, or aux: false"
            raise ConfigError(Problem(f"{PATH}.aux", message))
        self.aux_steps = range(1 if len(path) > 2 else 0, len(path) - 1)
        chosen = [path[number] for number in reversed(self.aux_steps)]
        self.aux_channels, self.aux_strides = tuple(s.width for s in chosen), tuple(s.stride for s in chosen)


class Step(NamedTuple):
    """One upsampling on the way from the deepest map to stride 1, and the level that it reaches."""

    in_channels: int
    """Width of what comes from below."""
    width: int
    """Width of the level."""
    skip: int
    """Width of the encoder's map there; 0 where it has none, as at stride 1 where its first stride is larger."""
    stride: int
    """Of the level."""
    ratio: int
    """How many times larger it is than the one below."""


def steps(channels: tuple[int, ...], strides: tuple[int, ...], widths: tuple[int, ...] | None) -> list[Step]:
    """Returns the upsamplings from the deepest of an encoder's levels up to stride 1, in that order.

    Args:
        channels: The encoder's, finest first.
        strides: The encoder's.
        widths: Of each level that is reached, finest first; None: the encoder's, and half of its finest one, but at
            least 16, for a level at stride 1 where it has none.

    Raises:
        ConfigError: `widths` are not one for each level, or not positive.
    """
    skips = channels[:-1]
    if strides[0] > 1:
        skips, strides = (0, *skips), (1, *strides)
    defaults = tuple(skip or max(FINEST_WIDTH, channels[0] // 2) for skip in skips)
    if widths is not None and (len(widths) != len(defaults) or min(widths, default=1) < 1):
        message = (
            f"expected {len(defaults)} positive widths, one for each level from stride 1 down, found {list(widths)}; "
            f"null is {list(defaults)}"
        )
        raise ConfigError(Problem(f"{PATH}.channels", message))
    widths = defaults if widths is None else widths
    below = (*widths, channels[-1])[1:]
    ratios = [strides[i + 1] // strides[i] for i in range(len(widths))]
    return [Step(*step) for step in zip(below, widths, skips, strides[:-1], ratios, strict=True)][::-1]


@register("decoder", "unet")
class UNet(Decoder):
    """Each level is upsampled to the next finer one, concatenated with the encoder's map there, and convolved.

    Source: Ronneberger et al. 2015, "U-Net", figure 1; `valid: true` is the figure, else the convolutions are padded.

    Args:
        upsample: Upsampler between levels, by name or as a mapping of `name` and its options.
        channels: Width of each level, finest (stride 1) first; null: the encoder's, and half of its finest one but at
            least 16 at stride 1 where the encoder has no map.
        activation: Function after each convolution.
        norm: Normalisation after each convolution; group is of at most 8 groups.
        blocks: Convolutions per level.
        residual: Whether each level adds what it was given, projected by a 1x1 convolution, before its last activation.
        dropout: Share of the channels that training drops at the end of each level but the finest.
        image_skip: Whether the image itself is concatenated at stride 1, for an encoder that has no map there.
        valid: Whether no convolution is padded, the encoder's neither; the encoder's maps are cropped to what is left,
            and the image is extended by reflection so that every pixel has its class. For the conv encoder with max or
            avg downsampling. Tiles of large images then give what the whole image gives.
        aux: Whether training supervises the coarser levels too, each by a 1x1 convolution: all but the finest, which
            has the head, and the coarsest, which is left out where there are others. The losses' weights halve from
            level to level and sum to 1 (deep supervision: Isensee et al. 2021, "nnU-Net").
    """

    def __init__(
        self,
        encoder_channels: tuple[int, ...],
        encoder_strides: tuple[int, ...],
        image_channels: int = 3,
        *,
        upsample: Component = TRANSPOSED,
        channels: tuple[int, ...] | None = None,
        activation: Activation = "relu",
        norm: Norm = "batch",
        blocks: int = 2,
        residual: bool = False,
        dropout: float = 0.0,
        image_skip: bool = False,
        valid: bool = False,
        aux: bool = False,
    ) -> None:
        super().__init__()
        if image_skip and encoder_strides[0] == 1:
            message = "this encoder has a map at stride 1, which is the skip there; leave image_skip out"
            raise ConfigError(Problem(f"{PATH}.image_skip", message))
        self.image_skip = image_skip
        path = steps(encoder_channels, encoder_strides, channels)
        self.out_channels = path[-1].width if path else encoder_channels[0]
        self.ups = nn.ModuleList()
        self.borders = [0] * len(path)  # what is cropped behind each upsampling
        self.levels = nn.ModuleList()
        block = partial(conv_block, activation=activation, norm=norm, blocks=blocks, path=PATH, residual=residual)
        for step in path:
            self.ups.append(_upsampler(upsample, step.in_channels, step))
            skip = step.skip or (image_channels if image_skip else 0)
            self.levels.append(block(step.width + skip, step.width, dropout=dropout if step.stride > 1 else 0.0))
        self.needs_indices = _need_indices(self.ups, path)
        if aux:
            self._supervise(path)
        if valid:
            self._unpad(path, blocks)

    def forward(self, features: Features) -> list[Tensor]:
        x = features.maps[-1]
        skips, indices = _deepest_first(features)
        coarser: list[Tensor] = []
        for number, (up, level) in enumerate(zip(self.ups, self.levels, strict=True)):
            x = crop(up(x, indices[number]), self.borders[number])
            skip = skips[number]
            if skip is None and self.image_skip:
                skip = features.image
            x = level(x if skip is None else torch.cat([centre_crop(skip, x), x], dim=1))
            if self.training and number in self.aux_steps:
                coarser.append(x)
        return [x, *reversed(coarser)]

    def _unpad(self, path: list[Step], blocks: int) -> None:
        if self.needs_indices:
            message = "max_unpool needs indices of a map of the same size, and valid: true crops; use another upsample"
            raise ConfigError(Problem(f"{PATH}.valid", message))
        unpad(self.levels)
        self.valid = True
        self.borders = [up.border for up in self.ups if isinstance(up, Upsampler)]
        self.margin = sum(step.stride * (border + blocks) for step, border in zip(path, self.borders, strict=True))


@register("decoder", "fcn")
class FCN(Decoder):
    """Each level is convolved to the next finer level's width, upsampled, and convolved; the deepest sum skips.

    Source: Long et al. 2015, "Fully Convolutional Networks for Semantic Segmentation", section 4.2, with the
    upsampling made level by level.

    Args:
        skips: How many of the deepest skips are summed, each encoder map projected by a 1x1 convolution: none
            (FCN-32s), one (FCN-16s) or two (FCN-8s).
        upsample: Upsampler between levels, by name or as a mapping of `name` and its options.
        channels: Width of each level, finest (stride 1) first; null: the encoder's, and half of its finest one but at
            least 16 at stride 1 where the encoder has no map.
        activation: Function after each 3x3 convolution.
        norm: Normalisation after each 3x3 convolution; group is of at most 8 groups.
        blocks: 3x3 convolutions before, and after, each upsampling.
        residual: Whether what is given to the convolutions before, and after, each upsampling is added before their
            last activation, projected by a 1x1 convolution where the width changes.
        dropout: Share of the channels that training drops at the end of each level but the finest.
        aux: Whether training supervises the coarser levels too, as in `unet`.
    """

    def __init__(
        self,
        encoder_channels: tuple[int, ...],
        encoder_strides: tuple[int, ...],
        image_channels: int = 3,
        *,
        skips: Literal[0, 1, 2] = 2,
        upsample: Component = TRANSPOSED,
        channels: tuple[int, ...] | None = None,
        activation: Activation = "relu",
        norm: Norm = "batch",
        blocks: int = 1,
        residual: bool = False,
        dropout: float = 0.0,
        aux: bool = False,
    ) -> None:
        super().__init__()
        if skips > len(encoder_channels) - 1:
            message = (
                f"expected at most {len(encoder_channels) - 1}, one below the levels of the encoder; found {skips}"
            )
            raise ConfigError(Problem(f"{PATH}.skips", message))
        path = steps(encoder_channels, encoder_strides, channels)
        self.out_channels = path[-1].width if path else encoder_channels[0]
        self.reduces = nn.ModuleList()
        self.ups = nn.ModuleList()
        self.skips = nn.ModuleList()  # the deepest `skips` steps; the others have none
        self.levels = nn.ModuleList()
        block = partial(conv_block, activation=activation, norm=norm, blocks=blocks, path=PATH, residual=residual)
        for number, step in enumerate(path):
            self.reduces.append(block(step.in_channels, step.width))
            self.ups.append(_upsampler(upsample, step.width, step))
            if number < skips:
                self.skips.append(linear_conv(step.skip, step.width))
            self.levels.append(block(step.width, step.width, dropout=dropout if step.stride > 1 else 0.0))
        self.needs_indices = _need_indices(self.ups, path)
        if aux:
            self._supervise(path)

    def forward(self, features: Features) -> list[Tensor]:
        x = features.maps[-1]
        skips, indices = _deepest_first(features)
        coarser: list[Tensor] = []
        for number, (reduce, up, level) in enumerate(zip(self.reduces, self.ups, self.levels, strict=True)):
            x = up(reduce(x), indices[number])
            x = level(x + self.skips[number](skips[number]) if number < len(self.skips) else x)
            if self.training and number in self.aux_steps:
                coarser.append(x)
        return [x, *reversed(coarser)]


def _upsampler(upsample: Component, in_channels: int, step: Step) -> Upsampler:
    return build("upsampler", upsample, in_channels, step.width, step.ratio, path=f"{PATH}.upsample")


def _need_indices(ups: nn.ModuleList, path: list[Step]) -> bool:
    """Whether the decoder unpools. Raises ConfigError where its widths are not those of the encoder's poolings."""
    needed = any(isinstance(up, Upsampler) and up.needs_indices for up in ups)
    if needed and any(step.skip not in (0, step.width) for step in path):
        widths, skips = ([getattr(step, name) for step in reversed(path)] for name in ("width", "skip"))
        message = (
            f"max_unpool puts values back where the encoder's poolings found them, so the widths must be the encoder's "
            f"{skips}, found {widths}; use null, or another upsample"
        )
        raise ConfigError(Problem(f"{PATH}.channels", message))
    return needed


def _deepest_first(features: Features) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """Returns the encoder's map and its pooling indices for each step, None where there is none."""
    levels = len(features.maps)
    skips = [*features.maps[:-1][::-1], None]
    return skips, [*features.pool_indices[::-1], *[None] * (levels - len(features.pool_indices))]
