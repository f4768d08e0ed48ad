"""A budget is a promise: a training ends within it and little before, and its learning rate goes down to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from training import Trained, Trainer

from segtool.commands.preparation import budgeted
from segtool.config import load_config
from segtool.errors import SegtoolError
from segtool.runs.run_directory import RunDirectory
from segtool.system.distributed import ALONE
from segtool.system.terminal import Reporter
from segtool.training import budget, train, training_step
from segtool.training.budget import ENDING, LEFT_OVER, SLACK, Budget
from segtool.training.forecast import Times
from segtool.training.optim import learning_rate
from segtool.training.plan import Plan, Prepared, of_length

SCORED = 3.0  # seconds of a validation


class Clock:
    """Stands for the time, which goes by in steps and validations only."""

    def __init__(
        self, patch: pytest.MonkeyPatch, *, step: float, validation: float = SCORED, held: int = 0, share: float = 0.3
    ) -> None:
        """Begins at 0.

        Args:
            held: Steps, from the first, that take a share of the time of the others.
        """
        self.now = 0.0
        self.validated: list[float] = []
        patch.setattr(budget, "time", SimpleNamespace(monotonic=lambda: self.now))
        make_step, validate = training_step.train_step, train.validate

        def stepped(*arguments: Any) -> Any:
            self.now += step * (share if arguments[2] < held else 1)
            return make_step(*arguments)

        def validated(*arguments: Any) -> Any:
            self.now += validation
            self.validated.append(self.now)
            return validate(*arguments)

        patch.setattr(training_step, "train_step", stepped)
        patch.setattr(train, "validate", validated)


def plan_of(steps: int, every: int) -> Plan:
    return Plan(images=8, crop=(16, 16), steps=steps, eval_steps=every, batch_size=3, most_steps=10 * steps)


@pytest.mark.parametrize("done", [0, 1, 6, 7, 11])
@pytest.mark.parametrize("every", [1, 3, 7, 50])
@pytest.mark.parametrize("end", [0.0, 8.0, 9.0, 27.3, 100.0])
def test_a_length_is_the_longest_whose_steps_and_validations_go_into_the_time(done, every, end):
    limit = (1 - LEFT_OVER) * (end - SLACK * 1.5 - ENDING)
    made, now = done, 0.0
    while True:
        now += 1.5 if made and made % every == 0 else 0.0
        now += 0.4
        if now > limit:
            break
        made += 1
    assert Budget(end, per_validation=1.5, per_step=0.4).length(plan_of(1, every), done, now=0.0) == made


def trained(
    trainer: Trainer, patch: pytest.MonkeyPatch, config: Any, *, end: float, foretold: float, **options: Any
) -> Trained:
    """Trains with a budget up to `end`, of which so many seconds a step were foretold."""
    real = train.train

    def limited(work: Any, run: Any, **given: Any) -> Any:
        limit = Budget(end, per_validation=SCORED, per_step=foretold)
        steps = limit.length(work.plan, 0, now=0.0)
        assert steps
        config, plan = of_length(work.config, replace(work.plan, most_steps=10 * steps), steps)
        run.write_config(config)
        return real(replace(work, config=config, plan=plan), run, **given, budget=limit)

    with patch.context() as context:
        context.setattr(train, "train", limited)
        return trainer("run", config, **options)


@pytest.fixture
def config(make_config: Callable[..., Any]) -> Any:
    return make_config(train={"eval_every": 15 * 3 / 8})  # a validation every 15 steps


@pytest.mark.parametrize(("foretold", "step"), [(2.0, 1.0), (1.0, 2.0), (1.0, 1.0), (9.0, 9.0)])
def test_a_budget_is_used_up_and_never_passed_whatever_was_foretold(trainer, monkeypatch, config, foretold, step):
    clock = Clock(monkeypatch, step=step)
    run = trained(trainer, monkeypatch, config, end=100.0, foretold=foretold)
    assert 100 - SLACK * SCORED - ENDING - LEFT_OVER * 100 - step < clock.now <= 100
    assert run.progress.finished
    assert run.progress.step == run.progress.steps, "it was cut short, before its learning rate came to the end"
    rates = {row["step"]: row["lr"] for row in run.metrics if "lr" in row}
    for made in range(3 * run.progress.steps // 4 + 1, run.progress.steps + 1):
        assert rates[made] == learning_rate(config.optim, made - 1, run.progress.steps)
    for written in (run.final.config, load_config(run.directory / "config.yaml")):
        assert (written.train.epochs, written.train.steps) == (None, run.progress.steps)
    assert foretold == step or any("in place of" in line for line in run.said)


def test_steps_of_a_frozen_encoder_do_not_tell_the_length_of_what_follows_them(trainer, monkeypatch, config):
    monkeypatch.setattr(training_step, "frozen_steps", lambda *_: 100)
    clock = Clock(monkeypatch, step=1.0, held=100)
    run = trained(trainer, monkeypatch, config, end=100.0, foretold=1.0)
    assert 90 < clock.now <= 100
    assert run.progress.step == run.progress.steps, "it was cut short, before its learning rate came to the end"


def test_a_run_comes_to_its_end_where_steps_take_longer_in_the_second_half(trainer, monkeypatch, config):
    clock = Clock(monkeypatch, step=2.0, held=110, share=0.5)  # first of a second
    monkeypatch.setattr(training_step, "frozen_steps", lambda *_: 0)  # with nothing that would foretell it
    run = trained(trainer, monkeypatch, config, end=200.0, foretold=1.0)
    assert 190 < clock.now <= 200
    assert run.progress.step >= 0.97 * run.progress.steps, "it was cut short, with much of its learning rate left"


def test_a_run_whose_length_a_budget_has_changed_goes_on_to_what_it_would_have_become(trainer, monkeypatch, config):
    Clock(monkeypatch, step=1.0)
    whole = trained(trainer, monkeypatch, config, end=60.0, foretold=2.0)
    Clock(monkeypatch, step=1.0)
    part = trained(Trainer(trainer.directory / "part", monkeypatch), monkeypatch, config, end=60.0, foretold=2.0,
                   stop_after=40)  # fmt: skip
    assert part.final.progress.step == 40 < part.final.progress.steps == whole.progress.steps
    assert RunDirectory(part.directory).read_facts()["steps"] == whole.progress.steps
    again = Trainer(trainer.directory / "part", monkeypatch)(
        "run", load_config(part.directory / "config.yaml"), resume=True
    )
    assert again.metrics == whole.metrics
    for name, value in whole.final.tensors["model"].items():
        assert torch.equal(again.final.tensors["model"][name], value)


def test_a_validation_that_takes_up_the_rest_of_the_time_is_the_last_one(trainer, monkeypatch, config):
    clock = Clock(monkeypatch, step=1.0, validation=20.0)
    run = trained(trainer, monkeypatch, config, end=45.0, foretold=1.0)
    assert clock.validated == [35.0]
    assert run.progress.finished
    assert run.final.progress.score is not None


def test_a_compilation_that_was_measured_is_not_counted_once_more(make_config):
    work = Prepared(make_config(), plan_of(7, 15), {}, None, ALONE, torch.device("cpu"))
    times = Times(starting=80.0, step=1.0, validation=1.0, samples=0.0, saving=0.0)
    planned, limit = budgeted(work, times, 60.0, time.monotonic(), Reporter(quiet=True))
    assert planned.plan.steps == planned.config.train.steps > 35
    assert limit.end == pytest.approx(time.monotonic() + 60, abs=5)


@pytest.mark.parametrize(("seconds", "minutes"), [(60.0, 6), (250.0, None)])
def test_a_budget_of_few_steps_tells_one_that_has_room_for_more(
    make_config: Callable[..., Any], capsys: pytest.CaptureFixture[str], seconds: float, minutes: int | None
) -> None:
    work = Prepared(make_config(), plan_of(7, 15), {}, None, ALONE, torch.device("cpu"))
    times = Times(starting=0.0, step=1.0, validation=1.0, samples=0.0, saving=0.0)
    planned, _ = budgeted(work, times, seconds, time.monotonic(), Reporter())
    steps, told = planned.plan.steps, capsys.readouterr().err
    if minutes is None:
        assert steps > 100
        assert "learns little" not in told
    else:
        assert f"a training of {steps} steps learns little; --budget {minutes}m has room" in told
        assert 60 * (minutes - 1) < seconds + 300 - steps <= 60 * minutes


def test_a_length_that_is_given_stays_whatever_time_is_left(trainer, monkeypatch, config):
    Clock(monkeypatch, step=1.0)
    real = train.train
    monkeypatch.setattr(train, "train", lambda *args, **options: real(*args, **options, budget=Budget(1000.0)))
    assert trainer("run", replace(config, train=replace(config.train, steps=30))).progress.step == 30


@pytest.mark.parametrize("compiled", [True, False])
def test_a_budget_that_no_step_goes_into_says_what_takes_how_long(make_config, compiled):
    config = make_config(train={"compile": compiled})
    work = SimpleNamespace(config=config, plan=plan_of(100, 10))
    times = Times(starting=60.0, step=2.0, validation=20.0, samples=1.0, saving=1.0)
    with pytest.raises(SegtoolError) as raised:
        budgeted(work, times, 40.0, time.monotonic(), Reporter(quiet=True))
    message = str(raised.value)
    assert "takes 6 s, a step 2.0 s and the end, with its validation, 37 s, and 40 s are left after prep" in message
    assert "at least 47 s" in message  # 6 + 1 + 2 / 0.97 + 37
    assert ("--set train.compile=false" in message) == compiled
