"""Scores of a folder of masks that any tool made, without torch."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Never

import numpy as np

from segtool.config import Config, Pairing
from segtool.data.codes import IGNORE
from segtool.data.files import MASK_SUFFIXES, apart, list_files, stem_of
from segtool.data.formats import Places, data_root
from segtool.data.labels import Labels
from segtool.data.masks import StoredMask, read_mask
from segtool.data.pairs import Record, adopt, in_folder, keyed, sort_out
from segtool.data.predictions import without_overlays
from segtool.errors import DataError, few, shown
from segtool.scoring.metrics import ImageScore, Scores, equal_runs, weighted_confusion
from segtool.system.pools import each_in_processes

Matched = tuple[dict[str, list[Path]], dict[str, list[Path]]]
"""The masks and the predictions by the stem that is compared."""
NAMED = 5  # masks without a prediction


def score_folders(config: Config, predictions: Path, masks: Path, base: Path) -> Scores:
    """Returns the scores of the masks in `predictions` against those in `masks`.

    They are paired as images and masks are, a prediction bearing its image's stem. What is ignored in the truth is not
    looked at in the prediction.

    Args:
        base: Directory of the config file; its data is looked at for `data.format: list` and `data.exclude`.

    Raises:
        DataError: a mask has no prediction, their sizes differ, or a prediction holds a value that is no class where
            the truth counts; all such files are told at once.
    """
    records = pair_predictions(config, predictions, masks, base)
    labels = Labels.from_config(config.data)

    def score(record: Record) -> ImageScore | tuple[str, ...]:
        try:
            return score_pair(record, labels, config.limits.max_pixels)
        except DataError as error:
            return error.problems

    results = list(each_in_processes(score, records))
    if problems := [problem for result in results if isinstance(result, tuple) for problem in result]:
        raise DataError(*problems)
    return Scores.of(labels.names, [result for result in results if isinstance(result, ImageScore)])


def pair_predictions(config: Config, predictions: Path, masks: Path, base: Path) -> list[Record]:
    """Returns records whose `image` is the prediction for the mask, sorted by stem.

    Raises:
        DataError: there are no masks, one has no prediction, or two files claim one place; the first are named.
    """
    places = Places(config.data, data_root(config.data, base))
    left_out = places.left_out()
    truth_files = _listed(masks, without=apart(masks, predictions))
    if left_out:  # real paths take as long as all other pairing
        truth_files = [file for file in truth_files if os.path.realpath(file) not in left_out]
    if config.data.format == "list":
        truth, made = _by_list(places, truth_files, predictions)
    else:
        mixed = places.hold_both(masks)
        # The config's way in which images find their masks, then those of single splits.
        rules = [config.data.pairing, *(part.pairing for part in config.data.parts.values() if part.pairing)]
        truth, made = max(
            (_by_rule(rule, predictions, masks, truth_files, mixed=mixed) for rule in rules),
            key=lambda found: len(found[0].keys() & found[1]),
        )
    skipped = places.skipped_masks()
    truth = {key: files for key, files in truth.items() if key in made or os.path.realpath(files[0]) not in skipped}
    problems = [
        f"{', '.join(shown(path) for path in files)}: {len(files)} files for one image; leave one"
        for files in (*truth.values(), *(made[key] for key in truth if key in made))
        if len(files) > 1
    ]
    missing = [key for key in truth if key not in made]
    wanted = f"has no prediction in {shown(predictions)}; a prediction bears its image's stem"
    problems += [f"{shown(truth[key][0])}: {wanted}, '{key}'" for key in missing[:NAMED]]
    if len(missing) > NAMED:
        others = few(sorted(made.keys() - truth.keys()))
        held = f", and holds {others}, for which there is no mask" if others else ""
        problems.append(
            f"{shown(predictions)}: lacks {len(missing)} of {len(truth)} predictions{held}; "
            "name the folder below which they lie as the masks do"
        )
    if not truth:
        named = "the lists of the config name" if config.data.format == "list" else "data.pairing names"
        problems.append(f"{shown(masks)}: holds no masks that {named}; expected PNG, BMP, TIFF or GIF files")
    if problems:
        raise DataError(*problems)
    return [Record(made[key][0], truth[key][0], key) for key in sorted(truth)]


def _listed(folder: Path, *, without: Iterable[Path] = ()) -> list[Path]:
    """Returns the masks in a folder; the overlays that `predict` has drawn of them are none."""
    return without_overlays(list_files(folder, MASK_SUFFIXES, without=without), folder)


def _by_rule(rule: Pairing, predictions: Path, masks: Path, truth_files: Sequence[Path], *, mixed: bool) -> Matched:
    if mixed:
        truth_files = sort_out(list(truth_files), list(truth_files), masks, masks, rule)[1]
    named = [file for file in truth_files if in_folder(file, masks, rule.mask_folder)]
    truth, unnamed_truth = keyed(named or truth_files, masks, rule, image=False)
    made, unnamed_made = keyed(_listed(predictions), predictions, rule, image=True)
    kinds = {file.suffix.lower() for files in truth.values() for file in files}  # a photograph beside them is no mask
    adopt(unnamed_made, predictions, rule, made, truth, image=True)
    adopt((file for file in unnamed_truth if file.suffix.lower() in kinds), masks, rule, truth, made, image=False)
    return truth, made


def _by_list(places: Places, truth_files: Sequence[Path], predictions: Path) -> Matched:
    """Matches by the paths in lists: a prediction bears its image's path, or its end, below the folder predicted."""
    there = {os.path.realpath(file): file for file in truth_files}
    named = {file.name: file for file in truth_files}
    names = Counter(file.name for file in truth_files)
    stems: dict[str, list[Path]] = defaultdict(list)
    for file in _listed(predictions):
        stems[stem_of(file, predictions)].append(file)
    truth: dict[str, list[Path]] = {}
    made: dict[str, list[Path]] = {}
    records = [record for split in places.data.parts for record in places.of(split).pairs.records]
    for record in records:
        alike = named.get(record.truth.name) if names[record.truth.name] == 1 else None  # of a copy of the folder
        if (file := there.get(os.path.realpath(record.truth), alike)) is None:
            continue
        truth[record.stem] = [file]
        parts = record.stem.split("/")
        tails = ("/".join(parts[place:]) for place in range(len(parts)))
        if stem := next((tail for tail in tails if tail in stems), None):
            made[record.stem] = stems[stem]
    return truth, made


