"""What `benchmarks.bench` shows: the table on the terminal, and the page docs/benchmarks.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.table import Table

from benchmarks.harness import Result, Row

TITLES = ("what", "against", "target", "measured", "reached")
NEEDS = {"bf16": "a processor that computes bfloat16 fast (AVX512-BF16 or AMX)", "cuda": "a GPU with CUDA"}
BF16_SETS = ("avx512_bf16", "amx_bf16")
INTRODUCTION = """\
# Benchmarks

<!-- Written by `make bench`; what is changed here is lost. -->

What segtool takes against what people would use instead, each a ratio of two things measured in turn (A B A B) in one
run on one machine, with the same network, batch, inputs and threads on both sides. The median of the rounds counts;
the lowest and the highest stand behind it. The speed of a machine that others share changes from hour to hour: the
ratio stands that, the seconds under [Figures](#figures-and-what-each-row-leaves-out) do not, and a ratio of another
machine is another one.

`make bench` measures all of it again and rewrites this page; [benchmarks/README.md](../benchmarks/README.md) says how
to measure one row. CUDA is measured by `python -m benchmarks.cuda` where there is a GPU.
"""


def shown_table(results: Sequence[Result]) -> Table:
    """Returns the table for the terminal."""
    table = Table(*TITLES)
    for cells in _cells(results):
        table.add_row(*cells)
    return table


def page(results: Sequence[Result], pictures: Sequence[Path], missing: Sequence[str] = ()) -> str:
    """Returns docs/benchmarks.md.

    Args:
        pictures: Plots, in `images/` beside the page.
        missing: Programs that nothing is kept of.
    """
    absent = f"Not measured: {', '.join(missing)}.\n" if missing else ""
    parts = [INTRODUCTION, _places(results), "## Results\n", _markdown(TITLES, _cells(results))]
    parts += [absent, _out_of_reach(results), _growth(pictures), _details(results)]
    return "\n".join(part for part in parts if part)


def measured(row: Row) -> str:
    """Returns the median, and the lowest and highest where there are several rounds."""
    unit = f" {row.unit}" if row.unit else ""
    if len(row.ratios) == 1:
        return f"{_number(row.median)}{unit}"
    low, high = _number(min(row.ratios)), _number(max(row.ratios))
    return f"{_number(row.median)}{unit} ({low} to {high} in {len(row.ratios)} rounds)"


def target(row: Row) -> str:
    """Returns the target with its direction."""
    return f"{'≥' if row.at_least else '≤'} {_number(row.target)}{f' {row.unit}' if row.unit else ''}"


def lacks(result: Result, row: Row) -> str:
    """Returns what the target was set for and the machine does not have, in words; empty where it has it."""
    if row.needs == "bf16" and not any(name in result.machine["instruction sets"] for name in BF16_SETS):
        return NEEDS["bf16"]
    if row.needs == "cuda" and "gpu" not in result.machine:
        return NEEDS["cuda"]
    return ""


def _number(value: float) -> str:
    """Three significant digits, and all of a whole number of more."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cells(results: Sequence[Result]) -> Iterator[tuple[str, ...]]:
    for result in results:
        if result.failed:
            yield result.program, "", "", f"failed: {result.failed}", "no"
        elif not result.rows:
            yield result.program, "", "", "nothing: this machine lacks what it measures", "not measured"
        for row in result.rows:
            yield row.what, row.against, target(row), measured(row), _verdict(result, row)


def _verdict(result: Result, row: Row) -> str:
    if row.reached:
        return "yes"
    return "no (cannot be shown here)" if lacks(result, row) else "no"


def _markdown(titles: Sequence[str], rows: Iterator[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _places(results: Sequence[Result]) -> str:
    """Returns on what machines, with which versions and when it was measured."""
    text = ["## Where and when\n"]
    machines = list(dict.fromkeys(_facts(result) for result in results))
    for facts in machines:
        here = ", ".join(result.program for result in results if _facts(result) == facts)
        text.append(f"{'All' if len(machines) == 1 else here}: {facts}.\n")
    rows = ((r.program, r.date, r.commit, f"{r.seconds:.0f} s") for r in results)
    text.append(_markdown(("program", "began (UTC)", "commit", "took"), rows))
    return "\n".join(text)


def _facts(result: Result) -> str:
    facts = ", ".join(f"{key}: {value}" for key, value in result.machine.items())
    packages = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return f"{facts}; {packages}"


def _out_of_reach(results: Sequence[Result]) -> str:
    """Returns which targets this machine cannot show, and why."""
    text = []
    for need in NEEDS.values():
        rows = [row for result in results for row in result.rows if lacks(result, row) == need]
        if rows:
            text.append(f"These targets were set for {need}, which the machine above does not have:\n")
            text += [f"* {row.what}, against {row.against}: {target(row)}; here {measured(row)}" for row in rows]
            text.append("")
    text += [
        f"* `{result.program}` measured nothing, since the machine lacks what it is about."
        for result in results
        if not result.rows and not result.failed
    ]
    if not text:
        return ""
    text.append(
        "\nWhat is measured there instead is what the machine can do: the same programs, in float32, on its own "
        "cores. It says nothing of how far the target is missed or passed elsewhere."
    )
    return "\n".join(["## What cannot be shown on this machine\n", *text, ""])


def _growth(pictures: Sequence[Path]) -> str:
    if not pictures:
        return ""
    lines = [f"![{path.stem.removeprefix('bench-').replace('-', ' ')}](images/{path.name})" for path in pictures]
    return "\n".join(["## Growth\n", *lines, ""])


def _details(results: Sequence[Result]) -> str:
    """Returns the figures of each row, and what its ratio leaves out."""
    text = ["## Figures, and what each row leaves out\n"]
    for result in results:
        for row in result.rows:
            text.append(f"**{row.what}**, against {row.against}\n")
            text += [f"* {name}: {value}" for name, value in row.figures.items()]
            text += [f"* {row.note}"] if row.note else []
            text.append("")
    return "\n".join(text)
