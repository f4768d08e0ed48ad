"""Every file that segtool writes, over a disk that fails at each call in turn: nothing is lost, and it is told."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import command, config_of, draw_dataset
from faults import Disk, broken_promises, done, every_fault, put_back, tree, unsafe
from PIL import Image
from stubs import red

from segtool.commands import score_report
from segtool.commands.endings import explain
from segtool.config import Augment, load_config
from segtool.errors import CheckpointError, DiskError
from segtool.prediction.predict import predict
from segtool.prediction.predicted_files import list_jobs
from segtool.runs import run_directory as runs
from segtool.runs.checkpoint import committed
from segtool.runs.run_directory import Run
from segtool.system import disk
from segtool.system.terminal import Reporter

QUICK = (
    "--set=model.encoder.channels=[4, 8]",
    "--set=augment.crop=[16, 16]",
    "--set=train.batch_size=2",
    "--set=train.workers=0",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three training pairs and one pair each to validate and test."""
    return draw_dataset(tmp_path_factory.mktemp("data") / "data", train=3, val=1, test=1)


@pytest.fixture(scope="module")
def config(data: Path) -> Path:
    done("init", data, "--out", data.parent / "config.yaml")
    return data.parent / "config.yaml"


# --- one file each, at every call


Write = Callable[[], object]
Writer = Callable[[Path, Path], Write]
"""From the folder that the fault lies in, and the config, to what writes; what was there before is made at once."""


def facts(root: Path, _config: Path) -> Write:
    run = Run(root)
    run.write_facts({"seed": 0})
    return lambda: run.write_facts({"seed": 1, "end": "x" * 100})


def run_config(root: Path, config: Path) -> Write:
    run = Run(root)
    run.write_config(load_config(config))
    return lambda: run.write_config(load_config(config, ["train.seed=9"]))


def rows(root: Path, _config: Path) -> Write:
    run = Run(root)
    run.append("metrics.jsonl", [{"step": 1}, {"step": 2}])
    return lambda: run.append("metrics.jsonl", [{"step": 3, "loss": 0.25}, {"step": 4}])


def first_rows(root: Path, _config: Path) -> Write:
    run = Run(root)
    return lambda: run.append("timing.jsonl", [{"step": 3, "seconds": 0.25}])


def dropped_rows(root: Path, config: Path) -> Write:
    rows(root, config)
    run = Run.__new__(Run)
    run.directory = root
    return lambda: run.drop_after(1)


def log(root: Path, _config: Path) -> Write:
    reporter = Reporter(quiet=True)
    reporter.keep_in(root / "train.log")
    reporter.say("a line")
    return lambda: reporter.warn("two\nlines")


def samples(root: Path, _config: Path) -> Write:
    from segtool.training.samples import Samples

    def drawn() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Samples, "pictures", lambda *_: iter([("a.png", b"12345"), ("b.png", b"67")]))
            Samples([], 0).draw(None, root / "samples")  # type: ignore[arg-type]

    return drawn


def new_config(root: Path, config: Path) -> Write:
    return lambda: done("init", config.parent / "data", "--out", root / "config.yaml")


def replaced_config(root: Path, config: Path) -> Write:
    (root / "config.yaml").write_text("precious: true\n")
    return lambda: done("init", config.parent / "data", "--out", root / "config.yaml", "--force")


def per_image_table(root: Path, config: Path) -> Write:
    masks = config.parent / "data" / "test" / "masks"
    words = ("eval", "--predictions", masks, "--masks", masks, "--config", config, "--csv", root / "table.csv")
    (root / "table.csv").write_text("image,pixel_accuracy,miou,before\n")
    return lambda: done(*words)


def previews(root: Path, config: Path) -> Write:
    from segtool.data.preview import write_previews

    plain = replace(config_of(config.parent / "data"), augment=Augment(crop=(8, 8)))
    return lambda: write_previews(plain, Path("/"), root / "pictures")


def demo_data(root: Path, _config: Path) -> Write:
    from segtool.commands.demo import make_dataset

    return lambda: make_dataset(root / "d", sizes={"train": 1}, height=8, width=8)


def predictions(root: Path, config: Path) -> Write:
    loaded = config_of(config.parent / "data")
    loaded = replace(loaded, data=replace(loaded.data, mask_mode="L"))
    images = config.parent / "data" / "train" / "images"
    jobs = list_jobs([images], root / "out", overlays=True, probabilities=True)[:2]

    def written() -> None:
        for path in predict(red(100), loaded, jobs):
            assert isinstance(path, Path)
            with Image.open(path) as mask:  # announced, so it is whole
                assert mask.size == (32, 32)
                mask.load()

    return written


