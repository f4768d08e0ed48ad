"""Runs work in several processes that form a `World`, as torchrun would start them, without starting Python anew."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch._dynamo  # noqa: F401 -- what builds a network imports it: once here, not in each process

from segtool.errors import SegtoolError


@dataclass(frozen=True)
class Ended:
    """What became of a process."""

    value: Any = None
    """What its work returned, through JSON."""
    error: str = ""
    """The class of what it raised."""
    text: str = ""
    seconds: float = 0.0


def in_ranks(size: int, work: Callable[[], Any], directory: Path, *, timeout: float = 60.0) -> list[Ended]:
    """Returns what `work` came to in each of several processes, in the order of their ranks.

    They are forked, so what is patched in this process is patched in them, and `work` may be a closure.

    Args:
        work: Looks at `RANK` where it is not the same for all; returns what JSON holds.
        directory: For the results.
        timeout: Seconds after which the test fails, the processes killed.
    """
    environment = {
        "WORLD_SIZE": size,
        "LOCAL_WORLD_SIZE": size,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": _free_port(),
    }
    directory.mkdir(parents=True, exist_ok=True)
    pids = [_fork(rank, environment, work, directory / f"rank-{rank}.json") for rank in range(size)]
    deadline = time.monotonic() + timeout
    left = set(pids)
    try:
        while left:
            left -= {pid for pid in left if os.waitpid(pid, os.WNOHANG)[0]}
            if time.monotonic() > deadline:
                pytest.fail(f"ranks {[pids.index(pid) for pid in left]} of {size} did not end in {timeout} s")
            time.sleep(0.01)
    finally:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, 9)
            os.waitpid(pid, 0)
    files = [directory / f"rank-{rank}.json" for rank in range(size)]
    return [Ended(**json.loads(path.read_text())) if path.exists() else Ended(error="killed") for path in files]


def values_of(ended: list[Ended]) -> list[Any]:
    """Returns what all processes returned, none of which may have failed."""
    assert not any(one.error for one in ended), ended
    return [one.value for one in ended]


def _fork(rank: int, environment: dict[str, Any], work: Callable[[], Any], result: Path) -> int:
    result.unlink(missing_ok=True)
    pid = os.fork()
    if pid:
        return pid
    began = time.monotonic()
    try:
        os.environ.update({name: str(value) for name, value in environment.items()})
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
        os.environ.pop("TORCHELASTIC_RUN_ID", None)
        ended: dict[str, Any] = {"value": work()}
    except (SegtoolError, SystemExit) as error:
        ended = {"error": type(error).__name__, "text": str(error)}
    except BaseException:
        ended = {"error": "bug", "text": traceback.format_exc()}
    result.write_text(json.dumps({**ended, "seconds": time.monotonic() - began}))
    os._exit(0)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
