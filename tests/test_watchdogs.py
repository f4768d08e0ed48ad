"""Warnings while a training runs, and what is told where memory runs out."""

from __future__ import annotations

import errno
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from segtool.cli import app
from segtool.commands.endings import explain
from segtool.config import dump_config, load_config
from segtool.errors import ShortageError
from segtool.models.segmenter import build_model
from segtool.prediction import inference
from segtool.prediction.inference import AUTO_TILE, Normalize, Predictor, smaller_tile
from segtool.runs.history import last
from segtool.scoring.metrics import Scores, iou
from segtool.system.shortage import is_shortage
from segtool.training import train, training_log, training_step, watchdogs
from segtool.training.memory import lighter
from segtool.training.watchdogs import (
    CONSTANT,
    CROWDED,
    FLAT,
    NEVER_FOUND,
    SLOW,
    WARM_UP,
    WINDOW,
    WINDOW_STEPS,
    Validations,
    Waiting,
    crowding_warning,
    waiting_warning,
)

NAMES = ("ground", "block", "ring")
STEPS = 100
CPU_ALLOCATOR = (
    "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate "
    "4831838208 bytes. Error code 12 (Cannot allocate memory)"
)


# --- validations


def matrix(*rows: tuple[int, int, int]) -> np.ndarray:
    return np.array(rows, np.int64)


GOOD = matrix((90, 5, 5), (4, 40, 6), (3, 2, 20))
NO_RING = matrix((90, 10, 0), (4, 46, 0), (13, 12, 0))  # never predicted
WRONG_RING = matrix((90, 5, 5), (4, 46, 0), (13, 12, 0))  # predicted, and never where it is
CONSTANT_GROUND = matrix((100, 0, 0), (50, 0, 0), (25, 0, 0))
RING_NOT_IN_THE_TRUTH = matrix((90, 10, 0), (4, 46, 0), (0, 0, 0))


def row(confusion: np.ndarray, step: int, **changed: Any) -> dict[str, Any]:
    """Returns the row that `metrics.jsonl` has of a validation, read back from the file."""
    scores = Scores(NAMES, confusion, 0)
    classes = dict(zip(NAMES, iou(confusion), strict=True))
    return json.loads(json.dumps({"step": step, "split": "val", **scores.summary, "iou": classes, **changed}))


def warnings(
    config: Any, *confusions: np.ndarray, first: int = 50, before: int = 0, absent: Sequence[str] = ()
) -> list[str]:
    """Returns what validations one step apart are warned of; the first `before` of them come from before a resume."""
    rows = [row(confusion, first + number) for number, confusion in enumerate(confusions)]
    validations = Validations(config, STEPS, rows[:before], absent=absent)
    return [
        text
        for one, confusion in zip(rows[before:], confusions[before:], strict=True)
        for text in validations.look(one, confusion)
    ]


@pytest.mark.parametrize("confusion", [NO_RING, WRONG_RING])
def test_a_class_of_which_no_pixel_is_found_in_three_validations_is_warned_of_once(make_config, confusion):
    config = make_config()
    assert warnings(config, *[confusion] * (NEVER_FOUND - 1)) == []
    (warning,) = warnings(config, *[confusion] * 8)
    assert warning.startswith("ring: no pixel of it was found in 3 validations in a row")


def test_one_pixel_found_begins_the_count_again(make_config):
    assert warnings(make_config(), NO_RING, NO_RING, GOOD, NO_RING, NO_RING) == []


def test_a_class_that_the_truth_does_not_have_is_not_missed(make_config):
    assert warnings(make_config(), *[RING_NOT_IN_THE_TRUTH] * 5) == []
    predicted = RING_NOT_IN_THE_TRUTH + matrix((0, 0, 7), (0, 0, 0), (0, 0, 0))  # its IoU is 0
    assert iou(predicted)[2] == 0.0
    assert warnings(make_config(), *[predicted] * 5) == []


