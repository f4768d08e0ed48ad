"""What `segtool init` writes: a config with the reasons, from a look at a folder of images and masks."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from segtool.config import Config, Folders, Limits, Pairing, plain
from segtool.data.encoding import guess_encoding
from segtool.data.evidence import Guess
from segtool.data.facts import ImageFacts, MaskFacts, look_at_all, look_at_header, look_at_image, look_at_mask
from segtool.data.holdout import SplitChoice, choose_split
from segtool.data.layout import find_layout
from segtool.data.meaning import Meaning, arrange, class_rows, find_meaning, with_named_colors
from segtool.data.names import NamesFile, find_names
from segtool.data.opening import shown
from segtool.data.pairs import Pairs, Record, find_pairs
from segtool.data.recipe import MODELS, Pictures, Row, training_rows
from segtool.data.shapes import measure_shapes
from segtool.errors import DataError, SegtoolError
from segtool.yaml_io import flow

WIDTH = 118
GREY_MODES = ("1", "L", "I;16", "I;16B", "I;16L", "I;16N")
ALPHA_MODES = ("LA", "La", "RGBA", "PA", "P")
MAX_PIXELS = Limits().max_pixels


@dataclass(frozen=True)
class Found:
    """A data set as it lies there."""

    root: Path
    folders: dict[str, Folders]
    pairing: Pairing
    pairs: dict[str, Pairs]
    images: dict[Path, ImageFacts]
    """Headers only."""
    masks: dict[Path, MaskFacts]
    names: NamesFile | None
    notes: tuple[str, ...]
    """What was left out."""
    exif: Literal["apply", "ignore"] = "apply"


def scaffold(root: Path, *, model: str = "unet", config_dir: Path) -> str:
    """Returns a commented config, as YAML, that trains on the images and masks in a folder as it is.

    Files that cannot be read or have no partner are left to `check`.

    Args:
        root: the data set.
        model: decoder, `unet` or `fcn`.
        config_dir: where the config will lie; `data.root` is written relative to it.

    Raises:
        DataError: no images and masks are found, or the masks are no class masks; says how to go on.
    """
    if model not in MODELS:
        raise SegtoolError(f"--model {shown(model)}: expected {' or '.join(MODELS)}")
    found = look(root)
    masks = list(found.masks.values())
    guess = with_named_colors(guess_encoding(masks), found.names)
    shapes = measure_shapes(masks, guess)
    meaning = find_meaning(guess, shapes, masks, found.names)
    guess, shapes = arrange(guess, shapes, meaning)
    split = choose_split(found.pairs["train"].records, set(found.pairs), found.masks, guess)
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


# ------------------------------------------------------------------------------------------------- what is there


def look(root: Path) -> Found:
    """Returns the files of a data set and their facts. Raises DataError where nothing pairs."""
    if not root.is_dir():
        what = "is a file" if root.exists() else "no such folder"
        raise DataError(f"{shown(root)}: {what}; expected a folder with images and masks")
    layout = find_layout(root)
    if layout is None:
        raise DataError(_no_layout(root))
    folders = {
        split: Folders(images=images, masks=masks, pairing=layout.pairings.get(split))
        for split, (images, masks) in layout.splits.items()
    }
    pairs = {split: find_pairs(root / i, root / m, layout.pairing_of(split)) for split, (i, m) in layout.splits.items()}
    records = [record for part in pairs.values() for record in part.records]
    images = _look_at_headers(records, "apply")
    masks = look_at_all(
        [record.mask for record in records if record.mask], lambda path: look_at_mask(path, max_pixels=MAX_PIXELS)
    )
    if all(facts.error for facts in images.values()):
        first = list(images.values())[:5]
        raise DataError(*(f"{shown(facts.path)}: {facts.error}" for facts in first))
    found = Found(root, folders, layout.pairing, pairs, images, masks, find_names(root), layout.notes)
    if _masks_fit_stored_grid(records, images, masks):
        return replace(found, exif="ignore", images=_look_at_headers(records, "ignore"))
    return found


def _look_at_headers(records: Sequence[Record], exif: str) -> dict[Path, ImageFacts]:
    paths = [record.image for record in records]
    return look_at_all(paths, lambda path: look_at_header(path, exif=exif, max_pixels=MAX_PIXELS))


def _masks_fit_stored_grid(
    records: Sequence[Record], images: dict[Path, ImageFacts], masks: dict[Path, MaskFacts]
) -> bool:
    """Whether the masks of all photographs that EXIF turns on their side have the size before the turn."""
    sizes = [
        (images[record.image].size, masks[record.mask].size)
        for record in records
        if record.mask and images[record.image].orientation >= 5 and not masks[record.mask].error
    ]
    decided = [(image, mask) for image, mask in sizes if image[0] != image[1]]
    return bool(decided) and all(mask == image[::-1] for image, mask in decided)


def _no_layout(root: Path) -> str:
    """Returns what lies in a folder without a layout, and how to go on."""
    return (
        f"{shown(root)}: no images with masks of the same names found (there: {_contents(root)}). Expected images/ and "
        "masks/, or train/images, train/masks, val/images, val/masks, with one stem for each pair (a.jpg, a.png); for "
        "other folders write `train: {images: FOLDER, masks: FOLDER}` under `data:` in a config by hand, and "
        "`pairing:` where names differ"
    )


def _contents(root: Path) -> str:
    """Returns the folders below a root, each with the kinds of its files: `images (6 .png)`, `masks (6 .json)`."""
    kinds: dict[str, Counter[str]] = {}
    for path, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        relative = Path(path).relative_to(root)
        if len(relative.parts) >= 3 or len(kinds) >= 8:
            folders.clear()
        suffixes = [os.path.splitext(name)[1].lower() or "without suffix" for name in files if name[0] != "."]
        if suffixes or (relative.parts and not folders):
            kinds[relative.as_posix()] = Counter(suffixes)
    told = [
        f"{shown(name)} ({', '.join(f'{count} {shown(kind)}' for kind, count in found.most_common(3)) or 'empty'})"
        for name, found in list(kinds.items())[:8]
    ]
    return ", ".join(told) or "nothing"


# ------------------------------------------------------------------------------------------------- data


def _place_rows(found: Found, config_dir: Path) -> list[Row]:
    path = _relative(found.root, config_dir)
    notes = [f"{shown(note)}." for note in found.notes]
    relative = [] if Path(path).is_absolute() else ["Relative to this file."]
    rows = [Row(f"root: {flow(path)}", " ".join(relative + notes))]
    for name, folders in found.folders.items():
        rows.append(Row(f"{name}: {flow(_folders(folders))}", _pairs_comment(found.pairs[name])))
    if found.pairing != Pairing():
        affixes = {key: text for key, text in asdict(found.pairing).items() if text}
        rows.append(Row(f"pairing: {flow(affixes)}", "Taken off the file names before they are compared."))
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
    if found.exif == "ignore":
        rows.append(Row("exif: ignore", "The masks of photographs that EXIF would turn have the size before the turn."))
    return rows


def _relative(root: Path, config_dir: Path) -> str:
    """Returns the root relative to the config, or absolute where they share nothing but the file system's root."""
    there, here = root.resolve(), config_dir.resolve()
    shared = Path(os.path.commonpath([there, here])) if there.anchor == here.anchor else None
    path = there.as_posix() if shared in (None, Path(there.anchor)) else Path(os.path.relpath(there, here)).as_posix()
    try:
        path.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{shown(path)}: the name is not UTF-8 and cannot stand in a config; rename the folder"
        ) from None
    return path


