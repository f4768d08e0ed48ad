"""A run that was killed or stopped at any moment and continued is, byte by byte, the run that was not."""

from __future__ import annotations

import json
import os
import platform
import pty
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of, is_running
from killing import Ended, Server
from training import SilentOs, metrics_of

from segtool import __version__
from segtool.commands import continuation, execution, provenance, session
from segtool.commands.sources import Session
from segtool.config import dump_config, load_config, show
from segtool.data.pairs import Record
from segtool.errors import ConfigError, DataError, DiskError
from segtool.prediction.inference import fast_dtype
from segtool.runs import checkpoint, history
from segtool.runs.run_directory import Run, RunDirectory, holds_run, relocate
from segtool.system import signals
from segtool.system.distributed import ALONE
from segtool.system.terminal import Reporter
from segtool.training import forecast, train, training_step
from segtool.training.optim import learning_rate

FCN = {"decoder": {"name": "fcn", "upsample": "bilinear", "skips": 1}}

# What is not reproducible, or has a line for each resume.
OF_THE_DAY = {"run.json", "timing.jsonl", "train.log", ".lock"}


def lasting(run: Path) -> dict[str, bytes]:
    """The content of every file of a run that must not depend on interruptions."""
    paths = [path for path in run.rglob("*") if path.is_file() and path.name not in OF_THE_DAY]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in paths}


def differences(run: Path, whole: Path) -> list[str]:
    """The names of the files that only one of two runs has, or that differ."""
    first, second = lasting(run), lasting(whole)
    return sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))


@dataclass(frozen=True)
class Bench:
    """What the tests of this file share: a server, a config, and its run that nothing disturbed."""

    server: Server
    folder: Path
    config: Path
    whole: Path
    ended: Ended

    @property
    def part(self) -> Path:
        return self.folder / "part"

    def clear(self) -> None:
        shutil.rmtree(self.part, ignore_errors=True)

    def begin(self, at: int | str | None = None, **options: Any) -> Ended:
        """Trains in a new directory, with a signal at an event in it."""
        self.clear()
        options.setdefault("directory", self.part)
        return self.server.run("train", self.config, "--run", self.part, at=at, **options)

    def go_on(self, *arguments: str, **options: Any) -> Ended:
        """Continues, or begins again as the message says where nothing was saved."""
        ended = self.server.run("train", self.part, "--resume", *arguments, **options)
        if ended.code != 4:
            return ended
        assert "begin it again" in ended.said or "leaving out --resume" in ended.said
        return self.server.run("train", self.config, "--run", self.part, **options)


