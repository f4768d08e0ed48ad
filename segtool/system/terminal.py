"""What people see: lines, warnings and progress on standard error, tables on standard output.

rich and tqdm are imported where something is shown: what a command prints as JSON needs neither.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from segtool.errors import shown
from segtool.system import disk, streams

if TYPE_CHECKING:
    from rich.console import Console
    from tqdm import tqdm

T = TypeVar("T")
PLAIN_SECONDS = 10  # between two plain lines of progress where no terminal redraws a bar


class Reporter:
    """Says things on standard error, and the same in a log file where there is one.

    Texts may hold names of files: what a terminal would obey, or a log could not encode, is written escaped.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.quiet = quiet
        self._log: Path | None = None
        self._unkept: list[str] = []  # lines that were said before there was a log
        self._bar: tqdm | None = None
        self._plain_at = 0.0

    @cached_property
    def console(self) -> Console:
        from rich.console import Console

        return Console(stderr=True, highlight=False, emoji=False)

    def say(self, text: str) -> None:
        """Prints a line, or several."""
        text = _lines(text)
        if not self.quiet:
            self._print(text)
        self._keep(text)

    def warn(self, text: str) -> None:
        """Prints a warning, also when quiet."""
        text = f"warning: {_lines(text)}"
        self._print(text, style="yellow")
        self._keep(text)

    def track(self, items: Iterable[T], *, total: int, unit: str, label: str) -> Iterator[T]:
        """Yields the items, showing how many are done; nothing where that takes under 10 s without a terminal."""
        if not self.quiet and self.console.is_terminal:
            with _bar(items, total=total, unit=unit, desc=label) as bar:
                yield from bar
            return
        count = self.counter(unit=unit, label=label)
        for done, item in enumerate(items):
            count(done, total)
            yield item

    def counter(self, *, unit: str, label: str) -> Callable[[int, int], None]:
        """Returns what shows how many of a total are done; nothing where that takes under 10 s without a terminal."""
        bar: tqdm | None = None
        told = time.monotonic()
        is_terminal = cache(lambda: self.console.is_terminal)  # which reads the environment each time

        def count(done: int, total: int) -> None:
            nonlocal bar, told
            if self.quiet:
                return
            if is_terminal():
                if bar is None:
                    bar = _bar(total=total, unit=unit, desc=label)
                bar.update(done - bar.n)
                if done == total:
                    bar.close()
                    bar = None
            elif time.monotonic() - told > PLAIN_SECONDS:
                told = time.monotonic()
                self._print(f"{label}: {done} of {total} {unit}s")

        return count

    def step(self, text: str, *, done: int, total: int) -> None:
        """Shows the progress of a training: a bar in a terminal, else a plain line each 10 s."""
        if not self.quiet and self.console.is_terminal:
            if self._bar is None:
                form = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}"
                self._bar = _bar(total=total, bar_format=form)
            self._bar.n, self._bar.total = done, total
            self._bar.set_description_str(text)
        if time.monotonic() - self._plain_at > PLAIN_SECONDS or done == total:
            self._plain_at = time.monotonic()
            self._keep(text)
            if not self.quiet and not self.console.is_terminal:
                self._print(text)

    def keep_in(self, log: Path) -> None:
        """Adds what was said up to here to a log file, and what is said from here on."""
        self._log = log
        text, self._unkept = "\n".join(self._unkept), []
        if text:
            self._keep(text)

    def note(self, text: str) -> None:
        """Keeps lines in the log that are said elsewhere."""
        self._keep(_lines(text))

    def close(self) -> None:
        """Takes the bar away and keeps no log from here on."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        self._log = None

    def _keep(self, text: str) -> None:
        if self._log is None:
            self._unkept.append(text)
        else:
            disk.append(self._log, f"{text}\n".encode())

    def _print(self, text: str, style: str | None = None) -> None:
        if self._bar is not None:
            self._bar.clear()
        for line in text.split("\n"):
            # A terminal's lines end between words, but for a command, which would be copied with their ends in it.
            whole = not self.console.is_terminal or "segtool " in line
            self.console.print(line, style=style, markup=False, soft_wrap=whole)
        if self._bar is not None:
            self._bar.refresh()


class Mute(Reporter):
    """Says nothing: of a process that works for the main one."""

    def __init__(self) -> None:
        super().__init__(quiet=True)

    def _print(self, text: str, style: str | None = None) -> None:
        pass


def print_errors(problems: Sequence[str]) -> None:
    """Prints what ends a command, or keeps it from a part of its work, on standard error."""
    mark = "\x1b[31merror:\x1b[0m" if streams.is_styled(sys.stderr) else "error:"
    for problem in problems:
        # The lines that follow the first may be a config to paste: they are left as they are.
        lines = [shown(line) for line in problem.splitlines()] or [""]
        print(mark, "\n".join(lines), file=sys.stderr)


def duration(seconds: float) -> str:
    """Returns a length of time as people write it: `42 s`, `7 min 05 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def amount(size: float) -> str:
    """Returns bytes as people read them: `8.2 kB`, `34.5 MB`, `1.25 GB`."""
    if size < 1e5:
        return f"{size / 1e3:.1f} kB"
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def counted(number: int, what: str) -> str:
    """Returns a number of things as people read it: `1 pixel`, `1,234 pixels`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def percent(value: float | None) -> str:
    """Returns a share as a percentage with two decimals; a hyphen where it is undefined."""
    return "-" if value is None else f"{100 * value:.2f}"


def _bar(items: Iterable[T] | None = None, **options: Any) -> tqdm[T]:
    from tqdm import tqdm

    tqdm.monitor_interval = 0  # its thread would keep processes from being forked
    return tqdm(items, file=sys.stderr, leave=False, dynamic_ncols=True, **options)


def _lines(text: str) -> str:
    return "\n".join(shown(line) for line in text.split("\n"))
