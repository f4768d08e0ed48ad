"""What segtool makes of a GPU: steps against the plain loop, how long the GPU waits in a whole training, prediction.

    python -m benchmarks.cuda

For whoever has a GPU with CUDA: without one nothing is measured. The networks and the batch are those of
`benchmarks.training_step`; the plain loop is that of segmentation_models.pytorch's documentation, in float32.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from benchmarks.harness import DEMO, Round, Row, alternate, middle, ratios, report, segtool
from benchmarks.prediction import CHANNELS, QUICK_CHANNELS, agreement, as_round, drawn, untrained
from benchmarks.prediction import ours as predict_ours
from benchmarks.prediction import plain as predict_plain
from benchmarks.training_step import CLASSES, NETWORKS, Network, batch_of, plain_model, random_batch, records_of
from benchmarks.whole_training import seconds_between
from segtool.commands.demo import make_dataset
from segtool.config import Config, load_config
from segtool.data.dataset import Sample
from segtool.prediction.inference import Normalize, Predictor, fast_dtype
from segtool.system.distributed import World
from segtool.training.plan import make_plan
from segtool.training.training_log import FLUSH_STEPS
from segtool.training.training_step import Training, build_training, train_step

SIZE, BATCH, STEPS, ROUNDS = (352, 480), 16, 20, 5
LONG = 100_000  # steps for which `auto` chooses, so that whatever it would ever use is used
EPOCH = 40  # steps of the whole training that are timed
FOLDER = 200  # images that are predicted from files


def timed(device: torch.device, work: Callable[[], object], times: int) -> Round:
    """Returns a round that does the work so many times, waits for the GPU, and returns the seconds of one."""

    def once() -> float:
        began = time.perf_counter()
        for _ in range(times):
            work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - began) / times

    return once


def resolved(network: Network, device: torch.device, size: tuple[int, int]) -> Config:
    """Returns the config with the arithmetic that segtool chooses for a long run."""
    config = network.config()
    config = replace(config, train=replace(config.train, steps=LONG))
    return make_plan(config, images=1000, first_size=size, device=device)[0]


def our_training(config: Config, device: torch.device) -> Training:
    """Returns segtool's training as `segtool train` builds it."""
    training = build_training(config, None, device, World())
    if config.train.compile:
        training.model.compile()
    return training


def ours(training: Training, batch: Sample) -> Callable[[], object]:
    """segtool's step from a pinned batch; what came of it is read one step late, as in a training."""
    records = records_of(batch)
    if training.device.type == "cuda":
        batch = Sample(*(tensor.pin_memory() for tensor in batch))
    waiting = []

    def step() -> None:
        waiting.append(train_step(training, batch, 0, 1e-3, records))
        if len(waiting) > 1:
            waiting.pop(0).read()

    return step


