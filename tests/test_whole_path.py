"""Whole ways through the commands, composed by chance: each number that is told, and each file, is what it must be.

The sets and the choices are in `composed`, whose oracle knows nothing of segtool. `SEEDS` go fast and take each option
of each choice once at least; the others are slow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from composed.choices import CHOICES, Choices, choose
from composed.oracle import UNKNOWN, Meaning, confusion
from composed.required import (
    Maps,
    require_counts,
    require_drawn,
    require_extras,
    require_meaning,
    require_pairs,
    require_prediction,
    require_scores,
)
from composed.sets import Pair, compose, spoil
from composed.way import (
    Way,
    begin,
    data_of,
    folder_of_masks,
    move,
    predict,
    score,
    score_masks,
    train,
    write_own_config,
)
from conftest import Command

from segtool.data.codes import IGNORE
from segtool.data.labels import Labels
from segtool.data.mask_writer import MaskWriter

SEEDS = (
    1, 4, 14, 20, 23, 37, 56, 70, 76, 88, 109, 117, 151, 153, 164, 194, 195, 203, 209, 214, 215, 246, 265,
)  # fmt: skip
SLOW_SEEDS = 300

Travel = Callable[[Choices, int], None]


@pytest.fixture
def travel(segtool: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Travel:
    """Goes the whole way of some choices, and compares all that comes of it with what the generator knows."""

    def go(choices: Choices, seed: int) -> None:
        made = compose(choices, tmp_path / "home" / "data", seed)
        way = begin(segtool, made, tmp_path / "home", monkeypatch)
        by_init = way.config.with_name("from init.yaml")
        way.do("init", way.said(made.root), "--out", by_init)
        require_pairs(way, by_init)
        if choices["config"] == "own":
            write_own_config(way)
        else:
            way.config = by_init
            if made.encoding.inferred:
                require_meaning(made, by_init)
        way.set, way.settings = spoil(made)
        require_pairs(way, way.config, way.settings)
        require_counts(way, json.loads(way.do("check", way.said(way.config), "--json", *way.sets).out))
        train(way)
        way = move(way, monkeypatch)
        require_masks(way, score(way))

    return go


def require_masks(way: Way, scores: dict[str, Any] | None) -> None:
    """The masks of `predict` are whole, and score as `eval` tells, of the run and of the masks."""
    meaning = Meaning.of(data_of(way.first_run / "config.yaml"))
    pairs = _to_predict(way, scores)
    images = way.set.root / ("images" if (way.set.root / "images").is_dir() else ".")
    place = {"elsewhere": way.home / "out", "in_root": way.set.root, "in_images": images}
    out = place[way.choices["out_place"]] / "my masks"
    stems = predict(way, pairs, out)
    truths: Maps = {}
    predictions: Maps = {}
    for pair in pairs:
        truths[pair.stem] = meaning.truth(pair.mask)
        assert (truths[pair.stem] != UNKNOWN).all()
        if way.choices["config"] == "own":
            require_drawn(way.set, pair, truths[pair.stem])
        predictions[pair.stem] = require_prediction(way, meaning, pair, out / f"{stems[pair.stem]}.png")
        require_extras(way, out, stems[pair.stem], predictions[pair.stem])
    if scores:
        require_scores(scores, truths, predictions, len(meaning.first))
    of_masks = score_masks(way, out, folder_of_masks(way, pairs))
    assert of_masks["images"] == len(pairs)
    if all(pair.split != "pool" for pair in pairs) and scores:
        assert scores["images"] == len(pairs)
    stacked = [np.concatenate([maps[pair.stem].ravel() for pair in pairs]) for maps in (truths, predictions)]
    assert of_masks["confusion"] == confusion(*stacked, len(meaning.first)).tolist()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}
    predict(way, pairs, out, "--resume")
    assert before == {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in out.rglob("*") if path.is_file()}


def _to_predict(way: Way, scores: dict[str, Any] | None) -> list[Pair]:
    """Returns the pairs of the split that was scored, or of those that may be among it."""
    split = scores["split"] if scores else "val"
    return [pair for pair in way.set.pairs if pair.split in ("pool", split)]


@pytest.mark.parametrize(
    "seed", [*SEEDS, *(pytest.param(s, marks=pytest.mark.slow) for s in range(SLOW_SEEDS) if s not in SEEDS)]
)
def test_a_whole_way_tells_and_writes_what_is_so(seed: int, travel: Travel) -> None:
    travel(choose(seed), seed)


def test_the_fast_ways_take_each_option() -> None:
    taken = [choose(seed) for seed in SEEDS]
    left = {name: set(options) - {choices[name] for choices in taken} for name, options in CHOICES.items()}
    assert {name: options for name, options in left.items() if options} == {}


PALETTE_WAY, IGNORED_WAY = 209, 214
"""Seeds of ways with palette masks, and with ignored pixels."""


def test_a_palette_that_is_not_that_of_the_masks_is_seen(travel: Travel, monkeypatch: pytest.MonkeyPatch) -> None:
    palette = MaskWriter._palette
    monkeypatch.setattr(MaskWriter, "_palette", lambda writer: palette(writer)[::-1])
    with pytest.raises(AssertionError):
        travel(choose(PALETTE_WAY), PALETTE_WAY)


def test_ignored_pixels_that_are_counted_are_seen(travel: Travel, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = Labels.decode

    def counting(labels: Labels, *arguments: Any, **more: Any) -> np.ndarray:
        indices = decode(labels, *arguments, **more)
        return np.where(indices == IGNORE, 0, indices).astype(np.uint8)

    monkeypatch.setattr(Labels, "decode", counting)
    with pytest.raises(AssertionError):
        travel(choose(IGNORED_WAY), IGNORED_WAY)
