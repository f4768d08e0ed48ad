"""What ends the work at a clean place: Ctrl-C (SIGINT), SIGTERM, a closed terminal (SIGHUP), a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Generator
from typing import Any

_late: list[int] = []  # signals that have ended nothing yet
_ending: list[int] = []  # the signal at which the program ends
STOPPING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


def end_at_signals() -> None:
    """Has the program end at a signal: what is open is closed, and the exit code is 128 + signal."""
    _handle(_end)


@contextlib.contextmanager
def catch_signals() -> Generator[list[int]]:
    """Collects signals in a list, so that the step at hand can be finished; a second one ends at once.

    One that comes when nothing is left to be ended, as in the last step of a training, ends what would follow, and the
    program with its code: `end_where_asked`.
    """
    caught: list[int] = []
    with _collected(caught, "finishing this step and saving"):
        yield caught
    _late.extend(caught)


def end_where_asked() -> None:
    """Ends the program where a signal came too late for what it was meant to end, before something else begins."""
    if _late:
        number = _late.pop()
        _tell(f"stopped by {signal.Signals(number).name}; the training that it came in is done and whole")
        sys.exit(128 + number)


def end_if_ending() -> None:
    """Ends the program where a signal has, but what it came in has dropped that, as the compiler of modules can."""
    if _ending:
        sys.exit(128 + _ending.pop())


@contextlib.contextmanager
def raised_at_signals(error: Callable[[int], BaseException]) -> Generator[None]:
    """Ends what is inside at a signal, with the error for it; a second one ends at once.

    It leaves as SystemExit, which is taken for no failure of what is inside; where it is caught there, the error comes
    at the end.
    """
    caught: list[int] = []
    try:
        with _collected(caught, "stopping", ending=True):
            yield
    except BaseException as raised:
        if caught:
            raise error(caught[0]) from raised
        raise
    if caught:
        raise error(caught[0])


class TimeUpError(Exception):
    """The time of a `time_limit` is up."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Generator[None]:
    """Raises TimeUpError inside after so much processor time; in a main thread only, and not on Windows.

    For what knows no limit of its own and looks for signals, as re does: some patterns take time that doubles with each
    character of a text.
    """
    if not hasattr(signal, "SIGVTALRM") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def _handle(handler: Callable[[int, object], None]) -> dict[int, Any]:
    """Sets what is called at the signals that stop the program, and returns what was before."""
    return {number: signal.signal(number, handler) for number in STOPPING if not _is_shielded(number)}


@contextlib.contextmanager
def _collected(caught: list[int], doing: str, *, ending: bool = False) -> Generator[None]:
    """Inside, collects the signals that stop the program, says what is done about the first, and ends at a second.

    Args:
        caught: Gets them.
        doing: What is done, in words.
        ending: Whether the first one raises SystemExit.
    """

    def catch(number: int, frame: object) -> None:
        if caught:
            _end_at_once(number, frame)
        caught.append(number)
        _tell(f"signal received: {doing}; once more to stop at once")
        if ending:
            sys.exit(128 + number)

    end_if_ending()
    before = _handle(catch)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def _end(number: int, _frame: object) -> None:
    _handle(_end_at_once)
    _tell(f"stopped by {signal.Signals(number).name}")
    _ending.append(number)
    sys.exit(128 + number)


def _end_at_once(number: int, _frame: object) -> None:
    os._exit(128 + number)


def _tell(text: str) -> None:
    if os.environ.get("RANK", "0") != "0":  # of several processes one speaks
        return
    with contextlib.suppress(OSError):  # of a terminal that is gone
        os.write(2, f"\n{text}\n".encode())


def _is_shielded(number: int) -> bool:
    """Whether the program was started by nohup, which is meant to outlast its terminal."""
    return number == getattr(signal, "SIGHUP", None) and signal.getsignal(number) is signal.SIG_IGN
