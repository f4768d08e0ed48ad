"""A server that runs `segtool` in forked processes and signals them at an exact moment: no hook in the product.

`python killing.py` imports what a training needs once; each request, a line of JSON on standard input, is a command
line in a process of its own. `at` names its moment: of what it does to files under `directory` it counts each opening,
writing, flushing to disk, renaming, making and removing, and the process and its group get the signals (SIGKILL) before
the one with that number, or the first that `at` matches as a pattern; killed in a writing, it has written the half.
"""

from __future__ import annotations

import fnmatch
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

AUDITED = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir"}


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Its exit code, or minus the signal that killed it."""
    said: str
    """Standard output and error, as one."""
    events: tuple[str, ...]
    """What it did to the files, where it was not killed."""


class Server:
    """Runs commands in forks of one process that has imported everything."""

    def __init__(self, scratch: Path, config: Path) -> None:
        self.scratch = scratch
        command = [sys.executable, __file__, "train", config, "--run", scratch / "warm", "--set", "train.steps=1"]
        command.append("--no-preflight")
        self.process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )

    def run(
        self,
        *arguments: str | Path,
        directory: Path | None = None,
        at: int | str | None = None,
        signals: Sequence[int] = (signal.SIGKILL,),
        broken: str = "",
    ) -> Ended:
        """Runs `segtool` with these arguments to its end, a training without preflight: its events are not counted.

        Args:
            directory: Folder whose events count.
            at: Number of the event, from 1, or pattern of the first one, at which the signals come.
            signals: Sent to the process and its group.
            broken: Python that is run before: it breaks the product, as a negative control.
        """
        said, events = self.scratch / "said", self.scratch / "events"
        events.unlink(missing_ok=True)
        left_out = ["--no-preflight"] if arguments[0] == "train" else []
        request = {"arguments": [*map(str, arguments), *left_out], "at": at, "said": str(said), "events": str(events)}
        request |= {"signals": list(map(int, signals)), "broken": broken}
        request["directory"] = None if directory is None else str(directory)
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout
        code = int(self.process.stdout.readline())
        lines = events.read_text().splitlines() if events.exists() else []
        return Ended(code, said.read_text(errors="replace"), tuple(lines))

    def close(self) -> None:
        """Ends the server."""
        self.process.communicate(timeout=60)


class Killer:
    """Sends signals to this process and its group before an event."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        self.directory = request["directory"]
        self.at = request["at"]
        self.kept = request["events"]
        self.signals = request["signals"]
        self.pid = os.getpid()
        self.count = 0

    def install(self) -> None:
        """From here on events count."""
        self.log = os.open(self.kept, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.write = os.write
        os.write, os.fsync = self.written, self.synced
        sys.addaudithook(self.audited)

    def audited(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name in AUDITED and isinstance(arguments[0], str | bytes | os.PathLike):
            self.happens(name.removeprefix("os."), os.fsdecode(arguments[0]))

    def synced(self, descriptor: int) -> None:
        self.happens("fsync", os.readlink(f"/proc/self/fd/{descriptor}"))  # and does not wait for the disk

    def written(self, descriptor: int, content: Any) -> int:
        half = memoryview(content)[: len(content) // 2]
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        self.happens("write", path, before=lambda: self.write(descriptor, half))
        return self.write(descriptor, content)

    def counts(self, path: str) -> bool:
        """Whether what happens to a path is an event; what loading processes do is none."""
        return os.path.abspath(path).startswith(self.directory) and os.getpid() == self.pid

    def happens(self, kind: str, path: str, before: Callable[[], object] = lambda: None) -> None:
        """Counts an event, and dies where it is the one."""
        if not self.counts(path):
            return
        self.count += 1
        event = f"{kind} {os.path.relpath(path, self.directory)}".replace(str(self.pid), "PID")
        if self.at == self.count or (isinstance(self.at, str) and fnmatch.fnmatch(event, self.at)):
            self.at = None
            if signal.SIGKILL in self.signals:
                before()
            for number in self.signals:
                os.killpg(0, number)
        self.write(self.log, f"{event}\n".encode(errors="replace"))


def serve() -> None:
    """Answers each request with how its process ended."""
    for line in sys.stdin:
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            work(request)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def work(request: Mapping[str, Any]) -> NoReturn:
    """Becomes the command."""
    from segtool.cli import main

    os.setpgid(0, 0)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whatever the tests themselves were started by
    said = os.open(request["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    for stream in (1, 2):
        os.dup2(said, stream)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    sys.stdin = open(0)  # noqa: SIM115 -- what is left in the server's is not the command's
    sys.argv = ["segtool", *request["arguments"]]
    if request["directory"] is not None:
        Killer(request).install()
    exec(request["broken"], {})
    main()
    sys.exit(0)


def warm_up(arguments: list[str]) -> None:
    """Runs a command in this process, so that its forks have imported what it needs."""
    from segtool.cli import main

    with open(os.devnull, "w") as nowhere, redirect_stderr(nowhere), suppress(SystemExit):
        sys.argv = ["segtool", *arguments]
        main()


if __name__ == "__main__":
    warm_up(sys.argv[1:])
    serve()
