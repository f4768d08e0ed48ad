"""Samples and batches: a pure function of (seed, epoch, index), whoever loads them, and errors that name the file."""

from __future__ import annotations

import multiprocessing
import pickle
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from segtool.commands import preparation
from segtool.config import Augment, ClassSpec, Config, Data
from segtool.config.rules import problems
from segtool.data import cache as cache_module
from segtool.data.cache import Cache, choose_cache
from segtool.data.codes import IGNORE
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet, permutation, stream_keys
from segtool.data.loader import FEW, collate, evaluation_batches, num_workers, step_keys, training_batches
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.statistics import class_frequencies
from segtool.errors import DataError
from segtool.system import memory
from segtool.system.distributed import World
from segtool.training.plan import Plan

AUGMENT = Augment(scale=(0.7, 1.5), flip="both", rotate=20, color=0.3)
CROP = (12, 10)
lengths = st.integers(1, 40)
# Torch's advice, which is an error here, on a machine of one core.
two_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create")


def config(channels: int = 3, **data) -> Config:
    classes = tuple(ClassSpec(f"c{value}", values=(value,)) for value in range(3))
    return Config(data=Data(classes=classes, ignore=(9,), channels=channels, **data))


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> list[Record]:
    """Seven pairs of 14 x 16 pixels and more, three classes and ignored pixels."""
    folder = tmp_path_factory.mktemp("pairs")
    return [write_pair(folder, f"{number}", size=(14 + number, 16), seed=number) for number in range(7)]


def write_pair(folder: Path, stem: str, *, size=(14, 16), seed=0, mode="RGB") -> Record:
    rng = np.random.default_rng(seed)
    shape = (*size, 3) if mode == "RGB" else size
    dtype = np.uint16 if mode == "I;16" else np.uint8
    pixels = rng.integers(np.iinfo(dtype).max + 1, size=shape, dtype=dtype)
    mask = rng.choice(np.array([0, 1, 2, 9], np.uint8), size=size)
    image, target = folder / f"{stem}.png", folder / f"{stem}_mask.png"
    Image.fromarray(pixels).save(image)
    Image.fromarray(mask).save(target)
    return Record(image, target, stem)


def training_set(records, *, seed=3, augment=AUGMENT, channels=3, crop=CROP, cache=None) -> TrainingSet:
    return TrainingSet(records, Reader.of(config(channels)), augment, crop, seed, cache=cache)


def sample(dataset, key) -> Sample:
    found = dataset[key]
    assert isinstance(found, Sample)
    return found


def same(first: Sample, second: Sample) -> bool:
    return all(a.dtype == b.dtype and torch.equal(a, b) for a, b in zip(first, second, strict=True))


def load(records, *, workers=0, start=0, steps=6, batch_size=3, world=None, cache=None) -> list[Sample]:
    dataset = training_set(records, cache=cache)
    batches = training_batches(
        dataset, world or World(), batch_size=batch_size, start=start, steps=steps, workers=workers
    )
    return list(batches)


def test_a_sample_has_the_crop_s_size_and_says_which_record_it_is(records):
    image, target, index = sample(training_set(records), (0, 4))
    assert (image.shape, image.dtype) == ((3, *CROP), torch.uint8)
    assert (target.shape, target.dtype) == (CROP, torch.uint8)
    assert set(target.unique().tolist()) <= {0, 1, 2, IGNORE}
    assert index.item() == 4


def test_without_augmentation_a_sample_is_the_stored_image_and_the_decoded_mask(records):
    image, target, _ = sample(training_set(records, augment=Augment(), crop=(14, 16)), (0, 0))
    assert records[0].mask is not None
    stored = np.asarray(Image.open(records[0].mask))
    assert np.array_equal(image.numpy().transpose(1, 2, 0), np.asarray(Image.open(records[0].image)))
    assert np.array_equal(target.numpy(), np.where(stored == 9, IGNORE, stored))


def test_a_sample_is_a_function_of_seed_epoch_and_index_alone(records):
    first, second = training_set(records), training_set(records)
    sample(second, (0, 1))  # what was read before does not matter
    np.random.seed(1)
    torch.manual_seed(1)
    assert same(sample(first, (5, 2)), sample(second, (5, 2)))


@pytest.mark.parametrize(("seed", "key"), [(3, (6, 2)), (4, (5, 2))])
def test_another_epoch_or_seed_gives_another_sample(records, seed, key):
    other = sample(training_set(records, seed=seed), key)
    assert not torch.equal(sample(training_set(records), (5, 2)).image, other.image)


