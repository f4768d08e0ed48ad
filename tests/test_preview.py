"""`segtool check --augment` shows what training sees, writes what it says, and needs no torch."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtool.config import Augment, ClassSpec, Config, Data, Folders
from segtool.data import preview
from segtool.data.dataset import Sample, TrainingSet
from segtool.data.formats import split_records
from segtool.data.preview import options_on, write_previews
from segtool.data.reader import Reader
from segtool.data.statistics import class_frequencies
from segtool.errors import DataError

CONFIG = """\
data:
  train: {images: images, masks: masks}
  split: {val: 0.4}
  classes: [{name: ground, values: [0]}, {name: block, values: [1]}]
augment: {crop: [24, 20]}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pairs of 32 x 40 pixels, 3 of which train, and a config."""
    root = tmp_path_factory.mktemp("preview")
    rng = np.random.default_rng(0)
    for number in range(5):
        mask = np.zeros((32, 40), np.uint8)
        mask[4:9, 5 * number : 5 * number + 7] = 1
        image = (90 * mask[..., None] + rng.integers(0, 90, (32, 40, 3))).astype(np.uint8)
        for name, pixels in (("images", image), ("masks", mask)):
            (root / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    (root / "config.yaml").write_text(CONFIG)
    return root


def config(augment: Augment, channels: int = 3) -> Config:
    classes = (ClassSpec("ground", values=(0,)), ClassSpec("block", values=(1,)))
    data = Data(train=Folders(images="images", masks="masks"), classes=classes, channels=channels)
    return Config(data=data, augment=augment)


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_there_is_a_sheet_for_each_option_that_is_on_and_one_of_all(folder, tmp_path):
    asked = config(Augment(crop=(24, 20), flip="both", jpeg=30, elastic=2.0, rare=0.5))
    paths = write_previews(asked, folder, tmp_path / "new" / "out")
    assert names(paths) == [f"augment-{name}.png" for name in ("crop", "flip", "jpeg", "elastic", "rare", "all")]
    assert all(np.ptp(np.asarray(Image.open(path))) > 0 for path in paths)


def test_without_any_option_there_are_the_crops_alone(folder, tmp_path):
    assert names(write_previews(config(Augment(crop=(24, 20))), folder, tmp_path)) == ["augment-crop.png"]
    assert options_on(Augment(crop=(24, 20))) == {}


def test_a_crop_that_is_not_given_has_the_size_of_the_first_training_image(folder, tmp_path, monkeypatch):
    sizes = set()
    panel = preview.draw.panel
    monkeypatch.setattr(preview.draw, "panel", lambda image, *a, **k: sizes.add(image.shape) or panel(image, *a, **k))
    write_previews(config(Augment(gamma=0.5)), folder, tmp_path)
    assert sizes == {(32, 40, 3)}


def test_files_of_the_same_name_are_replaced_and_others_kept(folder, tmp_path):
    (tmp_path / "augment-crop.png").write_text("old")
    (tmp_path / "mine.txt").write_text("kept")
    write_previews(config(Augment()), folder, tmp_path)
    assert (tmp_path / "augment-crop.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "mine.txt").read_text() == "kept"


def test_the_sheet_of_all_has_the_very_crops_of_training(folder):
    augment = Augment(
        crop=(24, 20), scale=(0.7, 1.5), flip="both", color=0.3, noise=0.1, elastic=2.0, erase=0.2, rare=0.5
    )
    asked = config(augment)
    records = split_records(asked, folder)["train"]
    frequencies = class_frequencies(asked, records)
    training = TrainingSet(records, Reader.of(asked), augment, (24, 20), asked.train.seed, frequencies)
    for source in preview._sources(asked, records):
        for epoch, crop in enumerate(source.crops(augment)):
            sample = training[epoch, source.number]
            assert isinstance(sample, Sample)
            assert np.array_equal(np.moveaxis(sample.image.numpy(), 0, 2), crop.image)
            assert np.array_equal(sample.target.numpy(), crop.target)


@pytest.mark.parametrize("option", [{"noise": 0.2}, {"scale": (0.8, 1.2)}, {"elastic": 3.0}, {"erase": 0.4}])
def test_an_option_is_shown_about_the_centre_of_the_crop_without_it(folder, option):
    asked = config(Augment(crop=(20, 20), **option))
    source = preview._sources(asked, split_records(asked, folder)["train"])[0]
    without, *drawn = source.with_and_without(Augment(**option))
    assert not any(np.array_equal(without.image, crop.image) for crop in drawn)
    agreeing = np.mean([(crop.target == without.target).mean() for crop in drawn])
    assert agreeing > 0.6
    assert all(np.array_equal(crop.target, without.target) for crop in drawn) == ("noise" in option)


def test_large_crops_make_a_sheet_of_fewer_images(folder, monkeypatch):
    asked = config(Augment())
    records = split_records(asked, folder)["train"]
    assert len(preview._sources(asked, records)) == 4
    monkeypatch.setattr(preview, "MAX_PIXELS", 2 * 4 * 32 * 40 * 2)
    assert [source.number for source in preview._sources(asked, records)] == [0, 3]


def test_artefacts_of_jpeg_in_images_of_16_bits_are_a_data_error_as_in_training(tmp_path):
    for name, pixels in (("images", np.zeros((32, 40), np.uint16)), ("masks", np.zeros((32, 40), np.uint8))):
        (tmp_path / name).mkdir()
        for stem in "abc":
            Image.fromarray(pixels).save(tmp_path / name / f"{stem}.png")
    with pytest.raises(DataError, match=r"[abc]\.png: 16 bits a pixel, .*; set augment\.jpeg: null"):
        write_previews(config(Augment(jpeg=50), channels=1), tmp_path, tmp_path / "out")


def test_a_config_without_training_pairs_has_nothing_to_show(folder, tmp_path):
    asked = config(Augment())
    asked = replace(asked, data=replace(asked.data, train=Folders(images="empty", masks="empty")))
    (folder / "empty").mkdir(exist_ok=True)
    with pytest.raises(DataError):
        write_previews(asked, folder, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_check_names_the_pictures_and_says_where_no_option_is_on(segtool, folder, tmp_path):
    plain = segtool("check", folder / "config.yaml", "--augment", tmp_path / "out")
    assert plain.code == 0
    assert f"wrote {tmp_path / 'out' / 'augment-crop.png'}" in plain.err
    assert "no option of `augment` is on" in plain.err
    asked = ("--augment", tmp_path / "b", "--set", "augment.blur=2", "--json")
    blurred = segtool("check", folder / "config.yaml", *asked)
    assert blurred.code == 0
    written = [str(tmp_path / "b" / f"augment-{name}.png") for name in ("crop", "blur", "all")]
    assert json.loads(blurred.out)["augment"] == written
    assert "no option" not in blurred.err
    unasked = segtool("check", folder / "config.yaml", "--json")
    assert unasked.code == 0
    assert "augment" not in json.loads(unasked.out)


def test_check_draws_nothing_where_the_data_has_errors(segtool, folder, tmp_path):
    other = ["--set", "data.classes=[{name: a, values: [0]}, {name: b, values: [7]}]"]
    result = segtool("check", folder / "config.yaml", "--augment", tmp_path / "out", "--json", *other)
    assert result.code == 3
    assert json.loads(result.out)["augment"] == []
    assert "mend the errors first" in result.err
    assert not (tmp_path / "out").exists()


def test_a_file_in_the_place_of_the_folder_is_told_without_a_traceback(segtool, folder, tmp_path):
    (tmp_path / "taken").write_text("")
    result = segtool("check", folder / "config.yaml", "--augment", tmp_path / "taken")
    assert result.code == 4
    assert f"{tmp_path / 'taken'}" in result.err
    assert "Traceback" not in result.err


def test_pictures_do_not_join_the_data(segtool, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder / "images")
    before = sorted(folder.rglob("*"))
    for place in (folder / "images", folder / "masks" / "drawn" / "here", tmp_path / "link"):
        result = segtool("check", folder / "config.yaml", "--augment", place)
        assert result.code == 2
        assert f"{place}: lies in {folder}" in result.err
        assert "choose another --augment" in result.err
    assert sorted(folder.rglob("*")) == before


def test_a_check_that_draws_no_pictures_does_without_torch(folder):
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from segtool.cli import main\n"
        f"sys.argv = ['segtool', 'check', {str(folder / 'config.yaml')!r}, '--set', 'augment.rare=0.5']\n"
        "main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