def test_classes_that_come_late_in_the_first_fifth_of_a_run_are_no_surprise(make_config):
    assert warnings(make_config(), *[NO_RING] * 10, first=9) == []
    assert warnings(make_config(), *[CONSTANT_GROUND] * 10, first=9) == []
    assert "ring" in warnings(make_config(), *[NO_RING] * 12, first=9)[-1]


def test_a_class_that_no_training_mask_holds_is_not_said_to_be_found_with_other_crops(make_config):
    assert warnings(make_config(), *[NO_RING] * NEVER_FOUND, absent=["ring"]) == []
    assert warnings(make_config(), *[NO_RING] * NEVER_FOUND, absent=["block"]) != []


def test_the_warning_suggests_what_the_config_does_not_use_yet_and_it_is_legal(make_config, tmp_path):
    config = make_config()
    path = tmp_path / "config.yaml"
    remedies = []
    for _ in range(3):
        (warning,) = warnings(config, *[NO_RING] * NEVER_FOUND)
        remedies.append(warning.partition("in a new run, ")[2])
        if remedies[-1].startswith("--set "):
            path.write_text(dump_config(config))
            config = load_config(path, [remedies[-1].split()[1]])
    assert remedies[0].startswith("--set loss.0.class_weights=median_frequency")
    assert remedies[1].startswith("--set augment.rare=0.5")
    assert "more training images" in remedies[2]
    assert config.augment.rare == 0.5
    assert config.loss[0].options["class_weights"] == "median_frequency"


def test_one_answer_for_every_pixel_in_two_validations_is_warned_of_once_and_its_classes_are_not(make_config):
    config = make_config(optim={"lr": 0.5, "warmup": 0})
    assert warnings(config, *[CONSTANT_GROUND] * (CONSTANT - 1)) == []
    (warning,) = warnings(config, *[CONSTANT_GROUND] * 6)
    assert "2 validations in a row answer one class for every pixel" in warning
    assert "--set optim.lr=0.05 --set optim.warmup=100 --set optim.clip=1" in warning


def test_a_validation_split_of_one_class_is_answered_with_one(make_config):
    assert warnings(make_config(), *[matrix((100, 0, 0), (0, 0, 0), (0, 0, 0))] * 5) == []


def flat_run(config: Any, scores: list[float], first: int = 1) -> list[str]:
    validations = Validations(config, STEPS)
    rows = [row(GOOD, first + number, miou=score) for number, score in enumerate(scores)]
    return [text for one in rows for text in validations.look(one, GOOD)]


def test_a_score_that_does_not_rise_while_the_learning_rate_is_high_is_warned_of_once(make_config):
    config = make_config(optim={"lr": 0.01, "warmup": 0})
    scores = [0.3, 0.5, *[0.4995 + 0.001 * (number % 2) for number in range(2 * FLAT)]]
    (warning,) = flat_run(config, scores)
    assert "the best mIoU on val, 50.05 at step 4, has not risen by 0.1 points in 10 validations" in warning
    assert "--set optim.lr=0.0025; --set train.patience=10" in warning
    assert flat_run(config, scores[: 1 + FLAT]) == []


def test_a_score_that_rises_by_little_but_steadily_or_has_stopped_as_the_rate_fell_is_not_flat(make_config):
    config = make_config(optim={"lr": 0.01, "warmup": 0})
    assert flat_run(config, [0.3 + 0.0005 * number for number in range(3 * FLAT)]) == []
    assert flat_run(config, [0.5] * 3 * FLAT, first=60) == []
    assert len(flat_run(replace(config, optim=replace(config.optim, schedule="constant")), [0.5] * 30, first=60)) == 1


@pytest.mark.parametrize("confusion", [NO_RING, CONSTANT_GROUND])
@pytest.mark.parametrize("before", [1, 2, 3, 4])
def test_a_run_that_is_continued_is_warned_as_often_as_one_that_was_not_stopped(make_config, confusion, before):
    config, confusions = make_config(), [GOOD, *[confusion] * 5]
    (whole,) = warnings(config, *confusions)
    first = warnings(config, *confusions[:before])
    assert first + warnings(config, *confusions, before=before) == [whole]


