"""Predicting a folder of images against the plain loop with the same network, PNG in and PNG out.

    python -m benchmarks.prediction [--data DIR] [--run RUN]

The network is a U-Net of 32 to 512 channels, trained on CamVid for a minute unless `--run` names one that is there; the
images are those of the test split. Both sides are processes of their own, since the allocator's settings are a
process's, and take a part of the images in turn. The plain loop reads with Pillow, computes in float32 as PyTorch does
by default, takes the argmax and saves with Pillow, one image after the other.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.harness import Round, Row, Side, alternate, middle, ratios, report, serve
from segtool.commands.demo import draw_scene
from segtool.config import ClassSpec, Config, Data, Folders, Model, Train
from segtool.config.registry import Component
from segtool.models.segmenter import assemble, build_model
from segtool.prediction.predict import build_predictor, predict
from segtool.prediction.predicted_files import list_jobs
from segtool.runs.checkpoint import Progress, TrainState, load, save
from segtool.system.memory import keep_freed_memory
from segtool.training.optim import build_optimizer

CONFIG = Path(__file__).parent.parent / "configs" / "camvid-unet.yaml"
CHANNELS, QUICK_CHANNELS = (32, 64, 128, 256, 512), (4, 8)
RUN = Path("runs") / "bench-unet32"
TRAINING = (
    f"model.encoder.channels={list(CHANNELS)}",
    "augment.crop=[176, 240]",
    "train.steps=20",
    "optim.warmup=4",
    "train.eval_every=100",
    "train.samples=0",
)
SIZE, QUICK_SIZE = (360, 480), (40, 64)
CLASSES = 11
CPU = torch.device("cpu")


def ours(checkpoint: Path, parts: Sequence[Sequence[Path]], out: Path, device: torch.device = CPU) -> Iterator[float]:
    """Yields the seconds that `segtool predict` takes for each part, at first those of making it ready."""
    keep_freed_memory()
    began = time.perf_counter()
    found = load(checkpoint)
    predictor = build_predictor(found, device)
    yield time.perf_counter() - began
    for images in parts:
        jobs = list_jobs(images, out, overlays=False, probabilities=False)
        began = time.perf_counter()
        made = list(predict(predictor, found.config, jobs))
        yield time.perf_counter() - began
        assert made == [job.mask for job in jobs]


def plain_network(checkpoint: Path) -> tuple[nn.Module, Tensor, Tensor]:
    """Returns the network of a checkpoint as it was trained, and mean and deviation of its images in 0..1, C 1 1."""
    found = load(checkpoint)
    data = found.config.data
    model = assemble(found.config.model, len(data.classes), data.channels)
    model.load_state_dict(dict(found.weights))
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    return model.eval(), mean, std


def plain(checkpoint: Path, parts: Sequence[Sequence[Path]], out: Path, device: torch.device = CPU) -> Iterator[float]:
    """Yields the seconds that the plain loop takes for each part, at first those of making it ready."""
    began = time.perf_counter()
    model, mean, std = (part.to(device) for part in plain_network(checkpoint))
    out.mkdir(parents=True, exist_ok=True)
    yield time.perf_counter() - began
    for images in parts:
        began = time.perf_counter()
        for path in images:
            pixels = np.asarray(Image.open(path).convert("RGB"))
            image = torch.from_numpy(pixels.copy()).to(device).permute(2, 0, 1).float() / 255
            with torch.no_grad():
                logits = model(((image - mean) / std)[None])
            mask = logits.argmax(1)[0].byte().cpu().numpy()
            Image.fromarray(mask).save(out / f"{path.stem}.png")
        yield time.perf_counter() - began


def as_round(seconds: Iterator[float]) -> Round:
    return lambda: next(seconds)


def split(images: Sequence[Path], rounds: int) -> list[list[Path]]:
    """Returns the images in so many parts, each from all over the folder."""
    return [list(images[number::rounds]) for number in range(rounds)]


def agreement(one: Path, other: Path) -> float:
    """Returns the share of pixels that are equal in the masks that both folders have."""
    names = sorted({path.name for path in one.iterdir()} & {path.name for path in other.iterdir()})
    pairs = [(np.asarray(Image.open(one / name)), np.asarray(Image.open(other / name))) for name in names]
    return sum(int((a == b).sum()) for a, b in pairs) / sum(a.size for a, _ in pairs)


def trained(data: Path, run: Path) -> Path:
    """Returns the checkpoint of a short training, which is made where it is not there yet."""
    if not (run / "checkpoints").is_dir():
        settings = [word for key in (f"data.root={data.resolve()}", *TRAINING) for word in ("--set", key)]
        command = [sys.executable, "-m", "segtool", "train", str(CONFIG), "--run", str(run), *settings]
        subprocess.run([*command, "--device", "cpu", "--quiet"], check=True, stdout=sys.stderr)
    return max((run / "checkpoints").glob("step-*"))


def untrained(directory: Path, channels: Sequence[int], *, classes: int = CLASSES) -> Path:
    """Returns the checkpoint of a network as it is before training."""
    specs = tuple(ClassSpec(f"class {value}", values=(value,)) for value in range(classes))
    config = Config(
        data=Data(train=Folders(), classes=specs, mean=(0.4,) * 3, std=(0.25,) * 3),
        model=Model(Component("conv", {"channels": list(channels)}), Component("unet")),
        train=Train(steps=1),
    )
    torch.manual_seed(0)
    model = build_model(config.model, classes)
    return save(directory, TrainState(model, None, build_optimizer(model, config.optim)), config, Progress())


def drawn(folder: Path, amount: int, size: tuple[int, int]) -> list[Path]:
    """Returns synthetic pictures."""
    folder.mkdir(parents=True)
    for number in range(amount):
        scene, _ = draw_scene(0, "test", number, height=size[0], width=size[1])
        Image.fromarray(scene).save(folder / f"{number:03d}.png")
    return sorted(folder.iterdir())


def measure(checkpoint: Path, images: Sequence[Path], place: Path, *, rounds: int, note: str) -> list[Row]:
    """Returns the rows of prediction; both sides write into folders of `place`."""
    (place / "images.txt").write_text("\n".join(map(str, images)))
    command = ["benchmarks.prediction", "--checkpoint", str(checkpoint), "--work", str(place), "--rounds", str(rounds)]
    with Side(*command, "--side", "ours") as ours, Side(*command, "--side", "plain") as peer:
        ready = ours(), peer()  # the first answer of each
        mine, theirs = alternate(ours, peer, rounds=rounds, warmup=1)
    pictures = f"{len(images)} images, {rounds} parts"
    per_image = [middle(times) * rounds / len(images) for times in (mine, theirs)]
    figures = {
        "segtool, an image": f"{1e3 * per_image[0]:.0f} ms",
        "plain loop, an image": f"{1e3 * per_image[1]:.0f} ms",
        "made ready in": f"{ready[0]:.1f} s, plain loop {ready[1]:.1f} s",
    }
    against = "plain loop of the same network in float32"
    whole = (sum(theirs) + ready[1]) / (sum(mine) + ready[0])
    return [
        Row(
            what=f"predict, {pictures}",
            against=against,
            ratios=ratios(theirs, mine),
            target=2.5,
            at_least=True,
            figures=figures,
            note=note,
            needs="bf16",
        ),
        Row(
            what=f"predict with what comes before, {pictures}",
            against=against,
            ratios=(whole,),
            target=1.5,
            at_least=True,
            note=f"Reading the checkpoint and making the network ready count on both sides. {note}",
            needs="bf16",
        ),
        Row(
            what="pixels of the masks that are equal",
            against=against,
            ratios=(agreement(place / "ours", place / "plain"),),
            target=0.995,
            at_least=True,
            note=note,
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows; with `--side`, serves one side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/camvid"), metavar="DIR", help="CamVid")
    parser.add_argument("--run", type=Path, default=RUN, help="trained here where there is nothing yet")
    parser.add_argument("--quick", action="store_true", help="a tiny untrained network and a few small pictures")
    parser.add_argument("--images", type=int, default=78, help="how many, evenly from the test split")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--side", choices=("ours", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.side:
        images = [Path(line) for line in (given.work / "images.txt").read_text().splitlines()]
        # The round that warms up takes one image, which is predicted again later.
        parts = [images[:1], *split(images, given.rounds)]
        side = ours if given.side == "ours" else plain
        serve(as_round(side(given.checkpoint, parts, given.work / given.side)))
        return
    with tempfile.TemporaryDirectory() as folder:
        place, rounds = Path(folder), given.rounds
        if given.quick:
            rounds, checkpoint = 2, untrained(place / "network", QUICK_CHANNELS)
            images, note = drawn(place / "images", 4, QUICK_SIZE), "A trial of the program, not a measurement."
        elif not given.data.is_dir():
            checkpoint = untrained(place / "network", CHANNELS)
            images = drawn(place / "images", given.images, SIZE)
            note = f"No data in {given.data}: synthetic pictures of the same size, and an untrained network."
        else:
            checkpoint, note = trained(given.data, given.run), f"U-Net {CHANNELS[0]}..{CHANNELS[-1]}, 480x360."
            found = sorted((given.data / "test" / "images").iterdir())
            images = found[:: max(1, len(found) // given.images)][: given.images]
        report(*measure(checkpoint, images, place, rounds=rounds, note=note))


if __name__ == "__main__":
    main()
