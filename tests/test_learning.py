"""That the networks learn what they are said to learn, on the synthetic set; minutes long."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from segtool.demo import make_dataset

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
