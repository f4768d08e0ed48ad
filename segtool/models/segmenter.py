"""The network of a config: an encoder, a decoder and a head, for images of any size."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segtool.config import Model
from segtool.config.registry import build
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import centre_crop, linear_conv
from segtool.models.decoders import Decoder
from segtool.models.encoders import ConvEncoder, Encoder
from segtool.models.trace import trace

OF_LEVELS = [f"model.decoder.{option}" for option in ("channels", "skips", "aux", "image_skip")]
"""Options of decoders that an encoder's levels allow or not."""
Sides = tuple[int, int]
"""Pixels before and behind a side: at the top and the bottom, or at the left and the right."""


class Segmenter(nn.Module):
    """Images in, logits of the same size out. Raises ConfigError where encoder and decoder do not fit together."""

    stride: int
    """The map at the deepest level is padded to whole pixels of it inside; a training crop must be at least this."""
    margin: int
    """Pixels beyond each side of the image that its logits depend on where no convolution is padded (`valid`), else 0:
    they are made by reflection, or given as context."""

    def __init__(self, encoder: Encoder, decoder: Decoder, num_classes: int, *, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        # Small enough for a first cross-entropy near ln K, and no smaller: with a deviation of 0.01 the network behind
        # the head learns next to nothing for the first hundreds of steps (mean IoU after 60: 0.21 against 0.66).
        # Without norms the features may have grown on their way, so the head starts at a tenth of that.
        normed = any(isinstance(module, nn.BatchNorm2d | nn.GroupNorm) for module in decoder.modules())
        scale = 1.0 if normed else 0.1
        self.head = _head(decoder.out_channels, num_classes, scale)
        self.aux_heads = nn.ModuleList(_head(channels, num_classes, scale) for channels in decoder.aux_channels)
        if decoder.needs_indices:
            encoder.keep_indices()
        self.margin = _unpadded(encoder) + decoder.margin if decoder.valid else 0
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.stride = math.lcm(*encoder.strides, encoder.multiple)

    def forward(self, images: Tensor, rows: Sides = (0, 0), columns: Sides = (0, 0)) -> Tensor | list[Tensor]:
        """Returns logits N K H W for images N C H W, H and W from 1 up.

        Args:
            images: The images, and around them what is context only and has no logits.
            rows: Pixels of context at the top and the bottom, at most those of `padding`.
            columns: Pixels of context at the left and the right.

        Returns:
            The logits; in training with `aux`, a list of them and those of the decoder's coarser levels, enlarged to
            the same size. `deep_supervision_weights` says what each one's loss counts.
        """
        height, width = images.shape[-2] - sum(rows), images.shape[-1] - sum(columns)
        padded = pad(images, self.padding(height, rows), self.padding(width, columns))
        features = self.encoder(padded)._replace(image=padded)  # maps finest first: N C_i h w
        finest, *maps = self.decoder(features)
        coarser = [
            centre_crop(F.interpolate(head(x), scale_factor=stride, mode="bilinear"), finest)[..., :height, :width]
            for head, x, stride in zip(self.aux_heads, maps, self.decoder.aux_strides, strict=bool(maps))
        ]
        logits = self.head(finest)[..., :height, :width]  # N K H W
        return [logits, *coarser] if coarser else logits

    def padding(self, size: int, context: Sides = (0, 0)) -> Sides:
        """Returns how many pixels are put before and behind a side of `size` pixels, those of `context` left out.

        So many that the deepest map and every pooling have whole pixels: behind the image up to a multiple of the
        stride, or with valid convolutions of the paper's `stride * n - 2 * decoder.margin`.
        """
        rest = -(size + 2 * self.decoder.margin) % self.stride
        return self.margin - context[0], self.margin + rest - context[1]

    def places(self, start: int, stop: int, length: int) -> tuple[Tensor, Sides]:
        """Returns which pixels of a side of `length` a tile from `start` to `stop` sees, and how many are its context.

        Beyond an end of the image they are those that `pad` puts there for the whole of it: a tile may be too small to
        be reflected itself.
        """
        context = self.padding(stop - start)
        places = torch.arange(start - context[0], stop + context[1])
        if max(self.padding(length)) < length:
            places = length - 1 - (length - 1 - places.abs()).abs()
        return places.clamp(0, length - 1), context

    def deepest(self, size: int) -> int:
        """Returns how many pixels the deepest map has along a side of `size` pixels."""
        return math.ceil((size + 2 * self.decoder.margin) / self.stride)

    @cached_property
    def receptive_field(self) -> int | None:
        """Side in pixels of the window, centred on an output pixel, that holds every input pixel it depends on.

        None where that is the whole image, or not known, as behind attention.
        """
        size = (self.in_channels, 2 * self.stride, 2 * self.stride)
        field = trace(self, size, period=self.stride)[-1].field
        if field is None:
            return None
        assert field.jump == 1, f"a decoder must end at stride 1, not {field.jump}"
        return 2 * field.reach + 1


def _head(channels: int, num_classes: int, scale: float) -> nn.Conv2d:
    head = linear_conv(channels, num_classes)
    nn.init.normal_(head.weight, std=scale / math.sqrt(3 * channels))
    return head


def _unpadded(encoder: Encoder) -> int:
    lost = encoder.unpad()
    if lost is None:
        message = (
            "this encoder pads its convolutions; use the conv encoder with `downsample: max` or `avg`, or valid: false"
        )
        raise ConfigError(Problem("model.decoder.valid", message))
    return lost


def build_model(model: Model, num_classes: int, in_channels: int = 3) -> Segmenter:
    """Returns the network that a config describes, newly initialised from torch's global generator.

    Raises:
        ConfigError: an unknown name or option, or parts that do not fit together.
    """
    segmenter = assemble(model, num_classes, in_channels)
    _ = segmenter.receptive_field  # measuring it runs the network, which tells what does not fit together
    return segmenter


def assemble(model: Model, num_classes: int, in_channels: int = 3) -> Segmenter:
    """Returns the network of a config that has been built before, such as a checkpoint's.

    Unlike `build_model` it does not try whether the parts fit together, for which torch imports its compiler: 1 to 3 s.

    Raises:
        ConfigError: an unknown name or option.
    """
    problems: list[str | Problem] = []
    encoder = decoder = None
    try:
        encoder = build("encoder", model.encoder, in_channels, path="model.encoder")
    except ConfigError as error:
        problems += error.details
    # With a stand-in the decoder's options are checked all the same, those aside that its levels may not allow.
    shape = encoder or ConvEncoder(in_channels)
    try:
        decoder = build("decoder", model.decoder, shape.channels, shape.strides, in_channels, path="model.decoder")
    except ConfigError as error:
        problems += [one for one in error.details if encoder or getattr(one, "path", "") not in OF_LEVELS]
    if encoder is None or decoder is None:
        raise ConfigError(*problems)
    return Segmenter(encoder, decoder, num_classes, in_channels=in_channels)


def outline(model: Model, num_classes: int, in_channels: int = 3) -> Segmenter:
    """Returns the network of a config as `assemble` does, on the meta device, without values and so without memory."""
    with torch.device("meta"), _Uninitialised():
        return assemble(model, num_classes, in_channels)


class _Uninitialised(TorchFunctionMode):
    """Leaves out what `nn.init` does: without values it is nothing, and torch imports its compiler for it (1.4 s)."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if getattr(func, "__module__", None) == nn.init.__name__:
            return given["tensor"] if "tensor" in given else args[0]
        return func(*args, **given)


def verify(
    model: Model, num_classes: int, in_channels: int = 3, *, crop: tuple[int, int] | None = None, batch: int = 2
) -> Segmenter:
    """Builds the network on the meta device, which takes neither memory nor time, and returns it.

    Args:
        crop: Height and width of the training crop, where it is known.
        batch: Images in one forward of training.

    Raises:
        ConfigError: what `build_model` raises, or a crop that the network cannot be trained on.
    """
    with torch.device("meta"):
        segmenter = build_model(model, num_classes, in_channels)
    if crop is not None:
        check_crop(segmenter, crop, batch)
    return segmenter


def pad(images: Tensor, rows: Sides, columns: Sides) -> Tensor:
    """Returns images N C H W with `rows` more at the top and the bottom, and `columns` at the left and the right.

    Reflected where the side is longer than its padding, else its outermost pixels are repeated.
    """
    height, width = images.shape[-2:]
    if any(rows):
        images = F.pad(images, (0, 0, *rows), mode="reflect" if max(rows) < height else "replicate")
    if any(columns):
        images = F.pad(images, (*columns, 0, 0), mode="reflect" if max(columns) < width else "replicate")
    return images


def deep_supervision_weights(terms: int) -> list[float]:
    """Returns the weights of the losses of `[logits, *coarser logits]`, finest first: 2^-i, divided by their sum.

    Source: Isensee et al. 2021, "nnU-Net", on deep supervision.
    """
    weights = [0.5**i for i in range(terms)]
    return [weight / sum(weights) for weight in weights]


def check_crop(segmenter: Segmenter, crop: tuple[int, int], batch: int) -> None:
    """Raises ConfigError where a network cannot be trained on crops of this height and width, `batch` at once."""
    stride = segmenter.stride
    if min(crop) < stride:
        raise ConfigError(
            Problem(
                "augment.crop",
                f"a crop of {crop[0]}x{crop[1]} is smaller than the network's stride {stride}; "
                f"use at least {stride}x{stride}, or an encoder of fewer levels",
            )
        )
    values = batch * segmenter.deepest(crop[0]) * segmenter.deepest(crop[1])
    if values < 2 and any(isinstance(module, nn.BatchNorm2d) for module in segmenter.modules()):
        raise ConfigError(
            Problem(
                "train.batch_size",
                f"{batch} image of {crop[0]}x{crop[1]} leaves one value per channel at stride {stride}, and "
                "BatchNorm needs two; use a batch of 2 (more with train.accumulate), a larger augment.crop, or "
                "`norm: group` in encoder and decoder",
            )
        )
