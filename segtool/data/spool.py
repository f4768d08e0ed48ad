"""Decoded images that are large, or needed by strips alone, in a temporary file instead of memory.

Pillow holds a colour image in four bytes a pixel, and the array that is made of it is three more: both at once would be
the most that a prediction ever takes. In a file the array's pages are the kernel's to take back.
"""

from __future__ import annotations

import mmap
import os
import tempfile

import numpy as np
from numpy.typing import NDArray


def spooled(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Returns an array of zeros that lies in a temporary file, which is gone with it.

    In memory where there is no such file to be had, or no room for it.
    """
    size = int(np.prod(shape))
    try:
        with tempfile.TemporaryFile(prefix="segtool-") as file:
            # A disk that is full later, while pixels are written, would kill the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return np.ndarray(shape, np.uint8, buffer=mmap.mmap(file.fileno(), size))
    except (OSError, AttributeError):  # AttributeError: a system without posix_fallocate
        return np.zeros(shape, np.uint8)


def release(array: np.ndarray) -> None:
    """Gives the memory of an array's pages back where it is `spooled`; they come back from the file when looked at."""
    base = array.base
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)
