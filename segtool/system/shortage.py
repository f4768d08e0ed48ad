"""Memory that does not suffice: how it is told from other errors, and the error that the user sees. No torch."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from segtool.errors import SegtoolError, ShortageError

# Of the errors that torch, cuDNN and the allocators of CPU, CUDA and MPS raise as RuntimeError.
PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "cannot allocate memory", "alloc_failed")


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # the latter is torch's
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error).lower() for phrase in PHRASES)


@contextmanager
def shortage_told(explain: Callable[[], str]) -> Iterator[None]:
    """Raises ShortageError, with what `explain` says of the circumstances and the remedy, where memory runs out."""
    try:
        yield
    except SegtoolError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_shortage(error):
            raise
        raise ShortageError(f"out of memory {explain()} ({reason(error)})") from error


@contextmanager
def memory_bounded(extra: int) -> Iterator[None]:
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


def left_of_address_space() -> int | None:
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


def reason(error: BaseException) -> str:
    """Returns what an allocator said, on one line and not too long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
