"""The command line as other programs use it: exit codes, JSON on standard output, files in their places."""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Command, config_of
from PIL import Image
from training import metrics_of

from segtool.check import report
from segtool.commands import use
from segtool.commands.demo import make_dataset
from segtool.commands.score_report import missed
from segtool.commands.sources import run_name
from segtool.config import dump_config
from segtool.models.layers import DEFINITIONS
from segtool.scoring.metrics import Scores

QUICK = (
    "--set=model.encoder.channels=[4, 8]",
    "--set=augment.crop=[32, 32]",
    "--set=train.steps=2",
    "--set=train.batch_size=2",
    "--set=train.workers=0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("cli") / "data"
    make_dataset(root, sizes={"train": 4, "val": 2, "test": 2}, height=40, width=48)
    return root


@pytest.fixture(scope="module")
def run_directory(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run made by the installed program, from another folder than the data's."""
    folder = tmp_path_factory.mktemp("run")
    for arguments in (
        ["init", str(data), "--out", "config.yaml"],
        ["train", "config.yaml", "--run", "run", *QUICK],
    ):
        done = _program(*arguments, cwd=folder)
        assert done.returncode == 0, done.stderr
    return folder / "run"


def test_help_loads_neither_torch_nor_numpy_and_takes_under_a_third_of_a_second_of_cpu() -> None:
    code = (
        "import sys\n"
        "from segtool.cli import main\n"
        "sys.argv = ['segtool', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'torchvision', 'numpy', 'pydantic') if name in sys.modules])"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines()[-1] == "[]"
    # Three times the promise: a loaded machine's clock is not a test of the program.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.9


GARBAGE = """
import gc, sys
from segtool.__main__ import main
begun = []
gc.callbacks.append(lambda phase, _: begun.append(phase))
try: main()
except SystemExit: pass
print(gc.isenabled(), len(begun), gc.get_freeze_count() > 0, file=sys.stderr)
"""


def _garbage(*arguments: str, cwd: Path) -> str:
    """Returns whether a command left Python looking for garbage, how often it looked, and whether it spares the end."""
    command = [sys.executable, "-c", GARBAGE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd).stderr.splitlines()[-1]


def test_no_garbage_is_looked_for_while_a_command_imports_and_ends(tmp_path: Path) -> None:
    assert _garbage("list", "encoders", cwd=tmp_path) == "False 0 True"


@pytest.mark.parametrize("words", ["check x", "train x", "eval x", "predict x y --out z", "config show data"])
def test_garbage_is_looked_for_where_a_command_may_work_long(words: str, data: Path, tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "data").symlink_to(data)
    assert _garbage(*words.split(), cwd=tmp_path).startswith("True ")


def test_predicting_one_image_loads_neither_torchvision_nor_the_compiler(run_directory: Path, data: Path) -> None:
    code = (
        "import sys\n"
        "from segtool.cli import main\n"
        "try: main()\n"
        "except SystemExit as ended: assert not ended.code, ended\n"
        "print([name for name in ('torchvision', 'torch._dynamo', 'sympy', 'timm') if name in sys.modules])"
    )
    image = next((data / "test" / "images").iterdir())
    words = [sys.executable, "-c", code, "predict", str(run_directory), str(image), "--out", str(run_directory / "one")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    ["demo", "init", "check", "train", "eval", "predict", "inspect", "list", "config show", "config schema", "doctor"],
)
def test_each_command_explains_itself(segtool: Command, command: str) -> None:
    result = segtool(*command.split(), "--help")
    assert result.code == 0
    assert "Usage: segtool" in result.out


@pytest.mark.parametrize(
    "arguments",
    [
        ["train"],
        ["train", "nothing.yaml"],
        ["nonsense"],
        ["check", "--bad-option"],
        ["eval"],
        ["eval", "--predictions", "a"],
        ["eval", "run", "--predictions", "a", "--masks", "b", "--config", "c"],
        ["eval", "run", "--fail-under", "beauty=1"],
        ["eval", "run", "--fail-under", "miou"],
        ["eval", "run", "--fail-under", ""],
        ["train", "x.yaml", "--run", ""],
        ["predict", "run", "images", "--out="],
        ["check", ""],
        ["eval", "run", "--split", "tset"],
        ["eval", "--flip", "--predictions", "a", "--masks", "b", "--config", "c"],
        ["eval", "--tile", "3", "--predictions", "a", "--masks", "b", "--config", "c"],
        ["eval", "--device", "cpu", "--predictions", "a", "--masks", "b", "--config", "c"],
        ["predict", "run", "--out", "masks"],
        ["train", "x.yaml", "--budget", "soon"],
        ["train", "x.yaml", "--folds", "1"],
        ["list", "wishes"],
        ["init", ".", "--model", "transformer"],
    ],
)
def test_wrong_usage_exits_with_2_and_says_why(segtool: Command, arguments: list[str]) -> None:
    result = segtool(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert result.err.strip()
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("arguments", "settings"),
    [
        (["train", "x.yaml", "--epochs", "10"], "--set train.epochs=10"),
        (["train", "x.yaml", "--batch-size=4"], "--set train.batch_size=4"),
        (["train", "x.yaml", "--lr"], "--set optim.lr=VALUE"),
        (["train", "x.yaml", "--seed", "1"], "--set data.split.seed=1 or --set train.seed=1"),
        (["predict", "run", "images", "--out", "masks", "--exif", "apply"], "--set data.exif=apply"),
        (["init", "data", "--classes", "3"], "segtool train CONFIG --set data.classes=3"),
        (["demo", "--epochs=3"], "segtool train CONFIG --set train.epochs=3"),
    ],
)
def test_a_key_given_as_an_option_is_told_as_it_is_set(segtool: Command, arguments: list[str], settings: str) -> None:
    result = segtool(*arguments)
    assert result.code == 2
    assert result.err.endswith(f"no option; a key of the config is set with {settings}\n")


def test_what_is_an_option_or_no_key_is_told_as_no_key(segtool: Command) -> None:
    told = segtool("eval", "--masks", "--polish").err + segtool("train", "x.yaml", "--shine", "1").err
    assert "key of the config" not in told


def test_the_path_from_a_folder_to_masks_writes_everything_where_it_belongs(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    for name in ("config.yaml", "run.json", "metrics.jsonl", "timing.jsonl", "train.log", "samples", "checkpoints"):
        assert (run_directory / name).exists(), name
    out = tmp_path / "masks"
    done = segtool("predict", run_directory, data / "test" / "images", "--out", out, "--overlay", "--probabilities")
    assert done.code == 0, done.err
    images = sorted((data / "test" / "images").iterdir())
    assert sorted(path.name for path in out.glob("*.png")) == [path.name for path in images]
    for path in images:
        with Image.open(path) as image, Image.open(out / path.name) as mask:
            assert mask.size == image.size
            assert mask.mode == "L"
            assert set(np.unique(mask)) <= set(range(6))
        probabilities = np.load(out / "probabilities" / f"{path.stem}.npy")
        assert (probabilities.argmax(0) == np.asarray(Image.open(out / path.name))).all()
        assert (out / "overlays" / path.name).is_file()


def test_images_unlike_those_of_the_training_are_predicted_and_told_of_once(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    images = sorted((data / "train" / "images").iterdir())
    for path in images:
        with Image.open(path) as image:
            image.save(tmp_path / path.name)
            image.point(lambda value: value // 8).save(tmp_path / f"dark-{path.name}")
            image.resize((480, 400)).save(tmp_path / f"large-{path.name}")
    done = segtool("predict", run_directory, tmp_path, "--out", tmp_path / "out")
    assert done.code == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 12
    (warned,) = [line for line in done.err.splitlines() if line.startswith("warning:")]
    assert f"dark-{images[0].name}" in warned
    assert "and 1 more: unlike all images of the training (mean red 0.0" in warned
    (said,) = [line for line in done.err.splitlines() if "of another size" in line]
    assert f"large-{images[0].name}" in said
    assert "(480x400, the largest there 48x40)" in said
    assert f"/{images[0].name}" not in warned + said
    ordinary = segtool("predict", run_directory, data / "test" / "images", "--out", tmp_path / "p")
    assert "the training" not in ordinary.err


def test_scores_of_a_run_equal_an_independent_count_and_those_of_its_masks(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    scored = segtool("eval", run_directory, "--json")
    assert scored.code == 0, scored.err
    report = json.loads(scored.out)
    assert segtool("predict", run_directory, data / "test" / "images", "--out", tmp_path / "p").code == 0
    matrix = np.zeros((6, 6), int)
    for path in sorted((data / "test" / "masks").iterdir()):
        truth, made = np.asarray(Image.open(path)), np.asarray(Image.open(tmp_path / "p" / path.name))
        for row in range(6):
            for column in range(6):
                matrix[row, column] += int(((truth == row) & (made == column)).sum())
    assert report["confusion"] == matrix.tolist()
    assert (report["split"], report["images"]) == ("test", 2)
    masks = segtool(
        "eval", "--predictions", tmp_path / "p", "--masks", data / "test" / "masks",
        "--config", run_directory / "config.yaml", "--json",
    )  # fmt: skip
    assert masks.code == 0, masks.err
    again = json.loads(masks.out)
    for key in ("miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "fw_iou", "confusion", "classes"):
        assert again[key] == report[key], key


def test_a_run_is_scored_without_the_data_that_it_was_trained_on(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    """`data.root` is relative to the run that is named, as it is for `train RUN --resume`."""
    shutil.copytree(run_directory, tmp_path / "there" / "run")
    shutil.copytree(data / "test", tmp_path / "elsewhere" / "test")
    there = tmp_path / "there" / "run"
    expected = json.loads(segtool("eval", run_directory, "--json").out)
    scored = segtool("eval", there, "--json", "--set=data.root=../../elsewhere")
    assert scored.code == 0, scored.err
    assert json.loads(scored.out)["confusion"] == expected["confusion"]
    last = sorted((there / "checkpoints").iterdir())[-1]
    assert segtool("eval", last, "--set=data.root=../../../../elsewhere").code == 0
    refused = segtool("eval", there, "--split", "val", "--set= data.root =../../elsewhere")
    assert refused.code == 3
    assert f"data.val.images: no folder {tmp_path / 'elsewhere'}" in refused.err
    assert "data.val.images: no folder" in refused.err
    assert "data.train" not in refused.err


def test_the_table_of_a_run_whose_checkpoints_lie_elsewhere_goes_into_the_run(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_directory, run)
    (run / "per-image-test.csv").unlink(missing_ok=True)
    shutil.move(run / "checkpoints", tmp_path / "large-disk")
    (run / "checkpoints").symlink_to(tmp_path / "large-disk")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert segtool("eval", run, f"--set=data.root={data}").code == 0
    assert (run / "per-image-test.csv").is_file()
    assert not list((tmp_path / "here").iterdir())


def test_a_table_replaces_an_earlier_one_and_no_other_file(
    segtool: Command, data: Path, run_directory: Path, tmp_path: Path
) -> None:
    made = tmp_path / "made"
    shutil.copytree(data / "test" / "masks", made)
    words = ["--predictions", made, "--masks", data / "test" / "masks", "--config", run_directory / "config.yaml"]
    table = tmp_path / "table.csv"
    table.touch()
    for _ in range(2):
        assert segtool("eval", *words, "--csv", table).code == 0
    assert table.read_text().startswith("image,pixel_accuracy,miou,")
    notes = tmp_path / "made-per-image.csv"  # where the table goes of its own
    for path in (tmp_path / "image.png", notes):
        path.write_text("mine")
        refused = segtool("eval", *words, "--csv", path)
        assert refused.code == 4
        assert f"{path}: is no table of scores, and is not replaced" in refused.err
        assert not refused.out
    scored = segtool("eval", *words)
    assert scored.code == 0
    assert "the per-image table was not written" in scored.err
    assert notes.read_text() == (tmp_path / "image.png").read_text() == "mine"


def test_the_table_of_predictions_lies_beside_them_however_they_are_named(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "made"
    shutil.copytree(data / "test" / "masks", made)
    monkeypatch.chdir(made)
    config = run_directory / "config.yaml"
    assert segtool("eval", "--predictions", ".", "--masks", data / "test" / "masks", "--config", config).code == 0
    assert (tmp_path / "made-per-image.csv").is_file()
    assert sorted(path.suffix for path in made.iterdir()) == [".png", ".png"]


def test_init_does_not_offer_to_replace_a_folder(segtool: Command, data: Path, tmp_path: Path) -> None:
    done = segtool("init", data, "--out", tmp_path)
    assert done.code == 2
    assert done.err == f"error: {tmp_path}: is not a file in an existing folder; choose another --out\n"


def test_a_folder_of_images_with_a_folder_called_checkpoints_is_no_run(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    shutil.copytree(data / "test" / "images", tmp_path / "new" / "checkpoints")
    done = segtool("predict", run_directory, tmp_path / "new", "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert len(list((tmp_path / "out" / "checkpoints").glob("*.png"))) == 2


def test_the_config_of_a_run_in_place_of_the_run_is_told_as_that(segtool: Command, run_directory: Path) -> None:
    config = run_directory / "config.yaml"
    resumed, scored = segtool("train", config, "--resume"), segtool("eval", config)
    assert (resumed.code, scored.code) == (4, 4)
    assert f"is the config of a run; continue it with: segtool train {run_directory} --resume" in resumed.err
    assert "is a file; expected a run directory" in scored.err


def test_a_config_of_the_users_own_that_is_called_config_yaml_is_not_taken_for_one_of_a_run(
    segtool: Command, run_directory: Path, tmp_path: Path
) -> None:
    own = tmp_path / "streets" / "config.yaml"
    own.parent.mkdir()
    own.write_text((run_directory / "config.yaml").read_text())
    resumed = segtool("train", own, "--resume")
    assert resumed.code == 4
    assert resumed.err.startswith(f"error: {own}: is no run to continue; name the directory of one")
    assert (run_name(own), run_name(run_directory / "config.yaml")) == ("config", run_directory.name)


def test_pictures_that_are_not_read_are_missed_aloud_among_those_that_are_predicted(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    images = Path(shutil.copytree(data / "test" / "images", tmp_path / "new"))
    for name in ("b.heic", "A.GIF", "notes.txt"):
        (images / name).write_bytes(b"x")
    done = segtool("predict", run_directory, images, "--out", tmp_path / "out")
    assert done.code == 0, done.err
    assert f"warning: {images / 'A.GIF'} and 1 more: left out, of a kind that is not read; convert" in done.err
    assert "2 of 2 masks" in done.err


def test_masks_that_are_predicted_with_their_images_are_told_with_the_folder_to_name(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "2 of the {} images are masks by the config of the run, and predicted all the same; to leave them out, name"
    images, masks = Path("test/images"), Path("test/masks")
    count = len(list(data.rglob("*.png")))
    done = segtool("predict", run_directory, data, "--out", tmp_path / "all")
    assert done.code == 0, done.err
    assert f"warning: {data / masks}: {told.format(count)} {data / images} instead\n" in done.err
    assert len(list((tmp_path / "all").rglob("*.png"))) == count
    monkeypatch.chdir(data)
    done = segtool("predict", run_directory, "test", "--out", tmp_path / "test")
    assert f"warning: {masks}: {told.format(4)} {images} instead\n" in done.err
    one = tmp_path / "one"
    shutil.copytree(data / images, one / "deep")
    beside_images = [one / "deep" / f"{mask.stem}_m.png" for mask in sorted((data / masks).iterdir())]
    for mask, copy in zip(sorted((data / masks).iterdir()), beside_images, strict=True):
        shutil.copy(mask, copy)
    beside = ("--set", "data.test={images: ., masks: ., pairing: {mask_suffix: _m}}")
    done = segtool("predict", run_directory, one, "--out", tmp_path / "beside", *beside)
    assert f"warning: {beside_images[0]}: {told.format(4)} the images alone\n" in done.err
    alone = segtool("predict", run_directory, data / images, "--out", tmp_path / "alone")
    of_masks = segtool("predict", run_directory, data / masks, "--out", tmp_path / "masks")
    assert "are masks" not in alone.err + of_masks.err


def test_a_prediction_that_is_interrupted_says_how_it_goes_on(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: Any, **options: Any) -> Iterator[Any]:
        yield next(real(*given, **options))
        os.kill(os.getpid(), signal.SIGINT)
        yield None

    real = use.predict
    monkeypatch.setattr(use, "predict", interrupted)
    ended = segtool("predict", run_directory, data / "test/images", "--out", tmp_path / "masks")
    assert ended.code == 130
    assert f"1 of 2 masks or more are in {tmp_path}/masks, whole; --resume makes the others\n" in ended.err


@pytest.mark.parametrize(
    ("command", "place"), [("check", "segtool.check.report.examine"), ("train", "segtool.commands.preparation.examine")]
)
def test_a_signal_ends_the_program_though_what_it_came_in_drops_the_end(
    segtool: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, place: str
) -> None:
    """As Python's compiler does, while modules are imported."""
    examine = report.examine

    def dropping(*given: Any, **options: Any) -> Any:
        with contextlib.suppress(SystemExit):
            os.kill(os.getpid(), signal.SIGTERM)
        return examine(*given, **options)

    monkeypatch.setattr(place, dropping)
    run = tmp_path / "run"
    ended = segtool(command, data, *(["--run", run, *QUICK] if command == "train" else []))
    assert ended.code == 143
    assert not list(run.glob("checkpoints/step-*[1-9]*"))


def test_a_folder_of_predictions_that_is_not_there_is_missed_as_one_of_masks(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    config = run_directory / "config.yaml"
    given = ["--predictions", tmp_path / "gone", "--masks", data / "test" / "masks", "--config", config]
    scored = segtool("eval", *given)
    assert (scored.code, scored.err) == (3, f"error: {tmp_path / 'gone'}: no such folder; expected a folder of masks\n")


def test_what_a_prediction_is_refused_for_can_be_mended_as_the_error_says(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    given = [run_directory, data / "test" / "images", "--out", tmp_path / "out"]
    refused = segtool("predict", *given, "--set=limits.max_pixels=1000")
    assert refused.code == 3
    assert "raise limits.max_pixels" in refused.err
    assert segtool("predict", *given, "--set=limits.max_pixels=2000").code == 0
    fixed = segtool("predict", *given, "--set=data.ignore=[99]")
    assert fixed.code == 2
    assert "its weights were made for the former" in fixed.err


def test_the_network_of_a_config_without_data_is_inspected(segtool: Command, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("data:\n  classes: [{name: a, values: [0]}, {name: b, values: [1]}]\n")
    done = segtool("inspect", config, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["structures"] is None


@pytest.mark.parametrize("command", ["inspect", "check", "train", "config show"])
def test_a_folder_of_folds_is_no_data_and_the_folds_are_named(
    segtool: Command, run_directory: Path, tmp_path: Path, command: str
) -> None:
    for number in (1, 2):
        shutil.copytree(run_directory, tmp_path / f"fold-{number}")
    ended = segtool(*command.split(), tmp_path)
    assert ended.code == 2
    assert f"holds 2 folds, each with a config of its own; name one: {tmp_path / 'fold-1'}" in ended.err


def test_a_place_that_the_config_of_a_run_could_not_name_is_refused_before_the_data_is_looked_at(
    segtool: Command, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        place.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 only")
    shutil.copytree(data, place / "data")
    monkeypatch.chdir(place)
    assert segtool("init", "data", "--out", "config.yaml").code == 0
    ended = segtool("train", "config.yaml", "--run", "../run", "--dry-run")
    assert ended.code == 3
    assert "the name is not UTF-8 and cannot stand in a config; rename the folder" in ended.err
    assert "checking the data" not in ended.err


def test_a_score_below_its_limit_exits_with_6(segtool: Command, run_directory: Path) -> None:
    assert segtool("eval", run_directory, "--fail-under", "miou=0").code == 0
    failed = segtool("eval", run_directory, "--fail-under", "miou=0.99,pixel_accuracy=0")
    assert failed.code == 6
    assert "miou" in failed.err
    assert "pixel_accuracy" not in failed.err


def test_scores_of_images_that_a_training_has_seen_or_was_chosen_by_say_so(
    segtool: Command, run_directory: Path
) -> None:
    seen = {split: segtool("eval", run_directory, "--split", split).out for split in ("train", "val", "test")}
    assert "The network was trained on these images, so the scores flatter" in seen["train"]
    assert "The val split chose the checkpoint, so the scores flatter" in seen["val"]
    assert "flatter" not in seen["test"]


@pytest.mark.parametrize(
    ("split", "setting"),
    [("test", "data.test={images: train/images, masks: train/masks}"), ("val", "data.val=null")],
)
def test_images_that_a_training_has_seen_are_warned_of_where_a_split_is_changed(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, split: str, setting: str
) -> None:
    options = ("--split", split, "--set", setting, "--csv", tmp_path / "x.csv")
    told = segtool("eval", run_directory, *options, "--set", f"data.root={data}").err
    count = {"test": 4, "val": 1}[split]
    assert f"was trained on {count} of the {count} images of the split, so the score flatters" in told
    unchanged = segtool("eval", run_directory, "--csv", tmp_path / "x.csv", "--set", f"data.root={data}")
    assert "warning" not in unchanged.err


def test_a_share_that_is_dealt_anew_since_files_came_is_warned_of_as_one_that_may_have_been_seen(
    segtool: Command, tiny_ds: Path, tmp_path: Path
) -> None:
    shutil.copytree(tiny_ds, tmp_path / "data")
    config = config_of(tmp_path / "data", data={"val": None, "split": {"val": 0.25}}, train={"steps": 1})
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert segtool("train", tmp_path / "config.yaml", "--run", tmp_path / "run", "--no-preflight").code == 0
    evaluate = ("eval", tmp_path / "run", "--split")
    assert "warning" not in segtool(*evaluate, "val").err
    for folder in ("images", "masks"):
        place = tmp_path / "data" / "train" / folder
        shutil.copy(min(place.iterdir()), place / "a_new_one.png")
    told = segtool(*evaluate, "val").err
    assert "was 6 train, 2 val, 2 test and is 7 train, 2 val, 2 test now" in told
    assert "it may have been trained on images of this split" in told
    assert "warning" not in segtool(*evaluate, "test").err, "it has files of its own"
    assert "warning" not in segtool(*evaluate, "train").err
    (tmp_path / "run" / "run.json").write_text("{")
    assert segtool(*evaluate, "val").code == 0, "a score needs no more than the checkpoint"


def test_a_training_points_to_the_test_split_only_where_there_is_one(
    segtool: Command, run_directory: Path, tmp_path: Path
) -> None:
    without = segtool("train", run_directory, "--run", tmp_path / "run", "--set=data.test=null")
    assert (without.code, without.err.count("so it flatters)")) == (0, 1)
    assert "so it flatters; see test)" in (run_directory / "train.log").read_text()


def test_a_training_without_held_out_images_names_an_evaluation_that_works(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    held = ("--set=data.test=null", "--set=data.val=null", "--set=data.split.val=0", f"--set=data.root={data}")
    ended = segtool("train", run_directory, "--run", tmp_path / "run", *held)
    command = re.search(r"^next: segtool (eval \S+ --split train);", ended.err, re.MULTILINE)
    assert command, ended.err
    assert segtool(*command[1].split(), "--json").code == 0


@pytest.mark.parametrize("command", ["eval", "predict"])
def test_a_folder_of_runs_is_told_with_the_runs_in_it(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path, command: str
) -> None:
    shutil.copytree(run_directory, tmp_path / "my runs/cells 1")
    (tmp_path / "my runs/notes").mkdir()
    more = {"eval": [], "predict": [data / "test/images", "--out", tmp_path / "masks"]}
    ended = segtool(command, tmp_path / "my runs", *more[command])
    assert ended.code == 4
    assert ended.err.endswith(f"has made, such as '{tmp_path}/my runs/cells 1'\n")


def test_a_score_that_is_its_limit_reaches_it_and_one_that_is_undefined_does_not() -> None:
    limits = {"miou": 1.0, "pixel_accuracy": 1.0}
    assert missed(Scores(("one",), np.array([[5]]), 0), limits) == []
    undefined = Scores(("one",), np.array([[0]]), 5)
    assert [line.partition(",")[0] for line in missed(undefined, limits)] == [
        "--fail-under: miou is undefined",
        "--fail-under: pixel_accuracy is undefined",
    ]
    half = Scores(("one", "two"), np.array([[1, 1], [0, 2]]), 0)
    assert missed(half, {"miou": 0.0, "pixel_accuracy": 1.0}) == ["--fail-under: pixel_accuracy is 0.75, below 1.0"]
    nearly = Scores(("one", "two"), np.array([[2**30, 1], [0, 0]]), 0)  # which no rounding makes 1
    assert missed(nearly, {"pixel_accuracy": 1.0}) == ["--fail-under: pixel_accuracy is 0.999999, below 1.0"]


def test_a_run_is_not_scored_with_another_meaning_of_its_masks(segtool: Command, run_directory: Path) -> None:
    refused = segtool("eval", run_directory, "--set=data.ignore=[99]")
    assert refused.code == 2
    assert "data.ignore was" in refused.err
    assert "its weights were made for the former" in refused.err


def test_pictures_of_the_user_are_not_drawn_over(segtool: Command, run_directory: Path, tmp_path: Path) -> None:
    """The data may lie in a folder `samples`, whose names are those of the validation images."""
    mine = tmp_path / "project" / "samples" / "0.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    before = sorted(mine.parent.parent.rglob("*"))
    refused = segtool("train", run_directory, "--run", tmp_path / "project", *QUICK)
    assert refused.code == 2
    assert f"{mine}: lies where the run would draw its samples, and is no run's" in refused.err
    assert sorted(mine.parent.parent.rglob("*")) == before
    assert mine.read_bytes() == b"mine"


def test_a_directory_that_holds_a_run_is_not_trained_into_again(segtool: Command, run_directory: Path) -> None:
    before = sorted(run_directory.rglob("*"))
    result = segtool("train", run_directory.parent / "config.yaml", "--run", run_directory, *QUICK)
    assert result.code == 2
    assert "--resume" in result.err
    assert sorted(run_directory.rglob("*")) == before


def test_resuming_where_nothing_is_exits_with_4(segtool: Command, tmp_path: Path) -> None:
    ended = segtool("train", tmp_path, "--resume")
    assert ended.code == 4
    assert "is no run to continue; name the directory of one, segtool train RUN --resume" in ended.err


def test_a_typo_in_a_config_is_told_with_its_line_before_data_is_read(segtool: Command, tmp_path: Path) -> None:
    config = tmp_path / "typo.yaml"
    config.write_text(
        "data:\n"
        "  root: nowhere\n"
        "  train: {images: a, masks: b}\n"
        "  classes: [{name: x, values: [0]}, {name: y, values: [1]}]\n"
        "model:\n"
        "  encoder:\n"
        "    name: conv\n"
        "    chanels: [4, 8]\n"
    )
    result = segtool("train", config)
    assert result.code == 2
    assert f"{config}:8: model.encoder.chanels: unknown key; did you mean 'channels'?" in result.err


def test_options_that_a_new_name_leaves_behind_are_told_with_the_setting_that_replaces_all(
    segtool: Command, tiny_ds: Path, tmp_path: Path
) -> None:
    config = tmp_path / "tiny.yaml"
    config.write_text(dump_config(config_of(tiny_ds)))
    result = segtool("train", config, "--dry-run", "--set", "model.encoder.name=resnet18")
    assert result.code == 2
    anew = "--set 'model.encoder={name: resnet18}'"
    assert "model.encoder.channels: unknown key: it is one of 'conv', not of 'resnet18'" in result.err
    assert anew in result.err
    done = segtool("train", config, "--dry-run", *shlex.split(anew), "--set", "augment.crop=[32, 32]")
    assert done.code == 0, done.err


def test_check_prints_one_json_document_and_exits_with_3_on_a_broken_file(
    segtool: Command, data: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(data, broken)
    path = broken / "val" / "images" / "0001.png"
    path.write_bytes(path.read_bytes()[:100])
    result = segtool("check", broken, "--json")
    assert result.code == 3
    findings = json.loads(result.out)["findings"]
    errors = [finding for finding in findings if finding["severity"] == "error"]
    assert any("0001.png" in file for finding in errors for file in finding["files"])
    for finding in findings:
        assert set(finding) >= {"code", "severity", "message", "count", "files", "example", "remedy"}
    trained = segtool("train", broken, "--run", tmp_path / "run", *QUICK)
    assert trained.code == 3
    assert "0001.png" in trained.err
    assert not (tmp_path / "run").exists()


def test_check_init_and_eval_of_masks_work_without_torch(data: Path, run_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise ImportError('torch is not to be imported')")
    masks = str(data / "test" / "masks")
    config = str(run_directory / "config.yaml")
    for arguments in (
        ["init", str(data), "--out", str(tmp_path / "made.yaml")],
        ["check", str(tmp_path / "made.yaml")],
        ["eval", "--predictions", masks, "--masks", masks, "--config", config, "--csv", str(tmp_path / "a.csv")],
    ):
        done = _program(*arguments, cwd=tmp_path, PYTHONPATH=str(tmp_path))
        assert done.returncode == 0, done.stderr
    trained = _program("train", str(data), "--run", str(tmp_path / "r"), cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "torch is not to be imported" in trained.stderr, "the guard itself must be able to fail"


def test_a_damaged_checkpoint_exits_with_4_and_is_not_replaced_by_another(
    segtool: Command, run_directory: Path, data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_directory, copy)
    for weights in (copy / "checkpoints").glob("*/*.safetensors"):
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
    result = segtool("predict", copy, data / "test" / "images", "--out", tmp_path / "p")
    assert result.code == 4
    assert "sha256" in result.err
    assert not (tmp_path / "p").exists()


def test_nothing_but_plain_text_goes_into_a_pipe(run_directory: Path) -> None:
    done = _program("eval", "run", cwd=run_directory.parent)
    assert done.returncode == 0
    for text in (done.stdout, done.stderr):
        assert "\x1b" not in text
        assert "\r" not in text
    assert "From one confusion matrix" in done.stdout


def test_list_and_inspect_and_schema_and_doctor_print_what_they_say(segtool: Command, run_directory: Path) -> None:
    for kind, word in (("decoders", "skips"), ("upsamplers", "bed_of_nails"), ("losses", "median_frequency")):
        assert word in segtool("list", kind).out
    inspected = segtool("inspect", run_directory).out
    assert "whole network" in inspected
    assert DEFINITIONS in inspected.splitlines()  # in one line, as it is no terminal's
    assert json.loads(segtool("config", "schema").out)["type"] == "object"
    shown = segtool("config", "show", run_directory / "config.yaml", "--set", "optim.lr=0.5").out
    assert "optim.lr: 0.5" in shown
    assert "torch" in segtool("doctor").out


def _program(*arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "segtool", *arguments],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_run_is_extended_but_not_cut_short_by_resuming(segtool: Command, run_directory: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run_directory, copy)
    config = (copy / "config.yaml").read_text()
    data = next(line for line in config.splitlines() if line.strip().startswith("root:")).split(":", 1)[1].strip()
    root = f"--set=data.root={(run_directory / data).resolve()}"
    assert "is done at step 2" in segtool("train", copy, "--resume", root).err
    extended = segtool("train", copy, "--resume", root, "--set=train.steps=3")
    assert extended.code == 0, extended.err
    steps = [row["step"] for row in metrics_of(copy)]
    assert steps == sorted(steps)
    assert steps[-1] == 3
    refused = segtool("train", copy, "--resume", root, "--set=model.encoder.channels=[4, 16]")
    assert refused.code == 2
    assert "model.encoder" in refused.err
