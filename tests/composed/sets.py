"""A composed set on the disk: its files, and what is true of them."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from composed.choices import LISTED, MIXED, OWN_SPLITS, Choices, mask_suffix
from composed.configs import data_section
from composed.storing import (
    ENCODINGS,
    Encoding,
    decomposed,
    draw,
    kind_of,
    paint,
    save_image,
    save_mask,
    stored_grid,
    suffix_of,
    to_codes,
    without_ignored,
)

ROOTS = {
    "plain": "set", "spaces": "my set of  data", "accents": "Gemälde ü", "brackets": "[set] {1}*?", "link": "link",
    "deep_link": "link",
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """An image and its mask, and what is true of each pixel."""

    split: str
    """train, val or test; `pool` where a split is held out."""
    stem: str
    """The image's path within the folder of images, without its suffix."""
    image: Path
    mask: Path
    truth: np.ndarray
    """H W uint8, as it was drawn."""


@dataclass(frozen=True)
class Composed:
    """A set of pairs, and the config that a careful person would write for it."""

    choices: Choices
    root: Path
    """As a user names it, perhaps a link."""
    pairs: tuple[Pair, ...]
    encoding: Encoding
    data: dict[str, Any]
    """The section `data` without its root."""
    order: tuple[int, ...] = ()
    """For each class of the config, which one of the drawing it is."""


def compose(choices: Choices, folder: Path, seed: int) -> Composed:
    """Writes the set of some choices below a folder and returns it."""
    rng = np.random.default_rng(seed)
    encoding = ENCODINGS[choices["mask"]]
    if choices["ignore"] == "all_counts":
        encoding = without_ignored(encoding)
    root = _make_root(choices, folder)
    pairs = []
    for number, (split, stem) in enumerate(_stems(choices)):
        pairs.append(_write_pair(choices, encoding, root, split, stem, number, rng))
    if choices["behind"] == "linked_folder":
        top = pairs[0].image.relative_to(root).parts[0]
        _link(root / top, folder / "store" / "t p")
    if choices["behind"] == "linked_files":
        for number, pair in enumerate(pairs):
            for kind, path in (("i", pair.image), ("m", pair.mask)):
                _link(path, folder / "store" / kind / f"{number}{path.suffix}")
    if choices["litter"] == "litter":
        _litter(root)
    if choices["layout"] in (*LISTED, "split_lists", "split_column"):
        _write_lists(choices, root, pairs)
    order = tuple(int(place) for place in rng.permutation(len(encoding.codes)))
    return Composed(choices, root, tuple(pairs), encoding, data_section(choices, encoding, order), order=order)


def _make_root(choices: Choices, folder: Path) -> Path:
    root = folder / ROOTS[choices["root"]]
    if choices["root"] in ("link", "deep_link"):
        target = folder / ("other disk/a/b/c" if choices["root"] == "deep_link" else "real")
        target.mkdir(parents=True)
        root.symlink_to(target, target_is_directory=True)
    else:
        root.mkdir(parents=True)
    return root


def _link(path: Path, target: Path) -> None:
    """Moves a file or folder away and leaves a link in its place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)
    path.symlink_to(target, target_is_directory=target.is_dir())


def _litter(root: Path) -> None:
    """Leaves what lies about in folders that people and their computers have used."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (".DS_Store", "Thumbs.db", "._p1_1.png", "._p1_1.jpg", "desktop.ini", "notes.md"):
            (folder / name).write_bytes(b"\0\0\0\1Bud1")
    _write(root / "__MACOSX" / "images" / "p1_1.png", "")
    _write(root / "LICENSE.txt", "Free for all that serves life.\n")


