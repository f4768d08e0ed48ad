"""Batches of a run: which keys each step takes, and the processes that load them."""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from segtool.data.dataset import EvaluationSet, Sample, TrainingSet, stream_keys
from segtool.data.slots import Left, Slots, can_be_shared, make_slots
from segtool.errors import DataError, shown
from segtool.system.distributed import World
from segtool.system.pools import num_cores
from segtool.system.terminal import amount

TIMEOUT = 300  # seconds that a batch may take before its worker counts as hung
SHARED_MEMORY = Path("/dev/shm")  # through which workers that are not forked hand over their batches
PREFETCHED = 2  # batches that each worker is ahead: torch's prefetch_factor
EVALUATED = 2**24  # bytes of the largest image and mask that are handed over through a slot in evaluation
LOOK = 1  # seconds between two looks, while a batch is awaited, at whether all workers live
FEW = 8  # images: a process took 0.12 s to start and end beside a training, one of 480x360 pixels 0.006 s to decode
FAREWELL = 2  # seconds in which a worker whose pipes have closed is gone
CPU = torch.device("cpu")
Handed: TypeAlias = Left | Sample | DataError  # what comes from a worker
NOTHING = -1  # what a worker reads between two samples
# What a death by these signals tells, and the remedy.
DEATHS = {
    "SIGKILL": (
        "killed, as the system does where memory runs out",
        "take fewer train.workers, train.cache=false or smaller images",
    ),
    "SIGBUS": (
        "shared memory is full",
        "give a container --shm-size=2g, or take fewer train.workers or a smaller augment.crop",
    ),
    "SIGSEGV": ("a library that decodes images crashed", "see whether the file is damaged"),
}


def step_keys(
    length: int, batch_size: int, seed: int, world: World, *, start: int, steps: int
) -> Iterator[list[tuple[int, int]]]:
    """Yields this process's keys of each step from `start` to `steps`: step s takes the stream's positions s B to
    (s + 1) B, and rank r every world-th of them from its r-th."""
    for step in range(start, steps):
        keys = stream_keys(seed, length, step * batch_size, (step + 1) * batch_size)
        yield keys[world.rank :: world.size]


def training_batches(
    dataset: TrainingSet,
    world: World,
    *,
    batch_size: int,
    start: int,
    steps: int,
    workers: int,
    device: torch.device = CPU,
) -> Iterator[Sample]:
    """Yields the batches of the steps from `start` to `steps`.

    They are on the CPU; for CUDA in pinned memory, so that their way to it is waited for by nobody. They are pinned in
    this thread, since torch's for it dies with a traceback of its own where a worker dies.

    Raises:
        DataError: a file cannot be used, or a worker died or hung.
    """
    keys = step_keys(len(dataset), batch_size, dataset.seed, world, start=start, steps=steps)
    pinned = device.type == "cuda"
    share = -(-batch_size // world.size)
    capacity = share * dataset.crop[0] * dataset.crop[1] * (4 * sum(dataset.reader.channels) + 1)
    return batches(dataset, workers, capacity=capacity, pinned=pinned, batch_sampler=keys)


def evaluation_batches(dataset: EvaluationSet, world: World, *, workers: int) -> Iterator[Sample]:
    """Yields every world-th whole image, one at a time; few are read in this process. Raises as `training_batches`."""
    mine = list(range(world.rank, len(dataset), world.size))
    workers = min(workers, len(mine)) if len(mine) >= FEW else 0
    return batches(dataset, workers, capacity=EVALUATED, sampler=mine, batch_size=1)


def begin_worker(_worker: int) -> None:
    """Makes a loading process ignore Ctrl-C, and die of SIGTERM, whatever handlers the main process has.

    A terminal sends Ctrl-C to all processes in the foreground; the main one finishes its step and needs its batches.
    What the main one had when this process was forked is not collected here: among it may be other loaders, which
    complain of workers that are not this process's children.
    """
    gc.freeze()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)  # out of the group that a scheduler signals as a whole


