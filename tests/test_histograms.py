"""Masks that are counted together have the histograms that each has alone, and those of slow loops."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtool.data import facts, specks
from segtool.data.fact_cache import encode
from segtool.data.facts import facts_of_images, facts_of_masks
from segtool.data.histograms import histograms


@pytest.mark.parametrize("size", [(9, 11), (2, 2), (2, 1), (1, 2), (1, 1), (1, 9), (9, 1)])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_pixels_and_solid_blocks_are_counted_as_a_slow_loop_counts_them(size: tuple[int, int], count: int) -> None:
    masks = np.random.default_rng(0).integers(0, 3, (count, *size), np.uint8)
    masks[:, 2:6, 3:8] = 2
    for mask, counted in zip(masks, histograms(masks), strict=True):
        assert counted.values.tolist() == sorted({*mask.ravel().tolist()})
        for value, number, blocks in zip(counted.values, counted.counts, counted.solid, strict=True):
            rows, columns = range(size[0] - 1), range(size[1] - 1)
            slow = sum((mask[y : y + 2, x : x + 2] == value).all() for y in rows for x in columns)
            assert (number, blocks) == ((mask == value).sum(), slow)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int32, np.int64])
@pytest.mark.parametrize("size", [(40, 31), (33, 100), (7, 5)])
def test_masks_together_have_the_histograms_of_each_alone(
    dtype: type, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specks, "FEW", 4)
    rng, most = np.random.default_rng(0), min(np.iinfo(dtype).max, 1 << 40)
    # Noise, stray pixels, areas, one value, as they may follow each other; the last row of one as the first of the next
    shares = (0.5, 0.02, 0.0, 0.03, 0.0)
    masks = np.stack([np.where(rng.random(size) < share, rng.integers(most - 3, most, size), 7) for share in shares])
    masks[2, : size[0] // 2], masks[3, 0] = 9, masks[2, -1]
    masks = masks.astype(dtype)
    if np.issubdtype(dtype, np.signedinteger):
        masks[0, 0] = -5
    for mask, together in zip(masks, histograms(masks), strict=True):
        for one, other in zip(histograms(mask[None])[0], together, strict=True):
            assert one.dtype == other.dtype
            assert np.array_equal(one, other)
    assert histograms(masks)[1].specks.any() == (size != (7, 5))


def test_files_of_any_kind_in_a_row_have_the_facts_of_each_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.png" for number in range(14)]
    shapes = [(20, 30), (20, 30), (30, 20), (20, 30, 3), (20, 30, 3), (150, 140, 3), (150, 140, 4)]
    for path, shape in zip(paths, shapes * 2, strict=True):
        Image.fromarray(rng.integers(0, 9, shape, np.uint8)).save(path)
    for number, content in ((1, b"nothing"), (10, b""), (11, b"")):
        paths[number].write_bytes(content)
    for look in (facts_of_images, facts_of_masks):
        alone = [next(look([path], max_pixels=10**6)) for path in paths]
        assert [bool(one.error) for one in alone] == [number in (1, 10, 11) for number in range(14)]
        for stacked in (1, 1500, 1 << 20):
            monkeypatch.setattr(facts, "STACKED", stacked)
            together = [*look(paths, max_pixels=10**6)]
            assert [one.path for one in together] == paths
            assert [one.error or encode(one) for one in together] == [one.error or encode(one) for one in alone]


@pytest.mark.parametrize("size", [(64, 32), (40, 31), (7, 200)])
def test_a_sample_has_the_values_in_the_middle_of_cells(size: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).integers(0, 200, (2, *size), np.uint8)
    for mask, counted in zip(masks, histograms(masks), strict=True):
        for row, column in ((0, 0), (5, 17), (31, 31)):
            y, x = int((row + 0.5) * size[0] / 32), int((column + 0.5) * size[1] / 32)
            assert counted.sample[row, column] == mask[y, x]
