"""All folds by one command: their runs, their scores together, going on after an interruption, and their ensemble."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import command
from PIL import Image
from training import SilentOs

from segtool.commands import crossvalidate
from segtool.commands.demo import make_dataset
from segtool.commands.sources import Session
from segtool.config import load_config
from segtool.runs import history
from segtool.scoring.folds import FoldScore, class_values, definition, spread, to_json
from segtool.scoring.metrics import ImageScore, Scores
from segtool.system import signals
from segtool.training import train, training_step

QUICK = (
    "--set=model.encoder.channels=[4, 8]",
    "--set=augment.crop=[32, 32]",
    "--set=train.steps=3",
    "--set=train.batch_size=2",
    "--set=train.workers=0",
    "--set=train.samples=0",
)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of three training, two validation and two test pairs, in a folder of its own."""
    folder = tmp_path_factory.mktemp("folds")
    make_dataset(folder / "data", sizes={"train": 3, "val": 2, "test": 2}, height=40, width=48)
    assert command("init", folder / "data", "--out", folder / "config.yaml").code == 0
    return folder / "config.yaml"


@pytest.fixture(scope="module")
def trained(config: Path) -> tuple[Path, str]:
    """The directory of two folds, and what was printed."""
    directory = config.parent / "two"
    code, out, err = command("train", config, "--folds", "2", "--run", directory, *QUICK)
    assert code == 0, err
    return directory, out


def scores_of(directory: Path) -> Any:
    return json.loads((directory / "folds.json").read_text())


def test_each_fold_is_an_ordinary_run_of_its_part(trained: tuple[Path, str]) -> None:
    directory, _ = trained
    assert sorted(path.name for path in directory.iterdir()) == ["fold-1", "fold-2", "folds.json"]
    for number in (1, 2):
        run = directory / f"fold-{number}"
        assert load_config(run / "config.yaml").data.fold == f"{number}/2"
        assert (run / "checkpoints" / "step-00000003").is_dir()
        scored = json.loads(command("eval", run, "--split", "val", "--json").out)
        fold = scores_of(directory)["folds"][number - 1]
        assert (fold["fold"], fold["run"], fold["step"]) == (f"{number}/2", run.name, scored["step"])
        assert fold["val"] == {key: scored[key] for key in fold["val"]}
        assert json.loads((run / "run.json").read_text())["splits"]["test"] == 2


def test_means_deviations_and_pooled_scores_follow_from_those_of_the_folds(trained: tuple[Path, str]) -> None:
    report = scores_of(trained[0])
    for split in ("val", "test"):
        values = [fold[split]["miou"] for fold in report["folds"]]
        assert report[split]["mean"]["miou"] == pytest.approx(np.mean(values))
        assert report[split]["std"]["miou"] == pytest.approx(np.std(values, ddof=1))
    assert sum(fold["val"]["images"] for fold in report["folds"]) == report["val"]["pooled"]["images"] == 5
    total = np.sum([fold["val"]["confusion"] for fold in report["folds"]], axis=0)
    assert report["val"]["pooled"]["confusion"] == total.tolist()
    masks = [path for split in ("train", "val") for path in (trained[0].parent / "data" / split / "masks").iterdir()]
    truth = sum(np.bincount(np.asarray(Image.open(path)).ravel(), minlength=6) for path in masks)
    assert total.sum(1).tolist() == truth.tolist()
    assert set(report["definitions"]) == {"mean", "std", "pooled", "val", "test"}


def test_the_tables_show_what_the_file_holds(trained: tuple[Path, str]) -> None:
    directory, out = trained
    report = scores_of(directory)
    first, second = out.split("\ntest split")
    for text, split in ((first, "val"), (second, "test")):
        line = next(line for line in text.splitlines() if "mIoU" in line)
        for value in (report[split]["mean"]["miou"], report[split]["std"]["miou"], report["folds"][1][split]["miou"]):
            assert f"{100 * value:.2f}" in line
    assert "pooled" in first
    assert "flatter" in out


