"""Memory through which loading processes hand over their batches.

Torch sends each tensor through a file of its own in /dev/shm, which the main process asks the worker for over a socket.
In containers that file system is small, and a third of the main process's time for a batch went into it.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from segtool.data.dataset import Sample

ALIGNMENT = 64  # bytes, of where a tensor begins


class Left(NamedTuple):
    """What is said of a batch that lies in a slot."""

    slot: int
    image: tuple[tuple[int, ...], torch.dtype]
    """N H W C, as it lies in memory."""
    target: tuple[int, ...]
    """N H W."""
    indices: tuple[int, ...]


class Slots:
    """A few places for each worker, that it fills by turns; made before the workers are forked.

    Pages that nothing has been written to take no memory.

    Args:
        each: Places of a worker: one more than the batches that it may be ahead of those that were taken.
        capacity: Bytes of a place.
    """

    def __init__(self, workers: int, each: int, capacity: int) -> None:
        self.each = each
        self.capacity = _aligned(capacity) + ALIGNMENT
        self._memory = mmap.mmap(-1, workers * each * self.capacity)
        self._count = 0  # of the batches that this worker has left

    def leave(self, batch: Sample) -> Left | Sample:
        """Leaves a batch in this worker's next place and returns word of it; the batch itself where it is too large."""
        worker = get_worker_info()
        assert worker is not None
        image = batch.image.permute(0, 2, 3, 1)
        if _aligned(image.nbytes) + batch.target.nbytes > self.capacity:
            return batch
        slot = worker.id * self.each + self._count % self.each
        self._count += 1
        indices = tuple(batch.indices.tolist())
        left = Left(slot, (tuple(image.shape), image.dtype), tuple(batch.target.shape), indices)
        for place, tensor in zip(self._places(left), (image, batch.target), strict=True):
            place.copy_(tensor)
        return left

    def take(self, left: Left, copied: Callable[[Tensor], Tensor]) -> Sample:
        """Returns a batch that was left; its images and targets by `copied`, as the place is filled again."""
        image, target = (copied(place) for place in self._places(left))
        return Sample(image.permute(0, 3, 1, 2), target, torch.tensor(left.indices))

    def _places(self, left: Left) -> tuple[Tensor, Tensor]:
        shape, dtype = left.image
        start = left.slot * self.capacity
        image = torch.frombuffer(self._memory, dtype=dtype, count=math.prod(shape), offset=start).view(shape)
        count, behind = math.prod(left.target), start + _aligned(image.nbytes)
        return image, torch.frombuffer(self._memory, dtype=torch.uint8, count=count, offset=behind).view(left.target)


def make_slots(workers: int, each: int, capacity: int) -> Slots | None:
    """Returns `Slots`; None without workers that share them, or where the system gives no such memory."""
    if not workers or not can_be_shared():
        return None
    try:
        return Slots(workers, each, capacity)
    except OSError:
        return None


def can_be_shared() -> bool:
    """Whether loading processes are forked, and so have the memory of this one."""
    return multiprocessing.get_start_method() == "fork"


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
