"""What several test files share: a tiny data set, configs for it, and commands that run in this process."""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import io
import json
import os
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import typer.main
from PIL import Image
from training import Trainer

from segtool.data.facts import ImageFacts, MaskFacts
from segtool.data.histograms import histograms
from segtool.data.outline import picture_maps, small_picture

CLASSES = ("ground", "block", "ring")
COLORS = np.array([[60, 60, 60], [200, 90, 30], [40, 120, 220]])


def pytest_collection_finish() -> None:
    """Leaves what was imported and collected out of every search for garbage: a million things."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: sums come in one order, and the machine is left to others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Waits for no disk in this process, which takes 10 ms a file or a change of the cache: here no power is lost."""
    connect = sqlite3.connect

    def unsynced_connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        database = connect(*arguments, **options)
        database.execute("PRAGMA synchronous = OFF")
        return database

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
        patch.setattr(sqlite3, "connect", unsynced_connect)
        yield


@pytest.fixture(scope="session", autouse=True)
def built_once() -> Iterator[None]:
    """Builds the command line once in this process, where it would be built for each command, in 7 ms."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(typer.main, "get_command", functools.cache(typer.main.get_command))
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the facts of the tests' files out of the user's cache, also in processes that the tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(
            "LOCALAPPDATA" if sys.platform == "win32" else "XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache"))
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def float32() -> Iterator[None]:
    """Predicts in float32 whatever the processor is fastest in, since the oracles compute so."""
    from segtool.prediction import predict
    from segtool.training import train

    with pytest.MonkeyPatch.context() as patch:
        for module in (predict, train):
            patch.setattr(module, "fast_dtype", lambda _: torch.float32)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_preflight() -> Iterator[Callable[..., Any]]:
    """Leaves the preflight of trainings in this process out, which takes longer than most of them; returns it."""
    from segtool.training import preflight

    look = preflight.look
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preflight, "look", lambda *_: None)
        yield look


@pytest.fixture(autouse=True)
def preflight_where_marked(request: pytest.FixtureRequest, without_preflight: Callable[..., Any]) -> Iterator[None]:
    """Has the tests that are marked with `@pytest.mark.preflight` train with it."""
    from segtool.training import preflight

    with pytest.MonkeyPatch.context() as patch:
        if "preflight" in request.keywords:
            patch.setattr(preflight, "look", without_preflight)
        yield


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Takes back what the command line, run in this process, does at signals: pytest has its own."""
    from segtool.system.signals import STOPPING, _late

    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    _late.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


def check(config: Any, base: Path) -> list[Any]:
    """Returns what `segtool check` finds in the data of a config that lies in a folder, the gravest first."""
    from segtool.check.report import examine

    return examine(config, base).findings


def identity(path: Path) -> tuple[int, ...]:
    """Returns what stays the same of a path that is only looked at."""
    status = path.lstat()
    return status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns


def snapshot(place: Path) -> dict[str, tuple[int, int, str]]:
    """Returns mode, time of change and content of everything below a folder."""
    found = {}
    for path in sorted(place.rglob("*")):
        status = path.lstat()
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        found[str(path.relative_to(place))] = (status.st_mode, status.st_mtime_ns, content)
    return found


def is_running(pid: int) -> bool:
    """Whether a process is there, and not only its exit code, which nobody has asked for; as Linux tells it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def age(path: Path, seconds: float = 3600) -> None:
    """Makes a file one that was changed some time ago, at no whole second."""
    moment = time.time_ns() - int(seconds * 1e9) + 7
    os.utime(path, ns=(moment, moment))


def random_image(size: tuple[int, int], dtype: type = np.uint8, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Returns noise, H W C; as float32 it lies between the whole numbers."""
    image = np.random.default_rng(seed).integers(256, size=(*size, channels), dtype=np.uint8)
    return image if dtype is np.uint8 else (image / np.float32(1.7)).astype(np.float32)


def facts_of_pixels(path: Path, pixels: np.ndarray) -> ImageFacts:
    """Returns the facts of an image H W C by which pictures are compared."""
    (thumbnail,), (edges,), (tints,) = picture_maps(small_picture(pixels)[None])
    known = {"channels": pixels.shape[2], "thumbnail": thumbnail, "edges": edges, "tints": tints}
    return ImageFacts(path, None, pixels.shape[:2], **known)


def facts_of_values(path: Path, values: np.ndarray) -> MaskFacts:
    """Returns the facts of a mask H W of integers."""
    return MaskFacts(path, None, values.shape, "L", **histograms(values[None])[0]._asdict())


