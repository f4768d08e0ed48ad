"""What a composed set and its way through the commands are made of: independent choices, and which exclude others."""

from __future__ import annotations

import random

from composed.storing import CHANNELS, ENCODINGS, SUFFIXES, kind_of

Choices = dict[str, str]

CHOICES: dict[str, tuple[str, ...]] = {
    "layout": (
        "two_folders", "splits", "splits_inside", "one_folder", "masks_within", "subject_folders", "nested_folders",
        "pair_lists", "pair_list", "pair_column", "split_lists", "split_column", "words",
    ),
    "names": ("plain", "nested", "spaces", "accents", "brackets", "dots", "by_number", "marks"),
    "affix": ("none", "mask_suffix", "mask_prefix", "image_suffix", "both", "only_val"),
    "split": ("seed", "seed_test", "group", "group_test", "stratify", "fold", "none"),
    "own_test": ("test", "no_test"),
    "image": tuple(CHANNELS),
    "channels": ("first", "second", "third"),
    "exif": ("none", "apply", "ignore"),
    "mask": tuple(ENCODINGS),
    "mask_format": ("first", "second", "third", "fourth"),
    "mask_formats": ("alike", "alike", "mixed"),
    "mask_modes": ("alike", "alike", "mixed"),
    "size": ("usual", "usual", "tiny"),
    "class_names": ("plain", "odd"),
    "list_style": ("plain", "crlf", "backslashes", "absolute", "semicolons"),
    "ignore": ("ignored", "all_counts"),
    "left_out": ("nothing", "exclude_image", "exclude_mask", "lone_image", "lone_mask"),
    "root": ("plain", "spaces", "accents", "brackets", "link", "deep_link"),
    "root_written": ("relative", "absolute"),
    "config": ("own", "init"),
    "config_place": ("beside", "in_root", "elsewhere"),
    "working_folder": ("config", "root", "elsewhere"),
    "run": ("given", "numbered", "linked"),
    "behind": ("plain", "plain", "linked_folder", "linked_files"),
    "litter": ("clean", "litter"),
    "suffix": ("lower", "upper"),
    "spelling": ("absolute", "relative"),
    "network": ("unet", "fcn", "valid", "max_unpool"),
    "resumed": ("at_once", "resumed"),
    "member": ("run", "checkpoint"),
    "afterwards": ("nothing", "run_moved", "all_moved", "training_removed"),
    "inputs": ("folder", "tree", "files"),
    "members": ("one", "one", "two", "folds"),
    "second": ("alike", "other_network", "other_channels"),
    "out_place": ("elsewhere", "in_root", "in_images"),
    "tile": ("whole", "tiles"),
    "flip": ("plain", "flip"),
    "extras": ("masks", "overlay", "probabilities", "both"),
    "scored_by": ("config", "run"),
}  # fmt: skip
"""The options of each choice; which of them go together is for `settle`."""

OWN_SPLITS = ("splits", "splits_inside", "pair_lists", "pair_column", "split_lists", "split_column")
MIXED = ("one_folder", "masks_within", "subject_folders", "nested_folders", "words")
"""Layouts whose folder of images holds masks too."""
LISTED = ("pair_lists", "pair_list", "pair_column")
_KINDS = (".jpg", ".webp", ".tif", ".bmp", ".png")
"""As one folder is told apart without affixes: what stands first among these are the images."""


def choose(seed: int) -> Choices:
    """Returns the choices of a seed."""
    rng = random.Random(seed)
    return settle({name: rng.choice(options) for name, options in CHOICES.items()})


def settle(choices: Choices) -> Choices:
    """Returns choices that go together: where two exclude each other, the later one gives way."""
    settled = dict(choices)
    for name, options in CHOICES.items():
        allowed = [option for option in options if _goes(name, option, settled)]
        if settled[name] not in allowed:
            settled[name] = allowed[options.index(settled[name]) % len(allowed)]
    return settled