def test_a_directory_of_folds_is_not_trained_into_again_but_goes_on_with_resume(trained: tuple[Path, str]) -> None:
    directory, _ = trained
    config = directory.parent / "config.yaml"
    before = {path: path.stat().st_mtime_ns for path in directory.rglob("step-*/*")}
    report = scores_of(directory)
    code, _, err = command("train", config, "--folds", "2", "--run", directory, *QUICK)
    assert (code, "--resume" in err) == (2, True)
    code, _, err = command("train", config, "--folds", "2", "--run", directory, "--resume", *QUICK)
    assert code == 0, err
    assert "fold 2/2: is done, and --set changes nothing in it" in err
    assert {path: path.stat().st_mtime_ns for path in directory.rglob("step-*/*")} == before
    assert scores_of(directory) == report
    assert command("train", config, "--folds", "3", "--run", directory, "--resume", *QUICK).code == 2
    code, _, err = command("train", directory, "--resume")
    assert (code, f"--run {directory} --resume" in err) == (2, True)
    assert command("train", config, "--run", directory, *QUICK).code == 2
    code, _, err = command("train", directory / "fold-1", "--resume", "--set", "data.fold=2/2")
    assert (code, 'data.fold was "1/2"' in err) == (2, True)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.split.seed=4", "data.split.seed 0 -> 4"),
        ("data.exclude=[val/images/0000.png]", "data.exclude [] -> "),
        ("data.classes.0.name=x", "data.classes.0.name was"),
        ("model.encoder.channels=[4, 12]", "model.encoder.channels was"),
        ("data.root=more", "files came or went"),
    ],
)
def test_a_fold_to_come_that_would_not_fit_those_that_are_done_is_refused(
    trained: tuple[Path, str], change: str, words: str
) -> None:
    directory = trained[0].parent / "half"
    shutil.copytree(trained[0] / "fold-1", directory / "fold-1", dirs_exist_ok=True)
    config = directory.parent / "config.yaml"
    more = shutil.copytree(directory.parent / "data", directory.parent / "more", dirs_exist_ok=True)
    for folder in ("images", "masks"):
        shutil.copy(min((more / "train" / folder).iterdir()), more / "train" / folder / "a_new_one.png")
    code, _, err = command("train", config, "--folds=2", "--run", directory, "--resume", *QUICK, f"--set={change}")
    assert (code, words in err) == (2, True), err
    assert not (directory / "fold-2").exists()
    same = ("--set=data.root=more", "--set=data.exclude=[train/images/a_new_one.png]", "--dry-run")
    assert command("train", config, "--folds=2", "--run", directory, "--resume", *QUICK, *same).code == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("optim.lr=0.5", "(optim.lr 0.001 -> 0.5)"),
        ("train.steps=4", "(train.steps 3 -> 4)"),
        ("loss=[dice]", " -> [dice])"),
        ("train.workers=1", ""),
        ("augment.crop=null", ""),
    ],
)
def test_a_fold_to_come_that_would_be_trained_in_another_way_is_warned_of(
    trained: tuple[Path, str], tmp_path: Path, change: str, told: str
) -> None:
    shutil.copytree(trained[0] / "fold-1", tmp_path / "fold-1")
    asked = ("--folds=2", "--run", tmp_path, "--resume", "--dry-run", "--no-preflight", *QUICK, f"--set={change}")
    code, _, err = command("train", trained[0].parent / "config.yaml", *asked)
    assert (code, "fold-1: begun with another training than the folds to come" in err) == (0, bool(told)), err
    assert told in err
    assert "\n1 fold: about " in err


def test_a_fold_that_was_begun_goes_on_to_the_length_that_it_was_begun_with(config, trained):
    session = crossvalidate._of_fold(Session(config), trained[0], 1, 2, None)
    assert session.resume
    assert session.overrides == ("data.fold=1/2", "train.epochs=null", "train.steps=3")
    new = crossvalidate._of_fold(Session(config), trained[0], 3, 3, None)
    assert not new.resume
    assert new.overrides == ("data.fold=3/3",)
    begun_by_a_budget = Session(config, overrides=("train.epochs=5",))
    train = load_config(config, crossvalidate._of_fold(begun_by_a_budget, trained[0], 1, 2, None).overrides).train
    assert (train.epochs, train.steps) == (None, 3)


