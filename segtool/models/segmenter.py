"""The network of a config: an encoder, a decoder and a head, for images of any size."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from segtool import config
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import linear_conv
from segtool.models.decoders import Decoder
from segtool.models.encoders import ConvEncoder, Encoder
from segtool.models.trace import trace
from segtool.registry import build


class Segmenter(nn.Module):
    """Images in, logits of the same size out.

    Raises:
        ConfigError: the encoder and the decoder do not fit together.
    """

    stride: int
    """Images are padded to a multiple of it inside; a training crop must be at least this."""
    receptive_field: int
    """Side in pixels of the window, centred on an output pixel, that holds every input pixel it depends on."""

    def __init__(self, encoder: Encoder, decoder: Decoder, num_classes: int, *, in_channels: int = 3) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.head = linear_conv(decoder.out_channels, num_classes)
        # Small enough for a first cross-entropy near ln K, and no smaller: with a deviation of 0.01 the network behind
        # the head learns next to nothing for the first hundreds of steps (mean IoU after 60: 0.21 against 0.66).
        # Without norms the features may have grown on their way, so the head starts at a tenth of that.
        normed = any(isinstance(module, nn.BatchNorm2d | nn.GroupNorm) for module in decoder.modules())
        nn.init.normal_(self.head.weight, std=(1.0 if normed else 0.1) / math.sqrt(3 * decoder.out_channels))
        if decoder.needs_indices:
            encoder.keep_indices()
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.stride = math.lcm(*encoder.strides)
        self.receptive_field = self._measure_field()

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits N K H W for images N C H W, H and W from 1 up."""
        height, width = images.shape[-2:]
        features = self.encoder(pad_to_multiple(images, self.stride))  # maps finest first: N C_i h w
        logits = self.head(self.decoder(features))
        return logits[..., :height, :width]  # N K H W

    def _measure_field(self) -> int:
        size = (self.in_channels, 2 * self.stride, 2 * self.stride)
        field = trace(self, size, period=self.stride)[-1].field
        assert field is not None, "the way from the image to the head was lost"
        assert field.jump == 1, f"a decoder must end at stride 1, not {field.jump}"
        return 2 * field.reach + 1


def build_model(model: config.Model, num_classes: int, in_channels: int = 3) -> Segmenter:
    """Returns the network that a config describes, newly initialised from torch's global generator.

    Raises:
        ConfigError: an unknown name or option, or parts that do not fit together.
    """
    problems: list[str | Problem] = []
    encoder = decoder = None
    try:
        encoder = build("encoder", model.encoder, in_channels, path="model.encoder")
    except ConfigError as error:
        problems += error.details
    shape = encoder or ConvEncoder(in_channels)  # a stand-in, so that the decoder's options are checked all the same
    try:
        decoder = build("decoder", model.decoder, shape.channels, shape.strides, path="model.decoder")
    except ConfigError as error:
        problems += error.details
    if encoder is None or decoder is None:
        raise ConfigError(*problems)
    return Segmenter(encoder, decoder, num_classes, in_channels=in_channels)


def verify(
    model: config.Model, num_classes: int, in_channels: int = 3, *, crop: tuple[int, int] | None = None, batch: int = 2
) -> Segmenter:
    """Builds the network on the meta device, which takes neither memory nor time, and returns it.

    Args:
        model: What to build.
        num_classes: K.
        in_channels: C.
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


def pad_to_multiple(images: Tensor, stride: int) -> Tensor:
    """Returns images N C H W padded at the bottom and the right to multiples of `stride`.

    Reflected where the side is longer than its padding, else its last pixel is repeated.
    """
    height, width = images.shape[-2:]
    bottom, right = -height % stride, -width % stride
    if bottom:
        images = F.pad(images, (0, 0, 0, bottom), mode="reflect" if bottom < height else "replicate")
    if right:
        images = F.pad(images, (0, right, 0, 0), mode="reflect" if right < width else "replicate")
    return images


def deep_supervision_weights(terms: int) -> list[float]:
    """Returns the weights of the losses of `[logits, *coarser logits]`, finest first: 2^-i, divided by their sum.

    Source: Isensee et al. 2021, "nnU-Net", supplementary note 2: "the weights halve with each decrease in resolution".
    """
    weights = [0.5**i for i in range(terms)]
    return [weight / sum(weights) for weight in weights]


def check_crop(segmenter: Segmenter, crop: tuple[int, int], batch: int) -> None:
    stride = segmenter.stride
    if min(crop) < stride:
        raise ConfigError(
            Problem(
                "augment.crop",
                f"a crop of {crop[0]}x{crop[1]} is smaller than the network's stride {stride}; "
                f"use at least {stride}x{stride}, or an encoder of fewer levels",
            )
        )
    values = batch * math.ceil(crop[0] / stride) * math.ceil(crop[1] / stride)
    if values < 2 and any(isinstance(module, nn.BatchNorm2d) for module in segmenter.modules()):
        raise ConfigError(
            Problem(
                "train.batch_size",
                f"{batch} image of {crop[0]}x{crop[1]} leaves one value per channel at stride {stride}, and "
                "BatchNorm needs two; use a batch of 2, a larger augment.crop, or `norm: group` in encoder and decoder",
            )
        )
