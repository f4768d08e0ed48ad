"""The choices of a plan: what is left to `auto` follows from the machine and the amount of work, and says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import config_of

from segtool.config import ClassSpec, Config, Data, Train
from segtool.errors import ConfigError
from segtool.training import plan
from segtool.training.plan import Machine, arithmetic, check_machine, make_plan

PLAIN = Machine("cpu", fast_bf16=False, fast_fp16=False, threads=2, compiler="g++")
SERVER = replace(PLAIN, fast_bf16=True)
AMPERE = Machine("cuda", fast_bf16=True, fast_fp16=True, threads=8, compiler="gcc")
TURING = replace(AMPERE, fast_bf16=False)
PASCAL = replace(TURING, fast_fp16=False)
APPLE = replace(PLAIN, kind="mps")
SHORT, LONG = 1e12, 1e17  # operations: seconds and days


def chosen(machine: Machine, operations: float, **train: Any) -> tuple[str, bool]:
    precision, compiled, choices = arithmetic(Train(**train), machine, operations)
    values = {choice.what: choice.value for choice in choices}
    assert values == {"train.precision": precision, "train.compile": str(compiled).lower()}
    assert all(choice.reason for choice in choices)
    return precision, compiled


@pytest.mark.parametrize(
    ("machine", "operations", "precision", "compiled"),
    [
        (PLAIN, LONG, "fp32", False),
        (SERVER, SHORT, "fp32", False),
        (SERVER, LONG, "bf16", True),
        (AMPERE, SHORT, "bf16", False),
        (AMPERE, LONG, "bf16", True),
        (TURING, SHORT, "fp16", False),
        (PASCAL, SHORT, "fp32", False),
        (APPLE, LONG, "fp32", False),
    ],
)
def test_auto_takes_what_is_fastest_on_the_machine_over_the_length_of_the_run(machine, operations, precision, compiled):
    assert chosen(machine, operations) == (precision, compiled)


def test_bfloat16_on_a_cpu_comes_with_compilation_or_not_at_all():
    assert chosen(SERVER, LONG, compile=False) == ("fp32", False)
    assert chosen(SERVER, SHORT, compile=True) == ("bf16", True)
    assert chosen(SERVER, LONG, precision="fp32") == ("fp32", False)


@pytest.mark.parametrize("machine", [SERVER, AMPERE])
def test_without_a_compiler_nothing_is_compiled_and_the_reason_names_one(machine):
    without = replace(machine, compiler=None)
    _, compiled, choices = arithmetic(Train(), without, LONG)
    assert not compiled
    assert "no compiler" in choices[1].reason
    assert arithmetic(Train(), machine, LONG)[1]


def test_what_a_gpu_waits_for_is_not_compiled_unless_the_config_says_so():
    _, compiled, choices = arithmetic(Train(), AMPERE, LONG, waits=True)
    assert not compiled
    assert "the GPU waits for the processor" in choices[1].reason
    assert arithmetic(Train(compile=True), AMPERE, LONG, waits=True)[1]


@pytest.mark.parametrize(
    ("channels", "crop", "batch", "compiled"),
    [((8, 16), 64, 2, False), ((64, 128), 512, 16, True)],
)
def test_a_gpu_waits_for_the_processor_where_a_step_has_few_operations_for_its_layers(
    monkeypatch, channels, crop, batch, compiled
):
    monkeypatch.setattr(Machine, "of", classmethod(lambda cls, device: AMPERE))
    config = config_of(
        Path("/"),
        model={"encoder": {"name": "conv", "channels": list(channels)}},
        augment={"crop": [crop, crop]},
        train={"batch_size": batch, "steps": 10**8, "cache": False, "compile": "auto"},
    )
    device = torch.device("cpu")
    assert make_plan(config, images=100, first_size=(crop, crop), device=device)[0].train.compile is compiled


def test_a_compilation_pays_from_the_work_whose_saving_is_the_time_that_it_takes():
    threshold = plan.COMPILE_SECONDS / plan.CPU_GAIN * plan.CPU_RATE * SERVER.threads
    assert not chosen(SERVER, 0.99 * threshold)[1]
    assert chosen(SERVER, 1.01 * threshold)[1]
    assert not chosen(replace(SERVER, threads=4), 1.01 * threshold)[1]  # twice as fast, so half as much to save


@pytest.mark.parametrize(("budget", "compiled"), [(60.0, False), (3600.0, True), (None, True)])
def test_a_short_budget_is_not_spent_on_a_compilation(monkeypatch, budget, compiled):
    monkeypatch.setattr(plan.Machine, "of", lambda _: SERVER)
    classes = (ClassSpec("a", values=(0,)), ClassSpec("b", values=(1,)))
    config = Config(data=Data(classes=classes), train=Train(steps=2 if compiled and budget else 10**9))
    made, _ = make_plan(config, images=10, first_size=(32, 32), device=torch.device("cpu"), budget=budget)
    assert (made.train.compile, made.train.precision) == (compiled, "bf16" if compiled else "fp32")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", [True, False])
def test_what_the_config_gives_is_kept(precision, compiled):
    for machine in (PLAIN, SERVER, AMPERE, APPLE):
        assert chosen(machine, SHORT, precision=precision, compile=compiled) == (precision, compiled)


@pytest.mark.parametrize("kind", ["cpu", "mps"])
def test_what_machine_and_processes_do_not_allow_is_refused_at_once_with_what_to_write_instead(kind):
    with pytest.raises(ConfigError) as error:
        check_machine(Train(precision="fp16", batch_size=1, sync_batch_norm=True), torch.device(kind), 2)
    assert error.value.problems == (
        "train.batch_size: 1 image for 2 processes; expected at least one for each",
        f"train.precision: fp16 is for CUDA, and this run is on {kind}; expected auto, bf16 or fp32",
        "train.sync_batch_norm: needs CUDA, and these processes compute on the CPU; expected false",
    )


def test_float16_on_cuda_is_kept():
    assert chosen(AMPERE, SHORT, precision="fp16") == ("fp16", False)


def test_the_machine_at_hand_has_its_threads():
    machine = Machine.of(torch.device("cpu"))
    assert (machine.kind, machine.threads) == ("cpu", torch.get_num_threads())
