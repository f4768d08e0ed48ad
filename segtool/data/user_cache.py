"""The database in the user's cache directory, which keeps what segtool has looked at once.

It is no more than a saving of time: where it is broken, foreign, locked or cannot be written, all is looked at again
and nothing is said.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL

import segtool

VERSION = 11
"""Of what the facts are and how they are worked out: another one begins afresh."""
UNUSED_DAYS = 90
LARGEST_DOCUMENT = 1 << 20  # bytes
PAGE = 1 << 14  # bytes; an entry of 2 KB leaves half of SQLite's usual page of 4 KB empty
RECENT = 0.05  # seconds in which a file may change twice and bear one time
COARSE = 2.0  # the same where the time has whole seconds, as on FAT

Stamp = tuple[int, int]
"""Size and time of change in nanoseconds."""


def cache_directory() -> Path:
    """Returns where segtool keeps what it can make again."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "segtool"


def stamp(path: Path) -> Stamp | None:
    """Returns by what a file is known again, or None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


class UserCache:
    """A connection to the database. A context manager; what it cannot do, it leaves undone."""

    def __init__(self) -> None:
        self._database: Any = None
        with self._tolerant():
            self._database = _open(cache_directory())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._tolerant():
            if self._database is not None:
                self._database.close()
        self._database = None

    @contextlib.contextmanager
    def _tolerant(self) -> Generator[None]:
        """Goes on without the cache where anything of it fails: no user has asked for it."""
        try:
            yield
        except Exception:  # whatever a foreign or broken file makes sqlite3, zlib, json or numpy raise
            database, self._database = self._database, None
            with contextlib.suppress(Exception):
                if database is not None:
                    database.close()

    def recall_document(self, key: bytes) -> bytes | None:
        """Returns what was kept under a digest of all that it depends on."""
        with self._tolerant(), self._database as database:
            found = database.execute("SELECT content FROM reports WHERE key = ?", (key,)).fetchone()
            if found:
                database.execute("UPDATE reports SET day = ? WHERE key = ? AND day < ?", (_today(), key, _today()))
                return found[0]
        return None

    def keep_document(self, key: bytes, content: bytes) -> None:
        """Enters what is to be recalled, if it is not too large, and drops what nobody has asked for."""
        with self._tolerant(), self._database as database:
            database.execute("DELETE FROM reports WHERE day < ?", (_today() - UNUSED_DAYS,))
            if len(content) <= LARGEST_DOCUMENT:
                database.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (key, _today(), content))


def program() -> list[str]:
    """Returns by what a segtool is told from another, one in whose source somebody works included."""
    home = Path(segtool.__file__).parent
    source = [f"{path.relative_to(home)} {stamp(path)}" for path in sorted(home.rglob("*.py"))]
    return [segtool.__version__, PIL.__version__, np.__version__, *source]


def digest(content: object) -> bytes:
    """Returns a key for what depends on some content, told by its `repr`."""
    return hashlib.blake2b(repr(content).encode(errors="surrogateescape"), digest_size=16).digest()


def is_settled(mark: Stamp, now: float) -> bool:
    """Whether a file was left alone long enough before it was looked at that a change would alter its time."""
    changed = mark[1] / 1e9
    return not 0 <= now - changed < (COARSE if mark[1] % 10**9 == 0 else RECENT)


def _today() -> int:
    return int(time.time() // 86400)


def _open(directory: Path) -> Any:
    """Returns a connection to the database, made afresh where it is broken; None where there can be none."""
    import sqlite3  # here, as a Python may be built without it

    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = directory / f"facts-{VERSION}.sqlite3"
    if not path.exists():
        for older in range(VERSION):
            (directory / f"facts-{older}.sqlite3").unlink(missing_ok=True)
    try:
        return _connected(path)
    except sqlite3.OperationalError:  # locked, or not to be written
        return None
    except sqlite3.DatabaseError:  # no database, or a damaged one
        path.unlink()
        return _connected(path)


def _connected(path: Path) -> Any:
    import sqlite3

    database = sqlite3.connect(path, timeout=5)
    try:
        database.execute(f"PRAGMA page_size = {PAGE}")  # of a new file
        with database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS facts (folder BLOB, name BLOB, kind TEXT, size INTEGER, changed INTEGER, "
                "content BLOB, PRIMARY KEY (folder, kind, name))"
            )
            database.execute("CREATE TABLE IF NOT EXISTS folders (folder BLOB PRIMARY KEY, day INTEGER)")
            database.execute("CREATE TABLE IF NOT EXISTS reports (key BLOB PRIMARY KEY, day INTEGER, content BLOB)")
    except BaseException:
        database.close()
        raise
    return database
