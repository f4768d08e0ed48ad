"""A training step of segtool against the plain loop with the same layers, and against what the processor can do.

    python -m benchmarks.training_step

Each side is a process of its own, since the allocator's settings are a process's; they run one step each in turn, on
one batch that lies in memory. Ours is segtool's `train_step` with all that it does besides (normalisation, average of
the weights, norm of the gradient and its check), in the arithmetic that `auto` chooses for a long run. The plain loop
is the one that segmentation_models.pytorch's documentation shows, with torch's defaults, on normalised images.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness import Round, Row, Side, in_turn, middle, ratios, report, serve
from segtool.config import ClassSpec, Config, Data, Folders, Model, Train
from segtool.config.registry import Component
from segtool.data.dataset import Sample
from segtool.data.pairs import Record
from segtool.models.segmenter import Segmenter, build_model, verify
from segtool.system.distributed import World
from segtool.system.memory import keep_freed_memory
from segtool.system.threads import SPINS
from segtool.training.plan import make_plan
from segtool.training.training_step import build_training, train_step

CLASSES = 12
SIZE = (352, 480)
QUICK_SIZE = (32, 32)
IMAGES, STEPS = 1000, 20_000  # of the run that `auto` chooses for: long enough for whatever must be repaid
MATMUL, MATMULS = 2048, 4  # side of the matrices, and how many products a round


@dataclass(frozen=True)
class Network:
    """What is trained: a U-Net on an encoder, and the batch."""

    title: str
    encoder: Component
    batch: int
    rounds: int
    """Steps of each side that are timed."""
    precision: Any = "auto"

    def config(self) -> Config:
        """Returns segtool's config of it, all else left to its defaults."""
        classes = tuple(ClassSpec(f"class {index}", values=(index,)) for index in range(CLASSES))
        return Config(
            data=Data(train=Folders(), classes=classes, mean=(0.5,) * 3, std=(0.25,) * 3),
            model=Model(encoder=self.encoder, decoder=Component("unet")),
            train=Train(steps=STEPS, batch_size=self.batch, precision=self.precision),
        )

    def resolved(self, size: tuple[int, int]) -> Config:
        """Returns the config with the arithmetic that segtool chooses."""
        return make_plan(self.config(), images=IMAGES, first_size=size, device=torch.device("cpu"))[0]


NETWORKS = {
    "unet32": Network("U-Net 32..512", Component("conv", {"channels": [32, 64, 128, 256, 512]}), batch=4, rounds=2),
    "resnet18": Network("U-Net on ResNet-18", Component("resnet18"), batch=8, rounds=3),
    "unet16": Network("U-Net 16..256", Component("conv", {"channels": [16, 32, 64, 128, 256]}), 8, 3, precision="fp32"),
}
"""The networks of the issue; `unet16` in float32 whatever the processor can."""


def batch_of(network: Network, size: tuple[int, int]) -> Sample:
    """Returns a batch for the network."""
    return random_batch(network.batch, size)


def random_batch(images: int, size: tuple[int, int], *, classes: int = CLASSES) -> Sample:
    """Returns random images N 3 H W, uint8, and their targets N H W."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8, generator=generator)
    target = torch.randint(0, classes, (images, *size), dtype=torch.uint8, generator=generator)
    return Sample(image, target, torch.arange(images))


def records_of(batch: Sample) -> list[Record]:
    """Returns what a step names its images by."""
    return [Record(Path(f"{index}.png"), None, str(index)) for index in range(len(batch.indices))]


def ours(network: Network, size: tuple[int, int]) -> Round:
    """segtool's step, as `segtool train` makes it."""
    keep_freed_memory()
    config = network.resolved(size)
    training = build_training(config, None, torch.device("cpu"), World())
    if config.train.compile:
        training.model.compile()
    batch = batch_of(network, size)
    records = records_of(batch)
    return timed(lambda: train_step(training, batch, 0, 1e-3, records))


def plain(
    network: Network, size: tuple[int, int], memory_format: torch.memory_format = torch.contiguous_format
) -> Round:
    """The loop of segmentation_models.pytorch's documentation: forward, loss, zero_grad, backward, step."""
    model = plain_model(network).to(memory_format=memory_format)  # type: ignore[call-overload]
    batch = batch_of(network, size)
    images = batch.image.float().div(255).sub(0.5).div(0.25).to(memory_format=memory_format)
    masks = batch.target.long()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

    def step() -> None:
        model.train()
        logits = model(images)
        loss = criterion(logits, masks)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()

    return timed(step)


def channels_last(network: Network, size: tuple[int, int]) -> Round:
    """The plain loop with the memory format of Pytorch-UNet."""
    return plain(network, size, torch.channels_last)


def convolutions(network: Network, size: tuple[int, int]) -> Round:
    """The network's convolutions alone, forward and both backward passes, as our step finds them.

    Their memory format, arithmetic and allocator are those of our step; that of the images has no gradient.
    """
    keep_freed_memory()
    config = network.resolved(size)
    training = build_training(config, None, torch.device("cpu"), World())
    dtype = torch.bfloat16 if config.train.precision == "bf16" else torch.float32
    last = any(p.ndim == 4 and not p.is_contiguous() for p in training.model.parameters())
    form = torch.channels_last if last else torch.contiguous_format
    passes = []
    for name, shape in conv_inputs(network, size):
        conv = training.model.get_submodule(name).to(dtype)
        x = torch.randn(shape, dtype=dtype).to(memory_format=form).requires_grad_(bool(passes))
        passes.append((conv, x, torch.ones_like(conv(x).detach())))

    def work() -> None:
        for conv, x, gradient in passes:
            conv(x).backward(gradient)
            x.grad = None
            conv.zero_grad(set_to_none=True)

    return timed(work)


