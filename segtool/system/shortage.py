"""Memory that does not suffice: how it is told from other errors, and the error that the user sees. No torch."""

from __future__ import annotations

import errno
from collections.abc import Callable, Generator
from contextlib import contextmanager

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
def shortage_told(explain: Callable[[], str]) -> Generator[None]:
    """Raises ShortageError, with what `explain` says of the circumstances and the remedy, where memory runs out."""
    try:
        yield
    except SegtoolError:
        raise
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_shortage(error):
            raise
        raise ShortageError(f"out of memory {explain()} ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """Returns what an allocator said, on one line and not too long."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]