def _folders(folders: Folders) -> dict[str, object]:
    return plain(folders)


def _pairs_comment(pairs: Pairs) -> str:
    alone = len(pairs.images_without_mask) + len(pairs.masks_without_image)
    more = f"; {alone} files have no partner: see `segtool check`" if alone else ""
    return f"{len(pairs.records)} pairs{more}."


def _is_grey(found: Found) -> bool:
    return all(facts.mode in GREY_MODES for facts in found.images.values() if not facts.error)


def _channels_row(found: Found) -> Row:
    readable = [facts for facts in found.images.values() if not facts.error]
    modes = Counter(facts.mode for facts in readable)
    listed = ", ".join(f"{count} {mode}" for mode, count in modes.most_common())
    if _is_grey(found):
        return Row("channels: 1", f"All images are grey: {listed}.")
    if _needs_alpha(readable):
        return Row("channels: 4", f"Some images are not opaque, and their colour alone would not be theirs: {listed}.")
    grey = "; grey ones become three equal channels" if any(mode in GREY_MODES for mode in modes) else ""
    return Row("channels: 3", f"Images are stored as {listed}{grey}.")


def _needs_alpha(images: Sequence[ImageFacts]) -> bool:
    """Whether three channels are refused and four are not, for one of the images that may have alpha."""
    doubtful = [facts.path for facts in images if facts.mode in ALPHA_MODES]
    for path in doubtful:
        three, four = (look_at_image(path, channels=n, exif="apply", max_pixels=MAX_PIXELS).error for n in (3, 4))
        if three and not four:
            return True
    return False


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}." if text else ""
