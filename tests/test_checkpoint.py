"""Checkpoints: whatever fails while one is written or read, the ones before it stay and nothing bad is chosen."""

from __future__ import annotations

import ast
import contextlib
import errno
import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import sign
from faults import Disk, every_fault, put_back, tree, unsafe
from safetensors.torch import load as read_tensors
from torch import nn

import segtool
from segtool.config import Config, Optim, parse_config
from segtool.errors import CheckpointError
from segtool.runs import checkpoint, checkpoint_files, history, run_directory
from segtool.runs.checkpoint import Progress, TrainState, committed, load, save
from segtool.runs.history import best, last, remove_old
from segtool.runs.members import find_checkpoint, find_checkpoints
from segtool.system.terminal import Reporter
from segtool.training.optim import Ema, build_optimizer

CLASSES = [{"name": "a", "values": [0]}, {"name": "b", "values": [1]}]
CONFIG = {"data": {"train": {"images": "i", "masks": "m"}, "classes": CLASSES}}


def make_config(**optim: Any) -> Config:
    return parse_config({**CONFIG, "optim": optim})


def make_state(*, optim: Optim | None = None, ema: bool = True, seed: int = 0, channels_last: bool = False):
    """A network of two convolutions with BatchNorm, after two steps of training."""
    torch.manual_seed(seed)
    model: Any = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    if channels_last:
        model = model.to(memory_format=torch.channels_last)
    average = Ema(model, 0.9) if ema else None
    state = TrainState(model, average.model if average else None, build_optimizer(model, optim or Optim()))
    for step in range(2):
        make_step(state, seed + step)
        if average:
            average.update(step)
    return state


def make_step(state: TrainState, seed: int) -> None:
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
    state.optimizer.zero_grad()
    state.model(images).square().mean().backward()
    state.optimizer.step()


