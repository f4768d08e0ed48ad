"""Decoded images and masks kept in memory, for training to decode each file once."""

from __future__ import annotations

import mmap
import multiprocessing
import threading
from typing import Any, Literal

import numpy as np

from segtool.system.memory import free_memory
from segtool.system.terminal import amount

AUTO_SHARE = 0.25  # of the free memory, which `auto` lets all images take
SHARE = 0.5  # of it, beyond which nothing more is kept
UNKNOWN_CAPACITY = 2**32  # bytes that are kept at most where the system does not tell what is free

_ENTRY = np.dtype(
    [("start", np.int64), ("height", np.int32), ("width", np.int32), ("channels", np.int32), ("deep", np.bool_)],
    align=True,
)
_ALIGNMENT = 16  # bytes, of where a pair begins


class Cache:
    """Pairs of image and class indices by number, in one block of memory that is filled as they come.

    Processes that are forked share the block with the one that made it, so it is made before them. One that begins in
    another way (`spawn`, `forkserver`) has an empty block of its own. The system gives a page when it is written
    to: what is not filled takes none.
    """

    def __init__(self, count: int, capacity: int) -> None:
        """Holds up to `count` pairs, and no more than `capacity` bytes of them."""
        self.capacity = capacity
        table = _ENTRY.itemsize * count
        block = np.frombuffer(mmap.mmap(-1, _ALIGNMENT + table + capacity + _ALIGNMENT), np.uint8)
        self._used = block[:8].view(np.int64)
        self._entries = block[_ALIGNMENT : _ALIGNMENT + table].view(_ENTRY)
        self._pixels = block[-(-(_ALIGNMENT + table) // _ALIGNMENT) * _ALIGNMENT :]
        try:
            self._lock: Any = multiprocessing.Lock()
        except (ImportError, OSError):  # a system without semaphores, which has no loading processes either
            self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type[Cache], tuple[int, int]]:
        return Cache, (len(self._entries), self.capacity)

    @property
    def used(self) -> int:
        """Bytes that pairs take."""
        return int(self._used[0])

    def get(self, number: int) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns image H W C and class indices H W, not to be written to, or None where they are not kept."""
        with self._lock:
            start, height, width, channels, deep = self._entries[number].item()
        if not height:
            return None
        middle = start + height * width * channels * (4 if deep else 1)
        image = self._pixels[start:middle].view(np.float32 if deep else np.uint8).reshape(height, width, channels)
        target = self._pixels[middle : middle + height * width].reshape(height, width)
        image.flags.writeable = target.flags.writeable = False
        return image, target

    def put(self, number: int, image: np.ndarray, target: np.ndarray) -> None:
        """Keeps a pair as long as there is room: an image H W C, uint8 or float32, and class indices H W."""
        size = image.nbytes + target.nbytes
        with self._lock:
            start = self.used
            if start + size > self.capacity:
                return
            self._used[0] = min(-(-(start + size) // _ALIGNMENT) * _ALIGNMENT, self.capacity)
        self._pixels[start : start + image.nbytes].view(image.dtype)[:] = image.ravel()
        self._pixels[start + image.nbytes : start + size] = target.ravel()
        with self._lock:  # what is entered is complete, for a processor that reorders its writes as well
            self._entries[number] = (start, *image.shape, image.dtype == np.float32)


def make_cache(count: int) -> Cache:
    """Returns an empty cache for `count` pairs that takes at most half of the memory that is free, or 4 GB where that
    is not known."""
    free = free_memory()
    return Cache(count, UNKNOWN_CAPACITY if free is None else int(SHARE * free))


def choose_cache(
    setting: Literal["auto"] | bool, *, images: int, size: tuple[int, int], channels: int, value_bytes: int = 1
) -> tuple[bool, str]:
    """Whether `train.cache` keeps decoded images in memory, and why.

    Args:
        value_bytes: Of one channel of a pixel: 1, or 4 for images of 16 bits.
    """
    if setting != "auto":
        return setting, "as the config says"
    free = free_memory()
    if free is None:
        return False, "this system does not tell how much memory is free; true keeps up to 4 GB"
    needed = images * size[0] * size[1] * (channels * value_bytes + 1)
    found = f"decoded, {images} images and masks take {amount(needed)}, and {amount(free)} of memory are free"
    if needed <= AUTO_SHARE * free:
        return True, found
    return False, f"{found}: more than a quarter of it"
