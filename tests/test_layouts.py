"""`init` reads sets that were laid out by chance as they were meant, with what lies beside them or one file lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from laid_out import LaidOut, lay_out
from test_scaffold import init

from segtool.config import Config
from segtool.data.codes import IGNORE
from segtool.data.formats import Places, data_root
from segtool.data.labels import Labels
from segtool.data.pairs import Record

FAST, SLOW = 40, 400


def records_of(config: Config, base: Path) -> dict[str, list[Record]]:
    """Returns the pairs of each split that the config names, nothing held out."""
    places = Places(config.data, data_root(config.data, base))
    return {split: list(places.of(split).pairs.records) for split in config.data.parts}


def require_as_laid_out(made: LaidOut, config: Config, base: Path) -> None:
    """Each image is found with its mask in its split, and each class is one class, whatever its index."""
    found = {r.image: (split, r.mask) for split, part in records_of(config, base).items() for r in part}
    whole = [pair for pair in made.pairs if made.lost not in (pair.image, pair.mask)]
    assert found == {pair.image: (pair.split, pair.mask) for pair in whole}
    labels = Labels.from_config(config.data)
    meant = {
        (true, index)
        for pair in whole
        for true, index in np.unique(
            np.stack([pair.truth, labels.read(pair.mask, max_pixels=10**8)]).reshape(2, -1), axis=1
        ).T.tolist()
    }
    assert len(meant) == len({true for true, _ in meant}) == len({index for _, index in meant}) == labels.num_classes
    assert IGNORE not in {index for _, index in meant}


@pytest.mark.parametrize(
    "seed", [seed if seed < FAST else pytest.param(seed, marks=pytest.mark.slow) for seed in range(SLOW)]
)
def test_init_reads_what_was_laid_out_by_chance(seed: int, tmp_path: Path) -> None:
    made = lay_out(seed, tmp_path / "set")
    try:
        require_as_laid_out(made, init(tmp_path / "set"), tmp_path)
    except Exception as error:
        error.add_note(made.told)
        raise
