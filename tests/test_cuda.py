"""What a GPU with CUDA must do, where there is one: learn, wait for nothing, go on, run out of memory, tell of NaN."""

from __future__ import annotations

import copy
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of
from PIL import Image
from training import Trained, metrics_of

from segtool.commands.demo import make_dataset
from segtool.config import dump_config
from segtool.data.dataset import Sample
from segtool.data.pairs import Record
from segtool.data.statistics import ClassFrequencies
from segtool.errors import DivergedError
from segtool.prediction.ensemble import Ensemble
from segtool.prediction.inference import Normalize, Predictor, fast_dtype
from segtool.runs import checkpoint
from segtool.runs.checkpoint import Progress
from segtool.runs.history import last
from segtool.system.devices import free_bytes
from segtool.system.distributed import World
from segtool.training import training_step
from segtool.training.training_step import Training, build_training, train_step

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU with CUDA")

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
SEGTOOL = [sys.executable, "-m", "segtool"]


@contextmanager
def no_waiting() -> Generator[None]:
    """Inside, torch raises where the host would wait for the GPU."""
    with warnings.catch_warnings(category=UserWarning, action="ignore"):  # that it does not see every such place
        torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(autouse=True)
def whole_gpu() -> Iterator[None]:
    """Gives back what a test kept of the GPU, and what it took away."""
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of a training on the synthetic set that is long enough to learn."""
    folder = tmp_path_factory.mktemp("cuda")
    make_dataset(folder / "data", sizes={"train": 40, "val": 8, "test": 8})
    config = (Path(__file__).parents[1] / "configs" / "demo.yaml").read_text()
    path = folder / "config.yaml"
    path.write_text(config)
    return path


def command(*arguments: object, code: int = 0, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs segtool as a user does."""
    done = subprocess.run(
        [*SEGTOOL, *map(str, arguments)], capture_output=True, text=True, timeout=400, check=False, **options
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done


def losses(run: Trained | Path) -> list[float]:
    lines = run.metrics if isinstance(run, Trained) else metrics_of(run)
    return [row["loss"] for row in lines if row.get("loss") is not None]


# --- whole commands


@pytest.mark.parametrize(
    ("precision", "compiled"), [("fp32", False), ("bf16", False), ("fp16", False), ("bf16", True), ("fp16", True)]
)
def test_a_gpu_learns_in_every_arithmetic_and_a_cpu_predicts_the_same(shapes, tmp_path, precision, compiled):
    run = tmp_path / "run"
    settings = [f"data.root={shapes.parent / 'data'}", f"train.precision={precision}", "train.steps=300"]
    settings += [f"train.compile={str(compiled).lower()}"]
    said = command("train", shapes, "--run", run, *(word for key in settings for word in ("--set", key))).stderr
    assert "device: cuda" in said
    assert "compilation failed" not in said
    scores = [json.loads(command("eval", run, "--json", "--device", name).stdout) for name in ("cuda", "cpu")]
    assert scores[0]["miou"] > 0.6
    assert scores[0]["miou"] == pytest.approx(scores[1]["miou"], abs=0.005)


def test_masks_of_a_gpu_are_those_of_the_cpu(shapes, tmp_path):
    data = shapes.parent / "data"
    command("train", shapes, "--run", tmp_path / "run", "--set", f"data.root={data}", "--set", "train.steps=100")
    for options in ((), ("--tile", "64")):
        masks = []
        for name in ("cuda", "cpu"):
            out = tmp_path / f"{name}{len(options)}"
            command("predict", tmp_path / "run", data / "test" / "images", "--out", out, "--device", name, *options)
            masks.append(np.stack([np.asarray(Image.open(path)) for path in sorted(out.rglob("*.png"))]))
        assert (masks[0] == masks[1]).mean() > 0.995


def test_a_signal_is_saved_and_the_run_goes_on_where_it_was(shapes, tmp_path):
    run = tmp_path / "run"
    settings = ["--set", f"data.root={shapes.parent / 'data'}", "--set", "train.steps=100000"]
    with subprocess.Popen([*SEGTOOL, "train", shapes, "--run", run, *settings], stderr=subprocess.PIPE) as process:
        while not ((run / "metrics.jsonl").exists() and (run / "metrics.jsonl").stat().st_size):
            assert process.poll() is None
            time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 143, said
    step = last(run / "checkpoints").progress.step  # type: ignore[union-attr]
    assert step == metrics_of(run)[-1]["step"]
    command("train", run, "--resume", "--set", f"train.steps={step + 20}")
    assert metrics_of(run)[-1]["step"] == step + 20


def test_memory_that_runs_out_ends_with_what_to_try(shapes, tmp_path, segtool):
    """Of a GPU of which this process may have a little only."""
    torch.cuda.set_per_process_memory_fraction(1.5e9 / torch.cuda.get_device_properties(0).total_memory)
    settings = [f"data.root={shapes.parent / 'data'}", "train.batch_size=64", "model.encoder.channels=[128, 256, 512]"]
    words = [word for key in settings for word in ("--set", key)]
    ended = segtool("train", shapes, "--run", tmp_path / "run", "--device", "cuda", "--no-preflight", *words)
    assert ended.code == 4, ended.err
    assert "memory" in ended.err
    assert "--resume --set train." in ended.err
    assert (tmp_path / "run" / "checkpoints" / "step-00000000").exists()


# --- a step


def built(precision: str, device: torch.device, *, world: World | None = None, **sections: Any) -> Training:
    config = config_of(Path("/"), **sections)
    config = replace(
        config,
        data=replace(config.data, mean=(0.5,) * 3, std=(0.25,) * 3),
        train=replace(config.train, precision=precision, batch_size=4, compile=False),
    )
    return build_training(config, ClassFrequencies((9, 5, 2), (16, 16, 16)), device, world or World())


def batch_of(number: int, *, pinned: bool = True) -> Sample:
    generator = torch.Generator().manual_seed(number)
    sample = Sample(
        torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8, generator=generator),
        torch.randint(0, 3, (4, 32, 32), dtype=torch.uint8, generator=generator),
        torch.arange(4),
    )
    return Sample(*(tensor.pin_memory() for tensor in sample)) if pinned else sample


