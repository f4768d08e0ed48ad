"""Folds and stratified splits: each pair validates once, groups stay whole, and each part has its share of classes."""

from __future__ import annotations

import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import config_of, draw_pair, write_pair
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segtool.check.report import examine
from segtool.config import Data, Folders, Split
from segtool.data import splits
from segtool.data.formats import split_records
from segtool.data.pairs import Record
from segtool.data.splits import Presence, divide, hold_out, into_folds, stratify
from segtool.errors import ConfigError, DataError


def records_of(names: list[str], folder: str = "") -> list[Record]:
    return [Record(Path(f"/{folder}/i/{name}.png"), Path(f"/{folder}/m/{name}.png"), name) for name in names]


def numbered(count: int) -> list[Record]:
    return records_of([f"{number:03}" for number in range(count)])


def classes_of(table: dict[str, tuple[int, ...]], num_classes: int) -> Presence:
    """Returns what tells the classes of each record by its stem."""

    def presence(records: Any) -> np.ndarray:
        return np.array([[k in table[record.stem] for k in range(num_classes)] for record in records], bool)

    return presence


def stems(records: list[Record]) -> list[str]:
    return [record.stem for record in records]


# --- folds


@settings(deadline=None, max_examples=50)
@given(count=st.integers(2, 40), folds=st.integers(2, 7), seed=st.integers(0, 9), stratified=st.booleans())
def test_each_pair_validates_in_one_fold_and_the_sizes_differ_by_at_most_one(
    count: int, folds: int, seed: int, stratified: bool
) -> None:
    records = numbered(max(count, folds))
    rng = np.random.default_rng(seed)
    table = {record.stem: tuple(np.flatnonzero(rng.random(4) < 0.4)) for record in records}
    split = Split(seed=seed, stratify=stratified)
    parts = into_folds(records, folds, split, classes_of(table, 4))
    assert sorted(stem for part in parts for stem in stems(part)) == stems(records)
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) >= 1
    assert parts == into_folds(records[::-1], folds, split, classes_of(table, 4))


def test_the_kth_fold_has_every_nth_of_the_permuted_stems() -> None:
    order = [f"{place:03}" for place in np.random.default_rng(3).permutation(11)]
    parts = into_folds(numbered(11), 4, Split(seed=3))
    assert [stems(part) for part in parts] == [sorted(order[k::4]) for k in range(4)]
    assert into_folds(numbered(11), 4, Split(seed=4)) != parts


def fold_config(fold: str | None, **changes: Any) -> Data:
    return Data(train=Folders("a", "b"), fold=fold, **changes)


def never(_: Any) -> np.ndarray:
    raise AssertionError("masks are read though nothing asks for their classes")


def test_train_and_val_are_one_pool_and_a_given_test_stays_out_of_it() -> None:
    names = [f"{split}{number}" for split in ("t", "v", "x") for number in range(5)]
    found = {"train": records_of(names[:5]), "val": records_of(names[5:10]), "test": records_of(names[10:])}
    given = {"val": Folders("c", "d"), "test": Folders("e", "f")}
    seen: Counter[str] = Counter()
    for k in range(1, 4):
        parts = divide(found, fold_config(f"{k}/3", **given), never)
        assert list(parts) == ["train", "val", "test"]
        assert parts["test"] == found["test"]
        assert sorted(stems(parts["train"]) + stems(parts["val"])) == names[:10]
        assert parts["val"] == into_folds(found["train"] + found["val"], 3, Split())[k - 1]
        assert stems(parts["train"]) == sorted(stems(parts["train"]))
        seen.update(stems(parts["val"]))
    assert seen == Counter(names[:10])


def test_a_test_share_is_the_same_in_all_folds_and_without_any() -> None:
    found = {"train": numbered(20)}
    split = Split(test=0.25, seed=5)
    alone = divide(found, fold_config(None, split=split), never)
    folds = [divide(found, fold_config(f"{k}/3", split=split), never) for k in (1, 2, 3)]
    assert len(alone["test"]) == 5
    assert all(parts["test"] == alone["test"] for parts in folds)
    assert sorted(stem for parts in folds for stem in stems(parts["val"])) == sorted(
        stems(alone["train"]) + stems(alone["val"])
    )


def test_pairs_of_one_stem_in_train_and_val_are_told_apart_by_their_split() -> None:
    found = {"train": records_of(["0", "1"], "train"), "val": records_of(["1", "2"], "val")}
    parts = divide(found, fold_config("1/2", val=Folders("c", "d")), never)
    both = [*parts["train"], *parts["val"]]
    assert sorted(stems(both)) == ["train/0", "train/1", "val/1", "val/2"]
    for record in both:
        assert record.image == Path(f"/{record.stem.replace('/', '/i/')}.png")


