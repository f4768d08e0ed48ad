"""`segtool train`, epoch for epoch, against its own bare training step.

    python -m benchmarks.whole_training --data data/camvid

The whole is the command as a user gives it, in a process of its own: loading, augmentation, logs, progress, and once
an epoch a validation of two images, their samples and a checkpoint. An epoch's time is what the run writes into
timing.jsonl. The second one counts, as most epochs of a training are: the first decodes the images, which are kept in
memory from there on (`train.cache`), and is told beside it, from its 20th step on. The bare step is `train_step` on one
batch that lies ready in memory, in another process, which waits meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.harness import Round, Row, Side, alternate, middle, ratios, report, serve
from segtool.commands.demo import make_dataset
from segtool.config import Config, load_config
from segtool.data.dataset import TrainingSet
from segtool.data.formats import split_records
from segtool.data.loader import training_batches
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.statistics import class_frequencies, resolve_data
from segtool.system.distributed import World
from segtool.system.memory import keep_freed_memory
from segtool.system.threads import SPINS
from segtool.training.plan import Plan, make_plan
from segtool.training.training_log import FLUSH_STEPS
from segtool.training.training_step import build_training, train_step

CONFIGS = Path(__file__).parent.parent / "configs"
BATCH = 4
WARM_UP = 3  # bare steps before those that are timed


@dataclass(frozen=True)
class Size:
    """How much is trained in each round."""

    images: int
    """Training images: an epoch."""
    bare_steps: int
    """Steps on the one batch."""
    rounds: int
    pictures: tuple[int, int] = (360, 480)
    """Height and width of synthetic ones."""
    settings: tuple[str, ...] = ()
    """Of the config, as for `--set`."""


FULL = Size(images=120, bare_steps=15, rounds=3)
QUICK = Size(
    20, bare_steps=2, rounds=1, pictures=(48, 64), settings=("model.encoder.channels=[4, 8]", "augment.crop=[32, 48]")
)


def settings(size: Size, data: Path) -> list[str]:
    """Returns what the config is overridden with."""
    words = [f"data.root={data}", f"train.steps={2 * size.images // BATCH}", f"train.batch_size={BATCH}"]
    return [*words, "train.eval_every=1", "train.samples=2", *size.settings]


def whole(config: Path, size: Size, data: Path, out: Path, first: list[float]) -> Round:
    """The command; returns the seconds of its second epoch, and appends those of as many steps of the first one."""

    def train() -> float:
        shutil.rmtree(out, ignore_errors=True)
        overrides = (word for setting in settings(size, data) for word in ("--set", setting))
        command = [sys.executable, "-m", "segtool", "train", str(config), "--run", str(out), "--device", "cpu"]
        subprocess.run([*command, *overrides], check=True, stderr=subprocess.DEVNULL)
        steps, log = size.images // BATCH, out / "timing.jsonl"
        begun = FLUSH_STEPS if steps > FLUSH_STEPS else 0
        first.append(seconds_between(log, begun, steps) * steps / (steps - begun))
        return seconds_between(log, steps, 2 * steps)

    return train


def seconds_between(timing: Path, first: int, last: int) -> float:
    """Returns the seconds from one step to another, each 0 or with a row in a run's log.

    Where a validation after a step is a row of its own, it is left out.
    """
    rows = [json.loads(line) for line in timing.read_text().splitlines()]
    steps = [row["step"] for row in rows]
    start = len(steps) - steps[::-1].index(first) if first else 0
    return sum(row["seconds"] for row in rows[start : steps.index(last) + 1])


def resolved(config: Path, size: Size, data: Path) -> tuple[Config, Plan, list[Record]]:
    """Returns config, plan and training images as the command has them."""
    loaded = load_config(config, settings(size, data))
    records = split_records(loaded, config.parent)["train"]
    loaded = resolve_data(loaded, records)
    first = Reader.of(loaded).pair(records[0])[0]
    device = torch.device("cpu")
    return *make_plan(loaded, images=len(records), first_size=first.shape[:2], device=device), records


def bare(config: Path, size: Size, data: Path) -> Round:
    """The step on one batch; returns the seconds of as many as an epoch of the command has."""
    keep_freed_memory()
    found, plan, records = resolved(config, size, data)
    frequencies = class_frequencies(found, records)
    training = build_training(found, frequencies, torch.device("cpu"), World())
    if found.train.compile:
        training.model.compile()
    dataset = TrainingSet(records, Reader.of(found), found.augment, plan.crop, found.train.seed, frequencies)
    batch = next(training_batches(dataset, World(), batch_size=BATCH, start=0, steps=1, workers=0))
    number = 0

    def step() -> None:
        nonlocal number
        train_step(training, batch, number, 1e-4, records)
        number += 1

    for _ in range(WARM_UP):
        step()

    def epoch() -> float:
        began = time.perf_counter()
        for _ in range(size.bare_steps):
            step()
        return (time.perf_counter() - began) * (size.images // BATCH) / size.bare_steps

    return epoch


def prepare(data: Path, size: Size, out: Path) -> tuple[Path, str]:
    """Makes a data set of so many training and two validation images in OUT; returns the config for it, and what the
    pictures are."""
    if not (data / "train" / "images").is_dir():
        height, width = size.pictures
        make_dataset(out, sizes={"train": size.images, "val": 2, "test": 1}, height=height, width=width)
        config = out.parent / "synthetic.yaml"
        text = (CONFIGS / "demo.yaml").read_text().replace("[96, 128]", "[288, 384]")
        config.write_text(text.replace("[16, 32, 64, 128]", "[8, 16, 48, 96, 192, 256]"))
        return config, f"synthetic pictures of {width}x{height}, since {data} is not there"
    for split, count in (("train", size.images), ("val", 2), ("test", 1)):
        for folder in ("images", "masks"):
            target = out / split / folder
            target.mkdir(parents=True)
            for path in sorted((data / split / folder).iterdir())[:count]:
                shutil.copyfile(path, target / path.name)
    return CONFIGS / "camvid-unet.yaml", f"{size.images} images of CamVid"


def measure(data: Path, *, quick: bool, out: Path) -> Row:
    """Runs both and returns the row."""
    size = QUICK if quick else FULL
    config, pictures = prepare(data, size, out / "data")
    words = ("--bare", str(config), "--data", str(out / "data"), *(["--quick"] if quick else []))
    with Side("benchmarks.whole_training", *words, GOMP_SPINCOUNT=SPINS) as step:
        first: list[float] = []
        command = whole(config, size, out / "data", out / "run", first)
        epochs, steps = alternate(command, step, rounds=size.rounds, warmup=0)
    return Row(
        "whole `segtool train`, per epoch, CamVid",
        "its own bare training step",
        ratios(steps, epochs),
        target=0.95,
        at_least=True,
        figures={
            "the second epoch of the command": f"{middle(epochs):.2f} s",
            "its first, which decodes the images": f"{middle(first):.2f} s",
            "as many bare steps": f"{middle(steps):.2f} s",
            "images of an epoch": str(size.images),
        },
        note=f"{pictures}; a checkpoint and a validation of two images an epoch are included, start-up is not.",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/camvid"), help="CamVid, as data/README.md puts it")
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way")
    parser.add_argument("--bare", type=Path, metavar="CONFIG", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    data = options.data.resolve()
    if options.bare:
        serve(bare(options.bare, QUICK if options.quick else FULL, data))
        return
    with tempfile.TemporaryDirectory(prefix="segtool-") as out:
        report(measure(data, quick=options.quick, out=Path(out).resolve()))


if __name__ == "__main__":
    main()
