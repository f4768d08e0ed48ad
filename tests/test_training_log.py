"""The line of progress of a training, and the time that it tells to be left."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from segtool.config import Config
from segtool.runs.checkpoint import Progress
from segtool.system.terminal import Mute
from segtool.training import training_log


class Lines(Mute):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def step(self, text: str, *, done: int, total: int) -> None:
        self.lines.append(text)


@pytest.mark.parametrize("before", [0, 40])  # 40: resumed
def test_the_time_left_is_told_by_the_steps_after_the_first_which_compiles(monkeypatch, before):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(training_log.time, "monotonic", lambda: clock.now)
    reporter = Lines()
    run = SimpleNamespace(validations=list)
    world = SimpleNamespace(is_main=False)
    plan = SimpleNamespace(steps=100, images=8, epochs=50.0)
    logs = training_log.Logs(run, world, reporter, Config(), plan, workers=0, frequencies=None)
    outcome = SimpleNamespace(read=lambda: (1.0, 1.0), rate=0.1)
    for step, seconds in enumerate([90, 2, 4], before + 1):
        clock.now += seconds
        logs.step(Progress(step=step), outcome)
    first, second, third = reporter.lines
    assert first.endswith("img/s")
    assert second.endswith(f"  {training_log.duration(2 * (98 - before))} left")
    assert third.endswith(f"  {training_log.duration(3 * (97 - before))} left")  # (2 + 4) / 2 a step
