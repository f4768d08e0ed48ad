"""From an image to its logits: the one function that validation, eval and predict share.

One image a forward pass, at its own size (the network pads it to its stride and crops back), or in overlapping tiles
whose origins are multiples of the stride; those of valid convolutions meet, and see what is around them. Nothing is
ever stretched, and the answer does not depend on how many images come or in which order.

Tiles are blended as they come: what is held besides the tile at hand is the strip that the row of tiles below it will
overlap, and no array of the scores of a whole image or of a whole row of tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Module

from segtool.errors import shown
from segtool.models.fold import fold_norms
from segtool.models.segmenter import Segmenter, Sides
from segtool.prediction.recording import Graphs, Recordings
from segtool.system.devices import free_bytes

MAX_WHOLE_PIXELS = 2**21
"""Larger images are predicted in tiles; the largest that are not (Full HD is one) take twice the memory of a tile."""
AUTO_TILE = 1024
"""Side of those tiles in pixels. A U-Net of 32 channels at stride 1 holds about 0.9 GB at that size, whatever size the
image has; larger tiles would save little, since what overlaps is a quarter of the work already."""
LEAST_TILE = 64
"""Side of the smallest tiles that are advised where memory runs out; the others are multiples of it."""
MOST_OF_IT = 0.7
"""Share of the free memory that they may take."""
OVERLAP = 128
"""Pixels that neighbouring tiles have in common, at most a quarter of a tile. A U-Net of five levels sees 107 pixels in
each direction, and most of what counts is near."""


@dataclass(frozen=True)
class Normalize:
    """Turns stored values in 0..255 into what the network is trained on: `(x / 255 - mean) / std` by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Returns float32 images N C H W, contiguous, of uint8 or float32 ones in any order in memory."""
        normalized = torch.empty(images.shape, device=images.device)
        # Channel by channel and with Python's numbers: a third faster on a CPU, and a GPU has no numbers to wait for.
        for channel, (mean, std) in enumerate(zip(self.mean, self.std, strict=True)):
            normalized[:, channel].copy_(images[:, channel]).mul_(1 / (255 * std)).add_(-mean / std)
        return normalized


class Piece(NamedTuple):
    """The scores of a part of an image."""

    top: int
    left: int
    scores: Tensor
    """K h w."""


class BandPredictor:
    """The contract of what predicts an image: `pieces`, and what they become.

    Args:
        channels: The numbers of channels that the image holds one after the other; several only for an ensemble.
    """

    def __init__(self, channels: tuple[int, ...], device: torch.device) -> None:
        self.channels = channels
        self.device = device

    def view(self, channels: int) -> slice:
        """Returns which of an image's channels it has as one that is read with so many."""
        start = sum(self.channels[: self.channels.index(channels)])
        return slice(start, start + channels)

    def pieces(self, image: Tensor, tile: int | None = None) -> Iterator[Piece]:
        """Yields the scores of an image C H W; the largest names the class.

        The pieces cover it once, from left to right in rows of equally high ones, row by row from the top.
        """
        raise NotImplementedError

    def probabilities(self, scores: Tensor) -> Tensor:
        """Returns the class probabilities K h w of scores K h w."""
        raise NotImplementedError

    def bytes_per_pixel(self) -> float:
        """Returns the memory that a forward pass takes at most for each pixel of its input."""
        raise NotImplementedError

    def bands(self, image: Tensor, tile: int | None = None) -> Iterator[Tensor]:
        """Yields the scores of an image C H W from top to bottom, as bands K h W: each row of pieces as one."""
        width = image.shape[2]
        band = torch.empty(0)
        for _, left, scores in self.pieces(image, tile):
            right = left + scores.shape[2]
            if left == 0:
                band = scores if right == width else scores.new_empty(*scores.shape[:2], width)
            if band is not scores:
                band[:, :, left:right] = scores
            if right == width:
                yield band

    def classes(
        self, image: Tensor, tile: int | None = None, *, after_row: Callable[[], object] | None = None
    ) -> NDArray[np.uint8]:
        """Returns the class index of each pixel of an image C H W, H W; the lowest among equal scores.

        `after_row` is called when a row of pieces is done.
        """
        classes = np.empty(image.shape[1:], np.uint8)
        for top, left, scores in self.pieces(image, tile):
            height, width = scores.shape[1:]
            classes[top : top + height, left : left + width] = largest(scores)
            if after_row and left + width == image.shape[2]:
                after_row()
        return classes

    def classes_and_probabilities(
        self, image: Tensor, tile: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Returns the class indices H W and the probabilities K H W that they are the largest of.

        Logits that differ can round to one probability: that of the pixel's class is then the next larger number.
        """
        classes = np.empty(image.shape[1:], np.uint8)
        probabilities = np.empty((0, *classes.shape), np.float32)
        for top, left, scores in self.pieces(image, tile):
            if not len(probabilities):
                probabilities = np.empty((len(scores), *classes.shape), np.float32)
            place = slice(top, top + scores.shape[1]), slice(left, left + scores.shape[2])
            named, found = largest(scores), self.probabilities(scores)
            part = found.cpu().numpy()
            rows, columns = np.nonzero(largest(found) != named)
            part[named[rows, columns], rows, columns] = np.nextafter(part[:, rows, columns].max(0), np.float32(1))
            classes[place], probabilities[:, *place] = named, part
        return classes, probabilities


class Predictor(BandPredictor):
    """A network in evaluation mode with its normalisation, on a device.

    The network is taken over and changed: its norms are folded into its convolutions, its weights laid out with the
    channels last.

    Args:
        dtype: What it computes in, logits aside, which are float32: bfloat16 halves the memory and is faster where the
            processor has it (`fast_dtype`).
    """

    def __init__(
        self, model: Segmenter, normalize: Normalize, device: torch.device, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__((len(normalize.mean),), device)
        self.model = _ready(model.to(device).eval(), dtype)
        self.normalize = normalize
        self.dtype = dtype
        self._recordings = Recordings(Graphs(device)) if device.type == "cuda" else None

    @torch.inference_mode()
    def forward(self, image: Tensor, *context: Sides) -> Tensor:
        """Returns the logits K H W, float32, of an image C H W in 0..255, in one pass.

        `context`: as the Segmenter's `rows` and `columns`.
        """
        if context or self._recordings is None:
            return self._logits(image, *context)
        return self._recordings(self._logits, image)

    @torch.inference_mode()
    def pieces(self, image: Tensor, tile: int | None = None) -> Iterator[Piece]:
        """Yields the logits of an image C H W, on the CPU or device.

        `tile` is the side of a tile in pixels; None: the whole image in one pass up to 2 megapixels, tiles of 1024
        above.
        """
        height, width = image.shape[-2:]
        if tile is None and height * width > MAX_WHOLE_PIXELS:
            tile = AUTO_TILE
        if tile is None or (height <= tile and width <= tile):
            yield Piece(0, 0, self.forward(image))
        else:
            yield from self._tiled(image, tile)

    def probabilities(self, scores: Tensor) -> Tensor:
        """Returns the softmax of logits."""
        return scores.softmax(0)

    @torch.inference_mode()
    def bytes_per_pixel(self) -> float:
        """Returns the bytes of all layers' outputs together, as if none were freed, for each pixel of the input."""
        sizes: list[int] = []

        def note(_layer: Module, _inputs: object, outputs: Tensor | tuple[Tensor, ...]) -> None:
            sizes.extend(one.nbytes for one in (outputs if isinstance(outputs, tuple) else (outputs,)))

        leaves = [layer for layer in self.model.modules() if not any(layer.children())]
        hooks = [layer.register_forward_hook(note) for layer in leaves]
        side = 8 * self.model.stride
        try:
            self.model(torch.zeros(1, self.channels[0], side, side, device=self.device, dtype=self.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return max(sum(sizes) / side**2, 1.0)

    def _logits(self, image: Tensor, *context: Sides) -> Tensor:
        images = self.normalize(image.to(self.device).unsqueeze(0))
        return self.model(images.to(self.dtype, memory_format=torch.channels_last), *context)[0].float()

    def _tiled(self, image: Tensor, tile: int) -> Iterator[Piece]:
        stride = self.model.stride
        height, width = image.shape[-2:]
        tile = max(_round_up(tile, stride), 2 * stride)
        overlap = 0 if self.model.margin else min(tile // 4, OVERLAP)
        columns = spans(width, tile, overlap, stride)
        above = torch.empty(0)  # K overlap W: what this row of tiles has in common with the one above
        for top, bottom in spans(height, tile, overlap, stride):
            before = torch.empty(0)  # K h overlap: what this tile has in common with the one to its left
            for left, right in columns:
                logits = self._tile(image, top, bottom, left, right)  # K h w
                if left > 0:
                    logits = _blended(before, logits, dim=2)
                if right < width:
                    logits, before = _cut(logits, overlap, dim=2)
                place = slice(left, left + logits.shape[2])
                if top > 0:
                    logits = _blended(above[:, :, place], logits, dim=1)
                if bottom < height:
                    logits, below = _cut(logits, overlap, dim=1)
                    if not len(above):
                        above = logits.new_empty(len(logits), overlap, width)
                    above[:, :, place] = below
                yield Piece(top, left, logits)

    def _tile(self, image: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Returns the logits of a tile; valid convolutions also see what is around it, so it is as in the whole image.

        Source: the overlap-tile strategy of Ronneberger et al. 2015, "U-Net", figure 2.
        """
        if not self.model.margin:
            return self.forward(image[:, top:bottom, left:right])
        height, width = image.shape[-2:]
        rows, above_and_below = self.model.places(top, bottom, height)
        columns, left_and_right = self.model.places(left, right, width)
        return self.forward(image[:, rows[:, None], columns], above_and_below, left_and_right)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Returns what networks are best run in: bfloat16 where the processor computes it faster, else float32."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def tile_advice(predictor: BandPredictor, path: Path, size: tuple[int, int], tile: int | None) -> str:
    """Returns, for an image whose prediction took too much memory, its size and the tile to try."""
    height, width = size
    advised = smaller_tile(predictor, size, tile)
    return f"at {shown(path)}, {width}x{height} pixels; try --tile {advised}"


def smaller_tile(predictor: BandPredictor, size: tuple[int, int], tile: int | None) -> int:
    """Returns the side of tiles to try where memory ran out: at most half of before, and what is free suffices for."""
    free = free_bytes(predictor.device)
    whole = AUTO_TILE if tile is None and size[0] * size[1] > MAX_WHOLE_PIXELS else max(size)
    side = min(whole, tile or whole) // 2
    if free is not None:
        side = min(side, int((MOST_OF_IT * free / predictor.bytes_per_pixel()) ** 0.5))
    return max(_round_down(side, LEAST_TILE), LEAST_TILE)


def spans(length: int, tile: int, overlap: int, stride: int) -> list[tuple[int, int]]:
    """Returns where tiles begin and end along one side: as many as are needed, and no longer than that many need.

    They begin at multiples of the stride, are equally long but for the last, which may be shorter, and each has
    `overlap` pixels in common with the next. `tile` is a multiple of the stride and exceeds the overlap by it.
    """
    if length <= tile:
        return [(0, length)]
    most = _round_down(tile - overlap, stride)
    count = -(-(length - overlap) // most)
    step = _round_up(-(-(length - overlap) // count), stride)
    return [(start, min(start + step + overlap, length)) for start in range(0, length - overlap, step)]


def largest(scores: Tensor) -> NDArray[np.uint8]:
    """Returns the class of the largest score of each pixel, H W, of scores K H W; the lowest among equal ones."""
    # As argmax, which takes ten times as long over the first of three dimensions (17 ms against 1.8 for 12x360x480).
    return scores.max(0).indices.to(torch.uint8).cpu().numpy()


def _ready(model: Segmenter, dtype: torch.dtype) -> Segmenter:
    """Returns the network, which is changed, as it is fastest: folded, in `dtype`, the channels last."""
    fold_norms(model)
    if dtype != torch.float32:
        model.to(dtype)
        # The head alone stays in float32: of scores near each other, rounded ones would often be equal.
        model.head.float()
        model.head.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _blended(first: Tensor, second: Tensor, *, dim: int) -> Tensor:
    """Returns `second`, at its beginning blended with what it has in common with `first`: by weights that rise."""
    length = first.shape[dim]
    weights = torch.arange(1, length + 1, device=second.device, dtype=second.dtype) / (length + 1)
    weights = weights.view(-1, 1) if dim == 1 else weights
    common, rest = second.narrow(dim, 0, length), second.narrow(dim, length, second.shape[dim] - length)
    return torch.cat([torch.lerp(first, common, weights), rest], dim)


def _cut(logits: Tensor, overlap: int, *, dim: int) -> tuple[Tensor, Tensor]:
    """Returns logits without their end of `overlap` pixels, and a copy of that end."""
    kept = logits.shape[dim] - overlap
    return logits.narrow(dim, 0, kept), logits.narrow(dim, kept, overlap).clone()


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _round_down(value: int, multiple: int) -> int:
    return value // multiple * multiple
