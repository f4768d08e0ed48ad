"""A run directory: its lock, its logs, and where things lie in it. Only the main process writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import shlex
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from segtool.config import Config, dump_config
from segtool.errors import CheckpointError, DataError, DiskError, shown
from segtool.system import disk
from segtool.system.disk import write_atomically

LOCK_SECONDS = 15
CONFIG = "config.yaml"
FILES = (CONFIG, "run.json", "metrics.jsonl", "timing.jsonl", "train.log", ".holder", ".lock")
FOLDERS = ("checkpoints", "samples")
FOLD = re.compile(r"fold-([1-9][0-9]*)")
FIRST_BATCH = "first-batch.png"  # among the samples, drawn before a run has saved anything


class RunDirectory:
    """Where things lie in a run directory, and how its training was asked for."""

    def __init__(self, directory: Path, *, device: str = "auto", processes: int = 1) -> None:
        self.directory = directory
        self.checkpoints = directory / "checkpoints"
        self.samples = directory / "samples"
        self.log = directory / "train.log"
        self.device = device
        """As the user named it."""
        self.processes = processes
        """That train together."""
        self.facts: Mapping[str, Any] = {}
        """What was written to `run.json` last: whatever becomes of the file, a training goes on."""

    def close(self) -> None:
        """Nothing is held."""

    def require_there(self) -> None:
        """Raises DiskError where the directory was moved away, which would be made anew with what comes from now on."""
        if not self.directory.is_dir():
            raise DiskError(f"{self.directory}: is not there any more; put it back, or continue it where it is now")

    @property
    def resume_command(self) -> str:
        """What continues the run with as many processes, where the user had it computed."""
        return resume_command(self.directory, self.device, self.processes)

    def write_config(self, config: Config) -> None:
        """Writes the resolved config, as one that trains again from where it lies."""
        write_atomically(self.directory / CONFIG, dump_config(config).encode())

    def write_length(self, config: Config) -> None:
        """Writes the config of a run whose length in steps has changed, and that length into `run.json`."""
        self.write_config(config)
        self.write_facts({**self.facts, "steps": config.train.steps})

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes `run.json`."""
        self.facts = facts
        write_atomically(self.directory / "run.json", (json.dumps(facts, indent=1) + "\n").encode())

    def read_facts(self) -> dict[str, Any]:
        """Returns what `run.json` holds; nothing where there is none."""
        text = _read_text(self.directory / "run.json")
        try:
            facts = json.loads(text or "{}")
        except (ValueError, RecursionError):
            facts = None
        if not isinstance(facts, dict) or not _are_facts(facts):
            raise CheckpointError(
                f"{self.directory / 'run.json'}: is not what segtool wrote; put it right, or remove it"
            )
        return facts

    def append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        """Appends JSON objects, one a line, to `metrics.jsonl` or `timing.jsonl`: all of them, or none."""
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        disk.append(self.directory / name, text.encode())

    def validations(self) -> list[dict[str, Any]]:
        """Returns the rows of `metrics.jsonl` that tell of validations, those aside that were edited out of shape."""
        rows = map(_row, _read_bytes(self.directory / "metrics.jsonl").splitlines())
        return [row for row in rows if _is_validation(row)]

    def drop_after(self, step: int, *, warn: Callable[[str], object] = lambda _: None) -> None:
        """Drops the log lines of steps after `step`, and a torn last line, from both `.jsonl` files.

        Args:
            warn: Told of lines before the last one that are no rows, as where somebody edited them; these go too.
        """
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.directory / name
            if path.exists():
                lines = path.read_bytes().splitlines()
                steps = [_step_of(_row(line)) for line in lines]
                if None in steps[:-1]:
                    warn(f"{path}: line {steps.index(None) + 1} is no row that segtool wrote; such lines are left out")
                kept = [line for line, at in zip(lines, steps, strict=True) if at is not None and at <= step]
                write_atomically(path, b"".join(line + b"\n" for line in kept))


class Run(RunDirectory):
    """A run directory that this process has to itself until `close`."""

    def __init__(self, directory: Path, *, device: str = "auto", processes: int = 1) -> None:
        """Makes the directory where there is none and locks it.

        Raises:
            CheckpointError: it cannot be made or written, something else is in the place of one of its files or
                folders, or another process has held it for 15 s.
        """
        from filelock import FileLock, Timeout  # here, since whoever reads a config looks for runs

        super().__init__(directory, device=device, processes=processes)
        self.lock = FileLock(directory / ".lock")
        disk.make_folder(directory)
        _require_places(directory)
        try:
            self.lock.acquire(timeout=LOCK_SECONDS)
        except Timeout as error:
            holder = _read_text(directory / ".holder") or "unknown"
            message = f"{directory}: another process trains here ({holder}); wait for it or choose another --run"
            raise CheckpointError(message) from error
        except OSError as error:
            raise disk.not_written(directory / ".lock", 0, error, "nothing was changed") from error
        try:
            write_atomically(directory / ".holder", f"pid {os.getpid()} on {platform.node()}".encode())
        except DiskError:
            self.lock.release()
            raise
        for folder in (directory, self.samples):
            disk.remove_unfinished(folder)
        remove_unfinished(self.checkpoints)

    def close(self) -> None:
        """Lets other processes have the directory."""
        with contextlib.suppress(OSError):
            (self.directory / ".holder").unlink()
        self.lock.release()


