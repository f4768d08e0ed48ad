"""A disk that fails at its n-th call, what was asked of it in which order, and what a writer makes of that.

Only calls that change something below a folder are counted: opening for writing, write, fsync, rename, link, mkdir,
truncate, unlink. Files are opened so that Python's own buffering is as it is: a failure may come as late as `close`.
"""

from __future__ import annotations

import builtins
import errno
import io
import itertools
import os
import shutil
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import command

from segtool.errors import CheckpointError

CODES = (errno.ENOSPC, errno.EIO, errno.EDQUOT)
TAKES_ROOM = ("create", "write", "fsync", "mkdir")  # what goes on failing on a disk that stays full


@dataclass
class Disk:
    """Notes the calls below `root`, and lets the one of number `fails_at` (from 0) fail.

    A write that finds the disk full takes half of the bytes, and the next one fails, as systems do.
    """

    root: Path
    fails_at: int | None = None
    code: int = errno.ENOSPC
    stays_full: bool = False
    """Whether all calls that take room fail from then on."""
    events: list[tuple[str, str]] = field(default_factory=list)
    """Call and path; of a rename, source and target with a newline between them."""
    _files: dict[int, str] = field(default_factory=dict)
    _next_write_fails: bool = False

    @property
    def fired(self) -> bool:
        return self.fails_at is not None and len(self.events) > self.fails_at

    @contextmanager
    def installed(self) -> Generator[Disk]:
        with pytest.MonkeyPatch.context() as patch:
            for module in (builtins, io):
                patch.setattr(module, "open", self._open_file)
            patch.setattr(os, "open", self._opens(os.open))
            patch.setattr(os, "write", self._writes(os.write))
            patch.setattr(os, "fsync", self._of_descriptor("fsync", lambda _: None))  # noted; the test's disk may rest
            patch.setattr(os, "ftruncate", self._of_descriptor("truncate", os.ftruncate))
            for name in ("mkdir", "unlink", "remove", "truncate"):
                call = "unlink" if name == "remove" else name
                patch.setattr(os, name, self._of_path(call, getattr(os, name)))
            for name in ("rename", "replace", "link"):
                call = "link" if name == "link" else "rename"
                patch.setattr(os, name, self._of_two(call, getattr(os, name)))
            yield self

    def _inside(self, path: Any) -> str | None:
        """The absolute path where it lies below the root."""
        if isinstance(path, int):
            return self._files.get(path)
        whole = os.path.abspath(os.fsdecode(path))
        return whole if whole.startswith(f"{self.root}{os.sep}") or whole == str(self.root) else None

    def _count(self, call: str, path: str, *, name: str | None = None) -> None:
        number = len(self.events)
        self.events.append((call, path))
        full = self.stays_full and self.fired and call in TAKES_ROOM
        if number == self.fails_at or full or (call == "write" and self._next_write_fails):
            self._next_write_fails = False
            raise OSError(self.code, os.strerror(self.code), *([name] if name else []))

    def _open_file(self, file: Any, mode: str = "r", buffering: int = -1, *args: Any, **options: Any) -> Any:
        inside = None if isinstance(file, int) else self._inside(file)
        if not set(mode) & set("wax+") or (inside is None and self._inside(file) is None):
            return _open(file, mode, buffering, *args, **options)
        opener = options.pop("opener", None)
        if inside is not None and opener is None:
            self._count("open" if os.path.lexists(inside) else "create", inside, name=inside)
        raw = _RawFile(file, mode.replace("b", "").replace("t", ""), options.pop("closefd", True), opener)
        raw.disk = self
        self._files[raw.fileno()] = inside or self._files[file]
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args, **options)

    def _opens(self, real: Callable[..., int]) -> Callable[..., int]:
        def opened(path: Any, flags: int, *args: Any, **options: Any) -> int:
            inside = None if "dir_fd" in options else self._inside(path)
            if inside is None:
                return real(path, flags, *args, **options)
            makes = flags & os.O_CREAT and not os.path.lexists(path)
            self._count("create" if makes else "open", inside, name=inside)
            descriptor = real(path, flags, *args, **options)
            self._files[descriptor] = inside
            return descriptor

        return opened

    def _writes(self, real: Callable[[int, Any], int]) -> Callable[[int, Any], int]:
        def written(descriptor: int, data: Any) -> int:
            path = self._files.get(descriptor)
            if path is None:
                return real(descriptor, data)
            with memoryview(data).cast("B") as view:
                if len(self.events) == self.fails_at and self.code != errno.EIO and len(view) > 1:
                    self.events.append(("write", path))
                    self._next_write_fails = True
                    return real(descriptor, view[: len(view) // 2])
                self._count("write", path)
                return real(descriptor, view)

        return written

    def _of_descriptor(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(descriptor: int, *args: Any) -> Any:
            if path := self._files.get(descriptor):
                self._count(call, path)
            return real(descriptor, *args)

        return called

    def _of_path(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(path: Any, *args: Any, **options: Any) -> Any:
            inside = None if options.get("dir_fd") is not None else self._inside(path)
            if inside is not None:
                self._count(call, inside, name=inside)
            return real(path, *args, **options)

        return called

    def _of_two(self, call: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def called(source: Any, target: Any, **options: Any) -> Any:
            inside = self._inside(target)
            if inside is not None:
                self._count(call, f"{os.path.abspath(os.fsdecode(source))}\n{inside}", name=inside)
            return real(source, target, **options)

        return called


class _RawFile(io.FileIO):
    disk: Disk

    def write(self, data: Any) -> int:
        return os.write(self.fileno(), data)


_open = open


# --- what a writer makes of it


def every_fault(
    root: Path,
    work: Callable[[], object],
    *,
    prepare: Callable[[], object],
    codes: Sequence[int] = CODES,
    stays_full: Sequence[bool] = (False, True),
    numbers: Callable[[], Iterator[int]] = itertools.count,
) -> Iterator[tuple[str, Disk, Exception | None]]:
    """Yields what came of `work` with a fault at each of its calls below `root`: a name, the disk, and the error."""
    for code, full in itertools.product(codes, stays_full):
        for number in numbers():
            prepare()
            disk = Disk(root, number, code, full)
            error = None
            with disk.installed():
                try:
                    work()
                except Exception as raised:
                    error = raised
            if not disk.fired:
                break
            last = disk.events[number]
            yield f"{errno.errorcode[code]} at call {number} ({last[0]} {Path(last[1]).name})", disk, error


def broken_promises(
    root: Path, work: Callable[[], object], *, codes: Sequence[int] = CODES, stays_full: Sequence[bool] = (False, True)
) -> list[str]:
    """Returns what went wrong when `work` changed files below `root` over every possible fault; nothing is good.

    Each file must be as it was before or as an undisturbed `work` makes it, no other file may be left, and where not
    all is as an undisturbed one makes it, a CheckpointError must have said so, with path, bytes needed and free.
    """
    before = tree(root)
    with Disk(root).installed() as disk:
        work()
    assert len(disk.events) >= 3, "the disk saw too little of this writer"
    new = tree(root)
    problems = []
    prepare = lambda: put_back(root, before)  # noqa: E731
    for name, _, error in every_fault(root, work, prepare=prepare, codes=codes, stays_full=stays_full):
        after = tree(root)
        problems += [f"{name}: {path} is lost" for path in before.keys() - after.keys()]
        problems += [f"{name}: {path} was left behind" for path in after.keys() - before.keys() - new.keys()]
        problems += [
            f"{name}: {path} is torn" for path in after if after[path] not in (before.get(path), new.get(path))
        ]
        if error is None and after != new:
            problems.append(f"{name}: nothing was said")
        if error is not None and not (isinstance(error, CheckpointError) and tells(str(error), root)):
            problems.append(f"{name}: {type(error).__name__}: {error}")
    prepare()
    return problems


def tells(text: str, root: Path) -> bool:
    """Whether an error says what could not be written, and the room."""
    folder_only = "the folder cannot be made" in text and "bytes free" in text
    return str(root) in text and (folder_only or ("bytes needed, " in text and " free; " in text))


def unsafe(events: Sequence[tuple[str, str]]) -> list[str]:
    """Returns what a loss of power after the last of these calls could undo; nothing is good."""
    dirty: set[str] = set()  # files with content that is not on the disk
    names: set[str] = set()  # paths whose name is not on the disk
    problems = []
    for call, path in events:
        if call in ("create", "mkdir"):
            names.add(path)
        elif call in ("write", "truncate"):
            dirty.add(path)
        elif call == "unlink":
            dirty.discard(path)
            names.discard(path)
        elif call == "fsync":
            dirty.discard(path)
            names = {name for name in names if os.path.dirname(name) != path}
        elif call == "rename":
            source, target = path.split("\n")
            below = {name for name in dirty | names if name == source or name.startswith(source + os.sep)}
            problems += [f"{name} is renamed before it is on the disk" for name in (dirty & below) | (below - {source})]
            dirty -= below
            names = (names - below) | {target}
    problems += [f"{path} is never flushed" for path in dirty]
    return problems + [f"the name {path} is never flushed" for path in names]


def tree(root: Path) -> dict[str, bytes]:
    """Returns the content of each file below a folder."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def put_back(root: Path, files: dict[str, bytes]) -> None:
    """Makes a folder hold these files and no others."""
    for path in root.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def done(*arguments: str | Path) -> None:
    """Runs a command to its end.

    Raises:
        CheckpointError: it ended with exit code 4, with what it printed.
        RuntimeError: with any other.
    """
    code, _, err = command(*arguments)
    if code:
        raise (CheckpointError if code == 4 else RuntimeError)(f"{code}: {err}")
