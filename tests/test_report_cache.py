"""A report or config holds as long as nothing that it tells of has changed, and is made anew after any change."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import age
from PIL import Image

from segtool.check import report_cache, survey
from segtool.check.findings import Report
from segtool.check.report import examine
from segtool.config import ClassSpec, Config, Data, Folders
from segtool.data.user_cache import RECENT, VERSION, cache_directory
from segtool.init import recall


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """The passes that were made over the files: their facts are asked for once in each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "cache"))
    made: list[int] = []
    real = survey.look_at_files
    monkeypatch.setattr(survey, "look_at_files", lambda *files, **options: (made.append(1), real(*files, **options))[1])
    return made


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A data set with an error, a class that no mask shows, whose files are an hour old."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 2)):
        for number in range(count):
            for kind, shape, top in (("images", (20, 30, 3), 256), ("masks", (20, 30), 2)):
                path = tmp_path / "set" / split / kind / f"{split}{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, top, shape, np.uint8)).save(path)
    for path in (tmp_path / "set").rglob("*.png"):
        age(path)
    folders = {split: Folders(images=f"{split}/images", masks=f"{split}/masks") for split in ("train", "val")}
    classes = (ClassSpec("soil", (0,)), ClassSpec("leaf", (1,)), ClassSpec("pod", (2,)))
    return Config(data=Data(root="set", classes=classes, **folders))


def test_a_second_check_looks_at_no_file_and_tells_the_same(config: Config, tmp_path: Path, passes: list[int]) -> None:
    first = examine(config, tmp_path)
    assert first.findings
    assert first.summary.splits["val"].sizes["median"] == (20, 30)
    second = examine(config, tmp_path)
    assert passes == [1]
    assert second == first
    assert repr(second) == repr(first)  # numbers of the same types


def a_pixel(root: Path, config: Config) -> Config:
    path = root / "val/masks/val0.png"
    mask = np.array(Image.open(path))
    mask[0, 0] = 2
    Image.fromarray(mask).save(path)
    age(path, 1800)
    return config


def a_time(root: Path, config: Config) -> Config:
    path = root / "train/images/train3.png"
    before = path.stat().st_mtime_ns
    os.utime(path, ns=(before + 1, before + 1))
    return config


def a_file_more(root: Path, config: Config) -> Config:
    (root / "val/images/alone.png").write_bytes((root / "val/images/val0.png").read_bytes())
    age(root / "val/images/alone.png")
    return config


def a_file_less(root: Path, config: Config) -> Config:
    (root / "val/masks/val1.png").unlink()
    return config


def a_name(root: Path, config: Config) -> Config:
    """Two masks change places, and take their sizes and times along."""
    masks = root / "train/masks"
    (masks / "train0.png").rename(masks / "x.png")
    (masks / "train1.png").rename(masks / "train0.png")
    (masks / "x.png").rename(masks / "train1.png")
    return config


def a_class(root: Path, config: Config) -> Config:
    return replace(config, data=replace(config.data, classes=(*config.data.classes[:2], ClassSpec("husk", (2,)))))


def test_how_a_network_is_trained_does_not_matter_to_a_report(
    config: Config, tmp_path: Path, passes: list[int]
) -> None:
    examine(config, tmp_path)
    examine(replace(config, train=replace(config.train, epochs=7)), tmp_path)
    assert passes == [1]


def a_crop(root: Path, config: Config) -> Config:
    return replace(config, augment=replace(config.augment, crop=(64, 64)))


@pytest.mark.parametrize("change", [a_crop, a_pixel, a_time, a_file_more, a_file_less, a_name, a_class])
def test_any_change_has_all_looked_at_anew(
    config: Config, tmp_path: Path, passes: list[int], change: Callable[[Path, Config], Config]
) -> None:
    examine(config, tmp_path)
    config = change(tmp_path / "set", config)
    after = examine(config, tmp_path)
    assert passes == [1, 1]
    assert after == afresh(config, tmp_path)