def remove_unfinished(checkpoints: Path) -> None:
    """Removes what an interrupted save or removal left behind. No other process may train here now."""
    for path in checkpoints.glob(".tmp-*"):
        shutil.rmtree(path, ignore_errors=True)


def require_writable(directory: Path) -> None:
    """Raises CheckpointError where a run directory cannot be made, or something is in the way of what a run writes."""
    parent = directory
    while not os.path.lexists(parent):  # a link to nothing is in the way
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise CheckpointError(
            f"{directory}: cannot be made, since {parent} is no folder that can be written; choose another --run"
        )
    _require_places(directory)


def holds_run(directory: Path) -> bool:
    """Whether a directory holds a run that has saved something, or a config that no run has written.

    What was ended before its first checkpoint holds nothing that was learned, and may be begun again.
    """
    checkpoints, begun = directory / "checkpoints", (directory / "run.json").exists()
    saved = checkpoints.is_dir() and not all(path.name.startswith(".tmp-") for path in checkpoints.iterdir())
    return saved or (directory / "metrics.jsonl").exists() or ((directory / CONFIG).exists() and not begun)


def fold_runs(path: Path) -> list[Path]:
    """Returns the runs fold-1, fold-2, … that a directory holds, in the order of their numbers."""
    if not path.is_dir():
        return []
    found = {int(match[1]): entry for entry in path.iterdir() if (match := FOLD.fullmatch(entry.name))}
    return [found[number] for number in sorted(found) if (found[number] / "checkpoints").is_dir()]


def picture_in_the_way(directory: Path) -> Path | None:
    """Returns a picture that is no run's where a new run would draw its samples, as in a data set; None without any."""
    if (directory / "run.json").exists():
        return None
    pictures = [path for path in (directory / "samples").glob("*.png") if path.is_file() and not path.is_symlink()]
    return next((picture for picture in sorted(pictures) if picture.name != FIRST_BATCH), None)


def resume_command(directory: Path, device: str = "auto", processes: int = 1) -> str:
    """Returns what continues a run, on a device as the user named it and with as many processes."""
    where = f" --device {device}" if device != "auto" else ""
    return f"segtool train {typed(directory)} --resume{where}" + (f" --gpus {processes}" if processes > 1 else "")


def typed(path: Path) -> str:
    """Returns a path as it is typed in a shell."""
    return shlex.quote(argument(path))


def argument(path: Path) -> str:
    """Returns a path as an argument that is not taken for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def next_free(parent: Path, name: str) -> Path:
    """Returns `parent/name-n` with the next number that no directory there has."""
    pattern = re.compile(re.escape(name) + r"-(\d+)")
    there = [path.name for path in parent.iterdir()] if parent.is_dir() else []
    taken = [int(match[1]) for entry in there if (match := pattern.fullmatch(entry))]
    return parent / f"{name}-{max(taken, default=0) + 1}"


def relocate(config: Config, base: Path, target: Path) -> Config:
    """Returns the config of `base` as it must read when it lies in `target`.

    Its data root is rewritten, and the path of the encoder's weights where they are a file.

    Raises:
        DataError: a config cannot hold the new path.
    """
    data = dataclasses.replace(config.data, root=_moved(config.data.root, base, target))
    encoder = config.model.encoder
    weights = encoder.options.get("weights")
    if isinstance(weights, str) and Path(weights).suffix:
        options = {**encoder.options, "weights": _moved(weights, base, target)}
        encoder = dataclasses.replace(encoder, options=options)
    return dataclasses.replace(config, data=data, model=dataclasses.replace(config.model, encoder=encoder))


def _moved(path: str, base: Path, target: Path) -> str:
    whole = (base / os.path.expanduser(path)).resolve()
    try:
        return writable(Path(os.path.relpath(whole, target.resolve())))
    except ValueError:  # another drive
        return writable(whole)


def writable(path: Path) -> str:
    """Returns a path as a config has it. Raises DataError where it is not UTF-8, which a config cannot hold."""
    text = path.as_posix()
    try:
        text.encode()
    except UnicodeEncodeError:
        raise DataError(
            f"{shown(text)}: the name is not UTF-8 and cannot stand in a config; rename the folder"
        ) from None
    return text


def _are_facts(value: Any) -> bool:
    """Whether a value has the shape of what `run.json` tells of a start, or of a resume within it."""
    kinds = {"host": dict, "versions": dict, "splits": dict, "resumed": list}
    shaped = isinstance(value, dict) and all(isinstance(value.get(key, kind()), kind) for key, kind in kinds.items())
    return shaped and all(map(_are_facts, value.get("resumed", [])))


def _require_places(directory: Path) -> None:
    """Raises DiskError where something else is in the place of a file or a folder of a run."""
    for name in FILES:
        disk.require_plain(directory / name)
    for name in FOLDERS:
        disk.require_folder(directory / name)


def _row(line: bytes) -> dict[str, Any]:
    """Returns the JSON object that a line is; an empty one where it is none."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _step_of(row: Mapping[str, Any]) -> float | None:
    step = row.get("step")
    return step if type(step) in (int, float) else None


def _is_validation(row: Mapping[str, Any]) -> bool:
    """Whether a row tells all that a training writes of a validation."""
    classes = row.get("iou")
    if row.get("split") != "val" or type(row.get("step")) is not int or not isinstance(classes, dict):
        return False
    return all(map(_is_score, (row.get("miou", ""), row.get("pixel_accuracy", ""), *classes.values())))


def _is_score(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _read_text(path: Path) -> str:
    return _read_bytes(path).decode(errors="replace")


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
