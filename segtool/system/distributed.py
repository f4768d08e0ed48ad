"""The processes that train together. The rest of the code knows a `World` only."""

from __future__ import annotations

import ctypes
import datetime
import json
import os
import signal
import socket
import sys
from collections.abc import Generator, Iterable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from segtool.errors import HungError, LostError, SegtoolError

LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PR_SET_PDEATHSIG = 1  # of prctl
ARRIVING = datetime.timedelta(minutes=10)  # from the first process to the last
PREPARING = datetime.timedelta(days=7)  # that the others wait while the main process looks at the data


@dataclass(frozen=True)
class World:
    """This process among those that train together; a single one has rank 0 and size 1.

    Without a group it is a process that is on its own, whatever its size: nothing is added up.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    """Processes on this machine."""
    group: Any = None
    """Of torch: on the CPU gloo, on CUDA NCCL."""
    patient: Any = None
    """The same processes, who wait for one another without limit."""

    @property
    def is_main(self) -> bool:
        """Whether this process writes, and speaks."""
        return self.rank == 0

    @property
    def alone(self) -> World:
        """This process with its share of the work, but without the others."""
        return replace(self, group=None)

    def limited(self, seconds: float) -> World:
        """Returns the world whose processes wait no longer than this for one another; all call it together."""
        if self.group is None:
            return self
        group = torch.distributed.new_group(timeout=datetime.timedelta(seconds=seconds))
        return replace(self, group=group, patient=self.group)

    def meet(self) -> None:
        """Waits until all processes are here, without limit: after what may take one longer than another."""
        if self.patient is not None:
            torch.distributed.all_reduce(torch.tensor(0), group=self.patient)

    def sum(self, values: Tensor) -> Tensor:
        """Returns the sum of `values` over all processes."""
        if self.group is not None:
            torch.distributed.all_reduce(values, group=self.group)
        return values

    def largest(self, value: int) -> int:
        """Returns the largest of the processes' values; it waits for no GPU."""
        if self.group is None:
            return value
        values = torch.tensor(int(value))
        torch.distributed.all_reduce(values, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(values)

    def gather(self, rows: Tensor) -> Tensor:
        """Returns the rows N M of all processes one after the other, in the order of their ranks; N may differ."""
        if self.group is None:
            return rows
        counts = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        torch.distributed.all_gather(counts, torch.tensor([len(rows)]), group=self.group)
        most = max(int(count) for count in counts)
        padded = torch.cat([rows, rows.new_zeros(most - len(rows), *rows.shape[1:])])
        found = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(found, padded, group=self.group)
        return torch.cat([part[: int(count)] for part, count in zip(found, counts, strict=True)])

    def gather_json(self, values: list[Any]) -> list[Any]:
        """Returns the lists of all processes one after the other, in the order of their ranks."""
        lines = "".join(json.dumps(value) + "\n" for value in values).encode()
        return [json.loads(line) for line in self.gather(_tensor_of(lines)).numpy().tobytes().splitlines()]

    @contextmanager
    def agreed(self) -> Generator[None]:
        """Ends all processes where what is inside fails in one, with the error of the first one only.

        Raises:
            SegtoolError: what was raised inside, of this process.
            LostError: an error of another process, which tells it.
        """
        failed = None
        try:
            yield
        except SegtoolError as error:
            failed = error
        first = self.size - self.largest(0 if failed is None else self.size - self.rank)
        if failed is not None and first == self.rank:
            raise failed
        if first < self.size:
            raise LostError(f"process {first} of {self.size} cannot begin") from failed

    def send(self, text: str) -> None:
        """Gives all other processes what `receive` returns there."""
        if self.group is not None:
            content = _tensor_of(text.encode())
            torch.distributed.broadcast(torch.tensor(len(content)), 0, group=self.group)
            torch.distributed.broadcast(content, 0, group=self.group)

    def receive(self) -> str:
        """Waits for what the main process sends."""
        size = torch.tensor(0)
        torch.distributed.broadcast(size, 0, group=self.group)
        content = torch.empty(int(size), dtype=torch.uint8)
        torch.distributed.broadcast(content, 0, group=self.group)
        return content.numpy().tobytes().decode()

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Copies the values of the main process into the tensors of all others."""
        if self.group is not None:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, 0, group=self.group)

    def parallel(self, model: nn.Module) -> nn.Module:
        """Returns what images go through in training: its backward pass leaves each process the mean gradient.

        The values of the main process are spread, those of buffers again in each forward pass. Which parameters have a
        gradient is fixed from here on.
        """
        if self.group is None:
            return model
        self.meet()  # weights may have been downloaded
        return DistributedDataParallel(model, process_group=self.group)


def _tensor_of(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())


ALONE = World()


def apart(network: nn.Module) -> AbstractContextManager[object]:
    """Inside, the backward passes of what `World.parallel` returned add to each process's own gradients only."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()


@contextmanager
def join_world() -> Generator[World]:
    """Gives this process its place among those that torchrun started, and leaves them at the end.

    Raises:
        SegtoolError: the environment is not that of a launcher.
        HungError: the others are not reached, or one has not answered within the time.
        LostError: another process has ended.
    """
    world = world_of(os.environ)
    if world.size == 1:
        yield world
        return
    _end_with_the_launcher()
    if world.local_size == world.size:
        # All on one machine: it may have no network at all, or a name that leads nowhere.
        names = [name for _, name in socket.if_nameindex()]
        loopback = next((name for name in names if name in ("lo", "lo0")), names[0])
        os.environ.setdefault("GLOO_SOCKET_IFNAME", loopback)
    cuda = torch.cuda.is_available() and torch.distributed.is_nccl_available()
    try:
        from torch.distributed.rendezvous import rendezvous  # which not every build of torch has

        store, *_ = next(rendezvous("env://", timeout=ARRIVING))
        # torchrun keeps its store when it starts all again; what the last processes left in it leads to them.
        store = torch.distributed.PrefixStore(f"start-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        torch.distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=ARRIVING,
        )
        group = torch.distributed.new_group(timeout=PREPARING)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        message = f"process {world.rank} of {world.size} does not reach the others by {place} ({error}); "
        message += "correct the address, or set GLOO_SOCKET_IFNAME to the network that joins them"
        raise HungError(message) from error
    try:
        yield replace(world, group=group)
    except RuntimeError as error:
        if meaning := failed_together(error, world):
            raise meaning from error
        raise
    # Where an error ends the process, so does its part in the group: what waits for it is told at once.
    torch.distributed.destroy_process_group()


def world_of(environment: Mapping[str, str]) -> World:
    """Returns the place of this process as its launcher has put it into the environment.

    Raises:
        SegtoolError: half of it is there, or what is there makes no sense.
    """
    there = [name for name in LAUNCHED if environment.get(name)]
    if not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & set(there):
        return World()
    if missing := [name for name in LAUNCHED if name not in there]:
        raise SegtoolError(
            f"the environment has {', '.join(there)}, but not {', '.join(missing)}: start several processes with "
            "torchrun, which sets them all, or with --gpus N; for one process unset them"
        )
    try:
        rank, size, local_size = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"))
        if not (0 <= rank < size and 1 <= local_size <= size):
            raise ValueError
    except ValueError:
        given = ", ".join(f"{name}={environment[name]}" for name in LAUNCHED)
        raise SegtoolError(f"the environment has {given}; expected the numbers that torchrun sets") from None
    return World(rank, size, local_size)


def _end_with_the_launcher() -> None:
    """Has Linux send this process SIGTERM when what started it is killed: else it would train on, seen by nobody."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def failed_together(error: Exception, world: World) -> SegtoolError | None:
    """Returns what an error of torch's communication means; None of another error."""
    text = str(error)
    if isinstance(error, torch.distributed.DistError) or "gloo" in text or "NCCL" in text:
        if "imed out" in text or "imeout" in text:
            return HungError(
                f"process {world.rank} of {world.size} has waited for the others longer than train.timeout allows: one "
                "of them hangs or is stopped, or takes longer than that (a larger train.timeout gives it more time)"
            )
        return LostError(f"another process of the job has ended (process {world.rank} of {world.size} waited for it)")
    return None