RECORDS = [Record(Path(f"{number}.png"), None, str(number)) for number in range(4)]


def make_steps(training: Training, count: int, *, first: int = 0) -> list[float]:
    """Makes steps as the loop does, which reads what came of one while the next is queued; returns the losses."""
    read, waiting = [], []
    for step in range(first, first + count):
        waiting.append(train_step(training, batch_of(step), step, 0.01, RECORDS))
        if len(waiting) > 1:
            read.append(waiting.pop(0).read()[0])
    return [*read, waiting.pop().read()[0]]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "sections",
    [
        {"optim": {"name": "adamw", "clip": 1.0}, "train": {"ema": 0.99, "accumulate": 2}},
        {"optim": {"name": "sgd"}, "loss": ["focal", {"name": "dice", "weight": 0.5}, "tversky"]},
        {"loss": [{"name": "cross_entropy", "class_weights": "enet", "label_smoothing": 0.1}]},
        {"model": {"decoder": {"name": "fcn", "upsample": "max_unpool", "skips": 1}}},
        {
            "model": {
                "encoder": {"name": "conv", "channels": [4, 8, 8]},
                "decoder": {"name": "unet", "upsample": "bilinear", "aux": True},
            }
        },
    ],
    ids=["adamw", "sgd", "weighted", "unpooling", "deep supervision"],
)
def test_a_step_waits_for_nothing(precision, sections):
    training = built(precision, CUDA, **sections)
    make_steps(training, 2)
    batches = [batch_of(step) for step in range(3)]
    with no_waiting():
        outcomes = [train_step(training, batch, step, 0.01, RECORDS) for step, batch in enumerate(batches, start=2)]
    assert all(math.isfinite(outcome.read()[0]) for outcome in outcomes)