def mask_suffix(choices: Choices, number: int = 0) -> str:
    """Returns the suffix of a mask's file."""
    formats = ENCODINGS[choices["mask"]].formats
    place = CHOICES["mask_format"].index(choices["mask_format"])
    return SUFFIXES[formats[(place + number * (choices["mask_formats"] == "mixed")) % len(formats)]]


def channels(choices: Choices) -> int:
    """Returns `data.channels`."""
    return CHANNELS[choices["image"]][CHOICES["channels"].index(choices["channels"])]


def _goes(name: str, option: str, chosen: Choices) -> bool:
    layout = chosen["layout"]
    match name:
        case "names":
            flat = layout in ("subject_folders", "nested_folders", "words")
            return not (
                (flat and option == "nested") or (option == "by_number" and layout not in ("two_folders", "splits"))
                or (option in ("accents", "spaces", "brackets", "dots", "marks") and layout == "words")
            )  # fmt: skip
        case "affix":
            if layout == "one_folder":
                return option in ("none", "mask_suffix", "mask_prefix", "both")
            if layout in (*LISTED, "subject_folders", "nested_folders", "words"):
                return option == "none"
            return option != "only_val" or layout in ("splits", "splits_inside")
        case "split":
            return (option == "none") == (layout in OWN_SPLITS)
        case "own_test":
            return option == "no_test" or layout in OWN_SPLITS
        case "channels":
            return CHOICES[name].index(option) < len(CHANNELS[chosen["image"]])
        case "exif":
            return option == "none" or chosen["image"].partition("_")[0] in ("png", "jpeg", "tiff", "webp")
        case "mask_format":
            formats = ENCODINGS[chosen["mask"]].formats
            if CHOICES[name].index(option) >= len(formats):
                return False
            return not _by_kind(chosen) or _told_by_kind(chosen, SUFFIXES[formats[CHOICES[name].index(option)]])
        case "image":
            if option == "png_1" and layout in ("one_folder", "subject_folders"):
                return False  # a picture of two values beside a mask is taken for a mask
            return not _by_kind(chosen) or option.partition("_")[0] == "jpeg"
        case "mask":
            return not _by_kind(chosen) or ENCODINGS[option].formats != ("jpeg",)
        case "mask_formats":
            return option == "alike" or not _by_kind(chosen)
        case "behind":
            return option != "linked_folder" or layout not in ("one_folder", "subject_folders")
        case "mask_modes":
            return option == "alike" or (
                ENCODINGS[chosen["mask"]].encoding == "index" and ENCODINGS[chosen["mask"]].mode in ("L", "P", "1")
                and mask_suffix(chosen) in (".png", ".tif") and chosen["mask_formats"] == "alike"
            )  # fmt: skip
        case "size":
            return option == "usual" or not (ENCODINGS[chosen["mask"]].soft or mask_suffix(chosen) == ".jpg")
        case "second":
            return option != "other_channels" or len(CHANNELS[chosen["image"]]) > 1
        case "ignore":
            return option == "all_counts" or bool(ENCODINGS[chosen["mask"]].ignore)
        case "left_out":
            return option in ("nothing", "exclude_image", "exclude_mask") or layout not in LISTED
        case "afterwards":
            if option == "all_moved":
                if layout in (*LISTED, "split_column") and chosen["list_style"] == "absolute":
                    return False
                return chosen["root_written"] == "relative" or chosen["config"] == "init"
            return option != "training_removed" or layout in ("splits", "splits_inside")
        case "inputs":
            if layout in MIXED:
                return option == "tree"
            return option != "files" or chosen["names"] != "nested"
        case "members":
            fold_set = chosen["split"] == "fold" and chosen["config"] == "own"  # a command of folds refuses that
            return option != "folds" or not (layout == "pair_column" or fold_set)
    return True


def _by_kind(chosen: Choices) -> bool:
    return chosen["layout"] == "one_folder" and chosen["affix"] == "none"


def _told_by_kind(chosen: Choices, mask: str) -> bool:
    images = {SUFFIXES[kind_of(chosen["image"], number).partition("_")[0]] for number in range(4)}
    return mask == ".gif" or all(_KINDS.index(image) < _KINDS.index(mask) for image in images)