@pytest.fixture(scope="module")
def bench(tiny_ds: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = tmp_path_factory.mktemp("resume")
    config = folder / "config.yaml"
    train = {"steps": 6, "eval_every": 1.0, "keep": 2, "samples": 2}
    config.write_text(dump_config(config_of(tiny_ds, train=train)))
    server = Server(folder, config)
    try:
        ended = server.run("train", config, "--run", folder / "whole", directory=folder / "whole")
        assert ended.code == 0, ended.said
        yield Bench(server, folder, config, folder / "whole", ended)
    finally:
        server.close()


# --- SIGKILL

MOMENTS = [
    "write checkpoints/.tmp-step-00000000-PID/model.safetensors",  # nothing is saved yet
    "write samples/*",  # within a validation, of a picture the half
    "write metrics.jsonl",  # a torn line, and rows of steps that are not saved
    "rename checkpoints/.tmp-step-00000003-PID",  # the rows are written, and the checkpoint is not committed
    "open checkpoints/.tmp-old-step-00000000",  # of an old checkpoint that is removed, its name
]


@pytest.mark.parametrize(
    "moment", [*MOMENTS[:3], *(pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS[3:])]
)
def test_a_run_killed_at_any_moment_and_continued_is_the_run_that_was_not(bench, moment):
    assert bench.begin(moment).code == -signal.SIGKILL
    assert bench.go_on().code == 0
    assert differences(bench.part, bench.whole) == []


def test_a_run_killed_after_its_last_checkpoint_is_closed_by_a_resume(bench):
    assert bench.begin("open checkpoints/step-00000006/state.json").code == -signal.SIGKILL
    assert "end" not in facts_of(bench.part)
    old = bench.part / "checkpoints" / "step-00000000"
    shutil.copytree(old, old.with_name(f".tmp-old-{old.name}"))  # as one whose removal is killed is left
    assert "is done at step 6" in bench.go_on().said
    assert differences(bench.part, bench.whole) == []
    assert facts_of(bench.part)["steps_done"] == 6
    assert "end" in facts_of(bench.part)


def test_resumes_that_are_killed_too_change_nothing(bench):
    """In the middle of dropping rows, before anything new is saved, and while it is."""
    saved = "checkpoints/.tmp-step-00000003-PID"
    assert bench.begin(f"rename {saved}").code == -signal.SIGKILL
    for moment in ("write .tmp-*", "rename .tmp-*", "write metrics.jsonl", f"write {saved}/*", f"rename {saved}"):
        assert bench.go_on(directory=bench.part, at=moment).code == -signal.SIGKILL, moment
    assert bench.go_on().code == 0
    assert differences(bench.part, bench.whole) == []
    assert [resume["step"] for resume in facts_of(bench.part)["resumed"]] == [0] * 4  # those that came to train


@pytest.mark.slow
@pytest.mark.parametrize("first", range(1, 9))
def test_a_run_killed_at_each_of_its_writes_and_continued_is_the_run_that_was_not(bench, first):
    wrong = {}
    for number in range(first, len(bench.ended.events) + 1, 8):
        assert bench.begin(number).code == -signal.SIGKILL
        ended = bench.go_on()
        if found := [*([ended.said] if ended.code else []), *differences(bench.part, bench.whole)]:
            wrong[f"{number}: {bench.ended.events[number - 1]}"] = found
    assert wrong == {}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_random_again_and_again_is_the_run_that_was_not(bench, seed):
    draw = random.Random(seed)
    ended = bench.begin(draw.randrange(1, 60))
    kills = 0
    while ended.code:
        assert ended.code == -signal.SIGKILL, ended.said
        kills += 1
        ended = bench.go_on(directory=bench.part, at=draw.randrange(20, 140))
    assert kills > 1
    assert differences(bench.part, bench.whole) == []


BROKEN = {
    "rows of steps that are not saved are kept": """
from segtool.runs.run_directory import Run
Run.drop_after = lambda *_, **__: None
""",
    "the optimizer is forgotten": """
from segtool.runs import checkpoint
checkpoint._restore_optimizer = lambda *_: None
""",
    "the averages are forgotten": """
from dataclasses import replace
from segtool.runs.checkpoint import Checkpoint
restore = Checkpoint.restore
Checkpoint.restore = lambda self, state: restore(self, replace(state, ema=None))
""",
    "the stream of images begins anew": """
from segtool.training import train
batches = train.training_batches
train.training_batches = lambda *arguments, start, **options: batches(*arguments, start=0, **options)
""",
    "the best score is forgotten": """
from dataclasses import replace
from segtool.runs import checkpoint
load = checkpoint.load
checkpoint.load = lambda path: (found := load(path)) and replace(found, progress=replace(found.progress, best=9.0))
""",
    "what is left of a checkpoint stays": """
from segtool.runs import run_directory
run_directory.remove_unfinished = lambda _: None
""",
}


@pytest.fixture(scope="module")
def cut(bench: Bench) -> Path:
    """A run that was killed when it committed its last checkpoint."""
    assert bench.begin("rename checkpoints/.tmp-step-00000006-PID").code == -signal.SIGKILL
    return bench.part.rename(bench.folder / "cut")


@pytest.mark.parametrize(
    "name", [*list(BROKEN)[:3], *(pytest.param(name, marks=pytest.mark.slow) for name in list(BROKEN)[3:])]
)
def test_a_resume_that_forgets_something_is_seen(bench, cut, name):
    """Negative control."""
    bench.clear()
    shutil.copytree(cut, bench.part)
    assert bench.go_on(broken=BROKEN[name]).code == 0
    assert differences(bench.part, bench.whole)


ROWS_LAST = """
from segtool.runs import checkpoint
from segtool.training import train
save, flush, late = checkpoint.save, train.Logs.flush, []
train.Logs.flush = lambda logs: late.append(logs)
def save_first(*arguments):
    save(*arguments)
    while late: flush(late.pop())
checkpoint.save = save_first
"""


@pytest.mark.slow
def test_rows_that_are_written_after_their_checkpoint_are_seen_to_be_lost(bench):
    """Negative control: killed between the two."""
    assert bench.begin("no such event", broken=ROWS_LAST).code == 0
    assert differences(bench.part, bench.whole) == []
    assert bench.begin("write metrics.jsonl", broken=ROWS_LAST).code == -signal.SIGKILL
    assert bench.go_on(broken=ROWS_LAST).code == 0
    assert differences(bench.part, bench.whole) == ["metrics.jsonl"]


# --- before the first checkpoint


def test_what_ended_before_its_first_checkpoint_is_begun_again_as_the_message_says(bench):
    assert bench.begin("mkdir checkpoints/*").code == -signal.SIGKILL
    assert not holds_run(bench.part)
    ended = bench.server.run("train", bench.part, "--resume")
    assert ended.code == 4
    assert "ended before its first checkpoint" in ended.said
    command = shlex.split(ended.said.strip().rpartition("begin it again: segtool ")[2])
    assert command == ["train", str(bench.part), "--run", str(bench.part)]
    assert bench.server.run(*command).code == 0
    assert differences(bench.part, bench.whole) == []


def test_a_run_killed_between_its_facts_and_its_config_has_no_config_that_counts_as_the_users_own(bench):
    renames = [number for number, event in enumerate(bench.ended.events, 1) if event.startswith("rename .tmp-")]
    assert bench.begin(renames[2]).code == -signal.SIGKILL  # after those of .holder and one of the two
    assert {path.name for path in bench.part.iterdir()} >= {"run.json", ".holder"}
    assert not holds_run(bench.part)


def test_a_folder_with_a_config_of_the_users_own_or_anything_saved_is_never_begun_in(tmp_path):
    assert not holds_run(tmp_path)
    assert not holds_run(tmp_path / "missing")
    (tmp_path / "config.yaml").touch()
    assert holds_run(tmp_path)
    (tmp_path / "run.json").touch()
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoints" / ".tmp-step-00000000-1").mkdir(parents=True)
    assert not holds_run(tmp_path)
    (tmp_path / "checkpoints" / "step-00000000.damaged").mkdir()
    assert holds_run(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "metrics.jsonl").touch()
    assert holds_run(tmp_path)


def test_where_the_disk_of_several_processes_fails_the_command_that_continues_starts_as_many_where_they_were(bench):
    run = RunDirectory(bench.whole, device="cpu", processes=2)
    command = r"segtool train \S+ --resume --device cpu --gpus 2"
    with (
        pytest.raises(DiskError, match=rf"^the disk is full\nstep \d+ is saved and whole; .*: {command}$"),
        execution.working_in(run, Reporter(quiet=True)),
    ):
        raise DiskError("the disk is full")


@pytest.mark.parametrize(
    ("moved", "told"),
    [
        (False, r"no mask is there\nstep 6 is saved and whole; when that is mended, continue with: segtool train \S+"),
        (True, r"no mask is there\n\S+run: was moved or removed, or its disk is not there; .* segtool train DIR"),
    ],
)
def test_what_ends_a_run_from_outside_tells_how_it_goes_on(tmp_path, bench, moved, told):
    run = RunDirectory(copy_of(bench.whole, tmp_path))
    if moved:
        run.directory.rename(tmp_path / "there")
    with (
        pytest.raises(DataError, match=rf"^{told} --resume$"),
        execution.working_in(run, Reporter(quiet=True)),
    ):
        raise DataError("no mask is there")


def test_two_trainings_that_are_given_the_same_next_name_get_two_directories(tmp_path):
    """Started at the same moment, both have seen that no run is there."""
    claimed = [session._claim(tmp_path / "runs" / "net-3") for _ in range(2)]
    assert [directory.name for directory in claimed] == ["net-3", "net-4"]


@pytest.mark.parametrize("place", ["runs", "runs/net-3"])
def test_a_link_to_nothing_in_the_place_of_a_run_is_told_before_anything_is_looked_at(
    bench, tmp_path, monkeypatch, segtool, place
):
    """As where the disk that holds all runs is not mounted."""
    monkeypatch.chdir(tmp_path)
    if place != "runs":
        Path("runs").mkdir()
    Path(place).symlink_to("nowhere")
    ended = segtool("train", bench.config, *([] if place == "runs" else ["--run", place]))
    assert ended.code == 4
    assert f"cannot be made, since {place} is no folder that can be written; choose another --run" in ended.err
    if place == "runs":  # gone between that look and the training
        with pytest.raises(DiskError, match="runs: the folder cannot be made"):
            session._claim(Path("runs/net-3"))


def test_a_training_that_waited_for_another_in_its_directory_does_not_train_into_its_run(bench, monkeypatch, segtool):
    """The other one had not begun when this one looked."""
    directory = bench.folder / "waited"
    monkeypatch.setattr(session, "Run", lambda path, **_: (shutil.copytree(bench.whole, path), Run(path))[1])
    refused = segtool("train", bench.config, "--run", directory, "--device", "cpu")
    assert refused.code == 2
    assert f"holds a run; continue it with: segtool train {directory} --resume --device cpu, or" in refused.err
    assert differences(directory, bench.whole) == []


# --- signals

HINT = re.compile(r"error: interrupted; step (\d+) is saved\. Continue with: (segtool train .* --resume)\n\Z")


@pytest.mark.parametrize(
    ("number", "moment", "saved", "workers"),
    [
        (signal.SIGINT, "write samples/*", 3, 2),
        (signal.SIGTERM, "write checkpoints/.tmp-step-00000003-PID/model.safetensors", 4, 1),
        (signal.SIGHUP, "fsync metrics.jsonl", 4, 0),
    ],
)
def test_a_signal_to_the_whole_group_finishes_the_step_saves_it_and_ends_with_how_to_go_on(
    bench, number, moment, saved, workers
):
    loaded = f"from segtool.training import train; train.num_workers = lambda *_: {workers}"
    ended = bench.begin(moment, signals=[number], broken=loaded)
    assert ended.code == 128 + number
    match = HINT.search(ended.said)
    assert match, ended.said
    assert "Traceback" not in ended.said
    found = history.last(bench.part / "checkpoints")
    assert found is not None
    assert found.progress.step == int(match[1]) == saved
    assert bench.server.run(*shlex.split(match[2])[1:], broken=loaded).code == 0
    # Of the last two checkpoints that are kept, the one of the signal may be one.
    kept = {Path(name).parts[1] for name in differences(bench.part, bench.whole)}
    assert kept == (set() if saved == 3 else {"step-00000003", "step-00000004"})


def test_what_continues_a_training_that_was_put_on_a_device_puts_it_there_again(tmp_path, bench, segtool, monkeypatch):
    """The GPU may be full, which is why the user named another."""
    step = training_step.train_step
    monkeypatch.setattr(signals, "os", SilentOs)
    monkeypatch.setattr(
        training_step, "train_step", lambda *args: (signal.raise_signal(signal.SIGTERM), step(*args))[1]
    )
    begun = ("train", bench.config, "--run", tmp_path / "run", "--device", "cpu")
    for saved, words in ((1, begun), (2, ("train", tmp_path / "run", "--resume", "--device", "cpu"))):
        told = f"step {saved} is saved. Continue with: segtool train {tmp_path / 'run'} --resume --device cpu\n"
        assert segtool(*words).err.endswith(told)


def test_a_signal_in_the_last_validation_ends_what_would_follow_and_the_run_is_done(
    tmp_path, bench, segtool, monkeypatch
):
    """Else `segtool train … && segtool eval …` would go on after Ctrl-C."""
    run, validate = tmp_path / "run", train.validate

    def stopped(training: Any, dataset: Any, progress: Any, *rest: Any) -> Any:
        if progress.step == progress.steps:
            signal.raise_signal(signal.SIGINT)
        return validate(training, dataset, progress, *rest)

    SilentOs.written.clear()
    monkeypatch.setattr(signals, "os", SilentOs)
    monkeypatch.setattr(train, "validate", stopped)
    ended = segtool("train", bench.config, "--run", run)
    assert ended.code == 130
    assert f"next: segtool eval {run}" in ended.err
    assert SilentOs.written[-1] == b"\nstopped by SIGINT; the training that it came in is done and whole\n"
    assert "end" in facts_of(run)
    assert "is done at step 6" in segtool("train", run, "--resume").err


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGTERM, "open .lock"),
        (signal.SIGINT, "write checkpoints/.tmp-step-00000000-PID/model.safetensors"),
        (signal.SIGHUP, "write .tmp-*"),
    ],
)
def test_a_signal_before_the_first_step_ends_at_once_with_a_word_and_leaves_a_place_to_begin_in(bench, number, moment):
    ended = bench.begin(moment, signals=[number])
    assert ended.code == 128 + number
    assert ended.said.endswith(f"\nstopped by {signal.Signals(number).name}\n")
    assert "Traceback" not in ended.said
    assert list(bench.part.glob("**/.tmp-*")) == []
    assert not holds_run(bench.part)
    assert bench.go_on().code == 0
    assert differences(bench.part, bench.whole) == []


