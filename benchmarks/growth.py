"""How time grows with the number of images, and memory with the length of a training and the size of an image.

    python -m benchmarks.growth

The network is small, since growth is looked at and not speed. Memory is the operating system's count: of a training,
process and loading processes together, looked at every quarter of a second, what they share counted once; of a
prediction, the peak.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import numpy as np

from benchmarks.harness import DEMO, Row, report, segtool
from benchmarks.large_image import picture
from segtool.commands.demo import make_dataset

Points = list[tuple[float, float]]

CHANNELS = "model.encoder.channels=[8, 16, 32, 64]"
SETTLED = 50  # steps after which a training's memory is to stay as it is
MB = 1e6
SCENE = (240, 320)  # height and width of what is predicted and scored


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    predicted: tuple[int, ...] = (30, 60, 120, 240)
    """Images."""
    scored: tuple[int, ...] = (400, 800, 1600, 3200)
    """Mask pairs."""
    steps: int = 160
    """Of the training whose memory is watched."""
    sides: tuple[int, ...] = (512, 1024, 1920, 3712, 5504)
    """Of square images in pixels; the last and the third from it give the slope: these three fall into tiles of 1024,
    where others fall into smaller ones, which take less."""
    scenes: int = 24
    """Different images; more are copies of them."""
    rounds: int = 3


QUICK = Amount(predicted=(2, 4, 6), scored=(4, 8, 12), steps=100, sides=(64, 128, 192), scenes=2, rounds=1)


def straight(points: Points) -> float:
    """Returns R², the share of the variance of y that a straight line in x explains."""
    x, y = np.array(points, float).T
    rest = y - np.polyval(np.polyfit(x, y, 1), x)
    return float(1 - rest.var() / y.var())


def fastest(work: Callable[[int], None], amounts: Sequence[int], rounds: int) -> Points:
    """Returns the seconds that each amount took, the fastest of several rounds of all of them in turn."""
    work(amounts[0])
    taken: dict[int, list[float]] = {amount: [] for amount in amounts}
    for _ in range(rounds):
        for amount in amounts:
            began = time.perf_counter()
            work(amount)
            taken[amount].append(time.perf_counter() - began)
    return [(float(amount), min(seconds)) for amount, seconds in taken.items()]


def copies(sources: Iterable[Path], folder: Path, amount: int) -> Path:
    """Makes a folder of so many files, links to the sources in turn, and returns it."""
    folder.mkdir(parents=True)
    for number, source in enumerate(islice(cycle(sources), amount)):
        os.link(source, folder / f"{number:05d}.png")
    return folder


def time_of_predict(run: Path, images: Sequence[Path], place: Path, much: Amount) -> Points:
    """Returns seconds against images."""
    folders = {amount: copies(images, place / f"images-{amount}", amount) for amount in much.predicted}

    def work(amount: int) -> None:
        shutil.rmtree(place / "made", ignore_errors=True)
        segtool("predict", run, folders[amount], "--out", place / "made")

    return fastest(work, much.predicted, much.rounds)


def time_of_scoring(config: Path, masks: Sequence[Path], place: Path, much: Amount) -> Points:
    """Returns seconds against mask pairs; predictions are the masks of other images."""
    for amount in much.scored:
        copies(masks, place / f"truth-{amount}", amount)
        copies([*masks[1:], masks[0]], place / f"made-{amount}", amount)

    def work(amount: int) -> None:
        paths = "--predictions", place / f"made-{amount}", "--masks", place / f"truth-{amount}", "--config", config
        command = [sys.executable, "-m", "segtool", "eval", *map(str, paths), "--json"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    return fastest(work, much.scored, much.rounds)


def memory_of_training(run: Path, data: Path, steps: int) -> Points:
    """Returns the largest resident MB seen at each step that the run's log tells; it is written every so many."""
    keys = (f"data.root={data}", CHANNELS, f"train.steps={steps}", "train.eval_every=1", "train.samples=1")
    settings = [word for key in keys for word in ("--set", key)]
    command = [sys.executable, "-m", "segtool", "train", str(DEMO), "--run", str(run), *settings]
    largest: dict[int, int] = {}
    with subprocess.Popen([*command, "--device", "cpu", "--quiet"]) as process:
        while process.poll() is None:
            step = steps_done(run / "metrics.jsonl")
            largest[step] = max(largest.get(step, 0), resident(process.pid))
            time.sleep(0.25)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
    return [(float(step), size / MB) for step, size in largest.items()]


