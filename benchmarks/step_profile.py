"""Where the time of a training step goes, and how it grows with pixels, channels and images.

    python -m benchmarks.step_profile

Prints the tables of docs/performance.md. The step is segtool's own in float32, not compiled, on one batch that lies in
memory.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import count

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import machine, middle, versions
from benchmarks.training_step import CLASSES, random_batch, records_of
from segtool.config import ClassSpec, Config, Data, Folders, Model, Train
from segtool.config.registry import Component
from segtool.system.distributed import World
from segtool.system.memory import keep_freed_memory
from segtool.training.training_step import Training, build_training, train_step

WIDTHS = {"8 to 128": 8, "16 to 256": 16, "32 to 512": 32}
SIZES = ((88, 120), (176, 240), (352, 480), (704, 960))
BATCHES = (1, 2, 4, 8)
KINDS = {
    "convolution, backward": ("convolution_backward",),
    "convolution, forward": ("mkldnn_convolution", "_convolution", "convolution", "slow_conv", "cudnn_convolution"),
    "BatchNorm, both ways": ("native_batch_norm", "batch_norm"),
    "max pooling, both ways": ("max_pool2d",),
    "ReLU, both ways": ("threshold_backward", "clamp_min", "relu"),
    "copies, sums and concatenation": ("copy_", "cat", "add", "contiguous", "clone"),
    "loss, both ways": ("log_softmax", "nll_loss", "softmax"),
    "optimizer and average": ("_fused_adam", "_fused_sgd", "_foreach", "lerp"),
}


def training(width: int, batch: int) -> Training:
    """Returns the training of a U-Net of five levels, its width doubling from level to level."""
    channels = [width * 2**level for level in range(5)]
    classes = tuple(ClassSpec(f"class {index}", values=(index,)) for index in range(CLASSES))
    config = Config(
        data=Data(train=Folders(), classes=classes, mean=(0.5,) * 3, std=(0.25,) * 3),
        model=Model(encoder=Component("conv", {"channels": channels}), decoder=Component("unet")),
        train=Train(steps=1, batch_size=batch, precision="fp32", compile=False),
    )
    return build_training(config, None, torch.device("cpu"), World())


def steps(work: Training, size: tuple[int, int], batch: int) -> Iterator[float]:
    """Yields the seconds of one step after the other."""
    sample = random_batch(batch, size)
    records = records_of(sample)
    for number in count():
        began = time.perf_counter()
        train_step(work, sample, number, 1e-3, records)
        yield time.perf_counter() - began


def seconds(width: int, size: tuple[int, int], batch: int, *, rounds: int) -> float:
    """Returns the median seconds of a step after two that warm up."""
    running = steps(training(width, batch), size, batch)
    next(running), next(running)
    return middle(next(running) for _ in range(rounds))


def shares(width: int, size: tuple[int, int], batch: int, *, rounds: int) -> dict[str, float]:
    """Returns what part of a step's time each kind of operation takes, largest first."""
    running = steps(training(width, batch), size, batch)
    next(running), next(running)
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        for _ in range(rounds):
            next(running)
    spent: dict[str, float] = defaultdict(float)
    for event in profiled.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, starts in KINDS.items() if name.startswith(starts)), "all else")
        spent[kind] += event.self_cpu_time_total
    total = sum(spent.values())
    return {kind: spent[kind] / total for kind in sorted(spent, key=lambda kind: -spent[kind])}


def gflop(width: int, size: tuple[int, int]) -> float:
    """Returns the floating-point operations of one image's step in 10^9, a multiply-add being two."""
    model = training(width, 1).model
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 3, *size)).sum().backward()
    return counter.get_total_flops() / 1e9


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="steps that are timed for each number")
    rounds = parser.parse_args(arguments).rounds
    keep_freed_memory()
    print(", ".join(f"{key} {value}" for key, value in {**machine(), **versions("torch")}.items()), "\n")
    found = shares(16, (352, 480), 8, rounds=rounds)
    print(table(("U-Net 16 to 256, batch 8, 352x480", "share"), [(k, f"{100 * v:.1f} %") for k, v in found.items()]))
    rows = []
    for name, width in WIDTHS.items():
        took, work = seconds(width, (352, 480), 4, rounds=rounds), gflop(width, (352, 480))
        rows.append((name, f"{work:.1f}", f"{took / 4:.3f}", f"{4 * work / took:.0f}"))
    print(table(("channels (batch 4, 352x480)", "GFLOP an image", "s an image", "GFLOP/s"), rows))
    rows = []
    for size in SIZES:
        took = seconds(16, size, 2, rounds=rounds) / 2
        pixels = size[0] * size[1]
        rows.append((f"{size[0]}x{size[1]}", f"{pixels:,}", f"{took:.3f}", f"{1e6 * took / pixels:.2f}"))
    print(table(("crop (16 to 256, batch 2)", "pixels", "s an image", "us a pixel"), rows))
    rows = []
    for batch in BATCHES:
        took = seconds(16, (176, 240), batch, rounds=rounds)
        rows.append((str(batch), f"{took:.3f}", f"{took / batch:.3f}"))
    print(table(("images (16 to 256, 176x240)", "s a step", "s an image"), rows))


if __name__ == "__main__":
    main()
