"""The checkpoints of a run: the last one, the best one, and which of them stay on the disk."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path

from segtool.errors import CheckpointError
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Checkpoint, Progress
from segtool.runs.checkpoint_files import NewerFormatError


def last(directory: Path, *, warn: Callable[[str], object] | None = None) -> Checkpoint | None:
    """Returns the checkpoint of the highest step that verifies; None where there is none at all.

    Raises:
        CheckpointError: there are checkpoints, and none of them verifies; or a newer segtool wrote the last one.
    """
    paths = checkpoint.committed(directory)
    problems = []
    for path in reversed(paths):
        try:
            return checkpoint.load(path)
        except NewerFormatError:
            raise
        except CheckpointError as error:
            problems.append(str(error))
            if warn:
                warn(f"{error}; falling back to the checkpoint before it")
    if problems:
        raise CheckpointError(*problems, f"{directory}: no checkpoint verifies; start afresh with another --run")
    return None


def best(directory: Path, *, warn: Callable[[str], object] | None = None) -> Checkpoint | None:
    """Returns the checkpoint with the best recorded score, the first among equals; `last` where none was scored.

    Raises:
        CheckpointError: it does not verify, or the score of another does not, which might then be the best.
    """
    paths = checkpoint.committed(directory)
    try:
        scored = [(score, path) for path in paths if (score := checkpoint.read_progress(path).score) is not None]
        if not scored:
            return last(directory, warn=warn)
        top = max(score for score, _ in scored)
        return checkpoint.load(next(path for score, path in scored if score == top))
    except CheckpointError:
        if set(paths) <= set(checkpoint.committed(directory)):
            raise
        return best(directory, warn=warn)  # the training that goes on has removed one meanwhile


def remove_old(directory: Path, *, keep: int, warn: Callable[[str], object]) -> None:
    """Removes all checkpoints but the best one and the last `keep`; one that cannot be removed is only warned about.

    Where a better score was had than those that verify, what does not verify may be the best one, and stays.
    """
    paths = checkpoint.committed(directory)
    found = {path: _progress_if_whole(path) for path in paths}
    scores = {path: progress.score for path, progress in found.items() if progress and progress.score is not None}
    top = max(scores.values(), default=-math.inf)
    best_path = next((path for path, score in scores.items() if score == top), None)
    better = any(progress.best is not None and progress.best > top for progress in found.values() if progress)
    for path in paths[: max(len(paths) - max(keep, 1), 0)]:
        if path == best_path or (better and found[path] is None):
            continue
        try:
            # Renamed first, so that a removal cut short leaves no half checkpoint under a checkpoint's name.
            doomed = path.rename(path.with_name(f".tmp-old-{path.name}"))
            shutil.rmtree(doomed)
        except OSError as error:
            warn(f"{path}: could not be removed ({error.strerror}); training goes on")


def set_aside(directory: Path, *, after: int) -> None:
    """Renames the checkpoints of steps after `after` to `step-….damaged`.

    A training that fell back to an earlier checkpoint comes to those steps again: what does not verify must neither
    keep their place nor count among the last ones that are kept.

    Raises:
        CheckpointError: one cannot be renamed.
    """
    for path in checkpoint.committed(directory):
        if checkpoint.step_of(path) > after:
            target = path.with_name(f"{path.name}.damaged")
            while target.exists():
                target = target.with_name(f"{target.name}.damaged")
            try:
                path.rename(target)
            except OSError as error:
                message = f"{path}: is damaged and cannot be renamed ({error.strerror}); remove it"
                raise CheckpointError(message) from error


def _progress_if_whole(path: Path) -> Progress | None:
    """Returns where training stood at a checkpoint; None where that does not verify."""
    try:
        return checkpoint.read_progress(path)
    except CheckpointError:
        return None
