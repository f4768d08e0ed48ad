"""What a training tells before it begins: the reasons of what init chose, and in a dry run the whole plan."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import CLASSES, Command, config_of, snapshot
from PIL import Image

from segtool.check.findings import Finding
from segtool.check.report import examine
from segtool.config import Optim, dump_config, parse_text
from segtool.data.statistics import ClassFrequencies
from segtool.init.scaffold import scaffold
from segtool.models.segmenter import verify
from segtool.system.terminal import counted
from segtool.training import briefing
from segtool.training.briefing import brief, reasons
from segtool.training.losses import class_weight_values
from segtool.training.optim import learning_rate
from segtool.training.plan import Plan

SMALL = ("--set=model.encoder.channels=[4, 8]", "--set=augment.crop=[16, 16]", "--set=train.steps=2")
SMALL = (*SMALL, "--set=train.batch_size=2", "--set=train.compile=false", "--set=train.workers=0")
TEXT = """
# A file.
data:
  root: data   # where it lies
  train: {images: a, masks: b}

  # Far from its key.

  encoding: index
  # Two
  # lines.
  classes:
    - {name: x, values: [0], color: "#112233"}  # 90 %
    - {name: "y #2", values: [1], color: '#332211'}
# A section.
model:
  # Wide.
  encoder: {name: conv, channels: [4, 8]}
optim:
  lr: 1e-3  # usual
  clip: 1
"""


def plan(**changes: Any) -> Plan:
    return Plan(**{"images": 8, "crop": (16, 16), "steps": 7, "eval_steps": 3, "batch_size": 3, **changes})


def told(text: str, *overrides: str) -> dict[str, tuple[str, str]]:
    return {choice.what: (choice.value, choice.reason) for choice in reasons(text, parse_text(text, "c", overrides))}


def test_a_comment_above_a_key_or_behind_it_is_the_reason_of_its_value():
    assert told(TEXT) == {
        "data.root": ("data", "where it lies"),
        "data.classes": ("x, y #2", "Two lines"),
        "model.encoder": ("{name: conv, channels: [4, 8]}", "Wide"),
        "optim.lr": ("0.001", "usual"),
    }


def test_what_is_set_on_the_command_line_has_no_reason_in_the_file():
    found = told(TEXT, "optim.lr=0.5", "model.encoder.channels=[4]", "data.root=there")
    assert set(found) == {"data.classes"}


def test_every_reason_that_init_writes_is_told(tiny_ds, tmp_path):
    text = scaffold(tiny_ds, config_dir=tmp_path)
    found = " ".join(reason for _, reason in told(text).values())
    comments = [line.strip("# ") for line in text.splitlines() if line.strip().startswith("#")][2:]
    assert len(comments) > 15
    # A section's own comment is none of a value's.
    missing = [line for line in comments if line.rstrip(".") not in found]
    assert missing == []


def briefed(config: Any, frequencies: ClassFrequencies | None = None) -> list[str]:
    findings = [Finding("SEG101", grave, "", 1, (), "", "") for grave in ("warning", "warning", "note")]
    return brief(config, plan(), replace(examine(config, Path("/")), findings=findings), frequencies)


def test_the_plan_tells_findings_splits_network_loss_and_augmentation(make_config):
    lines = briefed(make_config(loss=["cross_entropy", {"name": "dice", "weight": 0.5}]))
    assert lines[0] == "check: 2 warnings, 1 note"
    assert [line.split(":")[0] for line in lines[1:4]] == ["train", "val", "test"]
    assert lines[1].startswith("train: 8 pairs of 32x32: ground ")
    assert lines[1].endswith("% ignored")
    parameters = sum(p.numel() for p in verify(make_config().model, 3).parameters())
    assert f"conv and unet, {parameters:,} parameters, stride 2" in lines[4]
    assert lines[5] == "loss: cross_entropy + 0.5 dice"
    assert lines[6].startswith("augmentation: crops of 16x16, scale [0.8, 1.5], flip both, rotate 20, color 0.2")


def test_class_weights_are_told_as_numbers_the_largest_first(make_config):
    frequencies = ClassFrequencies((700, 200, 100), (1000, 1000, 1000))
    term = {"name": "cross_entropy", "class_weights": "median_frequency", "weight_exponent": 0.5}
    (line,) = [line for line in briefed(make_config(loss=["dice", term]), frequencies) if "counts" in line]
    weights = class_weight_values("median_frequency", 3, frequencies)
    assert weights is not None
    expected = ", ".join(f"{name} {w**0.5:.3g}" for name, w in reversed(list(zip(CLASSES, weights, strict=True))))
    assert line == f"loss.1: a pixel counts {expected}"


def test_many_classes_are_told_in_part(make_config):
    classes = [{"name": f"c{k}", "values": [k]} for k in range(40)]
    loss = [{"name": "cross_entropy", "class_weights": list(range(1, 41))}]
    lines = briefed(make_config(data={"classes": classes}, loss=loss))
    assert lines[1].split(", ")[-1].startswith("and 28 more classes")
    assert "c34 35, …, c5 6" in next(line for line in lines if "counts" in line)


@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant", "one_cycle"])
@pytest.mark.parametrize("steps", [1, 2, 7, 1000, 100_000])
def test_the_course_of_the_learning_rate_is_that_of_its_function(make_config, schedule, steps):
    config = make_config(optim={"schedule": schedule, "lr": 0.02, "warmup": 30})
    optim: Optim = config.optim
    line = briefing.course(optim, steps)
    course = dict(reversed(part.split(" ", 1)) for part in line.split(": ")[2].split(", "))
    assert course[f"in the last of {counted(steps, 'step')}"] == f"{learning_rate(optim, steps - 1, steps):.3g}"
    if steps > 2:
        assert course["halfway"] == f"{learning_rate(optim, steps // 2, steps):.3g}" or schedule == "one_cycle"
        (at,) = [where for where in course if "highest" in where] or [""]
        highest = max(learning_rate(optim, step, steps) for step in range(min(steps, 40_000)))
        assert not at or float(course[at]) == pytest.approx(highest, rel=1e-2)


# ------------------------------------------------------------------------------------------------- a data folder


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, somewhere else than the data."""
    (tmp_path / "away").mkdir()
    monkeypatch.chdir(tmp_path / "away")
    return tmp_path / "away"


