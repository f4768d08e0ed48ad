"""Several processes train, score and predict as one does; one that ends or hangs ends them all, and says why."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import config_of, draw_dataset
from ranks import in_ranks, values_of
from torch import nn
from training import metrics_of

from segtool.commands import sources
from segtool.commands.session import train_session
from segtool.commands.sources import Session
from segtool.commands.use import evaluate_session, predict_session
from segtool.config import dump_config
from segtool.config.registry import _registered
from segtool.data import loader
from segtool.errors import ConfigError, DataError, LostError, SegtoolError
from segtool.models.encoders import ConvEncoder
from segtool.runs import history
from segtool.system import launch
from segtool.system.devices import place
from segtool.system.distributed import World, join_world, world_of
from segtool.training.plan import largest_part, parts_of, smallest_part

NORMLESS = {
    "encoder": {"name": "conv", "channels": [4, 8], "norm": "group"},
    "decoder": {"name": "unet", "norm": "group"},
}
PLACE = {
    "RANK": "1",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "3",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.fixture
def write_config(tiny_ds: Path, tmp_path: Path) -> Callable[..., Path]:
    """Writes a config of the tiny data set, of a network without BatchNorm; sections as in `make_config`."""

    def write(*, root: Path = tiny_ds, **sections: Any) -> Path:
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(config_of(root, **{"model": NORMLESS, **sections})))
        return path

    return write


def trained(config: Path, run: Path, processes: int, **options: Any) -> list[dict[str, Any]]:
    """Trains in so many processes, and returns the rows of `metrics.jsonl`."""

    def work() -> None:
        train_session(Session(config, run=run, device="cpu", quiet=True, **options))

    values_of(in_ranks(processes, work, run.parent / f"{run.name}-ranks"))
    return metrics_of(run)


def assert_alike(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Asserts the same steps with losses within 1e-5, and the same scores."""
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, other in zip(rows, others, strict=True):
        assert row.keys() == other.keys()
        if "loss" in row:
            assert row["loss"] == pytest.approx(other["loss"], abs=1e-5)
            assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)
            assert (row["lr"], row["epoch"]) == (other["lr"], other["epoch"])
        else:
            assert row["miou"] == pytest.approx(other["miou"], abs=1e-3)


def weights(run: Path) -> dict[str, torch.Tensor]:
    found = history.last(run / "checkpoints")
    assert found is not None
    return dict(found.tensors["model"])


# --- one process and several


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"steps": 6, "batch_size": 4, "ema": 0.9}},
        {"train": {"steps": 4, "batch_size": 3, "accumulate": 3}, "optim": {"name": "sgd", "clip": 1.0}},
        pytest.param(
            {"train": {"steps": 4, "batch_size": 5}, "loss": ["dice", {"name": "focal", "class_weights": "enet"}]},
            marks=pytest.mark.slow,
        ),
    ],
    ids=["ema", "parts", "class weights"],
)
def test_two_processes_train_as_one_does(write_config, tmp_path, sections):
    config = write_config(**sections)
    alone, together = trained(config, tmp_path / "one", 1), trained(config, tmp_path / "two", 2)
    assert_alike(together, alone)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


class WithSpare(ConvEncoder):
    """An encoder with a part whose answer nothing uses, as HRNet's finest map is to a decoder with fewer skips."""

    def __init__(self, in_channels: int, *, freeze: float = 0.0) -> None:
        super().__init__(in_channels, channels=(4, 8), norm="group")
        self.freeze = freeze
        self.spare = nn.Conv2d(in_channels, 4, 3)


@pytest.mark.parametrize("freeze", [0.0, 1.0])
def test_a_part_of_the_network_that_nothing_uses_stops_no_training_of_several_processes(
    write_config, tmp_path, monkeypatch, freeze
):
    monkeypatch.setitem(_registered["encoder"], "with_spare", WithSpare)
    encoder = {"name": "with_spare", "freeze": freeze}
    config = write_config(model={**NORMLESS, "encoder": encoder}, train={"steps": 4, "batch_size": 4})
    alone, together = trained(config, tmp_path / "one", 1), trained(config, tmp_path / "two", 2)
    assert_alike(together, alone)


