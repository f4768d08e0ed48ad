"""Training: a run that was stopped and continued is the run that was not, bit for bit; and it stops where it must."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import shutil
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import config_of, draw_pair, write_pair
from PIL import Image
from stubs import red
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode
from training import SilentOs, Trained, Trainer, everything, metrics_of, prepared

from segtool.commands.preparation import verify_components
from segtool.config import Config
from segtool.data.dataset import EvaluationSet, Sample
from segtool.data.formats import split_records
from segtool.data.pairs import Record
from segtool.data.reader import Reader
from segtool.errors import ConfigError, DiskError, DivergedError, Interrupted
from segtool.models.encoders import ConvEncoder, Pretrained
from segtool.prediction.inference import Predictor
from segtool.prediction.predict import build_predictor, predict
from segtool.prediction.predicted_files import list_jobs
from segtool.runs import checkpoint, history
from segtool.runs.checkpoint import Progress
from segtool.runs.run_directory import RunDirectory
from segtool.scoring.evaluate import evaluate
from segtool.scoring.metrics import Scores
from segtool.system.distributed import World
from segtool.system.terminal import Reporter
from segtool.training import forecast, plan, samples, train, training_log, training_step
from segtool.training.budget import Budget
from segtool.training.optim import build_optimizer, learning_rate
from segtool.training.samples import Samples, sample_names
from segtool.training.training_step import Outcome, Training

CPU = torch.device("cpu")
FCN = {"decoder": {"name": "fcn", "upsample": "bilinear", "skips": 1}}

# Network, optimizer, averages, workers: each value with each other one at least once, and some of the pairs.
RUNS = [
    ("unet", "adamw", 0.99, 0),
    ("unet", "sgd", None, 0),
    ("fcn", "adamw", None, 0),
    ("fcn", "sgd", 0.99, 0),
    ("unet", "adamw", 0.99, 1),
]


def config_for(make_config: Callable[..., Config], network: str, optimizer: str, ema: float | None, workers: int):
    return make_config(
        model=FCN if network == "fcn" else {},
        optim={"name": optimizer, "clip": 1.0},
        train={"ema": ema, "workers": workers},
    )


def assert_same(first: Trained, second: Trained) -> None:
    """The same weights, buffers, averages, optimizer state, progress and metrics, to the last bit."""
    assert differences(first, second) == []


def differences(first: Trained, second: Trained) -> list[str]:
    """Returns the names of what differs between two trainings."""
    found = []
    if first.final.tensors.keys() != second.final.tensors.keys():
        found.append("files")
    for file, tensors in first.final.tensors.items():
        others = second.final.tensors.get(file, {})
        if tensors.keys() != others.keys():
            found.append(file)
        found += [f"{file}: {key}" for key, value in tensors.items() if not torch.equal(value, others.get(key, value))]
    if first.final.progress != second.final.progress:
        found.append("progress")
    logs = [(run.directory / "metrics.jsonl").read_bytes() for run in (first, second)]
    if logs[0].splitlines() != logs[1].splitlines():
        found.append("metrics")
    return found


# --- exact resume


@pytest.mark.parametrize(("network", "optimizer", "ema", "workers"), RUNS)
def test_a_run_stopped_in_the_middle_of_an_epoch_and_continued_is_the_run_that_was_not(
    trainer, make_config, network, optimizer, ema, workers
):
    config = config_for(make_config, network, optimizer, ema, workers)
    whole = trainer("whole", config)
    stopped = trainer("parts", config, stop_after=4)
    assert stopped.progress is None
    assert stopped.final.progress.step == 4
    assert_same(trainer("parts", config, resume=True), whole)


@pytest.mark.parametrize("step", [1, 3, 6])
def test_a_run_may_be_stopped_before_at_and_after_a_validation(trainer, make_config, step):
    config = make_config()
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=step)
    assert_same(trainer("parts", config, resume=True), whole)


def test_a_run_may_be_stopped_at_every_step(trainer, make_config):
    config = make_config(train={"steps": 4})
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=1)
    for step in (2, 3):
        trainer("parts", config, stop_after=step, resume=True)
    assert_same(trainer("parts", config, resume=True), whole)


def test_what_was_logged_after_the_last_checkpoint_is_made_again_once(trainer, make_config, monkeypatch):
    """As after a SIGKILL: rows of steps that no checkpoint has, and a line that was cut off."""
    config = make_config()
    whole = trainer("whole", config)
    stopped = trainer("parts", config, stop_after=4)
    with open(stopped.directory / "metrics.jsonl", "a") as file:
        file.write('{"step": 5, "epoch": 1.875, "loss": 9.0, "grad_norm": 1.0, "lr": 0.1}\n{"step": 6, "ep')
    assert_same(trainer("parts", config, resume=True), whole)


def test_a_damaged_last_checkpoint_is_passed_over_and_made_again(trainer, make_config):
    config = make_config(train={"keep": 9})
    whole = trainer("whole", config)
    run = trainer("parts", config)
    path = run.final.path / "optimizer.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    again = trainer("parts", config, resume=True)
    assert any("warning" in line and path.name in line for line in again.said)
    assert_same(again, whole)
    assert again.final.path == run.final.path


def with_dropout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts dropout before the head, which makes the steps depend on torch's generator."""
    build = training_step.build_model

    def build_with_dropout(*args: Any) -> Any:
        model = build(*args)
        model.head = nn.Sequential(nn.Dropout(0.5), model.head)
        return model

    monkeypatch.setattr(training_step, "build_model", build_with_dropout)


def test_dropout_in_steps_of_two_parts_continues_as_if_there_had_been_no_stop(trainer, make_config, monkeypatch):
    with_dropout(monkeypatch)
    config = make_config(train={"accumulate": 2})
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=4)
    torch.manual_seed(12345)
    assert_same(trainer("parts", config, resume=True), whole)


def test_dropout_that_is_not_seeded_by_the_step_breaks_the_equality(trainer, make_config, monkeypatch):
    """Negative control: the generator of the process instead of one of the step."""
    with_dropout(monkeypatch)
    monkeypatch.setattr(training_step, "step_seed", lambda *_: torch.randint(1 << 30, ()).item())
    config = make_config()
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=4)
    assert "metrics" in differences(trainer("parts", config, resume=True), whole)


def test_what_is_random_differs_from_step_to_step_between_processes_and_with_the_seed():
    seeds = {training_step.step_seed(*numbers) for numbers in itertools.product(range(3), repeat=3)}
    assert len(seeds) == 27


def test_processes_drop_other_parts_of_the_network_in_one_step(make_config, monkeypatch):
    with_dropout(monkeypatch)
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, 3, 16, 16), np.uint8))
    batch = Sample(pixels, torch.zeros(3, 16, 16, dtype=torch.uint8), torch.arange(3))

    def loss(rank: int) -> float:
        _, training = built(make_config())
        training.world = World(rank, size=2)
        return training_step.compute_gradients(training, batch, 0, 8).item()

    assert loss(0) == loss(0) != loss(1)


def without(file: str, key: str) -> Callable[[Any], Any]:
    """Returns what puts the tensors of a file whose names end in `key` back to where a training begins."""

    def change(found: Any) -> Any:
        first = checkpoint.load(found.path.with_name("step-00000000"))
        fresh = {
            name: first.tensors[file].get(name, torch.zeros_like(value)) if name.endswith(key) else value
            for name, value in found.tensors[file].items()
        }
        return replace(found, tensors={**found.tensors, file: fresh})

    return change