def contents(state: TrainState) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint must bring back, by name."""
    found = {f"model.{name}": value for name, value in state.model.state_dict().items()}
    if state.ema is not None:
        found |= {f"ema.{name}": value for name, value in state.ema.state_dict().items()}
    for name, parameter in state.model.named_parameters():
        found |= {f"optimizer.{name}.{key}": value for key, value in state.optimizer.state[parameter].items()}
    return {name: value.detach().clone() for name, value in found.items()}


def assert_equal(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        assert value.dtype == second[name].dtype, name


# --- there and back


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_checkpoint_brings_back_weights_averages_and_moments_and_the_next_step_is_the_same(
    tmp_path, name, ema, channels_last
):
    optim = Optim(name=name, lr=0.1)
    state = make_state(optim=optim, ema=ema, channels_last=channels_last)
    path = save(tmp_path, state, make_config(name=name), Progress(step=2, steps=9, score=0.5, best=0.5, stale=1))
    fresh = make_state(optim=optim, ema=ema, channels_last=channels_last, seed=5)
    loaded = load(path)
    loaded.restore(fresh)
    assert_equal(contents(fresh), contents(state))
    assert loaded.progress == Progress(step=2, steps=9, score=0.5, best=0.5, stale=1)
    for one in (state, fresh):
        make_step(one, 77)
    assert_equal(contents(fresh), contents(state))


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_moments_come_back_in_the_memory_layout_of_their_parameter(tmp_path, name):
    optim = Optim(name=name)
    save(tmp_path, make_state(optim=optim), make_config(name=name), Progress(step=1))
    state = make_state(optim=optim, channels_last=True)
    load(tmp_path / "step-00000001").restore(state)
    kernel = state.model[0].weight  # type: ignore[index]
    moments = [value for value in state.optimizer.state[kernel].values() if value.ndim]
    assert moments
    assert kernel.stride() != kernel.contiguous().stride()
    assert all(moment.stride() == kernel.stride() for moment in moments)


def test_a_moment_in_another_layout_than_its_parameter_makes_the_fused_step_wrong():
    """Negative control: this is what the copying in `restore` is for."""
    right, wrong = make_state(channels_last=True), make_state(channels_last=True)
    for values in wrong.optimizer.state.values():
        for key, value in values.items():
            values[key] = value.contiguous().clone(memory_format=torch.contiguous_format)
    for state in (right, wrong):
        make_step(state, 77)
    assert not torch.equal(right.model[0].weight, wrong.model[0].weight)  # type: ignore[index]


def test_a_checkpoint_loads_the_config_it_was_saved_with(tmp_path):
    config = make_config(lr=0.3)
    assert load(save(tmp_path, make_state(), config, Progress(step=3))).config == config


def test_the_bytes_of_a_file_are_gone_when_those_of_the_next_become_tensors(tmp_path, monkeypatch):
    path = save(tmp_path, make_state(), make_config(), Progress(step=1))
    whole, left = checkpoint_files.verified(path), []
    sizes = [len(content) for name, content in whole.items() if name.endswith(".safetensors")]

    def noted(content: bytes) -> Any:
        left.append(sum(len(one) for name, one in whole.items() if name.endswith(".safetensors")))
        return read_tensors(content)

    monkeypatch.setattr(checkpoint, "verified", lambda _: whole)
    monkeypatch.setattr(checkpoint, "load_tensors", noted)
    checkpoint.load(path)
    assert left == [sum(sizes[number:]) for number in (1, 2, 3)]


def test_what_predicts_and_scores_holds_no_optimizer(tmp_path):
    path = checkpoint.save(tmp_path, make_state(), make_config(), Progress(step=1))
    (found,) = find_checkpoints([path], Reporter(quiet=True))
    assert set(found.tensors) == {"model", "ema"}


def test_memory_that_runs_out_is_no_damage_of_a_checkpoint(tmp_path, monkeypatch):
    path = checkpoint.save(tmp_path, make_state(), make_config(), Progress(step=1))
    monkeypatch.setattr(checkpoint, "load_tensors", mock.Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        checkpoint.load(path)


def test_predictions_are_made_with_the_averaged_weights_where_there_are_such(tmp_path):
    averaged, plain = make_state(ema=True), make_state(ema=False)
    first = load(save(tmp_path / "a", averaged, make_config(), Progress()))
    second = load(save(tmp_path / "b", plain, make_config(), Progress()))
    assert averaged.ema is not None
    assert torch.equal(first.weights["0.weight"], averaged.ema.state_dict()["0.weight"])
    assert torch.equal(second.weights["0.weight"], plain.model.state_dict()["0.weight"])
    assert not torch.equal(first.weights["0.weight"], second.weights["0.weight"])


def test_averages_that_a_checkpoint_lacks_begin_at_its_weights(tmp_path):
    path = save(tmp_path, make_state(ema=False), make_config(), Progress(step=1))
    state = make_state(ema=True, seed=4)
    load(path).restore(state)
    assert state.ema is not None
    assert torch.equal(state.ema.state_dict()["0.weight"], state.model.state_dict()["0.weight"])


@pytest.mark.parametrize(("saved", "given"), [("adamw", "sgd"), ("sgd", "adamw")])
def test_the_state_of_another_optimizer_is_refused(tmp_path, saved, given):
    path = save(tmp_path, make_state(optim=Optim(name=saved)), make_config(name=saved), Progress(step=1))
    with pytest.raises(CheckpointError, match=f"is of {saved}, and this training has {given}"):
        load(path).restore(make_state(optim=Optim(name=given)))


def test_the_weights_of_another_network_are_refused(tmp_path):
    path = save(tmp_path, make_state(), make_config(), Progress(step=1))
    other = nn.Sequential(nn.Conv2d(3, 5, 3))
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load(path).restore(TrainState(other, None, build_optimizer(other, Optim())))


# --- commit


def test_a_checkpoint_is_committed_by_one_rename_after_everything_in_it_is_on_the_disk(tmp_path, monkeypatch):
    events: list[str] = []
    rename, fsync = os.rename, os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (events.append("sync"), fsync(fd))[1])

    def note(source: Any, target: Any) -> None:
        names = {path.name for path in Path(source).iterdir()}
        assert names == {*FILES, "manifest.json"}
        events.append("rename")
        rename(source, target)

    monkeypatch.setattr(os, "rename", note)
    save(tmp_path, make_state(), make_config(), Progress(step=4))
    assert events == [*["sync"] * 7, "rename", "sync"]  # six files and their directory, then the parent
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]


def test_a_checkpoint_of_a_step_is_never_overwritten(tmp_path):
    path = save(tmp_path, make_state(seed=0), make_config(), Progress(step=4))
    before = snapshot(path)
    assert save(tmp_path, make_state(seed=9), make_config(), Progress(step=4)) == path
    assert snapshot(path) == before


def test_the_manifest_lists_size_and_sha256_of_every_file(tmp_path):
    path = save(tmp_path, make_state(), make_config(), Progress(step=4))
    listed = json.loads((path / "manifest.json").read_bytes())["files"]
    found = {
        file.name: {"size": file.stat().st_size, "sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
        for file in path.iterdir()
        if file.name != "manifest.json"
    }
    assert listed == found


def test_a_tensor_that_cannot_be_stored_leaves_nothing_behind(tmp_path):
    save(tmp_path, make_state(), make_config(), Progress(step=1))
    before = snapshot(tmp_path)
    state = make_state()
    state.model.register_buffer("sparse", torch.eye(2).to_sparse())
    with pytest.raises((RuntimeError, ValueError)):
        save(tmp_path, state, make_config(), Progress(step=2))
    assert snapshot(tmp_path) == before


# --- a disk that fails


def lost_checkpoints(writer: Callable[..., Any], root: Path, **faults: Any) -> list[str]:
    """Returns what went wrong when `writer` saved step 2 over every possible fault, step 1 being there."""
    directory, state, problems = root / "checkpoints", make_state(), []
    save(directory, state, make_config(), Progress(step=1))
    before = tree(root)

    def work() -> None:
        writer(directory, state, make_config(), Progress(step=2))

    count = 0
    for name, _, error in every_fault(root, work, prepare=lambda: put_back(root, before), **faults):
        count += 1
        try:
            found = last(directory)
        except CheckpointError as damaged:
            problems.append(f"{name}: {damaged}")
            continue
        step = found.progress.step if found else None
        if step not in (1, 2) or (step == 1 and not isinstance(error, CheckpointError)):
            problems.append(f"{name}: step {step}, {error!r}")
        problems += [f"{name}: {path} was left" for path in tree(root) if "/step-" not in f"/{path}"]
    assert count >= 18, "six files, each opened, written and flushed, are the least there is to fail"
    return problems


def test_a_save_that_fails_at_any_call_leaves_the_old_or_the_new_checkpoint_and_says_so(root):
    assert lost_checkpoints(save, root) == []


def naive(directory: Path, state: TrainState, config: Config, progress: Progress) -> None:
    """The way of `torch.save`, which opens the only checkpoint for writing."""
    path = directory / "step-00000001"
    for name, content in checkpoint._contents(state, config, progress).items():
        with open(path / name, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def silent(*saved: Any) -> None:
    with contextlib.suppress(CheckpointError):
        save(*saved)


def untidy(*saved: Any) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        save(*saved)


def unhandled(directory: Path, state: TrainState, config: Config, progress: Progress) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint, "_not_written", lambda _target, _files, error: error)
        save(directory, state, config, progress)


@pytest.mark.parametrize("bad", [naive, silent, untidy, unhandled], ids=lambda bad: bad.__name__)
def test_the_disk_that_fails_sees_a_save_that_keeps_no_promise(root, bad):
    """Negative controls."""
    assert lost_checkpoints(bad, root, codes=[errno.ENOSPC], stays_full=[False])


def test_a_save_and_its_removal_of_old_ones_outlast_a_loss_of_power(root):
    state = make_state()
    save(root / "checkpoints", state, make_config(), Progress(step=1))
    with Disk(root).installed() as disk:
        save(root / "checkpoints", state, make_config(), Progress(step=2))
    assert unsafe(disk.events) == []
    saved = len(disk.events)
    with disk.installed():
        remove_old(root / "checkpoints", keep=1, warn=pytest.fail)
    assert len(disk.events) > saved


@pytest.mark.parametrize("function", ["sync_folder", "write_new"])
def test_a_save_that_does_not_wait_for_the_disk_is_seen(root, monkeypatch, function):
    """Negative controls: names or contents that are still on their way when the checkpoint has its name."""
    lazy = {"sync_folder": lambda _: None, "write_new": Path.write_bytes}[function]
    monkeypatch.setattr(checkpoint.disk, function, lazy)
    with Disk(root).installed() as disk:
        save(root / "checkpoints", make_state(), make_config(), Progress(step=1))
    assert unsafe(disk.events)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An empty folder of checkpoints, beside which a test may write."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG], ids=errno.errorcode.get)
def test_a_failed_save_tells_path_bytes_and_what_is_intact(root, code):
    state = make_state()
    save(root, state, make_config(), Progress(step=1))
    before = tree(root)
    needed = sum(map(len, checkpoint._contents(state, make_config(), Progress(step=2)).values()))

    def work() -> None:
        save(root, state, make_config(), Progress(step=2))

    for name, _, error in every_fault(
        root, work, prepare=lambda: put_back(root, before), codes=[code], stays_full=[False]
    ):
        text = str(error)
        assert str(root / "step-00000002") in text, name
        assert f"{needed:,} bytes needed" in text
        assert os.strerror(code) in text
        assert "previous checkpoint step-00000001 is intact" in text
        free = text.split("bytes needed, ")[1].split(" free")[0].replace(",", "")
        assert int(free) > 0
        assert ("ulimit -f" in text) == (code == errno.EFBIG)


@pytest.mark.parametrize("number", range(40))
def test_an_old_checkpoint_that_cannot_be_removed_costs_no_other_and_stops_nothing(root, number):
    state = make_state()
    for step in (1, 2, 3):
        save(root, state, make_config(), Progress(step=step))
    warnings: list[str] = []
    with Disk(root, number, errno.EIO).installed() as disk:
        remove_old(root, keep=2, warn=warnings.append)
    assert [load(path).progress.step for path in committed(root)] in ([2, 3], [1, 2, 3])
    assert bool(warnings) == disk.fired


def test_the_first_save_that_fails_says_that_there_is_no_earlier_one(root):
    (root / "new").mkdir()
    with Disk(root, 5).installed(), pytest.raises(CheckpointError, match="there is no earlier checkpoint"):
        save(root / "new", make_state(), make_config(), Progress(step=0))


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_has_a_checkpoints_name_and_is_none_is_never_taken_for_a_saved_one(root, kind):
    (root / "elsewhere").mkdir()
    target = root / "checkpoints" / "step-00000003"
    target.parent.mkdir()
    if kind == "file":
        target.write_text("precious")
    else:
        target.symlink_to(root / "elsewhere")
    with pytest.raises(CheckpointError, match="step-00000003: cannot be written"):
        save(target.parent, make_state(), make_config(), Progress(step=3))
    assert target.is_symlink() or target.read_text() == "precious"
    assert [path.name for path in target.parent.iterdir()] == [target.name]


def test_a_file_in_place_of_the_directory_is_a_checkpoint_error(tmp_path):
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(CheckpointError, match="the folder cannot be made"):
        save(tmp_path / "checkpoints", make_state(), make_config(), Progress())


# --- damage


def flip_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero_tail(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[:-8] + bytes(8))


def empty(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


FILES = checkpoint_files.FILES
DAMAGE = [(damage, name) for damage in (flip_bit, truncate, zero_tail, empty, remove) for name in FILES]
DAMAGE += [(damage, "manifest.json") for damage in (truncate, empty, remove, zero_tail)]


@pytest.mark.parametrize(("damage", "name"), DAMAGE, ids=lambda value: getattr(value, "__name__", value))
def test_a_damaged_checkpoint_is_refused_by_load_and_passed_over_by_last(two_steps, damage, name):
    damage(two_steps / "step-00000002" / name)
    if name == "manifest.json" and damage is truncate:  # its last byte is a newline, which JSON does without
        assert load(two_steps / "step-00000002").progress.step == 2
        return
    with pytest.raises(CheckpointError, match="sha256") as error:
        load(two_steps / "step-00000002")
    assert name in str(error.value)
    warnings: list[str] = []
    found = last(two_steps, warn=warnings.append)
    assert found is not None
    assert found.progress.step == 1
    assert len(warnings) == 1
    assert name in warnings[0]


@pytest.fixture(scope="module")
def two_steps_made(tmp_path_factory) -> Path:
    """What `two_steps` is a copy of."""
    directory = tmp_path_factory.mktemp("two")
    state = make_state()
    save(directory, state, make_config(), Progress(step=1, score=0.5, best=0.5))
    save(directory, state, make_config(), Progress(step=2, score=0.25, best=0.5))
    return directory


@pytest.fixture
def two_steps(two_steps_made, tmp_path) -> Path:
    """Steps 1 (the best) and 2."""
    shutil.copytree(two_steps_made, tmp_path / "two")
    return tmp_path / "two"


def test_none_of_several_checkpoints_verifying_is_an_error_that_tells_how_to_start_afresh(two_steps):
    for path in committed(two_steps):
        flip_bit(path / "model.safetensors")
    with pytest.raises(CheckpointError, match="start afresh") as error:
        last(two_steps)
    assert len(error.value.problems) == 3


def test_where_there_is_no_checkpoint_there_is_no_last_and_no_best(tmp_path):
    assert last(tmp_path) is best(tmp_path) is last(tmp_path / "missing") is None


def test_later_checkpoints_that_do_not_verify_are_set_aside_and_never_cost_a_good_one(two_steps):
    flip_bit(two_steps / "step-00000002" / "model.safetensors")
    state = make_state()
    history.set_aside(two_steps, after=1)
    assert sorted(path.name for path in two_steps.iterdir()) == ["step-00000001", "step-00000002.damaged"]
    save(two_steps, state, make_config(), Progress(step=2))
    remove_old(two_steps, keep=1, warn=pytest.fail)
    assert load(two_steps / "step-00000002").progress.step == 2
    assert (two_steps / "step-00000002.damaged").is_dir()


def test_setting_aside_twice_keeps_both(two_steps):
    (two_steps / "step-00000002.damaged").mkdir()
    history.set_aside(two_steps, after=1)
    assert (two_steps / "step-00000002.damaged.damaged" / "manifest.json").is_file()


# --- the best one


def save_scores(directory: Path, scores: list[float | None]) -> None:
    state = make_state()
    for step, score in enumerate(scores):
        save(directory, state, make_config(), Progress(step=step, score=score))


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([None, 0.5, 0.7, 0.8], 3),
        ([0.5, None], 0),
        ([0.5, 0.5, 0.4], 0),
        ([0.1, 0.7, 0.7], 1),
        ([0.0, None], 0),
        ([None, 0.0], 1),
        ([None, None], 1),
        ([1.0, 0.999999999], 0),
    ],
)
def test_the_best_is_the_first_of_the_highest_scores_and_the_last_where_none_was_scored(tmp_path, scores, expected):
    save_scores(tmp_path, scores)
    found = best(tmp_path)
    assert found is not None
    assert found.progress.step == expected


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_damaged_best_is_an_error_and_no_other_takes_its_place(two_steps, name):
    truncate(two_steps / "step-00000001" / name)
    if name == "manifest.json":
        empty(two_steps / "step-00000001" / name)
    with pytest.raises(CheckpointError, match="sha256"):
        best(two_steps)
    assert last(two_steps).progress.step == 2  # type: ignore[union-attr]


@pytest.mark.parametrize("removed", ["step-00000000", "step-00000001"])
def test_a_checkpoint_that_its_training_removes_while_the_best_is_sought_is_in_nobodys_way(
    tmp_path, monkeypatch, removed
):
    save_scores(tmp_path, [0.1, 0.3])
    read = checkpoint_files._read

    def read_late(path: Path, **options: Any) -> bytes:
        if path.parent.name == removed and path.exists():
            save_scores(tmp_path, [0.1, 0.3, 0.5])
            path.parent.rename(tmp_path / f".tmp-old-{removed}")
        return read(path, **options)

    monkeypatch.setattr(checkpoint_files, "_read", read_late)
    found = best(tmp_path)
    assert found is not None
    assert found.progress.step == 2


def test_a_run_is_its_best_checkpoint_and_a_checkpoint_is_itself(two_steps, tmp_path):
    directory = two_steps.rename(tmp_path / "checkpoints")
    named = {tmp_path: 1, directory: 1, directory / "step-00000002": 2, directory / "step-00000001": 1}
    found = {path: find_checkpoint(path, Reporter(quiet=True)).progress.step for path in named}
    assert found == named


@pytest.mark.parametrize("changed", ["", '"score": 0.1'], ids=["lost", "lower"])
def test_a_best_whose_score_is_not_what_was_saved_is_an_error_and_no_other_takes_its_place(two_steps, changed):
    state = two_steps / "step-00000001" / "state.json"
    state.write_text(state.read_text().replace('"score": 0.5', changed))
    with pytest.raises(CheckpointError, match="sha256"):
        best(two_steps)


def test_where_no_score_decides_a_damaged_last_is_passed_over_with_a_warning(tmp_path):
    save_scores(tmp_path, [None, None])
    flip_bit(tmp_path / "step-00000001" / "model.safetensors")
    warnings: list[str] = []
    assert best(tmp_path, warn=warnings.append).progress.step == 0  # type: ignore[union-attr]
    assert "falling back" in warnings[0]


# --- removal


def test_the_best_and_the_last_ones_are_kept(tmp_path):
    save_scores(tmp_path, [0.1, 0.9, 0.2, 0.9, 0.3, 0.4])
    remove_old(tmp_path, keep=2, warn=pytest.fail)
    assert [path.name for path in committed(tmp_path)] == [f"step-0000000{step}" for step in (1, 4, 5)]
    remove_old(tmp_path, keep=0, warn=pytest.fail)
    assert [path.name for path in committed(tmp_path)] == ["step-00000001", "step-00000005"]


@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
@pytest.mark.parametrize("damage", [flip_bit, truncate, empty, remove])
def test_a_best_that_is_damaged_is_not_removed_and_so_no_other_takes_its_place(tmp_path, damage, name):
    state = make_state()
    for step, (score, best_yet) in enumerate([(0.1, 0.1), (0.9, 0.9), (0.3, 0.9), (0.5, 0.9), (0.2, 0.9)]):
        save(tmp_path, state, make_config(), Progress(step=step, score=score, best=best_yet))
    damage(tmp_path / "step-00000001" / name)
    remove_old(tmp_path, keep=1, warn=pytest.fail)
    kept = [path.name for path in committed(tmp_path)]
    if name == "manifest.json" and damage is truncate:  # its last byte is a newline, which JSON does without
        assert kept == ["step-00000001", "step-00000004"]
        return
    assert kept == ["step-00000001", "step-00000003", "step-00000004"]
    with pytest.raises(CheckpointError, match="sha256"):
        best(tmp_path)


def test_what_is_damaged_and_was_not_the_best_is_removed_like_the_others(tmp_path):
    state = make_state()
    for step, (score, best_yet) in enumerate([(0.1, 0.1), (0.9, 0.9), (0.3, 0.9), (0.5, 0.9)]):
        save(tmp_path, state, make_config(), Progress(step=step, score=score, best=best_yet))
    empty(tmp_path / "step-00000002" / "state.json")
    remove_old(tmp_path, keep=1, warn=pytest.fail)
    assert [path.name for path in committed(tmp_path)] == ["step-00000001", "step-00000003"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("keep", [1, 2, 3, 9])
def test_so_many_are_kept_as_the_config_says_or_all_where_there_are_fewer(tmp_path, count, keep):
    for step in range(count):
        (tmp_path / f"step-0000000{step}").mkdir()
    remove_old(tmp_path, keep=keep, warn=pytest.fail)
    assert [int(path.name[-1]) for path in committed(tmp_path)] == list(range(count))[-keep:]


def test_removal_leaves_everything_that_is_not_ours(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")
    directory = tmp_path / "checkpoints"
    directory.mkdir()
    foreign = ["my-step-00000009-notes", "step-00000009.bak", "step-9", "step-0000000x", "step-00000009 ", "notes"]
    for name in foreign:
        (directory / name).mkdir()
        (directory / name / "file").write_text("x")
    (directory / "step-00000007").write_text("a file")
    (directory / "step-00000006").symlink_to(outside)
    before = snapshot(directory)
    state = make_state()
    for step in range(10, 15):
        save(directory, state, make_config(), Progress(step=step))
        remove_old(directory, keep=2, warn=pytest.fail)
    run_directory.remove_unfinished(directory)
    ours = {"step-00000013", "step-00000014"}
    after = {name: value for name, value in snapshot(directory).items() if name.split("/")[0] not in ours}
    assert after == before
    assert {path.name for path in committed(directory)} == ours
    assert (outside / "precious").read_text() == "x"


def test_a_delete_that_fails_is_warned_about_and_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    save_scores(tmp_path, [None] * 4)
    real, calls = shutil.rmtree, []

    def failing(path: Any, *args: Any, **options: Any) -> None:
        calls.append(path)
        if len(calls) == 1:
            (Path(path) / "model.safetensors").unlink()
            raise OSError(errno.EIO, "Input/output error")
        real(path, *args, **options)

    monkeypatch.setattr(shutil, "rmtree", failing)
    warnings: list[str] = []
    remove_old(tmp_path, keep=2, warn=warnings.append)
    assert len(warnings) == 1
    assert "Input/output error" in warnings[0]
    assert [load(path).progress.step for path in committed(tmp_path)] == [2, 3]
    run_directory.remove_unfinished(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_what_an_interrupted_save_left_is_removed_and_the_rest_is_not(tmp_path):
    save_scores(tmp_path, [None])
    (tmp_path / ".tmp-step-00000001-123").mkdir()
    (tmp_path / ".tmp-step-00000001-123" / "model.safetensors").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("x")
    run_directory.remove_unfinished(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", "step-00000000"]


# --- files of a stranger


def forge(path: Path, files: dict[str, bytes | None]) -> Path:
    """Replaces files (None: leaves one out) of a checkpoint and makes its manifest fit."""
    for name, content in files.items():
        if content is None:
            (path / name).unlink()
        else:
            (path / name).write_bytes(content)
    sign(path)
    return path


def test_a_forged_checkpoint_that_is_in_order_loads(two_steps):
    """Negative control of `forge`: what the tests below see is not its own doing."""
    assert load(forge(two_steps / "step-00000001", {})).progress.step == 1


@pytest.mark.parametrize("name", checkpoint_files.REQUIRED)
def test_a_manifest_that_lists_no_such_file_is_refused(two_steps, name):
    with pytest.raises(CheckpointError, match=f"no {name}"):
        load(forge(two_steps / "step-00000001", {name: None}))


def test_a_checkpoint_of_a_newer_format_says_to_upgrade(two_steps):
    path = two_steps / "step-00000001"
    state = json.loads((path / "state.json").read_bytes())
    forge(path, {"state.json": json.dumps({**state, "format": 2}).encode()})
    with pytest.raises(CheckpointError, match="upgrade segtool"):
        load(path)
    manifest = {"format": 2, "files": {"new.kind": {"size": 1, "sha256": ""}}}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="upgrade segtool"):
        load(path)


@pytest.mark.parametrize("found", [None, "1", 1.0, True, 0, -1, [1]])
@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
def test_a_format_that_is_no_version_is_damage_and_not_a_reason_to_upgrade(two_steps, name, found):
    path = two_steps / "step-00000001"
    value = {**json.loads((path / name).read_bytes()), "format": found}
    if name == "state.json":
        forge(path, {name: json.dumps(value).encode()})
    else:
        (path / name).write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="whole number from 1") as raised:
        load(path)
    assert "upgrade" not in str(raised.value)


def test_training_does_not_fall_back_behind_a_checkpoint_of_a_newer_format(two_steps):
    """It would train those steps again and set the newer checkpoint aside as damaged."""
    newest = two_steps / "step-00000002"
    manifest = json.loads((newest / "manifest.json").read_bytes())
    (newest / "manifest.json").write_text(json.dumps({**manifest, "format": 2}))
    for choose in (history.last, history.best):
        with pytest.raises(CheckpointError, match="upgrade segtool"):
            choose(two_steps)
    (newest / "manifest.json").write_text("damaged")
    assert history.last(two_steps).progress.step == 1, "what is damaged is passed over"


def header(fields: Any, data: bytes = b"") -> bytes:
    text = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


HOSTILE_TENSORS = {
    "nothing": b"",
    "huge length": struct.pack("<Q", 2**63) + b"{}",
    "length beyond the end": struct.pack("<Q", 500) + b"{}",
    "text": b"not a tensor file at all",
    "no object": header([1, 2]),
    "bad utf-8": header(b'{"\xff": 1}'),
    "deep": header(b'{"a":' * 5000 + b"1" + b"}" * 5000),
    "overlap": header({"a": entry(), "b": entry(offsets=(0, 4))}, bytes(4)),
    "negative": header({"a": entry(offsets=(-4, 0))}, bytes(4)),
    "backwards": header({"a": entry(offsets=(4, 0))}, bytes(4)),
    "beyond": header({"a": entry(shape=(4,), offsets=(0, 16))}, bytes(4)),
    "shape overflow": header({"a": entry(shape=(2**62, 8), offsets=(0, 4))}, bytes(4)),
    "float shape": header({"a": entry(shape=(1.5,))}, bytes(4)),
    "unknown dtype": header({"a": entry(dtype="Q8")}, bytes(4)),
    "null dtype": header({"a": entry(dtype=None)}, bytes(4)),
    "hole": header({"a": entry(), "b": entry(offsets=(8, 12))}, bytes(12)),
    "left over": header({"a": entry()}, bytes(64)),
    "same key twice": header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":1}', bytes(4)),
}


@pytest.mark.parametrize("kind", HOSTILE_TENSORS)
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "ema.safetensors"])
def test_a_hostile_tensor_file_is_a_checkpoint_error(two_steps, kind, name):
    path = forge(two_steps / "step-00000001", {name: HOSTILE_TENSORS[kind]})
    with pytest.raises(CheckpointError, match=name):
        load(path)


def test_random_changes_of_a_tensor_file_give_tensors_or_a_checkpoint_error(two_steps):
    good = (two_steps / "step-00000001" / "model.safetensors").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(3000):
        data = bytearray(good)
        for position in rng.integers(0, 400, rng.integers(1, 4)):
            data[position] = rng.integers(256)
        if rng.random() < 0.2:
            del data[rng.integers(len(data)) :]
        try:
            checkpoint._tensors(Path("model.safetensors"), bytes(data))
        except CheckpointError:
            refused += 1
    assert 1000 < refused < 3000


class Payload:
    """Makes the file that it is given when it is unpickled."""

    def __init__(self, sentinel: Path) -> None:
        self.sentinel = sentinel

    def __reduce__(self) -> Any:
        return Path.touch, (self.sentinel,)


def pickles(sentinel: Path) -> dict[str, bytes]:
    raw = pickle.dumps(Payload(sentinel))
    zipped, tarred = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("archive/data.pkl", raw)
    with tarfile.open(fileobj=tarred, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("pickle"), io.BytesIO(raw))
    saved = io.BytesIO()
    torch.save({"weights": Payload(sentinel)}, saved)
    return {"raw": raw, "zip": zipped.getvalue(), "tar": tarred.getvalue(), "torch": saved.getvalue()}


@pytest.mark.parametrize("kind", ["raw", "zip", "tar", "torch"])
@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
def test_a_pickle_in_place_of_any_file_is_refused_and_never_run(two_steps, tmp_path, kind, name):
    sentinel = tmp_path / "owned"
    content = pickles(sentinel)[kind]
    path = two_steps / "step-00000001"
    if name == "manifest.json":
        (path / name).write_bytes(content)
    else:
        forge(path, {name: content})
    with pytest.raises(CheckpointError):
        load(path)
    assert not sentinel.exists()
    pickle.loads(pickles(sentinel)["raw"])
    assert sentinel.exists()  # the payload works where it is unpickled


def test_no_file_of_a_checkpoint_is_a_pickle_or_an_archive(two_steps):
    for file in (two_steps / "step-00000001").iterdir():
        data = file.read_bytes()
        assert not zipfile.is_zipfile(file), file
        if file.suffix == ".safetensors":
            read_tensors(data)
        else:
            assert data.decode().isprintable() or "\n" in data.decode()


def modules() -> list[Path]:
    return sorted(Path(segtool.__file__).parent.rglob("*.py"))


UNPICKLERS = ("pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")


def pickle_uses(source: str) -> list[str]:
    """Returns what in a module's source imports or calls something that unpickles."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            found += [name for name in names if name.split(".")[0] in UNPICKLERS]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "load":
            keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            owner = ast.unparse(node.func.value)
            if owner == "torch" and keywords.get("weights_only") != "True":
                found.append(ast.unparse(node))
            if owner in ("np", "numpy") and keywords.get("allow_pickle", "False") != "False":
                found.append(ast.unparse(node))
    return found


