"""What `segtool check` finds: every problem of a data set in one pass over its files, each kind told once.

A check is a function from the survey to its findings, entered in `CHECKS` by a decorator; to add one, write it in
`of_files`, `of_matches`, `of_fits`, `of_masks`, `of_splits` or `of_pictures`. The codes' first digit says what they are
about: 1 which files there are, 2 whether they can be read, 3 what the masks hold, 4 the classes, 5 the splits, 6 the
settings. Errors are what stops a training or makes it untrue.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segtool.check import of_files, of_fits, of_masks, of_matches, of_pictures, of_splits  # noqa: F401 -- they enter their checks
from segtool.check.findings import CHECKS, SEVERITIES, Check, Finding, Report, num, share_text, size_text
from segtool.check.report_cache import ReportCache, fingerprint
from segtool.check.survey import Summary, Survey, list_files, summarize, survey_files
from segtool.config import Config, located
from segtool.data.facts import Progress
from segtool.data.formats import Places, data_root
from segtool.errors import shown
from segtool.system.pools import each_in_processes

if TYPE_CHECKING:
    from rich.console import Console


LONGEST = (of_fits.classes_not_exchanged, of_matches.masks_fit_their_images, of_pictures.pictures_apart)
MANY = 200  # images, from which on comparing them is worth several processes
# What follows from another fault of the same files, and is not told beside it.
CAUSES = {
    "SEG111": ("SEG309",),
    "SEG209": ("SEG109",),
    "SEG212": ("SEG209",),
    "SEG305": ("SEG312", "SEG313"),
    "SEG311": ("SEG306",),
    "SEG312": ("SEG313",),
}
PRINTED = {"error": 20, "warning": 20, "note": 5}  # most files of a finding for people; `--json` names more


def examine(config: Config, base: Path, *, progress: Progress | None = None, places: Places | None = None) -> Report:
    """Returns findings and figures of one pass over all files, or those of the last pass where nothing changed since.

    Args:
        progress: Called with the number of files done and their total.
        places: Of this config, where they have been searched.

    Raises:
        ConfigError: a split that names no folder or list, or a file to exclude that is not there.
    """
    with located(config):
        listing = list_files(config, base, places)
        key = fingerprint(config, data_root(config.data, base), listing)
        if key:
            with ReportCache() as cache:
                if known := cache.recall(key):
                    return known
        survey = survey_files(config, base, listing, progress=progress)
    findings = _without_effects([finding for found in _checked(survey) for finding in found])
    findings.sort(key=lambda finding: (SEVERITIES.index(finding.severity), finding.code))
    report = Report(findings, summarize(survey))
    if key and not any(facts.error for facts in (*survey.images.values(), *survey.masks.values())):
        with ReportCache() as cache:
            cache.keep(key, report)
    return report


def _checked(survey: Survey) -> Iterable[list[Finding]]:
    """Returns what each check finds, worked out in several processes where there are many files to compare."""

    def found(check: Check) -> list[Finding]:
        return list(check(survey))

    if len(survey.images) < MANY:
        return map(found, CHECKS)
    order = sorted(CHECKS, key=lambda check: check not in LONGEST)  # what takes as long as all others begins first
    return each_in_processes(found, order, share=10)  # in few processes, as few checks take long


def _without_effects(findings: Sequence[Finding]) -> list[Finding]:
    """Returns the findings but those whose files another has that tells the cause."""
    named: dict[str, set[str]] = defaultdict(set)
    for finding in findings:
        named[finding.code].update(finding.files)

    def has_cause(finding: Finding) -> bool:
        return bool(finding.files) and any(
            named[code].issuperset(finding.files) for code in CAUSES.get(finding.code, ())
        )

    return [finding for finding in findings if not has_cause(finding)]


def to_json(findings: Sequence[Finding], summary: Summary | None = None) -> dict[str, Any]:
    """Returns what `check --json` prints: `findings`, `counts` by severity and, with a summary, `splits`."""
    document: dict[str, Any] = {
        "findings": [asdict(finding) | {"files": list(finding.files)} for finding in findings],
        "counts": {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES},
    }
    if summary is not None:
        document["splits"] = {name: split.to_json() for name, split in summary.splits.items()}
    return document


# ------------------------------------------------------------------------------------------------- terminal


def render(console: Console, findings: Sequence[Finding], summary: Summary | None = None) -> None:
    """Prints figures and findings; file names are text, never markup."""
    from rich.text import Text

    if summary is not None and summary.splits:
        _render_summary(console, summary)
    wrap = not console.is_terminal  # a pipe gets whole lines, to be searched and pasted
    styles = {"error": "bold red", "warning": "yellow", "note": "cyan"}
    for finding in findings:
        line = Text(f"{finding.severity} {finding.code}", style=styles[finding.severity])
        console.print(line.append(f"  {finding.message}", style="not bold default"), soft_wrap=wrap)
        files, most = finding.files, PRINTED[finding.severity]
        named = ", ".join(files[:most]) + (f", … (--json names {len(files)})" if len(files) > most else "")
        for label, text in (("e.g.", finding.example), ("files", named), ("do", finding.remedy)):
            if text:
                console.print(Text(f"    {label:5} {text}"), soft_wrap=wrap)
    counts = Counter(finding.severity for finding in findings)
    told = ", ".join(num(counts[severity], severity) for severity in SEVERITIES if counts[severity])
    console.print(Text(told or "no problem found in the data", style="" if told else "green"))


def _render_summary(console: Console, summary: Summary) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for split in summary.splits:
        table.add_column(split, justify="right")
    parts = list(summary.splits.values())
    table.add_row("pairs", *(str(part.pairs) for part in parts))
    for label in ("smallest", "median", "largest"):
        table.add_row(f"{label} size", *(size_text(part.sizes[label]) if part.sizes else "-" for part in parts))
    for name in summary.classes:
        table.add_row(Text(shown(name)), *(share_text(part.share(name)) for part in parts))
    if any(part.ignored for part in parts):
        table.add_row("(ignored)", *(share_text(part.share_ignored) for part in parts))
    console.print(table)