MISSING = {
    "weights": without("model", "weight"),
    "biases": without("model", "bias"),
    "means": without("model", "running_mean"),
    "variances": without("model", "running_var"),
    "batches": without("model", "num_batches_tracked"),
    "averages": without("ema", "weight"),
    "averages of biases": without("ema", "bias"),
    "first moments": without("optimizer", "exp_avg"),
    "second moments": without("optimizer", "exp_avg_sq"),
    "optimizer steps": without("optimizer", "step"),
    "optimizer": lambda found: replace(found, tensors={**found.tensors, "optimizer": {}}),
    "step": lambda found: replace(found, progress=replace(found.progress, step=found.progress.step - 1)),
    "best": lambda found: replace(found, progress=replace(found.progress, best=None)),
    "stale": lambda found: replace(found, progress=replace(found.progress, stale=found.progress.stale + 1)),
}


@pytest.fixture(scope="module")
def begun(tiny_ds, tmp_path_factory) -> tuple[Path, Trained]:
    """A directory with the run `parts`, stopped after step 4 of 7, and the whole run. The network has dropout.

    Learning nothing, so that no later validation is better than the first: `best` and `stale` carry over.
    """
    directory = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        with_dropout(patch)
        trainer = Trainer(directory, patch)
        whole = trainer("whole", begun_config(tiny_ds))
        trainer("parts", begun_config(tiny_ds), stop_after=4)
    return directory, whole


def begun_config(root: Path) -> Config:
    return config_of(root, optim={"lr": 1e-5}, train={"eval_every": 0.25, "keep": 9})


def resumed_copy(
    begun: tuple[Path, Trained], trainer: Trainer, config: Config, change: Callable[[Any], Any]
) -> Trained:
    shutil.copytree(begun[0] / "parts", trainer.directory / "parts")
    with_dropout(trainer.monkeypatch)
    return trainer("parts", config, resume=True, change=change)


def test_the_run_that_the_mutations_start_from_resumes_exactly(begun, trainer, tiny_ds):
    config = begun_config(tiny_ds)
    assert begun[1].final.progress.stale > 0
    assert_same(resumed_copy(begun, trainer, config, lambda found: found), begun[1])


@pytest.mark.parametrize("item", MISSING)
def test_leaving_out_any_saved_item_breaks_the_equality(begun, trainer, tiny_ds, item):
    config = begun_config(tiny_ds)
    assert differences(resumed_copy(begun, trainer, config, MISSING[item]), begun[1])


def test_every_kind_of_tensor_that_is_saved_is_among_those_left_out(begun):
    """But for the averages' buffers, which each step copies from the network: a prediction needs them, no resume."""
    saved = {(file, name.rpartition(".")[2]) for file, tensors in begun[1].final.tensors.items() for name in tensors}
    buffers = {"running_mean", "running_var", "num_batches_tracked"}
    left_out = {("model", kind) for kind in (*buffers, "weight", "bias")} | {
        ("ema", kind) for kind in ("weight", "bias")
    }
    left_out |= {("optimizer", kind) for kind in ("exp_avg", "exp_avg_sq", "step")}
    assert saved == left_out | {("ema", kind) for kind in buffers}


def test_sgd_without_its_momentum_breaks_the_equality(trainer, make_config):
    config = make_config(optim={"name": "sgd"})
    whole = trainer("whole", config)
    stopped = trainer("parts", config, stop_after=4)
    assert any(name.endswith("momentum_buffer") for name in stopped.final.tensors["optimizer"])
    drop = MISSING["optimizer"]
    assert differences(trainer("parts", config, resume=True, change=drop), whole)


def test_another_seed_gives_another_run_and_the_same_seed_the_same(trainer, make_config):
    config = make_config(train={"steps": 3})
    first = trainer("first", config)
    assert_same(trainer("second", config), first)
    assert differences(trainer("third", make_config(train={"steps": 3, "seed": 1})), first)


def test_the_number_of_workers_changes_nothing(trainer, make_config):
    runs = [trainer(f"run{n}", make_config(train={"steps": 3, "workers": n})) for n in (0, 1, 2)]
    assert_same(runs[0], runs[1])
    assert_same(runs[0], runs[2])


def test_the_learning_rate_goes_on_where_it_was(trainer, make_config):
    config = make_config(optim={"warmup": 0, "schedule": "cosine"})
    trainer("run", config, stop_after=4)
    rows = trainer("run", config, resume=True).metrics
    rates = [row["lr"] for row in rows if "lr" in row]
    assert rates == [0.01 * (1 + math.cos(math.pi * step / 7)) / 2 for step in range(7)]
    assert rates == [learning_rate(config.optim, step, 7) for step in range(7)]


# --- pretrained weights


@pytest.fixture
def pretrained_conv(monkeypatch) -> list[Path]:
    """Gives the conv encoder pretrained weights, all 0.125, and returns the bases that they were asked for with."""
    bases: list[Path] = []

    def pretrained(self: ConvEncoder, base: Path) -> Pretrained:
        bases.append(base)
        weights = {name: torch.full_like(value, 0.125) for name, value in self.state_dict().items()}
        return Pretrained("weights of the test", lambda: weights, (0.5,) * 3, (0.25,) * 3)

    def load(self: ConvEncoder, pretrained: Pretrained) -> str:
        self.load_state_dict(dict(pretrained.read()))
        return "nothing is left over"

    monkeypatch.setattr(ConvEncoder, "pretrained", pretrained)
    monkeypatch.setattr(ConvEncoder, "load", load)
    return bases


def test_a_training_begins_with_pretrained_weights_in_its_averages_too_and_says_so(
    trainer, make_config, pretrained_conv
):
    run = trainer("run", make_config(train={"steps": 1}))
    first = checkpoint.load(run.directory / "checkpoints" / "step-00000000")
    for file in ("model", "ema"):
        mine = {key: value for key, value in first.tensors[file].items() if key.startswith("encoder.")}
        assert mine
        assert all(bool((value == 0.125).all()) for key, value in mine.items() if value.is_floating_point()), file
    assert pretrained_conv == [run.directory]
    assert "encoder: starts from weights of the test; nothing is left over" in run.said


def test_pretrained_weights_leave_the_rest_of_the_network_as_the_seed_made_it(trainer, make_config, pretrained_conv):
    run = trainer("run", make_config(train={"steps": 1}))
    first = checkpoint.load(run.directory / "checkpoints" / "step-00000000").tensors["model"]
    plain = built(make_config())[1].model.state_dict()
    rest = [key for key in plain if not key.startswith("encoder.")]
    assert rest
    assert all(torch.equal(first[key], plain[key]) for key in rest)


def test_a_resumed_training_asks_for_no_pretrained_weights(trainer, make_config, pretrained_conv):
    config = make_config()
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=4)
    pretrained_conv.clear()
    assert_same(trainer("parts", config, resume=True), whole)
    assert pretrained_conv == []


# --- parts of a batch


