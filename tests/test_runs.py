"""Run directories: one process at a time, logs that survive a crash, files that are whole or not there."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import config_of, identity

from segtool.config import load_config
from segtool.errors import CheckpointError, DataError
from segtool.runs import run_directory
from segtool.runs.run_directory import Run, next_free, relocate, resume_command
from segtool.system.disk import write_atomically


@pytest.fixture
def run(tmp_path):
    made = Run(tmp_path / "run")
    yield made
    made.close()


# --- logs


def rows(run: Run, name: str = "metrics.jsonl") -> list[dict]:
    return [json.loads(line) for line in (run.directory / name).read_text().splitlines()]


def test_rows_are_appended_one_a_line(run):
    run.append("metrics.jsonl", [{"step": 1, "loss": 0.5}])
    run.append("metrics.jsonl", [{"step": 2, "loss": None}, {"step": 3, "loss": 1e-9}])
    assert (run.directory / "metrics.jsonl").read_text() == (
        '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": null}\n{"step": 3, "loss": 1e-09}\n'
    )


def test_a_number_that_json_has_no_word_for_is_never_logged(run):
    with pytest.raises(ValueError, match="JSON"):
        run.append("metrics.jsonl", [{"step": 1, "loss": float("nan")}])


def test_lines_after_a_step_are_dropped_from_both_logs_and_the_others_are_left_as_they_are(run):
    for name in ("metrics.jsonl", "timing.jsonl"):
        run.append(name, [{"step": step, "x": step / 3} for step in (1, 2, 2, 3, 10)])
    before = (run.directory / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    run.drop_after(2)
    assert (run.directory / "metrics.jsonl").read_bytes() == b"".join(before[:3])
    assert [row["step"] for row in rows(run, "timing.jsonl")] == [1, 2, 2]
    run.drop_after(0)
    assert rows(run) == []


@pytest.mark.parametrize("cut", range(1, len('{"step": 3, "loss": 0.25}')))
def test_a_last_line_cut_off_anywhere_is_dropped_and_the_next_rows_stand_on_lines_of_their_own(run, cut):
    run.append("metrics.jsonl", [{"step": 1, "loss": 0.5}])
    with open(run.directory / "metrics.jsonl", "a") as file:
        file.write('{"step": 3, "loss": 0.25}'[:cut])
    run.drop_after(9)
    run.append("metrics.jsonl", [{"step": 2, "loss": 0.5}])
    assert [row["step"] for row in rows(run)] == [1, 2]


@pytest.mark.parametrize(
    "garbage", [b"\0\0\0\0", b"\xff\xfe", b"7", b"null", b"[]", b'{"step": "3"}', b'{"loss": 1}', b"[" * 100_000, b""]
)
def test_lines_that_are_no_rows_are_dropped(run, garbage):
    (run.directory / "metrics.jsonl").write_bytes(b'{"step": 1}\n' + garbage + b'\n{"step": 2}\n')
    told: list[str] = []
    run.drop_after(5, warn=told.append)
    assert [row["step"] for row in rows(run)] == [1, 2]
    assert told == [f"{run.directory / 'metrics.jsonl'}: line 2 is no row that segtool wrote; such lines are left out"]


SCORES = {"step": 2, "split": "val", "miou": 0.5, "pixel_accuracy": 1, "iou": {"sky": 0.5, "sea": None}}


@pytest.mark.parametrize(
    "line",
    [
        *(json.dumps({key: value for key, value in SCORES.items() if key != left}) for left in SCORES),
        *(json.dumps({**SCORES, key: value}) for key, value in {
            "step": "2", "miou": "high", "pixel_accuracy": 10**400, "iou": [0.5],
        }.items()),
        json.dumps({**SCORES, "iou": {"sky": "blue"}}), "{", "[]", "7", "[" * 100_000, "", "\x85", b'{"step": "\xc3"}',
    ],
)  # fmt: skip
def test_rows_of_validations_that_somebody_edited_are_passed_over(run, line):
    content = line if isinstance(line, bytes) else line.encode()
    good = json.dumps(SCORES).encode()
    (run.directory / "metrics.jsonl").write_bytes(b"\n".join([good, content, b'{"step": 3, "loss": 1}', good]))
    assert run.validations() == [SCORES, SCORES]


def test_dropping_makes_no_log_where_there_is_none(run):
    run.drop_after(3)
    assert not (run.directory / "metrics.jsonl").exists()


# --- the lock


def test_a_second_run_on_a_directory_is_refused_with_who_has_it(run, monkeypatch):
    monkeypatch.setattr(run_directory, "LOCK_SECONDS", 0.1)
    child = (
        "from pathlib import Path\nfrom segtool.runs import run_directory\nrun_directory.LOCK_SECONDS = 0.1\n"
        f"try:\n    run_directory.Run(Path({str(run.directory)!r}))\n"
        "except run_directory.CheckpointError as error:\n    print(error)\nelse:\n    print('locked twice')"
    )
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=300, check=True)
    assert f"another process trains here (pid {os.getpid()} on " in done.stdout
    assert "choose another --run" in done.stdout


def test_the_lock_that_a_dead_process_left_is_taken_over(tmp_path):
    child = (
        "import os\nfrom pathlib import Path\nfrom segtool.runs.run_directory import Run\n"
        f"Run(Path({str(tmp_path)!r}))\nos._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", child], timeout=300, check=False).returncode == 9
    assert (tmp_path / ".holder").exists()
    run = Run(tmp_path)
    assert (tmp_path / ".holder").read_text().startswith(f"pid {os.getpid()} on ")
    run.close()
    assert not (tmp_path / ".holder").exists()


def test_a_closed_run_can_be_opened_again(tmp_path):
    Run(tmp_path).close()
    Run(tmp_path).close()


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_in_place_of_the_directory_is_a_checkpoint_error(tmp_path, place):
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointError, match="choose another place"):
        Run(tmp_path / place)
    assert (tmp_path / "file").read_text() == "x"


# --- files


def test_a_file_is_written_whole_with_the_umask_and_nothing_else_is_left(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a.json", b"one")
        write_atomically(tmp_path / "a.json", b"two")
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").read_bytes() == b"two"
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch, call, code):
    write_atomically(tmp_path / "a.json", b"one")

    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(CheckpointError, match=rf"a\.json: cannot be written \({os.strerror(code)}\)"):
            write_atomically(tmp_path / "a.json", b"two")
    assert (tmp_path / "a.json").read_bytes() == b"one"
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_folder_that_is_not_there_or_is_a_file_is_a_checkpoint_error(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "missing" / "a", tmp_path / "file" / "a"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            write_atomically(path, b"")


def test_a_name_as_long_as_the_file_system_takes_is_written(tmp_path):
    name = "x" * 251 + ".png"
    write_atomically(tmp_path / name, b"image")
    assert (tmp_path / name).read_bytes() == b"image"


@pytest.mark.parametrize("kind", ["link", "dead link", "pipe", "folder", "link to a folder"])
def test_what_is_no_plain_file_is_never_replaced(tmp_path, kind):
    path, victim = tmp_path / "out.csv", tmp_path / "victim"
    if kind == "link":
        victim.write_text("precious")
        path.symlink_to(victim)
    elif kind == "dead link":
        path.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        victim.mkdir()
        path.symlink_to(victim)
    before = identity(path)
    with pytest.raises(CheckpointError, match="is not replaced"):
        write_atomically(path, b"new")
    assert identity(path) == before
    assert not victim.is_file() or victim.read_text() == "precious"


def test_facts_come_back_as_they_were_written(run):
    assert run.read_facts() == {}
    run.write_facts({"seed": 0, "command": "segtool train ä.yaml"})
    assert run.read_facts() == {"seed": 0, "command": "segtool train ä.yaml"}


@pytest.mark.parametrize(
    "content",
    [
        *(b"{", b"[]", b"\xff\xff", b"[" * 100_000),
        *(b'{"host": 1}', b'{"splits": [1]}', b'{"resumed": 1}', b'{"resumed": [1]}'),
    ],
)
def test_facts_of_another_shape_are_a_checkpoint_error(run, content):
    (run.directory / "run.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"run\.json: is not what segtool wrote"):
        run.read_facts()


# --- names and places


def test_the_next_free_number_is_one_above_the_highest_that_is_there(tmp_path):
    assert next_free(tmp_path / "missing", "a") == tmp_path / "missing" / "a-1"
    for name in ("a-1", "a-10", "a-x", "ab-40", "a-3-notes", "a.b-7"):
        (tmp_path / name).mkdir()
    assert next_free(tmp_path, "a") == tmp_path / "a-11"
    assert next_free(tmp_path, "a.b") == tmp_path / "a.b-8"
    assert next_free(tmp_path, "a+") == tmp_path / "a+-1"


def test_a_config_moved_to_a_run_points_to_the_same_data(tmp_path, tiny_ds, monkeypatch):
    config = config_of(tiny_ds)
    data = replace(config.data, root="../data")
    monkeypatch.chdir(tmp_path)
    for base, target in ((Path("configs"), Path("runs/a")), (tmp_path / "configs", tmp_path / "runs" / "a")):
        moved = relocate(replace(config, data=data), base, target)
        assert moved.data.root == "../../data"
        assert relocate(moved, target, base).data.root == "../data"


def test_a_config_is_not_moved_by_a_folder_whose_name_it_could_not_hold(tmp_path, tiny_ds):
    config = config_of(tiny_ds)
    data = replace(config.data, root="data")
    base = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(DataError, match="the name is not UTF-8 and cannot stand in a config; rename the folder"):
        relocate(replace(config, data=data), base, tmp_path / "runs" / "a")
    inside = relocate(replace(config, data=data), base, base / "runs" / "a")
    assert inside.data.root == "../../data"


@pytest.mark.parametrize(
    ("path", "word"),
    [("runs/a", "runs/a"), ("a b", "'a b'"), ("-x", "./-x"), ("--run y", "'./--run y'"), ("/-x", "/-x")],
)
def test_a_path_in_a_command_that_is_told_is_quoted_and_no_option(path, word):
    assert resume_command(Path(path)) == f"segtool train {word} --resume"


def test_the_config_of_a_run_is_read_back_equal(run, tiny_ds):
    config = relocate(config_of(tiny_ds), Path("/"), run.directory)
    run.write_config(config)
    read = load_config(run.directory / "config.yaml")
    assert read == config
    assert (run.directory / read.data.root).resolve() == tiny_ds.resolve()
