"""From files to scores: what unusual and hostile data come to, in `check`, training, `eval` and `predict`.

What one function does with one file is in test_images, test_labels, test_formats and test_check. Here it is what a user
gets: exit codes, what is said, and that all commands mean the same by a file.
"""

from __future__ import annotations

import ast
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, check, config_of
from PIL import Image
from reading import read_image
from stubs import red

import segtool.data
from segtool.commands import session
from segtool.commands.sources import load_any
from segtool.config import Augment, Config
from segtool.data.codes import IGNORE
from segtool.data.dataset import EvaluationSet, TrainingSet
from segtool.data.draw import overlay
from segtool.data.formats import split_records
from segtool.data.labels import Labels
from segtool.data.loader import training_batches
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.statistics import measure_images
from segtool.errors import DataError
from segtool.prediction.inference import Predictor
from segtool.prediction.predict import predict
from segtool.prediction.predicted_files import list_jobs
from segtool.scoring import evaluate as evaluation
from segtool.scoring.metrics import ImageScore, Scores, iou, mean
from segtool.system.distributed import World
from segtool.system.terminal import Reporter

SIZE = (24, 32)
QUICK = ("--set=model.encoder.channels=[4, 8]", "--set=augment.crop=[16, 16]", "--set=train.steps=2")
QUICK = (*QUICK, "--set=train.batch_size=2", "--set=train.compile=false", "--set=train.precision=fp32")
CONFIG = """\
data:
  train: {images: images, masks: masks}
  split: {val: 0.34}
  encoding: index
  classes:
    - {name: soil, values: [0]}
    - {name: leaf, values: [1]}
"""


def picture(seed: int, size: tuple[int, int] = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8))


def truth(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2, size, np.uint8)