# The first validations of runs of which none needs a warning; a fifth of the run is over at the seventh.
LEARNING = [
    [matrix((100, 0, 0), (50, 0, 0), (25, 0, 0)), NO_RING, NO_RING, *[GOOD] * 3],
    [NO_RING, WRONG_RING, GOOD, NO_RING, GOOD],
    [GOOD] * 6,
]


@pytest.mark.parametrize("confusions", LEARNING)
def test_a_run_that_learns_is_warned_of_nothing(make_config, confusions):
    assert warnings(make_config(), *confusions, first=14) == []


def test_a_warning_goes_to_the_terminal_and_never_to_the_metrics(trainer, make_config, monkeypatch):
    def evaluate(*_: Any, **__: Any) -> Scores:
        return Scores(NAMES, NO_RING, 0)

    monkeypatch.setattr(train, "evaluate", evaluate)
    config = make_config(train={"steps": 8, "eval_every": 0.375})
    run = trainer("whole", config)
    said = [line for line in run.said if "no pixel" in line]
    assert [line.startswith("warning: ring: ") for line in said] == [True]
    assert {key for one in run.metrics for key in one} == set(run.metrics[0]) | {
        "split", "miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "fw_iou", "iou"
    }  # fmt: skip
    begun = trainer("parts", config, stop_after=4)
    ended = trainer("parts", config, resume=True)
    assert [len([line for line in one.said if "no pixel" in line]) for one in (begun, ended)] == [1, 0]
    logs = [(one.directory / "metrics.jsonl").read_bytes() for one in (run, ended)]
    assert logs[0] == logs[1]


# --- time


def spans(share: float, *, seconds: float = 1.0, steps: int = 200) -> list[float]:
    waiting = Waiting(SLOW)
    found = [waiting.add(share * seconds, seconds) for _ in range(steps)]
    return [one for one in found if one is not None]


def test_a_quarter_of_the_time_spent_in_waiting_is_warned_of_once():
    assert spans(0.4) == [pytest.approx(0.4)]
    assert spans(0.24) == []


def test_the_first_steps_and_short_runs_are_not_judged():
    waiting = Waiting(SLOW)
    slow_start = [waiting.add(60.0, 61.0) for _ in range(WARM_UP)]
    assert slow_start == [None] * WARM_UP
    assert [waiting.add(0.1, 1.0) for _ in range(200)] == [None] * 200
    assert spans(0.9, steps=WARM_UP + WINDOW_STEPS - 1) == []
    assert spans(0.9, seconds=0.9 * WINDOW / WINDOW_STEPS, steps=WARM_UP + WINDOW_STEPS) == []


@pytest.mark.parametrize(
    ("workers", "cores", "cached", "remedy"),
    [
        (0, 2, False, "--set train.workers=1"),
        (1, 2, True, "--set train.workers=2"),
        (2, 2, False, "--set train.cache=true"),
        (2, 2, True, "store them smaller"),
    ],
)
def test_the_remedy_is_the_first_that_is_not_in_force(workers, cores, cached, remedy):
    warning = waiting_warning(0.437, workers=workers, cores=cores, cached=cached)
    assert warning.startswith("44 % of the time goes by in waiting for images")
    assert remedy in warning
    assert warning.endswith("it changes no result") == remedy.startswith("--set")


def test_what_comes_for_many_steps_at_a_time_is_judged_by_steps_too():
    crowding = Waiting(CROWDED)
    assert [crowding.add(18.0, 20.0, steps=20) for _ in range(2)] == [None, None], "the first steps, and too few"
    assert crowding.add(18.0, 20.0, steps=20) == pytest.approx(0.9)
    assert [crowding.add(18.0, 20.0, steps=20) for _ in range(9)] == [None] * 9, "told once"


@pytest.mark.parametrize(("share", "threads", "fewer"), [(0.97, 2, 1), (3.2, 16, 12), (2.5, 2, 1)])
def test_fewer_threads_are_advised_where_others_have_the_cores(share, threads, fewer):
    warning = crowding_warning(share, threads=threads)
    assert f"OMP_NUM_THREADS={fewer} " in warning
    assert f"for {share:.1f} s in each second" in warning