def test_a_group_that_lies_in_train_and_val_under_equal_stems_is_in_one_fold() -> None:
    names = [f"v{video}_{number}" for video in range(4) for number in range(3)]
    found = {"train": records_of(names, "train"), "val": records_of(names, "val")}
    split = Split(group=r"^(v\d)_")
    for k in (1, 2):
        parts = divide(found, fold_config(f"{k}/2", val=Folders("c", "d"), split=split), never)
        videos = [{record.image.stem.split("_")[0] for record in parts[name]} for name in ("train", "val")]
        assert not videos[0] & videos[1]
        assert len(parts["val"]) == 12


def test_large_groups_are_dealt_first_so_that_folds_are_as_even_as_they_can_be() -> None:
    names = [f"{group}{number}" for group, size in zip("abcde", (9, 5, 4, 3, 3), strict=True) for number in range(size)]
    parts = into_folds(records_of(names), 3, Split(group=r"^([a-e])"))
    assert sorted(len(part) for part in parts) == [7, 8, 9]
    for letter in "abcde":
        assert sum(any(stem[0] == letter for stem in stems(part)) for part in parts) == 1


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (Split(), r"data.fold: 4 pairs for 5 folds; .* at most 4 folds"),
        (Split(group=r"^(\d)\d"), r"data.fold: 1 group for 5 folds; add some"),
    ],
)
def test_fewer_pairs_or_groups_than_folds_are_an_error_with_both_numbers(split: Split, words: str) -> None:
    with pytest.raises(DataError, match=words):
        into_folds(numbered(4), 5, split)


