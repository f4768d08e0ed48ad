"""Trains one small encoder with every upsampler, with and without skips, and writes what comes of it as a table.

    python -m benchmarks.upsamplers --docs docs     # or: make upsamplers

All trainings are those of `configs/demo.yaml`, one at a time on one thread; only decoder, upsampler and seed differ.
Each result is a line of OUT/results.jsonl as soon as it is there, and a sweep that was interrupted goes on after the
last one. The extra variants come last.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import DEMO, segtool
from benchmarks.upsampler_report import publish, write_pictures, write_table
from benchmarks.upsampler_runs import logits, prediction_ms, read_pixels, thin_iou, trained, training_rate, untrained
from benchmarks.upsampler_scores import checkerboard, pattern_energy
from segtool.commands.demo import make_dataset
from segtool.config import Config, load_config, plain
from segtool.errors import SegtoolError

STEPS = 120
SEEDS = 3
SETTINGS = (
    "train.eval_every=100000",  # once, at the end: no checkpoint is chosen by its score
    "train.workers=0",  # all work on the one thread
    "train.precision=fp32",
    "train.compile=false",
    "train.samples=0",
    "train.keep=100",  # the untrained network is scored too
)
DECODERS = {"unet": "{name: unet, upsample: %s}", "fcn": "{name: fcn, skips: 0, upsample: %s}"}
UPSAMPLERS = {name: name for name in ("transposed", "nearest", "bilinear", "bed_of_nails", "max_unpool")}
EXTRAS = {f"transposed, kernel {kernel}": f"{{name: transposed, kernel: {kernel}}}" for kernel in (3, 4)}


@dataclass(frozen=True)
class Cell:
    """One training of the sweep."""

    decoder: str
    upsampler: str
    seed: int

    @property
    def name(self) -> str:
        """Of its run directory."""
        return f"{self.decoder}-{self.upsampler.replace(', kernel ', '-k')}-{self.seed}"

    def overrides(self, data: Path, steps: int) -> tuple[str, ...]:
        """What it changes in the config, as `--set` takes it."""
        decoder = DECODERS[self.decoder] % {**UPSAMPLERS, **EXTRAS}[self.upsampler]
        return (
            f"data.root={json.dumps(str(data.resolve()))}",
            f"model.decoder={decoder}",
            f"train.seed={self.seed}",
            f"train.steps={steps}",
            *SETTINGS,
        )


def cells(seeds: int) -> Iterator[Cell]:
    """Yields the sweep in its order: seed by seed, so that it may end early with a whole table of fewer seeds."""
    for names in (UPSAMPLERS, EXTRAS):
        for seed in range(seeds):
            for decoder in DECODERS:
                for name in names:
                    yield Cell(decoder, name, seed)


def sweep(out: Path, *, seeds: int, steps: int) -> None:
    """Runs what is not in OUT/results.jsonl yet.

    Raises:
        SegtoolError: what training raises; or the results there are of other settings.
    """
    results = out / "results.jsonl"
    make_dataset(out / "data")
    plan = list(cells(seeds))
    settings = fingerprint(load_config(DEMO, plan[0].overrides(out / "data", steps)))
    refuse_other_settings(results, settings)
    done = {row["name"] for row in read_results(results)}
    todo = [cell for cell in plan if cell.name not in done]
    for number, cell in enumerate(todo, start=1):
        row = {"name": cell.name, **vars(cell), "settings": settings, **measure(cell, out, steps)}
        with open(results, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(row) + "\n")
        print(
            f"[{number}/{len(todo)}] {cell.name}: mIoU {row['miou']:.4f}, thin {row['thin_iou']:.4f}, "
            f"checkerboard {row['checkerboard']:.4f}, {row['seconds']:.0f} s",
            flush=True,
        )


def measure(cell: Cell, out: Path, steps: int) -> dict[str, Any]:
    """Trains, scores and predicts the test split as the commands do, and returns what was measured."""
    began = time.monotonic()
    run, test = out / cell.name, out / "data" / "test"
    if run.exists():  # interrupted, since no result came of it: its times would not be whole
        shutil.rmtree(run)
    settings = [word for key in cell.overrides(out / "data", steps) for word in ("--set", key)]
    segtool("train", DEMO, "--run", run, *settings)
    scores = json.loads(segtool("eval", run, "--split", "test", "--json"))
    segtool("predict", run, test / "images", "--out", run / "predictions")
    images = [read_pixels(path) for path in sorted((test / "images").iterdir())]
    after, before = trained(run), untrained(run)
    return {
        "miou": scores["miou"],
        "classes": {row["name"]: row["iou"] for row in scores["classes"]},
        "thin_iou": thin_iou(test / "masks", run / "predictions"),
        "checkerboard": checkerboard([pattern_energy(logits(after, image)) for image in images]),
        "checkerboard_untrained": checkerboard([pattern_energy(logits(before, image)) for image in images]),
        "train_images_per_second": training_rate(run),
        "predict_ms": prediction_ms(after, images),
        "parameters": sum(parameter.numel() for parameter in after.model.parameters()),
        "seconds": round(time.monotonic() - began, 1),
    }


def read_results(path: Path) -> list[dict[str, Any]]:
    """Returns the rows measured so far."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def fingerprint(config: Config) -> str:
    """Returns a checksum of all that the trainings of one table share."""
    shared = plain(config)
    del shared["data"]["root"], shared["model"]["decoder"], shared["train"]["seed"]
    return hashlib.sha256(json.dumps(shared).encode()).hexdigest()[:12]


def refuse_other_settings(results: Path, settings: str) -> None:
    """Raises SegtoolError where there are results that others may not stand beside."""
    others = [row["name"] for row in read_results(results) if row["settings"] != settings]
    if others:
        raise SegtoolError(
            f"{results}: {', '.join(others)} were measured with other settings than those asked for now; give another "
            "--out, or remove that folder to measure all anew"
        )


def report(out: Path, docs: Path | None) -> None:
    """Writes table and pictures of what has been measured, in OUT, and in the documentation where DOCS is given."""
    rows = read_results(out / "results.jsonl")
    if not rows:
        raise SegtoolError(f"{out}: holds no results; leave out --report to measure them")
    text = write_table(rows, tuple(EXTRAS), out)
    print(text)
    done = {row["name"] for row in rows}
    whole = [name for name in UPSAMPLERS if all(Cell(decoder, name, 0).name in done for decoder in DECODERS)]
    pictures = write_pictures(out, tuple(DECODERS), whole) if whole else []
    if docs is not None:
        publish(text, pictures, docs)


def main(arguments: Sequence[str]) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.upsamplers", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/upsamplers"), help="folder of runs and results")
    parser.add_argument("--docs", type=Path, help="bring results.md and images/ in this folder up to date")
    parser.add_argument("--seeds", type=int, default=SEEDS, help=f"trainings of each row (default: {SEEDS})")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"steps of each training (default: {STEPS})")
    parser.add_argument("--report", action="store_true", help="only write table and pictures of what is there")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        if not options.report:
            sweep(options.out, seeds=options.seeds, steps=options.steps)
        report(options.out, options.docs)
    except SegtoolError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
