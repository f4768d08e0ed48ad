"""Colours change as the definitions say, on any number of channels and either type, and alpha is no colour."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from conftest import random_image
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segtool.config import Augment
from segtool.data.photometry import (
    LUMINANCE,
    add_noise,
    blur,
    change_colors,
    compress,
    hue_matrix,
    jitter_color,
    jitter_focus,
    jitter_gamma,
)

KINDS = [(np.uint8, 1), (np.uint8, 3), (np.uint8, 4), (np.uint8, 5), (np.float32, 1), (np.float32, 3), (np.float32, 4)]
seeds = st.integers(0, 2**32)
kinds = pytest.mark.parametrize(("dtype", "channels"), KINDS)


def colors(image: np.ndarray) -> np.ndarray:
    """Returns the channels that are no alpha."""
    return image[..., : 3 if image.shape[2] == 4 else None]


def slow_jitter(image: np.ndarray, brightness: float, contrast: float, saturation: float) -> np.ndarray:
    """Returns the changed image by the definitions, before rounding."""
    if image.shape[2] == 4:
        colors = slow_jitter(image[..., :3], brightness, contrast, saturation)
        return np.concatenate([colors, image[..., 3:]], axis=2)
    channels = image.shape[2]
    weights = LUMINANCE if channels == 3 else np.full(channels, 1 / channels)
    middle = (image.reshape(-1, channels).astype(float) @ weights).mean()
    changed = np.empty(image.shape)
    for at in np.ndindex(image.shape[:2]):
        pixel = image[at].astype(float)
        if channels == 3:
            pixel = saturation * pixel + (1 - saturation) * (LUMINANCE @ pixel)
        changed[at] = brightness * (contrast * pixel + (1 - contrast) * middle)
    return changed.clip(0, 255)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
@pytest.mark.parametrize("strength", [0.2, 1.0])
def test_colors_change_by_the_three_factors_drawn(strength, dtype, channels):
    image = random_image((5, 6), dtype, channels)
    for seed in range(10):
        factors = np.random.default_rng(seed).uniform(1 - strength, 1 + strength, size=3)
        found = jitter_color(image, np.random.default_rng(seed), Augment(color=strength))
        assert found.dtype == image.dtype
        assert np.abs(found - slow_jitter(image, *factors)).max() <= (0.51 if dtype == np.uint8 else 1e-3)


@pytest.mark.parametrize(("dtype", "channels"), KINDS)
def test_a_strength_of_zero_changes_nothing(dtype, channels):
    image = random_image((8, 8), dtype, channels)
    assert np.array_equal(jitter_color(image, np.random.default_rng(0), Augment()), image)


@settings(deadline=None)
@given(seed=seeds, strength=st.floats(0, 1), hue=st.floats(0, 180), kind=st.sampled_from(KINDS))
def test_changed_colors_stay_in_range_and_a_grey_picture_stays_grey(seed, strength, hue, kind):
    dtype, channels = kind
    image = np.repeat(random_image((4, 4), dtype, 1), channels, axis=2)
    before = image.copy()
    found = jitter_color(image, np.random.default_rng(seed), Augment(color=strength, hue=hue))
    assert np.array_equal(image, before)
    assert found.min() >= 0
    assert found.max() <= 255
    assert np.ptp(found[..., : 3 if channels == 4 else channels].astype(float), axis=2).max() <= 1e-3


def to_yuv(image: np.ndarray) -> np.ndarray:
    """Returns luminance and both colour differences of RGB, ITU-R BT.601."""
    luminance = image @ LUMINANCE
    return np.stack([luminance, 0.492 * (image[..., 2] - luminance), 0.877 * (image[..., 0] - luminance)], axis=-1)


@pytest.mark.parametrize("largest", [10, 180])
def test_hue_turns_the_colour_differences_by_one_angle_at_equal_luminance(largest):
    image = random_image((5, 6), np.float32, 3) / 4 + 96  # stays within 0..255, however it turns
    before = to_yuv(image)
    for seed in range(10):
        angle = np.deg2rad(np.random.default_rng(seed).uniform(-largest, largest))
        after = to_yuv(jitter_color(image, np.random.default_rng(seed), Augment(hue=largest)))
        assert np.abs(after[..., 0] - before[..., 0]).max() < 1e-3
        turned = (before[..., 1] + 1j * before[..., 2]) * np.exp(1j * angle)
        assert np.abs(after[..., 1] + 1j * after[..., 2] - turned).max() < 1e-3


def test_a_small_positive_turn_takes_red_to_orange_and_a_negative_one_to_pink():
    red = np.array([200.0, 40.0, 40.0])
    orange, pink = hue_matrix(0.3) @ red, hue_matrix(-0.3) @ red
    assert orange[1] > 55 > 40 > orange[2]
    assert pink[2] > 100 > 40 > pink[1]


@kinds
def test_a_tint_is_a_factor_of_each_channel_under_which_white_keeps_its_luminance(dtype, channels):
    image = random_image((5, 6), dtype, channels) // 4
    alpha = int(channels == 4)
    weights = LUMINANCE if channels in (3, 4) else np.full(channels, 1 / channels)
    for seed in range(10):
        found = jitter_color(image, np.random.default_rng(seed), Augment(tint=0.4))
        gains = np.ones(channels)
        if channels > 1:
            gains[: channels - alpha] = np.random.default_rng(seed).uniform(0.6, 1.4, channels - alpha)
            gains[: channels - alpha] /= (gains[: channels - alpha] * weights).sum()
        assert np.abs(found - image * gains).max() <= (0.51 if dtype is np.uint8 else 1e-3)
    assert channels == 1 or np.ptp(gains) > 0.05


def test_all_colour_changes_together_are_those_of_each_in_turn():
    image = random_image((7, 6), np.float32, 3) / 4 + 96
    augment = Augment(color=0.2, hue=30, tint=0.2)
    together = jitter_color(image, np.random.default_rng(3), augment)
    rng = np.random.default_rng(3)
    for part in (Augment(color=0.2), Augment(hue=30), Augment(tint=0.2)):
        image = jitter_color(image, rng, part)
    assert np.abs(together - image).max() < 1e-3


@kinds
@pytest.mark.parametrize("strength", [0.2, 3.0])
def test_gamma_raises_each_value_to_one_exponent(strength, dtype, channels):
    image = random_image((6, 7), dtype, channels)
    for seed in range(5):
        limit = math.log(1 + strength)
        exponent = math.exp(np.random.default_rng(seed).uniform(-limit, limit))
        assert 1 / (1 + strength) <= exponent <= 1 + strength
        found = jitter_gamma(image, np.random.default_rng(seed), strength)
        assert found.dtype == image.dtype
        wanted = [255 * (float(value) / 255) ** exponent for value in colors(image).ravel()]
        assert np.abs(colors(found).ravel() - wanted).max() <= (0.501 if dtype is np.uint8 else 1e-3)


def slow_blur(image: np.ndarray, deviation: float) -> np.ndarray:
    """Returns the sum over a window of 4 deviations each way, pixel by pixel, before rounding."""
    reach = int(4 * deviation + 0.5)
    offsets = range(-reach, reach + 1)
    weights = {d: math.exp(-d * d / (2 * deviation**2)) for d in offsets}
    total = sum(weights.values())
    blurred = np.zeros(image.shape)
    height, width = image.shape[:2]
    for y, x in np.ndindex(height, width):
        for dy in offsets:
            for dx in offsets:
                value = image[min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)]
                blurred[y, x] += weights[dy] * weights[dx] / total**2 * value
    return blurred


@kinds
@pytest.mark.parametrize("deviation", [0.13, 0.4, 1.3])
def test_a_blur_is_a_gaussian_with_repeated_edges(deviation, dtype, channels):
    image = random_image((5, 8), dtype, channels)
    found = blur(image, deviation)
    assert found.dtype == image.dtype
    assert np.abs(found - slow_blur(image, deviation)).max() <= (0.501 if dtype is np.uint8 else 1e-3)


def test_a_blur_spreads_a_point_with_the_deviation_asked_for():
    point = np.zeros((61, 61, 1), np.float32)
    point[30, 30] = 255
    share = blur(point, 3.0)[..., 0] / 255
    away = np.arange(61) - 30
    assert share.sum() == pytest.approx(1, abs=1e-5)
    for axis in (0, 1):
        assert math.sqrt((share.sum(axis=axis) * away**2).sum()) == pytest.approx(3.0, rel=0.002)


def test_a_blur_of_next_to_nothing_changes_nothing():
    image = random_image((6, 7))
    assert np.array_equal(blur(image, 0.0), image)
    assert np.array_equal(blur(image, 0.12), image)


def test_the_deviation_of_the_blur_is_drawn_from_0_on():
    image = random_image((9, 9))
    found = jitter_focus(image, np.random.default_rng(3), 2.0)
    assert np.array_equal(found, blur(image, np.random.default_rng(3).uniform(0, 2.0)))


@kinds
def test_noise_is_gaussian_in_each_value_with_the_deviation_drawn(dtype, channels):
    image = np.full((80, 80, channels), 128, dtype)
    deviation = 255 * np.random.default_rng(1).uniform(0, 0.1)
    found = add_noise(image, np.random.default_rng(1), 0.1)
    assert found.dtype == image.dtype
    added = colors(found).astype(float) - 128
    assert abs(added.mean()) < 4 * deviation / math.sqrt(added.size) + 0.01
    assert added.std() == pytest.approx(math.hypot(deviation, 0.29 * (dtype is np.uint8)), rel=0.06)  # rounded
    inner = np.abs(added) < deviation
    assert inner.mean() == pytest.approx(0.683, abs=0.04)
    flat = added.reshape(-1, added.shape[2])
    together = np.corrcoef(np.column_stack([flat[:-1], flat[1:, :1]]).T)  # channels, and the pixel that follows
    assert np.abs(together - np.eye(len(together))).max() < 0.06


@pytest.mark.parametrize("channels", [1, 3])
def test_compression_is_that_of_a_jpeg_file_of_the_quality_drawn(channels):
    image = random_image((17, 22), channels=channels)
    for seed in range(5):
        quality = int(np.random.default_rng(seed).integers(20, 101))
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
        wanted = np.asarray(Image.open(file)).reshape(image.shape)
        assert np.array_equal(compress(image, np.random.default_rng(seed), 20), wanted)


def test_every_quality_from_the_lowest_to_100_is_drawn(monkeypatch):
    seen = set()
    monkeypatch.setattr(Image.Image, "save", lambda *_, quality, **__: seen.add(quality))
    monkeypatch.setattr(Image, "open", lambda _: np.zeros((1, 1)))
    rng = np.random.default_rng(0)
    for _ in range(100):
        compress(np.zeros((1, 1, 1), np.uint8), rng, 97)
    assert seen == {97, 98, 99, 100}


def test_changes_come_in_the_order_color_gamma_blur_noise_jpeg():
    image = random_image((16, 16))
    augment = Augment(color=0.3, gamma=0.5, blur=1.0, noise=0.05, jpeg=30)
    found = change_colors(image, np.random.default_rng(2), augment)
    rng = np.random.default_rng(2)
    steps = [(jitter_color, augment), (jitter_gamma, 0.5), (jitter_focus, 1.0), (add_noise, 0.05), (compress, 30)]
    for change, strength in steps:
        image = change(image, rng, strength)
    assert np.array_equal(found, image)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_alpha_is_no_colour_and_the_others_change_as_if_it_were_not_there(dtype):
    image = random_image((12, 9), dtype, 4)
    augment = Augment(color=0.5, hue=20, tint=0.2, gamma=0.5, blur=1.0, noise=0.1)
    found = change_colors(image, np.random.default_rng(0), augment)
    assert np.array_equal(found[..., 3], image[..., 3])
    alone = change_colors(np.ascontiguousarray(image[..., :3]), np.random.default_rng(0), augment)
    assert np.array_equal(found[..., :3], alone)