def test_no_module_unpickles_anything():
    assert len(modules()) > 20
    assert {path.name: found for path in modules() if (found := pickle_uses(path.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import loads",
        "import torch\ntorch.load(f)",
        "import torch\ntorch.load(f, weights_only=False)",
        "np.load(f, allow_pickle=True)",
    ],
)
def test_the_search_for_pickles_finds_them(source):
    assert pickle_uses(source)


HOSTILE_JSON = {
    "nothing": b"",
    "number": b"7",
    "list": b"[]",
    "deep": b"[" * 100_000,
    "deep object": b'{"files":' * 100_000,
    "bad utf-8": b'{"files": "\xff"}',
    "large": b'{"x": "' + b"a" * (2 << 20) + b'"}',
    "long number": b'{"format": ' + b"9" * 5000 + b"}",
    "no format": b"{}",
}


@pytest.mark.parametrize("kind", HOSTILE_JSON)
@pytest.mark.parametrize("name", ["state.json", "manifest.json"])
def test_hostile_json_is_a_checkpoint_error(two_steps, kind, name):
    path = two_steps / "step-00000001"
    if name == "manifest.json":
        (path / name).write_bytes(HOSTILE_JSON[kind])
    else:
        forge(path, {name: HOSTILE_JSON[kind]})
    for function, argument in ((load, path), (best, two_steps)):
        with pytest.raises(CheckpointError):
            function(argument)
    remove_old(two_steps, keep=1, warn=pytest.fail)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("step", "1"),
        ("step", -1),
        ("step", 1.5),
        ("step", True),
        ("step", 10**30),
        ("steps", None),
        ("score", "0.9"),
        ("score", float("nan")),
        ("score", float("inf")),
        ("score", True),
        ("best", [1]),
        ("stale", {}),
        ("finished", 1),
    ],
)
def test_a_state_of_the_wrong_types_is_a_checkpoint_error(two_steps, key, value):
    path = two_steps / "step-00000001"
    state = json.loads((path / "state.json").read_bytes())
    forge(path, {"state.json": json.dumps({**state, key: value}).encode()})
    for function, argument in ((load, path), (best, two_steps)):
        with pytest.raises(CheckpointError, match="wrong kind"):
            function(argument)


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "..", ".", "", "a\0b", "model.pt", "x" * 5000, "a/b"])
def test_a_manifest_that_lists_another_name_is_refused_before_any_such_file_is_opened(two_steps, name, monkeypatch):
    path = two_steps / "step-00000001"
    (two_steps / "outside").write_bytes(b"secret")
    manifest = json.loads((path / "manifest.json").read_bytes())
    sums = {"size": 6, "sha256": hashlib.sha256(b"secret").hexdigest()}
    (path / "manifest.json").write_text(json.dumps({"format": 1, "files": {name: sums, **manifest["files"]}}))
    opened: list[str] = []
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (opened.append(self.name), read(self))[1])
    with pytest.raises(CheckpointError, match="no file of a checkpoint"):
        load(path)
    assert opened == ["manifest.json"]


