"""Several processes train, score and predict as one does; one that ends or hangs ends them all, and says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import config_of
from ranks import in_ranks, values_of
from torch import nn

from segtool import checkpoint
from segtool.config import dump_config
from segtool.distributed import World
from segtool.session import Session, train_session

NORMLESS = {
    "encoder": {"name": "conv", "channels": [4, 8], "norm": "group"},
    "decoder": {"name": "unet", "norm": "group"},
}
LAUNCHED = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
PLACE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


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
    return rows_of(run)


def rows_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


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
    found = checkpoint.last(run / "checkpoints")
    assert found is not None
    return dict(found.tensors["model"])


# --- one process and several


@pytest.mark.parametrize(
    "sections",
    [
        {"train": {"steps": 6, "batch_size": 4, "ema": 0.9}},
        {"train": {"steps": 4, "batch_size": 3, "accumulate": 3}, "optim": {"name": "sgd", "clip": 1.0}},
        {"train": {"steps": 4, "batch_size": 5}, "loss": ["dice", {"name": "focal", "class_weights": "enet"}]},
    ],
    ids=["ema", "parts", "class weights"],
)
def test_two_processes_train_as_one_does(write_config, tmp_path, sections):
    config = write_config(**sections)
    alone, together = trained(config, tmp_path / "one", 1), trained(config, tmp_path / "two", 2)
    assert_alike(together, alone)
    one, two = weights(tmp_path / "one"), weights(tmp_path / "two")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


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
