"""How long the structures of the training masks are, to compare with what a network sees at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from segtool.config import Config
from segtool.data.labels import Labels
from segtool.data.pairs import Record
from segtool.data.statistics import evenly
from segtool.system.pools import in_threads

MAX_MASKS = 100  # evenly spaced training masks that are measured


@dataclass(frozen=True)
class Structure:
    """How far a class reaches in a straight line."""

    name: str
    images: int
    """Measured masks that contain the class."""
    length: float
    """Pixels of the longest run of the class along a row or a column of a mask: the median over those masks."""


def measure_structures(config: Config, records: Sequence[Record]) -> list[Structure]:
    """Returns the structures of each class in up to 100 evenly spaced masks. Raises DataError of one not to be used."""
    labels = Labels.from_config(config.data)
    masks = [record.mask for record in records if record.mask is not None]

    def runs(index: int) -> np.ndarray:
        return longest_runs(labels.read(masks[index], max_pixels=config.limits.max_pixels), labels.num_classes)

    lengths = np.array(in_threads(runs, evenly(len(masks), MAX_MASKS)), dtype=int).reshape(-1, labels.num_classes)
    found = [(name, column[column > 0]) for name, column in zip(labels.names, lengths.T, strict=True)]
    return [Structure(name, len(column), float(np.median(column))) for name, column in found if len(column)]


def longest_runs(mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Returns for each class the pixels of its longest run along a row or a column of a mask H W; 0 where absent."""
    return np.maximum(_along_rows(mask, num_classes), _along_rows(mask.T, num_classes))


def _along_rows(mask: np.ndarray, num_classes: int) -> np.ndarray:
    begins = np.ones(mask.shape, bool)
    begins[:, 1:] = mask[:, 1:] != mask[:, :-1]
    starts = np.flatnonzero(begins)
    longest = np.zeros(256, int)
    np.maximum.at(longest, mask.ravel()[starts], np.diff(starts, append=mask.size))
    return longest[:num_classes]