def broken_mean(world: World, model: nn.Module) -> nn.Module:
    """Leaves each process its own gradient."""
    return model


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (World, "parallel", broken_mean),
        (World, "sum", lambda world, values: values),
    ],
    ids=["no mean of the gradients", "denominators of a share"],
)
def test_what_breaks_the_sum_over_processes_is_seen(write_config, tmp_path, monkeypatch, owner, name, broken):
    config = write_config(train={"steps": 4, "batch_size": 4, "accumulate": 4})
    alone = trained(config, tmp_path / "one", 1)
    monkeypatch.setattr(owner, name, broken)
    together = trained(config, tmp_path / "two", 2)
    with pytest.raises(AssertionError):
        assert_alike(together, alone)


def test_three_processes_take_a_batch_that_they_do_not_divide(write_config, tmp_path):
    config = write_config(train={"steps": 3, "batch_size": 4})
    assert_alike(trained(config, tmp_path / "three", 3), trained(config, tmp_path / "one", 1))


def test_a_run_goes_on_with_another_number_of_processes(write_config, tmp_path):
    run, optim = tmp_path / "parts", {"schedule": "constant", "warmup": 0}
    whole = trained(write_config(train={"steps": 6, "batch_size": 4}, optim=optim), tmp_path / "whole", 1)
    trained(write_config(train={"steps": 2, "batch_size": 4}, optim=optim), run, 2)
    trained(run, run, 1, resume=True, overrides=("train.steps=4",))
    rows = trained(run, run, 2, resume=True, overrides=("train.steps=6",))
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses == pytest.approx([row["loss"] for row in whole if "loss" in row], abs=1e-5)


@pytest.fixture(scope="module")
def run(tiny_ds: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few steps."""
    directory = tmp_path_factory.mktemp("distributed")
    config = directory / "config.yaml"
    config.write_text(dump_config(config_of(tiny_ds, train={"steps": 3, "batch_size": 4})))
    train_session(Session(config, run=directory / "run", device="cpu", quiet=True))
    return directory / "run"


def scored(run: Path, split: str, processes: int, directory: Path) -> list[dict[str, Any]]:
    """Returns what each process has as the scores of a split, images' own included."""

    def work() -> dict[str, Any]:
        found = evaluate_session([run], split, (), tile=None, device="cpu", quiet=True).scores
        images = [[image.stem, image.confusion.tolist(), image.ignored] for image in found.images]
        return {**found.to_json(), "images": images}

    return values_of(in_ranks(processes, work, directory / f"scored-{processes}"))


@pytest.mark.parametrize(("split", "processes"), [("val", 2), ("test", 3), ("train", 3)])
def test_processes_score_every_image_once_whatever_their_number(run, tmp_path, split, processes):
    (alone,) = scored(run, split, 1, tmp_path)
    assert scored(run, split, processes, tmp_path) == [alone] * processes


def test_a_padded_share_would_be_seen(run, tmp_path, monkeypatch):
    """As torch's DistributedSampler pads: every process gets equally many images, the first ones twice."""
    (alone,) = scored(run, "val", 1, tmp_path)
    real = loader.evaluation_batches

    def padded(dataset: Any, world: World, *, workers: int) -> Iterator[Any]:
        yield from real(dataset, world, workers=workers)
        if world.rank >= len(dataset) % world.size > 0:
            yield from real(dataset, World(), workers=workers)

    monkeypatch.setattr("segtool.scoring.evaluate.evaluation_batches", padded)
    with pytest.raises(AssertionError):
        assert scored(run, "val", 2, tmp_path) == [alone] * 2


def predicted(run: Path, images: Path, out: Path, processes: int) -> tuple[dict[str, bytes], list[str]]:
    """Returns the files that so many processes predict, and what each raised."""

    def work() -> None:
        predict_session(
            [run, images], out, overlays=True, probabilities=True, tile=None, resume=False, device="cpu", quiet=True
        )

    ended = in_ranks(processes, work, out.parent / f"{out.name}-ranks")
    files = {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.rglob("*.*"))}
    return files, [f"{one.error} {one.text}".strip() for one in ended]