def steps_done(log: Path) -> int:
    """Returns the step of the last whole line of a run's log, 0 where there is none."""
    text = log.read_text(encoding="utf-8") if log.is_file() else ""
    lines = text[: text.rfind("\n") + 1].splitlines()
    return json.loads(lines[-1])["step"] if lines else 0


def resident(process: int) -> int:
    """Returns the resident bytes of a process and its children, shared pages divided by who share them.

    0 where it has ended.
    """
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return 0
    kilobytes = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return 1024 * kilobytes + sum(resident(int(child)) for child in children)


def memory_of_predict(run: Path, place: Path, sides: Sequence[int]) -> Points:
    """Returns the peak of resident MB against megapixels of one image."""
    points = []
    for side in sides:
        path = picture(place / f"{side}.png", side)
        out = place / f"out-{side}"
        command = [sys.executable, "-m", "segtool", "predict", str(run), str(path), "--out", str(out), "--quiet"]
        process = subprocess.Popen([*command, "--device", "cpu"])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)}: exit code {process.returncode}")
        points.append((side * side / 1e6, usage.ru_maxrss * 1024 / MB))
        path.unlink()
    return points


def measure(place: Path, much: Amount) -> list[Row]:
    """Measures everything in a folder."""
    make_dataset(place / "data", sizes={"train": 160, "val": 4, "test": 4})
    make_dataset(place / "scenes", sizes={"test": much.scenes}, height=SCENE[0], width=SCENE[1])
    images, masks = (sorted((place / "scenes" / "test" / kind).iterdir()) for kind in ("images", "masks"))
    run = place / "run"
    say("memory of a training …")
    rss = memory_of_training(run, place / "data", much.steps)
    say("time of predict …")
    predicting = time_of_predict(run, images, place / "predict", much)
    say("time of scoring …")
    scoring = time_of_scoring(run / "config.yaml", masks, place / "score", much)
    say("memory of predict …")
    peak = memory_of_predict(run, place, much.sides)
    return [
        time_row("predict", "images", predicting, "Start-up is left out: its process has begun already."),
        time_row("eval --predictions", "mask pairs", scoring, "Each is the whole command, with its start-up."),
        training_row(rss, much.steps),
        size_row(peak),
    ]


def time_row(command: str, things: str, points: Points, note: str) -> Row:
    return Row(
        what=f"time of segtool {command} against {things}",
        against="a straight line (R²)",
        ratios=(straight(points),),
        target=0.99,
        at_least=True,
        figures={f"{things}: s": ", ".join(f"{x:.0f}: {y:.2f}" for x, y in points)},
        note=f"{SCENE[0]}x{SCENE[1]} pixels; the fastest of the rounds counts. {note}",
        axes=(things, "seconds"),
        points=tuple(points),
    )


def training_row(points: Points, steps: int) -> Row:
    """Returns what the second half of a training takes more than the first, from where it has settled."""
    middle = (SETTLED + steps) / 2
    early = max(size for step, size in points if SETTLED <= step <= middle)
    late = max(size for step, size in points if step > middle)
    return Row(
        what=f"memory of segtool train, from step {middle:.0f} to {steps}",
        against=f"that from step {SETTLED} to {middle:.0f}",
        ratios=(late - early,),
        target=20,
        at_least=False,
        unit="MB more",
        figures={"before": f"{early:.0f} MB", "after": f"{late:.0f} MB"},
        note="The largest of each half, validations, checkpoints and samples included. The target is ours: what an "
        "interpreter may gather in a run of this length.",
        axes=("steps", "MB resident"),
        points=tuple(points),
    )


def size_row(points: Points) -> Row:
    (small, low), (large, high) = points[-3], points[-1]
    return Row(
        what=f"memory of segtool predict, slope from {small:.0f} to {large:.0f} megapixels",
        against="the image and its mask, 4 bytes a pixel",
        ratios=((high - low) / (large - small),),
        target=4.2,
        at_least=False,
        unit="bytes a pixel",
        figures={"megapixels: MB": ", ".join(f"{x:.1f}: {y:.0f}" for x, y in points)},
        note="Peak of the process, which ends after one image. The target is that of the large image: 0.45 GB for "
        "108 megapixels.",
        axes=("megapixels of the image", "MB resident at the peak"),
        points=tuple(points),
    )


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the data set is made up")
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way on a few small images")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report(*measure(Path(folder), QUICK if options.quick else Amount()))


if __name__ == "__main__":
    main()
