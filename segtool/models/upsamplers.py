"""Upsamplers: a map becomes `ratio` times as high and as wide.

A new one is a class here, registered as "upsampler", built from (in_channels, out_channels, ratio); what stands after
`*` in its `__init__` may be set in a config. Its `forward(x, indices)` takes N in_channels h w and the indices of the
encoder's max pooling at this place (None where there are none), and returns N out_channels h*ratio w*ratio.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary, has_torch_function_variadic

from segtool.config.registry import register
from segtool.errors import ConfigError, Problem
from segtool.models.blocks import linear_conv

PATH = "model.decoder.upsample"


class Upsampler(nn.Module):
    """The contract of an upsampler; the module's docstring has it in words."""

    needs_indices: bool = False
    """Whether `forward` needs the encoder's max-pool indices, which cost time to make."""
    border: int = 0
    """How many pixels at each side of its output would be others if its input had more pixels there."""

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        """Returns N out_channels h*ratio w*ratio."""
        raise NotImplementedError


@register("upsampler", "transposed")
class Transposed(Upsampler):
    """Learned: zeros are put between the pixels, and a convolution fills them in.

    Its stride is the ratio between the levels, and its output padding follows from
    `ratio * h = ratio * (h - 1) + kernel - 2 * padding + output_padding`.

    Args:
        kernel: Side of the kernel; null: the ratio, so that outputs do not overlap. A kernel that is no multiple of
            the ratio sums unequally many terms in neighbouring pixels (checkerboard).
        padding: Pixels taken off each side; null: the smallest that gives the size.
    """

    def __init__(
        self, in_channels: int, out_channels: int, ratio: int, *, kernel: int | None = None, padding: int | None = None
    ) -> None:
        super().__init__()
        kernel = ratio if kernel is None else kernel
        padding = max(0, math.ceil((kernel - ratio) / 2)) if padding is None else padding
        output_padding = _output_padding(kernel, padding, ratio)
        self.border = max(0, kernel - padding - ratio, padding)  # at the left and top, at the right and bottom
        self.conv = nn.ConvTranspose2d(
            in_channels, out_channels, kernel, stride=ratio, padding=padding, output_padding=output_padding
        )
        # Each output sums about in_channels * (kernel / ratio)^2 terms. PyTorch's fan-in takes the weight's second
        # dimension, which is the output width here.
        nn.init.normal_(self.conv.weight, std=1 / math.sqrt(in_channels * max(1.0, (kernel / ratio) ** 2)))
        if self.conv.bias is not None:
            nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        return self.conv(x)


class FixedUpsampler(Upsampler):
    """An upsampler without weights of its own; a 1x1 convolution changes the width first, where it changes."""

    def __init__(self, in_channels: int, out_channels: int, ratio: int) -> None:
        super().__init__()
        self.ratio = ratio
        self.project = nn.Identity() if in_channels == out_channels else linear_conv(in_channels, out_channels)


@register("upsampler", "nearest")
class Nearest(FixedUpsampler):
    """Fixed: every pixel is repeated over its cell."""

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        return F.interpolate(self.project(x), scale_factor=self.ratio, mode="nearest")


@register("upsampler", "bilinear")
class Bilinear(FixedUpsampler):
    """Fixed: linear between the centres of the pixels, along both axes."""

    def __init__(self, in_channels: int, out_channels: int, ratio: int) -> None:
        super().__init__(in_channels, out_channels, ratio)
        self.border = ratio // 2

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        return F.interpolate(self.project(x), scale_factor=self.ratio, mode="bilinear", align_corners=False)


@register("upsampler", "bed_of_nails")
class BedOfNails(FixedUpsampler):
    """Fixed: every pixel stands at the top left of its cell, and the rest of the cell is zero."""

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        return bed_of_nails(self.project(x), self.ratio)


@register("upsampler", "max_unpool")
class MaxUnpool(FixedUpsampler):
    """Fixed: every pixel goes back to where the encoder's max pooling found the maximum; the rest is zero.

    Needs an encoder that max-pools between its levels.

    Source: Badrinarayanan et al. 2017, "SegNet", section 3.1.
    """

    needs_indices = True

    def forward(self, x: Tensor, indices: Tensor | None = None) -> Tensor:
        """Raises ConfigError where the indices are missing or are not those of a map of x's size."""
        x = self.project(x)
        return max_unpool(x, _checked(indices, x), self.ratio)


def bed_of_nails(x: Tensor, ratio: int) -> Tensor:
    """Returns N C h*ratio w*ratio with x at the top left of each cell and zeros elsewhere."""
    if has_torch_function_unary(x):  # so that `models/trace.py` sees one operation
        return handle_torch_function(bed_of_nails, (x,), x, ratio)
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    n, c, h, w = x.shape
    out = torch.zeros((n, c, h * ratio, w * ratio), dtype=x.dtype, device=x.device).contiguous(memory_format=layout)
    out[..., ::ratio, ::ratio] = x
    return out


def max_unpool(x: Tensor, indices: Tensor, ratio: int) -> Tensor:
    """Returns N C h*ratio w*ratio with x at `indices`, positions in the flattened map, and zeros elsewhere."""
    if has_torch_function_variadic(x, indices):
        return handle_torch_function(max_unpool, (x, indices), x, indices, ratio)
    n, c, h, w = x.shape
    height, width = h * ratio, w * ratio
    if torch.are_deterministic_algorithms_enabled():
        # PyTorch's kernel refuses this mode, since indices might repeat; those of pooling without overlap do not.
        flat = torch.zeros((n, c, height * width), dtype=x.dtype, device=x.device)
        return flat.scatter(2, indices.flatten(2), x.flatten(2)).view(n, c, height, width)
    return F.max_unpool2d(x, indices, (ratio, ratio), output_size=(height, width))


def _output_padding(kernel: int, padding: int, ratio: int) -> int:
    output_padding = ratio - kernel + 2 * padding
    if kernel >= 1 and padding >= 0 and 0 <= output_padding < ratio:
        return output_padding
    if kernel < 1:
        raise ConfigError(Problem(f"{PATH}.kernel", f"expected a kernel of at least 1, found {kernel}"))
    low = max(0, math.ceil((kernel - ratio) / 2))
    raise ConfigError(
        Problem(
            f"{PATH}.padding",
            f"kernel {kernel} and padding {padding} cannot upsample by {ratio}: output padding "
            f"{ratio} - {kernel} + 2*{padding} = {output_padding}, but it must be in 0..{ratio - 1}; use padding {low}",
        )
    )


def _checked(indices: Tensor | None, x: Tensor) -> Tensor:
    if indices is None:
        message = (
            "max_unpool needs the indices of a max pooling at every level, and this encoder has none; use an encoder "
            "that max-pools (conv with `downsample: max`), or another upsample: transposed, nearest, bilinear"
        )
        raise ConfigError(Problem(PATH, message))
    if indices.shape != x.shape:
        message = (
            f"max_unpool has a map of shape {tuple(x.shape[1:])} and the encoder's pooling indices are "
            f"{tuple(indices.shape[1:])} (channels, height, width); they must be equal: use another encoder or upsample"
        )
        raise ConfigError(Problem(PATH, message))
    return indices
