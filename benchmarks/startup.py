"""What a command costs before it does anything: `segtool --help`, and predicting one small image.

    python -m benchmarks.startup

The processor's seconds of a program are those that the operating system has counted for it, user and system, on all
cores. The network is a small U-Net, untrained, and the image has 96x128 pixels.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from benchmarks.harness import Round, Row, alternate, middle, report
from benchmarks.prediction import untrained
from segtool.commands.demo import draw_scene

CHANNELS = (16, 32, 64, 128)
CLASSES = 12
ROUNDS = 7


def program(*arguments: str) -> Round:
    """Returns a round that runs Python with these arguments and gives the processor's seconds."""

    def work() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    return work


def measure(place: Path, rounds: int) -> list[Row]:
    """Measures everything; writes network, image and mask into a folder."""
    checkpoint = untrained(place / "network", CHANNELS, classes=CLASSES)
    image = place / "image.png"
    Image.fromarray(draw_scene(0, "test", 0)[0]).save(image)
    predicting = program("-m", "segtool", "predict", str(checkpoint), str(image), "--out", str(place / "masks"))
    warmup = min(1, rounds - 1)  # a trial measures nothing, and has none
    shown, bare = alternate(program("-m", "segtool", "--help"), program("-c", "pass"), rounds=rounds, warmup=warmup)
    predicted, imported = alternate(predicting, program("-c", "import torch"), rounds=rounds, warmup=warmup)
    return rows(shown, bare, predicted, imported)


def rows(
    shown: Sequence[float], bare: Sequence[float], predicted: Sequence[float], imported: Sequence[float]
) -> list[Row]:
    return [
        Row(
            what="segtool --help: seconds of one core",
            against="none",
            ratios=tuple(shown),
            target=0.3,
            at_least=False,
            figures={"python -c pass": f"{middle(bare):.2f} s"},
            unit="s",
        ),
        Row(
            what="segtool predict, one small image: seconds of one core more",
            against='python -c "import torch"',
            ratios=tuple(whole - torch for whole, torch in zip(predicted, imported, strict=True)),
            target=1.5,
            at_least=False,
            figures={"segtool predict": f"{middle(predicted):.2f} s", "import torch": f"{middle(imported):.2f} s"},
            unit="s",
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the image is synthetic")
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(*measure(Path(folder), 1 if given.quick else ROUNDS))


if __name__ == "__main__":
    main()
