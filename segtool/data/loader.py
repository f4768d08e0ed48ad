"""Batches of a run: which keys each step takes, and the processes that load them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Literal

import torch
from torch.utils.data import DataLoader, Sampler

from segtool.data.dataset import EvaluationSet, Sample, TrainingSet, stream_keys
from segtool.distributed import World
from segtool.errors import DataError

TIMEOUT = 300  # seconds that a batch may take before its worker counts as hung


class StepSampler(Sampler[list[tuple[int, int]]]):
    """The keys of each step from `start` to `steps`: step s takes the stream's positions s B to (s + 1) B.

    Rank r takes every world-th of them from its r-th.
    """

    def __init__(self, length: int, batch_size: int, seed: int, world: World, *, start: int, steps: int) -> None:
        self.length = length
        self.batch_size = batch_size
        self.seed = seed
        self.world = world
        self.start = start
        self.steps = steps

    def __len__(self) -> int:
        return max(self.steps - self.start, 0)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for step in range(self.start, self.steps):
            first = step * self.batch_size
            keys = stream_keys(self.seed, self.length, first, first + self.batch_size)
            yield keys[self.world.rank :: self.world.size]


def training_batches(
    dataset: TrainingSet, world: World, *, batch_size: int, start: int, steps: int, workers: int
) -> Iterator[Sample]:
    """Yields the batches of the steps from `start` to `steps`.

    Raises:
        DataError: a file cannot be used, or a worker died or hung.
    """
    sampler = StepSampler(len(dataset), batch_size, dataset.seed, world, start=start, steps=steps)
    return batches(
        DataLoader(
            dataset,
            batch_sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            worker_init_fn=leave_signals_to_the_main_process,
            pin_memory=torch.cuda.is_available(),
            timeout=TIMEOUT if workers else 0,
        )
    )


def evaluation_batches(dataset: EvaluationSet, world: World, *, workers: int) -> Iterator[Sample]:
    """Yields every world-th whole image, one at a time. Raises as `training_batches`."""
    mine = list(range(world.rank, len(dataset), world.size))
    return batches(
        DataLoader(
            dataset,
            sampler=mine,
            batch_size=1,
            num_workers=min(workers, len(mine)),
            collate_fn=collate,
            worker_init_fn=leave_signals_to_the_main_process,
            timeout=TIMEOUT if workers and mine else 0,
        )
    )


def leave_signals_to_the_main_process(_worker: int) -> None:
    """Makes a loading process ignore Ctrl-C, and die of SIGTERM, whatever handlers the main process has.

    A terminal sends Ctrl-C to all processes in the foreground; the main one finishes its step and needs its batches.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # out of the group that a scheduler signals as a whole


def num_workers(setting: Literal["auto"] | int, device: torch.device) -> int:
    """Returns the number of loading processes: on a CPU one, which leaves the cores to the network; else up to 8."""
    if setting != "auto":
        return setting
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else max(1, min(8, cores - 1))


def collate(samples: list[Sample | DataError]) -> Sample | DataError:
    """Returns the batch, or the first sample's error. One float32 image makes the whole batch float32.

    Images lie in memory as they come from the files, channels last.
    """
    good: list[Sample] = []
    for sample in samples:
        if isinstance(sample, DataError):
            return sample
        good.append(sample)
    images = [sample.image.permute(1, 2, 0) for sample in good]
    if any(image.dtype != torch.uint8 for image in images):
        images = [image.float() for image in images]
    targets, indices = ([sample[i] for sample in good] for i in (1, 2))
    return Sample(torch.stack(images).permute(0, 3, 1, 2), torch.stack(targets), torch.stack(indices))


def batches(loader: DataLoader[Sample | DataError]) -> Iterator[Sample]:
    """Yields a loader's batches; what went wrong in a worker is raised here as a DataError."""
    iterator = iter(loader)
    while True:
        try:
            batch = next(iterator)
        except StopIteration:
            return
        except RuntimeError as error:
            # What is raised within a worker comes as "Caught … in DataLoader worker process" and is a bug.
            if not str(error).startswith("DataLoader "):
                raise
            raise DataError(
                f"a process that loads images died or took over {TIMEOUT} s: {error}; "
                "try --set train.workers=0, which also shows the file at fault"
            ) from error
        if isinstance(batch, DataError):
            raise batch
        yield batch