@pytest.mark.parametrize("value", [None, 3, "x", [], {"size": "4"}, {"size": 4, "sha256": 5}])
def test_a_manifest_whose_entries_are_not_sums_is_refused(two_steps, value):
    path = two_steps / "step-00000001"
    manifest = json.loads((path / "manifest.json").read_bytes())
    manifest["files"]["model.safetensors"] = value
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="sha256"):
        load(path)


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "manifest.json"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(two_steps, name):
    path = two_steps / "step-00000001" / name
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(CheckpointError, match="sha256"):
        load(path.parent)


def test_a_config_that_cannot_be_read_is_a_checkpoint_error(two_steps):
    path = forge(two_steps / "step-00000001", {"config.yaml": b"data: [\n"})
    with pytest.raises(CheckpointError, match=r"config\.yaml"):
        load(path)


def test_the_config_is_the_one_that_was_verified_whatever_the_file_becomes_meanwhile(two_steps, monkeypatch):
    path = two_steps / "step-00000001"
    config, verified = load(path).config, checkpoint.verified

    def replaced(where: Path) -> dict[str, bytes]:
        contents = verified(where)
        (where / "config.yaml").write_bytes(b"data: [\n")
        return contents

    monkeypatch.setattr(checkpoint, "verified", replaced)
    assert load(path).config == config


