"""`train --gpus N`: the processes of one machine, started and watched by torch's elastic launcher.

What is started is `segtool train` itself, as torchrun would start it. When one process fails the launcher ends all, and
then it tells what ended the job.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from segtool.errors import ConfigError, DataError, DivergedError, JobError, LostError, SegtoolError
from segtool.system.pools import num_cores

LASTING = {error.exit_code for error in (ConfigError, DataError, DivergedError)}  # a new start meets them again
ERROR_FILE = "TORCHELASTIC_ERROR_FILE"  # that a launcher, torchrun too, gives each process to say why it fails


def launch(
    arguments: Callable[[], Sequence[str]],
    *,
    processes: int,
    max_restarts: int,
    patience: float,
    say: Callable[[str], object],
) -> None:
    """Runs `segtool ARGUMENTS` in several processes, and returns when all are done.

    Args:
        arguments: Asked at each start, as of a budget less is left each time.
        max_restarts: How often all are started again when one was killed, hung or failed; not where its error is one of
            usage, of data or a divergence.
        patience: Seconds that they have to save after SIGINT or SIGTERM.
        say: Told why they are started again.

    Raises:
        JobError: one of them failed.
        SystemExit: SIGINT or SIGTERM came, and the processes have ended with it.
    """
    job = uuid.uuid4().hex
    for restart in range(max_restarts + 1):
        failed = _run(arguments(), processes, job, patience)
        if failed is None:
            return
        if restart == max_restarts or failed.exit_code in LASTING:
            raise failed
        say(f"{failed}; starting again ({restart + 1} of {max_restarts})")


def record(error: Exception) -> None:
    """Writes why this process fails to where its launcher reads it, if it has one.

    The end of another process is no reason: the launcher knows that one's own.
    """
    path = os.environ.get(ERROR_FILE)
    if not path or isinstance(error, LostError):
        return
    text = str(error) if isinstance(error, SegtoolError) else f"{type(error).__name__}: {error}"
    facts = {"message": text, "extraInfo": {"py_callstack": text, "timestamp": str(int(time.time()))}}
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as file:
        json.dump({"message": facts}, file)


def _run(arguments: Sequence[str], processes: int, job: str, patience: float) -> JobError | None:
    """Runs all processes once, and returns what ended them where one of them failed."""
    try:
        from torch.distributed.elastic.multiprocessing.api import DefaultLogsSpecs, SignalException
        from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
        from torch.distributed.launcher.api import LaunchConfig, elastic_launch
    except ImportError as error:
        raise SegtoolError(
            f"--gpus: this build of torch cannot start several processes ({error}); leave it out"
        ) from error
    share = max(1, num_cores() // processes)
    environment = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(share))}
    environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] = str(int(patience) + 1)
    # Found where this process has found it: in the current folder only where that is looked at anyway.
    command = ["-m", "segtool"] if {"", os.getcwd()} & set(sys.path) else ["-P", "-m", "segtool"]
    with tempfile.TemporaryDirectory(prefix="segtool-") as logs, _quietly(environment):
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=job,
            rdzv_backend="c10d",
            rdzv_endpoint="127.0.0.1:0",
            local_addr="127.0.0.1",  # the machine's own name may lead nowhere
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=logs),
        )
        try:
            elastic_launch(config, sys.executable)(*command, *arguments)
        except ChildFailedError as error:
            return _cause(error.failures, processes)
        except SignalException as error:
            raise SystemExit(128 + error.sigval) from error
    return None


def _cause(failures: Mapping[int, Any], processes: int) -> JobError:
    """Returns what failed first: an error that a process told or a signal from elsewhere, not the end of the others."""

    def order(rank: int) -> tuple[bool, float]:
        failure = failures[rank]
        told = isinstance(failure.message, dict)
        killed = failure.exitcode < 0 and failure.exitcode != -signal.SIGTERM
        return not (told or killed), failure.timestamp

    rank = min(failures, key=order)
    failure = failures[rank]
    if failure.exitcode < 0:
        number = -failure.exitcode
        hint = "; the system may have run out of memory" if number == signal.SIGKILL else ""
        return JobError(f"rank {rank} of {processes} was killed (signal {number}){hint}", 128 + number)
    text = failure.message["message"] if isinstance(failure.message, dict) else f"exit code {failure.exitcode}"
    first, *rest = text.splitlines() or [""]
    more = f" (and {len(rest)} more, above)" if rest else ""
    return JobError(f"rank {rank} of {processes} ended the job: {first}{more}", failure.exitcode)


@contextlib.contextmanager
def _quietly(environment: Mapping[str, str]) -> Generator[None]:
    """Sets the environment inside, keeps torch's own log off the terminal, and puts the handlers of signals back."""
    before = {name: os.environ.get(name) for name in environment}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    os.environ.update(environment)
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
