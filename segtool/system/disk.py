"""Writing to disk: a file is whole or not there, what is done is on the disk, and what fails says how much is free.

A function that writes returns after the disk has confirmed it, names of files included unless they are left out: that
outlasts the end of the process, and a loss of power as far as the disk keeps its word.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import threading
from pathlib import Path

from segtool.errors import DiskError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

REMEDIES = {
    errno.ENOSPC: "free some space, or choose another place",
    errno.EDQUOT: "free some of your quota, or choose another place",
    errno.EFBIG: "raise the limit on the size of a file (ulimit -f), or choose another place",
}
TEMPORARY = re.compile(r"\.tmp-[0-9]+-[0-9]+")  # process and thread
NO_SYNC = {errno.EINVAL, errno.ENOTSUP}  # of file systems that have no fsync of a folder


def write_atomically(path: Path, content: bytes, *, sync_name: bool = True) -> None:
    """Writes a file by one rename: at each moment there is what was there before, or all of `content`.

    Args:
        sync_name: Also have the rename on the disk. Without, a loss of power may take it back, which spares 8 ms of 18
            for a small file (ext4): for what is made by the thousand and can be made again.

    Raises:
        DiskError: the disk did not take it, or there is something else than a file.
    """
    require_plain(path)
    # A short name of its own: the file's may be as long as the file system takes.
    temporary = path.with_name(f".tmp-{os.getpid()}-{threading.get_ident()}")
    try:
        temporary.unlink(missing_ok=True)
        with contextlib.ExitStack() as lock:  # till it has its name, so that nobody takes it for abandoned
            write_new(temporary, content, lock)
            os.replace(temporary, path)
        if sync_name:
            sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, len(content), error, "what was there before is whole") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def append(path: Path, content: bytes) -> None:
    """Adds all of `content` to the end of a file, made where there is none; where that fails, nothing: DiskError."""
    require_plain(path)
    try:
        is_new = not path.exists()
        # Without a buffer: what one still held after a failure would be written, or fail, when it is closed.
        with open(path, "ab", buffering=0) as file:
            before = os.fstat(file.fileno()).st_size
            try:
                _write_all(file.fileno(), content)
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), before)
                raise
        if is_new:
            sync_folder(path.parent)
    except OSError as error:
        raise not_written(path, len(content), error, "the lines before are whole") from error


def write_new(path: Path, content: bytes, lock: contextlib.ExitStack | None = None) -> None:
    """Writes a file that must not be there yet, and locks it until `lock` is closed.

    An OSError is the caller's, and so is what it leaves.
    """
    with open(path, "xb", buffering=0) as file:
        if lock and _locked(file.fileno()):
            lock.callback(os.close, os.dup(file.fileno()))
        _write_all(file.fileno(), content)
        os.fsync(file.fileno())


def remove_unfinished(folder: Path) -> None:
    """Removes what a process that was killed in `write_atomically` left. No other may write into the folder now."""
    for path in folder.glob(".tmp-*"):
        if TEMPORARY.fullmatch(path.name):
            with contextlib.suppress(OSError):
                path.unlink()


def remove_abandoned(folder: Path) -> None:
    """Removes what a process that was killed in `write_atomically` left, where others may be writing.

    Theirs are locked, or still empty. Where there are no locks, all stay.
    """
    for path in folder.glob(".tmp-*"):
        if TEMPORARY.fullmatch(path.name) and path.is_file() and not path.is_symlink():
            with contextlib.suppress(OSError), open(path, "rb+", buffering=0) as file:
                if os.fstat(file.fileno()).st_size and _locked(file.fileno()):
                    path.unlink()


def _locked(descriptor: int) -> bool:
    """Locks a file until it is closed; False where another process has it locked, or there are no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def make_folder(path: Path) -> None:
    """Makes a folder and those above it, where they are not there. Raises DiskError where it cannot be made."""
    missing = [folder for folder in (path, *path.parents) if not folder.is_dir()]
    if not missing:
        return
    try:
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        raise DiskError(
            f"{path}: the folder cannot be made ({error.strerror}), {_free(path)} bytes free; {_remedy(error)}"
        ) from error


def require_plain(path: Path) -> None:
    """Raises DiskError where there is something else than a file: a link, a pipe, a device, a folder.

    A rename would put a file in place of the link or the device itself, /dev/null included; a pipe would be waited for.
    """
    if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
        raise DiskError(f"{path}: is a link, a folder or a device, and is not replaced; choose another place")


def require_folder(path: Path) -> None:
    """Raises DiskError where something else than a folder that can be written stands in a folder's place."""
    if os.path.lexists(path) and not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
        raise DiskError(f"{path}: is no folder that can be written; move it away, or choose another place")


def sync_folder(path: Path) -> None:
    """Has the names in a folder written to the disk."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_SYNC:
            raise
    finally:
        os.close(descriptor)


def free_disk(path: Path) -> int:
    """Returns the free bytes where a path is, or would be. An OSError is the caller's."""
    there = next(folder for folder in (path, *path.absolute().parents) if folder.is_dir())
    return shutil.disk_usage(there).free


def not_written(path: Path, needed: int, error: OSError, left: str) -> DiskError:
    """Returns the error that tells what could not be written, its size, what is free, and what is `left`."""
    return DiskError(
        f"{path}: cannot be written ({error.strerror}): {needed:,} bytes needed, {_free(path)} free; {left}; "
        f"{_remedy(error)}"
    )


def _remedy(error: OSError) -> str:
    return REMEDIES.get(error.errno or 0, "mend that, or choose another place")


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:  # a disk that is nearly full takes a part, and refuses the rest
        left = left[os.write(descriptor, left) :]


def _free(path: Path) -> str:
    try:
        return f"{free_disk(path):,}"
    except OSError:
        return "an unknown number"
