"""Scoring a folder of masks: against decoding them alone, and against torchmetrics.

    python -m benchmarks.scoring [--data data/camvid]

The truth is CamVid's masks, repeated; a prediction is its mask shifted by a few pixels, so that its contours are as
long. Decoding alone is Pillow's, in a forked process for each core, which is faster than in threads. Against it stands
the whole command, from the start of Python to the table; the other program has its start, with Pillow and NumPy, too.
torchmetrics is the loop of its documentation: a matrix, updated with each pair.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import Round, Row, Side, alternate, middle, ratios, report, serve
from segtool.config import load_config
from segtool.scoring.score import score_folders

CLASSES, IGNORED = 11, 11
HEIGHT, WIDTH = 360, 480


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    pairs: int = 2000
    torchmetrics: int = 400
    """Pairs that torchmetrics scores in a round."""
    rounds: int = 5


QUICK = Amount(pairs=12, torchmetrics=4, rounds=1)


def truths(data: Path) -> Iterator[np.ndarray]:
    """Yields CamVid's masks, or synthetic ones of their size where there are none, over and over."""
    files = sorted(data.glob("*/masks/*.png"))
    if files:
        for file in cycle(files):
            yield np.asarray(Image.open(file))
    from segtool.commands.demo import draw_scene

    yield from cycle(draw_scene(0, "test", index, height=HEIGHT, width=WIDTH)[1] for index in range(20))


def write_pairs(data: Path, place: Path, pairs: int) -> None:
    """Writes `place/truth`, `place/made` and the config that says what their values mean."""
    rng = np.random.default_rng(0)
    for folder in ("truth", "made"):
        (place / folder).mkdir()
    for number, truth in enumerate(islice(truths(data), pairs)):
        made = np.roll(truth, tuple(rng.integers(-6, 7, 2)), (0, 1))
        made = np.where(made == IGNORED, 1, made).astype(np.uint8)
        Image.fromarray(truth).save(place / "truth" / f"{number:05}.png")
        Image.fromarray(made).save(place / "made" / f"{number:05}.png")
    classes = "".join(f"    - {{name: class {value}, values: [{value}]}}\n" for value in range(CLASSES))
    (place / "config.yaml").write_text(f"data:\n  classes:\n{classes}  ignore: [{IGNORED}]\n")


def program(*command: str) -> Round:
    """Returns a round that runs a program from its start to its end."""

    def work() -> float:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began

    return work


def ours(place: Path) -> Round:
    """Scores the folders, without the start of a program."""
    config = load_config(place / "config.yaml")

    def work() -> float:
        began = time.perf_counter()
        score_folders(config, place / "made", place / "truth", Path())
        return time.perf_counter() - began

    return work


def torchmetrics(place: Path, pairs: int) -> Round:
    """The plain loop; returns the seconds that `pairs` of the pairs take."""
    import torch
    from torchmetrics.classification import MulticlassConfusionMatrix

    names = [path.name for path in sorted((place / "truth").iterdir())[:pairs]]

    def read(path: Path) -> torch.Tensor:
        with Image.open(path) as image:
            return torch.from_numpy(np.array(image))

    def work() -> float:
        began = time.perf_counter()
        metric = MulticlassConfusionMatrix(CLASSES, ignore_index=IGNORED)
        for name in names:
            metric.update(read(place / "made" / name)[None], read(place / "truth" / name)[None].long())
        assert metric.compute().sum() > 0
        return time.perf_counter() - began

    return work


def measure(place: Path, much: Amount, note: str) -> list[Row]:
    """Measures everything in the folder that holds the pairs."""
    masks = ["--predictions", str(place / "made"), "--masks", str(place / "truth")]
    command = program("segtool", "eval", *masks, "--config", str(place / "config.yaml"), "--json")
    alone = program("benchmarks.pillow_decoding", str(place / "made"), str(place / "truth"))
    whole, decoding = alternate(command, alone, rounds=much.rounds)
    print("against torchmetrics …", file=sys.stderr)
    words = ["benchmarks.scoring", "--place", str(place), "--pairs", str(much.torchmetrics), "--side"]
    with Side(*words, "ours") as mine, Side(*words, "torchmetrics") as peer:
        scoring, loop = alternate(mine, peer, rounds=much.rounds)
    return rows(much, whole, decoding, scoring, loop, note)


def rows(
    much: Amount,
    whole: Sequence[float],
    decoding: Sequence[float],
    scoring: Sequence[float],
    loop: Sequence[float],
    note: str,
) -> list[Row]:
    rates = [much.pairs / seconds for seconds in scoring], [much.torchmetrics / seconds for seconds in loop]
    return [
        Row(
            what=f"eval --predictions, {much.pairs:,} pairs of masks: the command from start to end",
            against="a program that decodes them alone, with Pillow on all cores",
            ratios=ratios(whole, decoding),
            target=1.3,
            at_least=False,
            figures={
                "command": f"{middle(whole):.2f} s",
                "decoding": f"{middle(decoding):.2f} s",
                "scoring alone": f"{middle(scoring):.2f} s",
            },
            note=note,
        ),
        Row(
            what=f"scoring {much.pairs:,} pairs of masks, without the start",
            against="torchmetrics, MulticlassConfusionMatrix in a plain loop",
            ratios=ratios(*rates),
            target=5.0,
            at_least=True,
            figures={"segtool": f"{middle(rates[0]):.0f} pairs/s", "torchmetrics": f"{middle(rates[1]):.0f} pairs/s"},
            note=note,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/camvid"))
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way")
    parser.add_argument("--side", choices=("ours", "torchmetrics"), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--pairs", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        serve(ours(given.place) if given.side == "ours" else torchmetrics(given.place, given.pairs))
        return
    much = QUICK if given.quick else Amount()
    note = "" if any(given.data.glob("*/masks/*.png")) else "Synthetic masks of CamVid's size."
    with tempfile.TemporaryDirectory() as folder:
        print(f"writing {much.pairs} pairs …", file=sys.stderr)
        write_pairs(given.data, Path(folder), much.pairs)
        report(*measure(Path(folder), much, note))


if __name__ == "__main__":
    main()
