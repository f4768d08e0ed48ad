"""The section `data` of a config, as somebody writes it who knows the composed set."""

from __future__ import annotations

from typing import Any

from composed.choices import LISTED, OWN_SPLITS, Choices, channels
from composed.storing import Encoding

NAMES = {"plain": "class {}", "odd": "=Stra\u00dfe, {}\"' #[x] %"}


def data_section(choices: Choices, encoding: Encoding, order: tuple[int, ...]) -> dict[str, Any]:
    """Returns the section, without `root`; the classes come in the `order` of the drawing's."""
    layout = choices["layout"]
    names = ["train", "val"] + ["test"] * (choices["own_test"] == "test") if layout in OWN_SPLITS else ["train"]
    parts: dict[str, dict[str, Any]] = {name: _part(layout, name) for name in names}
    if choices["affix"] == "only_val":
        parts["val"]["pairing"] = {"mask_suffix": "_mask"}
    key = "colors" if encoding.colored else "values"
    shown = _hex if encoding.colored else _as_it_is
    name = NAMES[choices["class_names"]]
    listed = encoding.listed or encoding.codes
    ignore = encoding.ignore if encoding.listed_ignore is None else encoding.listed_ignore
    data: dict[str, Any] = {
        **parts,
        "encoding": encoding.encoding,
        "nearest": encoding.nearest,
        "classes": [{"name": name.format(index), key: [shown(code) for code in listed[index]]} for index in order],
        "ignore": [shown(code) for code in ignore],
        "channels": channels(choices),
        "exif": choices["exif"] if choices["exif"] != "none" else "apply",
        "pairing": _pairing(choices),
    }
    if layout in LISTED:
        data["format"] = "list"
    split = choices["split"]
    if split != "none":
        data["split"] = {"val": 0.25, "seed": 3}
        if split in ("seed_test", "group_test"):
            data["split"]["test"] = 0.25
        if split in ("group", "group_test"):
            data["split"]["group"] = r"(p\d+)"
        if split == "stratify":
            data["split"]["stratify"] = True
    if split == "fold":
        data["fold"] = "2/3"
    return data


def _hex(code: str | int) -> str:
    return f"#{code:06x}"


def _as_it_is(code: str | int) -> str | int:
    return code


def _part(layout: str, split: str) -> dict[str, Any]:
    match layout:
        case "splits":
            return {"images": f"{split}/images", "masks": f"{split}/masks"}
        case "splits_inside":
            return {"images": f"images/{split}", "masks": f"masks/{split}"}
        case "one_folder" | "subject_folders" | "nested_folders" | "words":
            return {"images": ".", "masks": "."}
        case "masks_within":
            return {"images": "images", "masks": "images/masks"}
        case "pair_lists":
            return {"list": f"{split}.txt"}
        case "pair_list":
            return {"list": "pairs.csv"}
        case "pair_column":
            return {"list": "pairs.csv", "part": split}
        case "split_lists":
            return {"images": "images", "masks": "masks", "list": f"ImageSets/{split}.txt"}
        case "split_column":
            return {"images": "images", "masks": "masks", "list": "split.csv", "part": split}
        case _:
            return {"images": "images", "masks": "masks"}


def _pairing(choices: Choices) -> dict[str, Any]:
    fixed: dict[str, dict[str, Any]] = {
        "subject_folders": {"image_suffix": "image", "mask_suffix": "mask"},
        "nested_folders": {"image_folder": "Images", "mask_folder": "Labels"},
        "words": {"image_words": "camera", "mask_words": "label"},
    }
    if choices["layout"] in fixed:
        return fixed[choices["layout"]]
    pairing: dict[str, Any] = {"by_number": True} if choices["names"] == "by_number" else {}
    if choices["affix"] in ("mask_suffix", "both"):
        pairing["mask_suffix"] = "_mask"
    if choices["affix"] == "mask_prefix":
        pairing["mask_prefix"] = "mask_"
    if choices["affix"] in ("image_suffix", "both"):
        pairing["image_suffix"] = "_img"
    return pairing
