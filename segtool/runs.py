"""A run directory: its lock, its logs, and where things lie in it. Only the main process writes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import platform
import re
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from segtool import disk
from segtool.config import Config, dump_config
from segtool.data.opening import shown
from segtool.disk import write_atomically
from segtool.errors import CheckpointError, DataError, DiskError

LOCK_SECONDS = 15
CONFIG = "config.yaml"
FILES = (CONFIG, "run.json", "metrics.jsonl", "timing.jsonl", "train.log", ".holder", ".lock")


class RunDirectory:
    """Where things lie in a run directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def close(self) -> None:
        """Nothing is held."""

    @property
    def checkpoints(self) -> Path:
        """The directory of the checkpoints."""
        return self.directory / "checkpoints"

    @property
    def samples(self) -> Path:
        """The directory of the drawn validation images."""
        return self.directory / "samples"

    @property
    def log(self) -> Path:
        """The file that keeps what the terminal showed."""
        return self.directory / "train.log"

    def write_config(self, config: Config) -> None:
        """Writes the resolved config, as one that trains again from where it lies."""
        write_atomically(self.directory / CONFIG, dump_config(config).encode())

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Writes `run.json`."""
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
        """Returns the rows of `metrics.jsonl` that tell of validations."""
        rows = [json.loads(line) for line in _read_text(self.directory / "metrics.jsonl").splitlines()]
        return [row for row in rows if row.get("split") == "val"]

    def drop_after(self, step: int) -> None:
        """Drops the log lines of steps after `step`, and a torn last line, from both `.jsonl` files."""
        for name in ("metrics.jsonl", "timing.jsonl"):
            path = self.directory / name
            if path.exists():
                kept = [line for line in path.read_bytes().splitlines() if _is_up_to(line, step)]
                write_atomically(path, b"".join(line + b"\n" for line in kept))


class Run(RunDirectory):
    """A run directory that this process has to itself until `close`."""

    def __init__(self, directory: Path) -> None:
        """Makes the directory where there is none and locks it.

        Raises:
            CheckpointError: it cannot be made or written, a link or a pipe is in the place of one of its files, or
                another process has held it for 15 s.
        """
        from filelock import FileLock, Timeout  # here, since whoever reads a config looks for runs

        super().__init__(directory)
        self.lock = FileLock(directory / ".lock")
        disk.make_folder(directory)
        for name in FILES:
            disk.require_plain(directory / name)
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

    def close(self) -> None:
        """Lets other processes have the directory."""
        with contextlib.suppress(OSError):
            (self.directory / ".holder").unlink()
        self.lock.release()


def holds_run(directory: Path) -> bool:
    """Whether a directory holds a run that has saved something, or a config that no run has written.

    What was ended before its first checkpoint holds nothing that was learned, and may be begun again.
    """
    checkpoints, begun = directory / "checkpoints", (directory / "run.json").exists()
    saved = checkpoints.is_dir() and not all(path.name.startswith(".tmp-") for path in checkpoints.iterdir())
    return saved or (directory / "metrics.jsonl").exists() or ((directory / CONFIG).exists() and not begun)


def resume_command(directory: Path, processes: int) -> str:
    """Returns what continues a run with as many processes."""
    return f"segtool train {typed(directory)} --resume" + (f" --gpus {processes}" if processes > 1 else "")


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
    kinds = {"host": dict, "versions": dict, "resumed": list}
    shaped = isinstance(value, dict) and all(isinstance(value.get(key, kind()), kind) for key, kind in kinds.items())
    return shaped and all(map(_are_facts, value.get("resumed", [])))


def _is_up_to(line: bytes, step: int) -> bool:
    try:
        return json.loads(line)["step"] <= step
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
