"""What `segtool train` is asked for, and the config of what a user names: file, run, checkpoint or data folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from segtool.config import Config, load_config, parse_text
from segtool.errors import ConfigError, SegtoolError
from segtool.runs.run_directory import (
    CONFIG,
    fold_runs,
    holds_run,
    next_free,
    picture_in_the_way,
    require_writable,
    resume_command,
    typed,
)
from segtool.system.terminal import counted

if TYPE_CHECKING:
    from segtool.data.facts import Progress


@dataclass(frozen=True)
class Session:
    """What `segtool train` was asked for."""

    config: Path
    overrides: tuple[str, ...] = ()
    run: Path | None = None
    resume: bool = False
    budget: float | None = None
    device: str = "auto"
    quiet: bool = False
    gpus: int = 1
    """Processes to start for it; 1: this one, or those that torchrun has started."""
    max_restarts: int = 0
    preflight: bool = True
    """Whether a new training is tried on small crops before its first step."""
    began: float = field(default_factory=time.monotonic)
    """When the command did, for its budget, by `time.monotonic()`."""

    def left(self) -> float | None:
        """Returns the seconds of the budget that are left; None without one."""
        return None if self.budget is None else self.budget - (time.monotonic() - self.began)


def load_any(path: Path, overrides: Sequence[str] = (), *, progress: Progress | None = None) -> tuple[Config, Path]:
    """Returns the config that a file, a run, a checkpoint or a data folder gives, and what its root is relative to.

    Args:
        progress: Of the look at a data folder, as of `scaffold`.

    Raises:
        ConfigError: there is no such file, or it is no config.
        DataError: a data folder that no config can be written for.
    """
    if path.is_dir() and (path / CONFIG).is_file() and not is_data(path):
        return load_config(path / CONFIG, overrides), path
    if folds := fold_runs(path):
        raise ConfigError(
            f"{path}: holds {counted(len(folds), 'fold')}, each with a config of its own; name one: {typed(folds[0])}"
        )
    if path.is_dir() and not is_data(path):
        raise ConfigError(
            f"{path / CONFIG}: is not there, and the rest of a run is; restore it: segtool train {typed(path)} "
            "--resume writes it anew; or name a checkpoint of the run"
        )
    if path.is_dir():
        return load_text(scaffolded(path, path, progress), path, overrides), path
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; expected a config, a run or a folder of images and masks")
    return load_config(path, overrides), path.parent


def load_text(text: str, root: Path, overrides: Sequence[str]) -> Config:
    """Returns the config that a text from `scaffolded` is."""
    return parse_text(text, f"{root.resolve().name}.yaml", overrides)


def scaffolded(root: Path, config_dir: Path, progress: Progress | None) -> str:
    """Returns the config that `init` would write for a data folder, as YAML; DataError where there can be none."""
    from segtool.init.recall import recalled

    return recalled(root, config_dir=config_dir, progress=progress)


def is_data(path: Path) -> bool:
    """Whether a path is a data folder: a folder that is neither a run nor a checkpoint, nor holds folds.

    What other programs keep in a folder `checkpoints` beside the images makes no run of it.
    """
    marks = ("run.json", "state.json")
    written = any((path / mark).exists() for mark in marks) or any(path.glob("checkpoints/step-*"))
    return path.is_dir() and not written and not fold_runs(path)


def run_name(path: Path) -> str:
    """Returns what the run directory of a config, a run or a data folder is named after."""
    resolved = path.resolve()
    if path.name == CONFIG and not is_data(path.parent):
        return resolved.parent.name
    return resolved.name if path.is_dir() else resolved.stem


def new_directory(session: Session) -> Path:
    """Returns the directory of a new run, after checking all that could be wrong with it; needs no torch."""
    directory = session.run or next_free(Path("runs"), run_name(session.config))
    refuse_run(directory, session.device)
    if fold_runs(directory):
        raise SegtoolError(f"{directory}: holds folds, beside which no single run can lie; choose another --run")
    require_writable(directory)
    return directory


def refuse_run(directory: Path, device: str) -> None:
    """Raises SegtoolError where a directory holds a run, or pictures of others where one would draw its own."""
    if holds_run(directory):
        raise SegtoolError(
            f"{directory}: holds a run; continue it with: {resume_command(directory, device)}, or choose another --run"
        )
    if picture := picture_in_the_way(directory):
        raise SegtoolError(
            f"{picture}: lies where the run would draw its samples, and is no run's; choose another --run"
        )