@two_workers
@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_change_a_batch(records, workers):
    alone, helped = load(records), load(records, workers=workers)
    assert len(alone) == len(helped) == 6
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


@two_workers
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_cache_does_not_change_a_batch_and_is_filled(records, workers):
    cache = Cache(len(records), 10**6)
    plain, cached = load(records, steps=8), load(records, steps=8, workers=workers, cache=cache)
    assert all(same(a, b) for a, b in zip(plain, cached, strict=True))
    assert all(cache.get(number) is not None for number in range(len(records)))


@pytest.mark.parametrize("workers", [0, 1])
def test_with_a_cache_files_may_go_once_they_have_been_read(tmp_path, workers):
    pairs = [write_pair(tmp_path, f"{number}", seed=number) for number in range(4)]
    wanted = load(pairs, steps=4, batch_size=4)
    cache = Cache(len(pairs), 10**6)
    assert len(load(pairs, steps=1, batch_size=4, workers=workers, cache=cache)) == 1
    for pair in pairs:
        pair.image.unlink()
    found = load(pairs, steps=4, batch_size=4, workers=workers, cache=cache)
    assert all(same(a, b) for a, b in zip(wanted, found, strict=True))
    with pytest.raises(DataError, match="no such file"):
        load(pairs, steps=4, batch_size=4, workers=workers)


@pytest.mark.parametrize("room", [0, 1000, 3000])
def test_a_cache_that_is_full_keeps_no_more_and_changes_nothing(records, room):
    cache = Cache(len(records), room)
    assert all(same(a, b) for a, b in zip(load(records), load(records, cache=cache), strict=True))
    assert cache.used <= room
    kept = [number for number in range(len(records)) if cache.get(number) is not None]
    assert bool(kept) == (room > 0)
    assert sum((14 + number) * 16 * 4 for number in kept) <= cache.used
    assert len(kept) < len(records)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_what_is_kept_is_what_was_read_in_either_type_and_cannot_be_written_to(tmp_path, mode, channels):
    pairs = [write_pair(tmp_path, f"{i}", size=(5 + i, 7), seed=i, mode=mode) for i in range(3)]
    dataset = training_set(pairs, channels=channels, cache=Cache(3, 10**5))
    for _ in range(2):
        for number, pair in enumerate(pairs):
            image, target = dataset._pair(number)
            read = dataset.reader.pair(pair)
            assert (image.dtype, image.shape) == (read[0].dtype, read[0].shape)
            assert np.array_equal(image, read[0])
            assert np.array_equal(target, read[1])
    assert not image.flags.writeable
    assert not target.flags.writeable


def test_an_error_is_not_kept(tmp_path):
    record = write_pair(tmp_path, "a")
    whole = record.image.read_bytes()
    record.image.write_bytes(whole[:60])
    dataset = training_set([record], cache=Cache(1, 10**5))
    assert isinstance(dataset[0, 0], DataError)
    record.image.write_bytes(whole)
    assert same(sample(dataset, (0, 0)), sample(training_set([record]), (0, 0)))


def test_a_cache_that_is_pickled_is_an_empty_one_of_the_same_room():
    cache = Cache(2, 500)
    cache.put(1, np.zeros((2, 3, 1), np.uint8), np.zeros((2, 3), np.uint8))
    other = pickle.loads(pickle.dumps(cache))
    assert (other.capacity, other.used, other.get(1)) == (500, 0, None)


def test_images_are_kept_where_they_take_at_most_a_quarter_of_the_free_memory(monkeypatch):
    needed = 100 * 10 * 20 * 4
    facts = {"images": 100, "size": (10, 20), "channels": 3}
    monkeypatch.setattr(cache_module, "free_memory", lambda: 4 * needed)
    assert choose_cache("auto", **facts)[0]
    assert not choose_cache("auto", **facts, value_bytes=4)[0]
    assert choose_cache(False, **facts)[0] is False
    monkeypatch.setattr(cache_module, "free_memory", lambda: 4 * needed - 4)
    keep, reason = choose_cache("auto", **facts)
    assert not keep
    assert "more than a quarter" in reason
    assert choose_cache(True, **facts) == (True, "as the config says")


