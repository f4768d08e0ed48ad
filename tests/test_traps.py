"""Every fault that is planted into a clean set is told by `check` once, with its file; a clean set has none to tell."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Command
from traps import SEVERITIES, TRAPS, Trap

Clean = Callable[[Callable[[Path], None]], Path]
BASES = sorted({trap.base for trap in TRAPS.values()}, key=lambda base: base.__name__)


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """Returns the folder of a clean set, `set`, made once."""
    made: dict[Callable[[Path], None], Path] = {}

    def get(base: Callable[[Path], None]) -> Path:
        if base not in made:
            made[base] = tmp_path_factory.mktemp("clean")
            base(made[base] / "set")
        return made[base]

    return get


def init(segtool: Command, folder: Path, name: str) -> Path:
    """Writes the config of a set beside it, as a user does."""
    config = folder / f"{name}.yaml"
    result = segtool("init", folder / "set", "--out", config)
    assert result.code == 0, result.err
    return config


def findings(segtool: Command, config: Path, *options: str) -> list[dict[str, Any]]:
    """Returns what `check --json` tells."""
    result = segtool("check", config, "--json", *(f"--set={option}" for option in options))
    assert result.code in (0, 3), result.err
    return json.loads(result.out)["findings"]


def tells(finding: dict[str, Any], trap: Trap) -> bool:
    """Whether a finding is as grave as the fault, names its files and is about it."""
    named = " ".join([*finding["files"], finding["message"], finding["example"]])
    words = " ".join([named, finding["remedy"]])
    return (
        SEVERITIES.index(finding["severity"]) >= SEVERITIES.index(trap.severity)
        and all(file in named for file in trap.files)
        and all(re.search(word, words) for word in trap.words)
    )


@pytest.mark.parametrize("name", TRAPS)
def test_every_planted_fault_is_told_once_with_its_files(
    name: str, segtool: Command, sets: Clean, tmp_path: Path
) -> None:
    trap = TRAPS[name]
    shutil.copytree(sets(trap.base) / "set", tmp_path / "set")
    if trap.config == "clean":
        init(segtool, tmp_path, "clean")
    trap.plant(tmp_path / "set")
    config = tmp_path / "clean.yaml" if trap.config == "clean" else init(segtool, tmp_path, "own")
    told = findings(segtool, config, *trap.overrides)
    assert [tells(finding, trap) for finding in told] == [True], told
    loud = [finding for finding in told if finding["severity"] != "note"]
    assert not [finding for finding in loud for file in trap.silent if file in finding["files"]]


@pytest.mark.parametrize("base", BASES, ids=lambda base: base.__name__)
def test_the_same_set_without_a_fault_has_nothing_to_tell(
    base: Callable[[Path], None], segtool: Command, sets: Clean, tmp_path: Path
) -> None:
    shutil.copytree(sets(base) / "set", tmp_path / "set")
    assert findings(segtool, init(segtool, tmp_path, "clean")) == []
