"""Reports of checks that were made before, kept in the user's cache, so that a second check need not compare anew.

A report holds as long as segtool, what the config says of the data, the names of all files, their sizes and their times
of change are the same. One is kept only where every file could be read: why one cannot may lie outside of it.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path

from segtool.check.findings import Finding, Report
from segtool.check.survey import Listing, SplitSummary, Summary
from segtool.config import Config, plain
from segtool.data.user_cache import UserCache, digest, is_settled, program, stamp


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
    return digest((program(), json.dumps(given), str(root), repr(listing), stamps))


class ReportCache(UserCache):
    """The reports of checks, by the fingerprints of what they tell of."""

    def recall(self, key: bytes) -> Report | None:
        """Returns the report of exactly this, where there was one."""
        content = self.recall_document(key)
        with self._tolerant():
            return None if content is None else _decoded(content)
        return None

    def keep(self, key: bytes, report: Report) -> None:
        """Enters a report."""
        self.keep_document(key, json.dumps(asdict(report)).encode())


def _decoded(content: bytes) -> Report:
    document = json.loads(content)
    findings = [Finding(**finding | {"files": tuple(finding["files"])}) for finding in document["findings"]]
    splits = {
        name: SplitSummary(**split | {"sizes": {label: tuple(size) for label, size in split["sizes"].items()}})
        for name, split in document["summary"]["splits"].items()
    }
    return Report(findings, Summary(tuple(document["summary"]["classes"]), splits))