def test_tensors_of_other_shapes_are_a_checkpoint_error_when_they_are_restored(two_steps):
    found = load(two_steps / "step-00000001")
    model = {**found.tensors["model"], "0.weight": torch.zeros(1)}
    with pytest.raises(CheckpointError, match="does not fit"):
        replace(found, tensors={**found.tensors, "model": model}).restore(make_state())
    with pytest.raises(CheckpointError, match="does not fit"):
        replace(found, tensors={**found.tensors, "optimizer": {"9.weight.step": torch.zeros(())}}).restore(make_state())


def snapshot(directory: Path) -> dict[str, Any]:
    """What a folder holds, by path; links are not followed."""
    found: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        if path.is_symlink():
            found[name] = ("link", os.readlink(path))
        else:
            found[name] = path.read_bytes() if path.is_file() else "folder"
    return found


# --- the scale of the loss in fp16


def scaled_state(scale: float = 2.0**20, *, steps: int = 2) -> TrainState:
    """A state with a scaler that has made so many steps."""
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=5)
    plain = make_state()
    state = TrainState(plain.model, plain.ema, plain.optimizer, scaler)
    for seed in range(steps):
        images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(seed))
        state.optimizer.zero_grad()
        scaler.scale(state.model(images).square().mean()).backward()
        scaler.step(state.optimizer)
        scaler.update()
    return state