@pytest.mark.parametrize(("each", "threads", "told"), [(0.9, 2, 1), (0.3, 2, 0), (0.9, 1, 0)])
def test_a_training_whose_threads_wait_for_cores_is_warned_once(trainer, make_config, monkeypatch, each, threads, told):
    monkeypatch.setattr(watchdogs, "WINDOW_STEPS", 2)
    monkeypatch.setattr(watchdogs, "WARM_UP", 2)
    monkeypatch.setattr(watchdogs, "WINDOW", 0.0)
    monkeypatch.setattr(training_log, "FLUSH_STEPS", 2)
    now = time.monotonic
    monkeypatch.setattr(training_log, "seconds_without_core", lambda: each * now())
    monkeypatch.setattr(training_log, "num_threads", lambda: threads)
    run = trainer("run", make_config(train={"steps": 12, "eval_every": 6}))
    assert len([line for line in run.said if "wait for a core" in line]) == told


def test_slow_reading_is_warned_of_and_its_share_is_in_the_timing_and_not_in_the_metrics(
    trainer, make_config, monkeypatch
):
    clock = [0.0]
    batches = train.training_batches

    def slow(*args: Any, **options: Any) -> Any:
        for batch in batches(*args, **options):
            clock[0] += 3.0
            yield batch

    step = training_step.train_step

    def step_of_a_second(*args: Any) -> Any:
        clock[0] += 1.0
        return step(*args)

    monkeypatch.setattr(train, "training_batches", slow)
    monkeypatch.setattr(training_step, "train_step", step_of_a_second)
    monkeypatch.setattr(train.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(watchdogs, "WINDOW_STEPS", 5)
    monkeypatch.setattr(watchdogs, "WARM_UP", 2)
    run = trainer("run", make_config(train={"steps": 12, "eval_every": 100}))
    assert [line for line in run.said if "75 % of the time goes by in waiting" in line]
    timing = [json.loads(line) for line in (run.directory / "timing.jsonl").read_text().splitlines()]
    assert timing[-1]["waiting"] == pytest.approx(0.75, abs=0.1)
    assert not any("waiting" in one for one in run.metrics)


# --- memory

STARVED = {
    "of CUDA": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free"),
    "of the CPU": RuntimeError(CPU_ALLOCATOR),
    "of cuDNN": RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    "of Python": MemoryError(),
    "of the system": OSError(12, "Cannot allocate memory"),
}


@pytest.mark.parametrize("kind", STARVED)
def test_running_out_of_memory_is_told_from_other_errors(kind):
    assert is_shortage(STARVED[kind])
    for other in (RuntimeError("size mismatch"), ValueError("out of memory"), OSError(28, "No space left on device")):
        assert not is_shortage(other)


@pytest.mark.parametrize("kind", STARVED)
def test_training_tells_the_exact_next_command_which_makes_the_same_run_in_less_memory(
    tmp_path, make_config, monkeypatch, kind
):
    config, run = tmp_path / "config.yaml", tmp_path / "a run"
    config.write_text(dump_config(make_config(train={"steps": 3, "batch_size": 4})))
    with monkeypatch.context() as patch:
        patch.setattr(training_step, "add_gradients", raising(STARVED[kind]))
        with pytest.raises(ShortageError) as error:
            app(["train", str(config), "--run", str(run), "--quiet", "--device", "cpu"], standalone_mode=False)
    text = str(error.value)
    assert error.value.exit_code == 4
    assert "out of memory with train.batch_size 4 in 1 part(s), augment.crop 16x16, train.precision fp32" in text
    assert "step-00000000, is intact" in text
    command = shlex.split(text.partition("try ")[2].partition(":")[0])
    again = ["segtool", "train", str(run), "--resume", "--device", "cpu", "--set", "train.accumulate=2"]
    assert command[: len(again)] == again
    if kind == "of CUDA":
        app([*command[1:], "--quiet"], standalone_mode=False)
        saved = last(run / "checkpoints")
        assert saved is not None
        assert saved.progress.step == 3
        assert saved.config.train.accumulate == 2


def raising(error: Exception) -> Any:
    def starve(*_: Any, **__: Any) -> Any:
        raise error

    return starve


def test_another_error_of_the_step_is_not_taken_for_a_want_of_memory(trainer, make_config, monkeypatch):
    monkeypatch.setattr(training_step, "add_gradients", raising(RuntimeError("size mismatch")))
    with pytest.raises(RuntimeError, match="size mismatch"):
        trainer("run", make_config())


def test_memory_is_saved_by_parts_then_by_the_crop_then_by_the_precision(make_config):
    def advice(*, crop: tuple[int, int], at_once: float, **settings: Any) -> str:
        config = make_config(train=settings)
        found = lighter(config, build_model(config.model, 3), crop, at_once)
        return found[0] if found else "nothing"

    assert advice(crop=(32, 48), batch_size=8, at_once=4) == "train.accumulate=2"
    assert advice(crop=(32, 48), batch_size=8, accumulate=4, at_once=1) == "train.accumulate=8"
    assert advice(crop=(32, 48), batch_size=3, accumulate=2, at_once=1.9) == "train.accumulate=3"
    assert advice(crop=(32, 48), batch_size=100, at_once=3.5) == "train.accumulate=34"
    # Where not even one image may go through, its crop is made smaller, by halves, down to what the network takes.
    assert advice(crop=(32, 48), batch_size=4, accumulate=4, at_once=0.5) == "augment.crop=[16,24]"
    assert advice(crop=(32, 48), batch_size=10, at_once=0.2) == "train.accumulate=10 --set augment.crop=[8,12]"
    assert advice(crop=(32, 48), batch_size=10, at_once=0.01) == "train.accumulate=10 --set augment.crop=[4,6]"
    # One image of 2x2 leaves BatchNorm one value a channel, which `train` refuses: neither parts nor crops.
    assert advice(crop=(2, 2), batch_size=2, accumulate=1, at_once=1) == "train.precision=bf16"
    assert advice(crop=(2, 2), batch_size=2, accumulate=1, at_once=1, precision="bf16") == "nothing"


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    """An untrained network of two levels, whose memory is asked for."""
    from conftest import config_of

    model = build_model(config_of(Path("/")).model, 3)
    return Predictor(model, Normalize((0.5,) * 3, (0.2,) * 3), torch.device("cpu"))


def test_the_tile_that_is_advised_fits_into_what_is_free_and_is_smaller_than_what_did_not(predictor, monkeypatch):
    need = predictor.bytes_per_pixel()
    for free, advised in ((None, 512), (10**12, 512), (int(need * 256**2 / 0.7) + 9, 256), (1, 64)):
        monkeypatch.setattr(inference, "free_bytes", lambda _, free=free: free)
        assert smaller_tile(predictor, (2000, 3000), None) == advised, free
    monkeypatch.setattr(inference, "free_bytes", lambda _: None)
    assert smaller_tile(predictor, (2000, 3000), 300) == 128
    assert smaller_tile(predictor, (400, 500), None) == 192
    assert AUTO_TILE // 2 == 512


def test_what_a_pixel_takes_is_at_least_what_the_layers_that_are_held_at_once_take(predictor):
    """The skip of 4 channels at full size, two maps of 8 that are joined, and the logits of 3."""
    assert predictor.bytes_per_pixel() > 4 * (4 + 8 + 3)
    assert predictor.bytes_per_pixel() < 4 * 1000


def test_of_a_layer_that_gives_places_beside_its_maximum_both_are_counted():
    from conftest import config_of

    model = {"encoder": {"name": "conv", "channels": [4, 8]}, "decoder": {"name": "unet", "upsample": "max_unpool"}}
    predictor = Predictor(
        build_model(config_of(Path("/"), model=model).model, 3), Normalize((0.5,) * 3, (0.2,) * 3), torch.device("cpu")
    )
    assert predictor.bytes_per_pixel() > 4 * (4 + 8 + 3)


@pytest.mark.parametrize("kind", ["of CUDA", "of the CPU", "of Python"])
def test_predict_and_eval_name_the_image_its_size_and_a_tile(tiny_ds, tmp_path, make_config, monkeypatch, kind):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    config.write_text(dump_config(make_config(train={"steps": 1})))
    common = ["--quiet", "--device", "cpu"]
    app(["train", str(config), "--run", str(run), *common], standalone_mode=False)
    monkeypatch.setattr(Predictor, "forward", raising(STARVED[kind]))
    image = tiny_ds / "test" / "images" / "test0.png"
    out = tmp_path / "out"
    for command in (["eval", str(run)], ["predict", str(run), str(image), "--out", str(out)]):
        with pytest.raises(ShortageError) as error:
            app([*command, *common], standalone_mode=False)
        assert f"out of memory at {image}, 32x32 pixels; try --tile 64" in str(error.value)
    with pytest.raises(ShortageError, match="no --probabilities"):
        app(["predict", str(run), str(image), "--out", str(out), "--probabilities", *common], standalone_mode=False)


def test_a_validation_that_runs_out_of_memory_is_told_without_an_option_that_train_does_not_have(
    trainer, make_config, monkeypatch
):
    monkeypatch.setattr(Predictor, "forward", raising(STARVED["of the CPU"]))
    with pytest.raises(ShortageError) as error:
        trainer("run", make_config(train={"steps": 1}))
    text = str(error.value)
    assert "in validation, at " in text
    assert "val0.png, 32x32 pixels" in text
    assert f"{trainer.directory / 'run'} --resume --set train.cache=false --set train.workers=0" in text
    assert "--tile" not in text
    assert "accumulate" not in text


# Python code of a process whose address space is what it has after its imports, and a little more.
LIMITED = """
import resource, sys
import segtool.commands.session, segtool.training.train, segtool.prediction.predict, segtool.prediction.inference
from segtool.cli import main
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + {mebibytes} * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
main()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the size of a process as Linux tells it")
def test_a_process_whose_memory_is_limited_ends_with_exit_4_and_the_next_command(tiny_ds, tmp_path, make_config):
    config, run = tmp_path / "config.yaml", tmp_path / "run"
    wide = {"encoder": {"name": "conv", "channels": [64, 64]}}
    sizes = {"steps": 2, "batch_size": 8, "cache": False}
    config.write_text(dump_config(make_config(model=wide, augment={"crop": [1024, 1024]}, train=sizes)))
    code = LIMITED.format(mebibytes=1500)
    command = [sys.executable, "-c", code, "train", config, "--run", run, "--device", "cpu", "--quiet"]
    told = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert told.returncode == 4, told.stderr
    assert "preflight: memory: a step takes about" in told.stderr
    done = subprocess.run([*command, "--no-preflight"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 4, done.stderr
    assert "out of memory with train.batch_size 8 in 1 part(s)" in done.stderr
    assert f"segtool train {run} --resume --device cpu --set train.accumulate=2" in done.stderr
    assert "Traceback" not in done.stderr


def test_memory_that_runs_out_anywhere_else_is_exit_4_and_no_bug(capsys):
    assert explain(MemoryError()) == 4
    assert explain(RuntimeError(CPU_ALLOCATOR)) == 4
    assert "out of memory" in capsys.readouterr().err
    assert explain(RuntimeError("size mismatch")) == 1


@pytest.mark.parametrize(
    "error", [BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), RuntimeError("can't start new thread")]
)
def test_a_limit_on_processes_is_exit_4_with_what_starts_fewer_and_no_bug(capsys, error):
    """As fork and the threads of Python meet it, in a container say."""
    assert explain(error) == 4
    said = capsys.readouterr().err
    assert "no further process or thread can be started" in said
    assert "OMP_NUM_THREADS=1, and in training --set train.workers=0" in said
