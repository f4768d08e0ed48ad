"""Reports of checks that were made before, kept in the user's cache, so that a second check need not compare anew.

A report holds as long as segtool, what the config says of the data, the names of all files, their sizes and their times
of change are the same. One is kept only where every file could be read: why one cannot may lie outside of it.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL

import segtool
from segtool.check.findings import Finding, Report
from segtool.check.survey import Listing, SplitSummary, Summary
from segtool.config import Config, plain
from segtool.data.user_cache import UNUSED_DAYS, UserCache, is_settled, stamp

LARGEST = 1 << 20  # bytes of an entry


def fingerprint(config: Config, root: Path, listing: Listing) -> bytes | None:
    """Returns a digest of all that a report tells of; None where a file is not there, or was changed just now.

    Args:
        root: Directory of the data.
        listing: Before any pair is held out.
    """
    stamps = [stamp(path) for path in (*listing.images(), *listing.masks())]
    now = time.time()
    if not all(mark and is_settled(mark, now) for mark in stamps):
        return None
    given = [plain(part) for part in (config.data, config.augment, config.limits)]  # as in `Survey`
    content = (_program(), json.dumps(given), str(root), repr(listing), stamps)
    return hashlib.blake2b(repr(content).encode(), digest_size=16).digest()


def _program() -> list[str]:
    """Returns by what a segtool is told from another, one in whose source somebody works included."""
    home = Path(segtool.__file__).parent
    source = [f"{path.relative_to(home)} {stamp(path)}" for path in sorted(home.rglob("*.py"))]
    return [segtool.__version__, PIL.__version__, np.__version__, *source]


class ReportCache(UserCache):
    """The reports of checks, by the fingerprints of what they tell of."""

    def recall(self, key: bytes) -> Report | None:
        """Returns the report of exactly this, where there was one."""
        with self._tolerant(), self._database as database:
            found = database.execute("SELECT content FROM reports WHERE key = ?", (key,)).fetchone()
            if found:
                report = _decoded(found[0])
                database.execute("UPDATE reports SET day = ? WHERE key = ? AND day < ?", (_today(), key, _today()))
                return report
        return None

    def keep(self, key: bytes, report: Report) -> None:
        """Enters a report, and drops those that nobody has asked for."""
        with self._tolerant(), self._database as database:
            database.execute("DELETE FROM reports WHERE day < ?", (_today() - UNUSED_DAYS,))
            if len(content := _encoded(report)) <= LARGEST:
                database.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", (key, _today(), content))


def _today() -> int:
    return int(time.time() // 86400)


def _encoded(report: Report) -> bytes:
    return json.dumps(asdict(report)).encode()


def _decoded(content: bytes) -> Report:
    document = json.loads(content)
    findings = [Finding(**finding | {"files": tuple(finding["files"])}) for finding in document["findings"]]
    splits = {
        name: SplitSummary(**split | {"sizes": {label: tuple(size) for label, size in split["sizes"].items()}})
        for name, split in document["summary"]["splits"].items()
    }
    return Report(findings, Summary(tuple(document["summary"]["classes"]), splits))
