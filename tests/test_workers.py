"""Processes that load images: what is said, and how soon, when one is killed or hangs."""

from __future__ import annotations

import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any, Never

import pytest
import torch
from conftest import config_of

from segtool.commands.doctor import facts
from segtool.config import Augment, dump_config
from segtool.data import loader
from segtool.data.dataset import EvaluationSet, Sample, TrainingSet
from segtool.data.formats import split_records
from segtool.data.loader import evaluation_batches, training_batches
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.data.slots import Slots, can_be_shared, make_slots
from segtool.errors import DataError
from segtool.system.distributed import World

# Torch's advice, which is an error here, on a machine of one core.
two_workers = pytest.mark.filterwarnings("ignore:This DataLoader will create")
SOON = 10  # seconds within which a command ends


@pytest.fixture(scope="module")
def records(tiny_ds) -> list[Record]:
    return split_records(config_of(tiny_ds), Path("/"))["train"]


def batches_where(action: Callable[[], object], records: list[Record], tiny_ds: Path, *, validation: bool = False):
    """Yields batches of one image, in whose reading `action` happens where it is train5."""

    class Faulty(Reader):
        def pair(self, record: Record) -> Any:
            if record.stem == "train5":
                action()
            return super().pair(record)

    reader = Faulty.of(config_of(tiny_ds))
    if validation:
        return evaluation_batches(EvaluationSet(records, reader), World(), workers=1)
    dataset = TrainingSet(records, reader, Augment(), (16, 16), 0)
    return training_batches(dataset, World(), batch_size=1, start=0, steps=8, workers=1)


def die(number: int) -> Callable[[], object]:
    return lambda: os.kill(os.getpid(), number)


def assert_named(text: str) -> None:
    """The file that was being read, and no other."""
    assert set(re.findall(r"train\d\.png", text)) == {"train5.png"}


@pytest.mark.parametrize("validation", [False, True])
@pytest.mark.parametrize(
    ("number", "cause", "remedy"),
    [
        (signal.SIGKILL, "killed, as the system does where memory runs out", "train.cache=false"),
        (signal.SIGSEGV, "a library that decodes images crashed", "damaged"),
        (signal.SIGUSR1, "SIGUSR1", "see what it printed"),
    ],
)
def test_a_worker_that_dies_ends_the_run_with_its_file_the_cause_and_the_remedy(
    records, tiny_ds, validation, number, cause, remedy
):
    began = time.monotonic()
    with pytest.raises(DataError) as error:
        list(batches_where(die(number), records, tiny_ds, validation=validation))
    assert time.monotonic() - began < SOON
    text = str(error.value)
    assert f"a process that loads images died ({cause})" in text
    assert remedy in text
    assert "train.workers=0" in text
    assert_named(text)


def test_without_the_workers_word_of_what_they_read_no_file_would_be_named(records, tiny_ds, monkeypatch):
    """Negative control."""
    monkeypatch.setattr(loader, "Announced", lambda dataset, _: dataset)
    with pytest.raises(DataError) as error:
        list(batches_where(die(signal.SIGKILL), records, tiny_ds))
    with pytest.raises(AssertionError):
        assert_named(str(error.value))


def test_a_full_shared_memory_is_named_where_a_worker_dies_of_it():
    cause, remedy = loader._death(-signal.SIGBUS)
    assert "shared memory" in cause
    assert "--shm-size" in remedy


def test_a_worker_that_ends_by_itself_is_told_with_its_exit_code(records, tiny_ds):
    with pytest.raises(DataError, match=r"died \(exit code 3\)"):
        list(batches_where(lambda: os._exit(3), records, tiny_ds))


@pytest.mark.parametrize("validation", [False, True])
def test_a_worker_that_hangs_ends_the_run_with_its_file_and_is_gone(records, tiny_ds, monkeypatch, validation):
    monkeypatch.setattr(loader, "TIMEOUT", 2)
    before = multiprocessing.active_children()
    began = time.monotonic()
    with pytest.raises(DataError, match=r"took over 2 s[\s\S]*train.workers=0") as error:
        list(batches_where(signal.pause, records, tiny_ds, validation=validation))
    assert time.monotonic() - began < SOON
    assert_named(str(error.value))
    assert [child for child in multiprocessing.active_children() if child not in before and child.is_alive()] == []


