"""Where outputs go: links, pipes and folders are never replaced, modes follow the umask, damage is never used."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import command, draw_dataset, identity
from faults import done, tree

from segtool.errors import DiskError
from segtool.runs import checkpoint, checkpoint_files, history
from segtool.runs.run_directory import FILES, FOLDERS, Run

QUICK = (
    "--set=model.encoder.channels=[4, 8]",
    "--set=augment.crop=[16, 16]",
    "--set=train.batch_size=2",
    "--set=train.workers=0",
    "--quiet",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, its config, and a run with checkpoints of step 0 and step 2."""
    folder = tmp_path_factory.mktemp("targets")
    draw_dataset(folder / "data", train=3, val=1, test=1)
    done("init", folder / "data", "--out", folder / "config.yaml")
    steps = ("--set=train.steps=2", "--set=train.eval_every=1", "--set=train.keep=9")
    done("train", folder / "config.yaml", "--run", folder / "run", *QUICK, *steps)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    """A copy of `folder` that a test may spoil."""
    shutil.copytree(folder, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Ends a test that waits for a pipe."""
    signal.alarm(120)
    yield
    signal.alarm(0)


def plant(path: Path, kind: str, victim: Path) -> None:
    """Puts something else than a file in the place of one."""
    victim.write_text("precious")
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dead link":
        path.symlink_to(victim.with_name("nowhere"))
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/null")
    else:
        path.mkdir()


KINDS = ("link", "dead link", "pipe", "device", "folder")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", FILES)
def test_a_run_refuses_what_is_no_file_in_the_place_of_one_before_it_reads_or_writes_any(tmp_path, name, kind):
    run = tmp_path / "run"
    run.mkdir()
    plant(run / name, kind, tmp_path / "victim")
    before = identity(run / name)
    with pytest.raises(DiskError, match=f"{name}: is a link, a folder or a device"):
        Run(run)
    assert identity(run / name) == before
    assert [path.name for path in run.iterdir()] == [name]
    assert (tmp_path / "victim").read_text() == "precious"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("name", FOLDERS)
def test_a_file_in_the_place_of_a_folder_of_a_run_is_told_before_the_data_is_looked_at(copied, name):
    run = copied / "other"
    run.mkdir()
    (run / name).write_text("precious")
    code, _, err = command("train", copied / "config.yaml", "--run", run, *QUICK[:-1])
    assert code == 4, err
    assert f"{run / name}: is no folder that can be written; move it away, or choose another place" in err
    assert "checking the data" not in err
    assert (run / name).read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize("name", ["metrics.jsonl", "train.log", "run.json"])
def test_a_resume_onto_a_link_or_a_pipe_is_exit_4_and_leaves_everything(copied, name, kind):
    run = copied / "run"
    plant(run / name, kind, copied / "victim")
    before = identity(run / name)
    code, _, err = command("train", run, "--resume", "--quiet", "--set=train.steps=3")
    assert code == 4, err
    assert f"{run / name}: is a link" in err
    assert identity(run / name) == before
    assert (copied / "victim").read_text() == "precious"
    assert len(list((run / "checkpoints").iterdir())) == 2


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["init", "init --force", "eval", "check", "predict", "overlay"])
def test_an_output_that_is_a_link_a_pipe_a_device_or_a_folder_is_refused_and_left(copied, what, kind):
    masks = copied / "data" / "test" / "masks"
    out = copied / "out"
    out.mkdir()
    path = {"check": out / "augment-crop.png", "predict": out / "test0.png", "overlay": out / "overlays" / "test0.png"}
    target = path.get(what, out / "file")
    target.parent.mkdir(exist_ok=True)
    plant(target, kind, copied / "victim")
    before = identity(target)
    predicted = ("predict", copied / "run", copied / "data" / "test" / "images", "--out", out, "--overlay", "--quiet")
    words = {
        "init": ("init", copied / "data", "--out", target),
        "init --force": ("init", copied / "data", "--out", target, "--force"),
        "eval": (
            *("eval", "--predictions", masks, "--masks", masks, "--config", copied / "config.yaml"),
            *("--csv", target),
        ),
        "check": ("check", copied / "config.yaml", "--augment", out),
    }
    code, _, err = command(*words.get(what, predicted))
    assert code in (2, 4), err
    assert str(target) in err
    assert identity(target) == before
    assert (copied / "victim").read_text() == "precious"
    assert not (copied / "nowhere").exists()


@pytest.mark.parametrize("target", ["elsewhere", "elsewhere/deeper/still"])
def test_a_run_directory_may_be_a_link_to_a_folder(copied, target):
    (copied / target).mkdir(parents=True)
    (copied / "linked").symlink_to(copied / target)
    done("train", copied / "config.yaml", "--run", copied / "linked", *QUICK, "--set=train.steps=1")
    assert (copied / "linked").is_symlink()
    assert history.last(copied / target / "checkpoints").progress.finished  # type: ignore[union-attr]
    done("eval", copied / "linked", "--quiet")
    done("train", copied / "linked", "--resume", "--quiet", "--set=train.steps=2")


@pytest.mark.parametrize("umask", [0o022, 0o027, 0o077, 0o002])
def test_the_modes_of_all_that_is_written_follow_the_umask(copied, umask):
    out = copied / "new"
    before = os.umask(umask)
    try:
        out.mkdir()
        done("init", copied / "data", "--out", out / "config.yaml")
        done("train", out / "config.yaml", "--run", out / "run", *QUICK, "--set=train.steps=1")
        done("eval", out / "run", "--csv", out / "table.csv", "--quiet")
        images = copied / "data" / "test" / "images"
        done("predict", out / "run", images, "--out", out / "p", "--overlay", "--probabilities", "--quiet")
        done("check", out / "config.yaml", "--augment", out / "sheets", "--set=augment.crop=[8, 8]")
    finally:
        os.umask(before)
    modes = {path.relative_to(out).as_posix(): stat.S_IMODE(path.stat().st_mode) for path in out.rglob("*")}
    assert {"run/train.log", "run/run.json", "run/samples/val0.png", "p/overlays/test0.png"} <= modes.keys()
    folders = {name for name in modes if (out / name).is_dir()}
    # Nobody but this process reads or writes the lock, and what it is locked with is the library's.
    wrong = {
        name: oct(mode)
        for name, mode in modes.items()
        if mode != (0o777 if name in folders else 0o666) & ~umask and name != "run/.lock"
    }
    assert wrong == {}


# --- damaged checkpoints, by the commands


def flip(content: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(content) * 8)
    changed = bytearray(content)
    changed[position // 8] ^= 1 << position % 8
    return bytes(changed)


def cut(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content) - 1)]


def zero_tail(content: bytes, rng: random.Random) -> bytes:
    count = rng.randrange(1, min(len(content), 4096))
    return content[:-count] + bytes(count)


def lengthen(content: bytes, _: random.Random) -> bytes:
    return content + b"\n{}"


DAMAGES = (flip, cut, zero_tail, lengthen, None)
NAMES = (*checkpoint_files.FILES, checkpoint_files.MANIFEST)


def damage(path: Path, kind: int, seed: int) -> bool:
    """Damages a file, and returns whether anything is different for who reads it."""
    content, how, rng = path.read_bytes(), DAMAGES[kind], random.Random(seed)
    if how is None:
        path.unlink()
        return True
    changed = how(content, rng)
    path.write_bytes(changed)
    if path.name != checkpoint_files.MANIFEST:
        return changed != content
    try:  # white space may change where it means nothing
        return json.loads(changed) != json.loads(content)
    except ValueError:
        return True


def assert_damage_is_never_used(copied: Path, name: str, kind: int, seed: int) -> None:
    """Damages a file of the last checkpoint, asks each command for it, and lets the run go on without it."""
    run, images = copied / "run", copied / "data" / "test" / "images"
    path = run / "checkpoints" / "step-00000002"
    if not damage(path / name, kind, seed):
        return
    for words in (("predict", path, images, "--out", copied / "p", "--quiet"), ("eval", path, "--quiet")):
        code, _, err = command(*words)
        assert code == 4, err
        assert "sha256" in err or "upgrade segtool" in err, err
        assert name in err or checkpoint_files.MANIFEST in err or "format" in err, err
    assert not (copied / "p").exists()
    code, _, err = command("train", run, "--resume", "--quiet")
    if "upgrade segtool" in err:  # the format is checked first, and a newer one is never passed over
        assert code == 4, err
        return
    assert code == 0, err
    assert "falling back to the checkpoint before it" in err
    assert checkpoint.load(path).progress.step == 2
    assert (path.parent / "step-00000002.damaged").is_dir()


@pytest.mark.parametrize(("number", "name"), list(enumerate(NAMES)))
def test_a_damaged_file_of_a_checkpoint_is_exit_4_for_who_names_it_and_a_resume_goes_on_from_the_one_before(
    copied, number, name
):
    assert_damage_is_never_used(copied, name, number % len(DAMAGES), seed=number)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", range(len(DAMAGES)))
def test_no_damage_of_any_file_of_a_checkpoint_is_ever_used(folder, tmp_path, name, kind):
    for seed in range(4 if DAMAGES[kind] else 1):
        shutil.copytree(folder, tmp_path / str(seed))
        assert_damage_is_never_used(tmp_path / str(seed), name, kind, seed)


@pytest.mark.slow
def test_no_bit_of_a_checkpoint_that_is_flipped_goes_unseen(folder, tmp_path):
    """Five hundred flips over all files, by the function that every command reads checkpoints with."""
    shutil.copytree(folder / "run" / "checkpoints" / "step-00000002", tmp_path / "c")
    rng = random.Random(0)
    expected = checkpoint.load(tmp_path / "c")
    unseen = 0
    for _ in range(500):
        path = tmp_path / "c" / rng.choice(NAMES)
        content = path.read_bytes()
        path.write_bytes(flip(content, rng))
        try:
            found = checkpoint.load(tmp_path / "c")
        except checkpoint.CheckpointError:
            pass
        else:
            unseen += 1
            # What it says is the same: white space, or a digit of another kind.
            assert path.name == checkpoint_files.MANIFEST
            assert found.progress == expected.progress
        path.write_bytes(content)
    assert unseen < 10


def test_a_run_none_of_whose_checkpoints_verifies_is_exit_4_and_no_fresh_start(copied):
    for path in checkpoint.committed(copied / "run" / "checkpoints"):
        damage(path / "model.safetensors", 0, 1)
    before = tree(copied / "run")
    code, _, err = command("train", copied / "run", "--resume", "--quiet", "--set=train.steps=3")
    assert code == 4, err
    assert "no checkpoint verifies; start afresh with another --run" in err
    after = tree(copied / "run")
    assert {name: content for name, content in after.items() if not name.startswith(".")} == {
        name: content for name, content in before.items() if not name.startswith(".")
    }
    assert sorted(path.name for path in copied.iterdir()) == ["config.yaml", "data", "run"]