def test_a_data_folder_trains_without_a_config_and_the_run_keeps_the_one_that_was_made(
    segtool: Command, tiny_ds: Path, away: Path
) -> None:
    before = snapshot(tiny_ds)
    result = segtool("train", tiny_ds, *SMALL)
    assert result.code == 0, result.err
    run = away / "runs" / f"{tiny_ds.name}-1"
    assert "config: none given, so it is the one that segtool init writes" in result.err
    for choice in reasons((run / "init.yaml").read_text(), parse_text((run / "init.yaml").read_text(), "", SMALL_KEYS)):
        assert f"{choice.what}: {choice.value} ({choice.reason})" in result.err
    assert (run / "init.yaml").read_text() == scaffold(tiny_ds, config_dir=run)
    assert yaml.safe_load((run / "config.yaml").read_text())["train"]["steps"] == 2
    assert segtool("train", run, "--resume", "--set=train.steps=3").code == 0
    assert segtool("train", run / "init.yaml", "--run", "again", *SMALL).code == 0
    assert (away / "again/checkpoints/step-00000002/model.safetensors").read_bytes() == (
        run / "checkpoints/step-00000002/model.safetensors"
    ).read_bytes()
    assert snapshot(tiny_ds) == before


SMALL_KEYS = [word.removeprefix("--set=") for word in SMALL]


