"""The scores and the table of `make upsamplers`, on masks and logits small enough to work out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness import DEMO
from benchmarks.upsampler_report import table
from benchmarks.upsampler_scores import checkerboard, pattern_energy, thin_hits, thin_pixels
from benchmarks.upsamplers import DECODERS, EXTRAS, UPSAMPLERS, cells, fingerprint
from segtool.config import Model, load_config
from segtool.config.registry import Component
from segtool.models.segmenter import build_model, verify


def mask_with_band(width: int) -> np.ndarray:
    """Returns a mask of 30x40 with a horizontal band of class 1 from row 12."""
    mask = np.zeros((30, 40), np.uint8)
    mask[12 : 12 + width] = 1
    return mask


def score(*logits: np.ndarray) -> float:
    return checkerboard([pattern_energy(one) for one in logits])


def noise(height: int = 96, width: int = 128, classes: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(classes, height, width))


def two_classes(values: np.ndarray) -> np.ndarray:
    """Returns logits 2 H W whose difference is twice the values, so that their mean over classes is 0."""
    return np.stack([values, -values])


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_a_band_of_up_to_four_pixels_is_thin_over_its_whole_length(width: int) -> None:
    mask = mask_with_band(width)
    assert np.array_equal(thin_pixels(mask, 1), mask == 1)


def test_a_band_of_five_pixels_is_not_thin_anywhere() -> None:
    assert not thin_pixels(mask_with_band(5), 1).any()


def test_what_surrounds_a_thin_band_is_not_thin_itself() -> None:
    assert not thin_pixels(mask_with_band(3), 0).any()


def test_a_strip_that_the_border_cuts_is_not_thin_since_it_may_go_on_outside() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[:3] = 1
    assert not thin_pixels(mask, 1).any()


def test_corners_and_rims_of_a_disk_are_not_thin() -> None:
    y, x = np.mgrid[:40, :40]
    assert not thin_pixels((np.hypot(y - 20, x - 20) < 10).astype(np.uint8), 1).any()


def test_a_path_is_thin_from_the_third_pixel_on_that_it_leaves_a_field() -> None:
    mask = np.zeros((30, 40), np.uint8)
    mask[:, :10] = 1
    mask[14:16, 10:] = 1
    expected = np.zeros((30, 40), bool)
    expected[14:16, 12:] = True
    assert np.array_equal(thin_pixels(mask, 1), expected)


def test_a_band_predicted_one_pixel_too_low_has_two_of_four_rows() -> None:
    truth = mask_with_band(3)
    # Rows 12, 13, 14 are true, 13, 14, 15 predicted: two rows of 40 in common, four in the union.
    assert thin_hits(truth, np.roll(truth, 1, axis=0), 2) == (80, 160)


def test_false_positives_count_within_three_pixels_only() -> None:
    truth = mask_with_band(2)
    predicted = truth.copy()
    predicted[17:19] = 1  # rows 12 and 13 are true: row 16 is the last within 3 pixels
    assert thin_hits(truth, predicted, 2) == (80, 80)
    predicted[16] = 1
    assert thin_hits(truth, predicted, 2) == (80, 120)


def test_a_mask_predicted_as_background_hits_nothing_thin() -> None:
    truth = mask_with_band(3)
    assert thin_hits(truth, np.zeros_like(truth), 2) == (0, 120)


def test_what_repeats_with_the_period_alone_is_all_pattern() -> None:
    cell = np.random.default_rng(0).normal(size=(8, 8))
    assert score(two_classes(np.tile(cell, (12, 16)))) == pytest.approx(1)


@pytest.mark.parametrize("stride", [2, 4, 8])
def test_a_pattern_as_strong_as_the_noise_on_it_is_half_of_the_energy(stride: int) -> None:
    y, x = np.mgrid[:96, :128]
    nails = ((y % stride == 0) & (x % stride == 0)).astype(float)
    nails = (nails - nails.mean()) / nails.std()
    # Neighbours take 1/64 of the noise away with their mean, and nothing of the pattern.
    assert score(two_classes(nails + noise(classes=1)[0])) == pytest.approx(0.5, abs=0.03)


def test_noise_that_knows_no_grid_scores_zero() -> None:
    assert score(*(noise(seed=seed) for seed in range(4))) == pytest.approx(0, abs=0.002)


def test_a_slope_and_a_constant_have_no_detail_at_all() -> None:
    y, x = np.mgrid[:96, :128]
    assert pattern_energy(two_classes(0.3 * y - 0.2 * x)) == pytest.approx((0, 0), abs=1e-20)
    assert score(np.ones((2, 96, 128))) == 0


def test_a_pattern_that_all_classes_share_does_not_count_since_it_changes_no_prediction() -> None:
    logits = noise()
    y, x = np.mgrid[:96, :128]
    assert score(logits + 10 * ((y + x) % 2)) == pytest.approx(score(logits))


def test_what_padding_leaves_along_the_border_does_not_count() -> None:
    logits = noise()
    framed = 10 * noise(seed=1)
    framed[:, 8:-8, 8:-8] = logits[:, 8:-8, 8:-8]
    assert score(framed) == score(logits)


def untrained_score(upsample: Component) -> float:
    """Returns the score of a new network of stride 8 without skips on four images of noise, in evaluation mode."""
    torch.manual_seed(0)
    encoder = Component("conv", {"channels": (8, 8, 8, 8)})
    model = build_model(Model(encoder, Component("fcn", {"skips": 0, "upsample": upsample})), 3).eval()
    with torch.inference_mode():
        return score(*model(torch.randn(4, 3, 96, 96)).numpy())


@pytest.mark.parametrize(
    "upsample", [Component("bed_of_nails"), Component("transposed"), Component("transposed", {"kernel": 3})], ids=str
)
def test_a_new_network_leaves_a_pattern_where_its_upsampler_treats_neighbours_differently(upsample: Component) -> None:
    assert untrained_score(upsample) > 0.3


@pytest.mark.parametrize("name", ["nearest", "bilinear"])
def test_a_new_network_leaves_no_pattern_where_its_upsampler_treats_all_pixels_alike(name: str) -> None:
    assert abs(untrained_score(Component(name))) < 0.05


def test_every_training_of_the_sweep_has_its_own_network_and_all_else_in_common(tmp_path: Path) -> None:
    configs = [load_config(DEMO, cell.overrides(tmp_path, steps=5)) for cell in cells(1)]
    assert len({str(config.model.decoder) for config in configs}) == len(DECODERS) * len([*UPSAMPLERS, *EXTRAS])
    assert len({fingerprint(config) for config in configs}) == 1
    for config in configs:
        verify(config.model, len(config.data.classes), crop=config.augment.crop, batch=config.train.batch_size)


def test_every_training_has_its_own_name_and_the_extra_ones_come_last() -> None:
    plan = list(cells(3))
    assert len({cell.name for cell in plan}) == len(plan)
    is_extra = [cell.upsampler in EXTRAS for cell in plan]
    assert is_extra == sorted(is_extra)


def row(upsampler: str, seed: int, *, miou: float, rate: float) -> dict[str, Any]:
    return {
        "decoder": "unet",
        "upsampler": upsampler,
        "seed": seed,
        "parameters": 1234,
        "miou": miou,
        "thin_iou": 0.5,
        "checkerboard": 0.01,
        "checkerboard_untrained": 0.25,
        "train_images_per_second": rate,
        "predict_ms": 10.0,
    }


def test_the_table_has_mean_and_deviation_over_seeds_and_speed_against_nearest_of_the_same_seed() -> None:
    rows = [
        row("transposed", 0, miou=0.80, rate=20.0),
        row("nearest", 0, miou=0.70, rate=40.0),
        row("transposed", 1, miou=0.84, rate=30.0),
        row("nearest", 1, miou=0.70, rate=20.0),
    ]
    first = table(rows).splitlines()[2]
    # 80 and 84: mean 82, deviation sqrt(2 * 2^2 / 1); ratios 0.5 and 1.5.
    assert first == (
        "| unet | transposed | 1,234 | 82.0 ± 2.8 | 50.0 ± 0.0 | 1.00 ± 0.00 | 25.00 ± 0.00 | 25.0 ± 7.1 | 1.00 ± 0.71 "
        "| 10.0 ± 0.0 | 1.00 ± 0.00 |"
    )


def test_the_table_says_which_rows_are_extra_and_which_have_fewer_seeds() -> None:
    rows = [row("nearest", 0, miou=0.7, rate=1.0), row("nearest", 1, miou=0.7, rate=1.0)]
    text = table([*rows, row("transposed, kernel 3", 0, miou=0.7, rate=1.0)], extras=["transposed, kernel 3"])
    assert "| transposed, kernel 3 (extra), 1 of 2 seeds | 1,234 | 70.0 |" in text
