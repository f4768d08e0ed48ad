"""When the work for an image is recorded, with a stand-in for a GPU; tests/test_cuda.py has the graphs themselves."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from segtool.prediction import recording
from segtool.prediction.recording import BEFORE, MOST_NUMBERS, MOST_SIZES, Recordings, Work


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
    assert signs(Recordings(tape), *[torch.ones(3, 4, 5)] * 6) == [1] * 6
    assert len(tape.asked) == 1