def one_step(config: Config, **attributes: Any) -> tuple[tuple[float, float], Training]:
    """Returns the loss and the norm of the gradient of a first step on a fixed batch, and the training after it.

    Args:
        config: Of the training.
        attributes: Set on the encoder before the step, such as `freeze`; 8 images are an epoch.
    """
    _, training = built(config)
    for name, setting in attributes.items():
        setattr(training.model.encoder, name, setting)
    training.optimizer = build_optimizer(training.model, config.optim)
    rng = np.random.default_rng(0)
    size = config.train.batch_size
    target = torch.from_numpy(rng.integers(0, 3, (size, 16, 16), np.uint8))
    target[0, :12] = 255  # so that the parts do not count the same
    batch = Sample(torch.from_numpy(rng.integers(0, 256, (size, 3, 16, 16), np.uint8)), target, torch.arange(size))
    records = [Record(Path(f"{n}.png"), None, f"{n}") for n in range(8)]
    return training_step.train_step(training, batch, 0, 0.1, records).read(), training


SGD = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
BOTH = [{"name": "cross_entropy"}, {"name": "dice"}]


def normed_by(norm: str) -> dict[str, Any]:
    return {"encoder": {"name": "conv", "channels": [8, 16], "norm": norm}, "decoder": {"name": "unet", "norm": norm}}


@pytest.mark.parametrize("accumulate", [2, 3, 5])
def test_a_batch_in_parts_makes_the_step_of_the_whole_batch(make_config, accumulate):
    def step(parts: int) -> tuple[tuple[float, float], dict[str, torch.Tensor]]:
        sizes = {"batch_size": 5, "accumulate": parts}
        values, training = one_step(make_config(model=normed_by("group"), optim=SGD, loss=BOTH, train=sizes))
        return values, training.model.state_dict()

    (whole, wanted), (parts, found) = step(1), step(accumulate)
    assert parts == pytest.approx(whole, rel=1e-5)
    for name, value in wanted.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-6)


def test_batch_norm_sees_the_parts(make_config):
    """Also the negative control of the test above: the equality can fail."""
    values = [
        one_step(make_config(model=normed_by("batch"), train={"batch_size": 5, "accumulate": n}))[0] for n in (1, 2)
    ]
    assert values[0] != pytest.approx(values[1], rel=1e-4)


def test_the_parts_of_a_batch_differ_by_at_most_one_image(make_config, monkeypatch):
    sizes: list[int] = []
    add = training_step.add_gradients

    def spy(training: Training, images: torch.Tensor, *rest: Any) -> torch.Tensor:
        sizes.append(len(images))
        return add(training, images, *rest)

    monkeypatch.setattr(training_step, "add_gradients", spy)
    one_step(make_config(train={"batch_size": 7, "accumulate": 3}))
    assert sizes == [3, 2, 2]


def test_the_smallest_part_must_suit_batch_norm(make_config):
    config = make_config(augment={"crop": [2, 2]}, train={"batch_size": 3, "accumulate": 2})
    with pytest.raises(ConfigError, match="BatchNorm needs two"):
        plan.make_plan(config, images=8, first_size=(32, 32), device=CPU)
    with pytest.raises(ConfigError, match="BatchNorm needs two"):
        verify_components(config, CPU, 1)
    plan.make_plan(
        make_config(augment={"crop": [2, 2]}, train={"batch_size": 4, "accumulate": 2}),
        images=8,
        first_size=(32, 32),
        device=CPU,
    )


# --- deep supervision


def test_the_losses_of_coarser_levels_count_half_of_the_one_before(make_config, monkeypatch):
    _, training = built(make_config(loss=BOTH))
    target = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (2, 16, 16)))
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    finest = training.model(images).detach().requires_grad_()
    denominators = training.criterion.denominators(target)
    first, second = (training.criterion(logits, target, denominators) for logits in (finest, 3 * finest))
    wanted = (2 * first + second) / 3
    (gradient,) = torch.autograd.grad(wanted, finest)
    monkeypatch.setattr(training.model, "forward", lambda _: [finest, 3 * finest])
    found = training_step.add_gradients(training, images, target, denominators)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)
    torch.testing.assert_close(finest.grad, gradient)


# --- learning rates of the encoder, and its freeze


def test_the_rate_of_each_level_of_the_encoder_is_multiplied_by_its_factor(make_config):
    before = built(make_config())[1].model.state_dict()

    def changes(layer_decay: float, lr_factor: float) -> dict[str, torch.Tensor]:
        config = make_config(optim={**SGD, "layer_decay": layer_decay})
        after = one_step(config, lr_factor=lr_factor)[1].model.state_dict()
        return {name: after[name] - before[name] for name in before if name.endswith(("weight", "bias"))}

    slowed = changes(0.5, 0.25)
    for name, change in changes(1.0, 1.0).items():
        levels = {"encoder.levels.0": 0.125, "encoder.levels.1": 0.25}  # the deeper of the two is at the full factor
        torch.testing.assert_close(slowed[name], change * levels.get(name[:16], 1.0), rtol=1e-3, atol=1e-7)


def test_a_run_with_factors_continues_as_if_there_had_been_no_stop(trainer, make_config):
    config = make_config(optim={"layer_decay": 0.5}, train={"steps": 4})
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=2)
    assert_same(trainer("parts", config, resume=True), whole)
    assert differences(trainer("plain", make_config(train={"steps": 4})), whole)


@pytest.fixture
def frozen_for_two_steps(monkeypatch) -> None:
    """Freezes the encoder as those with pretrained weights are."""
    monkeypatch.setattr(ConvEncoder, "freeze", 0.75)  # 6 of 8 images, 3 at a time


def test_a_frozen_encoder_stays_as_it_is_then_follows_the_training(trainer, make_config, frozen_for_two_steps):
    run = trainer("run", make_config(train={"steps": 3, "eval_every": 0.375, "keep": 9}))
    states = [checkpoint.load(path).tensors for path in checkpoint.committed(run.directory / "checkpoints")]
    assert len(states) == 4
    for file in ("model", "ema"):
        for name, value in states[0][file].items():
            same = [torch.equal(state[file][name], value) for state in states[1:]]
            encoder = name.startswith("encoder.")
            assert same == [encoder, encoder, False], f"{file}: {name}"
    assert not any(name.startswith("encoder.") for name in states[2]["optimizer"])
    assert any(name.startswith("encoder.") for name in states[3]["optimizer"])


@pytest.mark.parametrize(("step", "optimizer"), [(1, "adamw"), (2, "adamw"), (2, "sgd"), (3, "sgd")])
def test_a_run_may_be_stopped_before_at_and_after_the_thaw(trainer, make_config, frozen_for_two_steps, step, optimizer):
    config = make_config(optim={"name": optimizer}, train={"steps": 4})
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=step)
    assert_same(trainer("parts", config, resume=True), whole)


def test_a_freeze_that_a_resume_forgets_breaks_the_equality(trainer, make_config, frozen_for_two_steps, monkeypatch):
    """Negative control."""
    config = make_config(train={"steps": 4})
    whole = trainer("whole", config)
    trainer("parts", config, stop_after=1)
    monkeypatch.setattr(ConvEncoder, "freeze", 0.0)
    assert differences(trainer("parts", config, resume=True), whole)


def test_a_frozen_encoder_drops_nothing_and_needs_no_gradient(make_config):
    _, training = one_step(make_config(), freeze=1.0)
    assert not training.model.encoder.training
    assert training.model.decoder.training
    assert not any(p.requires_grad or p.grad is not None for p in training.model.encoder.parameters())
    assert all(p.requires_grad for p in training.model.decoder.parameters())
    held = {id(p) for group in training.optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in training.model.parameters()}


