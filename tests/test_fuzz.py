"""Changed bytes, by the hundred thousand: each reader gives its data or its own error, and nothing is printed.

Each reader has a closed list of outcomes; all else, a slow answer included, is a failure. The seeds are fixed.
"""

from __future__ import annotations

import gc
import io
import random
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save as dump_tensors

from segtool.config import dump_config, parse_text
from segtool.data.images import image_size, read_image
from segtool.data.masks import read_mask
from segtool.errors import CheckpointError, ConfigError, DataError
from segtool.runs.checkpoint import _tensors

SECONDS = 2.0
NUMBERS = (0, 1, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def changed(rng: random.Random, content: bytes, others: list[bytes]) -> bytes:
    """Returns bytes with one to eight flips, cuts, insertions, repetitions, numbers at their limits or grafts."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        if len(data) < 8:
            break
        at = rng.randrange(min(len(data), 400) if rng.random() < 0.6 else len(data))
        match rng.randrange(8):
            case 0 | 1:
                data[at] ^= 1 << rng.randrange(8)
            case 2:
                data[at] = rng.choice((0, 1, 127, 128, 255))
            case 3:
                data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(NUMBERS))
            case 4:
                del data[at : at + rng.randrange(1, 60)]
            case 5:
                data[at:at] = rng.randbytes(rng.randrange(1, 30))
            case 6:
                del data[at:]
            case 7:
                data[at:] = rng.choice(others)[at:]
    return bytes(data)


def with_sums(content: bytes) -> bytes:
    """Returns a PNG whose chunks have the right checksums, so that what stands in them is looked at."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
    out, at = bytearray(content[:8]), 8
    while at + 12 <= len(content):
        size = int.from_bytes(content[at : at + 4], "big")
        if at + 12 + size > len(content):
            break
        body = content[at + 4 : at + 8 + size]
        out += content[at : at + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        at += 12 + size
    return bytes(out + content[at:])


def pictures() -> dict[str, bytes]:
    """Returns small files of all formats and modes, by name."""
    rng = np.random.default_rng(0)
    color = Image.fromarray(rng.integers(0, 256, (24, 31, 3), dtype=np.uint8))
    grey = Image.fromarray(rng.integers(0, 4, (24, 31), dtype=np.uint8))
    wide = Image.fromarray(rng.integers(0, 65536, (24, 31), dtype=np.uint16))
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "words"
    kinds: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (color, "PNG", {"exif": exif, "icc_profile": b"x" * 300, "dpi": (72, 72)}),
        (color.convert("P"), "PNG", {"transparency": 3}),
        (grey.convert("1"), "PNG", {}),
        (grey.convert("LA"), "PNG", {}),
        (wide, "PNG", {}),
        (color, "PNG", {"save_all": True, "append_images": [color.rotate(90)]}),
        (color, "JPEG", {}),
        (color, "JPEG", {"progressive": True, "exif": exif}),
        (color.convert("CMYK"), "JPEG", {}),
        (color, "MPO", {"save_all": True, "append_images": [color]}),
        *((color, "TIFF", {"compression": name, "exif": exif}) for name in (None, "tiff_lzw", "tiff_deflate", "jpeg")),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (color.convert("P"), "TIFF", {"compression": "packbits"}),
        (wide, "TIFF", {}),
        (grey.convert("F"), "TIFF", {}),
        (grey.convert("I"), "TIFF", {}),
        (color, "TIFF", {"big_tiff": True}),
        (color, "TIFF", {"save_all": True, "append_images": [color]}),
        (color, "BMP", {}),
        (color.convert("P"), "BMP", {}),
        (color, "GIF", {}),
        (color, "GIF", {"save_all": True, "append_images": [color.rotate(90)]}),
        (color, "WEBP", {"exif": exif}),
        (color.convert("RGBA"), "WEBP", {"lossless": True}),
        (color, "WEBP", {"save_all": True, "append_images": [color.rotate(90)]}),
    ]
    files = {}
    for number, (image, kind, options) in enumerate(kinds):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        files[f"{number}-{kind}"] = buffer.getvalue()
    return files


def outcomes(read: Callable[[], object], allowed: type[Exception]) -> str:
    """Returns `read` or `refused`; anything else that is raised or warned of, or a slow answer, is raised."""
    start = time.process_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read()
            return "read"
    except allowed:
        return "refused"
    finally:
        assert time.process_time() - start < SECONDS, "a slow answer"


def fuzz_pictures(path: Path, cases: int, seed: int, readers: tuple[Callable[..., object], ...] = ()) -> list[str]:
    rng = random.Random(seed)
    files = list(pictures().values())
    gc.collect()  # or the garbage of tests before takes seconds of some answer
    found = []
    for _ in range(cases):
        content = changed(rng, rng.choice(files), files)
        path.write_bytes(with_sums(content) if rng.random() < 0.8 else content)
        channels, exif = rng.choice((1, 3, 3, 4, 5)), rng.choice(("apply", "ignore", "error"))
        ours = (
            partial(read_image, path, channels=channels, exif=exif, max_pixels=2_000_000),
            partial(image_size, path, exif=exif, max_pixels=2_000_000),
            partial(read_mask, path, max_pixels=2_000_000),
        )
        found += [outcomes(read, DataError) for read in readers or ours]
    return found


def test_a_changed_picture_is_read_or_a_data_error_and_nothing_is_printed(tmp_path, capfd):
    found = fuzz_pictures(tmp_path / "x", 250, seed=1)
    assert min(found.count("read"), found.count("refused")) > 50
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_ten_thousand_changed_pictures_are_read_or_data_errors(tmp_path, capfd, seed):
    found = fuzz_pictures(tmp_path / "x", 10_000, seed=100 + seed)
    assert min(found.count("read"), found.count("refused")) > 2000
    assert capfd.readouterr() == ("", "")


def test_a_reader_that_lets_other_errors_through_is_caught(tmp_path):
    """Negative control: Pillow as it is."""
    path = tmp_path / "x"
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever class comes first
        fuzz_pictures(path, 300, seed=1, readers=(lambda: Image.open(path).load(),))
    assert not isinstance(caught.value, DataError)


# --- YAML


PIECES = ["&a ", "*a ", "<<: ", "!!python/object:os ", "? ", ": ", "- ", "[", "{", "]", "}", '"', "'", "|\n", ">-\n"]
PIECES += ["#", "\t", "\r", "\n", "---\n", "...\n", "%YAML 1.1\n", "1e400", "9" * 30, ".nan", "\ufeff", "\x85", "\0"]
PIECES += ["null", "true", "~", "0x1F", "1_000", "2024-01-01", "-0", "name", "\u2028", "\U0001f600", "@", "`", "\udcff"]


def fuzz_yaml(cases: int, seed: int, parse: Callable[[str, str], object] = parse_text) -> list[str]:
    rng = random.Random(seed)
    from conftest import config_of

    good = dump_config(config_of(Path("/data")))
    found = []
    for _ in range(cases):
        text = good
        for _ in range(rng.choice((1, 1, 2, 3, 6))):
            at = rng.randrange(len(text) + 1)
            match rng.randrange(4):
                case 0:
                    text = text[:at] + rng.choice(PIECES) + text[at:]
                case 1:
                    text = text[:at] + text[at + rng.randrange(1, 30) :]
                case 2:
                    text = text[:at] + chr(rng.randrange(1, 256)) + text[at + 1 :]
                case 3:
                    start = rng.randrange(len(text) + 1)
                    text = text[:at] + text[start : start + rng.randrange(80)] + text[at:]
        found.append(outcomes(lambda text=text: parse(text, "x.yaml"), ConfigError))
    return found


def test_a_changed_config_is_read_or_a_config_error():
    found = fuzz_yaml(300, seed=1)
    assert min(found.count("read"), found.count("refused")) > 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_thousand_changed_configs_are_read_or_config_errors(seed):
    found = fuzz_yaml(25_000, seed=100 + seed)
    assert min(found.count("read"), found.count("refused")) > 200


def test_a_parser_that_lets_other_errors_through_is_caught():
    """Negative control: PyYAML as it is."""
    import yaml

    with pytest.raises(yaml.YAMLError):
        fuzz_yaml(300, seed=1, parse=lambda text, _: yaml.safe_load(text))


# --- tensors of a checkpoint


def fuzz_tensors(cases: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    good = dump_tensors(
        {"a.weight": np.ones((2, 3), np.float32), "b": np.zeros(4, np.int64), "c": np.ones(1, np.uint8)}
    )
    other = dump_tensors({"d": np.ones((8, 8), np.float64)})
    found = []
    for _ in range(cases):
        content = changed(rng, good, [other, good])
        found.append(outcomes(lambda content=content: _tensors(Path("x"), content), CheckpointError))
    return found


def test_changed_tensors_are_read_or_a_checkpoint_error():
    found = fuzz_tensors(2000, seed=1)
    assert min(found.count("read"), found.count("refused")) > 50


@pytest.mark.slow
def test_a_hundred_thousand_changed_tensors_are_read_or_checkpoint_errors():
    found = fuzz_tensors(100_000, seed=2)
    assert min(found.count("read"), found.count("refused")) > 2000
