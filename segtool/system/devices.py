"""The device that computes: which it is, what memory is free on it, and how it chooses its convolutions."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager

import torch

from segtool.errors import SegtoolError
from segtool.system.distributed import World
from segtool.system.memory import free_memory
from segtool.system.pools import num_threads


def choose_device(name: str) -> torch.device:
    """Returns the device that `--device` names; `auto` takes CUDA, else Apple's MPS, else the CPU.

    From then on torch has no more threads than there are processors for this process.

    Raises:
        SegtoolError: the device is unknown, or this machine or this torch build has none.
    """
    if num_threads() < torch.get_num_threads():  # which wait without sleeping, and use up the time of a container
        torch.set_num_threads(num_threads())
    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available, "cpu": lambda: True}
    if name == "auto":
        return torch.device(next(kind for kind, there in available.items() if there()))
    if name not in available:
        raise SegtoolError(f"--device {name}: unknown; expected auto, cpu, cuda or mps")
    if not available[name]():
        raise SegtoolError(f"--device {name}: torch {torch.__version__} finds no such device here; use --device cpu")
    return torch.device(name)


def place(world: World, device: torch.device) -> torch.device:
    """Returns the device of this process: of several processes on a machine each has its own GPU.

    Raises:
        SegtoolError: there are fewer GPUs than processes, or processes cannot work together on such a device.
    """
    if world.size == 1 or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise SegtoolError(f"--device {device}: several processes compute on cuda or cpu; choose one of them")
    check_gpus(world.local_size)
    mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(mine)
    return mine


def check_gpus(count: int) -> None:
    """Raises SegtoolError where this machine has fewer GPUs than that."""
    if count > (there := torch.cuda.device_count()):
        raise SegtoolError(f"{count} processes, and this machine has {there} GPUs; start at most one process for each")


def free_bytes(device: torch.device) -> int | None:
    """Returns the memory that is free on a device, with what torch has kept for itself; None where it is unknown."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] + kept_bytes(device)
    return free_memory() if device.type == "cpu" else None


def kept_bytes(device: torch.device) -> int:
    """Returns the memory of a GPU that torch has at hand for further tensors."""
    return torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@contextmanager
def convolutions_by_trial(device: torch.device) -> Generator[None]:
    """Inside, has cuDNN try its algorithms on each new size and keep the fastest (`torch.backends.cudnn.benchmark`).

    For training, whose crops have one size; the images that are predicted have many.
    """
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = before or device.type == "cuda"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
