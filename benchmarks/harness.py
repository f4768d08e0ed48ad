"""What the programs of `make bench` share: two sides run A B A B, and what came of them as rows of one table.

A row is a ratio of two things that were measured in one run, so that the speed of the machine, which changes from hour
to hour, cancels. Each program prints its rows as one JSON document; `benchmarks.bench` runs them all and makes the
table.

A side whose settings are those of its whole process (the allocator, the number of threads) is a program of its own that
`serve`s rounds; the other side's process waits meanwhile.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, Self

from segtool.cli import app

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
"""The config of trainings whose data is made up."""

Round = Callable[[], float]
"""Does a side's work once and returns its seconds, or whatever else is compared."""


@dataclass(frozen=True)
class Row:
    """One line of the table of docs/benchmarks.md."""

    what: str
    """What is measured."""
    against: str
    """What it is divided by."""
    ratios: tuple[float, ...]
    """One for each round."""
    target: float
    at_least: bool
    """Whether a ratio of the target or more reaches it; else one of the target or less does."""
    figures: dict[str, str] = field(default_factory=dict)
    """What was measured on the way, with units."""
    note: str = ""
    """What the ratio leaves out."""
    unit: str = ""
    """Of what is compared, where it is no ratio: seconds, MB."""
    needs: Literal["", "bf16", "cuda"] = ""
    """What the target was set for: a processor that computes bfloat16 fast, or a GPU."""
    axes: tuple[str, str] = ("", "")
    """What the points are, with units."""
    points: tuple[tuple[float, float], ...] = ()
    """What the ratio was made of, for a plot."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Returns a row that was printed as JSON."""
        pairs = {name: tuple(stored[name]) for name in ("ratios", "axes") if name in stored}
        return cls(**{**stored, **pairs, "points": tuple((x, y) for x, y in stored.get("points", ()))})

    @property
    def median(self) -> float:
        """The ratio that counts."""
        return statistics.median(self.ratios)

    @property
    def reached(self) -> bool:
        """Whether the median reaches the target."""
        return self.median >= self.target if self.at_least else self.median <= self.target


@dataclass(frozen=True)
class Result:
    """What came of one program, as `benchmarks.bench` keeps it."""

    program: str
    date: str
    """Day and time in UTC at which it began."""
    commit: str
    """Of the repository, with `, changed` where files differ from it; empty where there is none."""
    seconds: float
    """How long it took."""
    machine: dict[str, str]
    versions: dict[str, str]
    rows: tuple[Row, ...]
    failed: str = ""
    """Why there are no rows."""

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """Returns the result that was written as JSON."""
        return cls(**{**stored, "rows": tuple(Row.of(row) for row in stored["rows"])})


def alternate(ours: Round, peer: Round, *, rounds: int, warmup: int = 1) -> tuple[list[float], list[float]]:
    """Returns what both sides took in each round, run A B A B after `warmup` rounds that do not count."""
    first, second = in_turn(ours, peer, rounds=rounds, warmup=warmup)
    return first, second


def in_turn(*sides: Round, rounds: int, warmup: int = 1) -> list[list[float]]:
    """Returns what each side took in each round, as `alternate` does with two."""
    for _ in range(warmup):
        for side in sides:
            side()
    taken = [[side() for side in sides] for _ in range(rounds)]
    return [list(times) for times in zip(*taken, strict=True)]


class Side:
    """A program in a process of its own; `side()` makes it do its work once and returns what it measured.

    Args:
        command: What stands behind `python -m`.
        environment: Variables that it has besides this process's.
    """

    def __init__(self, *command: str, **environment: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self.command = command

    def __call__(self) -> float:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{' '.join(self.command)}: ended with {self.process.wait()}")
        return float(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def serve(work: Round) -> None:
    """Does the work each time that the other end of a `Side` asks for it."""
    for _ in sys.stdin:
        print(work(), flush=True)


def segtool(*words: str | Path, device: str = "cpu") -> str:
    """Runs a command in this process, quietly, and returns its standard output.

    Raises:
        SegtoolError: what the command raises.
    """
    with contextlib.redirect_stdout(io.StringIO()) as output:
        app([*map(str, words), "--device", device, "--quiet"], prog_name="segtool", standalone_mode=False)
    return output.getvalue()


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Returns the ratio of each round."""
    return tuple(a / b for a, b in zip(above, below, strict=True))


def middle(values: Iterable[float]) -> float:
    """Returns the median."""
    return statistics.median(values)


def report(*rows: Row) -> None:
    """Prints rows for `benchmarks.bench`."""
    print(json.dumps([asdict(row) for row in rows]))


def machine() -> dict[str, str]:
    """Returns what names the machine: processor, instruction sets that matter here, cores, threads, memory."""
    facts = _cpu_facts()
    flags = facts.get("flags", "").split()
    sets = [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if name in flags]
    threads = os.environ.get("OMP_NUM_THREADS", "as many as cores")
    return {
        "processor": facts.get("model name", platform.processor() or platform.machine()),
        "instruction sets": ", ".join(sets) or "unknown",
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "threads": threads,
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.system()}, {' '.join(platform.libc_ver())}",
        "python": platform.python_version(),
        **_gpu(),
    }


def _gpu() -> dict[str, str]:
    """Returns the name of the first GPU where there is one; torch is asked in a process of its own."""
    code = "import torch; print(torch.cuda.get_device_name() if torch.cuda.is_available() else '')"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False).stdout.strip()
    return {"gpu": found} if found else {}


def versions(*packages: str) -> dict[str, str]:
    """Returns the installed versions of packages; of one that is not there, `not installed`."""
    found: dict[str, Any] = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _cpu_facts() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    pairs = (line.split(":", 1) for line in path.read_text().split("\n\n")[0].splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}