def test_times_are_measured_with_the_whole_network_in_training(make_config, frozen_for_two_steps, monkeypatch):
    numbers: list[int] = []
    monkeypatch.setattr(training_step, "train_step", lambda _training, _batch, number, *_: numbers.append(number))
    forecast.measure(prepared(make_config()), Reporter(quiet=True))
    assert numbers == list(range(2, 2 + forecast.WARM_UP + forecast.MOST_STEPS))


# --- signals


def test_a_signal_finishes_its_step_saves_it_and_tells_how_to_go_on(tmp_path, make_config, monkeypatch):
    SilentOs.written.clear()
    stopped = []
    run_step = training_step.train_step

    def step(training: Any, batch: Any, number: int, *rest: Any) -> Any:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
            stopped.append(number)
        return run_step(training, batch, number, *rest)

    monkeypatch.setattr(training_step, "train_step", step)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"step 2 is saved.*segtool train .*run --resume") as error:
        Trainer(tmp_path, monkeypatch)("run", make_config())
    assert error.value.exit_code == 130
    assert stopped == [1]
    assert b"finishing this step" in SilentOs.written[0]
    assert history.last(tmp_path / "run" / "checkpoints").progress.step == 2  # type: ignore[union-attr]
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_between_the_save_and_the_end_of_a_step_does_not_claim_that_the_step_was_saved(
    tmp_path, make_config, monkeypatch
):
    """It comes after the look at the signals: the next step is then finished and saved."""
    real, asked = train.time.monotonic, []

    def monotonic() -> float:
        caller = sys._getframe(1)
        if caller.f_code.co_name == "train" and caller.f_locals.get("progress") == Progress(step=1, steps=7):
            asked.append(caller.f_lineno)
            if len(asked) == 1:
                signal.raise_signal(signal.SIGTERM)
        return real()

    monkeypatch.setattr(train.time, "monotonic", monotonic)
    with pytest.raises(Interrupted) as error:
        Trainer(tmp_path, monkeypatch)("run", make_config())
    assert asked
    saved = history.last(tmp_path / "run" / "checkpoints").progress.step  # type: ignore[union-attr]
    assert f"step {saved} is saved" in str(error.value)
    assert saved == 2


# --- what may go wrong


def test_masks_that_are_ignored_throughout_train_with_a_finite_loss_and_no_gradient(trainer, tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1), ("test", 1)):
        for number in range(count):
            write_pair(tmp_path / "data", split, f"{number}", draw_pair(rng)[0], np.full((32, 32), 255, np.uint8))
    loss = [{"name": "cross_entropy"}, {"name": "dice"}]
    run = trainer("run", config_of(tmp_path / "data", loss=loss, train={"steps": 2, "batch_size": 1}))
    steps = [row for row in run.metrics if "loss" in row]
    assert [(row["loss"], row["grad_norm"]) for row in steps] == [(0.0, 0.0)] * 2
    assert run.progress.step == 2
    assert run.progress.best is run.progress.score is None
    assert run.final.progress.finished


def test_one_ignored_image_in_a_batch_leaves_the_loss_that_of_the_others(tiny_ds, make_config):
    _, training = built(make_config())
    target = torch.full((2, 16, 16), 255)
    target[0] = torch.from_numpy(np.random.default_rng(0).integers(0, 3, (16, 16)))
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    both = training.criterion(logits, target, training.criterion.denominators(target))
    alone = training.criterion(logits[:1], target[:1], training.criterion.denominators(target[:1]))
    torch.testing.assert_close(both, alone)


