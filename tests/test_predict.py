"""Prediction: a mask for each image, in its place and in the training's encoding, and nothing else is ever touched."""

from __future__ import annotations

import os
import time
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of, identity
from faults import tree
from PIL import Image
from stubs import red
from torch import Tensor

from segtool.config import Config
from segtool.data.images import BAND_PIXELS
from segtool.data.labels import Labels
from segtool.data.predictions import MADE_BY
from segtool.errors import CheckpointError, ConfigError, DataError, SegtoolError, ShortageError
from segtool.models.segmenter import build_model
from segtool.prediction.ensemble import Ensemble
from segtool.prediction.inference import Predictor
from segtool.prediction.predict import build_ensemble, build_predictor, predict
from segtool.prediction.predicted_files import list_jobs, write_png
from segtool.runs.checkpoint import Checkpoint, Progress, TrainState, load, save
from segtool.training.optim import build_optimizer

CPU = torch.device("cpu")


@pytest.fixture
def predictor() -> Predictor:
    """Answers the class that `image_at` writes into the red channel."""
    return red()


@pytest.fixture
def config(tiny_ds) -> Config:
    return with_data(config_of(tiny_ds), mask_mode="L")


def with_data(config: Config, **changes: Any) -> Config:
    return replace(config, data=replace(config.data, **changes))