@pytest.mark.parametrize("pattern", [r"^(a+)+$", r"^(a|a)*$", r"^(.*a){20}$"])
def test_a_pattern_whose_time_doubles_with_each_character_of_a_name_is_ended(
    monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    monkeypatch.setattr(splits, "GROUP_SECONDS", 0.05)
    handler = signal.getsignal(signal.SIGVTALRM)
    with pytest.raises(DataError, match=r"data.split.group: .* took more than 0.05 s, the last of them for a{40}b; "):
        into_folds(records_of(["aa", "a" * 40 + "b"]), 2, Split(group=pattern))
    assert signal.getsignal(signal.SIGVTALRM) == handler
    assert signal.getitimer(signal.ITIMER_VIRTUAL) == (0.0, 0.0)


@pytest.mark.parametrize("fold", ["0/5", "6/5", "1/1", "2", "2/5x", "a/b"])
def test_a_fold_that_is_none_is_a_config_error(tmp_path: Path, fold: str) -> None:
    with pytest.raises(ConfigError, match=r"data.fold.*2/5"):
        config_of(tmp_path, data={"fold": fold})


# --- stratification


def test_by_hand_each_part_gets_its_share_of_a_rare_and_of_a_frequent_class() -> None:
    # 0 in all eight, 1 in four, 2 in two: halves must hold 4, 2 and 1, whatever the permutation.
    table = {f"{i:03}": (0, *((1,) if i < 4 else ()), *((2,) if i in (0, 7) else ())) for i in range(8)}
    presence = classes_of(table, 3)
    for seed in range(20):
        parts = into_folds(numbered(8), 2, Split(seed=seed, stratify=True), presence)
        assert [presence(part).sum(0).tolist() for part in parts] == [[4, 2, 1], [4, 2, 1]]
    plain = [into_folds(numbered(8), 2, Split(seed=seed), presence) for seed in range(20)]
    assert any(presence(parts[0]).sum(0).tolist() != [4, 2, 1] for parts in plain), "a permutation alone does not"


@pytest.mark.parametrize("seed", range(5))
def test_held_out_shares_have_their_share_of_each_class_to_within_one_and_the_usual_sizes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    # One class an image, of frequencies 5 to 40: shares can be met exactly up to rounding.
    labels = rng.permutation(np.repeat(range(4), (5, 15, 40, 40)))
    records, presence = numbered(100), classes_of({f"{i:03}": (k,) for i, k in enumerate(labels)}, 4)
    shares = {"val": 0.2, "test": 0.1}
    parts = hold_out(records, shares, Split(seed=seed, stratify=True), presence)
    usual = hold_out(records, shares, Split(seed=seed))
    assert {name: len(part) for name, part in parts.items()} == {name: len(part) for name, part in usual.items()}
    assert sorted(stem for part in parts.values() for stem in stems(part)) == stems(records)
    for name, share in {**shares, "train": 0.7}.items():
        np.testing.assert_allclose(presence(parts[name]).sum(0), share * np.array([5, 15, 40, 40]), atol=1)


def test_groups_are_kept_whole_and_counted_once_for_each_class() -> None:
    # Class 1 occurs in two of six videos, in one of them in every frame.
    names = [f"v{video}_{frame}" for video in range(6) for frame in range(4)]
    table = {name: (0, 1) if name.startswith("v1") or name == "v4_2" else (0,) for name in names}
    for seed in range(10):
        split = Split(seed=seed, group=r"^(v\d)", stratify=True)
        parts = into_folds(records_of(names), 2, split, classes_of(table, 2))
        videos = [{stem[:2] for stem in stems(part)} for part in parts]
        assert [len(side) for side in videos] == [3, 3]
        assert [len(side & {"v1", "v4"}) for side in videos] == [1, 1]


def test_no_part_is_left_empty_by_a_group_that_is_most_of_all() -> None:
    groups = [records_of([f"a{i}" for i in range(50)]), records_of(["b"]), records_of(["c"])]
    table = {record.stem: (0,) for group in groups for record in group}
    for order in ([0, 1, 2], [1, 0, 2], [2, 1, 0]):
        for sizes in ([26, 26, 0], [10, 42], [51, 1], [0, 52]):
            parts = stratify([groups[place] for place in order], sizes, classes_of(table, 1))
            assert all(parts)
            assert sum(len(part) for part in parts) == 52


def test_masks_without_any_class_go_where_records_lack() -> None:
    table = {f"{i:03}": (0,) if i < 2 else () for i in range(9)}
    parts = into_folds(numbered(9), 2, Split(stratify=True), classes_of(table, 1))
    assert sorted(len(part) for part in parts) == [4, 5]
    assert [sum(stem < "002" for stem in stems(part)) for part in parts] == [1, 1]


# --- through the config and the files


@pytest.fixture
def rare_ds(tmp_path: Path) -> Path:
    """Twelve training pairs, of which three have class 2, and two validation pairs of the same names."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 2), ("test", 2)):
        for number in range(count):
            image, mask = draw_pair(rng)
            mask[mask == 2] = 0
            if number % 4 == 0:
                mask[5:9, 5:9] = 2
            write_pair(tmp_path, split, f"{number:02}", image, mask)
    return tmp_path


def test_stratified_folds_read_the_masks_and_check_divides_as_training_does(rare_ds: Path) -> None:
    base = config_of(rare_ds, data={"split": {"stratify": True, "val": 0.25}, "val": None})
    seen = []
    for k in (1, 2, 3):
        config = replace(base, data=replace(base.data, fold=f"{k}/3"))
        parts = split_records(config, Path("/"))
        report = examine(config, Path("/"))
        assert {name: split.pairs for name, split in report.summary.splits.items()} == {"train": 8, "val": 4, "test": 2}
        masks = [np.asarray(Image.open(str(record.mask))) for record in parts["val"]]
        assert sum((mask == 2).any() for mask in masks) == 1
        pixels = [int(sum((mask == value).sum() for mask in masks)) for value in range(3)]
        assert list(report.summary.splits["val"].pixels.values()) == pixels
        seen += stems(parts["val"])
    assert sorted(seen) == [f"{number:02}" for number in range(12)]


def test_check_finds_one_picture_in_two_folds(rare_ds: Path) -> None:
    copied = (rare_ds / "train" / "images" / "03.png").read_bytes()
    (rare_ds / "val" / "images" / "01.png").write_bytes(copied)
    codes = []
    for k in range(1, 8):
        config = config_of(rare_ds, data={"fold": f"{k}/7"})
        parts = split_records(config, Path("/"))
        sides = {name for name in ("train", "val") for r in parts[name] if r.stem in ("train/03", "val/01")}
        found = {finding.code for finding in examine(config, Path("/")).findings}
        assert ("SEG501" in found) == (len(sides) == 2)
        codes.append("SEG501" in found)
    assert any(codes)


def test_check_tells_that_there_are_more_folds_than_pairs(rare_ds: Path) -> None:
    report = examine(config_of(rare_ds, data={"fold": "1/15"}), Path("/"))
    (finding,) = [finding for finding in report.findings if finding.code == "SEG106"]
    assert "14 pairs for 15 folds" in finding.example
    assert report.summary.splits["train"].pairs == 12


def test_a_mask_that_cannot_be_read_stops_a_stratified_split_and_is_told_once_by_check(rare_ds: Path) -> None:
    config = config_of(rare_ds, data={"fold": "1/2", "split": {"stratify": True}})
    (rare_ds / "train" / "masks" / "05.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"05\.png"):
        split_records(config, Path("/"))
    errors = [finding.code for finding in examine(config, Path("/")).findings if finding.severity == "error"]
    assert errors == ["SEG202"]


def test_without_stratification_and_folds_no_mask_is_read(rare_ds: Path) -> None:
    for path in (rare_ds / "train" / "masks").iterdir():
        path.write_bytes(b"")
    parts = split_records(config_of(rare_ds, data={"val": None}), Path("/"))
    expected = np.random.default_rng(0).permutation(12)[:2]
    assert stems(parts["val"]) == sorted(f"{number:02}" for number in expected)