def matmul(network: Network, size: tuple[int, int]) -> Round:
    """Seconds of one product of two square matrices in the arithmetic of our step."""
    dtype = torch.bfloat16 if network.resolved(size).train.precision == "bf16" else torch.float32
    a, b = (torch.randn(MATMUL, MATMUL).to(dtype) for _ in range(2))
    work = timed(lambda: [torch.matmul(a, b) for _ in range(MATMULS)])
    return lambda: work() / MATMULS


SIDES = {side.__name__: side for side in (ours, plain, channels_last, convolutions, matmul)}


def timed(work: Any) -> Round:
    """Returns a round that does the work and returns its seconds."""

    def once() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    return once


def plain_model(network: Network) -> Segmenter:
    """Returns the network's layers with torch's defaults."""
    config = network.config()
    torch.manual_seed(0)
    return build_model(config.model, CLASSES, config.data.channels)


def conv_inputs(network: Network, size: tuple[int, int]) -> Iterator[tuple[str, torch.Size]]:
    """Yields the name and the input's shape of each convolution, plain and transposed, in the order of the forward."""
    model = verify(network.config().model, CLASSES)
    found: list[tuple[str, torch.Size]] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            module.register_forward_hook(lambda _, x, __, name=name: found.append((name, x[0].shape)))
    model(torch.empty(network.batch, 3, *size, device="meta"))
    return iter(found)


def flop(network: Network, size: tuple[int, int]) -> int:
    """Returns the floating-point operations of a step's convolutions, a multiply-add being two."""
    model = verify(network.config().model, CLASSES)
    images = torch.empty(network.batch, 3, *size, device="meta")
    with FlopCounterMode(display=False) as counter:
        logits: Tensor = model(images)  # type: ignore[assignment]
        logits.sum().backward()
    return counter.get_total_flops()


def measure(name: str, *, rounds: int, quick: bool) -> Iterator[Row]:
    """Yields the rows of one network."""
    network, size = NETWORKS[name], QUICK_SIZE if quick else SIZE
    names = list(SIDES) if name == "unet32" else ["ours", "plain"]
    with ExitStack() as stack:
        options = ["--network", name, *(["--quick"] if quick else [])]
        command = ("benchmarks.training_step", *options, "--side")
        waiting = {"ours": {"GOMP_SPINCOUNT": SPINS}}  # as the command has it
        sides = [stack.enter_context(Side(*command, side, **waiting.get(side, {}))) for side in names]
        taken = dict(zip(names, in_turn(*sides, rounds=rounds), strict=True))
    train = network.resolved(size).train
    how = f"{train.precision}{', compiled' if train.compile else ''}"
    what = f"training step, {network.title}, batch {network.batch}, {size[0]}x{size[1]}"
    rates = {side: network.batch / middle(times) for side, times in taken.items() if side != "matmul"}
    work, seconds = flop(network, size), middle(taken["ours"])
    figures = {
        "arithmetic": how,
        "images/s": ", ".join(f"{side} {rate:.2f}" for side, rate in rates.items() if side != "convolutions"),
        "GFLOP a step": f"{work / 1e9:.0f}",
        "GFLOP/s": f"{work / seconds / 1e9:.0f}",
    }
    base = Row(what, "", (), 0, at_least=True, needs="" if network.precision == "fp32" else "bf16")
    targets = {"unet32": 3.0, "resnet18": 2.2, "unet16": 1.5}
    yield replace(
        base,
        against="the plain loop (fp32, torch's defaults), same layers",
        ratios=ratios(taken["plain"], taken["ours"]),
        target=targets[name],
        figures=figures,
        note="One batch in memory: loading is no part of it, nor is compilation. Ours also normalises the images, "
        "averages the weights and checks the gradient's norm.",
    )
    if name != "unet32":
        return
    yield replace(
        base,
        against="the plain loop with Pytorch-UNet's memory format (fp32, channels_last)",
        ratios=ratios(taken["channels_last"], taken["ours"]),
        target=2.2,
        note="Pytorch-UNet's optimizer and second loss are left out.",
    )
    product = 2 * MATMUL**3
    yield replace(
        base,
        against=f"torch.matmul at {MATMUL}³, {train.precision}, in FLOP/s",
        ratios=tuple(work / product * ratio for ratio in ratios(taken["matmul"], taken["ours"])),
        target=1.0,
        figures={"GFLOP/s of matmul": f"{product / middle(taken['matmul']) / 1e9:.0f}"},
        note="Counted are the convolutions' operations alone, against the step's whole time.",
    )
    yield replace(
        base,
        against="its convolutions alone, forward and both backward passes, in FLOP/s",
        ratios=ratios(taken["convolutions"], taken["ours"]),
        target=0.8,
        figures={"GFLOP/s of the convolutions": f"{work / middle(taken['convolutions']) / 1e9:.0f}"},
        note="In our step's memory format, arithmetic and allocator, each on its own tensors.",
        needs="",
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints rows; with `--side`, is one side of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="not used: the batch is random")
    parser.add_argument("--quick", action="store_true", help="one round on small images")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="which to measure")
    parser.add_argument("--rounds", type=int, help="steps of each side (default: 2 or 3)")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.side:
        size = QUICK_SIZE if options.quick else SIZE
        serve(SIDES[options.side](NETWORKS[options.network[0]], size))
        return
    rows: list[Row] = []
    for name in options.network:
        print(f"{NETWORKS[name].title} …", file=sys.stderr, flush=True)
        rows += measure(
            name, rounds=1 if options.quick else options.rounds or NETWORKS[name].rounds, quick=options.quick
        )
    report(*rows)


if __name__ == "__main__":
    main()