def test_processes_predict_the_same_files(run, tiny_ds, tmp_path):
    alone, together = (predicted(run, tiny_ds / "train" / "images", tmp_path / f"out{n}", n) for n in (1, 3))
    assert len(alone[0]) == 3 * 8
    assert together == (alone[0], ["", "", ""])


def test_an_image_that_any_process_cannot_predict_is_told_by_the_main_one(run, tiny_ds, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for number, source in enumerate(sorted((tiny_ds / "train" / "images").iterdir())):
        content = source.read_bytes()
        (images / source.name).write_bytes(content[:60] if number in (1, 3, 4) else content)
    alone, together = (predicted(run, images, tmp_path / f"out{n}", n) for n in (1, 2))
    assert together[0] == alone[0]
    assert len(alone[0]) == 3 * 5
    assert alone[1][0].startswith("DataError")
    assert together[1] == [alone[1][0], ""]


# --- who writes, who speaks, who waits


def test_only_the_main_process_writes(write_config, tmp_path):
    """Every path that a process opens for writing, makes, moves or removes is noted as Python tells of it."""
    config, directory = write_config(train={"steps": 4, "batch_size": 4, "samples": 2}), tmp_path / "run"

    def work() -> list[str]:
        touched: list[str] = []

        def note(event: str, arguments: tuple[Any, ...]) -> None:
            writes = event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wxa+")
            if writes or event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.truncate"):
                touched.append(str(arguments[0]))

        sys.addaudithook(note)
        train_session(Session(config, run=directory, device="cpu", quiet=True))
        return [path for path in touched if str(tmp_path) in path]

    main, *others = values_of(in_ranks(3, work, tmp_path / "ranks"))
    assert any("metrics.jsonl" in path for path in main), "the harness sees what is written"
    assert others == [[], []]
    assert [path.name for path in tmp_path.glob("run*")] == ["run"]


def test_writing_in_every_process_would_be_seen(write_config, tmp_path, monkeypatch):
    real = World.meet
    monkeypatch.setattr(
        World, "meet", lambda world: (tmp_path / f"of-{world.rank}").mkdir(exist_ok=True) or real(world)
    )
    with pytest.raises(AssertionError):
        test_only_the_main_process_writes(write_config, tmp_path)


@pytest.mark.parametrize(("value", "error"), [(77, "DataError"), (255, "DiskError")], ids=["mask", "sample"])
def test_what_is_wrong_before_training_is_told_by_the_main_process_alone(write_config, tmp_path, value, error):
    config = write_config(data={"ignore": [value]}, train={"samples": 1})
    (tmp_path / "run" / "samples" / "val0.png").mkdir(parents=True)

    def work() -> None:
        train_session(Session(config, run=tmp_path / "run", device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks", timeout=30)
    assert (main.error, other.error) == (error, "LostError")
    assert other.seconds < main.seconds + 5


def test_an_image_that_only_another_process_reads_ends_all_with_its_name(tmp_path):
    """Each of two processes takes every other image of a batch, so the one at the first odd place is the second's."""
    root = draw_dataset(tmp_path / "data", train=4, val=2, test=2)
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(config_of(root, model=NORMLESS, train={"steps": 2, "batch_size": 2, "cache": False})))
    from segtool.data.dataset import stream_keys

    bad = root / "train" / "images" / f"train{stream_keys(0, 4, 0, 2)[1][1]}.png"

    def work() -> None:
        from segtool.training import training_step

        build = training_step.build_training

        def spoil(*arguments: Any, **options: Any) -> Any:
            bad.write_bytes(b"no image")  # after the data was checked
            return build(*arguments, **options)

        training_step.build_training = spoil
        train_session(Session(config, run=tmp_path / "run", device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks", timeout=30)
    assert (main.error, other.error) == ("LostError", "DataError")
    assert str(bad.name) in other.text


@pytest.mark.parametrize("failing", [(), (1,), (0, 2), (1, 2)])
def test_of_what_fails_in_several_processes_the_first_one_tells(tmp_path, failing):
    def work() -> str:
        with join_world() as world, world.agreed():
            if world.rank in failing:
                raise DataError(f"of {world.rank}")
        return "done"

    ended = in_ranks(3, work, tmp_path)
    if not failing:
        assert values_of(ended) == ["done"] * 3
        return
    told = ["DataError" if rank == failing[0] else "LostError" for rank in range(3)]
    assert [one.error for one in ended] == told
    assert ended[failing[0]].text == f"of {failing[0]}"


def test_a_process_that_does_not_come_ends_the_others_within_the_timeout(tmp_path):
    def work() -> None:
        with join_world() as world:
            limited = world.limited(1.5)
            if world.rank == 1:
                time.sleep(3)  # what comes before all have met takes as long as it takes
            limited.meet()
            if world.rank == 1:
                time.sleep(6)
            limited.largest(0)

    main, _ = in_ranks(2, work, tmp_path, timeout=20)
    assert main.error == "HungError"
    assert "train.timeout" in main.text
    assert 4 < main.seconds < 8


def test_a_process_that_is_killed_ends_the_others_at_once(tmp_path):
    def work() -> None:
        with join_world() as world:
            if world.rank == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            world.largest(0)

    main, other = in_ranks(2, work, tmp_path, timeout=20)
    assert (main.error, other.error) == ("LostError", "killed")
    assert main.seconds < 10


def test_texts_numbers_and_lists_reach_every_process(tmp_path):
    def work() -> list[Any]:
        with join_world() as world:
            said = world.send("Grüße \N{SNOWMAN}") or "" if world.is_main else world.receive()
            rows = world.gather(torch.full((world.rank, 2), world.rank))
            own = torch.tensor([float(world.rank)])
            world.spread([own])
            told = world.gather_json([{"rank": world.rank}] * (2 - world.rank))
            return [said, rows.tolist(), own.item(), world.largest(world.rank), world.sum(torch.tensor(2)).item(), told]

    ended = values_of(in_ranks(3, work, tmp_path))
    rest = [[[1, 1], [2, 2], [2, 2]], 0.0, 2, 6, [{"rank": 0}, {"rank": 0}, {"rank": 1}]]
    assert ended == [["", *rest], *[["Grüße \N{SNOWMAN}", *rest]] * 2]


# --- what a launcher says


def test_without_a_launcher_there_is_one_process():
    assert world_of({}) == World()
    assert world_of({"MASTER_ADDR": "somewhere", "MASTER_PORT": "1"}) == World(), "some clusters set these for all"


def test_a_launcher_gives_each_process_its_place():
    assert world_of(PLACE) == World(rank=1, size=3, local_size=2)


@pytest.mark.parametrize("left_out", sorted(PLACE))
def test_half_an_environment_is_refused_with_what_is_missing(left_out):
    environment = {name: value for name, value in PLACE.items() if name != left_out}
    with pytest.raises(SegtoolError, match=f"not {left_out}: .*torchrun"):
        world_of(environment)


@pytest.mark.parametrize(
    ("name", "value"), [("RANK", "3"), ("RANK", "-1"), ("WORLD_SIZE", "two"), ("LOCAL_WORLD_SIZE", "4")]
)
def test_an_environment_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(SegtoolError, match=f"{name}={value}"):
        world_of({**PLACE, name: value})


@pytest.mark.parametrize(("batch", "accumulate"), [(8, 1), (8, 4), (7, 3), (5, 5)])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_no_part_of_a_batch_is_larger_than_that_of_one_process(batch, accumulate, processes):
    settings = SimpleNamespace(batch_size=batch, accumulate=accumulate)
    most = -(-batch // accumulate)
    for rank in range(processes):
        share = len(range(rank, batch, processes))
        parts = parts_of(settings, share)
        sizes = [len(part) for part in torch.zeros(share).tensor_split(parts)]
        assert smallest_part(settings, processes) <= min(sizes)
        assert max(sizes) <= largest_part(settings, processes) <= most
        assert processes > 1 or parts == accumulate


def failure(exitcode: int, timestamp: int, text: str | None = None) -> SimpleNamespace:
    return SimpleNamespace(
        exitcode=exitcode, timestamp=timestamp, message={"message": text} if text else "Signal received"
    )


@pytest.mark.parametrize(
    ("failures", "said", "code"),
    [
        (
            {0: failure(4, 9), 1: failure(3, 9, "a.png: broken\nb.png: too")},
            r"rank 1 of 2 .*: a.png: broken \(and 1 m",
            3,
        ),
        ({0: failure(-15, 3), 1: failure(-9, 5)}, r"rank 1 of 2 was killed \(signal 9\)", 137),
        ({0: failure(4, 3, "train.timeout"), 1: failure(-9, 40)}, "rank 0 of 2 ended the job: train.timeout", 4),
        ({0: failure(143, 3), 1: failure(5, 5, "loss nan")}, "rank 1 of 2 ended the job: loss nan", 5),
        ({0: failure(4, 1)}, "rank 0 of 2 ended the job: exit code 4", 4),
    ],
    ids=["told", "killed", "hung", "terminated after", "untold"],
)
def test_the_cause_is_what_a_process_told_or_what_killed_it(failures, said, code):
    cause = launch._cause(failures, 2)
    assert cause.exit_code == code
    with pytest.raises(SegtoolError, match=said):
        raise cause


@pytest.mark.parametrize(
    ("codes", "max_restarts", "runs", "raised"),
    [
        ([137, None], 1, 2, None),
        ([137, 4, 1], 2, 3, 1),
        ([3, None], 5, 1, 3),
        ([2], 5, 1, 2),
        ([5], 5, 1, 5),
        ([None], 5, 1, None),
    ],
)
def test_all_start_again_unless_a_new_start_would_meet_the_same(monkeypatch, codes, max_restarts, runs, raised):
    left, jobs, said = list(codes), [], []

    def once(arguments: Any, processes: int, job: str, patience: float) -> Any:
        jobs.append(job)
        code = left.pop(0)
        return None if code is None else launch.JobError(f"ended with {code}", code)

    monkeypatch.setattr(launch, "_run", once)
    with pytest.raises(launch.JobError) if raised else contextlib.nullcontext() as ended:
        launch.launch(list, processes=2, max_restarts=max_restarts, patience=1.0, say=said.append)
    assert len(jobs) == runs
    assert len(set(jobs)) == 1, "by which the run is known as the job's own"
    assert len(said) == runs - 1
    assert raised is None or ended.value.exit_code == raised


def test_two_jobs_begun_together_get_two_directories_and_a_new_start_what_is_left_of_the_budget(
    write_config, tmp_path, monkeypatch
):
    config, started, clock = write_config().rename(tmp_path / "net.yaml"), [], iter(range(107, 200, 7))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sources, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    asked = Session(config, device="cpu", gpus=2, max_restarts=1, budget=60.0, quiet=True, began=100.0)

    def once(arguments: Any, *_: Any) -> Any:
        started.append(arguments)
        if len(started) == 1:  # while the first is starting, another begins
            train_session(replace(asked, max_restarts=0, budget=None))
            return launch.JobError("killed", 137)
        return None

    monkeypatch.setattr(launch, "_run", once)
    train_session(asked)
    given = [dict(pairwise(words)) for words in started]
    assert [words["--run"] for words in given] == ["runs/net-1", "runs/net-2", "runs/net-1"]
    assert [words.get("--budget") for words in given] == ["53s", None, "46s"]
    assert list((tmp_path / "runs").iterdir()) == [], "where nothing came to lie in them"


def test_a_divergence_is_told_by_the_main_process_with_the_images_of_all(write_config, tmp_path, monkeypatch):
    """Only the second process computes a loss that is none; all leave the step out."""
    from segtool.training import training_step

    config, directory = write_config(train={"steps": 4, "batch_size": 4}), tmp_path / "run"
    real = training_step.add_gradients

    def spoiled(training: training_step.Training, *part: Any) -> torch.Tensor:
        loss = real(training, *part)
        return loss * float("nan") if training.world.rank == 1 else loss

    monkeypatch.setattr(training_step, "add_gradients", spoiled)

    def work() -> None:
        train_session(Session(config, run=directory, device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks")
    assert (main.error, other.error) == ("DivergedError", "LostError")
    assert main.text.count(".png") == 4
    saved = history.last(directory / "checkpoints")
    assert saved is not None
    assert saved.progress.step == 0


def test_a_signal_to_any_process_ends_all_after_the_same_step(write_config, tmp_path, monkeypatch):
    from segtool.training import training_step

    config, directory = write_config(train={"steps": 9, "batch_size": 4}), tmp_path / "run"
    real = training_step.train_step

    def signalled(training: training_step.Training, batch: Any, step: int, *rest: Any) -> Any:
        if step == 2 and training.world.rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return real(training, batch, step, *rest)

    monkeypatch.setattr(training_step, "train_step", signalled)

    def work() -> None:
        train_session(Session(config, run=directory, device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks")
    assert (main.error, other.error) == ("Interrupted", "SystemExit")
    assert "--resume --device cpu --gpus 2" in main.text
    assert [row["step"] for row in metrics_of(directory) if "loss" in row] == [1, 2, 3]


def validated_statistics(config: Path, directory: Path) -> list[list[float]]:
    """Returns what each of two processes has as BatchNorm's statistics in its validations, summed up."""

    def work() -> list[float]:
        from segtool.training import train, training_step

        real, found = train.build_predictor, []

        def build(training: training_step.Training) -> Any:
            found.append(sum(buffer.double().sum().item() for buffer in training.scored.buffers()))
            return real(training)

        train.build_predictor = build
        train_session(Session(config, run=directory, device="cpu", quiet=True))
        return found

    return values_of(in_ranks(2, work, directory.parent / "ranks"))


@pytest.mark.parametrize("ema", [0.9, None])
def test_all_processes_validate_with_the_statistics_of_the_main_one(tiny_ds, tmp_path, monkeypatch, ema):
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(config_of(tiny_ds, train={"steps": 3, "batch_size": 5, "ema": ema})))
    main, other = validated_statistics(config, tmp_path / "run")
    assert main == other
    monkeypatch.setattr(World, "spread", lambda world, tensors: None)
    main, other = validated_statistics(config, tmp_path / "without")
    assert main != other, "each process has seen images of its own"


def test_parts_of_a_batch_are_added_up_before_the_processes_are(tmp_path):
    def work() -> list[list[float]]:
        from segtool.system.distributed import apart

        with join_world() as world:
            torch.manual_seed(0)
            layer = nn.Linear(1, 1, bias=False)
            network = world.parallel(layer)
            found = []
            for share in (apart(network), contextlib.nullcontext()):
                with share:
                    network(torch.tensor([[1.0 + 2 * world.rank]])).sum().backward()
                found.append(layer.weight.grad.item())
            return found

    assert values_of(in_ranks(2, work, tmp_path)) == [[1.0, 4.0], [3.0, 4.0]]


def test_processes_whose_files_differ_are_told_so(write_config, tmp_path, monkeypatch):
    from segtool.commands import execution

    config = write_config(train={"steps": 2, "batch_size": 4})
    real = execution.fingerprint
    monkeypatch.setattr(execution, "fingerprint", lambda records: real(records) + os.environ["RANK"])

    def work() -> None:
        train_session(Session(config, run=tmp_path / "run", device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks", timeout=30)
    assert (main.error, other.error) == ("LostError", "DataError")
    assert "process 1 of 2" in other.text


@pytest.mark.parametrize(
    "sections", [{"train": {"batch_size": 1}}, {"train": {"batch_size": 4, "sync_batch_norm": True}}]
)
def test_what_processes_cannot_do_together_is_refused_before_training(write_config, tmp_path, sections):
    config = write_config(**sections)

    def work() -> None:
        train_session(Session(config, run=tmp_path / "run", device="cpu", quiet=True))

    main, other = in_ranks(2, work, tmp_path / "ranks", timeout=30)
    assert (main.error, other.error) == ("ConfigError", "LostError")
    assert "config.yaml:" in main.text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("seconds", [0, -1.0, 1e7])
def test_a_timeout_is_a_length_of_time(make_config, seconds):
    with pytest.raises(ConfigError, match=r"train\.timeout"):
        make_config(train={"timeout": seconds})


def test_a_launcher_that_starts_a_job_again_finds_its_run_and_no_other(write_config, tmp_path, monkeypatch):
    config, directory = write_config(train={"steps": 2, "batch_size": 4}), tmp_path / "run"
    begin = Session(config, run=directory, device="cpu", quiet=True)
    for name, value in {**PLACE, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "one")
    train_session(begin)
    before = (directory / "metrics.jsonl").read_bytes()
    train_session(begin)  # goes on, and finds it done
    for other in ("two", "none", ""):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", other)
        with pytest.raises(SegtoolError, match="holds a run"):
            train_session(begin)
    assert (directory / "metrics.jsonl").read_bytes() == before


def test_each_process_has_its_own_gpu_and_its_share_of_the_cores(monkeypatch):
    used = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setenv("LOCAL_RANK", "1")
    two = World(rank=3, size=4, local_size=2)
    assert place(two, torch.device("cuda")) == torch.device("cuda", 1)
    assert used == [torch.device("cuda", 1)]
    assert place(two, torch.device("cpu")) == torch.device("cpu")
    assert place(World(), torch.device("mps")) == torch.device("mps")
    with pytest.raises(SegtoolError, match="3 processes, and this machine has 2 GPUs"):
        place(World(size=3, local_size=3), torch.device("cuda"))
    with pytest.raises(SegtoolError, match="mps"):
        place(two, torch.device("mps"))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    workers = [loader.num_workers("auto", torch.device("cuda"), World(size=n, local_size=n)) for n in (1, 2, 4, 16)]
    assert workers == [8, 7, 3, 1]


def test_an_error_is_recorded_for_the_launcher_but_not_the_end_of_another(tmp_path, monkeypatch):
    monkeypatch.setenv(launch.ERROR_FILE, str(tmp_path / "error.json"))
    launch.record(LostError("another one ended"))
    assert not (tmp_path / "error.json").exists()
    launch.record(DataError("a.png: broken"))
    told = json.loads((tmp_path / "error.json").read_text())["message"]
    assert told["message"] == told["extraInfo"]["py_callstack"] == "a.png: broken"


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (RuntimeError("no compiler"), SegtoolError, r"compilation failed \(RuntimeError: no compiler\).*compile=false"),
        (RuntimeError("gloo: connection closed by peer"), RuntimeError, "^gloo"),
    ],
    ids=["compiler", "another process"],
)
def test_where_compilation_fails_several_processes_end(monkeypatch, error, raised, said):
    """One alone makes the step again without; of several the others are within it."""
    from segtool.training import training_step

    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr(training_step, "train_step", fail)
    training: Any = SimpleNamespace(model=nn.Linear(1, 1), world=World(rank=1, size=2))
    with pytest.raises(raised, match=said):
        training_step.compiled_step(None, training, None, 0, 0.1, [])  # type: ignore[arg-type]
