"""One image of 12000x12000 pixels: time against MONAI's sliding window, and the operating system's count of memory.

    python -m benchmarks.large_image

Both sides are processes of their own that go the whole way from PNG to PNG with the same network, untrained, of 12
classes. MONAI's window is 1024 with an overlap of 0.25 and its defaults; it holds the logits of the whole image, so the
times are compared at a size at which they fit into memory anywhere. Memory is the peak of a process that predicts one
image and nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.harness import Round, Row, Side, alternate, middle, ratios, report, serve
from benchmarks.prediction import plain_network, untrained
from segtool.commands.demo import draw_scene
from segtool.prediction.predict import build_predictor, predict
from segtool.prediction.predicted_files import list_jobs
from segtool.runs.checkpoint import load
from segtool.system.memory import keep_freed_memory

CLASSES = 12
WINDOW, WINDOW_OVERLAP = 1024, 0.25
MB = 1e6


@dataclass(frozen=True)
class Amount:
    """How much is measured."""

    channels: tuple[int, ...] = (16, 32, 64, 128)
    compared: int = 4000
    """Side in pixels of the image whose time is compared."""
    small: int = 400
    sides: tuple[int, int] = (6000, 12000)
    """Of the images whose memory is."""
    rounds: int = 2


QUICK = Amount(channels=(4, 8), compared=1100, small=64, sides=(1100, 1600), rounds=1)


def ours(checkpoint: Path, image: Path, out: Path) -> Round:
    """segtool's way, from file to file."""
    keep_freed_memory()
    found = load(checkpoint)
    predictor = build_predictor(found, torch.device("cpu"))
    jobs = list_jobs([image], out, overlays=False, probabilities=False)

    def work() -> float:
        began = time.perf_counter()
        assert list(predict(predictor, found.config, jobs)) == [jobs[0].mask]
        return time.perf_counter() - began

    return work


def monai(checkpoint: Path, image: Path, out: Path) -> Round:
    """The same network within MONAI's sliding window, Pillow before and after it."""
    from monai.inferers import sliding_window_inference

    Image.MAX_IMAGE_PIXELS = None
    model, mean, std = plain_network(checkpoint)
    out.mkdir(parents=True, exist_ok=True)

    def work() -> float:
        began = time.perf_counter()
        pixels = torch.from_numpy(np.array(Image.open(image).convert("RGB"))).permute(2, 0, 1)
        with torch.no_grad():
            images = ((pixels.float() / 255 - mean) / std)[None]
            logits = sliding_window_inference(images, (WINDOW, WINDOW), 1, model, overlap=WINDOW_OVERLAP)
        mask = logits.argmax(1)[0].byte().numpy()
        Image.fromarray(mask).save(out / f"{image.stem}.png")
        return time.perf_counter() - began

    return work


def picture(path: Path, side: int) -> Path:
    """Writes a square synthetic picture, of tiles."""
    length = min(512, side)
    scene, _ = draw_scene(0, "test", 0, height=length, width=length)
    times = -(-side // length)
    Image.fromarray(np.tile(scene, (times, times, 1))[:side, :side]).save(path, compress_level=1)
    return path


def peak(checkpoint: Path, image: Path, out: Path) -> float:
    """Returns the most MB that a process that predicts the image has resident, as Linux counts them."""
    command = [sys.executable, "-m", "benchmarks.large_image", "--side", "peak", "--checkpoint", str(checkpoint)]
    done = subprocess.run(
        [*command, "--image", str(image), "--work", str(out)], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout)


def own_peak() -> float:
    """Returns the most MB that this process has had resident; its parent's before it began do not count."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / MB


def measure(place: Path, much: Amount, note: str) -> list[Row]:
    """Measures everything in a folder."""
    checkpoint = untrained(place / "network", much.channels, classes=CLASSES)
    compared = picture(place / "compared.png", much.compared)
    command = ["benchmarks.large_image", "--checkpoint", str(checkpoint), "--image", str(compared)]
    with (
        Side(*command, "--work", str(place / "ours"), "--side", "ours") as ours,
        Side(*command, "--work", str(place / "monai"), "--side", "monai") as peer,
    ):
        mine, theirs = alternate(ours, peer, rounds=much.rounds, warmup=0)
    compared.unlink()
    peaks = {}
    for side in (much.small, *much.sides):
        print(f"memory at {side}x{side} …", file=sys.stderr)
        image = picture(place / f"{side}.png", side)
        peaks[side] = peak(checkpoint, image, place / "peak")
        image.unlink()
    return rows(much, mine, theirs, peaks, note)


def rows(much: Amount, mine: Sequence[float], theirs: Sequence[float], peaks: dict[int, float], note: str) -> list[Row]:
    network = f"U-Net {much.channels[0]}..{much.channels[-1]}, untrained. {note}".strip()
    first, last = much.sides
    held = (last**2 - first**2) * 4 / MB  # three bytes of the image and one of the mask
    figures = {f"{side}x{side}": f"{size:.0f} MB" for side, size in peaks.items()}
    return [
        Row(
            what=f"predict, one image of {much.compared}x{much.compared}, {CLASSES} classes: time",
            against=f"monai.inferers.sliding_window_inference, {WINDOW}, overlap {WINDOW_OVERLAP}",
            ratios=ratios(mine, theirs),
            target=1.0,
            at_least=False,
            figures={"segtool": f"{middle(mine):.1f} s", "MONAI": f"{middle(theirs):.1f} s"},
            note=network,
        ),
        Row(
            what=f"predict, peak memory at {last}x{last}",
            against=f"that at {much.small}x{much.small}, subtracted",
            ratios=(peaks[last] - peaks[much.small],),
            target=1500,
            at_least=False,
            unit="MB",
            figures=figures,
            note=network,
        ),
        Row(
            what=f"predict, peak memory at {last}x{last}",
            against=f"that at {first}x{first}, subtracted",
            ratios=(peaks[last] - peaks[first],),
            target=450,
            at_least=False,
            unit="MB",
            figures={"decoded image and mask grow by": f"{held:.0f} MB"},
            note=f"Large images are decoded into a temporary file, whose pages the kernel may drop. {network}",
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows; with `--side`, serves one side or measures one peak."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the pictures are synthetic, of any size")
    parser.add_argument("--quick", action="store_true", help="a trial: small images, a tiny network")
    parser.add_argument("--side", choices=("ours", "monai", "peak"), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--image", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side == "peak":
        ours(given.checkpoint, given.image, given.work)()
        print(own_peak())
    elif given.side:
        serve((ours if given.side == "ours" else monai)(given.checkpoint, given.image, given.work))
    else:
        much, note = (QUICK, "A trial of the program, not a measurement.") if given.quick else (Amount(), "")
        with tempfile.TemporaryDirectory() as folder:
            report(*measure(Path(folder), much, note))


if __name__ == "__main__":
    main()
