"""What a user can cause, and the exit code of each.

    SegtoolError        2  usage: arguments that do not fit together
    +-- ConfigError     2  a config file or a --set that does not say what it must
    +-- DataError       3  images or masks that cannot be used as they are
    +-- CheckpointError 4  a checkpoint, a run directory or a disk that does not hold
    |   +-- DiskError       a file that the disk did not take
    +-- HungError       4  another process of the job does not answer
    +-- LostError       4  another process of the job has ended, which says why
    +-- JobError           the exit code of the process that ended a job of several
    +-- ShortageError   4  memory that does not suffice
    +-- DivergedError   5  training left the finite numbers
    +-- Interrupted     129, 130 or 143  SIGHUP, SIGINT or SIGTERM; what was done is saved

A message says where, what was found, what was expected and what to do. Anything else that is raised is a bug of ours
(exit 1).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


class SegtoolError(Exception):
    """One or several problems that the user can mend; `str()` has a line for each."""

    exit_code = 2

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems: tuple[str, ...] = problems


@dataclass(frozen=True)
class Problem:
    """What is wrong with one key of a config; `path` is dotted, "" is the whole file."""

    path: str
    message: str


class ConfigError(SegtoolError):
    """Problems of a config. Those that name a key get their file and line from `Origins.locate` on the way out."""

    exit_code = 2

    def __init__(self, *problems: str | Problem) -> None:
        super().__init__(*(p if isinstance(p, str) else _plain(p) for p in problems))
        self.details: tuple[str | Problem, ...] = problems


class DataError(SegtoolError):
    """Images or masks that cannot be used as they are."""

    exit_code = 3


class CheckpointError(SegtoolError):
    """A checkpoint, run directory or disk that does not hold what it must."""

    exit_code = 4


class DiskError(CheckpointError):
    """A file that the disk did not take, or that may not be put there."""


class ShortageError(SegtoolError):
    """Memory that does not suffice."""

    exit_code = 4


class HungError(SegtoolError):
    """Another process of the job has not answered in time."""

    exit_code = 4


class LostError(SegtoolError):
    """Another process of the job has ended; what ended it is told there."""

    exit_code = 4


class JobError(SegtoolError):
    """One of several processes failed; it has told its errors itself."""

    def __init__(self, problem: str, exit_code: int) -> None:
        super().__init__(problem)
        self.exit_code = exit_code


class DivergedError(SegtoolError):
    """The loss or a gradient is no longer finite."""

    exit_code = 5


class Interrupted(SegtoolError):  # noqa: N818 -- nothing went wrong
    """A signal ended the work after what was done had been saved."""

    def __init__(self, signal_number: int, resume: str, step: int) -> None:
        super().__init__(f"interrupted; step {step} is saved. Continue with: {resume}")
        self.exit_code = 128 + signal_number
        self.step = step


def shown(path: Path | str) -> str:
    """Returns a path as a message may show it: control characters and bytes that are no UTF-8 are escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(path))


def few(names: Iterable[Path | str], most: int = 5) -> str:
    """Returns the first of some names as a message may show them, and how many more there are."""
    known = list(names)
    return ", ".join(map(shown, known[:most])) + (f" and {len(known) - most} more" if len(known) > most else "")


def _plain(problem: Problem) -> str:
    return f"{problem.path}: {problem.message}" if problem.path else problem.message