FILES = (facts, run_config, rows, dropped_rows, log, samples)
COMMANDS = (new_config, replaced_config, per_image_table, previews, demo_data, predictions)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The empty folder whose disk fails; a test may write beside it."""
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.mark.parametrize("writer", FILES, ids=lambda writer: writer.__name__)
def test_a_file_of_a_run_is_the_old_or_the_new_one_whatever_call_fails_and_it_is_said(
    root: Path, config: Path, writer: Writer
) -> None:
    assert broken_promises(root, writer(root, config)) == []


@pytest.mark.parametrize("writer", COMMANDS, ids=lambda writer: writer.__name__)
def test_a_file_of_a_command_is_the_old_or_the_new_one_whatever_call_fails_and_it_is_said(
    root: Path, config: Path, writer: Writer
) -> None:
    assert broken_promises(root, writer(root, config), codes=[errno.ENOSPC], stays_full=[False]) == []


def test_a_first_row_that_cannot_be_written_leaves_an_empty_log_at_most(root: Path, config: Path) -> None:
    for name, _, error in every_fault(root, first_rows(root, config), prepare=lambda: put_back(root, {})):
        assert isinstance(error, DiskError), name
        assert tree(root) in ({}, {"timing.jsonl": b""}, {"timing.jsonl": b'{"step": 3, "seconds": 0.25}\n'}), name


@pytest.mark.slow
@pytest.mark.parametrize("writer", COMMANDS, ids=lambda writer: writer.__name__)
def test_a_file_of_a_command_is_the_old_or_the_new_one_with_any_fault(root: Path, config: Path, writer: Writer) -> None:
    assert broken_promises(root, writer(root, config)) == []


@pytest.mark.parametrize("writer", [first_rows, *FILES, *COMMANDS], ids=lambda writer: writer.__name__)
def test_what_is_written_outlasts_a_loss_of_power(root: Path, config: Path, writer: Writer) -> None:
    write = writer(root, config)
    with Disk(root).installed() as calls:
        write()
    found = unsafe(calls.events)
    if writer is predictions:  # whose names may be lost with the power, never what is in a file that has one
        found = [problem for problem in found if not problem.startswith("the name") or "." not in problem]
    assert found == []


# --- writers that keep no promise, which must be seen


def overwriting(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def silent(path: Path, content: bytes) -> None:
    with contextlib.suppress(DiskError):
        disk.write_atomically(path, content)


def careless(path: Path, content: bytes) -> None:
    """Does not look at how much of it the disk took."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "_write_all", os.write)
        disk.write_atomically(path, content)


def unhandled(path: Path, content: bytes) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "not_written", lambda _path, _needed, error, _left: error)
        disk.write_atomically(path, content)


def untidy(path: Path, content: bytes) -> None:
    temporary = path.with_name(".tmp-1-1")
    try:
        disk.write_new(temporary, content)
        os.replace(temporary, path)
    except OSError as error:
        raise disk.not_written(path, len(content), error, "") from error