def plain(network: Network, device: torch.device, batch: Sample) -> Callable[[], object]:
    """The plain loop: the batch as float32, moved, forward, loss, zero_grad, backward, step, and the loss printed."""
    model = plain_model(network).to(device)
    images, masks = batch.image.float().div(255).sub(0.5).div(0.25).contiguous(), batch.target.long()
    criterion, optimizer = nn.CrossEntropyLoss(), torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        model.train()
        loss = criterion(model(images.to(device)), masks.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def steps(device: torch.device, *, size: tuple[int, int], batch: int, times: int, rounds: int) -> list[Row]:
    """Returns the rows of a step's rate and of its memory."""
    network = replace(NETWORKS["unet32"], batch=batch)
    sample = batch_of(network, size)
    config = resolved(network, device, size)
    sides = [ours(our_training(config, device), sample), plain(network, device, sample)]
    memory = [peak(device, side) for side in sides]
    taken = alternate(*(timed(device, side, times) for side in sides), rounds=rounds)
    row = Row(
        f"training step on a GPU, {network.title}, batch {batch}, {size[0]}x{size[1]}",
        "the plain loop (fp32, torch's defaults), same layers",
        ratios(taken[1], taken[0]),
        target=2.0,
        at_least=True,
        needs="cuda",
        figures={
            "arithmetic": f"{config.train.precision}{', compiled' if config.train.compile else ''}",
            "images/s": f"ours {batch / middle(taken[0]):.1f}, plain {batch / middle(taken[1]):.1f}",
        },
        note="One batch in memory that is moved to the GPU in each step; compilation is no part of it.",
    )
    if device.type != "cuda":
        return [row]
    beside = replace(
        row,
        what="memory of that step",
        ratios=(memory[0] / memory[1],),
        target=1.0,
        at_least=False,
        figures={
            "GiB": ", ".join(
                f"{name} {taken / 2**30:.2f}" for name, taken in zip(("ours", "plain"), memory, strict=True)
            )
        },
        note="The most that torch's tensors took; the average of the weights is in ours.",
    )
    return [row, beside]


def peak(device: torch.device, step: Callable[[], object]) -> int:
    """Returns the most bytes that torch's tensors took in two steps, what lay there before left out."""
    if device.type != "cuda":
        return 1
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    step(), step()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def waiting(device: torch.device, *, images: int, epoch: int, size: tuple[int, int], out: Path) -> Row:
    """Returns the row of a whole training against its bare step: the rest of the time the GPU waits."""
    make_dataset(out / "data", sizes={"train": images, "val": 2, "test": 1}, height=size[0], width=size[1])
    keys = [f"data.root={out / 'data'}", f"train.steps={FLUSH_STEPS + epoch}", "train.eval_every=1000"]
    keys += [f"augment.crop=[{size[0]}, {size[1]}]", f"train.batch_size={min(BATCH, images)}", "train.compile=false"]
    words = [word for key in keys for word in ("--set", key)]
    segtool("train", DEMO, "--run", out / "run", *words, device=device.type)
    whole = seconds_between(out / "run" / "timing.jsonl", FLUSH_STEPS, FLUSH_STEPS + epoch) / epoch
    config = load_config(out / "run" / "config.yaml")
    sample = random_batch(config.train.batch_size, size, classes=len(config.data.classes))
    bare = timed(device, ours(our_training(config, device), sample), epoch)
    bare()
    return Row(
        "share of the time that the GPU waits in `segtool train`",
        "the whole",
        (max(0.0, 1 - bare() / whole),),
        target=0.05,
        at_least=False,
        needs="cuda",
        figures={"a step of the command": f"{1000 * whole:.1f} ms"},
        note=f"What its step takes more than one on a ready batch; synthetic pictures of {size[0]}x{size[1]}.",
    )


def prediction(device: torch.device, *, size: tuple[int, int], times: int, rounds: int) -> Row:
    """Returns the row of the rate at which images in memory become masks in memory."""
    network = NETWORKS["unet32"]
    image = batch_of(network, size).image[0].contiguous()
    predictor = Predictor(plain_model(network), Normalize((0.5,) * 3, (0.25,) * 3), device, dtype=fast_dtype(device))
    model = plain_model(network).to(device).eval()

    @torch.no_grad()
    def plainly() -> object:
        logits = model(image.to(device).float().div(255).sub(0.5).div(0.25)[None])
        return logits.argmax(1)[0].byte().cpu().numpy()

    taken = alternate(
        timed(device, lambda: predictor.classes(image), times), timed(device, plainly, times), rounds=rounds
    )
    return Row(
        f"prediction on a GPU, {network.title}, {size[0]}x{size[1]}, {CLASSES} classes",
        "a plain loop with the same network in fp32",
        ratios(taken[1], taken[0]),
        target=2.0,
        at_least=True,
        needs="cuda",
        figures={"images/s": f"ours {1 / middle(taken[0]):.1f}, plain {1 / middle(taken[1]):.1f}"},
        note="From an image in memory to a mask in memory.",
    )


def folder(
    device: torch.device, *, channels: Sequence[int], size: tuple[int, int], images: int, rounds: int, out: Path
) -> Row:
    """Returns the row of the rate at which the images of a folder become masks in a folder."""
    checkpoint = untrained(out / "network", channels)
    parts = [drawn(out / "images", images, size)] * (1 + rounds)
    places = out / "ours", out / "plain"
    sides = predict_ours(checkpoint, parts, places[0], device), predict_plain(checkpoint, parts, places[1], device)
    for side in sides:
        next(side)  # makes it ready
    taken = alternate(*(as_round(side) for side in sides), rounds=rounds)
    return Row(
        f"predict on a GPU, {images} images of {size[0]}x{size[1]}, PNG to PNG",
        "a plain loop with the same network in fp32",
        ratios(taken[1], taken[0]),
        target=2.0,
        at_least=True,
        needs="cuda",
        figures={
            "images/s": f"ours {images / middle(taken[0]):.1f}, plain {images / middle(taken[1]):.1f}",
            "equal pixels of the masks": f"{agreement(*places):.4f}",
        },
        note="Synthetic pictures, an untrained network; making it ready is no part of it.",
    )


def measure(device: torch.device, *, quick: bool) -> list[Row]:
    """Returns all rows."""
    size, batch, times, rounds = ((32, 48), 2, 1, 1) if quick else (SIZE, BATCH, STEPS, ROUNDS)
    images, epoch = (4, 2) if quick else (8 * BATCH, EPOCH)
    rows = steps(device, size=size, batch=batch, times=times, rounds=rounds)
    with tempfile.TemporaryDirectory(prefix="segtool-") as out:
        place = Path(out).resolve()
        rows.append(waiting(device, images=images, epoch=epoch, size=size, out=place))
        rows.append(prediction(device, size=size, times=times, rounds=rounds))
        channels, count = (QUICK_CHANNELS, 3) if quick else (CHANNELS, FOLDER)
        rows.append(folder(device, channels=channels, size=size, images=count, rounds=rounds, out=place / "folder"))
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the pictures are made")
    parser.add_argument("--quick", action="store_true", help="a trial of the whole way")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no GPU with CUDA here: nothing of it was measured", file=sys.stderr)
        report()
        return
    report(*measure(torch.device("cuda"), quick=options.quick))


if __name__ == "__main__":
    main()
