"""When the work for an image is recorded, with a stand-in for a GPU; tests/test_cuda.py has the graphs themselves."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from segtool.prediction import recording
from segtool.prediction.recording import BEFORE, MOST_NUMBERS, MOST_SIZES, Graphs, Recordings, Work

CPU = torch.device("cpu")


class Tape:
    """Records by noting what was asked for; what is played back says so by its sign."""

    def __init__(self, *, able: bool = True) -> None:
        self.able = able
        self.asked: list[torch.Size] = []

    def __call__(self, work: Work, like: Tensor) -> Work | None:
        self.asked.append(like.shape)
        return (lambda given: -work(given)) if self.able else None


def doubled(given: Tensor) -> Tensor:
    return 2 * given


def signs(recordings: Recordings, *images: Tensor) -> list[int]:
    """Returns 1 for each image that the work was done for, -1 for each that a recording was played for."""
    made = [recordings(doubled, image) for image in images]
    assert all(torch.equal(one.abs(), 2 * image) for one, image in zip(made, images, strict=True))
    return [int(one.flatten()[0].sign()) for one in made]


def test_a_size_is_recorded_once_when_it_has_come_often_enough():
    tape = Tape()
    assert signs(Recordings(tape), *[torch.ones(3, 4, 5)] * 6) == [1] * BEFORE + [-1] * (6 - BEFORE)
    assert tape.asked == [(3, 4, 5)]


def test_sizes_orders_in_memory_and_types_are_recorded_apart():
    image = torch.ones(3, 4, 5)
    kinds = [image, image.transpose(1, 2), image.permute(1, 2, 0).contiguous().permute(2, 0, 1), image.to(torch.int16)]
    recordings = Recordings(Tape())
    for kind in kinds:
        assert signs(recordings, *[kind] * (BEFORE + 1)) == [1] * BEFORE + [-1]


def test_so_many_sizes_are_recorded_and_no_more():
    tape = Tape()
    recordings = Recordings(tape)
    images = [torch.ones(1, 1, width) for width in range(1, MOST_SIZES + 3)]
    assert signs(recordings, *images * 4)[-len(images) :] == [-1] * MOST_SIZES + [1, 1]
    assert len(tape.asked) == MOST_SIZES


def test_sizes_that_do_not_repeat_are_not_recorded():
    tape = Tape()
    assert set(signs(Recordings(tape), *(torch.ones(1, 1, width) for width in range(1, 50)))) == {1}
    assert tape.asked == []


@pytest.mark.parametrize(("beyond", "sign"), [(0, -1), (1, 1)])
def test_large_images_are_not_recorded(monkeypatch, beyond, sign):
    assert MOST_NUMBERS > 3 * 1024**2
    monkeypatch.setattr(recording, "MOST_NUMBERS", 60 - beyond)
    assert signs(Recordings(Tape()), *[torch.ones(3, 4, 5)] * 4)[-1] == sign


def test_work_that_cannot_be_recorded_is_done_each_time_and_asked_for_once():
    tape = Tape(able=False)
    assert signs(Recordings(tape), *[torch.ones(3, 4, 5), torch.ones(3, 5, 4)] * 6) == [1] * 12
    assert tape.asked == [(3, 4, 5)]


# --- graphs


class Gpu:
    """What `Graphs` asks of torch.cuda, noted in `done`; work is done on the CPU, where a replay does it again."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.mode = "default"
        self.free, self.reserved = 100, 50
        gpu = self

        class Graph:
            def capture_begin(self, *, pool: object, capture_error_mode: str) -> None:
                assert pool == "pool"
                gpu.done.append(f"begin {capture_error_mode}")

            def capture_end(self) -> None:
                gpu.done.append("end")

            def replay(self) -> None:
                gpu.done.append("replay")
                gpu.again()

        class Stream:
            def wait_stream(self, _: object) -> None:
                gpu.done.append("wait")

        @contextmanager
        def stream(_: Stream) -> Iterator[None]:
            yield
            gpu.done.append("left the stream")

        fakes = {
            "CUDAGraph": Graph,
            "Stream": lambda _: Stream(),
            "current_stream": lambda _: Stream(),
            "stream": stream,
            "graph_pool_handle": lambda: "pool",
            "get_sync_debug_mode": lambda: gpu.mode,
            "set_sync_debug_mode": lambda mode: setattr(gpu, "mode", mode),
            "memory_reserved": lambda _: gpu.reserved,
            "memory_allocated": lambda _: 10,
            "mem_get_info": lambda _: (gpu.free, 1000),
        }
        for name, fake in fakes.items():
            monkeypatch.setattr(torch.cuda, name, fake)
        monkeypatch.setattr(recording, "_stream", lambda _: Stream())

    def again(self) -> None:
        """What a replay does."""

    def work(self, *, wrong: float = 0.0) -> Work:
        """Returns work that doubles; what a replay makes of it is `wrong` by so much."""

        def work(given: Tensor) -> Tensor:
            made = 2 * given
            self.again = lambda: made.copy_(2 * given + wrong)
            return made

        return work


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    return Gpu(monkeypatch)


IMAGE = torch.arange(60.0).view(3, 4, 5)


def test_a_graph_is_played_back_for_other_images_and_its_answers_stay(gpu):
    played = Graphs(CPU)(gpu.work(), IMAGE)
    assert gpu.done == ["wait", "begin thread_local", "end", "left the stream", "wait", "replay"]
    answers = [played(image) for image in (IMAGE, IMAGE + 1)]
    assert torch.equal(answers[0], 2 * IMAGE)
    assert torch.equal(answers[1], 2 * IMAGE + 2)
    assert gpu.mode == "default"


@pytest.mark.parametrize(("wrong", "used"), [(2.0, True), (3.0, False), (math.nan, False)])
def test_a_graph_that_answers_otherwise_than_the_work_is_not_used(gpu, wrong, used):
    assert (Graphs(CPU)(gpu.work(wrong=wrong), IMAGE) is not None) == used  # 0.02 of 118 is 2.36


@pytest.mark.parametrize(("free", "tried"), [(41, True), (40, False)])
def test_nothing_is_recorded_where_less_memory_is_free_than_a_pass_may_take(gpu, free, tried):
    gpu.free = free
    assert (Graphs(CPU)(gpu.work(), IMAGE) is not None) == tried
    assert bool(gpu.done) == tried


def test_work_that_would_wait_is_found_before_anything_is_recorded(gpu):
    def waits(given: Tensor) -> Tensor:
        if gpu.mode == "error":
            raise RuntimeError("called a synchronizing CUDA operation")
        return given

    assert Graphs(CPU)(waits, IMAGE) is None
    assert gpu.done == []
    assert gpu.mode == "default"


def test_a_recording_that_fails_half_way_is_ended_on_its_stream(gpu):
    calls = []

    def fails_later(given: Tensor) -> Tensor:
        calls.append(given)
        if len(calls) > 1:
            raise torch.OutOfMemoryError
        return given

    assert Graphs(CPU)(fails_later, IMAGE) is None
    assert gpu.done[:3] == ["wait", "begin thread_local", "end"]


def test_an_error_that_is_none_of_the_gpu_is_told(gpu):
    def broken(_: Tensor) -> Tensor:
        raise KeyError

    with pytest.raises(KeyError):
        Graphs(CPU)(broken, IMAGE)
