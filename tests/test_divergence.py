"""A loss or gradient that is not finite: the run stops before the step, and says where the number first appears."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from training import Trainer, everything, metrics_of

from segtool.cli import app
from segtool.config import dump_config
from segtool.errors import DivergedError
from segtool.runs import history
from segtool.runs.run_directory import RunDirectory
from segtool.training import divergence, train, training_log, training_step
from segtool.training.optim import learning_rate
from segtool.training.training_step import Outcome, Training

STEP = 4  # counted from 0: nothing is written and nothing validated after it
LONG = {"steps": 7, "eval_every": 100}
LAYERS = {
    "encoder.levels.0.0.conv": "Conv2d",
    "encoder.downs.0": "MaxPool2d",
    "decoder.ups.0.conv": "ConvTranspose2d",
    "decoder.levels.0.1.norm": "BatchNorm2d",
    "head": "Conv2d",
}
FIRST = "encoder.levels.0.0.conv"


def spoil_at(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Training], object]) -> list[Training]:
    """Has `spoil` change the training before step 5 is made, and returns a list that gets the training then."""
    spoiled: list[Training] = []
    step = training_step.train_step

    def spoiled_step(training: Training, batch: Any, number: int, *rest: Any) -> Any:
        if number == STEP and not spoiled:
            spoiled.append(training)
            spoil(training)
        return step(training, batch, number, *rest)

    monkeypatch.setattr(training_step, "train_step", spoiled_step)
    return spoiled


def output_of(name: str) -> Callable[[Training], object]:
    """Makes the output of a layer infinite."""

    def spoil(training: Training) -> None:
        training.model.get_submodule(name).register_forward_hook(lambda _layer, _inputs, output: output + math.inf)

    return spoil


def huge_weights(name: str) -> Callable[[Training], object]:
    """Makes the weights of a layer so large that its output is infinite."""
    return lambda training: nn.init.constant_(training.model.get_submodule(name).weight, 3e38)  # type: ignore[arg-type]


def gradient_into(name: str) -> Callable[[Training], object]:
    """Makes the gradient that comes back to a layer NaN; what comes out of it stays as it is."""

    def hook(_layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        output.register_hook(lambda gradient: gradient * math.nan)

    return lambda training: training.model.get_submodule(name).register_forward_hook(hook)


def loss_times(factor: float) -> Callable[[Training], object]:
    def spoil(training: Training) -> None:
        forward = training.criterion.forward
        training.criterion.forward = lambda *args: forward(*args) * factor  # type: ignore[method-assign]

    return spoil


def message(trainer: Trainer, config: Any, *, name: str = "run") -> str:
    with pytest.raises(DivergedError) as error:
        trainer(name, config)
    return str(error.value)


# --- where it first appears


@pytest.mark.parametrize("layer", LAYERS)
def test_the_layer_whose_output_is_first_not_finite_is_named_with_what_came_to_it(
    trainer, make_config, monkeypatch, layer
):
    spoil_at(monkeypatch, output_of(layer))
    text = message(trainer, make_config(train=LONG))
    found = f"it first appears in what {layer} ({LAYERS[layer]}) gives, to which finite numbers of up to "
    assert re.search(re.escape(found) + r"\d", text)
    assert [name for name in LAYERS if f"what {name} (" in text] == [layer]


def test_the_last_layer_instead_of_the_first_would_be_another(trainer, make_config, monkeypatch):
    """Negative control."""
    observed = divergence._observed
    looked: list[list[str]] = []

    def first_appearance(model: nn.Module, criterion: nn.Module, repeat: Callable[[], object]) -> str:
        with observed(model, criterion) as found:
            repeat()
        looked.append(found)
        return found[-1]

    monkeypatch.setattr(training_step, "first_appearance", first_appearance)
    spoil_at(monkeypatch, output_of(FIRST))
    assert f"what {FIRST} (" not in message(trainer, make_config(train=LONG))
    assert f"what {FIRST} (" in looked[0][0]


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"accumulate": 3}, id="in parts"),
        pytest.param({"ema": 0.9}, id="averaged"),
        pytest.param({"compile": True}, id="compiled"),
        pytest.param({"precision": "bf16"}, id="bf16"),
    ],
)
def test_the_layer_is_found_however_the_step_is_made(trainer, make_config, monkeypatch, settings):
    compile_with = nn.Module.compile
    monkeypatch.setattr(training_step.Segmenter, "compile", lambda self: compile_with(self, backend="eager"))
    spoil_at(monkeypatch, huge_weights("decoder.ups.0.conv"))
    assert "what decoder.ups.0.conv (Conv" in message(trainer, make_config(train={**LONG, **settings}))


def test_the_layer_is_found_under_deep_supervision(trainer, make_config, monkeypatch):
    spoil_at(monkeypatch, output_of("aux_heads.0"))
    decoder = {"name": "unet", "upsample": "transposed", "aux": True}
    encoder = {"name": "conv", "channels": [4, 8, 8]}
    config = make_config(model={"encoder": encoder, "decoder": decoder}, train=LONG)
    assert "what aux_heads.0 (Conv2d) gives" in message(trainer, config)


def test_a_loss_of_finite_logits_is_named(trainer, make_config, monkeypatch):
    spoil_at(monkeypatch, loss_times(math.nan))
    text = message(trainer, make_config(train=LONG))
    assert "step 5: loss nan" in text
    assert "first appears in the loss, of logits that are finite numbers of up to" in text


@pytest.mark.parametrize("layer", ["encoder.levels.0.1.conv", "decoder.levels.0.0.conv", "head"])
def test_a_gradient_is_named_by_the_first_parameter_that_it_comes_to_going_backward(
    trainer, make_config, monkeypatch, layer
):
    spoil_at(monkeypatch, gradient_into(layer))
    text = message(trainer, make_config(train=LONG))
    assert re.search(r"loss \d", text)
    assert f"the loss is finite; it first appears, going backward, in the gradient of {layer}." in text


def test_weights_that_were_not_finite_before_the_step_are_named(trainer, make_config, monkeypatch):
    spoil_at(monkeypatch, lambda training: nn.init.constant_(training.model.head.bias, math.inf))
    assert "the weights were not finite before the step: head.bias." in message(trainer, make_config(train=LONG))


def test_finite_gradients_whose_norm_overflows_are_told_apart(trainer, make_config, monkeypatch):
    spoil_at(monkeypatch, loss_times(1e25))
    text = message(trainer, make_config(train=LONG))
    assert "gradient norm inf" in text
    assert re.search(r"every gradient is finite, but their norm is not; the largest is \d\.?\d*e\+2\d, of \w", text)


def test_what_does_not_appear_again_is_said_to_be_no_fault_of_the_data(trainer, make_config, monkeypatch):
    def once(training: Training) -> None:
        handles = [training.model.head.register_forward_hook(lambda *_: handles.pop().remove() or _[-1] * math.nan)]

    spoil_at(monkeypatch, once)
    text = message(trainer, make_config(train=LONG))
    assert "made once more, the same step is finite" in text
    assert "train.compile=false" in text


def test_looking_for_it_leaves_the_statistics_of_batch_norm_as_they_are(trainer, make_config, monkeypatch):
    spoiled = spoil_at(monkeypatch, loss_times(math.nan))
    kept: list[dict[str, torch.Tensor]] = []
    find = training_step.find_divergence

    def spy(training: Training, *step: Any) -> str:
        kept.append({name: buffer.clone() for name, buffer in training.model.named_buffers()})
        return find(training, *step)

    monkeypatch.setattr(training_step, "find_divergence", spy)
    message(trainer, make_config(train=LONG))
    assert kept[0]
    assert all(torch.equal(value, kept[0][name]) for name, value in spoiled[0].model.named_buffers())


# --- what else is said


@pytest.mark.parametrize(("count", "more"), [(20, ""), (23, " and 3 more")])
def test_the_batch_s_files_are_named_all_up_to_twenty(count, more):
    paths = [Path(f"{number}.png") for number in range(count)]
    outcome = Outcome(0, 0.1, torch.tensor([math.nan, 1.0, 1.0]), None, lambda: paths, str)
    with pytest.raises(DivergedError) as told:
        outcome.read()
    assert str(told.value).endswith(f"The batch was: {', '.join(f'{number}.png' for number in range(20))}{more}.")


def test_the_same_batch_comes_again_on_resume_and_the_command_that_is_told_goes_on(tmp_path, make_config, monkeypatch):
    config, run = tmp_path / "config.yaml", tmp_path / "a run"
    config.write_text(dump_config(make_config(train=LONG)))
    spoil = loss_times(math.nan)
    texts = []
    for arguments in ([config, "--run", run], [run, "--resume"]):
        with monkeypatch.context() as patch:
            spoil_at(patch, spoil)
            with pytest.raises(DivergedError) as error:
                app(["train", *map(str, arguments), "--quiet", "--device", "cpu"], standalone_mode=False)
            assert error.value.exit_code == 5
            texts.append(str(error.value))
    assert texts[0] == texts[1]  # batch, layer, numbers and all
    assert f"learning rate {learning_rate(make_config().optim, STEP, 7):.3g}" in texts[0]
    order = [int(i) for epoch in (0, 1) for i in np.random.default_rng([0, epoch]).permutation(8)]
    assert {index for index in range(8) if f"train{index}.png" in texts[0]} == set(order[12:15])
    assert "The last checkpoint, step-00000000, is intact" in texts[0]
    command = shlex.split(texts[0].split("another learning rate: ")[1])
    settings = ["--set", "optim.lr=0.005", "--set", "optim.clip=1"]
    assert command == ["segtool", "train", str(run), "--resume", "--device", "cpu", *settings]
    app([*command[1:], "--quiet"], standalone_mode=False)
    assert history.last(run / "checkpoints").progress.step == 7  # type: ignore[union-attr]


def test_a_clip_that_is_set_is_not_set_again_and_fp16_is_told_how_to_do_without(trainer, make_config, monkeypatch):
    spoil_at(monkeypatch, loss_times(math.nan))
    text = message(trainer, make_config(train=LONG, optim={"clip": 0.5}))
    assert text.endswith("--set optim.lr=0.005")
    log = train.Logs.__new__(train.Logs)
    log.run = RunDirectory(trainer.directory / "run")
    log.flush = lambda: None  # type: ignore[method-assign]
    config = make_config(train={"precision": "fp16"}, optim={"lr": 1e6})
    with (
        pytest.raises(DivergedError, match=r"optim\.lr=0\.1 .*train\.precision=fp32"),
        log.flushed_where_it_diverges(config),
    ):
        raise DivergedError("")
    config = make_config(optim={"lr": 0.01, "weight_decay": 300})
    decay = r"less weight decay, of which a step now takes 3 of each weight: .* --set optim\.weight_decay=0\.01$"
    with pytest.raises(DivergedError, match=decay), log.flushed_where_it_diverges(config):
        raise DivergedError("")


# --- the step is not made, and nothing of it saved


def stops_before_the_step(
    trainer: Trainer, config: Any, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Training], object]
) -> None:
    """Holds a run to its promise: it ends at the step that is not finite, with the weights and moments before it."""
    before: dict[str, torch.Tensor] = {}

    def spoil_and_note(training: Training) -> None:
        before.update(everything(training))
        spoil(training)

    spoiled = spoil_at(monkeypatch, spoil_and_note)
    try:
        trainer("run", config)
    except DivergedError as error:
        where = str(error).partition(":")[0]
    else:
        where = "it did not end"
    assert where == f"step {STEP + 1}"
    after = everything(spoiled[0])
    assert before.keys() == after.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items()), "the step was made"
    rows = metrics_of(trainer.directory / "run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4], "the step was logged"
    assert history.last(trainer.directory / "run" / "checkpoints").progress.step == 0  # type: ignore[union-attr]


CASES = [
    pytest.param(loss_times(math.nan), id="loss nan"),
    pytest.param(loss_times(math.inf), id="loss inf"),
    pytest.param(gradient_into("head"), id="gradient nan, loss finite"),
    pytest.param(output_of("encoder.downs.0"), id="layer inf"),
]


@pytest.mark.parametrize("spoil", CASES)
def test_a_run_ends_before_the_step_that_is_not_finite(trainer, make_config, monkeypatch, spoil):
    stops_before_the_step(trainer, make_config(train=LONG), monkeypatch, spoil)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("spoil", CASES)
def test_a_device_that_runs_ahead_leaves_out_the_step_and_those_that_are_queued(
    trainer, make_config, monkeypatch, spoil, scaled
):
    monkeypatch.setattr(Training, "runs_ahead", True)

    def spoil_once(training: Training) -> None:
        """So that the step after it, which is queued, is finite and would be made."""
        if scaled:
            training.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)  # a scale of 1 is not to blame
        spoil(training)
        compute = training_step.compute_gradients
        repaired = training_step.build_training(training.config, None, training.device, training.world)

        def compute_gradients(_: Training, batch: Any, step: int, images: int) -> torch.Tensor:
            if step == STEP:
                return compute(training, batch, step, images)
            loss = compute(repaired, batch, step, images)
            for mine, other in zip(training.model.parameters(), repaired.model.parameters(), strict=True):
                mine.grad = other.grad
            return loss

        monkeypatch.setattr(training_step, "compute_gradients", compute_gradients)

    stops_before_the_step(trainer, make_config(train=LONG), monkeypatch, spoil_once)


def only_at_logged_steps(outcome: Outcome) -> tuple[float, float]:
    return (0.0, 0.0) if (outcome.step + 1) % training_log.FLUSH_STEPS else READ(outcome)


def only_the_loss(outcome: Outcome) -> tuple[float, float]:
    loss, norm, _ = outcome.values.tolist()
    return (loss, norm) if math.isfinite(loss) else READ(outcome)


def only_the_gradient(outcome: Outcome) -> tuple[float, float]:
    loss, norm, _ = outcome.values.tolist()
    return (loss, norm) if math.isfinite(norm) else READ(outcome)


READ = Outcome.read


@pytest.mark.parametrize("broken", [only_at_logged_steps, only_the_loss])
def test_a_check_of_some_steps_or_of_the_loss_alone_does_not_hold_the_promise(
    trainer, make_config, monkeypatch, broken
):
    """Negative control."""
    monkeypatch.setattr(Outcome, "read", broken)
    with pytest.raises(AssertionError, match=r"'step [67]' == 'step 5'"):
        stops_before_the_step(trainer, make_config(train=LONG), monkeypatch, gradient_into("head"))


def test_a_check_after_the_step_does_not_hold_the_promise(trainer, make_config, monkeypatch):
    """Negative control: read late, on a device that leaves nothing out."""
    monkeypatch.setattr(Training, "runs_ahead", True)
    monkeypatch.setattr(training_step, "leave_out_where_not_finite", lambda *_, **__: None)
    with pytest.raises(AssertionError, match="the step was made"):
        stops_before_the_step(trainer, make_config(train=LONG), monkeypatch, loss_times(math.nan))


def test_a_check_of_the_gradient_alone_would_miss_a_loss_without_one(trainer, make_config, monkeypatch):
    """Negative control: a term that is infinite and constant has no gradient."""

    def spoil(training: Training) -> None:
        forward = training.criterion.forward
        training.criterion.forward = lambda *args: forward(*args) + math.inf  # type: ignore[method-assign]

    with monkeypatch.context() as patch:
        stops_before_the_step(trainer, make_config(train=LONG), patch, spoil)
    monkeypatch.setattr(Outcome, "read", only_the_gradient)
    other = Trainer(trainer.directory / "other", monkeypatch)
    with pytest.raises(AssertionError, match="did not end"):
        stops_before_the_step(other, make_config(train=LONG), monkeypatch, spoil)


HUGE = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup": 0, "schedule": "constant", "lr": 3e38}


def test_weights_that_a_finite_step_made_infinite_are_not_saved(trainer, make_config, monkeypatch):
    """The gradient is finite; the learning rate times it is not."""
    loss = [{"name": "cross_entropy", "weight": 1e3}]
    text = message(trainer, make_config(optim=HUGE, loss=loss, train={"steps": 1}))
    assert "step 1: loss and gradient were finite, but what it made of" in text
    alone = message(trainer, make_config(optim=HUGE, loss=loss, train={"steps": 1, "ema": None}), name="alone")
    assert re.findall(r"of \d+ tensors", text) == re.findall(r"of \d+ tensors", alone), "averaged ones count once"
    assert "step-00000000, is intact" in text
    saved = history.last(trainer.directory / "run" / "checkpoints")
    assert saved is not None
    assert saved.progress.step == 0
    assert all(value.isfinite().all() for value in saved.tensors["model"].values() if value.is_floating_point())


def test_without_the_look_before_saving_they_would_be(trainer, make_config, monkeypatch):
    """Negative control."""
    monkeypatch.setattr(train, "require_finite", lambda *_: None)
    loss = [{"name": "cross_entropy", "weight": 1e3}]
    run = trainer("run", make_config(optim=HUGE, loss=loss, train={"steps": 1}))
    assert not all(value.isfinite().all() for value in run.final.tensors["model"].values())