def test_a_signal_while_the_data_is_checked_ends_at_once_with_a_word(bench, tiny_ds, tmp_path):
    unknown = f"import os; os.environ['XDG_CACHE_HOME'] = {str(tmp_path)!r}"  # what is known is not opened
    ended = bench.begin("open val/masks/*", directory=tiny_ds, signals=[signal.SIGINT], broken=unknown)
    assert ended.code == 130
    assert ended.said == "checking the data (segtool check shows all that it finds)\n\nstopped by SIGINT\n"
    assert not bench.part.exists()


def test_a_second_signal_ends_at_once_and_harms_nothing(bench):
    ended = bench.begin("write samples/*", signals=[signal.SIGINT, signal.SIGTERM])
    assert ended.code == 143
    assert ended.said.endswith("once more to stop at once\n")
    found = history.last(bench.part / "checkpoints")
    assert found is not None
    assert found.progress.step == 0
    assert bench.go_on().code == 0
    assert differences(bench.part, bench.whole) == []


def test_a_run_that_nohup_shields_outlasts_its_terminal(bench):
    shield = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)"
    assert bench.begin("write samples/*", signals=[signal.SIGHUP], broken=shield).code == 0
    assert differences(bench.part, bench.whole) == []


# --- what is told of a run


def facts_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