def num_workers(setting: Literal["auto"] | int, device: torch.device, world: World) -> int:
    """Returns the number of loading processes: on a CPU one, which leaves the cores to the network; else up to 8."""
    if setting != "auto":
        return setting
    return 1 if device.type == "cpu" else max(1, min(8, num_cores() // world.local_size - 1))


def little_shared_memory(batch_bytes: int, workers: int) -> str | None:
    """Returns a warning where batches come through /dev/shm and it cannot hold those that are under way; else None.

    Args:
        batch_bytes: Of the images and targets of a batch, in this process.
    """
    if not workers or can_be_shared() or not SHARED_MEMORY.is_dir():
        return None
    needed = batch_bytes * (PREFETCHED * workers + 1)  # and the one at hand
    free = shutil.disk_usage(SHARED_MEMORY).free
    if free >= needed:
        return None
    return (
        f"{SHARED_MEMORY}: {amount(free)} are free, and the batches that {workers} processes load take "
        f"{amount(needed)}; give a container --shm-size=2g, or set train.workers=0"
    )


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


def batches(
    dataset: TrainingSet | EvaluationSet, workers: int, *, capacity: int, pinned: bool = False, **options: Any
) -> Iterator[Sample]:
    """Yields the batches of a torch DataLoader with these options.

    Args:
        capacity: Bytes that a batch has at most; a larger one takes longer to come from its worker.
        pinned: Whether they are in pinned memory.

    Raises:
        DataError: a file cannot be used; or a worker died or hung, with the file that it was reading.
    """
    reading = RawArray("q", [0, NOTHING] * workers)
    slots = make_slots(workers, PREFETCHED + 1, capacity)
    copied = Tensor.pin_memory if pinned else Tensor.clone
    loader: DataLoader[Handed] = DataLoader(
        Announced(dataset, reading) if workers else dataset,
        num_workers=workers,
        collate_fn=partial(hand_over, slots),
        worker_init_fn=begin_worker,
        timeout=LOOK if workers else 0,
        prefetch_factor=PREFETCHED if workers else None,
        **options,
    )
    iterator, processes = _start(loader)

    def files(readers: list[BaseProcess]) -> list[str]:
        indices = dict(zip(reading[::2], reading[1::2], strict=True))
        found = [indices.get(reader.pid, NOTHING) for reader in readers]
        return [shown(dataset.records[index].image) for index in found if index != NOTHING]

    try:
        while (batch := _next(iterator, processes, files)) is not None:
            if isinstance(batch, DataError):
                raise batch
            if isinstance(batch, Left):
                assert slots is not None
                batch = slots.take(batch, copied)
            elif pinned:
                batch = Sample(*(tensor.pin_memory() for tensor in batch))
            yield batch
    finally:
        # A traceback would keep it until garbage is looked for, which closes its pipes before it tells the workers to
        # end: each of them is then waited for in vain for 5 s.
        del iterator


def hand_over(slots: Slots | None, samples: list[Sample | DataError]) -> Handed:
    """Returns the batch, or word of where it was left for the main process, or the first sample's error."""
    batch = collate(samples)
    return slots.leave(batch) if slots and isinstance(batch, Sample) else batch


class Announced(Dataset[Sample | DataError]):
    """A data set of which each worker leaves word what it reads: its process, and the record's index or NOTHING."""

    def __init__(self, dataset: TrainingSet | EvaluationSet, reading: Any) -> None:
        self.dataset = dataset
        self.reading = reading

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: Any) -> Sample | DataError:
        worker = get_worker_info()
        assert worker is not None
        mine = slice(2 * worker.id, 2 * worker.id + 2)
        self.reading[mine] = (os.getpid(), index[1] if isinstance(index, tuple) else index)
        sample = self.dataset[index]
        self.reading[mine] = (os.getpid(), NOTHING)
        return sample


def _start(loader: DataLoader[Handed]) -> tuple[Iterator[Handed], list[BaseProcess]]:
    """Returns the iterator of a loader and its workers; torch's handler of SIGCHLD is taken away again.

    It raises within whatever Python code runs when a worker dies: in a destructor, where the news is lost, or in the
    midst of saving. Here the workers are looked at while a batch is awaited.
    """
    before = set(multiprocessing.active_children())
    handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
    iterator = iter(loader)
    if handler is not None and signal.getsignal(signal.SIGCHLD) is not handler:
        signal.signal(signal.SIGCHLD, handler)
    return iterator, [process for process in multiprocessing.active_children() if process not in before]


def _next(
    iterator: Iterator[Handed], workers: list[BaseProcess], files: Callable[[list[BaseProcess]], list[str]]
) -> Handed | None:
    """Returns the next batch, None after the last. That a worker has died is seen within a second or two."""
    asked = time.monotonic()
    while True:
        try:
            return next(iterator, None)
        except (RuntimeError, OSError, EOFError) as error:
            waiting = str(error).startswith("DataLoader timed out")
            if waiting and time.monotonic() - asked < TIMEOUT:
                continue
            dead = _dead(workers, wait=FAREWELL if workers and not waiting else 0)
            for worker in workers:
                worker.kill()  # torch would give each one that hangs 5 s to end by itself
            for worker in workers:
                worker.join(FAREWELL)
            if not dead and not waiting:
                raise  # a bug, within a worker or here
            raise _lost(dead, files(dead or workers)) from error


def _dead(workers: list[BaseProcess], *, wait: float) -> list[BaseProcess]:
    """Returns the workers that have died; of one whose pipe broke the system may tell so only a little later."""
    end = time.monotonic() + wait
    while not (dead := [worker for worker in workers if worker.exitcode is not None]) and time.monotonic() < end:
        time.sleep(0.05)
    return dead


def _lost(dead: list[BaseProcess], files: list[str]) -> DataError:
    """Returns what became of workers that are dead, or else hang, and what to do."""
    what, remedy = f"took over {TIMEOUT} s", "see whether the disk or the network that holds the files answers"
    if dead:
        cause, remedy = _death(dead[0].exitcode or 0)
        what = f"died ({cause})"
    reading = f" while reading {', '.join(files)} or the mask of it" if files else ""
    return DataError(
        f"a process that loads images {what}{reading}: {remedy}; or try --set train.workers=0, which loads in the main "
        "process and so shows the file at fault"
    )


def _death(exit_code: int) -> tuple[str, str]:
    name = signal.Signals(-exit_code).name if exit_code < 0 else f"exit code {exit_code}"
    return DEATHS.get(name, (name, "see what it printed above"))