def built(config: Config) -> tuple[Config, Training]:
    data = replace(config.data, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    config = replace(config, data=data)
    return config, training_step.build_training(config, None, CPU, World())


def nan_loss(loss: torch.Tensor) -> torch.Tensor:
    return loss * float("nan")


def test_a_step_with_a_gradient_that_is_not_finite_would_have_spoiled_the_weights(make_config):
    """Negative control: without the check before it, the optimizer carries the NaN into every weight."""
    _, training = built(make_config())
    for parameter in training.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    training.optimizer.step()
    assert not any(value.isfinite().all() for value in training.model.parameters())


def test_the_gradient_is_clipped_to_the_norm_that_the_config_gives(trainer, make_config):
    """With SGD and no momentum a step is rate times gradient, so its length is at most rate times clip."""
    optim = {
        "name": "sgd",
        "momentum": 0.0,
        "weight_decay": 0.0,
        "warmup": 0,
        "schedule": "constant",
        "clip": 1e-3,
        "lr": 10,
    }
    run = trainer("run", make_config(optim=optim, train={"steps": 1}))
    assert run.metrics[0]["grad_norm"] > 1e-3
    first = checkpoint.load(run.directory / "checkpoints" / "step-00000000").tensors["model"]
    last = run.final.tensors["model"]
    names = [name for name in first if name.endswith(("weight", "bias"))]
    length = math.sqrt(sum((last[name] - first[name]).square().sum().item() for name in names))
    assert length == pytest.approx(10 * 1e-3, rel=1e-3)


# --- steps that are read late, and scaled losses: what a GPU does, on a CPU


@pytest.fixture
def run_ahead(monkeypatch) -> None:
    """Makes the CPU do as a GPU does: the step is left out on the device, and read one step later."""
    monkeypatch.setattr(Training, "runs_ahead", True)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_run_that_is_read_late_is_the_run_that_is_not(trainer, make_config, monkeypatch, name):
    config = make_config(optim={"name": name, "clip": 1.0})
    plain = trainer("plain", config)
    monkeypatch.setattr(Training, "runs_ahead", True)
    assert_same(trainer("late", config), plain)
    trainer("parts", config, stop_after=4)
    assert_same(trainer("parts", config, resume=True), plain)


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_divergence_that_is_read_late_names_its_own_batch_and_nothing_of_it_is_saved(
    trainer, make_config, monkeypatch, run_ahead, name
):
    config = make_config(optim={"name": name}, train={"steps": 7, "eval_every": 100})
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}
    numbers: list[int] = []
    step = training_step.train_step

    def spoiled(training: Training, batch: Any, number: int, *rest: Any) -> Any:
        numbers.append(number)
        kept = everything(training)
        if number == 4:
            before.update(kept)
            forward = training.criterion.forward
            monkeypatch.setattr(training.criterion, "forward", lambda *args: nan_loss(forward(*args)))
        if number == 5:
            after.update(kept)
        return step(training, batch, number, *rest)

    monkeypatch.setattr(training_step, "train_step", spoiled)
    with pytest.raises(DivergedError, match="step 5: loss nan") as error:
        trainer("run", config)
    order = [int(i) for epoch in (0, 1) for i in np.random.default_rng([0, epoch]).permutation(8)]
    assert {index for index in range(8) if f"train{index}.png" in str(error.value)} == set(order[12:15])
    assert numbers == [0, 1, 2, 3, 4, 5]  # the one after it was queued already
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    rows = metrics_of(trainer.directory / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert history.last(trainer.directory / "run" / "checkpoints").progress.step == 0  # type: ignore[union-attr]


def test_a_divergence_is_read_before_what_it_came_to_is_validated_or_saved(
    trainer, make_config, monkeypatch, run_ahead
):
    config = make_config(train={"steps": 1})
    monkeypatch.setattr(training_step.Criterion, "forward", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    monkeypatch.setattr(training_step, "add_gradients", spoiled_gradients)
    with pytest.raises(DivergedError):
        trainer("run", config)
    assert history.last(trainer.directory / "run" / "checkpoints").progress.step == 0  # type: ignore[union-attr]


def spoiled_gradients(training: Training, *_: Any) -> torch.Tensor:
    for parameter in training.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    return torch.tensor(float("nan"))


def test_an_outcome_waits_for_the_device(make_config):
    waited: list[bool] = []

    class Event:
        def synchronize(self) -> None:
            waited.append(True)

    values = torch.tensor([0.5, 2.0, 1.0])
    assert Outcome(0, 0.1, values, Event(), (), str).read() == (0.5, 2.0)  # type: ignore[arg-type]
    assert waited == [True]


@pytest.mark.parametrize(
    ("loss", "norm", "scale", "diverged"),
    [
        (1.0, math.inf, 65536.0, False),  # too large a scale: the scaler halves it
        (math.nan, math.nan, 2.0, False),
        (1.0, math.inf, 1.0, True),  # nothing left to halve
        (1.0, math.nan, 0.5, True),
        (math.inf, 1.0, 65536.0, True),  # not of the gradient, so not of the scale
    ],
)
def test_a_scaled_gradient_that_overflows_is_a_divergence_only_where_the_scale_is_down_to_1(
    loss, norm, scale, diverged
):
    outcome = Outcome(2, 0.1, torch.tensor([loss, norm, scale]), None, lambda: [Path("a.png")], str)
    if diverged:
        with pytest.raises(DivergedError, match=r"step 3: [\s\S]*a\.png"):
            outcome.read()
    else:
        assert outcome.read() == pytest.approx((loss, norm), nan_ok=True)


def test_a_step_waits_for_nothing_that_a_gpu_computes(make_config, monkeypatch):
    """`.item()`, `if tensor` and indexing by a mask ask the device for a number; a queued step must not."""
    monkeypatch.setattr(Training, "runs_ahead", True)
    with Asked() as asked:
        one_step_without_reading(make_config(loss=BOTH, optim={"clip": 1.0}))
    assert asked.names == []
    with Asked() as asked:  # negative control
        torch.ones(3).sum().item()
    assert asked.names == ["aten._local_scalar_dense.default"]


class Asked(TorchDispatchMode):
    """Notes the operations that a GPU would have to be waited for."""

    WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "equal.")

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(name in str(func) for name in self.WAITING):
            self.names.append(str(func))
        return func(*args, **(kwargs or {}))


def one_step_without_reading(config: Config) -> None:
    _, training = built(config)
    size = config.train.batch_size
    batch = Sample(
        torch.zeros(size, 3, 16, 16, dtype=torch.uint8),
        torch.zeros(size, 16, 16, dtype=torch.uint8),
        torch.arange(size),
    )
    training_step.train_step(training, batch, 0, 0.1, [Record(Path(f"{n}.png"), None, f"{n}") for n in range(size)])


@pytest.fixture
def fp16_on_cpu(monkeypatch) -> None:
    """Lets a CPU do what a plan leaves to CUDA."""
    monkeypatch.setattr(plan, "check_machine", lambda *_: None)


def test_a_scaled_run_learns_as_the_plain_one_does_and_leaves_out_what_overflows(
    trainer, make_config, monkeypatch, fp16_on_cpu
):
    monkeypatch.setattr(torch.amp, "GradScaler", starting_at(2.0**40))
    run = trainer("run", make_config(train={"precision": "fp16", "steps": 50}, optim={"lr": 0.003}))
    rows = [row for row in run.metrics if "loss" in row]
    left_out = [row["step"] for row in rows if row["grad_norm"] is None]
    assert left_out[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 9]  # 2^40 is halved until it is small enough
    assert len(left_out) < 30
    plain = trainer("plain", make_config(train={"steps": 50}, optim={"lr": 0.003}))
    losses = [np.mean([row["loss"] for row in some.metrics if "loss" in row][-8:]) for some in (run, plain)]
    assert losses[0] < 0.9 * rows[0]["loss"]
    assert losses[0] == pytest.approx(losses[1], rel=0.5)  # of fewer steps


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_a_scaled_run_continues_as_if_there_had_been_no_stop(trainer, make_config, monkeypatch, fp16_on_cpu, name):
    """With a scale that grows every second step, and is halved where that was too much."""
    monkeypatch.setattr(torch.amp, "GradScaler", starting_at(2.0**22, growth_interval=2))
    config = make_config(train={"precision": "fp16"}, optim={"name": name})
    whole = trainer("whole", config)
    assert whole.final.scaler is not None
    for step in (1, 4):
        trainer(f"parts{step}", config, stop_after=step)
        again = trainer(f"parts{step}", config, resume=True)
        assert_same(again, whole)
        assert again.final.scaler == whole.final.scaler
    trainer("forgotten", config, stop_after=4)
    forgotten = trainer("forgotten", config, resume=True, change=lambda found: replace(found, scaler=None))
    assert forgotten.final.scaler != whole.final.scaler  # negative control


def starting_at(scale: float, **options: Any) -> Callable[[str], Any]:
    scaler = torch.amp.GradScaler
    return lambda device: scaler(device, init_scale=scale, **options)


# --- compilation


class BrokenCompiler:
    """A backend of torch.compile that fails, at once or in the backward pass."""

    def __init__(self, *, backward: bool) -> None:
        self.backward = backward

    def __call__(self, graph: Any, inputs: Any) -> Any:
        if not self.backward:
            raise RuntimeError("the compiler is broken\nand says more")
        return aot_autograd(fw_compiler=lambda graph, _: graph, bw_compiler=self.broken)(graph, inputs)

    def broken(self, graph: Any, inputs: Any) -> Any:
        raise RuntimeError("the compiler is broken\nand says more")


@pytest.mark.parametrize("backward", [False, True])
def test_a_compiler_that_fails_is_warned_of_and_the_run_is_that_without_it(trainer, make_config, monkeypatch, backward):
    plain = trainer("plain", make_config(train={"steps": 3}))
    compile_with = nn.Module.compile
    backend = BrokenCompiler(backward=backward)
    monkeypatch.setattr(training_step.Segmenter, "compile", lambda self: compile_with(self, backend=backend))
    run = trainer("run", make_config(train={"steps": 3, "compile": True}))
    (warning,) = [line for line in run.said if line.startswith("warning")]
    assert "compilation failed" in warning
    assert "the compiler is broken" in warning
    assert_same(run, plain)


def failing(graph: Any, inputs: Any) -> Any:
    """A backend whose compiler gets the signal too, as g++ does at Ctrl-C."""
    signal.raise_signal(signal.SIGINT)
    raise RuntimeError("g++ was interrupted")


def carrying_on(graph: Any, inputs: Any) -> Any:
    """A backend that takes what a signal raises for a feature that the processor lacks."""
    with contextlib.suppress(BaseException):
        signal.raise_signal(signal.SIGINT)
    return graph


@pytest.mark.parametrize("backend", [failing, carrying_on])
def test_a_signal_while_the_network_is_compiled_ends_the_run_and_no_step_is_saved_that_might_be_another(
    tmp_path, make_config, monkeypatch, backend
):
    compile_with = nn.Module.compile
    monkeypatch.setattr(training_step.Segmenter, "compile", lambda self: compile_with(self, backend=backend))
    monkeypatch.setattr("training._Reporter.warn", lambda *_: pytest.fail("it is no failure of the compiler"))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match=r"step 0 is saved.*--resume") as caught:
        Trainer(tmp_path, monkeypatch)("run", make_config(train={"steps": 3, "compile": True}))
    assert caught.value.exit_code == 130
    assert history.last(tmp_path / "run" / "checkpoints").progress.step == 0  # type: ignore[union-attr]
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_a_signal_after_the_step_that_compiles_finishes_its_own_step_and_saves_it(trainer, make_config, monkeypatch):
    monkeypatch.setattr(training_step.Segmenter, "compile", lambda _: None)
    assert trainer("run", make_config(train={"compile": True}), stop_after=3).final.progress.step == 3