def test_the_facts_of_a_run_tell_what_it_was_made_from_and_computed_with(bench):
    facts = facts_of(bench.whole)
    choices, data, start, end = (facts.pop(key) for key in ("choices", "data", "start", "end"))
    assert set(choices) == {"data.mean and std", "train.precision", "train.compile", "train.workers", "train.cache"}
    assert re.fullmatch("[0-9a-f]{64}", data)
    assert start <= end
    assert facts == {
        "command": f"segtool train {bench.config} --run {bench.whole} --no-preflight",
        "seed": 0,
        "device": "cpu",
        "processes": 1,
        "job": None,
        "steps": 6,
        "inference_precision": str(fast_dtype(torch.device("cpu"))).removeprefix("torch."),
        "splits": {"train": 8, "val": 3, "test": 2},
        "versions": {
            "segtool": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "host": {
            "system": platform.platform(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": 1,
        },
        "steps_done": 6,
    }


def test_the_log_is_what_the_terminal_showed_over_all_resumes_and_the_facts_tell_each(bench):
    first = bench.begin("write samples/*", signals=[signal.SIGTERM])
    assert "end" not in facts_of(bench.part)
    second = bench.go_on()
    shown = [line for line in (first.said + second.said).splitlines() if line and "signal received" not in line]
    assert (bench.part / "train.log").read_text().splitlines() == shown
    facts = facts_of(bench.part)
    assert [resume["step"] for resume in facts["resumed"]] == [3]
    assert facts["resumed"][0]["command"] == f"segtool train {bench.part} --resume --no-preflight"
    assert {key: facts["resumed"][0][key] for key in ("device", "versions", "host")} == {
        key: facts[key] for key in ("device", "versions", "host")
    }
    assert facts["start"] <= facts["resumed"][0]["start"] <= facts["end"]
    assert facts["steps_done"] == facts["steps"] == 6


def test_a_resume_that_computes_with_something_else_is_warned_of(tmp_path, bench, segtool):
    run = copy_of(bench.whole, tmp_path)
    facts = facts_of(run)
    facts["versions"]["torch"], facts["host"]["threads"] = "2.0.0", 64
    facts["device"], facts["processes"], facts["host"]["processor"] = "cuda", 2, "NONE"
    (run / "run.json").write_text(json.dumps(facts))
    said = segtool("train", run, "--resume", "--set=train.steps=7").err
    processor = torch.backends.cpu.get_cpu_capability()
    changed = f"device cuda -> cpu, processes 2 -> 1, processor NONE -> {processor}, threads 64 -> 1, torch 2.0.0 -> "
    assert f"warning: the run goes on with {changed}" in said
    assert "not bit for bit" in said
    said = segtool("train", run, "--resume", "--set=train.steps=8").err
    assert "bit for bit" not in said  # on the same machine as the last time


def test_a_run_that_goes_on_tells_no_end_until_it_has_one():
    facts = {"seed": 0, "steps": 6, "end": "then", "steps_done": 6, "resumed": [{"step": 3}]}
    plan: Any = SimpleNamespace(steps=9)
    again = provenance.continued_facts(facts, 6, plan, torch.device("cpu"), ALONE, Reporter(quiet=True))
    assert [one["step"] for one in again.pop("resumed")] == [3, 6]
    assert again == {"seed": 0, "steps": 9}


def copy_of(run: Path, folder: Path) -> Path:
    """A copy of a run that finds its data."""
    copy = folder / "run"
    shutil.copytree(run, copy)
    text = (run / "config.yaml").read_text()
    root = (run / re.search(r"root: (.*)", text)[1]).resolve()  # type: ignore[index]
    (copy / "config.yaml").write_text(re.sub(r"root: .*", f"root: {root}", text))
    return copy


# --- longer, and otherwise


@pytest.mark.parametrize("length", ["train.steps=9", "train.epochs=3.2"])
def test_a_finished_run_is_extended_and_says_how_its_learning_rate_goes_on(tmp_path, bench, segtool, length):
    run = copy_of(bench.whole, tmp_path)
    before = (run / "metrics.jsonl").read_text()
    extended = segtool("train", run, "--resume", "--set", length)
    assert extended.code == 0, extended.err
    optim = load_config(run / "config.yaml").optim
    last, first, end = learning_rate(optim, 5, 6), learning_rate(optim, 6, 9), learning_rate(optim, 8, 9)
    assert end < last < first
    assert (
        f"learning rate: goes on at {first:.3g} after {last:.3g} in step 6 and ends at {end:.3g}, as if the run had "
        "been of 9 steps from the beginning"
    ) in extended.err
    after = (run / "metrics.jsonl").read_text()
    assert after.startswith(before)
    rows = [json.loads(line) for line in after[len(before) :].splitlines()]
    assert [row["lr"] for row in rows if "lr" in row] == [learning_rate(optim, step, 9) for step in (6, 7, 8)]
    assert rows[-1]["step"] == 9
    assert facts_of(run)["steps"] == facts_of(run)["steps_done"] == 9
    written = load_config(run / "config.yaml").train
    assert f"train.steps={written.steps}" == length or f"train.epochs={written.epochs}" == length
    again = segtool("train", run, "--resume")
    assert "is done at step 9" in again.err
    assert "learning rate" not in again.err


def test_a_config_that_is_gone_is_written_anew_from_the_checkpoint(tmp_path, bench, segtool):
    run = shutil.copytree(bench.whole, tmp_path / "run")
    (run / "config.yaml").unlink()
    told = segtool("inspect", run)
    assert told.code == 2
    assert f"{run / 'config.yaml'}: is not there, and the rest of a run is" in told.err
    assert segtool("inspect", run / "checkpoints" / "step-00000006").code == 0
    ended = segtool("train", run, "--resume")
    assert ended.code == 0
    assert "was gone; it is written anew from step-00000006" in ended.err
    assert differences(run, bench.whole) == []


def test_a_resume_by_the_config_that_began_the_run_changes_nothing(bench, segtool):
    """Which leaves open what the run has measured: mean, deviation, format of the masks."""
    settings = ("--no-preflight", "--set=train.steps=7")
    resumed = segtool("train", bench.config, "--run", bench.whole, "--resume", "--dry-run", *settings)
    assert resumed.code == 0, resumed.err
    changed = [line for line in resumed.err.splitlines() if line.startswith("changed:")]
    assert changed == ["changed: train.steps 6 -> 7"]


def test_a_resume_counts_the_classes_as_the_beginning_did_where_the_loss_asks_for_it(
    tmp_path, bench, segtool, monkeypatch
):
    counted = []
    for module in (session, continuation):
        monkeypatch.setattr(module, "execute", lambda work, *_, **__: counted.append(work.frequencies))
    weighted = "--set=loss=[{name: cross_entropy, class_weights: enet}]"
    assert segtool("train", bench.config, "--run", tmp_path / "new", "--no-preflight", weighted).code == 0
    run = copy_of(bench.whole, tmp_path)
    assert segtool("train", run, "--resume", "--set=train.steps=7", weighted).code == 0
    assert counted[0] == counted[1] is not None


def test_a_run_is_not_cut_short_by_a_resume(bench, cut, segtool):
    refused = segtool("train", cut, "--resume", "--dry-run", "--set=train.steps=2")
    assert refused.code == 2
    assert "stands at step 3, and the length given is 2 steps; give a longer one" in refused.err


def test_a_run_that_is_done_is_told_once_with_what_is_not_taken_up(bench, segtool):
    shorter = segtool("train", bench.whole, "--resume", "--set=train.steps=4")
    assert shorter.code == 2
    assert "stands at step 6, and the length given is 4 steps; give a longer one" in shorter.err
    other = segtool("train", bench.whole, "--resume", "--set=optim.lr=0.5")
    assert other.code == 0
    assert "is done at step 6; extend it with --set train.epochs=… or train.steps=…; nothing is left" in other.err
    assert other.err.endswith("nothing is left that this would change: optim.lr 0.01 -> 0.5\n")
    assert "changed: " not in shorter.err + other.err
    assert load_config(bench.whole / "config.yaml").optim.lr == 0.01


def test_a_run_that_ended_for_want_of_improvement_goes_on_with_more_patience_only(tmp_path, bench, segtool):
    run = tmp_path / "run"
    settings = ("--no-preflight", "--set=optim.lr=1e-12", "--set=train.ema=null", "--set=train.patience=1")
    assert segtool("train", bench.config, "--run", run, *settings, "--set=train.steps=12").code == 0
    ended = history.last(run / "checkpoints")
    assert ended is not None
    assert ended.progress.step < 12
    again = segtool("train", run, "--resume")
    assert again.code == 0, again.err
    assert f"ended at step {ended.progress.step} for want of improvement; raise train.patience to go on" in again.err
    assert history.last(run / "checkpoints").progress == ended.progress  # type: ignore[union-attr]
    longer = segtool("train", run, "--resume", "--dry-run", "--set=train.patience=2")
    assert f"from step {ended.progress.step} of 12" in longer.err


def test_a_checkpoint_is_not_continued_itself_and_nothing_is_written_into_it(tmp_path, bench, segtool):
    run = copy_of(bench.whole, tmp_path)
    path = checkpoint.committed(run / "checkpoints")[-1]
    before = sorted(path.iterdir())
    refused = segtool("train", path, "--resume")
    assert refused.code == 4
    assert f"its run goes on from its last one with: segtool train {run} --resume" in refused.err
    assert sorted(path.iterdir()) == before


def test_a_run_that_is_continued_with_a_budget_ends_when_that_is_up(tmp_path, bench, segtool):
    run = copy_of(bench.whole, tmp_path)
    ended = segtool("train", run, "--resume", "--set=train.steps=99", "--budget=0.01s")
    assert ended.code == 0, ended.err
    assert "ended at step 7 of 99" in ended.err


def test_a_budget_leaves_time_for_the_last_validation_where_a_run_is_continued(tmp_path, bench, monkeypatch):
    ends = []
    monkeypatch.setattr(continuation, "execute", lambda *_, budget, **__: ends.append(budget.deadline))
    monkeypatch.setattr(forecast, "_scoring", lambda *_: (30.0, 10.0))  # seconds of a validation, and its samples
    run = copy_of(bench.whole, tmp_path)
    began = time.monotonic()
    session.train_session(Session(run, ("train.steps=99",), resume=True, budget=900.0, device="cpu", quiet=True))
    assert ends[0] == pytest.approx(began + 900 - 1.5 * 40 - 4, abs=0.9)


HARMLESS = {
    "optim.lr": "0.02",
    "optim.schedule": "cosine",
    "optim.clip": "0.5",
    "loss": "[dice]",
    "augment.flip": "none",
    "augment.crop": "[24, 24]",
    "train.batch_size": "4",
    "train.seed": "5",
    "train.ema": "null",
    "train.keep": "7",
    "train.precision": "bf16",
    "train.patience": "9",
    "train.accumulate": "2",
    "limits.max_pixels": "9999",
}
FIXED = {
    "model.encoder.channels": "[4, 12]",
    "model.decoder.upsample": "nearest",
    "optim.name": "sgd",
    "data.classes": "[{name: a, values: [0]}, {name: b, values: [1, 2]}]",
    "data.encoding": "threshold",
    "data.channels": "1",
    "data.ignore": "[255, 254]",
    "data.mean": "[0.5, 0.5, 0.5]",
    "data.std": "[0.5, 0.5, 0.5]",
    "data.fold": "1/2",
}


def test_a_resume_with_harmless_changes_goes_on_and_says_each(bench, segtool):
    settings = [f"--set={key}={value}" for key, value in HARMLESS.items()]
    before = {path: path.stat().st_mtime_ns for path in bench.whole.rglob("*")}
    said = segtool("train", bench.whole, "--resume", "--dry-run", "--set=train.steps=90", *settings)
    assert said.code == 0, said.err
    assert [key for key in HARMLESS if f"changed: {key}" not in said.err] == []
    assert {path: path.stat().st_mtime_ns for path in bench.whole.rglob("*")} == before, "a dry run writes nothing"
    assert "learning rate: goes on at" in said.err
    assert "would continue" in said.err


@pytest.mark.parametrize(
    ("key", "before", "after", "told"),
    [
        (
            "loss",
            ["dice"],
            ["dice", {"name": "dice", "weight": 0.5}],
            "loss [dice] -> [dice, {name: dice, weight: 0.5}]",
        ),
        (
            "loss",
            ["dice", {"name": "dice", "weight": 0.5}],
            ["dice"],
            "loss [dice, {name: dice, weight: 0.5}] -> [dice]",
        ),
        ("loss", [{"name": "dice", "weight": 0.5}], [{"name": "dice", "weight": 0.25}], "loss.0.weight 0.5 -> 0.25"),
        ("optim", {"lr": 0.1}, {"lr": 0.1, "clip": 1}, "optim.clip null -> 1"),
    ],
)
def test_what_has_changed_is_told_in_the_form_that_a_config_has(make_config, key, before, after, told):
    assert provenance.differences(make_config(**{key: before}), make_config(**{key: after})) == [told]


def test_a_resume_with_another_batch_tells_what_becomes_of_the_epochs_and_a_dry_run_of_its_budget(bench, segtool):
    said = segtool(
        "train", bench.whole, "--resume", "--dry-run", "--budget=9m", "--set=train.steps=90", "--set=train.batch_size=1"
    )
    assert "step 6 was epoch 2.2 and counts as 0.8, as if all batches had been of 1 image;" in said.err
    assert "from step 6 of 90, for 9 min 00 s at most; dry run" in said.err


@pytest.mark.parametrize("key", FIXED)
def test_a_resume_with_a_change_that_its_weights_were_not_made_for_is_refused(bench, segtool, key):
    settings = ["--set=train.steps=90", f"--set={key}={FIXED[key]}"]
    if key == "data.channels":  # which the mean and the deviation must fit
        settings += ["--set=data.mean=[0.5]", "--set=data.std=[0.5]"]
    refused = segtool("train", bench.whole, "--resume", "--dry-run", *settings)
    assert refused.code == 2
    assert f"{key} was" in refused.err or f"{key}." in refused.err
    assert "start a new run" in refused.err


def test_a_default_of_the_network_that_is_written_out_is_no_change_and_is_told_as_what_it_was(bench, segtool):
    options = ("train.steps=90", "model.encoder.norm=batch", "model.decoder.valid=false")
    same = segtool("train", bench.whole, "--resume", "--dry-run", *[f"--set={option}" for option in options])
    assert same.code == 0, same.err
    other = segtool(
        "train", bench.whole, "--resume", "--dry-run", "--set=train.steps=90", "--set=model.decoder.aux=true"
    )
    assert other.code == 2
    assert "model.decoder.aux was false in the run and is true now" in other.err
    assert "model.decoder.name" not in other.err


def test_the_colour_that_a_class_is_drawn_in_may_change(bench, segtool):
    color = '--set=data.classes.0.color="#123456"'
    said = segtool("train", bench.whole, "--resume", "--dry-run", "--set=train.steps=90", color)
    assert said.code == 0, said.err
    assert "changed: data.classes.0.color" in said.err


def test_everything_that_is_fixed_is_tested_above():
    assert {fixed for fixed in provenance.FIXED if not any(key.startswith(fixed) for key in FIXED)} == set()
    assert not any(key.startswith(provenance.FIXED) for key in HARMLESS)


def test_a_changed_list_of_images_is_warned_of(tmp_path, bench, segtool):
    run = copy_of(bench.whole, tmp_path)
    swapped = [
        f"--set=data.{a}={{images: {b}/images, masks: {b}/masks}}" for a, b in (("train", "val"), ("val", "test"))
    ]
    said = segtool("train", run, "--resume", "--set=train.steps=7", *swapped)
    assert said.code == 0, said.err
    assert "changed: data.train.images train/images -> val/images" in said.err
    assert "the data is not what the run began with: its splits hold other pairs" in said.err


def test_a_file_of_another_size_is_warned_of_as_no_more_than_that(tmp_path, tiny_ds, bench, segtool):
    run, data = copy_of(bench.whole, tmp_path), shutil.copytree(tiny_ds, tmp_path / "other")
    mask = min((data / "train" / "masks").iterdir())
    mask.write_bytes(mask.read_bytes() + b"0")
    resumed = ("train", run, "--resume", "--dry-run", "--set=train.steps=7")
    said = segtool(*resumed, f"--set=data.root={data}")
    assert "the data is not what the run began with: its files have other names or sizes" in said.err
    said = segtool(*resumed, "--set=data.val=null")
    assert "the data is not what the run began with: its splits hold other pairs" in said.err


def test_the_fingerprint_of_the_data_tells_names_splits_sizes_and_numbers_of_files_and_no_more(tmp_path):
    for name, size in (("a", 3), ("b", 4), ("c", 4), ("d", 9)):
        (tmp_path / name).write_bytes(bytes(size))

    def record(stem: str, image: str, mask: str | None) -> Record:
        return Record(tmp_path / image, None if mask is None else tmp_path / mask, stem)

    one, two = record("1", "a", "b"), record("2", "c", "d")
    kinds = [
        {"train": [one], "val": [two]},
        {"train": [one, two]},
        {"train": [one]},
        {"val": [one], "train": [two]},
        {"train": [record("x", "a", "b")], "val": [two]},
        {"train": [record("1", "b", "b")], "val": [two]},
        {"train": [record("1", "a", "d")], "val": [two]},
        {"train": [record("1", "a", None)], "val": [two]},
    ]
    assert len({provenance.fingerprint(records) for records in kinds}) == len(kinds)
    before = provenance.fingerprint(kinds[0])
    os.utime(tmp_path / "a", (1, 1))
    assert provenance.fingerprint({"train": [record("1", "a", "c")], "val": [two]}) == before


def test_weights_in_a_file_are_no_change_where_they_lie_elsewhere_as_seen_from_a_checkpoint(tmp_path, bench):
    """The path in a checkpoint's config is relative to the checkpoint, that in the run's to the run."""
    config = load_config(bench.whole / "config.yaml", ["model.encoder={name: resnet18, weights: ../weights.pt}"])
    saved = relocate(config, bench.whole, bench.whole / "checkpoints" / "step-00000006")
    values = {path: value for path, value, _ in show(saved)}
    assert values["model.encoder.weights"] == "../../../weights.pt"
    with pytest.raises(ConfigError, match="weights"):
        provenance.refuse_changes(saved, config, tmp_path)  # negative control
    back = relocate(saved, bench.whole / "checkpoints" / "step-00000006", bench.whole)
    provenance.refuse_changes(back, config, tmp_path)


def test_a_resume_compares_its_config_with_that_of_the_checkpoint_as_seen_from_the_run(bench, segtool, monkeypatch):
    compared = []
    monkeypatch.setattr(continuation, "refuse_changes", lambda before, after, _: compared.append((before, after)))
    assert segtool("train", bench.whole, "--resume", "--dry-run", "--set=train.steps=7").code == 0
    [(before, after)] = compared
    assert before.data.root == after.data.root
    assert (bench.whole / before.data.root).is_dir()


# --- networks, optimizers, averages, workers, parts: each value with each other one at least once

VARIANTS = {
    "fcn sgd": {"model": FCN, "optim": {"name": "sgd"}, "train": {"ema": None, "workers": 2}},
    "fcn adamw": {"model": FCN, "train": {"ema": 0.9, "accumulate": 2}},
    "unet sgd": {"optim": {"name": "sgd", "clip": 1.0}, "train": {"ema": 0.9, "workers": 2, "accumulate": 2}},
    "unet adamw": {"train": {"ema": None, "workers": 2, "patience": 50}},
    "rare classes": {"loss": [{"name": "cross_entropy", "class_weights": "enet"}], "augment": {"rare": 0.5}},
    "depthwise": {
        "model": {"encoder": {"name": "mobilenet_v3_large", "weights": None}, "decoder": {"name": "fcn"}},
        "augment": {"crop": [32, 32]},
        "train": {"ema": 0.9, "keep": 1},
    },
    "depthwise sgd": {
        "model": {"encoder": {"name": "mobilenet_v3_large", "weights": None}, "decoder": {"name": "unet"}},
        "augment": {"crop": [32, 32]},
        "optim": {"name": "sgd"},
        "train": {"ema": None, "workers": 1, "accumulate": 2, "batch_size": 4},
    },
    "bfloat16": {"train": {"precision": "bf16"}},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIANTS)
def test_every_kind_of_training_that_is_killed_again_and_again_is_the_run_that_was_not(bench, tiny_ds, name):
    variant = VARIANTS[name]
    config, whole = bench.folder / f"{name}.yaml", bench.folder / name
    train = {"steps": 6, "keep": 2, **variant.get("train", {})}
    config.write_text(dump_config(config_of(tiny_ds, **{**variant, "train": train})))
    ended = bench.server.run("train", config, "--run", whole, directory=whole)
    assert ended.code == 0, ended.said
    draw = random.Random(name)
    bench.clear()
    ended = bench.server.run("train", config, "--run", bench.part, directory=bench.part, at="rename *-step-00000003-*")
    for pattern in ("open train.log", "write metrics.jsonl", "write checkpoints/*/optimizer.safetensors", None):
        assert ended.code in (0, -signal.SIGKILL), ended.said
        ended = bench.go_on(directory=bench.part, at=pattern and draw.choice([pattern, draw.randrange(20, 80)]))
    assert ended.code == 0, ended.said
    assert differences(bench.part, whole) == []


# --- the program as users start it, and moments that nobody chooses


def start(*arguments: str | Path, err: Path) -> subprocess.Popen[bytes]:
    """Starts `segtool train`, whose messages are added to a file."""
    command = [sys.executable, "-m", "segtool", "train", *map(str, arguments)]
    with open(err, "ab") as file:
        return subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, "OMP_NUM_THREADS": "1"})


