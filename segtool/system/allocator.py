"""The C library's allocator, told to keep freed blocks."""

from __future__ import annotations

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep_freed_memory() -> None:
    """Tells glibc not to give large blocks back to the kernel after each step; elsewhere it does nothing.

    Activations are freed and asked for again in every step, and each page comes back with a fault: with the default
    settings a third of the time of a U-Net's training step on a CPU is spent in the kernel. The price is that the
    process keeps its largest size.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
