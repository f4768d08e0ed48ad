"""What a GPU does with an image, recorded for each size: the host then starts one thing in place of a hundred."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from segtool.system.devices import kept_bytes

Work: TypeAlias = Callable[[Tensor], Tensor]

MOST_NUMBERS = 2**22
"""Of an image: larger ones keep a GPU busy for longer than starting takes. A recording holds the memory of a pass."""
MOST_SIZES = 4
"""That are recorded. A set of pictures has few sizes, or one for each picture."""
AGREEMENT = 0.02
"""Of the largest number that the work makes, what a recording may be off: rounding in bfloat16, and nothing else."""
BEFORE = 2
"""Images of a size that go through before it is recorded, which takes the time of about as many."""


class Recordings:
    """Some work on a GPU as recorded for the sizes that have been seen to repeat.

    `record` returns a piece of work as recorded for tensors like the one given, or None where that cannot be; it is
    then not asked again.
    """

    def __init__(self, record: Callable[[Work, Tensor], Work | None]) -> None:
        self._record: Callable[[Work, Tensor], Work | None] | None = record
        self._seen: Counter[object] = Counter()
        self._recorded: dict[object, Work] = {}

    def __call__(self, work: Work, given: Tensor) -> Tensor:
        """Returns what the work, the same in each call, makes on the GPU of a tensor on the CPU or the GPU.

        What it does may depend on the size of the tensor that is given, but not on its numbers.
        """
        kind = (given.shape, given.stride(), given.dtype)
        self._seen[kind] += 1
        repeats = self._seen[kind] == BEFORE + 1 and len(self._recorded) < MOST_SIZES
        if self._record and repeats and given.numel() <= MOST_NUMBERS:
            if recorded := self._record(work, given):
                self._recorded[kind] = recorded
            else:  # what hinders it, hinders it with other sizes too
                self._record = None
        return self._recorded.get(kind, work)(given)


class Graphs:
    """Records work as graphs of CUDA, whose passes share their memory, since each is done when the next begins.

    It is made before other threads read images: torch warns once of what it asks for, and filters of warnings belong
    to all threads.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pool = torch.cuda.graph_pool_handle()
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that it does not see every such place
            torch.cuda.set_sync_debug_mode(torch.cuda.get_sync_debug_mode())

    def __call__(self, work: Work, like: Tensor) -> Work | None:
        """Returns the work as a graph for tensors like the one given; None where it cannot be one."""
        try:
            given = torch.empty_like(like, device=self.device).copy_(like)
            with _waiting_raises():
                expected = work(given)
            # A recording that fails half-way leaves torch in disorder, so what would make it fail is looked for before.
            # A pass takes as much as torch has at hand at most, in which the passes before found room.
            if torch.cuda.mem_get_info(self.device)[0] <= kept_bytes(self.device):
                return None
            graph, made = self._capture(work, given)
            graph.replay()
            if not (made - expected).abs().max() <= AGREEMENT * expected.abs().max():
                return None
        except RuntimeError:  # the work waits for the GPU, or memory does not suffice
            return None

        def replay(tensor: Tensor) -> Tensor:
            given.copy_(tensor)
            graph.replay()
            return made.clone()  # the next replay writes there

        return replay

    def _capture(self, work: Work, given: Tensor) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Returns the graph of the work, and the tensor in which a replay leaves what it makes."""
        graph, stream, current = torch.cuda.CUDAGraph(), _stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            # What other threads do meanwhile, such as NCCL's, is none of the recording's business.
            graph.capture_begin(pool=self.pool, capture_error_mode="thread_local")
            try:
                made = work(given)
            finally:
                graph.capture_end()
        current.wait_stream(stream)
        return graph, made


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """Returns the stream that all is recorded on: for each one torch keeps memory of matrix products to the end."""
    return torch.cuda.Stream(device)


@contextmanager
def _waiting_raises() -> Generator[None]:
    """Inside, torch raises RuntimeError where the host would wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