def score_pair(record: Record, labels: Labels, max_pixels: int) -> ImageScore:
    """Returns the score of the prediction `record.image` against the truth `record.mask`. Raises as `score_folders`."""
    truth = read_mask(record.truth, max_pixels=max_pixels)
    try:
        made = _read_prediction(record, truth, max_pixels)
    except DataError:
        labels.decode(truth, record.truth)  # raises where the truth is at fault, which is told first
        raise
    if labels.misfit(truth) or labels.misfit(made):
        _refuse(record, labels, truth, made)
    looked_at = [labels.looked_at(mask) for mask in (truth, made)]
    rows = [values.reshape(-1, *values.shape[2:]) for values in looked_at]  # row by row, of colours N 3
    ends, pixels = equal_runs(*rows)
    cut = [row[ends][None] for row in rows]
    target, prediction = (
        labels.places(replace(mask, values=row, alpha=row))[0] for mask, row in zip((truth, made), cut, strict=True)
    )
    classes = labels.num_classes
    counts = weighted_confusion(target, prediction, pixels, classes + 2)
    ignored, unknown = classes, classes + 1
    if counts[unknown].any() or counts[:classes, classes:].any():
        _refuse(record, labels, truth, made)
    return ImageScore.of(record.stem, counts[:classes, :classes], int(counts[ignored].sum()))


def _read_prediction(record: Record, truth: StoredMask, max_pixels: int) -> StoredMask:
    made = read_mask(record.image, max_pixels=max_pixels)
    (height, width), (true_height, true_width) = made.values.shape[:2], truth.values.shape[:2]
    if (height, width) != (true_height, true_width):
        raise DataError(
            f"{shown(record.image)}: {width}x{height} pixels, but its mask {shown(record.truth)} has "
            f"{true_width}x{true_height}; a prediction must have its image's size"
        )
    return made


def _refuse(record: Record, labels: Labels, truth: StoredMask, made: StoredMask) -> Never:
    """Raises DataError about the pixels that a pair cannot be scored for."""
    counted = labels.decode(truth, record.truth) != IGNORE
    ignored = counted & (labels.decode(made, record.image, where=counted) == IGNORE)
    y, x = np.argwhere(ignored)[0]
    raise DataError(
        f"{shown(record.image)}: an ignored value at ({x}, {y}) and {int(ignored.sum())} pixels in all where the "
        "truth is a class; a prediction must name a class there"
    )