def unasked(path: Path, content: bytes) -> None:
    """Does not wait for the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(disk, "write_new", lambda path, content, _: path.write_bytes(content))
        disk.write_atomically(path, content)


def too_late(path: Path, content: bytes) -> None:
    """Flushes a file that has its name already."""
    unasked(path, content)
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def nameless(path: Path, content: bytes) -> None:
    disk.write_atomically(path, content, sync_name=False)


@pytest.mark.parametrize("bad", [overwriting, silent, careless, unhandled, untidy], ids=lambda bad: bad.__name__)
def test_the_disk_that_fails_sees_a_writer_that_keeps_no_promise(root: Path, bad: Callable[..., object]) -> None:
    (root / "a").write_bytes(b"before")
    assert broken_promises(root, lambda: disk.write_atomically(root / "a", b"after this")) == []
    assert broken_promises(root, lambda: bad(root / "a", b"after this"))


@pytest.mark.parametrize("bad", [unasked, too_late, nameless], ids=lambda bad: bad.__name__)
def test_the_order_of_calls_shows_a_writer_that_does_not_wait_for_the_disk(
    root: Path, bad: Callable[..., object]
) -> None:
    with Disk(root).installed() as calls:
        bad(root / "a", b"content")
    assert unsafe(calls.events)


def buffered(path: Path, content: bytes) -> None:
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def unsynced(path: Path, content: bytes) -> None:
    with open(path, "ab", buffering=0) as file:
        file.write(content)


def test_a_log_that_leaves_a_torn_line_or_one_that_is_not_on_the_disk_is_seen(root: Path) -> None:
    """Negative controls of the appended files."""
    (root / "a").write_bytes(b"one\n")
    assert broken_promises(root, lambda: disk.append(root / "a", b"two\n")) == []
    assert broken_promises(root, lambda: buffered(root / "a", b"two\n"))
    with Disk(root).installed() as calls:
        unsynced(root / "a", b"two\n")
    assert unsafe(calls.events)


def test_a_writer_that_is_interrupted_leaves_nothing_behind(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    (root / "a").write_bytes(b"before")
    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        disk.write_atomically(root / "a", b"after")
    assert tree(root) == {"a": b"before"}


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP, errno.EIO])
def test_a_file_system_without_fsync_of_folders_is_written_to_and_one_that_fails_is_not_trusted(
    root: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def no_sync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", no_sync)
    if code == errno.EIO:
        with pytest.raises(DiskError, match="Input/output error"):
            disk.write_atomically(root / "a", b"content")
    else:
        disk.write_atomically(root / "a", b"content")
    assert (root / "a").read_bytes() == b"content"


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "free some of your quota"),
        (errno.EFBIG, "raise the limit on the size of a file"),
        (errno.EROFS, "choose another place"),
    ],
)
def test_a_write_that_fails_tells_path_reason_bytes_needed_and_free_and_a_remedy(
    root: Path, code: int, remedy: str
) -> None:
    free = shutil.disk_usage(root).free
    for write in (disk.write_atomically, disk.append):
        with Disk(root, 1, code).installed(), pytest.raises(DiskError) as told:
            write(root / "sub.txt", b"x" * 1234)
        text = str(told.value)
        assert text.startswith(f"{root / 'sub.txt'}: cannot be written ({os.strerror(code)}): 1,234 bytes needed, ")
        assert abs(int(text.split("needed, ")[1].split(" free")[0].replace(",", "")) - free) < 1e10
        assert remedy in text


def test_free_bytes_that_the_system_does_not_tell_are_unknown(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "no")

    monkeypatch.setattr(shutil, "disk_usage", fail)
    with Disk(root, 0).installed(), pytest.raises(DiskError, match="an unknown number free"):
        disk.append(root / "a", b"x")


def test_what_a_killed_writer_left_is_removed_by_the_next_run_and_nothing_else(root: Path) -> None:
    ours = [".tmp-12-345", "samples/.tmp-1-2"]
    others = [".tmp-mine", ".tmp-1-2.png", "tmp-1-2", "samples/.tmp-x", "checkpoints/x", "metrics.jsonl"]
    put_back(root, dict.fromkeys([*ours, *others], b"x"))
    (root / ".tmp-3-4").mkdir()
    run = Run(root)
    assert set(tree(root)) == {*others, ".lock", ".holder"}
    assert (root / ".tmp-3-4").is_dir()
    run.close()


def test_what_a_killed_writer_left_is_removed_and_what_another_process_is_writing_stays(root: Path) -> None:
    hold = "import sys, time; from pathlib import Path; from segtool.system import disk\n"
    hold += "disk.os.replace = lambda *_: (print(flush=True), time.sleep(60))\n"
    hold += "disk.write_atomically(Path(sys.argv[1]), b'x')"
    with subprocess.Popen([sys.executable, "-c", hold, root / "a.png"], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        writer.stdout.readline()
        theirs = [path.name for path in root.glob(".tmp-*")]
        for name in (".tmp-12-345", ".tmp-mine", "a"):
            (root / name).write_bytes(b"half")
        (root / ".tmp-1-1").touch()  # just made, and not locked yet
        (root / ".tmp-2-2").symlink_to("a")
        disk.remove_abandoned(root)
        assert {path.name for path in root.iterdir()} == {*theirs, ".tmp-mine", "a", ".tmp-1-1", ".tmp-2-2"}
        assert len(theirs) == 1
        writer.kill()
        writer.wait()
        disk.remove_abandoned(root)
        assert {path.name for path in root.iterdir()} == {".tmp-mine", "a", ".tmp-1-1", ".tmp-2-2"}


# --- a whole run


def train(run: Path, config: Path, *words: str) -> None:
    """Trains in this process to the end, from the start or from where it stands.

    Raises:
        CheckpointError: it ended with exit code 4.
    """
    if (run / "checkpoints").is_dir() and committed(run / "checkpoints"):
        done("train", run, "--resume", "--quiet", *words)
    else:
        done(
            "train", config, "--run", run, "--quiet", *QUICK, "--set=train.steps=3", "--set=train.eval_every=1", *words
        )


def outcome(run: Path) -> dict[str, bytes]:
    """What of a finished run must not depend on faults that came in between."""
    files = tree(run)
    kept = [name for name in files if name.startswith(("checkpoints/step-", "samples/")) or name == "metrics.jsonl"]
    return {name: files[name] for name in kept}


@pytest.fixture(scope="module")
def undisturbed(config: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], int]:
    """What a run that no fault disturbs comes to, and how many calls it makes."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    with Disk(run).installed() as calls:
        train(run, config)
    return outcome(run), len(calls.events)


