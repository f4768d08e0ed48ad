"""The processes that train together. The rest of the code knows a `World` only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from segtool.errors import SegtoolError


@dataclass(frozen=True)
class World:
    """This process among those that train together; a single one has rank 0 and size 1."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes."""
        return self.rank == 0

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.size > 1:
            torch.distributed.all_reduce(values)
        return values


def choose_device(name: str) -> torch.device:
    """Returns the device that `--device` names; `auto` takes CUDA, else Apple's MPS, else the CPU.

    Raises:
        SegtoolError: the device is unknown, or this machine or this torch build has none.
    """
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there()))
    if name not in available:
        raise SegtoolError(f"--device {name}: unknown; expected auto, cpu, cuda or mps")
    if not available[name]():
        raise SegtoolError(f"--device {name}: torch {torch.__version__} finds no such device here; use --device cpu")
    return torch.device(name)


@contextmanager
def convolutions_by_trial(device: torch.device) -> Iterator[None]:
    """On CUDA makes cuDNN try its algorithms on each new size inside and take the fastest.

    It is for training, whose crops have one size; the images that are predicted have many.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