def afresh(config: Config, base: Path) -> Report:
    """Returns the report of a user who has no cache."""
    (cache_directory() / f"facts-{VERSION}.sqlite3").unlink()
    return examine(config, base)


def test_another_segtool_asks_for_its_own_report(
    config: Config, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    examine(config, tmp_path)
    monkeypatch.setattr(report_cache, "program", lambda: ["a line more"])
    examine(config, tmp_path)
    assert passes == [1, 1]


def test_no_report_is_kept_where_a_file_cannot_be_read(config: Config, tmp_path: Path, passes: list[int]) -> None:
    broken = tmp_path / "set/train/images/train0.png"
    broken.write_bytes(b"nothing")
    age(broken)
    for _ in range(2):
        assert any("train0" in name for finding in examine(config, tmp_path).findings for name in finding.files)
    assert passes == [1, 1]


def test_no_report_is_kept_of_files_that_change_just_now(config: Config, tmp_path: Path, passes: list[int]) -> None:
    path = tmp_path / "set/train/masks/train0.png"
    for _ in range(2):
        os.utime(path, ns=((time.time_ns() // 10**9) * 10**9,) * 2)  # whole seconds, as FAT has them
        examine(config, tmp_path)
    assert passes == [1, 1]


@pytest.mark.parametrize("content", [b"", b"{}", b'{"findings": [{"code": 1}], "summary": {}}', b"\xff"])
def test_a_damaged_report_is_made_anew(config: Config, tmp_path: Path, passes: list[int], content: bytes) -> None:
    first = examine(config, tmp_path)
    with sqlite3.connect(cache_directory() / f"facts-{VERSION}.sqlite3") as database:
        database.execute("UPDATE reports SET content = ?", (content,))
    database.close()
    assert examine(config, tmp_path) == first
    assert passes == [1, 1]


def test_a_report_that_nobody_asks_for_goes(
    config: Config, tmp_path: Path, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    examine(config, tmp_path)
    later = time.time() + 100 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    examine(a_class(tmp_path, config), tmp_path)
    with sqlite3.connect(cache_directory() / f"facts-{VERSION}.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM reports").fetchone() == (1,)
    database.close()


# ------------------------------------------------------------------------------------------------- configs


def configs_made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Returns a list that grows with each look at a folder for its config."""
    made: list[int] = []
    real = recall.scaffold
    monkeypatch.setattr(recall, "scaffold", lambda *args, **options: (made.append(1), real(*args, **options))[1])
    return made


@pytest.fixture
def folder(config: Config, passes: list[int], tmp_path: Path) -> Path:
    """The data set alone in a folder, changed a while ago."""
    time.sleep(2 * RECENT)
    return tmp_path / "set"


def test_the_config_of_an_unchanged_folder_is_recalled(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = configs_made(monkeypatch)
    first = recall.recalled(folder, config_dir=folder)
    assert recall.recalled(folder, config_dir=folder) == first
    assert made == [1]
    assert recall.recalled(folder, config_dir=folder / "train") != first  # `data.root` is relative to it
    assert made == [1, 1]


@pytest.mark.parametrize("change", ["mask", "names", "names beside", "rights", "link"])
def test_any_change_of_a_folder_has_its_config_made_anew(
    change: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = configs_made(monkeypatch)
    recall.recalled(folder, config_dir=folder)
    mask = folder / "train/masks/train3.png"
    match change:
        case "mask":
            content = mask.read_bytes()
            before = mask.stat().st_mtime
            mask.write_bytes(content)
            os.utime(mask, (before, before))  # of one size, and as old
        case "names":
            (folder / "classes.txt").write_text("soil\nleaf\n")
        case "names beside":
            (folder.parent / "classes.txt").write_text("soil\nleaf\n")
        case "rights":
            mask.chmod(0o600)
        case _:
            (folder / "more").symlink_to(folder / "val")
    time.sleep(2 * RECENT)
    for _ in range(2):
        recall.recalled(folder, config_dir=folder)
    assert made == [1, 1] if change != "link" else [1, 1, 1]  # what lies behind a link may change unseen
