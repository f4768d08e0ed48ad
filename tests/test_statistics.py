"""What is measured before training: mean and deviation against NumPy, class frequencies by hand."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segtool.config import ClassSpec, Config, Data
from segtool.config.sections import Seen
from segtool.data import facts, statistics
from segtool.data.pairs import Record
from segtool.data.statistics import (
    ClassFrequencies,
    channel_sums,
    class_frequencies,
    measure_images,
    resolve_data,
)
from segtool.errors import DataError, ShortageError
from segtool.system import pools
from segtool.system.pools import each_in_processes, in_threads


def config(channels: int = 3, **data) -> Config:
    classes = tuple(ClassSpec(name, values=(value,)) for name, value in [("a", 0), ("b", 4), ("never", 7)])
    return Config(data=Data(classes=classes, ignore=(9,), channels=channels, **data))


def write(folder: Path, stem: str, pixels: np.ndarray, mask: list[list[int]] | None = None) -> Record:
    Image.fromarray(pixels).save(folder / f"{stem}.png")
    Image.fromarray(np.array(mask or [[0]], np.uint8)).save(folder / f"{stem}_mask.png")
    return Record(folder / f"{stem}.png", folder / f"{stem}_mask.png", stem)


def noise(size, dtype: type = np.uint8, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(np.iinfo(dtype).max + 1, size=size, dtype=dtype)


def test_mean_and_deviation_are_those_of_all_pixels_whatever_the_sizes(tmp_path):
    images = [noise((5, 7, 3), seed=1), noise((20, 3, 3), seed=2) // 4, noise((1, 1, 3), seed=3)]
    records = [write(tmp_path, str(i), image) for i, image in enumerate(images)]
    every = np.concatenate([image.reshape(-1, 3) for image in images]) / 255
    mean, std, _ = measure_images(config(), records)
    assert mean == pytest.approx(every.mean(0), abs=6e-6)
    assert std == pytest.approx(every.std(0), abs=6e-6)
    of_images = np.mean([image.mean((0, 1)) for image in images], axis=0) / 255
    assert mean != pytest.approx(of_images, abs=1e-3)  # the negative control: a mean of means


def test_16_bit_images_are_measured_on_the_same_scale(tmp_path):
    image = noise((9, 8), np.uint16)
    mean, std, _ = measure_images(config(1), [write(tmp_path, "a", image)])
    assert mean == pytest.approx([image.mean() / 65535], abs=6e-6)
    assert std == pytest.approx([image.std() / 65535], abs=6e-6)


def test_sums_of_floats_stay_exact_where_single_precision_would_stop_growing():
    image = np.full((2**24 + 2**20, 1, 1), 255, np.float32)
    count, total, squares = channel_sums(image)
    assert count[0] == total[0] == squares[0] == len(image)


@pytest.mark.parametrize("pixels", [1, 6, 7, 8, 50])
def test_summing_in_blocks_gives_the_sum(monkeypatch, pixels):
    monkeypatch.setattr(statistics, "BLOCK", 7)
    image = noise((pixels, 1, 2))
    wanted = np.stack([np.full(2, pixels), (image / 255).sum((0, 1)), np.square(image / 255).sum((0, 1))])
    assert np.allclose(channel_sums(image), wanted, rtol=1e-12)


def test_a_constant_channel_has_a_deviation_above_zero(tmp_path):
    mean, std, _ = measure_images(config(), [write(tmp_path, "a", np.full((4, 4, 3), 51, np.uint8))])
    assert mean == (0.2, 0.2, 0.2)
    assert std == (round(1 / 255, 5),) * 3


def test_of_many_images_evenly_spaced_ones_are_measured_first_and_last_among_them(tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "MAX_IMAGES", 3)
    values = [10, 200, 30, 200, 80]
    records = [write(tmp_path, str(i), np.full((2, 2), value, np.uint8)) for i, value in enumerate(values)]
    mean, _, _ = measure_images(config(1), records)
    assert mean == pytest.approx([(10 + 30 + 80) / 3 / 255], abs=6e-6)


def test_class_frequencies_by_hand(tmp_path):
    pixels = np.zeros((2, 3), np.uint8)
    records = [
        write(tmp_path, "1", pixels, [[0, 0, 4], [9, 9, 0]]),  # 3 of a, 1 of b, 2 ignored
        write(tmp_path, "2", pixels, [[0, 0, 0], [0, 0, 0]]),  # 6 of a
        write(tmp_path, "3", pixels, [[9, 9, 9], [9, 9, 9]]),  # nothing
    ]
    assert class_frequencies(config(), records) == ClassFrequencies(pixels=(9, 1, 0), present=(10, 4, 0))


@pytest.mark.parametrize("named", ["image", "mask"])
def test_a_file_that_cannot_be_measured_is_named(tmp_path, named):
    records = [write(tmp_path, name, noise((4, 4, 3)), [[0, 4]]) for name in ("good", "bad")]
    path = tmp_path / ("bad.png" if named == "image" else "bad_mask.png")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=path.name):
        (measure_images if named == "image" else class_frequencies)(config(), records)


def test_masks_that_were_looked_at_before_are_not_decoded_again(tmp_path, monkeypatch):
    records = [write(tmp_path, name, noise((4, 4, 3)), [[0, 4, 9], [0, 0, 4]]) for name in ("one", "other")]
    for record in records:
        os.utime(record.mask, (1e9, 1e9))  # long ago: it may be known by its time of change
    first = class_frequencies(config(), records)
    monkeypatch.setattr(facts, "read_mask", lambda *_, **__: pytest.fail("it is decoded"))
    assert class_frequencies(config(), records) == first == ClassFrequencies((6, 4, 0), (10, 10, 0))


def test_a_value_that_is_no_class_is_told_with_its_file(tmp_path):
    records = [write(tmp_path, "a", noise((4, 4, 3)), [[0, 4]]), write(tmp_path, "b", noise((4, 4, 3)), [[0, 5]])]
    with pytest.raises(DataError, match=r"b_mask\.png.*5"):
        class_frequencies(config(), records)


def test_a_record_without_a_mask_is_named(tmp_path):
    with pytest.raises(DataError, match=r"a\.png: has no mask"):
        class_frequencies(config(), [Record(tmp_path / "a.png", None, "a")])


def test_what_the_config_gives_is_kept_and_the_rest_measured(tmp_path):
    image = noise((4, 4, 3))
    records = [write(tmp_path, "a", image)]
    resolved = resolve_data(config(mean=(0.1, 0.2, 0.3)), records).data
    assert resolved.mean == (0.1, 0.2, 0.3)
    assert resolved.std == pytest.approx((image / 255).std((0, 1)), abs=6e-6)
    assert resolved.mask_mode == "L"


def test_the_ranges_of_what_single_images_are_like_are_measured_anew_in_each_training(tmp_path):
    images = [noise((4, 6, 3), seed=1), noise((8, 5, 3), seed=2) // 3, noise((5, 9, 3), seed=3) // 2]
    records = [write(tmp_path, str(i), image) for i, image in enumerate(images)]
    means, stds = ([getattr(image / 255, of)((0, 1)) for image in images] for of in ("mean", "std"))
    stale = Seen(mean=((0, 1),), std=((0, 1),), size=((1, 1), (1, 1)))
    seen = resolve_data(config(mean=(0.5,) * 3, std=(0.2,) * 3, seen=stale), records).data.seen
    assert np.array(seen.mean) == pytest.approx(np.stack([np.min(means, 0), np.max(means, 0)], 1), abs=6e-6)
    assert np.array(seen.std) == pytest.approx(np.stack([np.min(stds, 0), np.max(stds, 0)], 1), abs=6e-6)
    assert seen.size == ((4, 8), (5, 9))


def test_threads_keep_the_order_and_hand_on_the_first_error():
    assert in_threads(lambda number: number * 2, range(50)) == [number * 2 for number in range(50)]
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 / number, [3, 2, 1, 0])


@pytest.mark.parametrize(("setting", "limit"), [("1", 1), ("3", 3), ("1,4", 1)])
def test_there_are_no_more_threads_than_omp_num_threads(monkeypatch, setting, limit):
    monkeypatch.setenv("OMP_NUM_THREADS", setting)
    seen: list[int] = []
    pool = pools.ThreadPoolExecutor
    monkeypatch.setattr(pools, "ThreadPoolExecutor", lambda workers: seen.append(workers) or pool(workers))
    in_threads(str, [1, 2])
    assert seen[0] <= limit


def test_there_are_no_more_threads_than_processors_that_the_process_may_use(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5, 64}, raising=False)
    assert pools.num_threads() == 3


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted as Linux tells them")
def test_a_check_leaves_no_threads_of_numpy_that_wait_for_work(tiny_ds):
    code = (
        "import os, runpy, sys\n"
        "try: runpy.run_module('segtool', run_name='__main__')\n"
        "except SystemExit: print(len(os.listdir('/proc/self/task')), 'numpy' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name != "OPENBLAS_NUM_THREADS"}
    result = subprocess.run(
        [sys.executable, "-c", code, "check", str(tiny_ds)],
        env={**environment, "OMP_NUM_THREADS": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.splitlines()[-1] == "1 True"


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("threads", ["1", "2"])
def test_processes_keep_the_order_and_hand_on_the_first_error(monkeypatch, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(pools, "SHARE", 4)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    parent, base = os.getpid(), 7
    results = list(each_in_processes(lambda number: (number + base, os.getpid()), range(50)))
    assert [value for value, _ in results] == [number + base for number in range(50)]
    assert (parent in {pid for _, pid in results}) == (threads == "1" or pools.num_cores() < 2)
    with pytest.raises(ZeroDivisionError):
        list(each_in_processes(lambda number: 1 / (40 - number), range(50)))


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_processes_look_for_garbage_among_nothing_that_was_there_before(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pools, "num_cores", lambda: 2)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    there: list[list] = [[]]
    assert gc.is_tracked(there)
    looked_at = each_in_processes(lambda _: any(one is there for one in gc.get_objects()), range(4), share=2)
    assert list(looked_at) == [False] * 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_reading_process_that_is_killed_is_told_with_cause_and_remedy(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pools, "num_cores", lambda: 2)
    monkeypatch.setattr(pools, "SHARE", 4)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    values = each_in_processes(
        lambda number: os.kill(os.getpid(), signal.SIGKILL) if number == 20 else number, range(50)
    )
    with pytest.raises(ShortageError, match=r"most likely killed .* where memory runs out: .*OMP_NUM_THREADS=1"):
        list(values)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked on Linux alone")
def test_processes_end_with_the_one_that_asked_for_their_work_and_no_others_do(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(pools, "num_cores", lambda: 2)
    monkeypatch.setattr(pools.threading, "active_count", lambda: 1)  # whatever idles since another test
    other = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    other.start()
    values = each_in_processes(lambda number: time.sleep(60 * number) or number, [0, 1, 2], share=1)
    assert next(values) == 0
    start = time.monotonic()
    values.close()
    assert time.monotonic() - start < 30
    other.join(0.5)
    assert other.is_alive()
    other.terminate()