def test_the_scale_of_the_loss_and_its_count_of_steps_come_back(tmp_path):
    state = scaled_state()
    loaded = load(save(tmp_path, state, make_config(), Progress(step=2)))
    assert loaded.scaler == {"scale": 2.0**20, "_growth_tracker": 2}
    fresh = scaled_state(8.0, steps=1)
    loaded.restore(fresh)
    assert fresh.scaler is not None
    assert state.scaler is not None
    assert fresh.scaler.state_dict() == state.scaler.state_dict()


def test_a_checkpoint_without_a_scaler_has_none_and_leaves_that_of_a_training_as_it_is(tmp_path):
    loaded = load(save(tmp_path, make_state(), make_config(), Progress(step=2)))
    assert loaded.scaler is None
    fresh = scaled_state(8.0)
    loaded.restore(fresh)
    assert fresh.scaler is not None
    assert fresh.scaler.get_scale() == 8.0


@pytest.mark.parametrize("value", [7, [], {}, {"scale": 1.0}, {"scale": "1", "_growth_tracker": 0}])
def test_a_scaler_of_the_wrong_kind_is_refused(tmp_path, value):
    path = save(tmp_path, scaled_state(), make_config(), Progress(step=2))
    state = json.loads((path / "state.json").read_text()) | {"scaler": value}
    text = json.dumps(state).encode()
    (path / "state.json").write_bytes(text)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match="holds a scaler of the wrong kind"):
        load(path)
