"""Published sets and exports as they are: `init` reads each right, `check` is silent, what is predicted looks alike."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from conftest import Command
from PIL import Image
from published import PUBLISHED, UNSUPPORTED, Published

from segtool.config import Config, load_config
from segtool.data.formats import split_records
from segtool.data.pairs import Record

QUICK = ("model.encoder.channels=[4, 8]", "train.steps=1", "train.batch_size=2", "train.compile=false")
QUICK = (*QUICK, "train.precision=fp32", "train.samples=0", "augment.crop=[32, 32]")
ENCODINGS = ("drive", "voc2012", "dubai_aerial", "kvasir_seg", "flood_area", "full_body", "no_zero", "sixteen_bit")
"""Trained in every run of the tests: each stores its masks in another way."""

Sets = Callable[[str], Path]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Sets:
    """Returns the folder of a published set, made once."""
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp("published") / name
            PUBLISHED[name].make(made[name])
        return made[name]

    return get


def init(segtool: Command, root: Path, folder: Path) -> tuple[Path, Config, dict[str, list[Record]]]:
    """Returns the config that init writes, and the pairs of each split."""
    path = folder / "config.yaml"
    result = segtool("init", root, "--out", path)
    assert result.code == 0, result.err
    config = load_config(path)
    return path, config, split_records(config, folder)


def codes(config: Config) -> list[object]:
    """Returns the first stored value or colour of each class."""
    by_color = config.data.encoding in ("rgb", "palette")
    return [(spec.colors if by_color else spec.values)[0] for spec in config.data.classes]


def require_pairs(expected: Published, config: Config, records: dict[str, list[Record]]) -> None:
    """Every pair of the set is found, in its split; what init holds out comes from the training set."""
    found = {split: len(part) for split, part in records.items() if part}
    for split in ("val", "test"):
        if split not in expected.pairs:
            assert getattr(config.data, split) is None
            found["train"] += found.pop(split, 0)
    assert found == expected.pairs
    assert config.data.exif == expected.exif


@pytest.mark.parametrize("name", PUBLISHED)
def test_init_reads_a_published_set_as_it_is_meant(name: str, segtool: Command, sets: Sets, tmp_path: Path) -> None:
    expected = PUBLISHED[name]
    path, config, records = init(segtool, sets(name), tmp_path)
    require_pairs(expected, config, records)
    assert (config.data.encoding, config.data.nearest) == (expected.encoding, expected.nearest)
    assert sorted(map(str, codes(config))) == sorted(map(str, expected.classes))
    assert sorted(map(str, config.data.ignore)) == sorted(map(str, expected.ignore))
    everyone = [record for part in records.values() for record in part]
    assert [record.mask for record in everyone if expected.masks not in record.mask.as_posix()] == []
    assert [record.image for record in everyone if expected.images not in record.image.as_posix()] == []
    if expected.names:
        assert sorted(spec.name for spec in config.data.classes) == sorted(expected.names)
    if expected.apart:
        groups = [{re.search(expected.apart, record.stem)[1] for record in part} for part in records.values()]
        assert not any(one & other for one, other in combinations(groups, 2))
    report = json.loads(segtool("check", path, "--json").out)
    loud = [finding["message"] for finding in report["findings"] if finding["severity"] != "note"]
    assert [message for message in loud if not expected.warns or not re.search(expected.warns, message)] == []


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_init_says_of_what_is_no_mask_what_it_is_and_what_to_do(name: str, segtool: Command, tmp_path: Path) -> None:
    make, words = UNSUPPORTED[name]
    make(tmp_path / "set")
    result = segtool("init", tmp_path / "set", "--out", tmp_path / "config.yaml")
    assert result.code == 3
    assert re.search(words, result.err)
    assert not (tmp_path / "config.yaml").exists()
    assert len(result.err) < 2500


@pytest.mark.parametrize(
    "name",
    [name if name in ENCODINGS else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED],
)
def test_what_is_predicted_has_the_encoding_of_the_masks(
    name: str, segtool: Command, sets: Sets, tmp_path: Path
) -> None:
    path, _, records = init(segtool, sets(name), tmp_path)
    settings = [f"--set={setting}" for setting in QUICK]
    result = segtool("train", path, "--run", tmp_path / "run", "--quiet", *settings)
    assert result.code == 0, result.err
    split, part = next((split, records[split]) for split in ("test", "val", "train") if records.get(split))
    scores = json.loads(segtool("eval", tmp_path / "run", "--json", "--quiet").out)
    assert (scores["split"], scores["images"]) == (split, len(part))
    assert scores["miou"] is not None
    record = part[0]
    assert segtool("predict", tmp_path / "run", record.image, "--out", tmp_path / "out", "--quiet").code == 0
    with Image.open(next((tmp_path / "out").glob("*.png"))) as predicted, Image.open(record.mask) as mask:
        assert predicted.size == mask.size
        if PUBLISHED[name].encoding == "index":
            assert predicted.mode == {"LA": "L"}.get(mask.mode, mask.mode)
        stored = {
            tuple(np.atleast_1d(value)) for value in np.asarray(predicted).reshape(-1, *np.asarray(predicted).shape[2:])
        }
    assert len(stored) <= len(PUBLISHED[name].classes)


@pytest.mark.slow
def test_a_stranger_gets_from_a_folder_to_masks_with_what_the_program_prints(tmp_path: Path) -> None:
    PUBLISHED["umlauts"].make(tmp_path / "set")
    told = segtool_in(tmp_path, "init", "set").stderr
    check, train = re.findall(r"segtool (check [^\s;]+|train [^\s;]+)", told)
    assert "no problem found in the data" in segtool_in(tmp_path, *check.split()).stdout
    settings = [f"--set={setting}" for setting in QUICK]
    segtool_in(tmp_path, *train.split(), "--run", "run", *settings)
    segtool_in(tmp_path, "eval", "run")
    segtool_in(tmp_path, "predict", "run", "set/Bilder und Masken/Images", "--out", "out")
    images = {path.stem for path in (tmp_path / "set/Bilder und Masken/Images").glob("*.JPG")}
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == images


def segtool_in(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the program in a folder, as a user does."""
    command = [sys.executable, "-m", "segtool", *arguments]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    return result
