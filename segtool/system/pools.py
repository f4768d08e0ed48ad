"""Work on many files at once: threads, or processes where Python's lock would keep threads waiting."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from segtool.errors import ShortageError
from segtool.system import control_group
from segtool.system.memory import keep_freed_memory

SHARE = 100  # items that are worth a process
MOST = 50  # of them that go to a process at a time
T = TypeVar("T")

_function: Callable[..., Any]  # of a process that was forked, with what it works on
_items: Sequence


def num_cores() -> int:
    """Returns the number of processors that this process may use: those that it may run on, or the time of fewer."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(count, control_group.processors() or count)


def num_threads() -> int:
    """Returns the number of processors that this process may use, no more than OMP_NUM_THREADS where that is set.

    Of a list, which OpenMP reads as one number for each level of nesting, the first counts.
    """
    limit = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    count = num_cores()
    return min(count, int(limit)) if limit.isdigit() and int(limit) > 0 else count


def import_numpy() -> None:
    """Imports NumPy for work on many files, in which its matrix products take one thread each.

    They are small and many. OpenBLAS shares each out, and its threads wait for the next one without sleeping: checking
    10,000 pairs took 0.9 s of processor time more on two cores, and not a moment less of the clock.
    """
    if "numpy" in sys.modules:
        return
    given = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = given or "1"
    import numpy as numpy  # reads it, once

    if given is None:
        del os.environ["OPENBLAS_NUM_THREADS"]
    end_imports()


def end_imports() -> None:
    """Has Python look for garbage again, where a command works long; never in what it has imported until then.

    `segtool.__main__` has stopped it. To look in there took 0.15 s of a check of 10,000 pairs.
    """
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


def in_threads(function: Callable[..., T], items: Sequence) -> list[T]:
    """Returns the function's value of each item, worked out in threads: decoding releases Python's lock.

    There are up to 8 threads, and no more than processors or OMP_NUM_THREADS.
    """
    with ThreadPoolExecutor(min(8, num_threads())) as pool:
        return list(pool.map(function, items))


def each_in_processes(function: Callable[..., T], items: Sequence, *, share: int | None = None) -> Iterator[T]:
    """Yields the function's value of each item, a third sooner than threads where items take a millisecond.

    The processes are forked, so function and items may be any; values are pickled. Where there are few items, where
    forking is not safe (other threads run, or the system is not Linux), and with one processor, threads do it.

    Args:
        share: Items that are worth a process; `SHARE` where none is given.

    Raises:
        ShortageError: a process has died, as the system has them where memory runs out.
    """
    end_imports()
    count = min(num_threads(), len(items) // (share or SHARE))
    forks = count > 1 and sys.platform == "linux" and threading.active_count() == 1
    others = multiprocessing.active_children()
    pool: Executor
    if forks:
        gc.freeze()  # to look for garbage among what is there by now would copy it into each process
        fork = multiprocessing.get_context("fork")
        pool = ProcessPoolExecutor(count, mp_context=fork, initializer=_begin, initargs=(function, items))
    else:
        pool = ThreadPoolExecutor(min(8, num_threads()))
    try:
        if forks:
            yield from pool.map(_call, range(len(items)), chunksize=min(MOST, -(-len(items) // (64 * count))))
        else:
            yield from pool.map(function, items)
    except BrokenProcessPool as error:
        raise ShortageError(
            "a process that works on files has died, most likely killed by the system, as happens where memory runs "
            "out: end what else runs here, or set OMP_NUM_THREADS=1, with which one process does all the work"
        ) from error
    except BaseException:
        for process in multiprocessing.active_children():
            if process not in others:  # what each is at may take long, and nobody asks for it now
                process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(function: Callable[..., Any], items: Sequence) -> None:
    global _function, _items
    _function, _items = function, items
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends the work
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    keep_freed_memory()


def _call(number: int) -> Any:
    return _function(_items[number])
