"""Encoders: an image becomes feature maps, finest first.

A new encoder is a class here:

    @register("encoder", "mine")
    class MyEncoder(Encoder):
        \"\"\"What it is.

        Args:
            depth: What a person who sets `model.encoder.depth` should know.
        \"\"\"

        def __init__(self, in_channels: int, *, depth: int = 4) -> None: ...

It is then known to `segtool list encoders`, to the config and to the tests, which run it with every decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

from torch import Tensor, nn

from segtool.config.registry import register
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import Activation, Norm, conv_block, conv_unit, unpad

PATH = "model.encoder"
MAX_LEVELS = 10


class Features(NamedTuple):
    """What an encoder returns."""

    maps: list[Tensor]
    """Finest first: N channels[i] H/strides[i] W/strides[i]."""
    pool_indices: list[Tensor]
    """Item i: where the max pooling from map i to the next level found its maxima, as `F.max_pool2d` numbers them.
    Empty where nobody asked (`keep_indices`), or where the encoder does not get every level by max pooling."""
    image: Tensor | None = None
    """N C H W: what the encoder was given. The Segmenter puts it here."""


@dataclass(frozen=True)
class Pretrained:
    """Weights that an encoder starts with, and the normalisation that they were trained with."""

    name: str
    """What they are, for people."""
    read: Callable[[], Mapping[str, Tensor]]
    """Reads them, or downloads them first."""
    mean: tuple[float, ...]
    """Of each channel of the images that they were trained on, in 0..1."""
    std: tuple[float, ...]


class Encoder(nn.Module):
    """The contract of an encoder.

    It is built from the number of image channels; everything after `*` in its `__init__` may be set in a config.

    * `channels` and `strides` have one item for each map, finest first. Each stride divides the next, and the map at
      stride s of an image whose sides are multiples of the last stride has exactly H/s and W/s pixels. The first
      stride may be above 1, and strides may leave out powers of two: decoders go by the ratios.
    * A map that was returned is not written to afterwards (mind activations in place).
    * `keep_indices` is called by the Segmenter, before the first forward, where the decoder unpools. An encoder that
      max-pools between all its levels returns the indices from then on; one that does not leaves the method as it
      is, and max unpooling is a ConfigError.
    * It initialises its own weights. One that can have pretrained ones says in `pretrained` what they are, and takes
      them in `load`; training asks for both, and nothing that works from a checkpoint does.
    """

    channels: tuple[int, ...]
    strides: tuple[int, ...]
    multiple: int = 1
    """What the sides of its images must be multiples of beside the last stride."""
    freeze: float = 0.0
    """Epochs in which its weights stay as they are and its norms do not follow the batches."""
    lr_factor: float = 1.0
    """Factor of the learning rate of its weights."""

    def forward(self, images: Tensor) -> Features:
        """Returns the feature maps of images N C H W, H and W multiples of the last stride and of `multiple`."""
        raise NotImplementedError

    def keep_indices(self) -> None:
        """Makes `forward` return the indices of its max poolings from now on, where it has them."""

    def unpad(self) -> int | None:
        """Pads no convolution from now on, for a decoder of valid convolutions.

        Each map is then smaller, equally at all sides; the image has a size at which every pooling sees even sides.

        Returns:
            How many pixels of the image its deepest map leaves out at each side; None where the encoder cannot.
        """
        return None

    def stages(self) -> list[list[nn.Parameter]]:
        """Returns all its parameters, by level, those nearest to the image first."""
        return [list(self.parameters())]

    def pretrained(self, base: Path) -> Pretrained | None:
        """Returns the weights that it starts training with; None where it starts from its own.

        Args:
            base: Folder that the path of a file of weights is relative to.

        Raises:
            ConfigError: the file is not there, or a package that has the weights is not.
        """
        return None

    def load(self, pretrained: Pretrained) -> str:
        """Takes pretrained weights, and returns in words what became of those that do not fit as they are.

        Raises:
            ConfigError: they are of another network.
        """
        raise NotImplementedError


@register("encoder", "conv")
class ConvEncoder(Encoder):
    """Plain convolutional levels from stride 1, each at half the size of the one before; trained from scratch.

    Args:
        channels: Width of each level, finest first; their number is the depth. n levels give a stride of 2^(n-1).
        downsample: What halves the map between levels: max pooling, average pooling (both 2x2), or a 3x3 convolution
            of stride 2 that keeps the width.
        activation: Function after each convolution.
        norm: Normalisation after each convolution; group is of at most 8 groups.
        blocks: Convolutions per level: one number, or one for each level, finest first.
        residual: Whether each level adds what it was given to what its convolutions made of it, before the last
            activation; a 1x1 convolution brings it to the level's width.
        dropout: Share of the channels, whole maps, that training drops at the end of each level but the finest;
            skips lack them too.

    Sources: residual: He et al. 2016, "Deep Residual Learning". dropout: of whole maps, Tompson et al. 2015, "Efficient
    Object Localization Using Convolutional Networks"; in the deeper levels, Kendall et al. 2015, "Bayesian SegNet".
    """

    def __init__(
        self,
        in_channels: int,
        *,
        channels: tuple[int, ...] = (32, 64, 128, 256, 512),
        downsample: Literal["max", "avg", "stride"] = "max",
        activation: Activation = "relu",
        norm: Norm = "batch",
        blocks: int | tuple[int, ...] = 2,
        residual: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not channels or min(channels) < 1:
            found = list(channels)
            raise ConfigError(Problem(f"{PATH}.channels", f"expected one or more positive widths, found {found}"))
        if len(channels) > MAX_LEVELS:
            message = (
                f"expected at most {MAX_LEVELS} levels (a stride of {2 ** (MAX_LEVELS - 1)}), found {len(channels)}"
            )
            raise ConfigError(Problem(f"{PATH}.channels", message))
        self.channels = tuple(channels)
        self.strides = tuple(2**level for level in range(len(channels)))
        self.blocks = _for_each_level(blocks, len(channels))
        widths = (in_channels, *channels)
        block = partial(conv_block, activation=activation, norm=norm, path=PATH, residual=residual)
        self.levels = nn.ModuleList(
            block(widths[i], widths[i + 1], blocks=self.blocks[i], dropout=dropout if i else 0.0)
            for i in range(len(channels))
        )
        self.downs = nn.ModuleList(
            _downsample(downsample, width, activation=activation, norm=norm) for width in channels[:-1]
        )

    def forward(self, images: Tensor) -> Features:
        maps = [self.levels[0](images)]
        pool_indices = []
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            pooled = down(maps[-1])
            if isinstance(pooled, tuple):
                pooled, indices = pooled
                pool_indices.append(indices)
            maps.append(level(pooled))
        return Features(maps, pool_indices)

    def stages(self) -> list[list[nn.Parameter]]:
        parts = [[level] for level in self.levels]
        for number, down in enumerate(self.downs, start=1):
            parts[number].append(down)
        return [[p for module in modules for p in module.parameters()] for modules in parts]

    def keep_indices(self) -> None:
        for down in self.downs:
            if isinstance(down, nn.MaxPool2d):
                down.return_indices = True

    def unpad(self) -> int | None:
        if any(isinstance(down, nn.Sequential) for down in self.downs):  # a convolution of stride 2
            return None
        unpad(self.levels)
        return sum(stride * blocks for stride, blocks in zip(self.strides, self.blocks, strict=True))


def _for_each_level(blocks: int | tuple[int, ...], levels: int) -> tuple[int, ...]:
    blocks = (blocks,) * levels if isinstance(blocks, int) else blocks
    if len(blocks) != levels:
        message = f"expected one number, or {levels}, one for each of `channels`; found {list(blocks)}"
        raise ConfigError(Problem(f"{PATH}.blocks", message))
    return blocks


def _downsample(kind: Literal["max", "avg", "stride"], width: int, *, activation: Activation, norm: Norm) -> nn.Module:
    if kind == "max":
        return nn.MaxPool2d(2)
    if kind == "avg":
        return nn.AvgPool2d(2)
    return conv_unit(width, width, activation=activation, norm=norm, stride=2)