def disturb(config: Path, run: Path, signals: Sequence[int], draw: random.Random, *settings: str) -> None:
    """Trains to the end, with signals at random moments after the first checkpoint of each process or its rows."""
    err = run.with_name(f"{run.name}.err")
    for place, number in enumerate((*signals, None)):
        before = newest(run)
        process = start(*((run, "--resume") if place else (config, "--run", run, *settings)), err=err)
        while number and process.poll() is None and newest(run) == before:
            time.sleep(0.02)
        time.sleep(draw.uniform(0, 0.5))
        if number:
            process.send_signal(number)
        code = process.wait(timeout=600)
        # Python gives signals back to the system while it ends, when the run has told its end already.
        late = number is not None and code == -number and "end" in facts_of(run)
        assert late or code in (0, -signal.SIGKILL, 128 + signal.SIGTERM, 128 + signal.SIGINT), err.read_text()
    assert code == 0, err.read_text()


def newest(run: Path) -> tuple[str, ...]:
    """What a run has saved, and the size of its rows."""
    rows = run / "metrics.jsonl"
    saved = [path.name for path in checkpoint.committed(run / "checkpoints")]
    return (*saved, str(rows.stat().st_size if rows.exists() else 0))


def outcome(run: Path) -> dict[str, bytes]:
    """The last checkpoint, the best one, and the rows; which others are kept depends on when signals came."""
    best = history.best(run / "checkpoints")
    last = checkpoint.committed(run / "checkpoints")[-1]
    assert best is not None
    kept = {f"checkpoints/{name}" for name in (best.path.name, last.name)}
    return {
        name: data
        for name, data in lasting(run).items()
        if name in ("metrics.jsonl", "config.yaml") or name[:25] in kept
    }


