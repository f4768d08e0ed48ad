"""Whether the fast settings cost quality: trainings on the synthetic data set, with them and without, three seeds each.

    python -m benchmarks.quality

`train.precision` and `train.compile` are once what `auto` chooses for a long run on this machine, else fp32 and false;
all else is equal. A run this short would not repay a compilation, so `auto` itself would leave it out.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.harness import DEMO, Row, report, segtool
from segtool.commands.demo import make_dataset
from segtool.config import load_config
from segtool.data.formats import split_records
from segtool.data.statistics import resolve_data
from segtool.training.plan import make_plan

SEEDS, STEPS = (0, 1, 2), 120
SETTINGS = ("train.eval_every=1000", "train.samples=0")
"""Of both sides: scored at the end only."""
LONG = 100_000  # steps for which `auto` chooses, so that whatever it would ever use is tried
SIDES = ("auto", "plain")
SMALL = {"train": 4, "val": 2, "test": 2}


def chosen(data: Path) -> tuple[str, bool]:
    """Returns precision and compilation as `auto` chooses them for a long run."""
    config = load_config(DEMO, (f"data.root={data}", f"train.steps={LONG}"))
    records = split_records(config, Path("/"))["train"]
    config = resolve_data(config, records)
    config, _ = make_plan(config, images=len(records), first_size=(96, 128), device=torch.device("cpu"))
    return config.train.precision, bool(config.train.compile)


def train(run: Path, data: Path, *, seed: int, steps: int, settings: Sequence[str]) -> dict[str, float]:
    """Trains and returns the mean IoU of the last weights on val and test."""
    keys = (f"data.root={data}", f"train.seed={seed}", f"train.steps={steps}", *SETTINGS, *settings)
    segtool("train", DEMO, "--run", run, *(word for key in keys for word in ("--set", key)))
    last = max((run / "checkpoints").glob("step-*"))
    return {split: json.loads(segtool("eval", last, "--split", split, "--json"))["miou"] for split in ("val", "test")}


def weights(run: Path) -> list[bytes]:
    """Returns the tensors of the last checkpoint as they lie on disk."""
    last = max((run / "checkpoints").glob("step-*"))
    return [path.read_bytes() for path in sorted(last.glob("*.safetensors"))]


def measure(out: Path, *, seeds: Sequence[int], steps: int, quick: bool) -> list[Row]:
    """Trains everything in OUT and returns one row a split."""
    data = out / "data"
    make_dataset(data, **({"sizes": SMALL} if quick else {}))
    precision, compiled = chosen(data)
    settings = {
        "auto": (f"train.precision={precision}", f"train.compile={str(compiled).lower()}"),
        "plain": ("train.precision=fp32", "train.compile=false"),
    }
    scores: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for seed in seeds:
        for side in SIDES:
            run = out / f"{side}-{seed}"
            scores[side].append(train(run, data, seed=seed, steps=steps, settings=settings[side]))
            print(f"{side}, seed {seed}: test mIoU {100 * scores[side][-1]['test']:.2f}", file=sys.stderr, flush=True)
    same = settings["auto"] == settings["plain"]
    equal = all(weights(out / f"auto-{seed}") == weights(out / f"plain-{seed}") for seed in seeds)
    how = f"{precision}{', compiled' if compiled else ''}"
    note = (
        "Here `auto` is fp32 without compilation, so both sides are the same arithmetic, and the row shows only that "
        f"a training can be repeated: the weights of all seeds are {'' if equal else 'NOT '}equal bit by bit."
        if same
        else "One machine and one short training; the spread of three seeds is itself a rough measure."
    )
    return [row_of(split, scores, how=how, note=note, steps=steps) for split in ("val", "test")]


def row_of(split: str, scores: dict[str, list[dict[str, float]]], *, how: str, note: str, steps: int) -> Row:
    """Returns the difference of the means as a share of the spread of the plain trainings."""
    values = {side: [score[split] for score in scores[side]] for side in SIDES}
    fast, slow = (sum(values[side]) / len(values[side]) for side in SIDES)
    spread = max(values["plain"]) - min(values["plain"])
    difference = abs(fast - slow)
    ratio = difference / spread if spread else (0.0 if difference == 0 else float("inf"))
    return Row(
        what=f"{split} mIoU after {steps} steps on the synthetic set, {how}: difference of means",
        against="seed-to-seed spread (largest minus smallest) of fp32 without compilation",
        ratios=(ratio,),
        target=1.0,
        at_least=False,
        figures={side: ", ".join(f"{100 * value:.2f} %" for value in values[side]) for side in SIDES},
        note=note,
        needs="bf16",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the data set is made up")
    parser.add_argument("--quick", action="store_true", help="one seed, two steps, eight images")
    options = parser.parse_args(arguments)
    seeds, steps = ((0,), 2) if options.quick else (SEEDS, STEPS)
    with tempfile.TemporaryDirectory() as folder:
        report(*measure(Path(folder), seeds=seeds, steps=steps, quick=options.quick))


if __name__ == "__main__":
    main()
