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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from segtool.data.user_cache import UNUSED_DAYS, Stamp, UserCache, is_settled

LARGEST = 1 << 18  # bytes of an entry: masks of tens of thousands of colours are looked at again
PACKED = 1 << 12  # bytes from which on an entry is compressed


class FactCache(UserCache):
    """The facts of one kind of file."""

    def __init__(self, kind: type) -> None:
        """Keeps instances of the dataclass `kind`, whose first field is the path."""
        super().__init__()
        self.kind = kind
        self._names = [field.name for field in fields(kind)][1:]

    def recall(self, stamps: Mapping[Path, Stamp]) -> dict[Path, Any]:
        """Returns the facts that are known of files as they are now."""
        wanted: dict[str, dict[str, Path]] = defaultdict(dict)
        for path in stamps:
            wanted[os.path.dirname(path)][os.path.basename(path)] = path
        found: dict[Path, Any] = {}
        for folder, names in wanted.items():
            with self._tolerant():
                for name, size, changed, content in self._rows(folder):
                    path = names.get(name)
                    if path is not None and stamps[path] == (size, changed):
                        found[path] = self._decoded(path, content)
        return found

    def keep(self, known: Mapping[Path, tuple[Stamp, Any]]) -> None:
        """Enters facts, each with the stamp that its file had before it was looked at."""
        if self._database is None or not known:
            return
        now = time.time()
        rows = [
            (os.fsencode(os.path.dirname(path)), os.fsencode(path.name), self.kind.__name__, *mark, content)
            for path, (mark, facts) in known.items()
            if is_settled(mark, now) and len(content := self._encoded(facts)) <= LARGEST
        ]
        with self._tolerant(), self._database as database:
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?, ?, ?, ?, ?)", rows)

    def forget_vanished(self, folders: Iterable[Path]) -> None:
        """Drops entries of files that are not in these folders any more, and of folders that nobody has looked at."""
        if self._database is None:
            return
        today = int(time.time() // 86400)
        with self._tolerant(), self._database as database:
            for folder in map(str, folders):
                key = os.fsencode(folder)
                names = [name for (name,) in database.execute("SELECT name FROM facts WHERE folder = ?", (key,))]
                there = {os.fsencode(entry) for entry in _listed(folder)}
                gone = [(key, name) for name in names if name not in there]
                database.executemany("DELETE FROM facts WHERE folder = ? AND name = ?", gone)
                database.execute("INSERT OR REPLACE INTO folders VALUES (?, ?)", (key, today))
            unused = "SELECT folder FROM folders WHERE day < ?"
            database.execute(f"DELETE FROM facts WHERE folder IN ({unused})", (today - UNUSED_DAYS,))
            database.execute("DELETE FROM folders WHERE day < ?", (today - UNUSED_DAYS,))

    def _rows(self, folder: str) -> Iterator[tuple[str, int, int, bytes]]:
        if self._database is None:
            return
        query = "SELECT name, size, changed, content FROM facts WHERE folder = ? AND kind = ?"
        for name, size, changed, content in self._database.execute(query, (os.fsencode(folder), self.kind.__name__)):
            yield os.fsdecode(name), size, changed, content

    def _encoded(self, facts: Any) -> bytes:
        layout: list[tuple[Any, ...]] = []
        values: list[Any] = []
        blobs = []
        for name in self._names:
            value = getattr(facts, name)
            if isinstance(value, np.ndarray):
                layout.append(("array", value.dtype.str, value.shape))
                blobs.append(value.tobytes())
            elif isinstance(value, bytes):
                layout.append(("bytes", len(value)))
                blobs.append(value)
            else:
                layout.append(("tuple" if isinstance(value, tuple) else "plain",))
                values.append(value)
        head, plain = _head(tuple(layout)), json.dumps(values).encode()
        content = b"".join([len(head).to_bytes(4, "little"), len(plain).to_bytes(4, "little"), head, plain, *blobs])
        return b"z" + zlib.compress(content, 1) if len(content) > PACKED else b"-" + content

    def _decoded(self, path: Path, content: bytes) -> Any:
        content = zlib.decompress(content[1:]) if content[:1] == b"z" else content[1:]
        middle = 8 + int.from_bytes(content[:4], "little")
        end = middle + int.from_bytes(content[4:8], "little")
        values = iter(json.loads(content[middle:end]))
        facts: list[Any] = []
        for kind, size, dtype, shape in _layout(content[8:middle]):
            if kind == "array":
                facts.append(np.frombuffer(content, dtype, size, end).reshape(shape))
                end += facts[-1].nbytes
            elif kind == "bytes":
                facts.append(content[end : end + size])
                end += size
            else:
                facts.append(tuple(next(values)) if kind == "tuple" else next(values))
        return self.kind(path, *facts)


@functools.lru_cache(4096)
def _head(layout: tuple[tuple[Any, ...], ...]) -> bytes:
    """Returns what `_layout` reads."""
    return json.dumps(layout).encode()


@functools.lru_cache(4096)
def _layout(head: bytes) -> list[tuple[str, int, Any, tuple[int, ...]]]:
    """Returns of each field its kind, the number of its values or bytes, their type and their shape.

    Thousands of entries have one layout, and reading it anew took as long as all the rest.
    """
    found: list[tuple[str, int, Any, tuple[int, ...]]] = []
    for kind, *rest in json.loads(head):
        if kind == "array":
            found.append((kind, math.prod(rest[1]), np.dtype(rest[0]), tuple(rest[1])))
        else:
            found.append((kind, rest[0] if rest else 0, None, ()))
    return found


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