def test_a_step_that_waits_would_be_seen(monkeypatch):
    """Negative control."""
    training = built("fp32", CUDA)
    make_steps(training, 2)
    monkeypatch.setattr(
        training_step.nn.utils,
        "get_total_norm",
        lambda gradients: gradients[0].norm() * gradients[0].norm().item() ** 0,
    )
    with no_waiting(), pytest.raises(RuntimeError, match="synchroniz"):
        train_step(training, batch_of(2), 2, 0.01, RECORDS)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_steps_of_a_gpu_are_those_of_a_cpu(name):
    sections = {"optim": {"name": name, "clip": 1.0}, "train": {"ema": 0.99}}
    torch.backends.cudnn.allow_tf32 = False
    try:
        runs = [make_steps(built("fp32", device, **sections), 8) for device in (CPU, CUDA)]
    finally:
        torch.backends.cudnn.allow_tf32 = True
    # Rounding differs, and AdamW divides by small gradients: noise of 1e-5 in them came to 9e-4 in the eighth loss.
    assert runs[0][:2] == pytest.approx(runs[1][:2], rel=1e-4)
    assert runs[0] == pytest.approx(runs[1], rel=0.01)


def test_a_scale_that_overflows_is_halved_and_its_step_left_out():
    training = built("fp16", CUDA, train={"ema": 0.99})
    training.scaler = torch.amp.GradScaler("cuda", init_scale=2.0**40)
    before = [value.detach().clone() for value in training.model.parameters()]
    outcome = train_step(training, batch_of(0), 0, 0.01, RECORDS)
    assert not math.isfinite(outcome.read()[1])
    assert training.scaler.get_scale() == 2.0**39
    assert all(torch.equal(*both) for both in zip(before, training.model.parameters(), strict=True))
    make_steps(training, 40, first=1)
    assert training.scaler.get_scale() < 2.0**30
    assert not all(torch.equal(*both) for both in zip(before, training.model.parameters(), strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_that_is_not_finite_and_the_one_queued_behind_it_are_left_out(precision):
    training = built(precision, CUDA)
    make_steps(training, 3)
    if training.scaler:
        training.scaler.update(1.0)  # no scale is to blame
    before = {name: value.detach().clone() for name, value in training.model.named_parameters()}
    layer = training.model.head
    hook = layer.register_forward_hook(lambda *_: _[2] * math.nan)
    spoiled = train_step(training, batch_of(3), 3, 0.01, RECORDS)
    hook.remove()
    train_step(training, batch_of(4), 4, 0.01, RECORDS)
    with pytest.raises(DivergedError, match=r"step 4: loss nan"):
        spoiled.read()
    assert all(torch.equal(value, before[name]) for name, value in training.model.named_parameters())


# --- resume


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_training_goes_on_with_what_was_saved_bit_for_bit(tmp_path, name, precision):
    """What the steps make of it may differ in rounding: torch promises bit for bit for no kernel of a GPU."""
    sections = {"optim": {"name": name, "clip": 1.0}, "train": {"ema": 0.99}}
    saved, restored = built(precision, CUDA, **sections), built(precision, CUDA, **sections)
    make_steps(saved, 6)
    path = checkpoint.save(tmp_path, saved.state, saved.config, Progress(step=6, steps=12))
    make_steps(restored, 2)  # whatever it was before
    checkpoint.load(path).restore(restored.state)
    first, second = tensors_of(saved), tensors_of(restored)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
        assert value.stride() == second[key].stride(), key
    assert make_steps(restored, 2, first=6) == pytest.approx(make_steps(saved, 2, first=6), rel=1e-3)


def tensors_of(training: Training) -> dict[str, torch.Tensor]:
    """Returns all that a step changes."""
    found = {f"model.{name}": value for name, value in training.model.state_dict().items()}
    found |= {f"average.{name}": value for name, value in training.scored.state_dict().items()}
    for number, state in enumerate(training.optimizer.state.values()):
        found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
    if training.scaler:
        found["scale"] = torch.tensor(training.scaler.get_scale())
    return found


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_goes_on_near_where_it_would_have_been(trainer, make_config, precision):
    """Within what rounding grows to in twelve steps: 6e-4 was seen where gradients differed in their last bit."""
    config = make_config(train={"precision": precision, "ema": 0.99, "steps": 12})
    whole = trainer("whole", config, device="cuda")
    trainer("parts", config, device="cuda", stop_after=6)
    parts = trainer("parts", config, device="cuda", resume=True)
    assert losses(parts) == pytest.approx(losses(whole), rel=0.02)


def test_a_run_goes_on_on_another_device(trainer, make_config):
    config = make_config(train={"steps": 12})
    whole = losses(trainer("whole", config))
    trainer("parts", config, stop_after=6)
    parts = losses(trainer("parts", config, device="cuda", resume=True))
    assert parts[:6] == whole[:6]
    assert parts[6] == pytest.approx(whole[6], rel=0.01)  # of the same weights, in TF32
    assert parts == pytest.approx(whole, rel=0.1)


# --- several processes

ON_ONE_GPU = """
import sys, torch
from segtool.system import devices

start = torch.distributed.init_process_group
torch.distributed.init_process_group = lambda _, **options: start("gloo", **options)
devices.check_gpus = lambda count: None
devices.place = lambda world, device: device
from segtool.__main__ import main
main()
"""


def test_two_processes_with_batch_norm_of_the_whole_batch_are_one(tiny_ds, tmp_path):
    """NCCL takes one process a GPU, so here gloo joins two that share one."""
    train = {"steps": 6, "batch_size": 4, "sync_batch_norm": True, "eval_every": 3.0}
    config = tmp_path / "config.yaml"
    config.write_text(dump_config(config_of(tiny_ds, train=train, augment={"color": 0.0})))
    command("train", config, "--run", tmp_path / "one", "--device", "cuda")
    environment = {**os.environ, "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    environment["MASTER_PORT"] = "29653"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ON_ONE_GPU, "train", config, "--run", tmp_path / "two", "--device", "cuda"],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=200)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=0.01)


def test_a_job_by_nccl_makes_the_steps_of_a_process_alone():
    """With the one process that a single GPU takes: sums, gradients and parts of a batch go through NCCL."""
    sections = {"train": {"accumulate": 2, "ema": 0.99}}
    alone = make_steps(built("fp32", CUDA, **sections), 6)
    store = torch.distributed.HashStore()
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl", store=store, rank=0, world_size=1)
    try:
        world = World(group=torch.distributed.new_group())
        training = built("fp32", CUDA, world=world, **sections)
        assert isinstance(training.network, torch.nn.parallel.DistributedDataParallel)
        assert make_steps(training, 6) == pytest.approx(alone, rel=0.01)
        with no_waiting():
            outcome = train_step(training, batch_of(6), 6, 0.01, RECORDS)
        outcome.read()
        assert world.largest(3) == 3
        assert world.gather_json([{"a": 1}]) == [{"a": 1}]
        world.spread(training.model.buffers())
        assert float(world.sum(torch.ones((), device="cuda"))) == 1
    finally:
        torch.distributed.destroy_process_group()


def test_more_processes_than_gpus_are_refused(shapes):
    count = torch.cuda.device_count() + 1
    said = command("train", shapes, "--gpus", count, "--device", "cuda", code=2).stderr
    assert f"this machine has {count - 1} GPU" in said


# --- what a GPU is asked


def test_a_forecast_is_of_the_gpu(shapes, tmp_path):
    said = command("train", shapes, "--dry-run", "--set", f"data.root={shapes.parent / 'data'}").stderr
    assert "device: cuda" in said
    assert re.search(r"memory: about [\d.]+ [MG]B", said)


def test_a_predictor_on_a_gpu_computes_in_half_precision_where_that_is_fast(tiny_ds):
    training = built("fp32", CPU)
    image = batch_of(0, pinned=False).image[0]
    normalize = Normalize((0.5,) * 3, (0.25,) * 3)
    plain = Predictor(copy.deepcopy(training.model), normalize, CPU).forward(image)
    fast = Predictor(copy.deepcopy(training.model), normalize, CUDA, dtype=fast_dtype(CUDA)).forward(image)
    assert (plain - fast.cpu()).abs().max() < 0.05 * plain.abs().max()
    for tile in (None, 16):
        mine = Predictor(copy.deepcopy(training.model), normalize, CUDA)
        theirs = Predictor(copy.deepcopy(training.model), normalize, CPU)
        assert (mine.classes(image, tile) == theirs.classes(image, tile)).mean() > 0.99
    assert 2**30 < free_bytes(CUDA) <= torch.cuda.get_device_properties(0).total_memory


# --- graphs


def predictor_of(**sections: Any) -> Predictor:
    return Predictor(
        built("fp32", CPU, **sections).model, Normalize((0.5,) * 3, (0.25,) * 3), CUDA, dtype=torch.bfloat16
    )


def pictures(count: int, *sizes: tuple[int, int]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator) for size in sizes * count]


def near(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Whether they are the same but for rounding: a GPU may sum in another order each time."""
    return bool((first - second).abs().max() <= 0.02 * first.abs().max())


UPSAMPLERS = ["transposed", "nearest", "bilinear", "bed_of_nails", "max_unpool"]


@pytest.mark.parametrize("decoder", ["unet", "fcn"])
@pytest.mark.parametrize("upsample", UPSAMPLERS)
def test_a_graph_answers_as_the_network_does(decoder, upsample):
    options = {"skips": 1} if decoder == "fcn" else {}
    predictor = predictor_of(model={"decoder": {"name": decoder, "upsample": upsample, **options}})
    images = pictures(6, (37, 50), (50, 37))
    expected = [predictor._logits(image).clone() for image in images]
    found = [predictor.forward(image) for image in images]
    assert len(predictor._recordings._recorded) == 2
    assert all(near(*both) for both in zip(expected, found, strict=True))
    assert not near(found[-1], found[-3])


def test_graphs_serve_an_ensemble_with_its_mirror_images():
    members = [predictor_of(), predictor_of(model={"decoder": {"name": "fcn", "skips": 1}})]
    images = pictures(5, (33, 48))
    found = [torch.cat(list(Ensemble(members, flip=True).bands(image))) for image in images]
    for member in members:
        assert len(member._recordings._recorded) == 1
        member._recordings = None
    expected = [torch.cat(list(Ensemble(members, flip=True).bands(image))) for image in images]
    assert all(near(*both) for both in zip(expected, found, strict=True))
    assert not near(found[-1], found[-2])


def test_a_network_that_waits_for_the_gpu_is_not_recorded_and_predicts_and_trains_all_the_same():
    training = built("fp32", CUDA)
    predictor = predictor_of()
    layer = predictor.model.head
    layer.register_forward_hook(lambda *_: _[2] * float(_[2].isfinite().all()))
    (image,) = pictures(1, (33, 48))
    found = [predictor.forward(image) for _ in range(5)]
    assert predictor._recordings._recorded == {}
    assert all(near(found[0], other) for other in found)
    torch.cuda.synchronize()
    torch.rand(3, device="cuda")  # torch raises here where a recording has failed half-way
    make_steps(training, 3)


def test_graphs_of_several_sizes_share_memory_and_answer_in_any_order():
    predictor = predictor_of(model={"encoder": {"name": "conv", "channels": [32, 64]}})
    sizes = [(256, 256), (250, 256), (256, 250), (240, 240)]
    (first, *others) = (pictures(1, size)[0] for size in sizes)
    expected = [predictor._logits(image).detach() for image in (first, *others)]
    held = []  # before the first is recorded, after it, and after the others
    for images in ([first] * 2, [first], others * 3):
        for image in images:
            predictor.forward(image)
        held.append(torch.cuda.memory_reserved())
    assert len(predictor._recordings._recorded) == 4
    assert held[2] - held[1] < 2 * (held[1] - held[0])
    for image, answer in [*zip((first, *others), expected, strict=True)][::-1]:
        assert near(answer, predictor.forward(image))


def test_validation_between_steps_records_and_training_goes_on():
    training = built("bf16", CUDA, train={"ema": 0.99})
    for step in range(3):
        make_steps(training, 2, first=2 * step)
        predictor = Predictor(copy.deepcopy(training.scored), training.normalize, CUDA, dtype=torch.bfloat16)
        masks = [predictor.classes(image) for image in pictures(4, (33, 48))]
        assert [mask.shape for mask in masks] == [(33, 48)] * 4
        assert len(predictor._recordings._recorded) == 1
    held = torch.cuda.memory_allocated()
    del predictor
    assert torch.cuda.memory_allocated() < held


def test_many_readers_and_writers_leave_masks_in_their_order(shapes, tmp_path):
    data = shapes.parent / "data"
    command("train", shapes, "--run", tmp_path / "run", "--set", f"data.root={data}", "--set", "train.steps=20")
    said = command("predict", tmp_path / "run", data, "--out", tmp_path / "out", "--device", "cuda").stderr
    assert "112 of 112 masks" in said
