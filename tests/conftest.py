"""What several test files share: a tiny data set, configs for it, and trainings of a second."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

CLASSES = ("ground", "block", "ring")
COLORS = np.array([[60, 60, 60], [200, 90, 30], [40, 120, 220]])


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Keeps torch to one thread: sums come in one order, and the machine is left to others."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def unsynced() -> Iterator[None]:
    """Waits for no disk in this process, which takes 10 ms a file: here no power is lost."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda _: None)
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
    from segtool import predict, train

    with pytest.MonkeyPatch.context() as patch:
        for module in (predict, train):
            patch.setattr(module, "fast_dtype", lambda _: torch.float32)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_preflight() -> Iterator[Callable[..., Any]]:
    """Leaves the preflight of trainings in this process out, which takes longer than most of them; returns it."""
    from segtool import session

    preflight = session._preflight
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_preflight", lambda *_: None)
        yield preflight


@pytest.fixture(autouse=True)
def preflight_where_marked(request: pytest.FixtureRequest, without_preflight: Callable[..., Any]) -> Iterator[None]:
    """Has the tests that are marked with `@pytest.mark.preflight` train with it."""
    from segtool import session

    with pytest.MonkeyPatch.context() as patch:
        if "preflight" in request.keywords:
            patch.setattr(session, "_preflight", without_preflight)
        yield


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Takes back what the command line, run in this process, does at signals: pytest has its own."""
    from segtool.signals import STOPPING, _late

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


def age(path: Path, seconds: float = 3600) -> None:
    """Makes a file one that was changed some time ago, at no whole second."""
    moment = time.time_ns() - int(seconds * 1e9) + 7
    os.utime(path, ns=(moment, moment))


def random_image(size: tuple[int, int], dtype: type = np.uint8, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Returns noise, H W C; as float32 it lies between the whole numbers."""
    image = np.random.default_rng(seed).integers(256, size=(*size, channels), dtype=np.uint8)
    return image if dtype is np.uint8 else (image / np.float32(1.7)).astype(np.float32)


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


@pytest.fixture(scope="session")
def tiny_ds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training, three validation and two test pairs of 32x32 pixels: classes 0, 1, 2, and 255 to ignore."""
    root = tmp_path_factory.mktemp("tiny")
    rng = np.random.default_rng(7)
    for split, count in (("train", 8), ("val", 3), ("test", 2)):
        for number in range(count):
            write_pair(root, split, f"{split}{number}", *draw_pair(rng))
    return root


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


@dataclass(frozen=True)
class Trained:
    """What a training left."""

    directory: Path
    progress: Any
    final: Any
    """The last checkpoint."""
    said: tuple[str, ...]

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "metrics.jsonl").read_text().splitlines()]


class Trainer:
    """Runs `train` in this process, as the session of `segtool train` does."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory
        self.monkeypatch = monkeypatch

    def __call__(
        self,
        name: str,
        config: Any,
        *,
        resume: bool = False,
        stop_after: int | None = None,
        change: Callable[[Any], Any] = lambda checkpoint: checkpoint,
        device: str = "cpu",
    ) -> Trained:
        """Trains in the run directory `name`.

        Args:
            resume: Go on from the last checkpoint, `change`d.
            stop_after: A SIGTERM comes within the step of this number, from 1.
        """
        from segtool import checkpoint, signals, train, training_step
        from segtool.data.formats import split_records
        from segtool.data.statistics import resolve_data
        from segtool.distributed import World
        from segtool.errors import Interrupted
        from segtool.plan import Prepared, make_plan
        from segtool.runs import Run

        records = split_records(config, Path("/"))
        config = resolve_data(config, records["train"])
        where = torch.device(device)
        config, plan = make_plan(config, images=len(records["train"]), first_size=(32, 32), device=where)
        reporter, step = _Reporter(), training_step.train_step

        def stopped_step(training: Any, batch: Any, number: int, *rest: Any) -> Any:
            if number + 1 == stop_after:
                signal.raise_signal(signal.SIGTERM)
            return step(training, batch, number, *rest)

        run = Run(self.directory / name)
        try:
            run.write_config(config)
            resumed = change(checkpoint.last(run.checkpoints, warn=reporter.warn)) if resume else None
            if resumed:
                run.drop_after(resumed.progress.step)
            progress = None
            with self.monkeypatch.context() as patch:
                patch.setattr(training_step, "train_step", stopped_step)
                patch.setattr(signals, "os", SilentOs)
                try:
                    work = Prepared(config, plan, records, None, World(), where)
                    progress = train.train(work, run, reporter=reporter, resumed=resumed)
                except Interrupted:
                    if stop_after is None:
                        raise
            return Trained(run.directory, progress, checkpoint.last(run.checkpoints), tuple(reporter.said))
        finally:
            run.close()


class SilentOs:
    """Stands for `os` in `signals`, whose handler of signals writes to the terminal and ends the process."""

    environ: ClassVar[dict[str, str]] = {}
    written: ClassVar[list[bytes]] = []

    @classmethod
    def write(cls, _descriptor: int, text: bytes) -> None:
        cls.written.append(text)

    @staticmethod
    def _exit(code: int) -> None:
        raise AssertionError(f"the process was ended at once, with {code}")


class _Reporter:
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def warn(self, text: str) -> None:
        self.said.append(f"warning: {text}")

    def step(self, text: str, *, done: int, total: int) -> None:
        pass

    def track(self, items: Any, *, total: int, unit: str, label: str) -> Any:
        return iter(items)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trainer:
    """A `Trainer` whose runs lie in `tmp_path`."""
    return Trainer(tmp_path, monkeypatch)


@dataclass(frozen=True)
class Result:
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
