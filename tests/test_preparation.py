"""What is settled between a config and a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of, write_pair

from segtool.commands.preparation import checked_records, planned
from segtool.data import cache, formats
from segtool.data.pairs import Record
from segtool.errors import DataError
from segtool.system.distributed import ALONE
from segtool.system.terminal import Reporter


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


def test_an_error_of_the_data_that_concerns_no_file_names_none(make_config: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match=r"SEG106: the pairs cannot be split as the config asks; data\.fold: 11 pairs"):
        checked_records(make_config(data={"fold": "1/99"}), Path("/"), Reporter(quiet=True))


def test_an_error_of_one_file_names_it_once_beside_its_example(make_config: Callable[..., Any], tmp_path: Path) -> None:
    for split, stems in {"train": "abc", "val": "d"}.items():
        for stem in stems:
            write_pair(
                tmp_path, split, stem, np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 77 * (stem == "b"), np.uint8)
            )
    with pytest.raises(DataError) as told:
        checked_records(make_config(root=tmp_path), Path("/"), Reporter(quiet=True))
    (wrong,) = [problem for problem in told.value.problems if "SEG302" in problem]
    assert "(train/masks/b.png)" not in wrong
    assert "train/masks/b.png: 77 at (0, 0)" in wrong


def test_a_warning_names_the_first_files_that_it_is_of(
    make_config: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture, blank = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8)
    for stem in "abcdefgh":
        half = np.repeat(np.uint8([0, 1]), 512).reshape(32, 32)
        write_pair(tmp_path, "train", stem, picture if stem == "h" else np.full_like(picture, 9), half)
    write_pair(tmp_path, "val", "z", picture, blank)
    checked_records(make_config(root=tmp_path, data={"test": None}), Path("/"), Reporter())
    (told,) = [line for line in capsys.readouterr().err.splitlines() if "SEG208" in line]
    assert "(such as train/images/a.png, train/images/b.png, train/images/c.png, train/images/d.png, " in told
    assert "train/images/e.png); " in told


@pytest.mark.parametrize(("dtype", "taken"), [(np.uint8, "0.2 MB"), (np.uint16, "0.5 MB")])
def test_what_images_take_in_memory_is_told_by_the_bits_of_their_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: type, taken: str
) -> None:
    write_pair(tmp_path, "train", "a", np.ones((300, 300), dtype), np.zeros((300, 300), np.uint8))
    record = Record(tmp_path / "train/images/a.png", tmp_path / "train/masks/a.png", "a")
    config = config_of(tmp_path, data={"channels": 1, "mean": [0.5], "std": [0.5]})
    monkeypatch.setattr(cache, "free_memory", lambda: 10**12)
    _, plan = planned(config, {"train": [record]}, torch.device("cpu"), ALONE)
    told = next(choice.reason for choice in plan.choices if choice.what == "train.cache")
    assert f"1 images and masks take {taken}" in told


@pytest.mark.parametrize(
    ("seen", "anew", "told"),
    [
        ([0.2, 0.3], False, "those of a run on other images; --set data.mean=null --set data.std=null decides anew"),
        ([0.2, 0.3], True, "measured on the training images"),
        (None, False, ""),
        ([0.04706, 0.04706], False, ""),
    ],
)
def test_mean_and_deviation_that_were_resolved_on_other_images_are_told(
    tmp_path: Path, seen: list[float] | None, anew: bool, told: str
) -> None:
    write_pair(tmp_path, "train", "a", np.full((32, 32), 12, np.uint8), np.zeros((32, 32), np.uint8))
    record = Record(tmp_path / "train/images/a.png", tmp_path / "train/masks/a.png", "a")
    data: dict[str, Any] = {"channels": 1} if anew else {"channels": 1, "mean": [0.5], "std": [0.5]}
    if seen is not None:
        data["seen"] = {"mean": [seen], "std": [[0, 0]], "size": [[32, 32], [32, 32]]}
    _, plan = planned(config_of(tmp_path, data=data), {"train": [record]}, torch.device("cpu"), ALONE)
    assert [choice.reason for choice in plan.choices if choice.what == "data.mean and std"] == [told] * bool(told)


@pytest.mark.parametrize(("channels", "told"), [(1, "data.channels gives 1 channel"), (3, ""), (4, "")])
def test_a_hue_that_turns_nothing_is_told(tmp_path: Path, channels: int, told: str) -> None:
    write_pair(tmp_path, "train", "a", np.full((32, 32, 3), 12, np.uint8), np.zeros((32, 32), np.uint8))
    record = Record(tmp_path / "train/images/a.png", tmp_path / "train/masks/a.png", "a")
    config = config_of(tmp_path, data={"channels": channels}, augment={"hue": 20})
    _, plan = planned(config, {"train": [record]}, torch.device("cpu"), ALONE)
    reasons = [choice.reason for choice in plan.choices if choice.what == "augment.hue"]
    assert [told in reason for reason in reasons] == [True] * bool(told)