KILL, TERM, INT = signal.SIGKILL, signal.SIGTERM, signal.SIGINT


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_program_killed_and_stopped_at_random_is_in_the_end_the_one_that_was_not(bench, tmp_path, workers):
    settings = ("--set=train.steps=200", f"--set=train.workers={workers}")
    whole, part = tmp_path / "whole", tmp_path / "part"
    disturb(bench.config, whole, [], random.Random(0), *settings)
    disturb(bench.config, part, [KILL, TERM, KILL, INT, KILL], random.Random(workers), *settings)
    assert outcome(part) == outcome(whole)
    assert len(facts_of(part)["resumed"]) > 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile finds no compiler")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_compiled_run_that_is_killed_is_the_run_that_was_not_on_the_same_machine(bench, tmp_path, precision):
    """The same versions on the same machine compile the same code; no other machine's bits are promised."""
    settings = ("--set=train.steps=20", "--set=train.compile=true", f"--set=train.precision={precision}")
    whole, part = tmp_path / "whole", tmp_path / "part"
    disturb(bench.config, whole, [], random.Random(0), *settings)
    disturb(bench.config, part, [KILL, TERM], random.Random(1), *settings)
    assert outcome(part) == outcome(whole)
    assert "compilation failed" not in part.with_name("part.err").read_text()


