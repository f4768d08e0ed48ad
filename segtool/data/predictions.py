"""Files that `segtool predict` has written, told by a word of its own in each."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

MADE_BY = "segtool predict"  # stands in each file, so that no other file is ever replaced
OVERLAYS = "overlays"  # the folder beside the masks that their pictures lie in
SUFFIXES = (".png", ".npy")
_HEAD = 4096


def is_prediction(path: Path) -> bool:
    """Whether a file holds what was predicted; False where it cannot be read."""
    try:
        if path.suffix not in SUFFIXES or not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return MADE_BY.encode() in file.read(_HEAD)
    except OSError:
        return False


def without_predictions(files: Collection[Path]) -> tuple[Path, ...]:
    """Returns the files but those in folders of which all files were predicted."""
    of_folder: dict[str, list[Path]] = defaultdict(list)
    for file in files:
        of_folder[os.path.dirname(file)].append(file)
    made = {folder for folder, inside in of_folder.items() if all(map(is_prediction, inside))}
    return tuple(file for file in files if os.path.dirname(file) not in made) if made else tuple(files)


def without_overlays(files: Iterable[Path], folder: Path) -> list[Path]:
    """Returns the files of a folder, as `list_files` gives them, but for the pictures that were drawn of its masks."""
    drawn = os.path.join(os.path.abspath(folder), OVERLAYS, "")
    return [file for file in files if not (os.fspath(file).startswith(drawn) and is_prediction(file))]
