"""The standard streams of the program, which may be closed, full, or left by whoever read them."""

from __future__ import annotations

import errno
import io
import os
import sys
from typing import Any, TextIO

from segtool.errors import DiskError

READER_GONE = (errno.EPIPE, errno.EIO)  # `| head` has seen enough; the terminal was closed


def secure() -> None:
    """Makes standard output and standard error such that nobody who stops reading them stops the work.

    A file that is opened while one of the three is closed would take its number, and messages be written into it: the
    null device takes it instead. Characters that the encoding does not have are written escaped.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 -- till the end
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is getattr(sys, f"__{name}__"):  # else someone captures it
            setattr(sys, name, _secured(stream))


def is_styled(stream: TextIO) -> bool:
    """Whether a stream is a terminal whose user has not asked for plain text."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


class _Outlet(io.FileIO):
    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.fileno())  # for this and all that is still to come
            os.close(null)
            if self.fileno() == 1 and error.errno not in READER_GONE:
                raise DiskError(
                    f"standard output: cannot be written ({error.strerror}); free some space, or send it elsewhere"
                ) from error
            return len(data)


def _secured(stream: io.TextIOWrapper) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Outlet(stream.fileno(), "w", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        # PYTHONUNBUFFERED, which images of containers set, makes streams that write through and buffer no lines.
        line_buffering=stream.line_buffering or stream.write_through,
    )
