"""Which image files a folder holds, by their names alone."""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from pathlib import Path

from segtool.data.images import IMAGE_SUFFIXES
from segtool.errors import DataError, shown

MASK_SUFFIXES = IMAGE_SUFFIXES | {".gif"}
JPEG_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif"))
_OF_CAMERAS = (".heic", ".heif", ".avif", ".dng", ".nef", ".cr2", ".arw")
_OF_INSTRUMENTS = (".czi", ".nd2", ".lif", ".svs", ".dcm", ".nii")
_OF_PROGRAMS = (".gif", ".jp2", ".jxl", ".psd", ".exr", ".ppm", ".pgm")
UNREAD_PICTURES = frozenset((*_OF_CAMERAS, *_OF_INSTRUMENTS, *_OF_PROGRAMS))
"""Endings of pictures that are not read as images, and would be missed if nothing was said."""
_RUN_FILES = {"run.json", "checkpoints"}  # by which a folder is told that a training has written, samples and all


def list_files(folder: Path, suffixes: frozenset[str], *, without: Iterable[Path] = ()) -> list[Path]:
    """Returns the files in a folder and its subfolders with one of `suffixes` (any case), sorted; absolute paths.

    Hidden files and folders, `__MACOSX` and the runs of trainings are passed over. A linked folder is searched once,
    after all others, unless it was searched already, so loops end. Whatever bears such a suffix is listed, folders and
    dead links too: that it cannot be read is for the reader to say.
    """
    found: list[Path] = []
    links = [Path(os.path.abspath(folder))]
    seen = {_identity(path) for path in without}
    while links:
        link = links.pop(0)
        if _identity(link) not in seen:
            links += sorted(_search(link, suffixes, found, seen))
    return sorted(found, key=lambda path: os.fspath(path).replace(os.sep, "\0"))  # as paths compare, much faster


def apart(folder: Path, other: Path) -> tuple[Path, ...]:
    """Returns what is no part of a folder where another one may lie within it: that one, if it is not the same."""
    return () if os.path.abspath(folder) == os.path.abspath(other) else (other,)


def stem_of(path: Path, folder: Path) -> str:
    """Returns a file's path within a folder, without its last suffix, with `/` on every system."""
    text, start = os.fspath(path), f"{folder}{os.sep}"
    if not text.startswith(start) and os.path.isabs(text):
        start = f"{os.path.abspath(folder)}{os.sep}"
    inside = text[len(start) :] if text.startswith(start) else os.path.relpath(path, folder)
    return os.path.splitext(inside)[0].replace(os.sep, "/")


def decoded(content: bytes) -> str:
    """Returns the text of a file: UTF-8, or UTF-16 where it begins so, as PowerShell writes it; bytes of neither stay.

    They become surrogates, by which names of files that hold them are found.
    """
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace").replace("\r\n", "\n")
    return content.decode("utf-8-sig", errors="surrogateescape").replace("\r\n", "\n").replace("\r", "\n")


def _search(folder: Path, suffixes: frozenset[str], found: list[Path], seen: set[tuple[int, int]]) -> list[Path]:
    """Adds the files below a folder to `found`, and returns the linked folders."""
    links, folders = [], [folder]
    while folders:
        current = folders.pop()
        seen.add(_identity(current))
        entries = _entries(current)
        if current != folder and {entry.name for entry in entries} >= _RUN_FILES:
            continue
        for entry in entries:
            path = current / entry.name
            if os.path.splitext(entry.name)[1].lower() in suffixes:
                found.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders += [] if _identity(path) in seen else [path]
            elif entry.is_symlink() and path.is_dir():  # of a link to itself, entry.is_dir() raises
                links.append(path)
    return links


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    except OSError as error:
        raise DataError(f"{shown(folder)}: the folder cannot be read ({error.strerror}); make it readable") from error


def _identity(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"{shown(path)}: no such folder ({error.strerror}); correct the path") from error
    return status.st_dev, status.st_ino