def test_of_several_processes_that_a_signal_stops_the_main_one_tells_how_to_go_on(tmp_path):
    run = RunDirectory(tmp_path, processes=2)
    told = train.stopped_at(run, World(rank=0, size=2), 7, signal.SIGTERM)
    assert str(told) == f"interrupted; step 7 is saved. Continue with: segtool train {tmp_path} --resume --gpus 2"
    assert isinstance(told, Interrupted)
    silent = train.stopped_at(run, World(rank=1, size=2), 7, signal.SIGTERM)
    assert isinstance(silent, SystemExit)
    assert silent.code == told.exit_code == 143


def test_an_error_of_the_step_itself_is_not_taken_for_one_of_the_compiler(trainer, make_config, monkeypatch):
    def broken(*_: Any) -> None:
        raise ZeroDivisionError("of the step")

    monkeypatch.setattr(training_step.Segmenter, "compile", lambda _: None)
    monkeypatch.setattr(training_step, "add_gradients", broken)
    with pytest.raises(ZeroDivisionError, match="of the step"):
        trainer("run", make_config(train={"compile": True}))


# --- validation


def test_the_best_checkpoint_scored_again_gives_the_number_that_was_recorded(trainer, make_config):
    config = make_config(train={"steps": 30, "eval_every": 1.5, "ema": 0.9}, optim={"lr": 0.02})
    run = trainer("run", config)
    found = history.best(run.directory / "checkpoints")
    assert found is not None
    records = split_records(found.config, found.path)
    dataset = EvaluationSet(records["val"], Reader.of(found.config))
    scores = evaluate(build_predictor(found, CPU), dataset, World(), workers=0, reporter=Quiet())  # type: ignore[arg-type]
    assert scores.miou == found.progress.score == run.progress.best
    assert scores.ignored == 3 * (32 + 31)  # the rims of the masks
    rows = [row for row in run.metrics if row.get("split") == "val"]
    assert max(row["miou"] for row in rows) == scores.miou
    row = next(row for row in rows if row["step"] == found.progress.step)
    assert {key: row[key] for key in scores.summary} == scores.summary
    scored = {row["step"]: row["miou"] for row in rows}
    saved = [checkpoint.load(path).progress for path in checkpoint.committed(run.directory / "checkpoints")]
    assert [progress.score for progress in saved] == [scored.get(progress.step) for progress in saved]


class Quiet:
    def track(self, items: Any, **_: Any) -> Any:
        return iter(items)


@pytest.fixture
def fake_scores(monkeypatch) -> Callable[[list[float | None]], None]:
    """Makes the validations give these mean IoUs, one after the other."""

    def install(values: list[float | None]) -> None:
        left = iter(values)

        def fake(*_: Any, **__: Any) -> Scores:
            value = next(left)
            confusion = np.zeros((3, 3), np.int64)
            if value is not None:  # one class, right in `value` of its 1000 pixels, whose other pixels go nowhere else
                right = round(value * 1000)
                confusion[0] = right, 1000 - right, 0
                confusion[1, 1] = 0
            return _Fixed(("ground", "block", "ring"), confusion, 0, fixed=value)

        monkeypatch.setattr(train, "evaluate", fake)

    return install


class _Fixed(Scores):
    def __init__(self, *args: Any, fixed: float | None) -> None:
        super().__init__(*args)
        object.__setattr__(self, "fixed", fixed)

    @property
    def miou(self) -> float | None:
        return self.fixed  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("values", "best", "stale", "best_step"),
    [
        ([0.5, 0.7, 0.8], 0.8, 0, 3),
        ([None, 0.5, 0.4], 0.5, 1, 2),
        ([0.5, None, 0.5], 0.5, 1, 1),
        ([None, None, None], None, 0, 3),
        ([0.0, 0.0, 0.0], 0.0, 2, 1),
    ],
)
def test_best_and_stale_follow_the_scores_and_the_first_of_equals_stays(
    trainer, make_config, fake_scores, values, best, stale, best_step
):
    fake_scores(values)
    run = trainer("run", make_config(train={"steps": 3, "eval_every": 0.375, "keep": 1}))
    assert (run.progress.best, run.progress.stale) == (best, stale)
    assert history.best(run.directory / "checkpoints").progress.step == best_step  # type: ignore[union-attr]
    steps = [path.name for path in checkpoint.committed(run.directory / "checkpoints")]
    assert steps == [f"step-0000000{step}" for step in sorted({best_step, 3})]


def test_the_best_survives_a_resume(trainer, make_config, fake_scores):
    config = make_config(train={"steps": 4, "eval_every": 0.375, "keep": 1})
    fake_scores([0.9, 0.3, 0.4, 0.5])
    trainer("run", config, stop_after=2)
    run = trainer("run", config, resume=True)
    assert run.progress.best == 0.9
    assert run.progress.stale == 3
    assert history.best(run.directory / "checkpoints").progress.step == 1  # type: ignore[union-attr]


def test_patience_ends_a_run_after_so_many_validations_without_a_better_one(trainer, make_config, fake_scores):
    fake_scores([0.5, 0.6, 0.6, 0.59, 0.9])
    run = trainer("run", make_config(train={"steps": 7, "eval_every": 0.375, "patience": 2}))
    assert run.progress.step == 4
    assert run.final.progress.finished
    assert any("no better mean IoU in 2 validations" in line for line in run.said)


def test_a_validation_without_a_score_takes_nobodys_patience(trainer, make_config, fake_scores):
    fake_scores([0.5, None, 0.4, None, None, 0.4, 0.9])
    run = trainer("run", make_config(train={"steps": 7, "eval_every": 0.375, "patience": 2}))
    assert run.progress.step == 6


def test_patience_counts_over_a_resume(trainer, make_config, fake_scores):
    config = make_config(train={"steps": 7, "eval_every": 0.375, "patience": 3})
    fake_scores([0.5, 0.4, 0.4, 0.4, 0.9])
    trainer("run", config, stop_after=3)
    assert trainer("run", config, resume=True).progress.step == 4


def test_validation_does_not_touch_the_training(trainer, make_config):
    often = trainer("often", make_config(train={"eval_every": 0.375, "ema": None}))
    once = trainer("once", make_config(train={"eval_every": 100, "ema": None}))
    for file in ("model", "optimizer"):
        for name, value in once.final.tensors[file].items():
            assert torch.equal(value, often.final.tensors[file][name]), name


def test_the_averages_after_a_step_are_those_of_its_number_and_of_the_weights_that_it_made(trainer, make_config):
    run = trainer("run", make_config(train={"steps": 2, "eval_every": 0.375, "ema": 0.99, "keep": 9}))
    states = [checkpoint.load(path).tensors for path in checkpoint.committed(run.directory / "checkpoints")]
    for step, (before, after) in enumerate(itertools.pairwise(states)):
        decay = (1 + step) / (10 + step)
        for name in (name for name in after["ema"] if name.endswith(("weight", "bias"))):
            expected = decay * before["ema"][name] + (1 - decay) * after["model"][name]
            assert torch.allclose(after["ema"][name], expected, atol=1e-6), (step, name)