def test_a_batch_that_takes_long_but_comes_is_waited_for(records, tiny_ds, monkeypatch):
    monkeypatch.setattr(loader, "LOOK", 0.05)
    assert len(list(batches_where(lambda: time.sleep(0.5), records, tiny_ds))) == 8


def killed_between_batches(records: list[Record], tiny_ds: Path) -> Iterator[Any]:
    """Returns batches of which one has come; since then the worker that loads them was killed."""
    batches = batches_where(lambda: time.sleep(0.2), records, tiny_ds)
    before = multiprocessing.active_children()
    next(batches)
    (worker,) = [child for child in multiprocessing.active_children() if child not in before]
    assert worker.pid is not None
    worker.kill()
    os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # it is dead, and left for others to see so
    sum(range(10**6))  # whatever the main process does meanwhile
    return batches


def test_a_worker_that_is_killed_while_nothing_is_awaited_disturbs_nothing_until_its_batch_is(records, tiny_ds):
    batches = killed_between_batches(records, tiny_ds)
    with pytest.raises(DataError, match="a process that loads images died"):
        list(batches)


def test_torch_s_own_handler_would_raise_in_the_midst_of_anything(records, tiny_ds, monkeypatch):
    """Negative control: in the midst of saving a checkpoint too."""

    def start(data_loader: Any) -> Any:
        return iter(data_loader), []

    monkeypatch.setattr(loader, "_start", start)
    monkeypatch.setattr(torch.utils.data._utils.signal_handling, "_SIGCHLD_handler_set", False)
    before = signal.getsignal(signal.SIGCHLD)
    try:
        with pytest.raises(RuntimeError, match="killed by signal"):
            killed_between_batches(records, tiny_ds)
    finally:
        signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)


# --- shared memory


@pytest.fixture
def shared_memory(monkeypatch) -> Callable[[int], None]:
    """Gives /dev/shm a size in bytes, all of it free."""
    usage = shutil.disk_usage

    def give(size: int) -> None:
        def disk_usage(path: Any) -> Any:
            return usage(path)._replace(total=size, free=size) if Path(path) == Path("/dev/shm") else usage(path)

        monkeypatch.setattr(shutil, "disk_usage", disk_usage)

    return give


FORKED = pytest.mark.skipif(not can_be_shared(), reason="loading processes are not forked here")
HAS_SHM = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no /dev/shm")
BATCH = 3 * 16 * 16 * 4  # bytes: three images of 16x16 in colour, and their targets


@HAS_SHM
@pytest.mark.parametrize(
    ("workers", "size", "warned"), [(1, 3 * BATCH - 1, True), (1, 3 * BATCH, False), (0, 0, False)]
)
@two_workers
def test_train_warns_before_its_first_step_of_a_shared_memory_that_cannot_hold_the_batches(
    trainer, make_config, shared_memory, monkeypatch, workers, size, warned
):
    shared_memory(size)
    monkeypatch.setattr(loader, "can_be_shared", lambda: False)
    said = trainer("run", make_config(train={"steps": 1, "workers": workers})).said
    assert [line.startswith("warning: /dev/shm: ") for line in said if "--shm-size=2g" in line] == [True] * warned
    assert not warned or "train.workers=0" in said[0]


@HAS_SHM
def test_forked_workers_need_none_of_it(trainer, make_config, shared_memory):
    shared_memory(0)
    assert not any("/dev/shm" in line for line in trainer("run", make_config(train={"steps": 1, "workers": 1})).said)


def sent_by_torch(_: object) -> Never:
    raise RuntimeError("a tensor went through /dev/shm")


def through_workers(records: list[Record], tiny_ds: Path, *, capacity: int | None = None) -> list[Sample]:
    """Returns twelve batches of two, of two workers that are far ahead; of whole images where a capacity is given."""
    reader = Reader.of(config_of(tiny_ds))
    if capacity is not None:
        dataset = EvaluationSet(records, reader)
        return list(loader.batches(dataset, 2, capacity=capacity, batch_size=2, sampler=list(range(6)) * 4))
    dataset = TrainingSet(records, reader, Augment(), (16, 16), 0)
    batches = training_batches(dataset, World(), batch_size=2, start=0, steps=12, workers=2)
    return [batch for batch in batches if time.sleep(0.02) is None]


