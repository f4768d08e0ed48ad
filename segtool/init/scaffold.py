"""What `segtool init` writes: a config with the reasons, from a look at a folder of images and masks."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from segtool.check.findings import num
from segtool.config import Config, Folders, Pairing, plain
from segtool.config.yaml_io import flow
from segtool.data.affixes import length_of
from segtool.data.facts import Progress
from segtool.data.pairs import Pairs
from segtool.errors import SegtoolError, shown
from segtool.init.discovery import Found, discover, without_ignored
from segtool.init.evidence import Guess
from segtool.init.holdout import SplitChoice, choose_split
from segtool.init.levels import guess_mean_of_people
from segtool.init.meaning import Meaning, arrange, class_rows, find_meaning, with_named_colors
from segtool.init.recipe import MODELS, Pictures, Row, training_rows
from segtool.init.shapes import measure_shapes
from segtool.runs.run_directory import writable

WIDTH = 118
GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I;16N")


def scaffold(root: Path, *, model: str = "unet", config_dir: Path, progress: Progress | None = None) -> str:
    """Returns a commented config, as YAML, that trains on the images and masks in a folder as it is.

    Files that cannot be read or have no partner are left to `check`.

    Args:
        root: The data set.
        model: Decoder, `unet` or `fcn`.
        config_dir: Where the config will lie; `data.root` is written relative to it.
        progress: As of `discover`.

    Raises:
        DataError: no images and masks are found, or the masks are no class masks; says how to go on.
    """
    if model not in MODELS:
        raise SegtoolError(f"--model {shown(model)}: expected {' or '.join(MODELS)}")
    found = discover(root, progress)
    masks = list(found.masks.values())
    guess = guess_mean_of_people(with_named_colors(found.guess, found.names), masks)
    shapes = measure_shapes(masks, guess)
    meaning = find_meaning(guess, shapes, masks, found.names)
    guess, shapes = arrange(guess, shapes, meaning)
    found = without_ignored(found, guess.ignore)
    split = choose_split(found.pairs["train"].records, set(found.pairs), found.images, found.masks, guess)
    sizes = [facts.size for facts in found.images.values() if not facts.error]
    num_val = len(found.pairs["val"].records) if "val" in found.pairs else split.num_val
    pictures = Pictures(sizes, split.num_train, num_val, grey=_is_grey(found))
    sections = [
        [
            Row("# Written by `segtool init`. It trains as it is; each comment says why, and what was counted.", "", 0),
            Row(f"format: {Config.format}", "", 0),
        ],
        _data_rows(found, guess, meaning, split, config_dir),
        training_rows(pictures, guess, shapes, model),
    ]
    return "\n".join(line for rows in sections for row in rows for line in _lines(row)) + "\n"


def _lines(row: Row) -> list[str]:
    margin = " " * row.indent
    wrapped = textwrap.wrap(row.comment, WIDTH - row.indent - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{margin}# {line}" for line in wrapped] + [f"{margin}{row.text}"]


# ------------------------------------------------------------------------------------------------- data


def _place_rows(found: Found, config_dir: Path) -> list[Row]:
    path = _relative(found.root, config_dir)
    notes = [f"{shown(note)}." for note in found.notes]
    relative = [] if Path(path).is_absolute() else ["Relative to this file."]
    rows = [Row(f"root: {flow(path)}", " ".join(relative + notes))]
    if found.data.format != "folders":
        rows.append(Row(f"format: {found.data.format}", "A list says which image and mask belong together."))
    for name, folders in found.data.parts.items():
        rows.append(Row(f"{name}: {flow(_folders(folders))}", _pairs_comment(found.pairs[name])))
    if found.skips_unpaired:
        images, masks = found.alone
        why = (
            f"{num(images, 'image')} without a mask and {num(masks, 'mask')} without an image are left out: so many "
            "that the set is taken as labelled in part."
        )
        if found.shares_files:
            why = "Each split has the files that find a partner in its folders; the others are left out of it."
        if found.in_parts:
            where = shown(os.path.relpath(found.in_parts[0].parent, found.root))
            why += f" SOME IMAGES HAVE A MASK FOR EACH OBJECT, as in {where}: merge those to train on them too."
        rows.append(Row("unpaired: skip", f"{why} `error` (the default) refuses them."))
    pairing = found.data.pairing
    if pairing != Pairing():
        by_number = " Numbers are compared by their value: 007 is 7." if pairing.by_number else ""
        by_name = " Names alone are compared, whatever folders files lie in." if pairing.by_name else ""
        how = "Taken off the file names before they are compared."
        if length_of(pairing) == 0:
            how = "How images find their masks."
        if pairing.image_words or pairing.mask_words:
            how = "The words that tell images from masks; what is left of their paths is compared."
        rows.append(Row(f"pairing: {flow(_given(pairing))}", f"{how}{by_number}{by_name}"))
    return rows


def _data_rows(found: Found, guess: Guess, meaning: Meaning, split: SplitChoice, config_dir: Path) -> list[Row]:
    rows = [Row("data:", "", 0), *_place_rows(found, config_dir)]
    if split.split is not None:
        rows.append(Row(f"split: {flow(split.split)}", split.reason))
    if guess.nearest:
        rows.append(Row(f"encoding: {guess.encoding}", _sentence(guess.reason)))
        rows.append(Row("nearest: true", _sentence("; ".join(guess.notes))))
    else:
        rows.append(Row(f"encoding: {guess.encoding}", _sentence("; ".join([guess.reason, *guess.notes]))))
    rows += [*class_rows(guess, meaning, list(found.masks.values())), _channels_row(found)]
    if found.exif_reason:
        rows.append(Row("exif: ignore", found.exif_reason))
    return rows


def _relative(root: Path, config_dir: Path) -> str:
    """Returns the root relative to the config, or absolute where they share nothing but the file system's root."""
    there, here = root.resolve(), config_dir.resolve()
    shared = Path(os.path.commonpath([there, here])) if there.anchor == here.anchor else None
    return writable(there if shared in (None, Path(there.anchor)) else Path(os.path.relpath(there, here)))


def _folders(folders: Folders) -> dict[str, object]:
    pairing = {"pairing": _given(folders.pairing)} if folders.pairing else {}
    return plain(folders) | pairing


def _given(pairing: Pairing) -> dict[str, object]:
    return {key: value for key, value in asdict(pairing).items() if value}


def _pairs_comment(pairs: Pairs) -> str:
    alone = len(pairs.images_without_mask) + len(pairs.masks_without_image)
    more = f"; {alone} files have no partner" if alone else ""
    return f"{num(pairs.records, 'pair')}{more}."


def _is_grey(found: Found) -> bool:
    return all(facts.mode in GREY_MODES and not facts.exact for facts in found.images.values() if not facts.error)


def _channels_row(found: Found) -> Row:
    readable = [facts for facts in found.images.values() if not facts.error]
    numbers = {facts.channels for facts in readable}
    if len(numbers) == 1 and all(facts.exact for facts in readable):
        (number,) = numbers
        return Row(f"channels: {number}", f"All images are TIFFs of {number} samples a pixel, and read with no other.")
    modes = Counter(facts.mode for facts in readable)
    listed = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
    if _is_grey(found):
        return Row("channels: 1", f"All images are grey: {listed}.")
    if any(facts.channels == 4 for facts in readable):
        return Row("channels: 4", f"Some images are not opaque, and their colour alone would not be theirs: {listed}.")
    grey = "; grey ones become three equal channels" if any(mode in GREY_MODES for mode in modes) else ""
    return Row("channels: 3", f"Images are stored as {listed}{grey}.")


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
