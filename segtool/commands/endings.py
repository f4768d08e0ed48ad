"""How a command that raised an error ends: what is said of it on standard error, and the exit code."""

from __future__ import annotations

import errno

from segtool.errors import CheckpointError, SegtoolError, ShortageError
from segtool.system.disk import REMEDIES
from segtool.system.shortage import is_shortage, reason
from segtool.system.terminal import print_errors


def explain(error: Exception) -> int:
    """Prints what went wrong, without a traceback, and returns the exit code."""
    if isinstance(error, SegtoolError):
        print_errors(error.problems)
        return error.exit_code
    if is_shortage(error):
        print_errors([f"out of memory ({reason(error)}); end what else runs here, or use a machine that has more"])
        return ShortageError.exit_code
    if isinstance(error, OSError) and error.filename is not None:
        print_errors([f"{error.filename}: {error.strerror}; mend that, or choose another place"])
        return CheckpointError.exit_code
    if (isinstance(error, OSError) and error.errno == errno.EAGAIN) or str(error) == "can't start new thread":
        remedy = (
            "raise the limit (ulimit -u, or that of the container), or start fewer: OMP_NUM_THREADS=1, and in training"
        )
        print_errors([f"no further process or thread can be started ({reason(error)}); {remedy} --set train.workers=0"])
        return ShortageError.exit_code
    if isinstance(error, OSError) and error.errno in REMEDIES:  # of memory that is shared by way of a file, say
        print_errors([f"a file that has no name here cannot be written ({error.strerror}); {REMEDIES[error.errno]}"])
        return CheckpointError.exit_code
    print_errors([f"a bug of ours: {type(error).__name__}: {error}", "with --debug you see where; please report it"])
    return 1
