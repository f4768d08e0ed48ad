"""What a GPU does with an image, recorded for each size: the host then starts one thing in place of a hundred."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from torch import Tensor

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

    Args:
        record: Returns a piece of work as recorded for tensors like the one given, or None where that cannot be.
    """

    def __init__(self, record: Callable[[Work, Tensor], Work | None]) -> None:
        self._record = record
        self._seen: Counter[object] = Counter()
        self._recorded: dict[object, Work | None] = {}

    def __call__(self, work: Work, given: Tensor) -> Tensor:
        """Returns what the work makes of a tensor.

        Args:
            work: Makes a tensor on the GPU of one on the CPU or the GPU; the same work in each call. What it does may
                depend on the size of the tensor that is given, but not on its numbers.
        """
        kind = (given.shape, given.stride(), given.dtype)
        self._seen[kind] += 1
        if self._seen[kind] == BEFORE + 1 and len(self._recorded) < MOST_SIZES and given.numel() <= MOST_NUMBERS:
            self._recorded[kind] = self._record(work, given)
        return (self._recorded.get(kind) or work)(given)


def graph_of(work: Work, like: Tensor, *, device: torch.device) -> Work | None:
    """Returns the work as a graph of CUDA for tensors like the one given; None where it cannot be one.

    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
    """
    given = torch.empty_like(like, device=device).copy_(like)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device)
    try:
        with _waiting_raises():  # a recording that fails leaves torch in disorder; what would make it fail shows here
            expected = work(given)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream):
            graph.capture_begin(capture_error_mode="thread_local")  # other threads pin memory meanwhile
            try:
                made = work(given)
            finally:
                graph.capture_end()
        torch.cuda.current_stream(device).wait_stream(stream)
        graph.replay()
    except RuntimeError:  # the work waits for the GPU, or memory does not suffice
        return None
    if not (made - expected).abs().max() <= AGREEMENT * expected.abs().max():
        return None

    def replay(tensor: Tensor) -> Tensor:
        given.copy_(tensor)
        graph.replay()
        return made.clone()  # the next replay writes there

    return replay


@contextmanager
def _waiting_raises() -> Generator[None]:
    """Inside, torch raises RuntimeError where the host would wait for the GPU."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that it does not see every such place
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)