def disturbed(run: Path, config: Path, undisturbed: dict[str, bytes], number: int, code: int, full: bool) -> list[str]:
    """Returns what went wrong with a run whose disk failed at a call, and that was continued when it was mended."""
    shutil.rmtree(run, ignore_errors=True)
    calls = Disk(run, number, code, full)
    error, problems = None, []
    with calls.installed():
        try:
            train(run, config)
        except (CheckpointError, RuntimeError) as raised:
            error = raised
    call = "/".join(calls.events[number]) if calls.fired else "none"
    steps = [path.name for path in committed(run / "checkpoints")]
    if error is None and ".tmp-old" in call:  # an old checkpoint that stays is warned of, and costs nothing
        return []
    if error is None and outcome(run) != undisturbed and "unlink" not in call:
        problems.append("nothing was said")
    if error is not None:
        text = str(error)
        if not isinstance(error, CheckpointError):
            problems.append(text)
        if steps and f"continue with: segtool train {run} --resume" not in text:
            problems.append(f"does not say how to continue: {text}")
        if not steps and (run / "config.yaml").exists() and "begin again" not in text:
            problems.append(f"does not say to begin again: {text}")
        if steps and f"step {int(steps[-1][5:])} is saved and whole" not in text:
            problems.append(f"{steps[-1]} is there: {text}")
        train(run, config)
    left = [name for name in tree(run) if ".tmp" in name and ".tmp-old" not in name]
    if left or outcome(run) != undisturbed:
        problems.append(f"after it was continued: {left}, {sorted(outcome(run))}")
    return [f"{errno.errorcode[code]}{' for ever' if full else ''} at call {number} ({call}): {p}" for p in problems]


@pytest.mark.parametrize("number", [3, 20, 55, 75])
def test_a_run_whose_disk_fails_says_what_is_saved_and_continues_to_what_it_would_have_been(
    tmp_path: Path, config: Path, undisturbed: tuple[dict[str, bytes], int], number: int
) -> None:
    assert disturbed(tmp_path / "run", config, undisturbed[0], number, errno.ENOSPC, True) == []


@pytest.mark.slow
@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_run_whose_disk_fails_at_any_call_continues_to_what_it_would_have_been(
    tmp_path: Path, config: Path, undisturbed: tuple[dict[str, bytes], int], code: int, full: bool
) -> None:
    expected, count = undisturbed
    problems = [disturbed(tmp_path / "run", config, expected, number, code, full) for number in range(count)]
    assert [problem for found in problems for problem in found] == []


# --- what the commands say, and that they go on