def test_the_averaged_weights_are_the_ones_validated(trainer, make_config, monkeypatch):
    scored: list[dict[str, torch.Tensor]] = []
    real = train.Predictor

    def spy(model: nn.Module, *args: Any, **options: Any) -> Any:
        scored.append({name: value.clone() for name, value in model.state_dict().items()})
        return real(model, *args, **options)

    monkeypatch.setattr(train, "Predictor", spy)
    run = trainer("run", make_config(train={"ema": 0.9}))
    for name, value in run.final.tensors["ema"].items():
        assert torch.equal(value, scored[-1][name])
    assert any(not torch.equal(value, scored[-1][name]) for name, value in run.final.tensors["model"].items())


def test_samples_show_image_truth_and_prediction_of_evenly_spaced_validation_images(trainer, make_config):
    run = trainer("run", make_config(train={"steps": 3, "samples": 2}))
    names = sorted(path.name for path in (run.directory / "samples").iterdir())
    assert names == ["val0.png", "val2.png"]
    with Image.open(run.directory / "samples" / "val0.png") as picture:
        assert picture.height >= 32
        assert picture.width >= 3 * 32


def predicting_blank(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Has networks predict nothing but their first class, and returns a list of the sizes that they are asked for."""
    asked: list[tuple[int, int]] = []

    def classes(_: Predictor, image: torch.Tensor, *_options: Any) -> np.ndarray:
        asked.append((image.shape[1], image.shape[2]))
        return np.zeros(image.shape[1:], np.uint8)

    monkeypatch.setattr(Predictor, "classes", classes)
    return asked


def test_samples_are_drawn_of_what_was_scored(tiny_ds, tmp_path, monkeypatch):
    dataset = EvaluationSet(split_records(config_of(tiny_ds), Path("/"))["val"], Reader.of(config_of(tiny_ds)))
    asked = predicting_blank(monkeypatch)
    samples, bare = Samples(dataset, 2), Samples(dataset, 2)
    truth = {index: dataset.reader.pair(dataset.records[index])[1] for index in range(len(dataset))}
    for index, target in truth.items():
        samples.note(index, 2 - np.minimum(target, 2))
    samples.draw(red(), tmp_path / "noted")
    assert asked == []
    bare.draw(red(), tmp_path / "bare")
    assert asked == [truth[index].shape for index in samples.names]
    assert len(set(samples.names)) == 2
    for name in samples.names.values():
        noted, blank = (np.asarray(Image.open(tmp_path / place / name)) for place in ("noted", "bare"))
        assert noted.shape == blank.shape
        assert (noted != blank).any()


def test_a_training_predicts_each_validation_image_once(trainer, make_config, monkeypatch):
    asked = predicting_blank(monkeypatch)
    trainer("run", make_config(train={"steps": 1, "samples": 3}))
    assert len(asked) == 3


def test_no_more_predictions_are_kept_for_samples_than_memory_is_set_apart_for_them(tiny_ds, monkeypatch):
    dataset = EvaluationSet(split_records(config_of(tiny_ds), Path("/"))["val"], Reader.of(config_of(tiny_ds)))
    drawn = Samples(dataset, 3)
    first, second, third = drawn.names
    monkeypatch.setattr(samples, "KEPT", 250)
    for index, side in ((first, 10), (second, 11), (third, 12), (second, 13), (first, 10), (third, 12)):
        drawn.note(index, np.zeros((side, side), np.uint8))
    assert {index: kept.shape for index, kept in drawn._predictions.items()} == {first: (10, 10), third: (12, 12)}


@pytest.mark.parametrize("function", ["validate", "save"])
def test_a_run_that_is_moved_away_while_it_trains_is_not_begun_anew_where_it_was(
    trainer, make_config, tmp_path, monkeypatch, function
):
    real = getattr(train, function)

    def moved(*arguments: Any) -> Any:
        if (tmp_path / "run" / "checkpoints").exists():
            (tmp_path / "run").rename(tmp_path / "there")
        return real(*arguments)

    monkeypatch.setattr(train, function, moved)
    with pytest.raises(DiskError, match="run: is not there any more; put it back, or continue it where it is now"):
        trainer("run", make_config(train={"samples": 1}))
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_picture_that_could_not_be_written_is_told_before_the_first_step(trainer, make_config, tmp_path):
    (tmp_path / "run" / "samples" / "val2.png").mkdir(parents=True)
    with pytest.raises(DiskError, match=r"samples/val2\.png: is a link, a folder or a device"):
        trainer("run", make_config(train={"samples": 2}))
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_samples_of_deep_folders_have_names_that_can_be_written_and_are_told_apart(tmp_path):
    deep = "/".join(letter * 100 for letter in "abcd")
    wide = "é" * 200  # 400 bytes
    stems = ["plain", "x/y", "a/b", "a_b", deep, f"{deep}e", wide, "d\udcff/b"]
    names = sample_names(stems)
    assert names[:2] == ["plain.png", "x_y.png"]
    assert names[-1] == "d\udcff_b.png"
    assert len(set(names)) == len(names)
    for name in names:
        (tmp_path / name).write_bytes(b"")
    assert [name[:3] for name in names[2:6]] == ["a_b", "a_b", "aaa", "aaa"]
    assert sample_names(["f" * 251]) == ["f" * 251 + ".png"]


def test_samples_of_folders_lie_beside_each_other(trainer, make_config, tiny_ds, tmp_path):
    shutil.copytree(tiny_ds, tmp_path / "set")
    for kind in ("images", "masks"):
        folder = tmp_path / "set/val" / kind
        (folder / "a").mkdir()
        (folder / "val0.png").rename(folder / "a/b.png")
        (folder / "val1.png").rename(folder / "a_b.png")
    run = trainer("run", make_config(root=tmp_path / "set", train={"steps": 1, "samples": 3}))
    names = sorted(path.name for path in (run.directory / "samples").iterdir())
    assert len(names) == 3
    assert names[2] == "val2.png"


@pytest.mark.parametrize("channels", [2, 5])
def test_images_of_any_number_of_channels_are_drawn_at_validations_and_overlaid(
    trainer, make_config, tiny_ds, tmp_path, channels
):
    tifffile = pytest.importorskip("tifffile")
    shutil.copytree(tiny_ds, tmp_path / "set")
    for path in (tmp_path / "set").glob("*/images/*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image)[..., np.arange(channels) % 3]
        tifffile.imwrite(path.with_suffix(".tif"), pixels, photometric="minisblack", planarconfig="contig")
        path.unlink()
    config = make_config(root=tmp_path / "set", data={"channels": channels}, train={"steps": 1, "samples": 1})
    run = trainer("run", config)
    assert (run.directory / "samples" / "val0.png").exists()
    jobs = list_jobs([tmp_path / "set/test/images"], tmp_path / "out", overlays=True, probabilities=False)
    done = list(predict(build_predictor(run.final, CPU), run.final.config, jobs))
    assert [job.mask for job in jobs] == done
    assert all(job.overlay.exists() for job in jobs)


def test_no_samples_are_drawn_where_none_are_asked_for(trainer, make_config):
    assert not (trainer("run", make_config(train={"steps": 1})).directory / "samples").exists()


def test_a_run_without_a_validation_split_trains_and_keeps_its_last_checkpoint(trainer, make_config, monkeypatch):
    monkeypatch.setattr("training.split_records", lambda *args: {"train": split_records(*args)["train"]})
    run = trainer("run", make_config(train={"steps": 4}))
    assert run.progress == Progress(step=4, steps=4, finished=True)
    assert all("split" not in row for row in run.metrics)


# --- logs and files


@pytest.fixture
def there(trainer, monkeypatch) -> list[list[str]]:
    """The checkpoints of `run` that are there when each step begins."""
    there: list[list[str]] = []
    step = training_step.train_step

    def spy(*args: Any) -> Any:
        there.append([path.name for path in checkpoint.committed(trainer.directory / "run" / "checkpoints")])
        return step(*args)

    monkeypatch.setattr(training_step, "train_step", spy)
    return there


def test_a_checkpoint_is_there_before_the_first_step(trainer, make_config, there):
    trainer("run", make_config(train={"steps": 1}))
    assert there == [["step-00000000"]]


def test_a_resume_that_keeps_fewer_checkpoints_removes_the_others_before_its_first_step(
    trainer, make_config, fake_scores, there
):
    """Where the disk was full there is room for the next one then."""
    lengths = {"steps": 4, "eval_every": 0.375}
    fake_scores([0.5, 0.4, 0.3, 0.2])
    trainer("run", make_config(train={**lengths, "keep": 9}), stop_after=3)
    trainer("run", make_config(train={**lengths, "keep": 1}), resume=True)
    assert there[2:] == [["step-00000000", "step-00000001", "step-00000002"], ["step-00000001", "step-00000003"]]


def test_metrics_have_a_row_a_step_and_a_row_a_validation_and_nothing_that_changes_from_run_to_run(
    trainer, make_config
):
    run = trainer("run", make_config())
    steps = [row for row in run.metrics if "split" not in row]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6, 7]
    assert {tuple(row) for row in steps} == {("step", "epoch", "loss", "grad_norm", "lr")}
    assert [row["epoch"] for row in steps] == [round(step * 3 / 8, 4) for step in range(1, 8)]
    scored = [row for row in run.metrics if "split" in row]
    assert [row["step"] for row in scored] == [3, 6, 7]
    assert set(scored[0]) == {
        "step", "split", "miou", "pixel_accuracy", "mean_accuracy", "mean_dice", "fw_iou", "iou"
    }  # fmt: skip
    assert list(scored[0]["iou"]) == ["ground", "block", "ring"]
    timing = [json.loads(line) for line in (run.directory / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == [3, 6, 7]
    assert {tuple(row) for row in timing} == {
        ("step", "seconds", "validation_seconds", "images_per_second", "waiting")
    }  # fmt: skip
    assert all(row["seconds"] > 0 for row in timing)


def test_rows_are_written_every_so_many_steps_and_not_with_checkpoints_alone(trainer, make_config, monkeypatch):
    monkeypatch.setattr(training_log, "FLUSH_STEPS", 2)
    run = trainer("run", make_config(train={"steps": 5, "eval_every": 100}))
    timing = [json.loads(line) for line in (run.directory / "timing.jsonl").read_text().splitlines()]
    assert [row["step"] for row in timing] == [2, 4, 5]


def test_a_checkpoint_is_made_at_the_latest_after_ten_minutes(trainer, make_config, monkeypatch):
    real, offset = train.time.monotonic, [0.0]
    step = training_step.train_step

    def slow(training: Any, batch: Any, number: int, *rest: Any) -> Any:
        offset[0] += 400
        return step(training, batch, number, *rest)

    monkeypatch.setattr(train.time, "monotonic", lambda: real() + offset[0])
    monkeypatch.setattr(training_step, "train_step", slow)
    run = trainer("run", make_config(train={"steps": 5, "eval_every": 100, "keep": 9}))
    steps = [path.name for path in checkpoint.committed(run.directory / "checkpoints")]
    assert steps == [f"step-0000000{step}" for step in (0, 2, 4, 5)]


def test_a_run_ends_with_a_validation_and_a_checkpoint_when_its_time_is_up(tmp_path, make_config, monkeypatch):
    real = train.train

    def late(*args: Any, **options: Any) -> Any:
        return real(*args, **options, budget=Budget(-1.0))

    monkeypatch.setattr(train, "train", late)
    run = Trainer(tmp_path, monkeypatch)("run", make_config())
    assert run.progress.step == 1
    assert run.progress.score is not None
    assert run.final.progress.finished


# --- the plan


@pytest.mark.parametrize(
    ("length", "images", "batch", "steps"),
    [
        ({"epochs": 1}, 8, 3, 3),
        ({"epochs": 3}, 8, 3, 8),
        ({"epochs": 3}, 9, 3, 9),
        ({"epochs": 0.5}, 8, 3, 2),
        ({"epochs": 0.001}, 8, 8, 1),
        ({"epochs": 1.1}, 10, 1, 11),
        ({"epochs": 0.7}, 10, 1, 7),
        ({"epochs": 2}, 3, 8, 1),
        ({"steps": 5}, 8, 3, 5),
    ],
)
def test_epochs_mean_the_images_over_the_batch_rounded_up(make_config, length, images, batch, steps):
    config = make_config(train={"steps": None, "epochs": None, **length, "batch_size": batch})
    _, made = plan.make_plan(config, images=images, first_size=(32, 32), device=CPU)
    assert made.steps == steps
    assert made.epochs == pytest.approx(steps * batch / images)


@pytest.mark.parametrize(
    ("every", "images", "batch", "steps"),
    [(1.0, 8, 3, 3), (1.0, 8, 4, 2), (0.25, 8, 4, 1), (0.01, 8, 4, 1), (2.0, 9, 2, 9), (1.0, 7, 8, 1)],
)
def test_validations_are_so_many_epochs_apart_in_whole_steps(make_config, every, images, batch, steps):
    config = make_config(train={"eval_every": every, "batch_size": batch})
    _, made = plan.make_plan(config, images=images, first_size=(32, 32), device=CPU)
    assert made.eval_steps == steps


def test_the_crop_is_the_first_image_where_the_config_gives_none_and_never_below_the_stride(make_config):
    config = make_config(augment={"crop": None})
    for size, crop in (((31, 20), (31, 20)), ((1, 20), (2, 20))):
        resolved, made = plan.make_plan(config, images=8, first_size=size, device=CPU)
        assert made.crop == resolved.augment.crop == crop
        assert made.choices[0].what == "augment.crop"


def test_a_plan_leaves_nothing_to_decide(make_config):
    config = make_config(train={"precision": "auto", "compile": "auto"})
    resolved, made = plan.make_plan(config, images=8, first_size=(32, 32), device=CPU)
    assert resolved.train.compile is False  # so short a run does not repay it
    assert resolved.train.precision in ("fp32", "bf16")
    assert [choice.what for choice in made.choices] == [
        "train.precision",
        "train.compile",
        "train.workers",
        "train.cache",
    ]


def test_the_cache_that_a_plan_chooses_decodes_each_file_once_and_changes_nothing(trainer, make_config, monkeypatch):
    decoded: list[str] = []
    pair = Reader.pair

    def spy(self: Reader, record: Record) -> Any:
        decoded.append(record.stem)
        return pair(self, record)

    monkeypatch.setattr(Reader, "pair", spy)
    without = trainer("without", make_config(train={"cache": False}))
    often = sum(stem.startswith("train") for stem in decoded)
    decoded.clear()
    assert_same(trainer("with", make_config(train={"cache": True})), without)
    assert sum(stem.startswith("train") for stem in decoded) == 8 < often
