"""Configs made of data folders before, kept in the user's cache, so that a second look need not conclude anew.

A config holds as long as segtool, all files in the folder and those beside it, their sizes and their times of change
are the same.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from segtool.data.facts import Progress
from segtool.data.user_cache import Stamp, UserCache, digest, is_settled, program
from segtool.init.scaffold import scaffold


def recalled(root: Path, *, config_dir: Path, progress: Progress | None = None) -> str:
    """Returns what `scaffold` does, from the user's cache where nothing has changed in the folder since."""
    key = _fingerprint(root, config_dir)
    with UserCache() as cache:
        known = cache.recall_document(key) if key else None
    if known is not None:
        return known.decode(errors="surrogateescape")
    text = scaffold(root, config_dir=config_dir, progress=progress)
    if key:
        with UserCache() as cache:
            cache.keep_document(key, text.encode(errors="surrogateescape"))
    return text


def _fingerprint(root: Path, config_dir: Path) -> bytes | None:
    """Returns a digest of all that a config tells of; None where a file was changed just now, or one is a link."""
    try:
        inside = _files(root)
        beside = [entry for entry in os.scandir(root.absolute().parent) if entry.is_file()]  # may name the classes
        entries = [*inside, *beside]
        if any(entry.is_symlink() for entry in entries):
            return None
        marks = sorted((entry.path, _mark(entry)) for entry in entries)
    except OSError:
        return None
    now = time.time()
    if not all(is_settled(mark, now) for _, mark in marks):
        return None
    return digest((program(), os.path.abspath(root), str(root), os.path.abspath(config_dir), marks))


def _files(root: Path) -> list[os.DirEntry[str]]:
    """Returns the files and folders below a folder; linked folders are not followed."""
    found: list[os.DirEntry[str]] = []
    folders = [os.fspath(root)]
    while folders:
        entries = [*os.scandir(folders.pop())]
        folders += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        found += entries
    return found


def _mark(entry: os.DirEntry[str]) -> Stamp:
    """Returns size and time of change of a file, or of whom it is open to: an unreadable one may be readable later."""
    status = entry.stat()
    return status.st_size, max(status.st_mtime_ns, status.st_ctime_ns)
