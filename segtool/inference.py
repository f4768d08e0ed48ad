"""From an image to its logits: the one function that validation, eval and predict share.

One image a forward pass, at its own size (the network pads it to its stride and crops back), or in overlapping tiles
whose origins are multiples of the stride; those of valid convolutions meet, and see what is around them. Nothing is
ever stretched, and the answer does not depend on how many images come or in which order.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segtool.models.segmenter import Segmenter, Sides

MAX_WHOLE_PIXELS = 2048 * 2048  # larger images are predicted in tiles
AUTO_TILE = 1024


@dataclass(frozen=True)
class Normalize:
    """Turns stored values in 0..255 into what the network is trained on: `(x / 255 - mean) / std` by channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Returns float32 images N C H W of uint8 or float32 ones."""
        shape = (1, len(self.mean), 1, 1)
        mean = torch.tensor(self.mean, device=images.device).mul(255).view(shape)
        scale = torch.tensor(self.std, device=images.device).mul(255).reciprocal().view(shape)
        return (images.float() - mean) * scale


class BandPredictor:
    """The contract of what predicts an image: `bands` from top to bottom, and what they become."""

    channels: tuple[int, ...]
    """The numbers of channels that the image holds one after the other; several only for an ensemble."""

    def bands(self, image: Tensor, tile: int | None = None) -> Iterator[Tensor]:
        """Yields scores of an image C H W from top to bottom, as bands K h W; the largest names the class."""
        raise NotImplementedError

    def probabilities(self, band: Tensor) -> Tensor:
        """Returns the class probabilities K h W of the scores of a band."""
        raise NotImplementedError

    def classes(self, image: Tensor, tile: int | None = None) -> NDArray[np.uint8]:
        """Returns the class index of each pixel, H W; the lowest among equal scores."""
        return np.concatenate([largest(band) for band in self.bands(image, tile)])

    def classes_and_probabilities(
        self, image: Tensor, tile: int | None = None
    ) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Returns the class indices H W and the probabilities K H W that they are the largest of."""
        bands = list(self.bands(image, tile))
        probabilities = np.concatenate([self.probabilities(band).cpu().numpy() for band in bands], axis=1)
        return np.concatenate([largest(band) for band in bands]), probabilities


class Predictor(BandPredictor):
    """A network in evaluation mode with its normalisation, on a device."""

    def __init__(self, model: Segmenter, normalize: Normalize, device: torch.device) -> None:
        self.model = model.to(device).eval()
        self.normalize = normalize
        self.device = device
        self.channels = (len(normalize.mean),)

    @torch.inference_mode()
    def forward(self, image: Tensor, *context: Sides) -> Tensor:
        """Returns the logits K H W, float32, of an image C H W in 0..255, in one pass.

        `context`: as the Segmenter's `rows` and `columns`.
        """
        return self.model(self.normalize(image.to(self.device).unsqueeze(0)), *context)[0].float()

    def bands(self, image: Tensor, tile: int | None = None) -> Iterator[Tensor]:
        """Yields the logits of an image C H W from top to bottom, as bands K h W on the CPU or device.

        Only one row of tiles is held in memory. `tile` is the side of a tile in pixels; None: the whole image in one
        pass up to 4 megapixels, tiles of 1024 above.
        """
        height, width = image.shape[-2:]
        if tile is None and height * width > MAX_WHOLE_PIXELS:
            tile = AUTO_TILE
        if tile is None or (height <= tile and width <= tile):
            yield self.forward(image)
            return
        yield from self._tiled(image, tile)

    def probabilities(self, band: Tensor) -> Tensor:
        """Returns the softmax of logits."""
        return band.softmax(0)

    def _tiled(self, image: Tensor, tile: int) -> Iterator[Tensor]:
        stride = self.model.stride
        height, width = image.shape[-2:]
        tile = max(_round_up(tile, stride), 2 * stride)
        overlap = 0 if self.model.margin else tile // 4
        step = max(_round_down(tile - overlap, stride), stride)
        lefts, tops = origins(width, tile, step, stride), origins(height, tile, step, stride)
        sums: Tensor | None = None  # K rows W: the blended logits of the rows that are not finished
        weights = torch.zeros(0)
        start = 0
        for i, top in enumerate(tops):
            bottom = min(top + tile, height)
            for left in lefts:
                right = min(left + tile, width)
                logits = self._tile(image, top, bottom, left, right)
                if sums is None:
                    sums, weights = logits.new_zeros(len(logits), tile, width), logits.new_zeros(tile, width)
                weight = _blend(top, bottom, height, tile - step, logits)[:, None]
                weight = weight * _blend(left, right, width, tile - step, logits)[None]
                rows = slice(top - start, bottom - start)
                sums[:, rows, left:right] += weight * logits
                weights[rows, left:right] += weight
            assert sums is not None
            done = (tops[i + 1] if i + 1 < len(tops) else height) - start
            yield sums[:, :done] / weights[:done]
            start += done
            sums = torch.cat([sums[:, done:], sums.new_zeros(len(sums), done, width)], 1)
            weights = torch.cat([weights[done:], weights.new_zeros(done, width)])

    def _tile(self, image: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
        """Returns the logits of a tile; valid convolutions also see what is around it, so it is as in the whole image.

        Source: the overlap-tile strategy of Ronneberger et al. 2015, "U-Net", figure 2.
        """
        if not self.model.margin:
            return self.forward(image[:, top:bottom, left:right])
        height, width = image.shape[-2:]
        rows, columns = self.model.context(top, bottom, height), self.model.context(left, right, width)
        seen = image[:, top - rows[0] : bottom + rows[1], left - columns[0] : right + columns[1]]
        return self.forward(seen, rows, columns)


def origins(length: int, tile: int, step: int, stride: int) -> list[int]:
    """Returns where tiles begin along one side: multiples of the stride, `step` apart, the last reaching the end."""
    if length <= tile:
        return [0]
    final = _round_up(length - tile, stride)
    return [*range(0, final, step), final]


def largest(scores: Tensor) -> NDArray[np.uint8]:
    """Returns the class of the largest score of each pixel, H W, of scores K H W; the lowest among equal ones."""
    return scores.argmax(0).to(torch.uint8).cpu().numpy()


def _blend(start: int, stop: int, length: int, overlap: int, like: Tensor) -> Tensor:
    """Returns weights that rise linearly from each artificial border over `overlap` pixels and are 1 elsewhere."""
    position = torch.arange(start, stop, device=like.device, dtype=like.dtype)
    weight = torch.ones_like(position)
    if start > 0:
        weight = torch.minimum(weight, (position - start + 1) / (overlap + 1))
    if stop < length:
        weight = torch.minimum(weight, (stop - position) / (overlap + 1))
    return weight


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def _round_down(value: int, multiple: int) -> int:
    return value // multiple * multiple
