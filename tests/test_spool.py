"""Spooled arrays: pixels stay, memory goes, and where no file is to be had there is an ordinary array."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import read_image

from segtool.data import images
from segtool.data.spool import release, spooled


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def filled(shape: tuple[int, ...]) -> np.ndarray:
    array = spooled(shape)
    array[...] = np.arange(shape[-1], dtype=np.uint8)
    return array


def test_pixels_are_there_after_their_memory_was_given_back():
    array = filled((300, 500, 3))
    release(array)
    assert (array == [0, 1, 2]).all()
    array[7] = 9
    release(array.transpose(2, 0, 1)[:, 5:])  # any view will do
    assert (array[7] == 9).all()
    assert array.flags.writeable
    assert array.flags.c_contiguous


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the system does not tell")
def test_the_memory_is_given_back():
    before = resident()
    array = filled((4000, 4000, 3))
    assert resident() - before > 40e6
    release(array)
    assert resident() - before < 10e6


def test_an_ordinary_array_is_left_alone_and_is_what_there_is_without_a_file(monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    array = filled((30, 50, 3))
    assert array.base is None
    release(array)
    assert (array == [0, 1, 2]).all()


@pytest.mark.parametrize("spool_pixels", [100, 10**9])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGB", "RGBA"])
def test_a_large_image_is_read_in_bands_as_a_small_one_is_at_once(tmp_path, monkeypatch, mode, channels, spool_pixels):
    pixels = np.random.default_rng(0).integers(0, 256, (23, 31, 4), np.uint8)
    if channels < 4:
        pixels[..., 3] = 255
    picture = Image.fromarray(pixels)
    picture = picture.quantize(16) if mode == "P" else picture.convert(mode)
    picture.save(tmp_path / "a.png")
    expected = read_image(tmp_path / "a.png", channels=channels)
    assert expected.base is None or not hasattr(expected.base, "madvise")
    monkeypatch.setattr(images, "BAND_PIXELS", 5 * 31)
    found = read_image(tmp_path / "a.png", channels=channels, spool_pixels=spool_pixels)
    assert hasattr(found.base, "madvise") == (spool_pixels == 100), "whether it lies in a file"
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert (found == expected).all()
    assert found.flags.writeable


def test_reading_a_large_image_takes_the_memory_of_its_array_beside_what_pillow_holds(tmp_path):
    Image.new("RGB", (2500, 1600), (9, 8, 7)).save(tmp_path / "a.png")
    tracemalloc.start()
    try:
        array = read_image(tmp_path / "a.png", channels=3)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert array.nbytes == 12e6
    assert peak < 1.6 * array.nbytes
