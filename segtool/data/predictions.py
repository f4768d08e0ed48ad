"""Files that `segtool predict` has written, told by a word of its own in each."""

from __future__ import annotations

from pathlib import Path

MADE_BY = "segtool predict"  # stands in each file, so that no other file is ever replaced
_HEAD = 4096


def is_prediction(path: Path) -> bool:
    """Whether a file holds what was predicted; False where it cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return MADE_BY.encode() in file.read(_HEAD)
    except OSError:
        return False


def without_predictions(files: tuple[Path, ...]) -> tuple[Path, ...]:
    """Returns the files but those in folders of predictions, of which the first of each folder tells."""
    first: dict[Path, Path] = {}
    for file in files:
        first.setdefault(file.parent, file)
    made = {folder for folder, file in first.items() if is_prediction(file)}
    return tuple(file for file in files if file.parent not in made)