def test_an_interruption_tells_the_command_that_continues_to_the_same_scores(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, step, calls = trained[0].parent / "cut", training_step.train_step, []

    def stopped(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 4:  # the first step of the second fold
            signal.raise_signal(signal.SIGINT)
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(training_step, "train_step", stopped)
        patch.setattr(signals, "os", SilentOs)
        asked = ("--folds", "2", "--run", directory, "--device", "cpu", "--no-preflight", *QUICK)
        code, _, err = command("train", directory.parent / "config.yaml", *asked)
    assert code == 130
    assert not (directory / "folds.json").exists()
    words = shlex.split(err.rsplit("Continue with: ", 1)[1])
    assert words[:2] == ["segtool", "train"]
    assert {"--folds", "--resume", str(directory), "train.steps=3", "--device", "cpu", "--no-preflight"} <= set(words)
    code, _, err = command(*words[1:])
    assert code == 0, err
    assert "from step 1 of 3" in err
    assert scores_of(directory) == scores_of(trained[0])


def test_an_interruption_in_the_last_validation_of_a_fold_ends_all_of_them(
    trained: tuple[Path, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, validate = trained[0].parent / "late", train.validate

    def stopped(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return validate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(train, "validate", stopped)
        patch.setattr(signals, "os", SilentOs)
        code, _, err = command("train", directory.parent / "config.yaml", "--folds", "2", "--run", directory, *QUICK)
    assert code == 143
    assert history.last(directory / "fold-1" / "checkpoints").progress.finished  # type: ignore[union-attr]
    assert not (directory / "fold-2").exists()
    words = shlex.split(err.rsplit("continue with: ", 1)[1])
    assert command(*words[1:]).code == 0
    assert scores_of(directory) == scores_of(trained[0])


def test_a_dry_run_tells_the_steps_that_a_budget_makes_of_the_next_fold(config: Path) -> None:
    directory = config.parent / "in-time"
    code, _, err = command("train", config, "--folds=4", "--run", directory, "--dry-run", "--budget=10m", *QUICK)
    assert code == 0, err
    assert int(err.split("budget: ")[1].split()[0].replace(",", "")) > 3, "which is what the config says"
    assert int(err.split(" validations of ")[-2].split()[-1].replace(",", "")) > 2
    total = re.search(r"4 folds: about (\d+) min", err)
    assert total, err
    assert 8 <= int(total[1]) <= 10


def test_a_dry_run_tells_the_plan_of_one_fold_and_the_total_and_writes_nothing(config: Path) -> None:
    directory = config.parent / "dry"
    code, out, err = command("train", config, "--folds", "4", "--run", directory, "--dry-run", *QUICK)
    assert (code, out) == (0, "")
    assert "plan of fold 1/4" in err
    assert "4 folds: about" in err
    assert not directory.exists()


@pytest.mark.parametrize("name", ["fold-2", "folds.json"])
def test_what_is_in_the_way_of_a_later_fold_or_of_the_scores_is_told_before_the_first(
    config: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "missing").symlink_to(tmp_path / "nowhere")
    (tmp_path / name).symlink_to(tmp_path / "missing")
    code, _, err = command("train", config, "--folds", "2", "--run", tmp_path, *QUICK)
    assert code == 4
    assert str(tmp_path / name) in err
    assert not (tmp_path / "fold-1").exists()


def test_folds_that_are_named_in_the_place_of_their_config_lead_to_the_command(trained: tuple[Path, str]) -> None:
    code, _, err = command("train", trained[0], "--folds", "2", "--resume")
    assert code == 2
    assert f"segtool train CONFIG --folds 2 --run {trained[0]} --resume ({trained[0]}/fold-1/run.json tells" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--folds", "2", "--set", "data.fold=1/2"), "data.fold is set"),
        (("--folds", "1"), "2"),
        (("--folds", "2", "--resume"), "--run"),
        (("--folds", "6", "--run", "six"), "5 pairs for 6 folds"),
    ],
)
def test_folds_that_cannot_be_are_told(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = command("train", config, *arguments, *QUICK)
    assert code == (3 if "6" in arguments else 2)
    assert words in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


# --- as an ensemble


def test_a_directory_of_folds_is_scored_as_the_ensemble_that_predicts(
    trained: tuple[Path, str], tmp_path: Path
) -> None:
    directory, _ = trained
    images = directory.parent / "data" / "test" / "images"
    code, out, err = command("eval", directory, "--flip", "--json")
    assert code == 0, err
    report = json.loads(out)
    assert (report["split"], report["flip"], report["images"]) == ("test", True, 2)
    assert [Path(member["checkpoint"]).parts[-3] for member in report["members"]] == ["fold-1", "fold-2"]
    assert report["per_image"] == str(directory / "per-image-test-ensemble-flip.csv")
    folds = [directory / "fold-1", directory / "fold-2"]
    for name, members in (("a", [directory]), ("b", folds)):
        code, _, err = command("predict", *members, images, "--out", tmp_path / name, "--flip", "--probabilities")
        assert code == 0, err
    matrix = np.zeros((6, 6), int)
    for path in sorted(images.iterdir()):
        made = np.asarray(Image.open(tmp_path / "a" / path.name))
        assert (made == np.asarray(Image.open(tmp_path / "b" / path.name))).all()
        assert (made == np.load(tmp_path / "a" / "probabilities" / f"{path.stem}.npy").argmax(0)).all()
        truth = np.asarray(Image.open(images.parent / "masks" / path.name))
        np.add.at(matrix, (truth, made), 1)
    assert report["confusion"] == matrix.tolist()


def test_a_run_twice_scores_as_once_and_one_run_says_what_it_always_said(trained: tuple[Path, str]) -> None:
    run = trained[0] / "fold-1"
    once = json.loads(command("eval", run, "--json").out)
    twice = json.loads(command("eval", run, run, "--json").out)
    assert once["confusion"] == twice["confusion"]
    assert {"split", "checkpoint", "step"} <= set(once)
    assert not {"members", "flip"} & set(once)


def test_folds_are_no_ensemble_on_images_that_some_were_trained_on(trained: tuple[Path, str], config: Path) -> None:
    directory, _ = trained
    code, _, err = command("eval", directory, "--split", "val")
    assert (code, "folds.json" in err) == (3, True)
    code, _, err = command(
        "eval", directory / "fold-1", directory / "fold-2", "--split", "val", "--csv", config.parent / "x.csv"
    )
    assert code == 0
    assert "was trained on 3 of the 3 images" in err


def test_fewer_folds_than_there_should_be_are_warned_about(trained: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(trained[0] / "fold-1", tmp_path / "cv" / "fold-1")
    images = trained[0].parent / "data" / "test" / "images"
    code, _, err = command("predict", tmp_path / "cv", images, "--out", tmp_path / "out")
    assert (code, "holds 1 of 2 folds" in err) == (0, True)


def test_predict_without_a_run_or_without_images_says_so(trained: tuple[Path, str], tmp_path: Path) -> None:
    directory, _ = trained
    images = directory.parent / "data" / "test" / "images"
    for paths, code, words in (
        ([directory / "fold-1", directory], 2, "needs IMAGES"),
        ([images], 2, "needs IMAGES"),
        ([images, directory / "fold-1" / "train.log"], 4, "holds no checkpoint"),
        ([images, images], 4, "holds no checkpoint"),
    ):
        done = command("predict", *paths, "--out", tmp_path / "out")
        assert (done.code, words in done.err) == (code, True), done
    assert not (tmp_path / "out").exists()


# --- sums over folds


def fold_score(number: int, matrix: list[list[int]]) -> FoldScore:
    image = ImageScore.of(f"{number}", np.array(matrix), 0)
    return FoldScore(f"{number}/3", f"fold-{number}", 7, Scores.of(("a", "b"), [image]), None)


def test_a_score_that_a_fold_does_not_have_is_in_neither_mean_nor_deviation() -> None:
    folds = [fold_score(1, [[3, 1], [0, 0]]), fold_score(2, [[4, 0], [0, 0]]), fold_score(3, [[4, 0], [2, 2]])]
    values = dict(class_values([fold.val for fold in folds]))["b"]
    assert values == (0, None, 0.5)
    assert spread(values) == (0.25, pytest.approx(0.125**0.5))
    assert spread((None, 0.5)) == (0.5, None)
    assert spread((None,)) == spread(()) == (None, None)
    report = to_json(folds)
    assert report["test"] is None
    assert report["val"]["pooled"]["classes"][1]["iou"] == 2 / 5
    assert "there is no test split" in definition(folds)
