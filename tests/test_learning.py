"""That the networks learn what they are said to learn, on the synthetic set; minutes long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import config_of

from segtool.commands.demo import make_dataset
from segtool.config import dump_config

CONFIG = Path(__file__).parents[1] / "configs" / "demo.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("learning") / "data"
    make_dataset(root)
    return root


def score_of(data: Path, decoder: str) -> float:
    """Returns the test mIoU of `configs/demo.yaml` with another decoder."""
    run = data.parent / decoder.split(":")[-1].strip(" }")
    segtool = [sys.executable, "-m", "segtool"]
    settings = [f"--set=data.root={data}", f"--set=model.decoder={decoder}"]
    subprocess.run([*segtool, "train", CONFIG, "--run", run, "--quiet", *settings], check=True, timeout=600)
    done = subprocess.run([*segtool, "eval", run, "--json"], check=True, timeout=300, capture_output=True)
    return json.loads(done.stdout)["miou"]


@pytest.mark.slow
def test_unet_beats_the_same_encoder_without_skips_by_five_points_on_thin_structures(data: Path) -> None:
    with_skips = score_of(data, "{name: unet}")
    without = score_of(data, "{name: fcn, skips: 0}")
    assert with_skips > 0.80
    assert with_skips - without > 0.05, (with_skips, without)


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["{name: unet}", "{name: fcn}"])
def test_sixty_steps_learn_the_images_that_they_see(tmp_path: Path, tiny_ds: Path, decoder: str) -> None:
    """The mIoU on the training images themselves, of shapes in plain colours."""
    config = tmp_path / "config.yaml"
    network = {"encoder": {"name": "conv", "channels": [16, 32, 64]}, "decoder": yaml.safe_load(decoder)}
    plain = {"scale": [1.0, 1.0], "rotate": 0, "color": 0, "crop": [32, 32]}
    train = {"steps": 60, "batch_size": 8, "seed": 0, "ema": None, "eval_every": 60}
    made = config_of(tiny_ds, model=network, augment=plain, optim={"lr": 0.01, "warmup": 5}, train=train)
    config.write_text(dump_config(made))
    segtool = [sys.executable, "-m", "segtool"]
    common = ["--quiet", "--device", "cpu"]
    subprocess.run([*segtool, "train", config, "--run", tmp_path / "run", *common], check=True, timeout=300)
    scored = [*segtool, "eval", tmp_path / "run", "--split", "train", "--json", *common]
    done = subprocess.run(scored, check=True, timeout=100, capture_output=True)
    assert json.loads(done.stdout)["miou"] > 0.9
