"""Facts of files that were looked at before, kept in the user's cache, so that a second look decodes nothing.

An entry holds as long as path, size and time of change of its file are the same.
"""

from __future__ import annotations

import functools
import json
import math
import os
import time
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from segtool.data.user_cache import UNUSED_DAYS, Stamp, UserCache, is_settled, stamp

LARGEST = 1 << 18  # bytes of an entry: masks of tens of thousands of colours are looked at again
PACKED = 1 << 12  # bytes from which on an entry is compressed


class FactCache(UserCache):
    """The facts of files, each of some kind: instances of a dataclass whose first field is the path."""

    def __init__(self) -> None:
        super().__init__()
        self._folders: dict[str, bytes] = {}

    def recall(self, files: Iterable[tuple[type, Path]]) -> dict[tuple[type, Path], Any]:
        """Returns the facts of some kinds that are known of files as they are now."""
        wanted: dict[tuple[type, str], dict[str, Path]] = defaultdict(dict)
        for kind, path in files:
            folder, name = _split(path)
            wanted[kind, folder][name] = path
        found: dict[tuple[type, Path], Any] = {}
        for (kind, folder), names in wanted.items():
            self._folders[folder] = key = os.fsencode(folder)
            with self._tolerant():
                for name, size, changed, content in self._rows(key, kind):
                    path = names.get(name)
                    if path is not None and stamp(path) == (size, changed):
                        found[kind, path] = decode(kind, path, content)
        return found

    def keep(self, entries: Iterable[tuple[type, Path, Stamp, bytes]]) -> None:
        """Enters facts as `encode` gives them, of files that were asked for.

        Each comes with the stamp that its file had before it was looked at.
        """
        if self._database is None:
            return
        now = time.time()
        rows = []
        for kind, path, mark, content in entries:
            if is_settled(mark, now) and len(content) <= LARGEST:
                folder, name = _split(path)
                rows.append((self._folders[folder], os.fsencode(name), kind.__name__, *mark, content))
        with self._tolerant(), self._database as database:
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def forget_vanished(self) -> None:
        """Drops entries of files that are gone where files were asked for, and of folders nobody has looked at."""
        if self._database is None:
            return
        today = int(time.time() // 86400)
        with self._tolerant(), self._database as database:
            for folder, key in self._folders.items():
                kept = database.execute("SELECT kind, name FROM facts WHERE folder = ?", (key,)).fetchall()
                there = {os.fsencode(entry) for entry in _listed(folder + os.sep)}
                gone = [(key, kind, name) for kind, name in kept if name not in there]
                # By the whole key: a search without the kind goes through the folder for each, 11 s of 20,000 files.
                database.executemany("DELETE FROM facts WHERE folder = ? AND kind = ? AND name = ?", gone)
                database.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (key, today))
            unused = "SELECT folder FROM folders WHERE day < ?"
            database.execute(f"DELETE FROM facts WHERE folder IN ({unused})", (today - UNUSED_DAYS,))
            database.execute("DELETE FROM folders WHERE day < ?", (today - UNUSED_DAYS,))

    def _rows(self, folder: bytes, kind: type) -> Iterator[tuple[str, int, int, bytes]]:
        if self._database is None:
            return
        query = "SELECT name, size, changed, content FROM facts WHERE folder = ? AND kind = ?"
        for name, size, changed, content in self._database.execute(query, (folder, kind.__name__)):
            yield os.fsdecode(name), size, changed, content


def encode(facts: Any) -> bytes:
    """Returns the fields of a dataclass but the first, its path: what `decode` reads."""
    layout: list[str] = []
    values: list[Any] = []
    blobs = []
    _, *given = vars(facts).values()
    for value in given:
        form = type(value)
        if form is np.ndarray:
            layout.append(_array(value.dtype, value.shape))
            blobs.append(value.tobytes())
        elif form is bytes:
            layout.append(f"bytes {len(value)}")
            blobs.append(value)
        else:
            layout.append("tuple" if form is tuple else "")
            values.append(value)
    head = json.dumps([",".join(layout), *values]).encode()
    content = b"".join([len(head).to_bytes(4, "little"), head, *blobs])
    return b"z" + zlib.compress(content, 1) if len(content) > PACKED else b"-" + content


def decode(kind: type, path: Path, content: bytes) -> Any:
    """Returns what was encoded, of a file at this path."""
    content = zlib.decompress(content[1:]) if content[:1] == b"z" else content[1:]
    end = 4 + int.from_bytes(content[:4], "little")
    layout, *plain = json.loads(content[4:end].decode("ascii"))
    others = iter(plain)
    facts: list[Any] = []
    for form, size, dtype, shape in _layout(layout):
        if form == "array":
            values = np.frombuffer(content, dtype, size, end)
            facts.append(values if len(shape) == 1 else values.reshape(shape))
            end += values.nbytes
        elif form == "bytes":
            facts.append(content[end : end + size])
            end += size
        else:
            facts.append(tuple(next(others)) if form == "tuple" else next(others))
    return kind(path, *facts)


@functools.lru_cache(4096)
def _array(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    return f"array {dtype.str} {' '.join(map(str, shape))}"


@functools.lru_cache(4096)
def _layout(text: str) -> list[tuple[str, int, Any, tuple[int, ...]]]:
    """Returns of each field its form, the number of its values or bytes, their type and their shape.

    Thousands of entries have one layout, and reading it anew took as long as all the rest.
    """
    found: list[tuple[str, int, Any, tuple[int, ...]]] = []
    for part in text.split(","):
        form, *rest = part.split(" ")
        if form == "array":
            shape = tuple(map(int, rest[1:]))
            found.append((form, math.prod(shape), np.dtype(rest[0]), shape))
        else:
            found.append((form, int(rest[0]) if rest else 0, None, ()))
    return found


def _split(path: Path) -> tuple[str, str]:
    """Returns folder and name; as `os.path.split` for what lies in a folder, in a fifth of the time."""
    folder, _, name = os.fspath(path).rpartition(os.sep)
    return folder, name


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
