"""How long the structures of masks are, against runs counted one by one."""

from __future__ import annotations

from itertools import groupby

import numpy as np
from PIL import Image

from segtool.data.pairs import Record
from segtool.data.structures import MAX_MASKS, longest_runs, measure_structures


def runs_by_loops(mask: np.ndarray, num_classes: int) -> list[int]:
    longest = [0] * num_classes
    for line in [*mask.tolist(), *mask.T.tolist()]:
        for value, group in groupby(line):
            if value < num_classes:
                longest[value] = max(longest[value], len(list(group)))
    return longest


def test_longest_runs_are_those_of_loops_over_every_row_and_column():
    rng = np.random.default_rng(0)
    for shape in ((1, 1), (1, 7), (7, 1), (13, 8), (30, 31)):
        mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), shape, p=[0.5, 0.3, 0.1, 0.1])
        assert longest_runs(mask, 4).tolist() == runs_by_loops(mask, 4)


def test_a_run_does_not_go_on_in_the_next_row():
    mask = np.array([[0, 1], [1, 0]], np.uint8)
    assert longest_runs(mask, 2).tolist() == [1, 1]


def test_a_structure_is_the_median_over_the_masks_that_have_the_class(make_config, tmp_path):
    records = []
    for number, length in enumerate((4, 6, 20, 0)):
        mask = np.zeros((8, 32), np.uint8)
        mask[3, :length] = 1
        path = tmp_path / f"{number}.png"
        Image.fromarray(mask).save(path)
        records.append(Record(path, path, str(number)))
    ground, block = measure_structures(make_config(), records)  # the third class is nowhere
    assert (ground.name, ground.images, ground.length) == ("ground", 4, 32)
    assert (block.name, block.images, block.length) == ("block", 3, 6)


def test_at_most_a_hundred_masks_are_read(make_config, tmp_path):
    path = tmp_path / "mask.png"
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(path)
    (only,) = measure_structures(make_config(), [Record(path, path, str(n)) for n in range(300)])
    assert only.images == MAX_MASKS
