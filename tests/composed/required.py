"""What must be so on a whole way, of what is told and of what is written."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from composed.choices import mask_suffix
from composed.oracle import UNKNOWN, Meaning, confusion
from composed.sets import Composed, Pair
from composed.storing import IGNORED
from composed.way import Way, data_of
from segtool.config import load_config
from segtool.data.formats import split_records

Maps = dict[str, np.ndarray]
"""H W uint8 classes, by the stem of a pair."""


def require_pairs(way: Way, config: Path, settings: tuple[str, ...] = ()) -> None:
    """The config finds each pair of the set and no other, in its split where the set says which."""
    records = split_records(load_config(config, settings), config.parent)
    found = {
        (os.path.realpath(record.image), os.path.realpath(record.truth)): split
        for split, part in records.items()
        for record in part
    }
    expected = {(os.path.realpath(pair.image), os.path.realpath(pair.mask)): pair for pair in way.set.pairs}
    assert len(found) == sum(map(len, records.values()))
    assert found.keys() == expected.keys()
    assert [pair.stem for files, pair in expected.items() if pair.split not in ("pool", found[files])] == []
    if "group" in way.choices["split"] and config == way.config and way.choices["config"] == "own":
        groups = [{re.findall(r"p\d+", record.stem)[0] for record in part} for part in records.values()]
        assert sum(map(len, groups)) == len(set().union(*groups))


def require_meaning(made: Composed, config: Path) -> None:
    """The config has the classes that were drawn, each by itself, and ignores what was drawn so."""
    meaning = Meaning.of(data_of(config))
    assert (meaning.encoding, meaning.nearest) == (made.encoding.encoding, made.encoding.nearest)
    for pair in made.pairs:
        truth = meaning.truth(pair.mask)
        if _is_inexact(made):  # two classes, in one order or the other
            assert max(np.mean(truth == pair.truth), np.mean(truth == 1 - pair.truth)) > 0.9
            continue
        meant = {(int(drawn), int(read)) for drawn, read in zip(pair.truth.flat, truth.flat, strict=True)}
        assert len({drawn for drawn, _ in meant}) == len({read for _, read in meant}) == len(meant), meant
        assert all((drawn == IGNORED) == (read == IGNORED) for drawn, read in meant), meant


def require_counts(way: Way, report: dict[str, Any]) -> None:
    """`check` finds no error, and counts pairs and pixels as they are."""
    assert [finding for finding in report["findings"] if finding["severity"] == "error"] == []
    data = data_of(way.config)
    meaning, names = Meaning.of(data), [item["name"] for item in data["classes"]]
    held_out = way.set.pairs[0].split == "pool"
    for splits in [set(report["splits"])] if held_out else [{split} for split in report["splits"]]:
        truths = [meaning.truth(pair.mask) for pair in way.set.pairs if pair.split in ("pool", *splits)]
        told = [report["splits"][split] for split in splits]
        assert sum(part["pairs"] for part in told) == len(truths)
        assert sum(part["ignored"] for part in told) == sum(int((truth == IGNORED).sum()) for truth in truths)
        for index, name in enumerate(names):
            counted = sum(int((truth == index).sum()) for truth in truths)
            assert sum(part["pixels"][name] for part in told) == counted


def require_scores(scores: dict[str, Any], truths: Maps, predictions: Maps, num_classes: int) -> None:
    """The scores are those of the images that the per-image table names, which tells each as it is."""
    with open(scores["per_image"], encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    total = np.zeros((num_classes, num_classes), np.int64)
    for row in rows:
        stem = row["image"].removeprefix("'")  # that spreadsheets run nothing
        truth = truths[stem]
        counts = confusion(truth, predictions[stem], num_classes)
        assert int(row["pixels"]) == counts.sum()
        assert int(row["ignored_pixels"]) == (truth == IGNORED).sum()
        assert float(row["pixel_accuracy"]) == pytest.approx(counts.trace() / counts.sum(), abs=1e-6)
        assert float(row["miou"]) == pytest.approx(_mean_iou(counts), abs=1e-6)
        total += counts
    assert scores["images"] == len(rows)
    assert scores["confusion"] == total.tolist()
    assert scores["miou"] == pytest.approx(_mean_iou(total))


def _mean_iou(counts: np.ndarray) -> float:
    """Returns the mean over the classes that occur."""
    ious = []
    for index in range(len(counts)):
        union = counts[index].sum() + counts[:, index].sum() - counts[index, index]
        if union:
            ious.append(counts[index, index] / union)
    return float(np.mean(ious))


def require_prediction(way: Way, meaning: Meaning, pair: Pair, path: Path) -> np.ndarray:
    """Returns the classes of a predicted mask, which is stored as the set's masks are."""
    height, width = pair.truth.shape
    with Image.open(path) as made, Image.open(pair.mask) as mask:
        assert made.size == mask.size == (width, height)
        assert made.mode in (way.set.encoding.written or {_mode(other.mask) for other in way.set.pairs})
        if made.mode == "P" and way.set.encoding.mode == "P":
            made_colors, colors = made.getpalette() or [], mask.getpalette() or []
            assert made_colors == (colors + [0] * len(made_colors))[: len(made_colors)]
    prediction = meaning.prediction(path)
    assert (prediction != UNKNOWN).all()
    return prediction


def _mode(path: Path) -> str:
    with Image.open(path) as image:
        return image.mode


def require_extras(way: Way, out: Path, stem: str, prediction: np.ndarray) -> None:
    """Overlay and probabilities are there if they were asked for, and go with the mask."""
    extras = way.choices["extras"]
    overlay, array = out / "overlays" / f"{stem}.png", out / "probabilities" / f"{stem}.npy"
    assert overlay.exists() == (extras in ("overlay", "both"))
    assert array.exists() == (extras in ("probabilities", "both"))
    if overlay.exists():
        with Image.open(overlay) as picture:
            assert picture.width >= prediction.shape[1]
            assert picture.height >= prediction.shape[0]
    if array.exists():
        probabilities = np.load(array)
        assert probabilities.shape[1:] == prediction.shape
        assert np.allclose(probabilities.sum(axis=0), 1, atol=1e-5)
        chosen = np.take_along_axis(probabilities, prediction[None].astype(np.intp), axis=0)[0]
        assert (chosen >= probabilities.max(axis=0) - 1e-6).all()


def require_drawn(made: Composed, pair: Pair, truth: np.ndarray) -> None:
    """What a config that was written by hand says of a mask is what was drawn."""
    place = {drawn: index for index, drawn in enumerate(made.order)} | {IGNORED: IGNORED}
    same = np.mean(np.vectorize(place.__getitem__)(pair.truth) == truth)
    assert same > 0.9 if _is_inexact(made) else same == 1


def _is_inexact(made: Composed) -> bool:
    return made.encoding.soft or mask_suffix(made.choices) == ".jpg"