def test_the_free_memory_is_the_lesser_of_the_system_s_and_the_control_group_s(tmp_path, monkeypatch):
    system = tmp_path / "meminfo"
    system.write_text("MemTotal: 9 kB\nMemAvailable:    5 kB\n")
    assert 0 < (memory.free_memory() or 0) < 10**14
    monkeypatch.setattr(memory, "_left_of_address_space", lambda: None)
    monkeypatch.setattr(memory.control_group, "free_memory", lambda: None)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert memory.free_memory() is None
    monkeypatch.setattr(memory, "MEMINFO", system)
    assert memory.free_memory() == 5 * 1024
    monkeypatch.setattr(memory.control_group, "free_memory", lambda: 350)
    assert memory.free_memory() == 350
    monkeypatch.setattr(memory, "_left_of_address_space", lambda: 40)
    assert memory.free_memory() == 40


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is not held elsewhere")
def test_a_cache_is_no_larger_than_a_limit_on_the_address_space_allows():
    """It could not be made at all, where the machine has far more memory than the job was given."""
    code = (
        "import resource\nfrom segtool.data.cache import make_cache\n"
        "from segtool.system.memory import _address_space, free_memory\n"
        "resource.setrlimit(resource.RLIMIT_AS, (_address_space() + 2**28, resource.RLIM_INFINITY))\n"
        "assert 0 < free_memory() <= 2**28\nmake_cache(3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_where_the_free_memory_is_unknown_nothing_is_kept_unasked_and_little_when_asked(monkeypatch):
    monkeypatch.setattr(cache_module, "free_memory", lambda: None)
    keep, reason = choose_cache("auto", images=1, size=(8, 8), channels=3)
    assert not keep
    assert "does not tell" in reason
    assert cache_module.make_cache(1).capacity == 2**32


def test_two_epochs_hold_each_record_twice_and_in_another_order(records):
    order = torch.cat([batch.indices for batch in load(records, steps=7, batch_size=2)]).tolist()
    assert sorted(order[:7]) == sorted(order[7:]) == list(range(7))
    assert order[:7] != order[7:]


@pytest.mark.parametrize("start", [1, 3, 5])
def test_a_start_in_the_middle_gives_the_same_tail(records, start):
    whole, tail = load(records), load(records, start=start)
    assert all(same(a, b) for a, b in zip(whole[start:], tail, strict=True))


def test_a_start_at_the_end_gives_nothing(records):
    assert load(records, start=6) == []


@given(length=lengths, batch=st.integers(1, 12), size=st.integers(1, 4), seed=st.integers(0, 1000))
@settings(deadline=None)
def test_each_epoch_holds_each_index_once_for_any_batch_and_world(length, batch, size, seed):
    batch *= size  # an equal share for each process
    epochs = 3
    steps = -(-epochs * length // batch)
    worlds = [World(rank, size) for rank in range(size)]
    ranks = [list(step_keys(length, batch, seed, world, start=0, steps=steps)) for world in worlds]
    assert {len(keys) for steps_of_rank in ranks for keys in steps_of_rank} == {batch // size}
    # Dealing the ranks' keys out in turn gives the stream of one process.
    dealt = [key for step in zip(*ranks, strict=True) for turn in zip(*step, strict=True) for key in turn]
    alone = step_keys(length, batch, seed, World(), start=0, steps=steps)
    assert dealt == [key for step in alone for key in step]
    counts = Counter(dealt)
    assert set(counts.values()) == {1}
    assert {(epoch, index) for epoch in range(epochs) for index in range(length)} <= set(counts)


@given(length=lengths, start=st.integers(0, 200), size=st.integers(0, 100), cut=st.integers(0, 100))
@settings(deadline=None)
def test_the_stream_can_be_cut_anywhere(length, start, size, cut):
    middle = start + min(cut, size)
    whole = stream_keys(7, length, start, start + size)
    assert whole == stream_keys(7, length, start, middle) + stream_keys(7, length, middle, start + size)
    assert len(whole) == size
    assert [epoch for epoch, _ in whole] == [place // length for place in range(start, start + size)]


def test_the_order_depends_on_seed_and_epoch():
    orders = {tuple(permutation(seed, epoch, 50)) for seed in range(3) for epoch in range(3)}
    assert len(orders) == 9
    assert all(sorted(order) == list(range(50)) for order in orders)


def test_evaluation_takes_whole_images_one_by_one_in_order(records):
    batches = list(evaluation_batches(EvaluationSet(records, Reader.of(config())), World(), workers=0))
    assert [batch.indices.tolist() for batch in batches] == [[i] for i in range(7)]
    assert [tuple(batch.image.shape) for batch in batches] == [(1, 3, 14 + i, 16) for i in range(7)]
    assert [tuple(batch.target.shape) for batch in batches] == [(1, 14 + i, 16) for i in range(7)]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_processes_share_the_evaluation_without_padding(records, size):
    dataset = EvaluationSet(records, Reader.of(config()))
    shares = [list(evaluation_batches(dataset, World(rank, size), workers=0)) for rank in range(size)]
    seen = [int(batch.indices) for share in shares for batch in share]
    assert sorted(seen) == list(range(7))


@two_workers
def test_evaluation_with_workers_gives_the_same(records):
    dataset = EvaluationSet(records * 2, Reader.of(config()))
    alone, helped = (list(evaluation_batches(dataset, World(), workers=workers)) for workers in (0, 2))
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


@pytest.mark.parametrize(("images", "processes"), [(FEW - 1, 0), (FEW, 2)])
@two_workers
def test_few_images_are_evaluated_without_other_processes(records, images, processes):
    batches = evaluation_batches(EvaluationSet((records * 2)[:images], Reader.of(config())), World(), workers=2)
    next(batches)
    assert len(multiprocessing.active_children()) == processes
    assert len(list(batches)) == images - 1


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["broken image", "broken mask", "unknown value", "other size", "no mask"])
def test_a_bad_file_is_a_data_error_that_names_it_also_from_a_worker(tmp_path, kind, workers):
    good, bad = write_pair(tmp_path, "good"), write_pair(tmp_path, "bad")
    assert bad.mask is not None
    named = bad.image if kind in ("broken image", "no mask") else bad.mask
    if kind.startswith("broken"):
        named.write_bytes(named.read_bytes()[:60])
    elif kind == "no mask":
        bad = replace(bad, mask=None)
    else:
        size = (14, 16) if kind == "unknown value" else (14, 15)
        Image.fromarray(np.full(size, 77 if kind == "unknown value" else 0, np.uint8)).save(bad.mask)
    before = set(multiprocessing.active_children())
    with pytest.raises(DataError) as error:
        load([good, bad], workers=workers, steps=2, batch_size=2)
    assert set(multiprocessing.active_children()) <= before  # though the error holds every frame that it came through
    assert str(named) in str(error.value)
    assert "Traceback" not in str(error.value)
    with pytest.raises(DataError, match=named.name):
        list(evaluation_batches(EvaluationSet([good] * 7 + [bad], Reader.of(config())), World(), workers=workers))


def test_sizes_that_differ_are_both_told(tmp_path):
    record = write_pair(tmp_path, "a", size=(14, 16))
    Image.fromarray(np.zeros((16, 14), np.uint8)).save(tmp_path / "a_mask.png")
    error = training_set([record])[(0, 0)]
    assert isinstance(error, DataError)
    assert "14x16 pixels" in str(error)
    assert "has 16x14" in str(error)


def test_names_in_an_error_do_nothing_in_a_terminal(tmp_path):
    error = training_set([Record(tmp_path / "a\x1b[2J.png", None, "a")])[(0, 0)]
    assert isinstance(error, DataError)
    assert "\x1b" not in str(error)


class Failing(TrainingSet):
    """Does something bad instead of loading the record number 1."""

    def __init__(self, records, action) -> None:
        super().__init__(records, Reader.of(config()), Augment(), CROP, 0)
        self.action = action

    def __getitem__(self, index):
        if index[1] == 1:
            self.action()
        return super().__getitem__(index)


def broken() -> None:
    raise RuntimeError("a bug in our code")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_of_ours_is_not_taken_for_bad_data(records, workers):
    with pytest.raises(RuntimeError, match="a bug in our code"):
        list(training_batches(Failing(records[:2], broken), World(), batch_size=2, start=0, steps=1, workers=workers))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_a_sample_owns_its_pixels_for_every_number_of_channels(tmp_path, mode, channels):
    """Torch warns, and pytest fails, where a tensor would lie on pixels that must not be written."""
    record = write_pair(tmp_path, "a", mode=mode)
    for augment, crop in ((Augment(), (14, 16)), (Augment(), CROP), (AUGMENT, CROP), (AUGMENT, (1, 1))):
        dataset = training_set([record], augment=augment, channels=channels, crop=crop)
        image, target, _ = sample(dataset, (0, 0))
        assert image.shape == (channels, *crop)
        assert image.permute(1, 2, 0).is_contiguous()
        image.zero_()
        target.zero_()
    whole = EvaluationSet([record], Reader.of(config(channels)))[0]
    assert isinstance(whole, Sample)
    assert whole.image.shape == (channels, 14, 16)


def test_16_bits_a_pixel_become_floats_of_the_same_range_with_nothing_clipped(tmp_path):
    record = write_pair(tmp_path, "a", mode="I;16")
    stored = np.asarray(Image.open(record.image)).astype(np.float64)
    image, _, _ = sample(training_set([record], augment=Augment(), channels=1, crop=(14, 16)), (0, 0))
    assert image.dtype == torch.float32
    assert np.abs(image.numpy()[0] - stored * 255 / 65535).max() < 1e-4


def test_a_batch_of_8_and_16_bit_images_is_made_of_floats(tmp_path):
    pairs = [write_pair(tmp_path, "a", mode="L"), write_pair(tmp_path, "b", mode="I;16", seed=1)]
    dataset = training_set(pairs, channels=1)
    parts = [sample(dataset, (0, index)) for index in (0, 1)]
    batch = collate(list(parts))
    assert isinstance(batch, Sample)
    assert batch.image.dtype == torch.float32
    assert all(torch.equal(batch.image[i], part.image.float()) for i, part in enumerate(parts))
    assert all(torch.equal(batch.target[i], part.target) for i, part in enumerate(parts))
    assert batch.indices.tolist() == [0, 1]


def test_a_batch_of_8_bit_images_stays_small(records):
    batch = collate([sample(training_set(records), (0, index)) for index in (0, 1)])
    assert isinstance(batch, Sample)
    assert batch.image.dtype == torch.uint8


def test_a_batch_with_an_error_is_its_first_error(records):
    errors = [DataError("first"), DataError("second")]
    assert collate([sample(training_set(records), (0, 0)), *errors]) is errors[0]


def test_an_image_whose_pixels_are_all_ignored_is_a_sample_like_any_other(tmp_path):
    record = write_pair(tmp_path, "a")
    Image.fromarray(np.full((14, 16), 9, np.uint8)).save(tmp_path / "a_mask.png")
    assert (sample(training_set([record]), (0, 0)).target == IGNORE).all()


def test_the_number_of_workers_is_what_the_config_says_else_by_device():
    assert num_workers(5, torch.device("cpu"), World()) == 5
    assert num_workers(0, torch.device("cuda"), World()) == 0
    assert num_workers("auto", torch.device("cpu"), World()) == 1
    assert 1 <= num_workers("auto", torch.device("cuda"), World()) <= 8


def test_crops_centred_on_rare_classes_are_a_function_of_seed_epoch_and_index_too(records):
    frequencies = class_frequencies(config(), records)
    sets = [
        TrainingSet(records, Reader.of(config()), Augment(rare=share, elastic=2.0), (6, 6), 3, frequencies)
        for share in (1.0, 1.0, 0.0)
    ]
    first, again, without = ([sample(dataset, (epoch, 2)) for epoch in range(4)] for dataset in sets)
    assert all(same(a, b) for a, b in zip(first, again, strict=True))
    assert not all(same(a, b) for a, b in zip(first, without, strict=True))


def test_a_jpeg_of_16_bits_a_pixel_is_a_data_error_with_its_file_and_the_remedy(tmp_path):
    record = write_pair(tmp_path, "deep", mode="I;16")
    found = training_set([record], augment=Augment(jpeg=50), channels=1)[0, 0]
    assert isinstance(found, DataError)
    assert str(record.image) in str(found)
    assert "augment.jpeg: null" in str(found)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_a_jpeg_of_other_than_1_or_3_channels_is_a_problem_of_the_config(channels):
    asked = replace(config(channels), augment=Augment(jpeg=50))
    found = [problem for problem in problems(asked) if problem.path == "augment.jpeg"]
    assert bool(found) == (channels not in (1, 3))
    assert not [problem for problem in problems(config(channels)) if problem.path == "augment.jpeg"]


def test_the_classes_are_counted_where_the_augmentation_or_a_loss_asks_for_it(records):
    def counted(config):
        return preparation.prepared(config, plan, {"train": records}, torch.device("cpu"), World()).frequencies

    plan = Plan(7, (8, 8), 1, 1, 2)
    assert counted(config()) is None
    assert counted(replace(config(), augment=Augment(rare=0.1))) == class_frequencies(config(), records)
