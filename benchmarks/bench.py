"""Runs every program of the comparison with what people would use instead, and makes one table of it.

    python -m benchmarks.bench                          # all of them; writes docs/benchmarks.md and its plots
    python -m benchmarks.bench --only scoring startup   # these anew, the others as they were
    python -m benchmarks.bench --report                 # the page anew from what was measured

Each program is a process of its own, one after the other; what it printed is kept in OUT/NAME.json. One that fails is a
row that says so, and the others go on.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.bench_report import page, shown_table
from benchmarks.harness import Result, Row, machine, versions

PROGRAMS = (
    "training_step",
    "busy_cores",
    "sample",
    "whole_training",
    "prediction",
    "large_image",
    "scoring",
    "startup",
    "quality",
    "growth",
    "cuda",
)
"""In the order of the table."""
PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "pillow",
    "segmentation-models-pytorch",
    "albumentations",
    "monai",
    "torchmetrics",
)
LIMIT = 900  # seconds after which a program is ended


def measure(program: str, *, data: Path, quick: bool) -> Result:
    """Runs a program and returns what came of it; what it says on standard error is passed on."""
    began, date = time.monotonic(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    command = [sys.executable, "-m", f"benchmarks.{program}", "--data", str(data), *(["--quick"] if quick else [])]
    rows: tuple[Row, ...] = ()
    failed = ""
    with tempfile.TemporaryFile("w+") as output:
        code, last = _run(command, output)
        output.seek(0)
        printed = output.read()
    if code:
        failed = f"exit code {code}: {last}" if last else f"exit code {code}"
    else:
        try:
            rows = tuple(Row.of(row) for row in json.loads(printed))
        except (ValueError, TypeError) as error:
            failed = f"printed no rows: {error}"
    seconds = round(time.monotonic() - began, 1)
    return Result(program, date, commit(), seconds, machine(), versions("segtool", *PACKAGES), rows, failed)


def _run(command: Sequence[str], output: Any) -> tuple[int, str]:
    """Returns the exit code and the last line of standard error."""
    last = ""
    with subprocess.Popen(command, stdout=output, stderr=subprocess.PIPE, text=True, errors="replace") as process:
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:
                last = line.strip() or last
                print(f"  {line.rstrip()}", file=sys.stderr, flush=True)
            code = process.wait()
            late = not timer.is_alive()
        finally:
            timer.cancel()
            process.kill()
    return code, f"ended after {LIMIT} s" if code and late else last


def commit() -> str:
    """Returns the commit that the code is at, and whether it differs from it."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        name = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no", "--", "../segtool", "."],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name.strip() + (", changed" if changes else "")


def run(programs: Sequence[str], out: Path, *, data: Path, quick: bool) -> None:
    """Measures programs and keeps what came of each in OUT/NAME.json."""
    out.mkdir(parents=True, exist_ok=True)
    for number, program in enumerate(programs, start=1):
        print(f"[{number}/{len(programs)}] {program}", file=sys.stderr, flush=True)
        result = measure(program, data=data, quick=quick)
        (out / f"{program}.json").write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")
        done = f"failed: {result.failed}" if result.failed else f"{len(result.rows)} rows"
        print(f"  {done} in {result.seconds:.0f} s", file=sys.stderr, flush=True)


def results(out: Path) -> Iterator[Result]:
    """Yields what is kept, in the order of the table."""
    for program in PROGRAMS:
        path = out / f"{program}.json"
        if path.is_file():
            yield Result.of(json.loads(path.read_text(encoding="utf-8")))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints the table, writes the page; returns 1 where a program failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=PROGRAMS, default=PROGRAMS, help="programs to run")
    parser.add_argument("--data", type=Path, default=Path("data/camvid"), help="CamVid; made-up images where absent")
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way; its numbers mean nothing")
    parser.add_argument("--report", action="store_true", help="measure nothing; make the page of what is kept")
    parser.add_argument("--out", type=Path, help="where results are kept (default: runs/bench, or runs/bench-quick)")
    parser.add_argument("--docs", type=Path, help="where benchmarks.md and images/ go (default: docs; --quick: none)")
    options = parser.parse_args(arguments)
    out = options.out or Path("runs/bench-quick" if options.quick else "runs/bench")
    docs = options.docs or (None if options.quick else Path("docs"))
    if not options.report:
        run(options.only, out, data=options.data, quick=options.quick)
    found = list(results(out))
    if not found:
        print(f"{out}: holds no results; leave out --report to measure them", file=sys.stderr)
        return 1
    Console(width=None if sys.stdout.isatty() else 160).print(shown_table(found))
    if docs is not None:
        from benchmarks.plots import draw  # only this needs matplotlib

        pictures = draw([row for result in found for row in result.rows], docs / "images")
        docs.mkdir(parents=True, exist_ok=True)
        missing = [program for program in PROGRAMS if program not in {result.program for result in found}]
        (docs / "benchmarks.md").write_text(page(found, pictures, missing), encoding="utf-8")
        print(f"{docs / 'benchmarks.md'} and {len(pictures)} plots", file=sys.stderr)
    return 1 if any(result.failed for result in found) else 0


if __name__ == "__main__":
    sys.exit(main())
