"""What is settled between a config and a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segtool.data import formats
from segtool.preparation import checked_records
from segtool.terminal import Reporter


def test_check_and_records_of_a_training_search_each_folder_once(
    make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    searched: Counter[Path] = Counter()

    def find_pairs(images: Path, masks: Path, pairing: Any) -> Any:
        searched[images] += 1
        return real(images, masks, pairing)

    real = formats.find_pairs
    monkeypatch.setattr(formats, "find_pairs", find_pairs)
    records, _ = checked_records(make_config(), Path("/"), Reporter(quiet=True))
    assert {split: len(part) for split, part in records.items()} == {"train": 8, "val": 3, "test": 2}
    assert len(searched) == 3
    assert set(searched.values()) == {1}