@pytest.fixture(scope="module")
def run(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one step."""
    run = tmp_path_factory.mktemp("trained") / "run"
    done("train", config, "--run", run, "--quiet", *QUICK, "--set=train.steps=1")
    return run


@pytest.mark.parametrize("number", [6, 17, 26, 31])
def test_a_prediction_whose_disk_fails_tells_how_many_masks_are_whole_and_is_resumed_to_an_undisturbed_one(
    tmp_path: Path, data: Path, run: Path, number: int
) -> None:
    images = tmp_path / "images"
    shutil.copytree(data / "train" / "images", images)
    (images / "a.png").write_text("no image")
    words = ("predict", run, images, "--overlay", "--probabilities", "--quiet", "--out")
    code, _, err = command(*words, tmp_path / "whole")
    assert code == 3, err
    whole, out = tree(tmp_path / "whole"), tmp_path / "out"
    with Disk(out, number, errno.ENOSPC, stays_full=True).installed():
        code, _, err = command(*words, out)
    assert code == 4, err
    assert f"{images / 'a.png'}: " in err  # what was wrong with an image is not lost with it
    assert str(out) in err
    assert "No space left on device" in err
    there = tree(out)
    count = sum("/" not in name for name in there)
    assert f"error: {count} of 4 masks are in {out}, whole; --resume makes the others when that is mended" in err
    assert there.items() <= whole.items()
    code, _, err = command(*words, out, "--resume")
    assert code == 3, err
    assert tree(out) == whole


def test_scores_are_shown_where_their_table_cannot_be_written(
    tmp_path: Path, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before, tables = tree(copy), []
    monkeypatch.setattr(score_report, "show", lambda _, table, **__: tables.append(table))
    with Disk(copy, 1).installed():
        code, _, err = command("eval", copy, "--quiet")
    assert code == 0, err
    assert "the per-image table was not written: " in err
    assert "No space left on device" in err
    with Disk(copy, 1).installed():
        code, _, err = command("eval", copy, "--quiet", "--csv", copy / "table.csv")
    assert code == 4, err
    assert tables == [None, None]
    assert tree(copy) == before


def test_a_table_that_cannot_be_where_it_is_asked_for_is_told_before_anything_is_scored(tmp_path: Path) -> None:
    code, _, err = command("eval", tmp_path / "no-run", "--csv", tmp_path / "missing" / "table.csv")
    assert code == 4
    assert err.startswith(f"error: {tmp_path / 'missing' / 'table.csv'}: its folder is not there; make it")


def test_folds_whose_disk_fails_tell_how_all_of_them_continue(tmp_path: Path, config: Path) -> None:
    folds = tmp_path / "folds"
    words = ("train", config, "--folds", "2", "--run", folds, "--quiet", *QUICK, "--set=train.steps=1")
    again = f"that and all other folds continue with: segtool train {config} --folds 2 --run {folds} --resume --set "
    with Disk(folds / "fold-2" / "checkpoints", 5, errno.EIO).installed():
        code, _, err = command(*words)
    assert code == 4, err
    assert "Input/output error" in err
    assert again in err
    done(*words, "--resume")
    whole = (folds / "folds.json").read_bytes()
    (folds / "folds.json").unlink()
    with Disk(folds, 0, errno.EIO).installed():  # all folds are done: only this file is written
        code, _, err = command(*words, "--resume")
    assert code == 4, err
    assert again in err
    assert not (folds / "folds.json").exists()
    done(*words, "--resume")
    assert (folds / "folds.json").read_bytes() == whole


def test_a_temporary_folder_that_is_full_costs_memory_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from segtool.data import spool

    monkeypatch.setattr(spool.tempfile, "tempdir", str(tmp_path))
    for number in range(3):
        with Disk(tmp_path, number, errno.ENOSPC, stays_full=True).installed() as calls:
            array = spool.spooled((30, 20, 3))
        array[:] = 7
        assert array.shape == (30, 20, 3)
        assert (array == 7).all()
        assert not list(tmp_path.iterdir())
    assert calls.events


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_nothing_is_appended_to_what_is_no_file(root: Path, kind: str) -> None:
    (root / "victim").write_text("precious")
    if kind == "link":
        (root / "a").symlink_to(root / "victim")
    elif kind == "pipe":
        os.mkfifo(root / "a")
    else:
        (root / "a").mkdir()
    with pytest.raises(DiskError, match="is a link, a folder or a device"):
        disk.append(root / "a", b"more")
    assert (root / "victim").read_text() == "precious"


def test_what_an_earlier_process_of_the_same_number_left_half_written_is_in_nobodys_way(root: Path) -> None:
    (root / f".tmp-{os.getpid()}-{threading.get_ident()}").write_bytes(b"half")
    disk.write_atomically(root / "a", b"content")
    assert tree(root) == {"a": b"content"}


def test_a_run_that_cannot_be_opened_leaves_its_lock_free_and_one_that_cannot_be_tidied_closes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LOCK_SECONDS", 0.05)
    kept = []  # with what they hold on to
    for number in range(1, 12):
        with Disk(root, number).installed():
            try:
                Run(root).close()
            except DiskError as error:
                kept.append(error)
    assert len(kept) > 3
    run = Run(root)
    with Disk(root, 0, errno.EIO).installed() as calls:
        run.close()
    assert calls.fired
    Run(root).close()


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_disk_that_fails_a_library_is_exit_4_and_no_bug(code, capsys):
    assert explain(OSError(code, os.strerror(code))) == 4
    assert os.strerror(code) in capsys.readouterr().err
    assert explain(OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))) == 1
    assert explain(OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP), "a.png")) == 4
    assert "a.png" in capsys.readouterr().err
