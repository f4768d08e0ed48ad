"""What `segtool inspect` puts together from a config, a run and the data."""

from __future__ import annotations

import json

import pytest
from rich.console import Console

from segtool.commands.inspection import inspect_session
from segtool.config import dump_config
from segtool.errors import ConfigError


@pytest.fixture
def written(make_config, tmp_path):
    """Writes a config of the tiny data set, and returns its path."""

    def write(**sections):
        path = tmp_path / "config.yaml"
        path.write_text(dump_config(make_config(**sections)))
        return path

    return write


def text_of(found) -> str:
    console = Console(width=160, no_color=True)
    with console.capture() as capture:
        for part in found.parts(width=160):
            console.print(part)
    return " ".join(capture.get().split())


def test_structures_longer_than_the_receptive_field_are_a_warning_with_names_and_pixels(written):
    small = inspect_session(written(), ["model.encoder.channels=[4]"])
    assert [structure.name for structure in small.structures] == ["ground", "block", "ring"]
    (warning,) = small.warnings
    assert f"field of {small.summary.receptive_field} pixels" in warning
    assert "block 12" in warning
    large = inspect_session(written(), ["model.encoder.channels=[4, 4, 4, 4]"])
    assert large.summary.receptive_field > 32
    assert large.warnings == ()


def test_data_that_is_not_there_is_said_once_and_nothing_is_compared(written, tmp_path, capsys):
    found = inspect_session(written(), ["model.encoder.channels=[4]", f"data.root={tmp_path}/nowhere"])
    assert found.structures is None
    assert found.warnings == ()
    (line,) = capsys.readouterr().err.splitlines()
    assert "not compared" in line
    assert "nowhere" in line


def test_the_batch_is_one_part_of_those_that_accumulate(written):
    found = inspect_session(written(train={"batch_size": 7, "accumulate": 3}), [])
    assert found.summary.batch == 3
    assert found.summary.input == (3, 16, 16)


def test_a_config_is_measured_with_its_initial_weights_on_validation_images(written):
    found = inspect_session(written(), [], measuring=True)
    assert found.measured.weights == "the initial weights of seed 0"
    assert found.measured.images == "3 validation images"
    assert found.measured.theoretical_field == found.summary.receptive_field
    assert 1 <= found.measured.effective_field.half <= found.measured.effective_field.most <= 32
    assert [row.pixels for row in found.measured.shifts] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [row.whole for row in found.measured.shifts] == [False, True] * 4
    text = text_of(found)
    assert "memory of a training step" in text
    assert "initial weights of seed 0 on 3 validation images" in text
    again = inspect_session(written(), [], measuring=True)
    assert again.measured == found.measured


def test_without_data_it_is_measured_on_noise_where_only_borders_differ_at_multiples_of_the_stride(written, tmp_path):
    found = inspect_session(written(), [f"data.root={tmp_path}/nowhere"], measuring=True)
    assert found.measured.images.startswith("noise of ")
    assert all(row.inside == 1 for row in found.measured.shifts if row.whole)
    assert all(row.inside < 1 for row in found.measured.shifts if not row.whole)


def test_a_run_is_measured_with_the_weights_of_its_best_checkpoint(trainer, make_config):
    run = trainer("run", make_config(train={"steps": 2})).directory
    found = inspect_session(run, [], measuring=True)
    assert found.measured.weights.startswith("the weights of step ")
    assert json.loads(json.dumps(found.to_json()))["measured"]["shifts"][0]["pixels"] == 1
    with pytest.raises(ConfigError, match="another network"):
        inspect_session(run, ["model.encoder.channels=[4, 4]"], measuring=True)


def test_everything_is_plain_data(written):
    told = json.loads(json.dumps(inspect_session(written(), []).to_json()))
    assert told["memory"]["total"] > told["memory"]["activations"] == told["kept"] > 0
    assert told["layers"][0]["name"] == "encoder.levels.0.0.conv"
    assert told["structures"][0]["name"] == "ground"
    assert told["measured"] is None