def write_pair(root: Path, split: str, stem: str, image: np.ndarray, mask: np.ndarray) -> None:
    """Writes an image and its mask as PNG files."""
    for folder, array in (("images", image), ("masks", mask)):
        path = root / split / folder / f"{stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)


def draw_pair(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Returns an image of 32x32 with a block and a ring on noisy ground, and its mask with an ignored rim."""
    mask = np.zeros((32, 32), np.uint8)
    y, x = rng.integers(2, 16, 2)
    mask[y : y + 12, x : x + 12] = 1
    rows, columns = np.mgrid[:32, :32]
    distance = np.hypot(rows - rng.integers(8, 24), columns - rng.integers(8, 24))
    mask[(distance > 4) & (distance < 7)] = 2
    image = (COLORS[mask] + rng.normal(0, 12, (32, 32, 3))).clip(0, 255).astype(np.uint8)
    mask[0] = mask[:, 0] = 255
    return image, mask


def draw_dataset(root: Path, *, train: int, val: int, test: int, seed: int = 3) -> Path:
    """Writes so many pairs, drawn, for each split, and returns the root."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", train), ("val", val), ("test", test)):
        for number in range(count):
            write_pair(root, split, f"{split}{number}", *draw_pair(rng))
    return root


@pytest.fixture(scope="session")
def tiny_ds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training, three validation and two test pairs of 32x32 pixels: classes 0, 1, 2, and 255 to ignore."""
    return draw_dataset(tmp_path_factory.mktemp("tiny"), train=8, val=3, test=2, seed=7)


def config_of(root: Path, **sections: Any) -> Any:
    """Returns a config of the tiny data set; `sections` change single keys: `train={"steps": 4}`."""
    from segtool.config import parse_config

    raw: dict[str, Any] = {
        "data": {
            "root": str(root),
            **{s: {"images": f"{s}/images", "masks": f"{s}/masks"} for s in ("train", "val", "test")},
            "classes": [{"name": name, "values": [value]} for value, name in enumerate(CLASSES)],
            "ignore": [255],
        },
        "model": {
            "encoder": {"name": "conv", "channels": [4, 8]},
            "decoder": {"name": "unet", "upsample": "transposed"},
        },
        "augment": {"crop": [16, 16], "scale": [0.8, 1.5], "flip": "both", "rotate": 20, "color": 0.2},
        "optim": {"lr": 0.01, "warmup": 2},
        "train": {"steps": 7, "batch_size": 3, "workers": 0, "compile": False, "precision": "fp32", "samples": 0},
    }
    for name, values in sections.items():
        raw[name] = {**raw.get(name, {}), **values} if isinstance(values, dict) else values
    return parse_config(raw)


@pytest.fixture
def make_config(tiny_ds: Path) -> Callable[..., Any]:
    """`config_of` the tiny data set, or of `root=…`."""

    def make(*, root: Path = tiny_ds, **sections: Any) -> Any:
        return config_of(root, **sections)

    return make


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A `Trainer` whose runs lie in `tmp_path`."""
    return Trainer(tmp_path, monkeypatch)


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def segtool(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command in this process, through the same entry point as the installed program."""
    from segtool import cli

    def run(*arguments: str | Path) -> Result:
        monkeypatch.setattr(sys, "argv", ["segtool", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Result(int(ended.value.code or 0), captured.out, captured.err)

    return run


def command(*arguments: str | Path) -> Result:
    """Runs a command as the fixture `segtool` does, for fixtures that outlast a test."""
    from segtool import cli

    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setattr(sys, "argv", ["segtool", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return Result(int(ended.value.code or 0), out.getvalue(), err.getvalue())


def sign(checkpoint: Path) -> None:
    """Makes a checkpoint's manifest fit its files, as whoever forges one would."""
    files = [path for path in checkpoint.iterdir() if path.name != "manifest.json"]
    sums = {f.name: {"size": f.stat().st_size, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()} for f in files}
    (checkpoint / "manifest.json").write_text(json.dumps({"format": 1, "files": sums}))


def saved_bytes(run: Callable[[], Any], own: Iterable[torch.Tensor]) -> int:
    """Returns the bytes of what autograd saves while `run` runs, without the storages of `own`."""
    known = {tensor.untyped_storage().data_ptr() for tensor in own}
    saved: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor  # which keeps the address its own
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()  # noqa: F841 -- holds the graph
    return sum(saved[key].untyped_storage().nbytes() for key in saved if key not in known)