ROOT = Path(__file__).parents[1]
PLACES = (ROOT / "data" / "camvid", ROOT.parent / "shared" / "data" / "camvid")
CAMVID = next((place for place in PLACES if place.is_dir()), None)


@pytest.mark.slow
@pytest.mark.skipif(CAMVID is None, reason=f"CamVid is not in {PLACES[0]}")
def test_a_run_on_camvid_killed_six_times_and_stopped_three_times_is_the_run_that_was_not(tmp_path):
    assert CAMVID
    for split, count in (("train", 24), ("val", 4), ("test", 1)):
        for folder in ("images", "masks"):
            (tmp_path / "data" / split / folder).mkdir(parents=True)
            for path in sorted((CAMVID / split / folder).iterdir())[:count]:
                (tmp_path / "data" / split / folder / path.name).symlink_to(path)
    values = (f"data.root={tmp_path / 'data'}", "augment.crop=[96, 96]", "train.steps=60", "train.batch_size=2")
    settings = [f"--set={value}" for value in (*values, "train.eval_every=1", "model.encoder.channels=[4, 8, 16]")]
    config, whole, part = ROOT / "configs" / "camvid-unet.yaml", tmp_path / "whole", tmp_path / "part"
    disturb(config, whole, [], random.Random(0), *settings)
    disturb(config, part, [KILL, TERM, KILL, KILL, TERM, KILL, KILL, TERM, KILL], random.Random(1), *settings)
    assert outcome(part) == outcome(whole)
    assert "end" in facts_of(part)


