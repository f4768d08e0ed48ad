"""Runs that released versions wrote are read, scored and continued by this one: tests/golden, by make_golden.py."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import make_golden
import numpy as np
import pytest
from make_golden import GOLDEN, STOPPED, logits_of, segtool
from PIL import Image
from torch import nn

from segtool.commands import continuation
from segtool.config import Config, load_config
from segtool.config.registry import Component
from segtool.errors import CheckpointError
from segtool.models.decoders import UNet
from segtool.models.encoders import ConvEncoder
from segtool.prediction import predict
from segtool.prediction.inference import Normalize
from segtool.runs import checkpoint, checkpoint_files, history

IMAGE = Path("data", "test", "images", "0.png")
RUNS = sorted(path.parent for path in GOLDEN.glob("format-*/*/config.yaml"))
OURS = GOLDEN / f"format-{checkpoint_files.FORMAT}"

every_run = pytest.mark.parametrize("golden", RUNS, ids=lambda run: f"{run.parent.name}-{run.name}")


def expected(run: Path) -> Path:
    return GOLDEN / run.parent.name / "expected" / run.name


def check_logits(run: Path) -> None:
    was = np.load(expected(run) / "logits.npy")
    np.testing.assert_allclose(logits_of(run, run.parent / IMAGE), was, rtol=0, atol=1e-5)


def check_continued(run: Path) -> None:
    """Continues a run, whose log must say what it said when the run was not killed."""
    before = rows_of(run / "metrics.jsonl")
    with make_golden.same_arithmetic():
        segtool("train", run, "--resume", "--quiet")
    rows = rows_of(run / "metrics.jsonl")
    kept = [row for row in before if row["step"] <= STOPPED]
    assert rows[: len(kept)] == kept
    was = rows_of(expected(run) / "metrics.jsonl")
    assert [row.keys() for row in rows[len(kept) :]] == [row.keys() for row in was]
    tolerance = 2e-2 if load_config(run / "config.yaml").train.precision == "fp16" else 1e-3
    for row, old in zip(rows[len(kept) :], was, strict=True):
        for key in {"step", "epoch", "lr", "loss", "grad_norm"} & old.keys():
            assert row[key] == pytest.approx(old[key], rel=tolerance), (key, old)


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def run(golden: Path, tmp_path: Path) -> Path:
    """A golden run that may be written to, beside its data."""
    copied = tmp_path / golden.parent.name
    shutil.copytree(golden.parent / "data", copied / "data")
    return shutil.copytree(golden, copied / golden.name)


@every_run
def test_logits_of_a_golden_checkpoint_are_what_they_were(golden: Path) -> None:
    check_logits(golden)


@every_run
def test_masks_predicted_from_a_golden_run_are_what_they_were_in_pixels_mode_and_palette(
    golden: Path, tmp_path: Path
) -> None:
    segtool("predict", golden, golden.parent / IMAGE, "--out", tmp_path, "--quiet")
    with Image.open(tmp_path / "0.png") as mask, Image.open(expected(golden) / "mask.png") as was:
        assert (mask.mode, mask.getpalette()) == (was.mode, was.getpalette())
        assert np.array_equal(np.asarray(mask), np.asarray(was))


@every_run
def test_scores_of_a_golden_run_are_what_they_were(golden: Path, tmp_path: Path) -> None:
    scores = json.loads(segtool("eval", golden, "--json", "--quiet", "--csv", tmp_path / "table.csv"))
    was = json.loads((expected(golden) / "scores.json").read_text())
    assert {key: scores[key] for key in was} == was


@every_run
def test_a_golden_run_is_continued_as_the_version_that_wrote_it_would_have(golden: Path, run: Path) -> None:
    check_continued(run)
    last = history.last(run / "checkpoints")
    assert last is not None
    assert last.progress.finished


def test_there_are_golden_runs_of_the_format_that_is_written() -> None:
    """A new format needs new ones: `python tests/make_golden.py`; those of older formats stay."""
    assert sorted(path.parent.name for path in OURS.glob("*/config.yaml")) == sorted(make_golden.CASES)
    for path in OURS.glob("*/checkpoints/step-*"):
        for name in ("manifest.json", "state.json"):
            assert json.loads((path / name).read_text())["format"] == checkpoint_files.FORMAT
        for config in (path / "config.yaml", path.parent.parent / "config.yaml"):
            assert config.read_text().startswith(f"format: {Config.format}\n")


def test_golden_runs_are_small_and_hold_what_older_versions_had_to_say() -> None:
    for run in RUNS:
        assert sum(path.stat().st_size for path in run.rglob("*") if path.is_file()) < 100_000, run
    loaded = {run.name: history.last(run / "checkpoints") for run in OURS.iterdir() if run.name in make_golden.CASES}
    assert "ema" in loaded["unet"].tensors
    assert loaded["scaled"].scaler is not None
    assert loaded["segnet"].config.optim.name == "sgd"
    assert loaded["palette"].config.data.mask_mode == "P"


def test_golden_runs_are_never_made_anew() -> None:
    before = {path: path.read_bytes() for path in OURS.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit, match="is there already"):
        make_golden.make(OURS)
    assert {path: path.read_bytes() for path in OURS.rglob("*") if path.is_file()} == before


# Broken variants: what must not change, changed; the checks above see it.


def rename_a_parameter(patch: pytest.MonkeyPatch) -> None:
    def renamed(build: Callable[..., nn.Module], *arguments: Any) -> nn.Module:
        model = build(*arguments)
        model.classifier = model.head
        del model.head
        return model

    for name in ("outline", "assemble"):
        patch.setattr(predict, name, partial(renamed, getattr(predict, name)))


def forget_the_normalisation(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(predict, "Normalize", lambda mean, std: Normalize((0.0,) * len(mean), (1.0,) * len(std)))


def predict_with_the_last_weights(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint.Checkpoint, "weights", property(lambda self: self.tensors["model"]))


def change_the_default(cls: type, option: str, value: Any) -> Callable[[pytest.MonkeyPatch], None]:
    def change(patch: pytest.MonkeyPatch) -> None:
        assert option in cls.__init__.__kwdefaults__
        patch.setitem(cls.__init__.__kwdefaults__, option, value)

    return change


@pytest.mark.parametrize("golden", [OURS / "unet"], ids=["unet"])
@pytest.mark.parametrize(
    "broken",
    [
        rename_a_parameter,
        forget_the_normalisation,
        predict_with_the_last_weights,
        change_the_default(ConvEncoder, "activation", "leaky_relu"),
        change_the_default(ConvEncoder, "norm", "instance"),
        change_the_default(ConvEncoder, "downsample", "avg"),
        change_the_default(ConvEncoder, "blocks", 1),
        change_the_default(ConvEncoder, "residual", True),
        change_the_default(UNet, "upsample", Component("bilinear")),
        change_the_default(UNet, "activation", "gelu"),
    ],
)
def test_a_change_of_what_old_checkpoints_mean_is_seen(
    golden: Path, broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises((AssertionError, CheckpointError)):
        check_logits(golden)


def forget_the_optimizer(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(checkpoint, "_restore_optimizer", lambda *_: None)


def take_other_images(patch: pytest.MonkeyPatch) -> None:
    def reseeded(*arguments: Any) -> Config:
        config = load_config(*arguments)
        return replace(config, train=replace(config.train, seed=config.train.seed + 1))

    patch.setattr(continuation, "load_config", reseeded)


@pytest.mark.parametrize("golden", [OURS / "unet", OURS / "segnet"], ids=["unet", "segnet"])
@pytest.mark.parametrize("broken", [forget_the_optimizer, take_other_images])
def test_a_change_of_how_old_runs_go_on_is_seen(
    golden: Path, run: Path, broken: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken(monkeypatch)
    with pytest.raises(AssertionError):
        check_continued(run)