def save(path: Path, values: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pairs n0 to n5 of 24x32 pixels with classes 0 and 1, and a config beside them."""
    root = tmp_path / "set"
    for index in range(6):
        save(root / f"images/n{index}.png", np.asarray(picture(index)))
        save(root / f"masks/n{index}.png", truth(index))
    (root / "config.yaml").write_text(CONFIG)
    return root


def report(segtool: Command, folder: Path, *options: str) -> tuple[int, dict[str, dict[str, Any]]]:
    """Returns the exit code of `check --json` and its findings by code."""
    result = segtool("check", folder / "config.yaml", "--json", *options)
    return result.code, {finding["code"]: finding for finding in json.loads(result.out)["findings"]}


def scored(config: Config, records: list[Record], predictor: Predictor | None = None, *, workers: int = 0) -> Scores:
    predictor = predictor or red(100)
    dataset = EvaluationSet(records, replace(Reader.of(config), channels=predictor.channels))
    return evaluation.evaluate(predictor, dataset, World(), workers=workers, reporter=Reporter(quiet=True))


# --- photographs that a camera has turned


UNDO: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: np.fliplr,
    3: lambda a: np.rot90(a, 2),
    4: np.flipud,
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, -1),
}
"""From the picture that viewers show to the grid that a file with this orientation stores."""


def upright(mask: np.ndarray) -> np.ndarray:
    """Returns the picture whose red channel tells a mask's classes."""
    return np.stack([mask * np.uint8(100), mask, mask], axis=2)


def photographed(root: Path, orientation: int, exif: str) -> Config:
    """Writes photographs of one orientation whose masks were drawn on the grid that `exif` takes them for."""
    tag = Image.Exif()
    tag[0x0112] = orientation
    for split in ("train", "val"):
        shown = np.random.default_rng(orientation).integers(0, 3, (5, 8), np.uint8)
        stored = np.ascontiguousarray(UNDO[orientation](shown))
        save(root / split / "images/a.png", upright(stored), exif=tag.tobytes())
        save(root / split / "masks/a.png", shown if exif == "apply" else stored)
    return config_of(root, data={"test": None, "exif": exif, "mean": [0.0] * 3, "std": [1.0] * 3, "mask_mode": "L"})


def fits(config: Config, root: Path) -> None:
    """Asserts that check, training, scoring and prediction all lay image and mask on one grid."""
    records = split_records(config, Path("/"))
    assert not [finding for finding in check(config, Path("/")) if finding.severity == "error"]
    mask = np.asarray(Image.open(root / "val/masks/a.png"))
    image, target, _ = TrainingSet(records["train"], Reader.of(config), Augment(), mask.shape, 0)[0, 0]
    assert np.array_equal(image[0].numpy(), target.numpy() * 100)
    assert scored(config, records["val"]).miou == 1.0
    jobs = list_jobs([root / "val/images"], root / "out", overlays=True, probabilities=False)
    (made,) = predict(red(100), config, jobs)
    assert isinstance(made, Path)
    assert np.array_equal(np.asarray(Image.open(made)), mask)
    rows, columns = map(slice, mask.shape)
    expected = overlay(upright(mask), mask, Labels.from_config(config.data).colors, "abc")
    found = Image.open(root / "out/overlays/a.png")
    assert np.array_equal(np.asarray(found)[rows, columns], np.asarray(expected)[rows, columns])


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", UNDO)
def test_masks_lie_on_their_images_in_every_command_whatever_the_orientation(tmp_path, orientation, exif):
    fits(photographed(tmp_path, orientation, exif), tmp_path)


@pytest.mark.parametrize("exif", ["apply", "ignore"])
@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_masks_of_the_other_grid_do_not_pass_for_masks_of_this_one(tmp_path, orientation, exif):
    """The negative control of the test above."""
    config = photographed(tmp_path, orientation, exif)
    other = replace(config, data=replace(config.data, exif="ignore" if exif == "apply" else "apply"))
    with pytest.raises(AssertionError):
        fits(other, tmp_path)


def test_a_photograph_is_refused_where_the_config_wants_none_that_is_turned(segtool, folder):
    tag = Image.Exif()
    tag[0x0112] = 3
    picture(1).save(folder / "images/n1.png", exif=tag)
    assert report(segtool, folder)[0] == 0
    code, findings = report(segtool, folder, "--set=data.exif=error")
    assert code == 3
    assert "images/n1.png: EXIF orientation 3" in findings["SEG201"]["example"]


# --- pixels


def test_the_scale_of_an_image_does_not_depend_on_what_it_shows(tmp_path):
    """Darkest first: what looks at the content would take 0 and 1 for black and white."""

    def by_content(path: Path) -> np.ndarray:
        values = np.asarray(Image.open(path))
        return values if (values > 1).any() else values * np.uint8(255)

    def same(read: Callable[[Path], np.ndarray]) -> None:
        for top in (1, 2, 254, 255):
            values = np.array([[0, 1], [1, top]], np.uint8)
            assert np.array_equal(read(save(tmp_path / "a.png", values)).reshape(2, 2), values)

    same(lambda path: read_image(path, channels=1))
    with pytest.raises(AssertionError):
        same(by_content)


# --- masks


def test_colour_masks_are_refused_until_the_config_says_what_their_colours_mean(segtool, folder):
    for index in range(6):
        save(folder / f"masks/n{index}.png", truth(index)[..., None] * np.array([200, 100, 0], np.uint8))
    code, findings = report(segtool, folder)
    assert code == 3
    assert findings["SEG301"]["count"] == 6
    assert "set data.encoding: rgb" in findings["SEG301"]["remedy"]
    classes = '[{name: soil, colors: ["#000000"]}, {name: leaf, colors: ["#c86400"]}]'
    assert report(segtool, folder, "--set=data.encoding=rgb", f"--set=data.classes={classes}")[0] == 0


def test_jpeg_masks_are_refused_until_init_has_written_a_config_that_takes_the_nearest_value(segtool, folder):
    for index in range(6):
        (folder / f"masks/n{index}.png").unlink()
        block = np.kron(truth(index, (3, 4)), np.ones((8, 8), np.uint8)) * np.uint8(255)
        save(folder / f"masks/n{index}.jpg", block, quality=60)
    code, findings = report(segtool, folder)
    assert code == 3
    assert "lossy" in findings["SEG301"]["example"]
    assert segtool("train", folder / "config.yaml", "--run", folder / "run", *QUICK).code == 3
    (folder / "config.yaml").unlink()
    assert segtool("init", folder, "--out", folder / "config.yaml").code == 0
    code, findings = report(segtool, folder)
    assert code == 0
    assert findings["SEG303"]["severity"] == "note"
    assert "lossy" in findings["SEG303"]["message"]


@pytest.mark.parametrize(
    ("size", "told"),
    [((23, 32), "32x23"), ((32, 24), "24x32, but its image images/n2.png has 32x24: rotated?"), ((12, 16), "16x12")],
)
def test_a_mask_of_another_size_than_its_image_is_refused_with_both_sizes(segtool, folder, size, told):
    save(folder / "masks/n2.png", truth(2, size))
    code, findings = report(segtool, folder)
    assert code == 3
    assert "masks/n2.png: " in findings["SEG203"]["example"]
    assert told in findings["SEG203"]["example"]
    assert "32x24" in findings["SEG203"]["example"]
    trained = segtool("train", folder / "config.yaml", "--run", folder / "run", *QUICK)
    assert trained.code == 3
    assert "masks/n2.png" in trained.err
    assert not (folder / "run").exists()


# --- files


def test_all_files_that_cannot_be_read_are_told_in_one_go_and_training_names_them_too(segtool, folder):
    whole = (folder / "images/n1.png").read_bytes()
    (folder / "images/n0.png").write_bytes(b"")
    (folder / "images/n1.png").write_bytes(whole[: len(whole) // 2])
    (folder / "images/n2.png").write_text("<!DOCTYPE html><html><body>404</body></html>")
    (folder / "images/n3.png").unlink()
    (folder / "images/n3.png").mkdir()
    (folder / "masks/n4.png").write_bytes((folder / "masks/n4.png").read_bytes()[:60])
    bad = [f"images/n{index}.png" for index in range(4)] + ["masks/n4.png"]
    result = segtool("check", folder / "config.yaml")
    assert result.code == 3
    for name, word in zip(bad, ("is empty", "truncated", "a web page", "is a folder", "truncated"), strict=True):
        assert any(name in line and word in line for line in result.out.splitlines()), name
    trained = segtool("train", folder / "config.yaml", "--run", folder / "run", *QUICK)
    assert trained.code == 3
    assert [name for name in bad if name not in trained.err] == []


NAMES = ("img[1].png", "a*.png", "a?b c.JPG", "$x;rm.png", "%s{0}.png", "-rf.png", "=1+1.png", " .png", "a.b.c.png")


def test_names_are_names_and_never_patterns(segtool, folder):
    """Each name that a glob would read as a pattern lies beside one that the pattern would match."""
    for index, name in enumerate((*NAMES, "img1.png", "ab.png", "axb c.png")):
        picture(20 + index).save(folder / "images" / name)
        save(folder / "masks" / (name.rpartition(".")[0] + ".png"), truth(20 + index))
    for junk in ("Thumbs.db", ".DS_Store", "._n0.png", ".hidden.png", "desktop.ini"):
        (folder / "images" / junk).write_bytes(b"junk")
    result = segtool("check", folder / "config.yaml", "--json")
    assert (result.code, json.loads(result.out)["findings"]) == (0, [])
    assert sum(split["pairs"] for split in json.loads(result.out)["splits"].values()) == 18
    paired = split_records(load_any(folder / "config.yaml")[0], folder)
    for record in (record for records in paired.values() for record in records):
        assert record.mask is not None
        assert record.image.stem == record.mask.stem


def patterns(source: str) -> list[str]:
    """Returns the calls that make a pattern of anything but a constant, and imports of what does."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            searches = node.func.attr in ("glob", "iglob", "rglob", "fnmatch")
            if searches and not all(isinstance(item, ast.Constant) for item in node.args):
                found.append(ast.unparse(node))
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None)}
            found += sorted(names & {"glob", "fnmatch"})
    return found


def test_no_module_makes_a_pattern_of_a_name():
    for source in Path(segtool.data.__file__).parent.parent.rglob("*.py"):
        assert patterns(source.read_text()) == [], source
    assert patterns("import glob\nfolder.glob(f'{stem}.*')\nfolder.rglob('*')") == ["glob", "folder.glob(f'{stem}.*')"]


def test_stems_that_differ_in_case_are_two_and_their_masks_are_not_exchanged(segtool, folder):
    for name, seed in (("Leaf", 30), ("leaf", 31)):
        picture(seed).save(folder / f"images/{name}.JPG")
        save(folder / f"masks/{name}.png", truth(seed))
    if len(list((folder / "masks").iterdir())) < 8:
        pytest.skip("this file system does not tell case")
    assert report(segtool, folder)[0] == 0
    (folder / "masks/leaf.png").unlink()
    code, findings = report(segtool, folder)
    assert code == 3
    assert findings["SEG103"]["files"] == ["images/leaf.JPG"]


def test_two_images_of_one_stem_are_one_error_that_names_both(segtool, folder):
    picture(9).save(folder / "images/n0.jpg")
    code, findings = report(segtool, folder)
    assert code == 3
    assert "images/n0.jpg and images/n0.png have one stem" in findings["SEG105"]["example"]


@pytest.mark.skipif(os.name == "nt", reason="names of any bytes are for POSIX")
def test_names_that_are_no_utf8_pass_through_every_command_and_are_printed_escaped(segtool, folder):
    try:
        for kind in ("images", "masks"):
            shutil.copy(folder / kind / "n0.png", os.fsencode(folder / kind) + b"/\xe9t\xe9.png")
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    run, out = folder.parent / "run", folder.parent / "out"
    assert segtool("train", folder / "config.yaml", "--run", run, *QUICK, "--set=train.workers=0").code == 0
    assert segtool("eval", run).code == 0
    assert segtool("predict", run, folder / "images", "--out", out, "--overlay").code == 0
    assert b"\xe9t\xe9.png" in os.listdir(os.fsencode(out))
    given = ("--predictions", out, "--masks", folder / "masks", "--config", folder / "config.yaml")
    assert segtool("eval", *given).code == 0
    os.unlink(os.fsencode(folder / "masks") + b"/\xe9t\xe9.png")
    result = segtool("check", folder / "config.yaml")
    assert result.code == 3
    assert r"images/\udce9t\udce9.png: no mask of that stem" in result.out


def test_missing_and_extra_partners_are_counted_and_named(segtool, folder):
    (folder / "masks/n1.png").unlink()
    save(folder / "masks/zebra.png", truth(1))
    code, findings = report(segtool, folder)
    assert code == 3
    for key, message, name in (
        ("SEG103", "1 image without a mask", "images/n1.png"),
        ("SEG104", "1 mask without an image", "masks/zebra.png"),
    ):
        assert (findings[key]["message"], findings[key]["files"], findings[key]["count"]) == (message, [name], 1)
    trained = segtool("train", folder / "config.yaml", "--run", folder / "run", *QUICK)
    assert trained.code == 3
    assert "images/n1.png" in trained.err
    assert "masks/zebra.png" in trained.err


def split_folders(folder: Path) -> Path:
    """Moves pairs n4 and n5 to folders of their own, for validation."""
    for kind in ("images", "masks"):
        (folder / "val" / kind).mkdir(parents=True)
        for index in (4, 5):
            shutil.move(folder / kind / f"n{index}.png", folder / "val" / kind / f"n{index}.png")
    text = CONFIG.replace("  split: {val: 0.34}\n", "  val: {images: val/images, masks: val/masks}\n")
    (folder / "config.yaml").write_text(text)
    return folder


def test_a_picture_in_two_splits_is_a_warning_with_the_pair_and_an_error_under_strict(segtool, folder):
    split_folders(folder)
    assert "SEG501" not in report(segtool, folder)[1]
    for kind in ("images", "masks"):
        shutil.copy(folder / kind / "n1.png", folder / "val" / kind / "other.png")
    code, findings = report(segtool, folder)
    assert code == 0
    assert findings["SEG501"]["example"] == "images/n1.png (train) = val/images/other.png (val)"
    assert report(segtool, folder, "--strict")[0] == 3


def test_a_name_in_two_splits_with_different_pictures_is_a_note(segtool, folder):
    split_folders(folder)
    for kind, values in (("images", np.asarray(picture(50))), ("masks", truth(50))):
        shutil.move(folder / kind / "n2.png", folder / kind / "street.png")
        save(folder / "val" / kind / "street.png", values)
    _, findings = report(segtool, folder)
    assert findings["SEG502"]["severity"] == "note"
    assert findings["SEG502"]["files"] == ["street"]
    assert "SEG501" not in findings


# --- values that are no class


def black_and_white(folder: Path) -> None:
    for index in range(6):
        save(folder / f"masks/n{index}.png", truth(index) * np.uint8(255))


def third_class(folder: Path) -> None:
    save(folder / "masks/n3.png", truth(3) * np.uint8(2))


def sixteen_bit(folder: Path) -> None:
    save(folder / "masks/n3.png", truth(3).astype(np.uint16) * np.uint16(256))


def signed(dtype: type) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        tifffile = pytest.importorskip("tifffile")
        (folder / "masks/n3.png").unlink()
        tifffile.imwrite(folder / "masks/n3.tif", -truth(3).astype(dtype))

    return write


WRONG_VALUES = {
    "0/255": (black_and_white, "255", "masks/n0.png", "give the second class `values: [255]`"),
    "id = C": (third_class, "2", "masks/n3.png", "add a class with the value"),
    "16-bit 256": (sixteen_bit, "256", "masks/n3.png", "add a class with the value"),
    "negative 8-bit": (signed(np.int8), "-1", "masks/n3.tif", "add a class with the value"),
    "negative 16-bit": (signed(np.int16), "-1", "masks/n3.tif", "add a class with the value"),
}


@pytest.mark.parametrize("kind", WRONG_VALUES)
def test_a_value_that_is_no_class_is_told_with_its_count_and_first_file(segtool, folder, kind):
    change, value, name, hint = WRONG_VALUES[kind]
    change(folder)
    code, findings = report(segtool, folder)
    finding = findings["SEG302"]
    assert code == 3
    files = finding["count"]
    pixels = sum(int(truth(index).sum()) for index in (range(6) if files == 6 else [3]))
    told = f"{value} ({pixels} pixels in {files} file{'s, first' if files > 1 else ','} {name})"
    assert finding["message"].endswith(told)
    assert finding["example"].startswith(f"{name}: {value} at (")
    assert hint in finding["remedy"]


def truncated(folder: Path) -> None:
    (folder / "masks/n3.png").write_bytes((folder / "masks/n3.png").read_bytes()[:50])


def gone(folder: Path) -> None:
    (folder / "masks/n3.png").unlink()


def transposed(folder: Path) -> None:
    save(folder / "masks/n3.png", truth(3, SIZE[::-1]))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("change", [third_class, sixteen_bit, truncated, gone, transposed])
def test_a_file_that_changes_after_the_check_ends_the_training_with_its_name(
    segtool, folder, monkeypatch, change, workers
):
    planned = session.planned

    def late(*arguments: Any, **options: Any) -> Any:
        change(folder)
        return planned(*arguments, **options)

    monkeypatch.setattr(session, "planned", late)
    steps = ("--set=train.steps=6", f"--set=train.workers={workers}")
    result = segtool("train", folder / "config.yaml", "--run", folder / "run", *QUICK, *steps)
    assert result.code == 3
    assert "masks/n3.png" in result.err.splitlines()[-1] + result.err.splitlines()[-2]
    assert "Traceback" not in result.err


# --- classes that are not there


def test_a_class_that_never_occurs_is_warned_of_and_its_scores_are_null(segtool, folder):
    split_folders(folder)
    three = "--set=data.classes=[{name: soil, values: [0]}, {name: leaf, values: [1]}, {name: pod, values: [2]}]"
    save(folder / "masks/n0.png", np.full(SIZE, 2, np.uint8))
    code, findings = report(segtool, folder, three)
    assert code == 0
    assert findings["SEG402"]["message"] == "1 class never occurs in the val masks: pod"
    assert report(segtool, folder, three, "--strict")[0] == 3
    masks = folder / "val/masks"
    given = ("--predictions", masks, "--masks", masks, "--config", folder / "config.yaml", three, "--json")
    scores = json.loads(segtool("eval", *given).out)
    pod = scores["classes"][2]
    assert [pod[key] for key in ("iou", "dice", "precision", "recall", "pixels")] == [None, None, None, None, 0]
    assert scores["miou"] == 1.0


# --- open files


FILES = 500


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """500 images of 8x8 pixels in PNG and TIFF, one mask linked under 500 names; in `bad`, 100 that are cut off."""
    root = tmp_path_factory.mktemp("many")
    for kind in ("images", "masks", "bad"):
        (root / kind).mkdir()
    for index in range(FILES):
        picture(index, (8, 8)).save(root / f"images/{index:03}.{('png', 'tif')[index % 2]}", compression=None)
        mask = truth(index, (8, 8))
        mask[0, 0] = 2
        save(root / f"masks/{index:03}.png", mask)
    for index in range(100):
        (root / f"bad/{index}.png").write_bytes((root / "images/000.png").read_bytes()[:60])
    return root


def many_config(root: Path) -> Config:
    both = {"images": "images", "masks": "masks"}
    return config_of(root, data={"train": both, "val": None, "test": None, "split": {"val": 0.5}})


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """Lets the process open 64 files at a time, or 24 more than it has open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    open_files = len(os.listdir("/proc/self/fd"))
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(64, open_files + 24), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_five_hundred_files_are_checked_loaded_scored_and_predicted_with_few_descriptors(
    many, tmp_path, few_descriptors
):
    config = many_config(many)
    assert check(config, Path("/")) == []
    records = split_records(config, Path("/"))
    assert len(measure_images(config, records["train"])[0]) == 3
    dataset = TrainingSet(records["train"] + records["val"], Reader.of(config), Augment(), (8, 8), 0)
    batches = training_batches(dataset, World(), batch_size=25, start=0, steps=20, workers=0)
    assert sorted(int(index) for batch in batches for index in batch.indices) == list(range(FILES))
    assert len(scored(config, records["val"]).images) == FILES // 2
    config = replace(config, data=replace(config.data, mask_mode="L"))
    jobs = list_jobs([many / "images"], tmp_path, overlays=False, probabilities=False)
    assert all(isinstance(made, Path) for made in predict(red(100), config, jobs))
    for path in (many / "bad").iterdir():
        with pytest.raises(DataError):
            read_image(path, channels=3)


def test_a_reader_that_leaves_its_files_open_runs_out_of_descriptors(many, few_descriptors):
    """The negative control of the test above."""
    left: list[Image.Image] = []
    with pytest.raises(OSError, match="Too many open files"):
        left.extend(map(Image.open, (many / "images").iterdir()))
    for image in left:
        image.close()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts the open files of Linux")
def test_five_hundred_files_pass_through_the_program_itself_with_64_descriptors(many, tmp_path):
    for kind in ("images", "masks"):
        shutil.copytree(many / kind, tmp_path / kind)
    (tmp_path / "config.yaml").write_text(CONFIG + "    - {name: pod, values: [2]}\n")

    def run(*arguments: str) -> None:
        few = partial(resource.setrlimit, resource.RLIMIT_NOFILE, (64, 64))
        command = [sys.executable, "-m", "segtool", *arguments]
        done = subprocess.run(command, cwd=tmp_path, preexec_fn=few, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr

    run("check", "config.yaml", "--strict")
    for workers in ("0", "1"):
        longer = ("--set=train.steps=200", "--set=train.cache=false", f"--set=train.workers={workers}")
        run("train", "config.yaml", "--run", f"run{workers}", *QUICK, *longer)
        run("eval", f"run{workers}")
    run("predict", "run0", "images", "--out", "out", "--overlay")
    run("eval", "--predictions", "out", "--masks", "masks", "--config", "config.yaml")


# --- scores


@pytest.fixture(scope="module")
def guesses(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Eleven images of several sizes whose red channel tells the answer, right or wrong, and masks with ignored pixels.

    The classes are unequally common in them, so that a mean over images or batches is another number.
    """
    root = tmp_path_factory.mktemp("guesses")
    rng = np.random.default_rng(1)
    for index in range(11):
        size = rng.integers(3, 20, 2)
        mask = rng.choice([0, 1, 2, 255], size, p=rng.dirichlet([0.4] * 4)).astype(np.uint8)
        answer = np.where(rng.random(size) < 0.6, mask % 255, rng.integers(0, 3, size)).astype(np.uint8)
        for split in ("train", "val"):
            save(root / split / f"images/{index}.png", np.repeat(answer[..., None] * np.uint8(100), 3, axis=2))
            save(root / split / f"masks/{index}.png", mask)
    return config_of(root, data={"test": None})


def brute_force(records: list[Record]) -> np.ndarray:
    """Returns the confusion matrix as a loop over pixels counts it."""
    matrix = np.zeros((3, 3), np.int64)
    for record in records:
        answer, mask = np.asarray(Image.open(record.image))[..., 0], np.asarray(Image.open(str(record.mask)))
        for said, true in zip(answer.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if true != 255:
                matrix[true, said // 100] += 1
    return matrix


def agrees(config: Config, *, workers: int = 0) -> None:
    """Asserts that the scores are those of a loop over all pixels, in whatever order the images come."""
    records = split_records(config, Path("/"))["val"]
    expected = brute_force(records)
    union = expected.sum(0) + expected.sum(1) - np.diag(expected)
    for seed in (None, 1, 2):
        order = records if seed is None else [records[i] for i in np.random.default_rng(seed).permutation(len(records))]
        found = scored(config, order, workers=workers)
        assert found.confusion.dtype == np.int64
        assert np.array_equal(found.confusion, expected)
        assert (
            found.miou == found.summary["miou"] == pytest.approx(float(np.mean(np.diag(expected) / union)), abs=1e-12)
        )
        assert len(found.images) == len(records)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_scores_are_the_data_sets_in_any_order_and_with_any_number_of_workers(guesses, workers):
    agrees(guesses, workers=workers)


def mean_over_batches(size: int) -> Callable[[Scores], float | None]:
    def miou(scores: Scores) -> float | None:
        matrices = [image.confusion for image in scores.images]
        batches = [sum(matrices[start : start + size]) for start in range(0, len(matrices), size)]
        return mean([mean(iou(matrix)) for matrix in batches])  # type: ignore[arg-type]

    return miou


def changed(change: Callable[[list[ImageScore]], list[ImageScore]]) -> Callable[..., Scores]:
    whole = Scores.of
    return lambda names, images: whole(names, change(list(images)))


def transposed_matrix(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    return evaluation_matrix(target, prediction, num_classes).T


def ignored_as_class_0(target: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    return evaluation_matrix(np.where(target == IGNORE, 0, target).astype(np.uint8), prediction, num_classes)


evaluation_matrix = evaluation.confusion_matrix
BROKEN_SCORES: dict[str, tuple[object, str, object]] = {
    **{f"mean over batches of {n}": (Scores, "miou", property(mean_over_batches(n))) for n in (1, 2, 3, 8)},
    "the last, smaller batch is dropped": (evaluation.Scores, "of", changed(lambda images: images[:8])),
    "padded to a multiple of two": (evaluation.Scores, "of", changed(lambda images: [*images, images[0]])),
    "rows and columns exchanged": (evaluation, "confusion_matrix", transposed_matrix),
    "ignored pixels count as class 0": (evaluation, "confusion_matrix", ignored_as_class_0),
}


@pytest.mark.parametrize("broken", BROKEN_SCORES)
def test_the_usual_wrong_scores_do_not_agree_with_the_loop(guesses, monkeypatch, broken):
    """The negative controls of the test above."""
    place, name, value = BROKEN_SCORES[broken]
    monkeypatch.setattr(place, name, value)
    with pytest.raises(AssertionError):
        agrees(guesses)


def test_what_is_predicted_does_not_depend_on_the_order_of_the_images(guesses, tmp_path):
    config = replace(guesses, data=replace(guesses.data, mask_mode="L"))
    records = split_records(config, Path("/"))["val"]
    made = []
    for name, images in (("there", records), ("back", records[::-1])):
        jobs = list_jobs([record.image for record in images], tmp_path / name, overlays=False, probabilities=False)
        list(predict(red(100), config, jobs, tile=4))
        made.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert made[0] == made[1]
    assert len(made[0]) == 11


# --- huge images


HUGE = """
import sys, resource
from pathlib import Path
import torch
from PIL import Image
from conftest import config_of
from segtool.prediction.inference import Normalize, Predictor
from segtool.models.segmenter import build_model
from segtool.prediction.predict import predict
from segtool.prediction.predicted_files import list_jobs

torch.set_num_threads(1)
root = Path(sys.argv[1])
for name, side in (("small", 64), ("huge", 6000)):
    (root / name).mkdir()
    Image.new("RGB", (side, side), (90, 30, 200)).save(root / name / "a.png")
classes = [{"name": f"c{k}", "values": [k]} for k in range(20)]
data = {"classes": classes, "ignore": [], "mask_mode": "L"}
config = config_of(root, data=data, model={"encoder": {"name": "conv", "channels": [2, 2]}})
network = build_model(config.model, 20, 3)
predictor = Predictor(network, Normalize((0.5,) * 3, (0.2,) * 3), torch.device("cpu"))

def run(name):
    jobs = list_jobs([root / name], root / "out" / name, overlays=False, probabilities=False)
    (made,) = predict(predictor, config, jobs)
    return Image.open(made).size

assert run("small") == (64, 64)
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 1500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    torch.empty(20, 6000, 6000)
except RuntimeError:
    print("the scores of the whole image do not fit")
assert run("huge") == (6000, 6000)
print("its mask was made")
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space by what /proc tells")
def test_an_image_of_6000x6000_pixels_and_20_classes_is_predicted_where_its_scores_would_not_fit(tmp_path):
    """All scores at once would take 2.9 GB; the process may take half of that more than it has."""
    tests = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{tests}{os.pathsep}{tests.parent}"}
    command = [sys.executable, "-c", HUGE, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["the scores of the whole image do not fit", "its mask was made"]
