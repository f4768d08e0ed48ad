"""Which checkpoints a path means: of a run, of all folds, or one itself; and whether several agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from segtool.config import Config
from segtool.errors import CheckpointError, ConfigError, SegtoolError, few
from segtool.runs import checkpoint, history
from segtool.runs.checkpoint import Checkpoint
from segtool.runs.checkpoint_files import MANIFEST
from segtool.runs.run_directory import fold_runs, typed
from segtool.system.terminal import Reporter


def is_member(path: Path) -> bool:
    """Whether a path is a run, a checkpoint or a directory of folds, and so no image to predict."""
    if not path.is_dir():
        return False
    marked = path.name == "checkpoints" or checkpoint.STEP.fullmatch(path.resolve().name)
    run = bool(checkpoint.committed(path / "checkpoints")) or (path / "run.json").is_file()
    held = run or (path / MANIFEST).is_file() or bool(fold_runs(path))
    return bool(marked) or held


def part_members(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Returns the leading paths that are members of an ensemble, the first in any case, and the images after them.

    Raises:
        SegtoolError: no image is left.
    """
    later = (place for place, path in enumerate(paths) if place and not is_member(path))
    count = next(later, len(paths)) if is_member(paths[0]) else 1
    if count == len(paths):
        raise SegtoolError(f"predict needs IMAGES after {paths[-1]}: a folder of images, a file or several")
    return list(paths[:count]), list(paths[count:])


def find_checkpoints(paths: Sequence[Path], reporter: Reporter) -> list[Checkpoint]:
    """Returns the checkpoint of each path; of a directory of folds, that of each fold.

    Warns of folds that are not there, or not trained yet.

    Raises:
        CheckpointError: there is none at a path, or it does not verify.
    """
    found: list[Checkpoint] = []
    for path in paths:
        runs = [] if (path / "checkpoints").is_dir() else fold_runs(path)
        members = [_to_use(find_checkpoint(run, reporter)) for run in runs or [path]]
        if runs:
            _warn_of_folds(path, members, reporter)
        found += members
    return found


def _to_use(found: Checkpoint) -> Checkpoint:
    """Returns a checkpoint without the optimizer's state, which may be twice as large as all else."""
    return replace(found, tensors={name: tensors for name, tensors in found.tensors.items() if name != "optimizer"})


def find_checkpoint(path: Path, reporter: Reporter) -> Checkpoint:
    """Returns the best checkpoint of a run, or the one in a directory. Raises CheckpointError where none verifies."""
    if not path.is_dir():
        found = "is a file" if path.exists() else "no such run"
        raise CheckpointError(f"{path}: {found}; expected a run directory or a checkpoint directory")
    if (path / MANIFEST).exists() or checkpoint.STEP.fullmatch(path.resolve().name):
        return checkpoint.load(path)
    directory = path if path.name == "checkpoints" else path / "checkpoints"
    found = history.best(directory, warn=reporter.warn)
    if found is None:
        runs = few(sorted(typed(run) for run in path.iterdir() if is_member(run)))
        raise CheckpointError(
            f"{path}: holds no checkpoint; expected a run directory that `segtool train` has made"
            + (f", such as {runs}" if runs else "")
        )
    return found


def require_agreement(checkpoints: Sequence[Checkpoint]) -> None:
    """Raises ConfigError unless all checkpoints mean the same by a class, and by an image's grid.

    Channels, normalisation, network and sizes may differ.
    """
    first = checkpoints[0]
    problems = [
        f"{other.path}: {key} is {there}, and in {first.path} it is {here}; an ensemble needs networks that were "
        "trained on the same classes in the same encoding: leave one of the two out"
        for other in checkpoints[1:]
        for (key, here), (_, there) in zip(_meaning(first.config), _meaning(other.config), strict=True)
        if here != there
    ]
    if problems:
        raise ConfigError(*problems)


def _warn_of_folds(path: Path, members: Sequence[Checkpoint], reporter: Reporter) -> None:
    count = int((members[0].config.data.fold or "/0").partition("/")[2])
    if len(members) < count:
        reporter.warn(f"{path}: holds {len(members)} of {count} folds; the others take no part")
    for member in members:
        if member.progress.step == 0:
            reporter.warn(
                f"{member.path}: its fold is not trained yet; continue it, or name the other folds one by one"
            )


def _meaning(config: Config) -> Iterator[tuple[str, str]]:
    """Yields what the masks and predictions of a config mean, as key and text."""
    data = config.data
    codes = ((spec.name, *(spec.values or spec.colors)) for spec in data.classes)
    yield "data.classes", ", ".join(f"{name} ({' '.join(map(str, own))})" for name, *own in codes)
    yield "data.encoding", data.encoding
    yield "data.exif", data.exif