def test_a_data_folder_in_which_other_programs_keep_checkpoints_is_no_run(
    segtool: Command, tiny_ds: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    (data / "checkpoints").mkdir(parents=True)
    (data / "checkpoints" / "model.pth").write_bytes(b"of another program")
    for split in ("train", "val"):
        (data / split).symlink_to(tiny_ds / split)
    checked = segtool("check", data)
    assert checked.code == 0, checked.err


def test_a_data_folder_with_errors_is_not_trained_on_and_nothing_is_written(
    segtool: Command, tiny_ds: Path, away: Path
) -> None:
    import shutil

    data = away.parent / "data"
    shutil.copytree(tiny_ds, data)
    Image.new("RGB", (9, 9)).save(data / "train" / "images" / "train3.png")
    result = segtool("train", data, *SMALL)
    assert (result.code, result.out) == (3, "")
    assert "train3.png" in result.err
    assert list(away.iterdir()) == []


def test_a_dry_run_tells_the_whole_plan_with_its_reasons_and_writes_nothing(
    segtool: Command, tiny_ds: Path, away: Path
) -> None:
    result = segtool("train", tiny_ds, "--dry-run", *SMALL)
    assert (result.code, result.out) == (0, "")
    begun = [line.split(":")[0] for line in result.err.splitlines()]
    wanted = ["data.encoding", "data.classes", "loss.0", "train.precision", "check", "train", "val", "network"]
    wanted += ["augmentation", "learning rate", "time", "memory", "disk"]
    assert [word for word in wanted if word not in begun] == []
    assert f"would write runs/{tiny_ds.name}-1" in result.err
    assert list(away.iterdir()) == []


def test_a_budget_tells_its_own_length_and_no_other(segtool: Command, tiny_ds: Path, away: Path) -> None:
    result = segtool("train", tiny_ds, "--dry-run", "--no-preflight", "--budget", "20s", *SMALL)
    assert result.code == 0, result.err
    lengths = re.findall(r"length: (.*?),", result.err)
    assert lengths == ["as many steps of 2 images as go into the budget"]
    (steps,) = re.findall(r"budget: ([\d,]+) steps", result.err)
    assert f"in the last of {steps} steps" in result.err


def test_what_chance_and_defaults_decide_is_told_with_its_reason(
    segtool: Command, tiny_ds: Path, away: Path, tmp_path: Path
) -> None:
    config = yaml.safe_load(dump_config(config_of(tiny_ds)))
    config["data"]["val"] = None
    for section, key in (("data", "split"), ("data", "mean"), ("data", "std"), ("train", "epochs"), ("train", "steps")):
        config[section].pop(key, None)
    Path("c.yaml").write_text(yaml.safe_dump(config))
    told = segtool("train", "c.yaml", "--dry-run", "--no-preflight", "--device", "auto").err
    assert "data.val: 2 of 8 pairs (neither a folder nor data.split is given, so a share of 0.2 by seed 0)" in told
    assert re.search(r"data\.mean and std: \[.*\] and \[.*\] \(measured on the training images\)", told)
    assert "train.epochs: 100 (neither epochs nor steps is given)" in told


def test_a_dry_run_tells_what_is_in_the_way_of_the_run(segtool: Command, tiny_ds: Path, away: Path) -> None:
    Path("run").write_text("")
    result = segtool("train", tiny_ds, "--dry-run", "--run", "run")
    assert (result.code, "would write" in result.err) == (4, False)
    assert "run: cannot be made, since run is no folder that can be written; choose another --run" in result.err


def test_a_dry_run_of_a_config_tells_its_comments(segtool: Command, tiny_ds: Path, away: Path) -> None:
    text = dump_config(config_of(tiny_ds)).replace("  lr: 0.01\n", "  # As the neighbours do.\n  lr: 0.01\n")
    Path("c.yaml").write_text(text)
    assert "optim.lr: 0.01 (As the neighbours do)" in segtool("train", "c.yaml", "--dry-run").err
    single = segtool("train", "c.yaml", "--set=train.steps=1").err
    assert "As the neighbours do" not in single
    assert "validation at the end, crop" in single


@pytest.mark.parametrize(("patience", "words"), [("null", ", crop"), ("3", " (nor any end by train.patience), crop")])
def test_a_run_that_holds_nothing_out_tells_of_no_validation(
    segtool: Command, tiny_ds: Path, away: Path, patience: str, words: str
) -> None:
    Path("c.yaml").write_text(dump_config(config_of(tiny_ds, data={"val": None, "split": {"val": 0}})))
    told = segtool("train", "c.yaml", "--dry-run", "--no-preflight", f"--set=train.patience={patience}").err
    assert f"no validation, as no pairs are held out{words}" in told
    assert "validation every" not in told
