"""The programs that measure prediction run from end to end, and compare what they say they compare."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks import large_image, prediction


@pytest.fixture
def rows(capfd):
    """Runs a program's trial and returns its rows."""

    def run(program) -> list[dict]:
        program.main(["--quick"])
        return json.loads(capfd.readouterr().out)

    return run


def test_the_trial_of_prediction_ends_in_rows_and_both_sides_agree(rows):
    speed, whole, equal = rows(prediction)
    assert len(speed["ratios"]) == 2
    assert speed["ratios"][0] > 0
    assert len(whole["ratios"]) == 1
    assert equal["ratios"][0] > 0.98  # of a network of a few steps, in bfloat16 where the processor is fast in it


def test_the_trial_of_a_large_image_ends_in_rows(rows):
    pytest.importorskip("monai")
    time, above, growth = rows(large_image)
    assert time["ratios"][0] > 0
    assert above["ratios"][0] > growth["ratios"][0] > -50


def test_agreement_is_the_share_of_equal_pixels_of_all_masks(tmp_path: Path):
    for folder, changed in (("one", 0), ("other", 3)):
        (tmp_path / folder).mkdir()
        for name, size in (("a.png", (2, 5)), ("b.png", (3, 10))):
            mask = np.zeros(size, np.uint8)
            mask.ravel()[:changed] = 1
            Image.fromarray(mask).save(tmp_path / folder / name)
    assert prediction.agreement(tmp_path / "one", tmp_path / "other") == pytest.approx(1 - 6 / 40)


def test_the_parts_of_a_folder_are_all_of_it():
    images = [Path(str(number)) for number in range(11)]
    parts = prediction.split(images, 4)
    assert sorted(path for part in parts for path in part) == sorted(images)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
