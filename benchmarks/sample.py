"""Making training samples, on one core: decoding, augmenting, normalising and collating, against albumentations and
against decoding alone.

    python -m benchmarks.sample [--data DIR] [--quick]

Both sides crop and scale (0.5 to 2), mirror, and change brightness, contrast and saturation; a second time they rotate
by up to 10 degrees too. Images of CamVid, 480x360, give crops of 352x480 in batches of four.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.harness import Row, Side, alternate, middle, ratios, report, serve

CROP = (352, 480)
BATCH = 4
MEAN, STD = (0.41, 0.43, 0.43), (0.30, 0.31, 0.30)
CLASSES = 12
ROTATIONS = (0, 10)


def main() -> None:
    """Measures, and prints the rows; with `--side` it is one of the sides."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/camvid"))
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--rotate", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, default=40, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        serve(timed(SIDES[options.side](list(pairs(options.data))[: options.count], options.rotate), options.count))
        return
    count, rounds = (BATCH, 1) if options.quick else (40, 9)
    if (options.data / "train").is_dir():
        report(*measure(options.data, count, rounds, ""))
        return
    from segtool.commands.demo import make_dataset

    with tempfile.TemporaryDirectory() as folder:
        print("no CamVid there: synthetic images of its size are made", file=sys.stderr)
        make_dataset(Path(folder), sizes={"train": BATCH if options.quick else 16}, height=360, width=480)
        report(
            *measure(Path(folder), count, rounds, "Synthetic images of CamVid's size, which decode in another time.")
        )


def measure(data: Path, count: int, rounds: int, note: str) -> Iterator[Row]:
    """Yields the rows: against albumentations for each rotation, then against decoding alone."""
    against_decoding = []
    for rotate in ROTATIONS:
        what = "crop, scale, flip, colours" + (", rotation" if rotate else "")
        with (
            side("ours", data, count, rotate) as ours,
            side("albumentations", data, count, rotate) as peer,
            side("decoding", data, count, rotate) as decoding,
        ):
            decoded = []
            taken, theirs = alternate(ours, lambda: (decoded.append(decoding()), peer())[1], rounds=rounds)  # noqa: B023
        decoded = decoded[-rounds:]
        figures = {
            "ours": f"{1e3 * middle(taken):.1f} ms a sample",
            "albumentations": f"{1e3 * middle(theirs):.1f} ms",
            "decoding alone": f"{1e3 * middle(decoded):.1f} ms",
        }
        print(f"{what}: {figures}", file=sys.stderr)
        yield Row(
            what=f"rate of samples on one core: {what}",
            against="albumentations, the same operations",
            ratios=ratios(theirs, taken),
            target=0.95,
            at_least=True,
            figures=figures,
            note=f"OpenCV decodes and resamples for albumentations; it is no dependency of segtool. {note}".strip(),
        )
        against_decoding.append(
            Row(
                what=f"time of a sample on one core: {what}",
                against="decoding image and mask with Pillow",
                ratios=ratios(taken, decoded),
                target=2.2 if rotate else 1.8,
                at_least=False,
                figures=figures,
                note=note,
            )
        )
    yield from against_decoding


def side(name: str, data: Path, count: int, rotate: int) -> Side:
    """Returns a side in a process of its own, with one thread."""
    command = ("benchmarks.sample", "--side", name, "--data", str(data), "--count", str(count), "--rotate", str(rotate))
    return Side(*command, OMP_NUM_THREADS="1")


def pairs(data: Path) -> Iterator[tuple[Path, Path]]:
    """Yields image and mask of the training split over and over, in the order of their names."""
    images = sorted((data / "train" / "images").iterdir())
    for _ in range(1000):
        for image in images:
            yield image, data / "train" / "masks" / image.name


def timed(make: Callable[[], None], count: int) -> Callable[[], float]:
    """Returns a round: seconds of processor time for each sample."""

    def work() -> float:
        began = time.process_time()
        make()
        return (time.process_time() - began) / count

    return work


def build_ours(files: list[tuple[Path, Path]], rotate: int) -> Callable[[], None]:
    """Returns what makes the samples as a loading process of `segtool train` does, and normalises the batches."""
    from segtool.config import Augment, ClassSpec, Config, Data
    from segtool.data.dataset import TrainingSet
    from segtool.data.loader import collate
    from segtool.data.pairs import Record
    from segtool.data.reader import Reader
    from segtool.prediction.inference import Normalize
    from segtool.system.memory import keep_freed_memory

    keep_freed_memory()
    classes = tuple(ClassSpec(f"class {value}", values=(value,)) for value in range(CLASSES))
    augment = Augment(scale=(0.5, 2.0), flip="horizontal", color=0.3, rotate=rotate)
    records = [Record(image, mask, image.stem) for image, mask in files]
    dataset = TrainingSet(records, Reader.of(Config(data=Data(classes=classes))), augment, CROP, 0)
    normalize = Normalize(MEAN, STD)
    epochs = iter(range(10**9))

    def make() -> None:
        epoch = next(epochs)
        for start in range(0, len(records), BATCH):
            batch = collate([dataset[epoch, number] for number in range(start, start + BATCH)])
            assert not isinstance(batch, Exception)
            normalize(batch.image)

    return make


def build_peer(files: list[tuple[Path, Path]], rotate: int) -> Callable[[], None]:
    """Returns what makes the samples as the documentation of albumentations shows."""
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    import albumentations as A
    import cv2
    import torch

    cv2.setNumThreads(0)
    geometry = [A.RandomResizedCrop(CROP, scale=(0.25, 1.0), ratio=(CROP[1] / CROP[0],) * 2)]
    if rotate:
        # What Affine leaves has the image's size, 360x480.
        geometry = [A.Affine(scale=(0.5, 2.0), rotate=(-rotate, rotate), p=1.0), A.RandomCrop(*CROP)]
    colors = A.ColorJitter((0.7, 1.3), (0.7, 1.3), (0.7, 1.3), (0.0, 0.0), p=1.0)
    steps = [*geometry, A.HorizontalFlip(p=0.5), colors, A.Normalize(MEAN, STD), A.ToTensorV2()]
    transform = A.Compose(steps, seed=0)

    def read(image: Path, mask: Path) -> tuple[torch.Tensor, torch.Tensor]:
        pixels = cv2.cvtColor(cv2.imread(str(image)), cv2.COLOR_BGR2RGB)
        made = transform(image=pixels, mask=cv2.imread(str(mask), cv2.IMREAD_UNCHANGED))
        return made["image"], made["mask"]

    def make() -> None:
        for start in range(0, len(files), BATCH):
            images, masks = zip(*(read(*pair) for pair in files[start : start + BATCH]), strict=True)
            torch.stack(images), torch.stack(masks)

    return make


def build_decoding(files: list[tuple[Path, Path]], _rotate: int) -> Callable[[], None]:
    """Returns what decodes images and masks and does nothing with them."""
    import numpy as np
    from PIL import Image

    def make() -> None:
        for image, mask in files:
            np.asarray(Image.open(image)), np.asarray(Image.open(mask))

    return make


SIDES = {"ours": build_ours, "albumentations": build_peer, "decoding": build_decoding}

if __name__ == "__main__":
    main()