def image_at(path: Path, height: int = 6, width: int = 9, *, seed: int = 0) -> np.ndarray:
    """Writes an image whose red channel is the class of each pixel, and returns those classes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 3, (height, width, 3), dtype=np.uint8)
    # Written as PNG whatever the suffix says, so that no pixel changes.
    Image.fromarray(pixels).save(path, "PNG")
    return pixels[..., 0]


def jobs_for(inputs: Any, out: Path, **options: bool) -> Any:
    given = [inputs] if isinstance(inputs, Path) else inputs
    return list_jobs(given, out, **{"overlays": False, "probabilities": False, **options})


# --- which files become which


def test_a_folder_keeps_its_tree_and_stems_and_a_file_goes_directly_into_out(tmp_path):
    for name in ("a.jpg", "sub/b.PNG", "sub/deep/c.d.tif", "sub/notes.txt"):
        image_at(tmp_path / "in" / name)
    image_at(tmp_path / "else" / "x.bmp")
    jobs = jobs_for([tmp_path / "in", tmp_path / "else" / "x.bmp"], tmp_path / "out")
    masks = {job.image.name: job.mask.relative_to(tmp_path / "out").as_posix() for job in jobs}
    assert masks == {"a.jpg": "a.png", "b.PNG": "sub/b.png", "c.d.tif": "sub/deep/c.d.png", "x.bmp": "x.png"}


def test_overlays_and_probabilities_lie_in_their_own_folders(tmp_path):
    image_at(tmp_path / "in" / "sub" / "a.png")
    out = tmp_path / "out"
    (job,) = jobs_for(tmp_path / "in", out, overlays=True, probabilities=True)
    assert job.outputs == [out / "sub" / "a.png", out / "overlays" / "sub" / "a.png", out / "probabilities/sub/a.npy"]


COLLISIONS = {
    "two suffixes of one stem": ["in/a.jpg", "in/a.png"],
    "letters that differ in case": ["in/A.png", "in/a.png"],
    "two spellings of one letter": [f"in/{unicodedata.normalize(form, 'ä')}.png" for form in ("NFC", "NFD")],
}


@pytest.mark.parametrize("kind", COLLISIONS)
def test_two_images_that_would_write_one_file_are_an_error_before_any_is_read(tmp_path, kind, monkeypatch):
    for name in COLLISIONS[kind]:
        image_at(tmp_path / name)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("an image was opened"))
    with pytest.raises(SegtoolError, match="written to one file") as error:
        jobs_for(tmp_path / "in", tmp_path / "out")
    assert error.value.exit_code == 2
    assert all(Path(name).name in str(error.value) for name in COLLISIONS[kind])
    assert not (tmp_path / "out").exists()


def test_one_stem_from_two_folders_is_an_error_that_names_all_pairs(tmp_path):
    for folder in ("one", "two"):
        for name in ("a.png", "b.png"):
            image_at(tmp_path / folder / name)
    with pytest.raises(SegtoolError) as error:
        jobs_for([tmp_path / "one", tmp_path / "two"], tmp_path / "out")
    assert len(error.value.problems) == 2
    with pytest.raises(SegtoolError, match="written to one file; name the image once"):
        jobs_for([tmp_path / "one" / "a.png", tmp_path / "one" / "a.png"], tmp_path / "out")


def test_of_thousands_of_images_that_share_a_file_the_first_are_told(tmp_path):
    for index in range(25):
        image_at(tmp_path / f"in/{index:02}.jpg")
        image_at(tmp_path / f"in/{index:02}.png")
    with pytest.raises(SegtoolError) as error:
        jobs_for(tmp_path / "in", tmp_path / "out")
    assert len(error.value.problems) == 21
    assert "19.jpg" in error.value.problems[19]
    assert error.value.problems[20] == "and so would the images of 5 more files"


def test_a_mask_may_not_take_the_place_of_another_images_overlay(tmp_path):
    for name in ("a.png", "overlays/a.png"):
        image_at(tmp_path / "in" / name)
    with pytest.raises(SegtoolError, match="written to one file"):
        jobs_for(tmp_path / "in", tmp_path / "out", overlays=True)
    assert len(jobs_for(tmp_path / "in", tmp_path / "out")) == 2


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("linked", [False, True])
def test_an_output_that_would_replace_an_input_or_lie_beside_it_is_an_error(tmp_path, linked, name):
    image_at(tmp_path / "in" / name)
    out = tmp_path / "in"
    if linked:
        out = tmp_path / "link"
        out.symlink_to(tmp_path / "in")
    with pytest.raises(SegtoolError, match="would replace an input image"):
        jobs_for(tmp_path / "in", out)


def test_what_is_not_there_and_folders_without_images_are_told_at_once(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError) as error:
        jobs_for([tmp_path / "missing.png", tmp_path / "empty"], tmp_path / "out")
    assert [problem.split(": ")[1] for problem in error.value.problems] == [
        "no such file or folder; expected an image or a folder of images",
        "holds no image; expected PNG, JPEG, TIFF, BMP or WebP files",
    ]


# --- what is written


@pytest.mark.parametrize("tile", [None, 4])
def test_a_mask_has_its_images_size_and_the_stored_value_of_each_pixels_class(tmp_path, predictor, config, tile):
    classes = {name: image_at(tmp_path / "in" / name, *size) for name, size in (("a.png", (5, 7)), ("b/c.png", (1, 1)))}
    jobs = jobs_for(tmp_path / "in", tmp_path / "out")
    masks = list(predict(predictor, config, jobs, tile=tile))
    assert masks == [tmp_path / "out" / "a.png", tmp_path / "out" / "b" / "c.png"]
    for name, expected in classes.items():
        with Image.open(tmp_path / "out" / name) as mask:
            assert mask.mode == "L"
            assert mask.format == "PNG"
            assert (np.asarray(mask) == expected).all()


ENCODINGS: dict[str, dict[str, Any]] = {
    "grey with gaps": {"values": (7, 0, 200), "mask_mode": "L"},
    "16 bits": {"values": (0, 256, 65535), "mask_mode": "I;16"},
    "palette by index": {
        "values": (0, 5, 2),
        "mask_mode": "P",
        "palette": "".join(f"{n:02x}{n:02x}33" for n in range(6)),
    },
}


@pytest.mark.parametrize("kind", ENCODINGS)
def test_masks_bear_the_mode_the_values_and_the_palette_of_the_training_masks(tmp_path, predictor, config, kind):
    given = dict(ENCODINGS[kind])
    values = given.pop("values")
    classes = tuple(replace(item, values=(value,)) for item, value in zip(config.data.classes, values, strict=True))
    config = with_data(config, classes=classes, ignore=(), **given)
    expected = np.array(values)[image_at(tmp_path / "a.png")]
    list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out")))
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.mode == given["mask_mode"]
        assert (np.asarray(mask) == expected).all()
        if "palette" in given:
            palette = mask.getpalette()
            assert palette is not None
            assert bytes(palette[: 3 * 6]).hex() == given["palette"]
    read = Labels.from_config(config.data).read(tmp_path / "out" / "a.png", max_pixels=100)
    assert (np.array(values)[read] == expected).all()


def test_colour_masks_are_written_in_the_classes_first_colours(tmp_path, predictor, config):
    colors = [("#ff0000", "#fe0000"), ("#00ff00",), ("#000000",)]
    classes = tuple(
        replace(item, values=(), colors=given) for item, given in zip(config.data.classes, colors, strict=True)
    )
    config = with_data(config, encoding="rgb", classes=classes, ignore=(), mask_mode="RGB")
    expected = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 0]])[image_at(tmp_path / "a.png")]
    list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out")))
    with Image.open(tmp_path / "out" / "a.png") as mask:
        assert mask.mode == "RGB"
        assert (np.asarray(mask) == expected).all()


@pytest.mark.parametrize("tile", [None, 4])
def test_probabilities_are_an_array_k_h_w_whose_largest_is_the_mask(tmp_path, predictor, config, tile):
    expected = image_at(tmp_path / "a.png", 9, 7)
    jobs = jobs_for(tmp_path / "a.png", tmp_path / "out", overlays=True, probabilities=True)
    list(predict(predictor, config, jobs, tile=tile))
    probabilities = np.load(tmp_path / "out" / "probabilities" / "a.npy", allow_pickle=False)
    assert probabilities.shape == (3, 9, 7)
    assert probabilities.dtype == np.float32
    assert probabilities.flags.c_contiguous
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    assert (probabilities.argmax(0) == expected).all()
    assert (np.load(tmp_path / "out" / "probabilities" / "a.npy", mmap_mode="r") == probabilities).all()
    with Image.open(tmp_path / "out" / "overlays" / "a.png") as picture:
        assert picture.height >= 9
        assert picture.width >= 7


def test_predicting_again_gives_the_same_bytes_and_replaces_only_what_segtool_made(tmp_path, predictor, config):
    image_at(tmp_path / "in" / "a.png")
    image_at(tmp_path / "in" / "b.png", seed=1)
    jobs = jobs_for(tmp_path / "in", tmp_path / "out", overlays=True, probabilities=True)
    list(predict(predictor, config, jobs))
    before = tree(tmp_path / "out")
    assert len(before) == 6
    assert all(MADE_BY.encode() in content[:4096] for content in before.values())
    list(predict(predictor, config, jobs))
    assert tree(tmp_path / "out") == before


# --- what is not touched


def make_file(path: Path, _: Path) -> None:
    path.write_bytes(b"somebody else's")


def make_png(path: Path, _: Path) -> None:
    Image.new("L", (3, 3)).save(path, "PNG")


def make_npy(path: Path, _: Path) -> None:
    with open(path, "wb") as file:
        np.save(file, np.zeros((3, 6, 9), np.float32))


def make_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def make_dead_link(path: Path, victim: Path) -> None:
    path.symlink_to(victim.with_name("nowhere"))


def make_pipe(path: Path, _: Path) -> None:
    os.mkfifo(path)


def make_folder(path: Path, _: Path) -> None:
    path.mkdir()


FOREIGN = [make_file, make_png, make_npy, make_link, make_dead_link, make_pipe, make_folder]


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("make", FOREIGN, ids=lambda make: make.__name__)
@pytest.mark.parametrize("output", ["a.png", "overlays/a.png", "probabilities/a.npy"])
def test_what_segtool_did_not_make_is_refused_and_left(tmp_path, predictor, config, output, make, resume):
    victim, path = tmp_path / "victim.png", tmp_path / "out" / output
    victim.write_bytes(b"precious")
    path.parent.mkdir(parents=True)
    make(path, victim)
    before = identity(path)
    image_at(tmp_path / "a.png")
    jobs = jobs_for(tmp_path / "a.png", tmp_path / "out", overlays=True, probabilities=True)
    with pytest.raises(CheckpointError, match="is not replaced") as error:
        list(predict(predictor, config, jobs, resume=resume))
    assert error.value.exit_code == 4
    assert str(path) in str(error.value)
    assert identity(path) == before
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("folder", ["sub", "sub/deep", "overlays", "probabilities/sub"])
def test_a_linked_folder_in_out_leads_nothing_outside(tmp_path, predictor, config, folder, resume):
    outside = tmp_path / "outside"
    outside.mkdir()
    link = tmp_path / "out" / folder
    link.parent.mkdir(parents=True)
    link.symlink_to(outside)
    image_at(tmp_path / "in" / "sub" / "deep" / "a.png")
    jobs = jobs_for(tmp_path / "in", tmp_path / "out", overlays=True, probabilities=True)
    with pytest.raises(CheckpointError, match="is a link") as error:
        list(predict(predictor, config, jobs, resume=resume))
    assert str(link) in str(error.value)
    assert list(outside.iterdir()) == []


def test_out_itself_may_be_a_link(tmp_path, predictor, config):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    image_at(tmp_path / "a.png")
    list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out")))
    assert (tmp_path / "disk" / "a.png").is_file()


def test_a_file_in_place_of_a_folder_of_out_is_a_checkpoint_error(tmp_path, predictor, config):
    (tmp_path / "out").write_text("x")
    image_at(tmp_path / "a.png")
    with pytest.raises(CheckpointError, match="choose another --out"):
        list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out")))


def test_the_images_are_left_as_they_are_and_nothing_is_written_beside_out(tmp_path, predictor, config):
    image_at(tmp_path / "in" / "sub" / "a.png")
    before = tree(tmp_path)
    list(predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out", overlays=True)))
    assert {name: value for name, value in tree(tmp_path).items() if not name.startswith("out/")} == before


# --- going on


def test_resume_makes_only_what_is_missing(tmp_path, predictor, config):
    for name in ("a.png", "b.png", "c.png"):
        image_at(tmp_path / "in" / name)
    jobs = jobs_for(tmp_path / "in", tmp_path / "out", probabilities=True)
    list(predict(predictor, config, jobs))
    whole = tree(tmp_path / "out")
    (tmp_path / "out" / "b.png").unlink()
    (tmp_path / "out" / "probabilities" / "c.npy").unlink()
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in ("a.png", "probabilities/a.npy")}
    made: list[str] = []
    spied = Spy(predictor, made)
    masks = list(predict(spied, config, jobs, resume=True))  # type: ignore[arg-type]
    assert masks == [job.mask for job in jobs]
    assert len(made) == 2
    assert tree(tmp_path / "out") == whole
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in times}


class Spy:
    def __init__(self, predictor: Predictor, made: list[str]) -> None:
        self.predictor = predictor
        self.channels = predictor.channels
        self.made = made

    def classes_and_probabilities(self, *args: Any) -> Any:
        self.made.append("")
        return self.predictor.classes_and_probabilities(*args)


@pytest.mark.parametrize("cores", [2, 8])
def test_a_mask_that_cannot_be_written_ends_it_behind_those_that_were_and_leaves_no_half_of_it(
    tmp_path, predictor, config, monkeypatch, cores
):
    from segtool.prediction import predict as predicting
    from segtool.prediction import predicted_files as module

    real = module.write_atomically

    def failing(path: Path, data: bytes, **options: bool) -> None:
        if path.name == "c.png":
            raise CheckpointError(f"{path}: cannot be written")
        real(path, data, **options)

    monkeypatch.setattr(module, "write_atomically", failing)
    for name in "abcdef":
        image_at(tmp_path / "in" / f"{name}.png")
    monkeypatch.setattr(predicting, "num_threads", lambda: cores)
    results = predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out"))
    assert [next(results), next(results)] == [tmp_path / "out" / "a.png", tmp_path / "out" / "b.png"]
    with pytest.raises(CheckpointError, match=r"c\.png: cannot be written"):
        next(results)
    behind = {"d.png"} if cores == 2 else {"d.png", "e.png", "f.png"}
    assert {"a.png", "b.png"} <= set(tree(tmp_path / "out")) <= {"a.png", "b.png"} | behind


@pytest.mark.parametrize(
    ("cores", "large", "ahead"),
    [
        (2, "", "b"),
        (1, "", "b"),
        (4, "", "bcd"),
        (32, "", "bcdefghi"),
        (4, "abcdefghijkl", ""),
        (4, "a", ""),
        (4, "c", "b"),
    ],
)
def test_the_next_images_are_read_meanwhile_up_to_a_large_one(
    tmp_path, predictor, config, monkeypatch, cores, large, ahead
):
    from segtool.prediction import predict as module

    monkeypatch.setattr(module, "num_threads", lambda: cores)
    monkeypatch.setattr(module, "_is_small", lambda path, max_pixels: path.stem not in large)
    read: list[str] = []
    real = module.read_views

    def reading(path: Path, *args: Any, **options: Any) -> np.ndarray:
        read.append(path.stem)
        return real(path, *args, **options)

    monkeypatch.setattr(module, "read_views", reading)
    forward = predictor.forward

    def watched(image: Tensor) -> Tensor:
        # While the first image is computed those behind it are read, and no others.
        if not seen:
            until = time.monotonic() + 10
            while len(read) < 1 + len(ahead) and time.monotonic() < until:
                time.sleep(0.001)
            time.sleep(0.05)
            seen.append("".join(sorted(read)))
        return forward(image)

    seen: list[str] = []
    monkeypatch.setattr(predictor, "forward", watched)
    names = "abcdefghijkl"
    for name in names:
        image_at(tmp_path / "in" / f"{name}.png")
    made = list(predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out")))
    assert seen == ["a" + ahead]
    assert "".join(sorted(read)) == names
    assert [path.stem for path in made if isinstance(path, Path)] == list(names)


def test_an_image_that_cannot_be_read_keeps_its_place_among_small_and_large_ones(
    tmp_path, predictor, config, monkeypatch
):
    from segtool.prediction import predict as module

    monkeypatch.setattr(module, "MAX_WHOLE_PIXELS", 50)
    sizes = {"a": (6, 9), "b": (6, 6), "c": (6, 6), "d": (9, 9), "e": (9, 9), "f": (5, 5)}
    classes = {name: image_at(tmp_path / "in" / f"{name}.png", *size) for name, size in sizes.items()}
    cut_short(tmp_path / "in" / "c.png")
    results = list(predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out")))
    assert [result.stem if isinstance(result, Path) else "error" for result in results] == [*"ab", "error", *"def"]
    for name in "abdef":
        assert (np.array(Image.open(tmp_path / "out" / f"{name}.png")) == classes[name]).all()


def test_an_image_that_goes_through_in_tiles_lies_in_a_file_and_no_other_does(tmp_path, predictor, config, monkeypatch):
    from segtool.prediction import predict as module

    monkeypatch.setattr(module, "MAX_WHOLE_PIXELS", BAND_PIXELS + 1000)
    files: list[tuple[int, ...]] = []
    monkeypatch.setattr(
        "segtool.data.images.spooled", lambda shape: (files.append(shape), np.empty(shape, np.uint8))[1]
    )
    sides = {"large": (1024, 1028), "small": (1024, 1024)}
    classes = {name: image_at(tmp_path / "in" / f"{name}.png", *size) for name, size in sides.items()}
    list(predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out")))
    assert files == [(*sides["large"], 3)]
    for name in sides:
        assert (np.array(Image.open(tmp_path / "out" / f"{name}.png")) == classes[name]).all()


def test_a_mask_is_written_after_everything_else_of_its_image(tmp_path, predictor, config, monkeypatch):
    from segtool.prediction import predicted_files as module

    written: list[str] = []
    real = module.write_atomically
    monkeypatch.setattr(
        module,
        "write_atomically",
        lambda path, *rest, **options: (written.append(path.name), real(path, *rest, **options)),
    )
    image_at(tmp_path / "a.png")
    list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out", overlays=True, probabilities=True)))
    assert written == ["a.npy", "a.png", "a.png"]


def text_as_png(path: Path) -> None:
    path.write_bytes(b"<html>not found</html>")


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def folder_as_png(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("spoil", [text_as_png, cut_short, folder_as_png], ids=lambda spoil: spoil.__name__)
def test_an_image_that_cannot_be_read_is_told_and_the_others_are_done(
    tmp_path, predictor, config, spoil: Callable[[Path], None]
):
    for name in ("a.png", "b.png", "c.png"):
        image_at(tmp_path / "in" / name)
    spoil(tmp_path / "in" / "b.png")
    results = list(predict(predictor, config, jobs_for(tmp_path / "in", tmp_path / "out")))
    assert [isinstance(result, DataError) for result in results] == [False, True, False]
    assert "b.png" in str(results[1])
    assert sorted(tree(tmp_path / "out")) == ["a.png", "c.png"]


def test_memory_that_does_not_suffice_is_an_error_that_suggests_tiles(tmp_path, predictor, config, monkeypatch):
    def starve(*_: Any) -> Any:
        raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(predictor, "forward", starve)
    image_at(tmp_path / "a.png", 300, 200)
    with pytest.raises(ShortageError, match=r"out of memory at .*a\.png, 200x300 pixels; try --tile 128"):
        list(predict(predictor, config, jobs_for(tmp_path / "a.png", tmp_path / "out")))


# --- from a checkpoint


def test_the_network_of_a_checkpoint_predicts_with_its_weights_and_normalisation(tmp_path, tiny_ds):
    config = with_data(config_of(tiny_ds), mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), mask_mode="L")
    model = build_model(config.model, 3)
    state = TrainState(model, None, build_optimizer(model, config.optim))
    found = load(save(tmp_path, state, config, Progress()))
    built = build_predictor(found, CPU)
    image = torch.randint(0, 256, (3, 9, 12), dtype=torch.uint8)
    shape = (3, 1, 1)
    normal = (image / 255 - torch.tensor((0.1, 0.2, 0.3)).view(shape)) / torch.tensor((0.4, 0.5, 0.6)).view(shape)
    torch.testing.assert_close(built.forward(image), model.eval()(normal[None])[0].detach(), atol=1e-5, rtol=1e-5)
    tensors = {**found.tensors, "model": {**found.tensors["model"], "head.weight": torch.zeros(1)}}
    with pytest.raises(CheckpointError, match="do not fit its config"):
        build_predictor(replace(found, tensors=tensors), CPU)


# --- ensembles


def checkpoint_of(directory: Path, config: Config, seed: int) -> Checkpoint:
    torch.manual_seed(seed)
    model = build_model(config.model, len(config.data.classes), config.data.channels)
    return load(save(directory, TrainState(model, None, build_optimizer(model, config.optim)), config, Progress()))


@pytest.fixture
def grey_and_color(tmp_path, tiny_ds) -> tuple[Checkpoint, Checkpoint]:
    """Checkpoints of a network of grey images and of another one of colour images."""
    config = with_data(config_of(tiny_ds), mean=(0.5,) * 3, std=(0.2,) * 3, mask_mode="L")
    grey = with_data(config, channels=1, mean=(0.4,), std=(0.3,))
    return checkpoint_of(tmp_path / "grey", grey, 1), checkpoint_of(tmp_path / "color", config, 2)


def test_one_checkpoint_without_flip_is_a_plain_predictor(grey_and_color):
    assert isinstance(build_ensemble(grey_and_color[:1], CPU), Predictor)
    assert isinstance(build_ensemble(grey_and_color[:1], CPU, flip=True), Ensemble)


def test_members_each_see_the_file_in_their_own_channels_and_the_mean_of_their_probabilities_is_written(
    tmp_path, grey_and_color
):
    image_at(tmp_path / "a.png", 11, 14)
    (job,) = jobs_for(tmp_path / "a.png", tmp_path / "out", overlays=True, probabilities=True)
    list(predict(build_ensemble(grey_and_color, CPU), grey_and_color[1].config, [job]))
    pixels = Image.open(tmp_path / "a.png")
    expected = 0
    for found, mode in zip(grey_and_color, ("L", "RGB"), strict=True):
        array = np.array(pixels.convert(mode)).reshape(11, 14, -1)
        logits = build_predictor(found, CPU).forward(torch.from_numpy(array.transpose(2, 0, 1).copy())).numpy()
        exponents = np.exp(logits.astype(np.float64))
        expected = expected + exponents / exponents.sum(0) / 2
    np.testing.assert_allclose(np.load(job.probabilities), expected, atol=1e-6)
    assert (np.array(Image.open(job.mask)) == np.load(job.probabilities).argmax(0)).all()
    seen = np.array(Image.open(job.overlay).crop((0, 0, 14, 11)))
    assert (seen[..., 0] != seen[..., 1]).any(), "the overlay shows the colours"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: {"classes": data.classes[::-1]}, r"data.classes is ring \(2\), .* it is ground \(0\), block"),
        (lambda data: {"encoding": "threshold"}, r"data.encoding is threshold, .* it is index"),
        (lambda data: {"exif": "ignore"}, r"data.exif is ignore, .* it is apply"),
    ],
)
def test_members_that_mean_something_else_by_a_class_are_an_error_with_both_values(grey_and_color, change, words):
    first, second = grey_and_color
    other = replace(second, config=with_data(second.config, **change(second.config.data)))
    with pytest.raises(ConfigError, match=words):
        build_ensemble([first, other], CPU)


def test_masks_written_into_a_folder_within_the_images_are_no_images_next_time(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "images" / "masks"
    for folder in (images, out):
        folder.mkdir()
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    write_png(out / "a.png", Image.new("L", (4, 4)))
    (tmp_path / "link").symlink_to(images)
    for named in (out, tmp_path / "link" / "masks"):
        jobs = list_jobs([images], named, overlays=False, probabilities=False)
        assert [job.image for job in jobs] == [images / "a.png"]


def test_images_in_the_folder_that_is_written_into_are_predicted_too(tmp_path: Path) -> None:
    images, out = tmp_path / "images", tmp_path / "images" / "more"
    for folder in (images, out):
        folder.mkdir()
        Image.new("RGB", (4, 4)).save(folder / f"{folder.name}.png")
    os.mkfifo(out / "pipe.png")
    jobs = list_jobs([images], out, overlays=False, probabilities=False)
    assert [job.image for job in jobs] == [images / "images.png", out / "more.png", out / "pipe.png"]
    assert [job.mask for job in jobs][1] == out / "more" / "more.png"
