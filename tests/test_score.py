"""Scores of folders of masks, against a count that shares nothing with segtool but NumPy and Pillow."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import config_of
from PIL import Image

from segtool.config import ClassSpec, Config, Data, Folders, Pairing
from segtool.data.pairs import find_pairs
from segtool.errors import DataError
from segtool.prediction.predicted_files import write_png
from segtool.scoring.score import pair_predictions, score_folders
from segtool.system import pools


@pytest.fixture
def config(tiny_ds) -> Config:
    return config_of(tiny_ds)


def write(path: Path, values: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(values, np.uint8)).save(path)


def with_pairing(config: Config, **rule: Any) -> Config:
    return replace(config, data=replace(config.data, pairing=Pairing(**rule)))


def random_folders(root: Path, rng: np.random.Generator) -> tuple[Path, Path]:
    """Writes predictions and truths of five sizes; class 2 is rare, some truth is ignored, one mask wholly."""
    for number in range(5):
        size = tuple(rng.integers(3, 30, 2))
        truth = rng.choice([0, 1, 2, 255], size, p=[0.5, 0.3, 0.05, 0.15])
        if number == 4:
            truth[:] = 255
        prediction = np.where(rng.random(size) < 0.7, truth, rng.integers(0, 3, size))
        prediction[prediction == 255] = 1
        write(root / "truth" / f"s{number % 2}" / f"{number}.png", truth)
        write(root / "made" / f"s{number % 2}" / f"{number}.png", prediction)
    return root / "made", root / "truth"


def count(made: Path, truth: Path) -> np.ndarray:
    """Returns the 3x3 counts pixel by pixel: rows are truth, columns are prediction."""
    matrix = np.zeros((3, 3), int)
    for path in truth.rglob("*.png"):
        wanted, given = np.asarray(Image.open(path)), np.asarray(Image.open(made / path.relative_to(truth)))
        for t, p in zip(wanted.ravel().tolist(), given.ravel().tolist(), strict=True):
            if t != 255:
                matrix[t, p] += 1
    return matrix


@pytest.mark.parametrize("side", ["predictions", "masks"])
def test_overlays_beside_masks_that_were_predicted_are_none_of_them(tmp_path, config, side):
    made, truth = random_folders(tmp_path, np.random.default_rng(0))
    expected = score_folders(config, made, truth, Path()).to_json()
    folder = made if side == "predictions" else truth
    for mask in list(folder.rglob("*.png")):
        write_png(folder / "overlays" / mask.relative_to(folder), Image.new("RGB", (3, 3)))
    by_name = with_pairing(config, by_name=True)  # finds them beside the masks
    for one in (config, by_name):
        assert score_folders(one, made, truth, Path()).to_json()["confusion"] == expected["confusion"]
    write(made / "overlays" / "own.png", [[0]])  # which is a user's
    write(truth / "overlays" / "own.png", [[0]])
    assert score_folders(config, made, truth, Path()).to_json()["images"] == 6


def test_the_scores_are_those_of_an_independent_count(tmp_path, config):
    made, truth = random_folders(tmp_path, np.random.default_rng(0))
    scores = score_folders(config, made, truth, Path()).to_json()
    matrix = count(made, truth)
    assert scores["confusion"] == matrix.tolist()
    assert scores["images"] == 5
    ious = []
    for k, row in enumerate(scores["classes"]):
        hit, fn, fp = matrix[k, k], matrix[k].sum() - matrix[k, k], matrix[:, k].sum() - matrix[k, k]
        ious.append(int(hit) / int(hit + fn + fp))
        assert row["iou"] == ious[-1]
        assert row["precision"] == int(hit) / int(hit + fp)
        assert row["recall"] == int(hit) / int(hit + fn)
        assert row["dice"] == int(2 * hit) / int(2 * hit + fn + fp)
        assert row["pixels"] == int(matrix[k].sum())
    assert scores["miou"] == sum(ious) / 3
    assert scores["pixel_accuracy"] == int(np.trace(matrix)) / int(matrix.sum())
    ignored = sum(int((np.asarray(Image.open(path)) == 255).sum()) for path in truth.rglob("*.png"))
    assert scores["ignored_pixels"] == ignored


def test_two_masks_worked_out_by_hand(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 0, 1], [1, 255, 255]])
    write(tmp_path / "made" / "a.png", [[0, 1, 1], [1, 0, 77]])
    scores = score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert scores.miou == (1 / 2 + 2 / 3) / 2
    assert scores.ignored == 2
    assert scores.to_json()["classes"][2]["iou"] is None


def test_the_truth_against_itself_is_perfect(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 1, 2]])
    scores = score_folders(config, tmp_path / "truth", tmp_path / "truth", Path())
    assert set(scores.summary.values()) == {1.0}


# --- what is an error, and what is not


def test_every_mask_without_a_prediction_is_named_with_the_stem_that_is_wanted(tmp_path, config):
    for name in ("a", "b", "c"):
        write(tmp_path / "truth" / f"{name}.png", [[0]])
    write(tmp_path / "made" / "b.png", [[0]])
    with pytest.raises(DataError) as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert error.value.exit_code == 3
    assert len(error.value.problems) == 2
    assert "a.png: has no prediction" in error.value.problems[0]
    assert "'c'" in error.value.problems[1]


def test_of_many_masks_without_a_prediction_the_first_are_named_with_what_is_there_in_their_place(tmp_path, config):
    for number in range(9):
        write(tmp_path / "truth" / f"{number}.png", [[0]])
        write(tmp_path / "made" / "images" / f"{number}.png", [[0]])
    with pytest.raises(DataError) as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    *named, all_of_them = error.value.problems
    assert [problem.partition(":")[0] for problem in named] == [f"{tmp_path}/truth/{number}.png" for number in range(5)]
    assert "made: lacks 9 of 9 predictions, and holds images/0, images/1, images/2, " in all_of_them


def test_files_that_belong_to_no_mask_are_passed_over(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 1]])
    write(tmp_path / "made" / "a.png", [[0, 1]])
    write(tmp_path / "made" / "z.png", [[99]])
    write(tmp_path / "made" / "overlays" / "a.png", [[99, 98]])
    (tmp_path / "made" / "notes.txt").write_text("x")
    (tmp_path / "made" / "broken.png").write_text("no image")
    assert len(score_folders(config, tmp_path / "made", tmp_path / "truth", Path()).images) == 1


@pytest.mark.parametrize("size", [(1, 3), (2, 2), (3, 1)])
def test_a_prediction_of_another_size_is_an_error_with_both_sizes(tmp_path, config, size):
    write(tmp_path / "truth" / "a.png", np.zeros((1, 2)))
    write(tmp_path / "made" / "a.png", np.zeros(size))
    with pytest.raises(DataError, match=rf"{size[1]}x{size[0]} pixels, but its mask .* has 2x1"):
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())


def test_a_value_that_is_no_class_is_an_error_where_the_truth_counts(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 255, 1]])
    write(tmp_path / "made" / "a.png", [[0, 77, 78]])
    with pytest.raises(DataError, match=r"value 78 at \(2, 0\)") as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert "value 77" not in str(error.value)


def test_a_value_that_is_no_class_is_not_looked_at_where_the_truth_is_ignored(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 255, 255]])
    write(tmp_path / "made" / "a.png", [[0, 77, 255]])
    assert score_folders(config, tmp_path / "made", tmp_path / "truth", Path()).confusion.sum() == 1


def test_a_prediction_that_ignores_where_the_truth_counts_is_an_error(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0, 1], [1, 255]])
    write(tmp_path / "made" / "a.png", [[0, 1], [255, 255]])
    with pytest.raises(DataError, match=r"ignored value at \(0, 1\) and 1 pixels"):
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())


def test_all_files_at_fault_are_told_at_once(tmp_path, config):
    for name, value in (("a", 50), ("b", 1), ("c", 60)):
        write(tmp_path / "truth" / f"{name}.png", [[0]])
        write(tmp_path / "made" / f"{name}.png", [[value]])
    (tmp_path / "made" / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError) as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert [Path(problem.split(":")[0]).name for problem in error.value.problems] == ["a.png", "b.png", "c.png"]


@pytest.mark.parametrize("prediction", [b"no image", None])
def test_of_a_pair_whose_files_are_both_at_fault_the_truth_is_told(tmp_path, config, prediction):
    write(tmp_path / "truth" / "a.png", [[50]])
    write(tmp_path / "made" / "a.png", [[0, 0]])
    if prediction:
        (tmp_path / "made" / "a.png").write_bytes(prediction)
    with pytest.raises(DataError, match="value 50") as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert len(error.value.problems) == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("colored", [False, True])
def test_masks_of_any_kind_count_as_pixels_do(tmp_path, dtype, colored):
    if colored and dtype == np.uint16:
        pytest.skip("no mask has 16-bit colours")
    codes = ("#000000", "#ff0000", "#ff00ff", "#00ff00") if colored else (0, 40, 999 if dtype == np.uint16 else 99, 3)
    key = "colors" if colored else "values"
    classes = tuple(ClassSpec(name, **{key: (code,)}) for name, code in zip("abc", codes, strict=False))
    config = Config(data=Data(classes=classes, ignore=codes[3:], encoding="rgb" if colored else "index"))
    rng = np.random.default_rng(0)
    indices = rng.integers(0, 4, (30, 20)), rng.integers(0, 3, (30, 20))
    for folder, chosen in zip(("truth", "made"), indices, strict=True):
        stored = [[int(code[i : i + 2], 16) for i in (1, 3, 5)] for code in codes] if colored else codes
        (tmp_path / folder).mkdir()
        Image.fromarray(np.array(stored, dtype)[chosen]).save(tmp_path / folder / "a.png")
    matrix = np.zeros((4, 3), int)
    for t, p in zip(indices[0].ravel(), indices[1].ravel(), strict=True):
        matrix[t, p] += 1
    scores = score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert scores.confusion.tolist() == matrix[:3].tolist()
    assert scores.ignored == matrix[3].sum()


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("width", [4, 8, 5])  # the second is the number of runs of all rows together
def test_where_the_opacity_is_the_mask_it_is_what_is_counted(tmp_path, config, width):
    classes = (ClassSpec("background", (0,)), ClassSpec("object", (255,)))
    config = replace(config, data=replace(config.data, classes=classes, encoding="alpha", ignore=()))
    alpha = np.zeros((4, width), np.uint8)
    alpha[1:3, 1:3] = 255
    for folder, opacity in (("truth", alpha), ("made", np.zeros_like(alpha)), ("same", alpha)):
        write(tmp_path / folder / "a.png", np.dstack([np.zeros((4, width, 3), np.uint8), opacity]))
    wrong = score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert wrong.confusion.tolist() == [[4 * width - 4, 0], [4, 0]]
    right = score_folders(config, tmp_path / "same", tmp_path / "truth", Path())
    assert right.confusion.tolist() == [[4 * width - 4, 0], [0, 4]]


@pytest.mark.parametrize("broken", [False, True])
def test_scores_and_errors_do_not_depend_on_the_number_of_processes(tmp_path, config, monkeypatch, broken):
    rng = np.random.default_rng(0)
    for number in range(20):
        write(tmp_path / "truth" / f"{number:02}.png", rng.integers(0, 3, (4, 5)))
        write(tmp_path / "made" / f"{number:02}.png", rng.integers(0, 3, (4, 5)) + 50 * (broken and number % 3 == 0))
    found = []
    for share in (1000, 4):
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        monkeypatch.setattr(pools, "SHARE", share)
        try:
            scores = score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
            found.append([(image.stem, image.confusion.tolist(), image.ignored) for image in scores.images])
        except DataError as error:
            found.append(error.problems)
    assert found[0] == found[1]
    assert len(found[0]) == (7 if broken else 20)


def test_two_predictions_for_one_mask_are_an_error_and_two_for_none_are_not(tmp_path, config):
    write(tmp_path / "truth" / "a.png", [[0]])
    for name in ("a.png", "a.bmp", "z.png", "z.bmp"):
        write(tmp_path / "made" / name, [[0]])
    with pytest.raises(DataError, match="2 files for one image") as error:
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())
    assert len(error.value.problems) == 1


def test_a_folder_without_masks_is_an_error(tmp_path, config):
    (tmp_path / "truth").mkdir()
    write(tmp_path / "made" / "a.png", [[0]])
    with pytest.raises(DataError, match="holds no masks"):
        score_folders(config, tmp_path / "made", tmp_path / "truth", Path())


# --- pairing


@pytest.mark.parametrize(
    ("rule", "made", "truth"),
    [
        ({}, "a.png", "a.bmp"),
        ({"mask_suffix": "_mask"}, "a.png", "a_mask.png"),
        ({"image_suffix": "_rgb", "mask_suffix": "_gt"}, "a_rgb.png", "a_gt.png"),
        ({"image_prefix": "im_", "mask_prefix": "gt_"}, "s/im_7.png", "s/gt_7.png"),
    ],
)
def test_a_prediction_bears_its_images_stem_under_the_configs_rule(tmp_path, config, rule, made, truth):
    write(tmp_path / "made" / made, [[0]])
    write(tmp_path / "truth" / truth, [[0]])
    (record,) = pair_predictions(with_pairing(config, **rule), tmp_path / "made", tmp_path / "truth", Path())
    assert record.image == tmp_path / "made" / made
    assert record.mask == tmp_path / "truth" / truth


def test_a_prediction_with_the_masks_suffix_is_not_taken_for_one_with_the_images(tmp_path, config):
    rule = {"image_suffix": "_rgb", "mask_suffix": "_gt"}
    write(tmp_path / "made" / "a_gt.png", [[0]])
    write(tmp_path / "truth" / "a_gt.png", [[0]])
    with pytest.raises(DataError, match="has no prediction"):
        pair_predictions(with_pairing(config, **rule), tmp_path / "made", tmp_path / "truth", Path())


def test_masks_that_do_not_bear_the_rules_suffix_are_no_truth(tmp_path, config):
    for name in ("a_gt.png", "b.png"):
        write(tmp_path / "truth" / name, [[0]])
    write(tmp_path / "made" / "a.png", [[0]])
    records = pair_predictions(with_pairing(config, mask_suffix="_gt"), tmp_path / "made", tmp_path / "truth", Path())
    assert [record.stem for record in records] == ["a"]


def test_a_mask_that_lacks_the_suffix_counts_where_a_prediction_bears_its_name_as_it_does_in_training(tmp_path, config):
    for name in ("a_gt.png", "c.png"):
        write(tmp_path / "truth" / name, [[0]])
    for name in ("a.png", "c.png"):
        write(tmp_path / "made" / name, [[0]])
    pairing = Pairing(mask_suffix="_gt")
    (tmp_path / "images").mkdir()
    for name in ("a.png", "c.png"):
        write(tmp_path / "images" / name, [[0]])
    trained = find_pairs(tmp_path / "images", tmp_path / "truth", pairing).records
    records = pair_predictions(with_pairing(config, mask_suffix="_gt"), tmp_path / "made", tmp_path / "truth", Path())
    assert [record.mask for record in records] == [record.mask for record in trained]
    assert [record.stem for record in records] == ["a", "c"]


def test_a_photograph_beside_the_masks_is_never_a_truth(tmp_path, config):
    for name in ("a_gt.png", "a.jpg", "b.jpg"):
        write(tmp_path / "truth" / name, [[0]])
    for name in ("a.png", "b.png"):
        write(tmp_path / "made" / name, [[0]])
    records = pair_predictions(with_pairing(config, mask_suffix="_gt"), tmp_path / "made", tmp_path / "truth", Path())
    assert [record.stem for record in records] == ["a"]


@pytest.mark.parametrize(
    ("names", "rule"), [(("{}.jpg", "{}.png"), {}), (("{}.png", "{}_gt.png"), {"mask_suffix": "_gt"})]
)
def test_masks_in_the_folder_of_their_images_are_told_apart_as_in_training(tmp_path, config, names, rule):
    for stem in "ab":
        for name in names:
            write(tmp_path / "all" / name.format(stem), [[0]])
        write(tmp_path / "made" / f"{stem}.png", [[0]])
    config = with_pairing(config, **rule)
    config = replace(config, data=replace(config.data, root=".", train=Folders("all", "all"), val=None, test=None))
    records = pair_predictions(config, tmp_path / "made", tmp_path / "all", tmp_path)
    assert [record.mask for record in records] == [tmp_path / "all" / names[1].format(stem) for stem in "ab"]


@pytest.mark.parametrize("excluded", ["images/b.png", "masks/b.png"])
def test_what_the_config_leaves_out_is_not_scored(tmp_path, config, excluded):
    for folder in ("images", "masks", "made"):
        for stem in "abc":
            write(tmp_path / folder / f"{stem}.png", [[0]])
    write(tmp_path / "masks" / "b.png", [[7]])  # no class
    data = replace(config.data, root=".", train=Folders("images", "masks"), val=None, test=None)
    with pytest.raises(DataError, match=r"b\.png"):
        score_folders(replace(config, data=data), tmp_path / "made", tmp_path / "masks", tmp_path)
    config = replace(config, data=replace(data, exclude=(excluded,)))
    scores = score_folders(config, tmp_path / "made", tmp_path / "masks", tmp_path)
    assert [image.stem for image in scores.images] == ["a", "c"]


def test_a_mask_without_an_image_is_not_scored_where_such_are_left_out(tmp_path, config):
    for name in ("images/a", "masks/a", "masks/b", "made/a"):
        write(tmp_path / f"{name}.png", [[0]])
    data = replace(config.data, root=".", train=Folders("images", "masks"), val=None, test=None)
    with pytest.raises(DataError, match=r"b\.png: has no prediction"):
        score_folders(replace(config, data=data), tmp_path / "made", tmp_path / "masks", tmp_path)
    config = replace(config, data=replace(data, unpaired="skip"))
    scores = score_folders(config, tmp_path / "made", tmp_path / "masks", tmp_path)
    assert [image.stem for image in scores.images] == ["a"]


def test_predictions_within_the_folder_of_the_masks_are_no_truth(tmp_path, config):
    for name in ("a", "b", "made/a", "made/b"):
        write(tmp_path / f"{name}.png", [[0]])
    scores = score_folders(config, tmp_path / "made", tmp_path, Path())
    assert [image.stem for image in scores.images] == ["a", "b"]


@pytest.mark.parametrize("made", ["photo_{}.png", "im/photo_{}.png"])
@pytest.mark.parametrize("masks", ["labels", "copy"])
def test_masks_that_a_list_pairs_are_scored_by_their_images_stems(tmp_path, config, made, masks):
    lines = []
    for number in range(3):
        write(tmp_path / "im" / f"photo_{number}.png", [[0]])
        for folder in ("labels", "copy"):
            write(tmp_path / folder / f"lab7{number}.png", [[number]])
        write(tmp_path / "made" / made.format(number), [[number]])
        lines.append(f"im/photo_{number}.png,labels/lab7{number}.png\n")
    write(tmp_path / masks / "unlisted.png", [[0]])
    (tmp_path / "pairs.csv").write_text("".join(lines))
    data = replace(config.data, root=".", format="list", train=Folders(list="pairs.csv"), val=None, test=None)
    scores = score_folders(replace(config, data=data), tmp_path / "made", tmp_path / masks, tmp_path)
    assert scores.confusion.tolist() == np.eye(3, dtype=int).tolist()
    (tmp_path / "made" / made.format(1)).unlink()
    with pytest.raises(DataError, match=r"lab71\.png: has no prediction .* its image's stem, 'im/photo_1'"):
        score_folders(replace(config, data=data), tmp_path / "made", tmp_path / masks, tmp_path)


def test_scoring_folders_as_json_needs_no_torch_and_nothing_that_draws(tmp_path, tiny_ds):
    child = (
        "import atexit, sys\nfrom segtool.__main__ import main\n"
        "heavy = {'torch', 'rich', 'tqdm', 'filelock'}\n"
        "atexit.register(lambda: print(sorted(heavy & sys.modules.keys()), file=sys.stderr))\n"
        "main()\n"
    )
    from segtool.config import dump_config

    (tmp_path / "config.yaml").write_text(dump_config(config_of(tiny_ds)))
    masks = str(tiny_ds / "val" / "masks")
    words = ["eval", "--predictions", masks, "--masks", masks, "--config", str(tmp_path / "config.yaml"), "--json"]
    command = [sys.executable, "-c", child, *words]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True, cwd=tmp_path)
    assert json.loads(ended.stdout)["miou"] == 1.0
    assert ended.stderr == "[]\n"
