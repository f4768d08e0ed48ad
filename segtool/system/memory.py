"""Memory of the machine: what is free for this process, a bound on what it takes, and that it is kept. No torch."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Generator
from pathlib import Path

from segtool.system import control_group

MEMINFO = Path("/proc/meminfo")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def free_memory() -> int | None:
    """Returns the bytes that can be taken without swapping: what the system, the control group and `ulimit -v` leave.

    None where none says so (it is not Linux).
    """
    limits = (_available(), control_group.free_memory(), _left_of_address_space())
    found = [limit for limit in limits if limit is not None]
    return max(0, min(found)) if found else None


@contextlib.contextmanager
def memory_bounded(extra: int) -> Generator[None]:
    """Lets the process take `extra` bytes more inside; what asks for more meets an error, as where none is left.

    For a reader of files from anywhere, which may name any size. Does nothing but on Linux.
    """
    size = _address_space()
    if size is None:
        yield
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    limits = (limit for limit in (soft, hard, size + extra) if limit != resource.RLIM_INFINITY)
    resource.setrlimit(resource.RLIMIT_AS, (min(limits), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


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


def _available() -> int | None:
    with contextlib.suppress(OSError):
        lines = MEMINFO.read_text().splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
    return None


def _left_of_address_space() -> int | None:
    """Returns the bytes that `ulimit -v` leaves, as which some schedulers set the memory of a job; None without one."""
    size = _address_space()
    if size is None:
        return None
    import resource

    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit - size


def _address_space() -> int | None:
    """Returns the bytes of addresses that this process has; None on other systems than Linux."""
    try:
        import resource

        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return None
