"""Several networks as one: the mean of their class probabilities, and of those of the mirror image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from segtool.prediction.inference import BandPredictor, Piece, Predictor


class Ensemble(BandPredictor):
    """Predictors whose class probabilities are averaged; with `flip`, also over the image and its mirror image.

    It predicts as a `Predictor` does, from an image that holds what each member reads (`channels`).

    Args:
        members: Of the same classes on the same device; at least one.
        flip: Each member also predicts the image mirrored left to right, and its answer is mirrored back.
    """

    def __init__(self, members: Sequence[Predictor], *, flip: bool = False) -> None:
        super().__init__(tuple(sorted({count for member in members for count in member.channels})), members[0].device)
        self.members = tuple(members)
        self.flip = flip

    def pieces(self, image: Tensor, tile: int | None = None) -> Iterator[Piece]:
        """Yields the mean probabilities of an image C H W from top to bottom, as pieces of its width.

        A piece ends where a row of tiles of any member ends (each tiles by its own stride), so one such row of each
        member, and one of its mirrored answer, is all that is held in memory.
        """
        top = 0
        for band in averaged([stream for member in self.members for stream in self._streams(member, image, tile)]):
            yield Piece(top, 0, band)
            top += band.shape[1]

    def probabilities(self, scores: Tensor) -> Tensor:
        """Returns the scores: they are probabilities already."""
        return scores

    def bytes_per_pixel(self) -> float:
        """Returns what the member that takes the most does; they run one after the other."""
        return max(member.bytes_per_pixel() for member in self.members)

    def _streams(self, member: Predictor, image: Tensor, tile: int | None) -> Iterator[Iterator[Tensor]]:
        (count,) = member.channels
        view = image[self.view(count)]
        yield (member.probabilities(band) for band in member.bands(view, tile))
        if self.flip:
            yield (member.probabilities(band).flip(2) for band in member.bands(view.flip(2), tile))


def averaged(streams: Sequence[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Yields the mean of streams of bands K h W that are equally high in all but not band by band."""
    held = [next(stream, None) for stream in streams]
    while bands := [band for band in held if band is not None]:
        assert len(bands) == len(streams), "the streams are not equally high"
        rows = min(band.shape[1] for band in bands)
        total = bands[0][:, :rows]
        for band in bands[1:]:
            total = total + band[:, :rows]
        yield total / len(bands)
        held = [
            band[:, rows:] if band.shape[1] > rows else next(stream, None)
            for band, stream in zip(bands, streams, strict=True)
        ]