@two_workers
@FORKED
@pytest.mark.parametrize("capacity", [None, 2**20])
def test_batches_come_through_the_memory_that_forked_workers_share(records, tiny_ds, monkeypatch, capacity):
    with monkeypatch.context() as patch:
        patch.setattr(loader, "make_slots", lambda *_: None)
        expected = through_workers(records, tiny_ds, capacity=capacity)
    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.Tensor, sent_by_torch)  # type: ignore[attr-defined]
    found = through_workers(records, tiny_ds, capacity=capacity)
    for one, other in zip(expected, found, strict=True):
        assert all(torch.equal(*both) for both in zip(one, other, strict=True))
        assert one.image.stride() == other.image.stride()


@two_workers
@FORKED
def test_a_batch_that_is_larger_than_its_slot_comes_by_torch(records, tiny_ds):
    small, ample = (through_workers(records, tiny_ds, capacity=capacity) for capacity in (64, 2**20))
    assert all(torch.equal(*both) for pair in zip(small, ample, strict=True) for both in zip(*pair, strict=True))


@two_workers
@FORKED
def test_batches_for_which_the_system_gives_no_slots_come_by_torch(records, tiny_ds):
    assert make_slots(1, 3, 2**20) is not None
    assert make_slots(1, 3, 2**60) is None
    assert len(through_workers(records, tiny_ds, capacity=2**60)) == 12


@two_workers
@FORKED
@pytest.mark.parametrize("change", ["fewer slots", "no copies"])
def test_fewer_slots_or_batches_that_are_not_copied_would_be_written_over(records, tiny_ds, monkeypatch, change):
    """Negative control."""
    expected = through_workers(records, tiny_ds)
    if change == "fewer slots":
        monkeypatch.setattr(loader, "make_slots", lambda workers, each, capacity: Slots(workers, 1, capacity))
    else:
        monkeypatch.setattr(torch.Tensor, "clone", lambda tensor: tensor)
    found = through_workers(records, tiny_ds)
    assert not all(torch.equal(one.image, other.image) for one, other in zip(expected, found, strict=True))


@HAS_SHM
@pytest.mark.parametrize(("size", "warned"), [(64 * 2**20, True), (2**30, False)])
def test_doctor_says_that_shared_memory_is_small_and_what_to_do(shared_memory, size, warned):
    shared_memory(size)
    fact = dict(facts())["shared memory"]
    assert ("small: give containers --shm-size=2g, or set train.workers: 0" in fact) == warned


# --- the whole command


PATCHED = """
import os, signal, sys
from segtool.data import loader
from segtool.data.reader import Reader
main, pair = os.getpid(), Reader.pair
def faulty(self, record):
    if record.stem == "{stem}" and os.getpid() != main:
        {action}
    return pair(self, record)
Reader.pair = faulty
loader.TIMEOUT = {timeout}
loader.FEW = 1
from segtool.cli import main
main()
"""
LOST = 300  # seconds that a command took where the news of the death was lost
COMMANDS = [
    pytest.param("train5", "os.kill(os.getpid(), signal.SIGKILL)", "died", id="killed"),
    pytest.param("train5", "signal.pause()", "took over 3 s", id="hangs", marks=pytest.mark.slow),
    pytest.param("val1", "os.kill(os.getpid(), 9)", "died", id="killed in validation", marks=pytest.mark.slow),
    pytest.param("val1", "signal.pause()", "took over 3 s", id="hangs in validation", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("stem", "action", "said"), COMMANDS)
def test_train_says_so_in_one_line_and_how_it_goes_on_and_ends_at_once(tiny_ds, tmp_path, stem, action, said):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(config_of(tiny_ds, train={"workers": 2, "steps": 6, "cache": False})))
    code = PATCHED.format(stem=stem, action=action, timeout=LOST if said == "died" else 3)
    done = subprocess.run(
        [sys.executable, "-c", code, "train", config, "--run", tmp_path / "run", "--device", "cpu", "--quiet"],
        capture_output=True,
        text=True,
        timeout=LOST / 3,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 3, done.stderr
    line, saved = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "step 0 is saved and whole; when that is mended, continue with: segtool train" in saved
    assert f"a process that loads images {said}" in line
    assert f"{stem}.png" in line
    for noise in ("Traceback", "Exception ignored", "can only test a child process"):
        assert noise not in done.stderr