@pytest.mark.slow
def test_no_loading_process_is_left_where_the_program_was_killed(bench, tmp_path):
    """They look for it each 5 s."""
    process = start(bench.config, "--run", tmp_path / "run", "--set=train.workers=2", "--set=train.steps=99999",
                    err=tmp_path / "err")  # fmt: skip
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert process.poll() is None, (tmp_path / "err").read_text()
            time.sleep(0.05)
        children = children_of(process.pid)
    finally:
        process.kill()
        process.wait(timeout=60)
    assert len(children) >= 2  # a validation may have some of its own
    until = time.monotonic() + 30
    while any(is_running(child) for child in children):
        assert time.monotonic() < until
        time.sleep(0.1)


def children_of(parent: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


@pytest.mark.slow
def test_a_terminal_that_is_closed_leaves_a_run_that_is_saved(bench, tmp_path):
    run = tmp_path / "run"
    child, terminal = pty.fork()
    if child == 0:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # tests may run under nohup, which would be respected
        os.execve(
            sys.executable,
            [sys.executable, "-m", "segtool", "train", str(bench.config), "--run", str(run), "--set=train.steps=99999"],
            {**os.environ, "OMP_NUM_THREADS": "1"},
        )
    while not (run / "metrics.jsonl").exists():
        os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 128 + signal.SIGHUP
    found = history.last(run / "checkpoints")
    assert found is not None
    rows = metrics_of(run)
    assert found.progress.step == rows[-1]["step"] > 0
    assert (run / "train.log").read_text().rstrip().endswith(f"segtool train {run} --resume")