def _stems(choices: Choices) -> list[tuple[str, str]]:
    """Returns split and stem of each image; the first group of `(p\\d+)` is what belongs together."""
    if choices["layout"] in OWN_SPLITS:
        splits = ["train"] * 6 + ["val"] * 3 + (["test"] * 3 if choices["own_test"] == "test" else [])
    else:
        splits = ["pool"] * 12
    form = {
        "plain": "p{group}_{number}", "nested": "p{group}_s/{within}", "spaces": "p{group}_an image {number}",
        "accents": "p{group}_é{number}ñ", "brackets": "p{group}_[{number}]#{{x}}", "dots": "p{group}_a.b.{number}",
        "marks": "=p{group}_%s'{number}'\"&;$~",
        "by_number": "p{group}_{number:03d}",
    }[choices["names"]]  # fmt: skip
    return [
        (split, form.format(group=number % 6 + 1, number=number + 1, within=number // 6 + 1))
        for number, split in enumerate(splits)
    ]


def _places(choices: Choices, split: str, stem: str, number: int) -> tuple[str, str]:
    """Returns where image and mask lie below the root, without their suffixes."""
    _, slash, name = stem.rpartition("/")
    mask_stem = decomposed(stem) if choices["names"] == "accents" else stem
    if choices["names"] == "by_number":
        group, _, count = name.partition("_")
        mask_stem = f"{group}_{int(count)}"
    affix = choices["affix"]
    image, mask = stem, mask_stem
    if affix in ("mask_suffix", "both") or (affix == "only_val" and split == "val"):
        mask = f"{mask_stem}_mask"
    if affix == "mask_prefix":
        mask = f"{mask_stem.rpartition('/')[0]}{slash}mask_{mask_stem.rpartition('/')[2]}"
    if affix in ("image_suffix", "both"):
        image = f"{stem}_img"
    match choices["layout"]:
        case "splits":
            return f"{split}/images/{image}", f"{split}/masks/{mask}"
        case "splits_inside":
            return f"images/{split}/{image}", f"masks/{split}/{mask}"
        case "one_folder":
            return image, mask
        case "masks_within":
            return f"images/{image}", f"images/masks/{mask}"
        case "subject_folders":
            return f"{name}/image", f"{name}/mask"
        case "nested_folders":
            group, _, rest = name.partition("_")
            return f"{group}/Images/{rest}", f"{group}/Labels/{decomposed(rest)}"
        case "words":
            group, _, rest = name.partition("_")
            return f"{group}/camera/{group}_camera_{rest}", f"{group}/label/{group}_label_{rest}"
        case "pair_lists" | "pair_list" | "pair_column":
            return f"scans/{stem}", f"drawn/lab{number * 7 + 3}"
        case _:
            return f"images/{image}", f"masks/{mask}"


def _write_pair(
    choices: Choices, encoding: Encoding, root: Path, split: str, stem: str, number: int, rng: np.random.Generator
) -> Pair:
    image_place, mask_place = _places(choices, split, stem, number)
    kind = kind_of(choices["image"], number)
    image, mask = (
        root / (place + (suffix.upper() if choices["suffix"] == "upper" else suffix))
        for place, suffix in (
            (image_place, suffix_of(kind, number)),
            (mask_place, mask_suffix(choices, number)),
        )
    )
    tiny = (18 + number % 3 * 3, 21 + number % 4 * 4)
    size = tiny if choices["size"] == "tiny" else (36 + int(rng.integers(0, 3)) * 4, 48 + int(rng.integers(0, 3)) * 4)
    truth = draw(rng, size, len(encoding.codes), ignored=bool(encoding.ignore))
    pixels = paint(rng, truth)
    tagged = choices["exif"] != "none" and kind.partition("_")[0] != "bmp"
    orientation = (6, 8, 3, 1, 5, 7, 2, 4)[number % 8] if tagged else 1
    save_image(image, stored_grid(pixels, orientation), kind, orientation)
    if choices["exif"] == "ignore":
        truth = stored_grid(truth, orientation)
    if choices["mask_modes"] == "mixed":
        modes = ["L", "P", "1"] if len(encoding.codes) == 2 and encoding.mode == "1" else ["L", "P"]
        encoding = replace(encoding, mode=modes[number % len(modes)])
    save_mask(mask, to_codes(rng, truth, encoding), encoding, rng)
    return Pair(split, _stem_in_set(choices, image_place, split), image, mask, truth)


def _stem_in_set(choices: Choices, place: str, split: str) -> str:
    """Returns an image's path within the folder that the config names."""
    layout = choices["layout"]
    if layout in LISTED or (layout in MIXED and layout != "masks_within"):
        return place
    folder = {"splits": f"{split}/images/", "splits_inside": f"images/{split}/"}.get(layout, "images/")
    return place.removeprefix(folder)


def _write_lists(choices: Choices, root: Path, pairs: list[Pair]) -> None:
    layout, style = choices["layout"], choices["list_style"]

    def name(path: Path) -> str:
        text = path.as_posix() if style == "absolute" else path.relative_to(root).as_posix()
        return text.replace("/", "\\") if style == "backslashes" else text

    rows = [(name(p.image), name(p.mask), p.split) for p in pairs]
    if layout == "split_lists":
        for split in dict.fromkeys(pair.split for pair in pairs):
            named = [pair.stem for pair in pairs if pair.split == split]
            _write(root / "ImageSets" / f"{split}.txt", "".join(f"{name}\n" for name in named), style)
    elif layout == "split_column":
        _write_csv(root / "split.csv", [("image", "split"), *((row[0], row[2]) for row in rows)], style)
    elif layout == "pair_lists":
        for split in dict.fromkeys(pair.split for pair in pairs):
            text = "".join(f"{image}\t{mask}\n" for image, mask, other in rows if other == split)
            _write(root / f"{split}.txt", text, style)
    else:
        width = 3 if layout == "pair_column" else 2
        _write_csv(root / "pairs.csv", [("image", "mask", "split")[:width], *(row[:width] for row in rows)], style)


def _write_csv(path: Path, rows: list[tuple[str, ...]], style: str) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n", delimiter=";" if style == "semicolons" else ",").writerows(rows)
    _write(path, text.getvalue(), style)


def _write(path: Path, text: str, style: str = "plain") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(("\ufeff" + text.replace("\n", "\r\n") if style == "crlf" else text).encode())


def spoil(composed: Composed) -> tuple[Composed, tuple[str, ...]]:
    """Makes a pair unusable, and returns the set without it and the settings that leave it out."""
    pair, choice = composed.pairs[1], composed.choices["left_out"]
    if choice == "nothing":
        return composed, ()
    left = replace(composed, pairs=tuple(other for other in composed.pairs if other is not pair))
    if choice in ("lone_image", "lone_mask"):
        (pair.mask if choice == "lone_image" else pair.image).unlink()
        return left, ("data.unpaired=skip",)
    Image.fromarray(np.full((9, 9), 77, np.uint8)).save(pair.mask)
    spoiled = pair.image if choice == "exclude_image" else pair.mask
    name = spoiled.relative_to(composed.root).as_posix()
    return left, (f"data.exclude={json.dumps([name], ensure_ascii=False)}",)
