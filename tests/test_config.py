"""A config is read strictly, every problem told at once with its line, and written so that it reads the same."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import runpy
import subprocess
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from segtool.commands.endings import explain
from segtool.commands.listing import COMPONENTS, entries
from segtool.config import (
    Augment,
    ClassSpec,
    Config,
    Data,
    Folders,
    LossTerm,
    Model,
    Optim,
    Pairing,
    Split,
    Train,
    dump_config,
    load_config,
    located,
    parse_config,
    parse_text,
    plain,
    show,
)
from segtool.config.bounds import BOUNDS, MAX_SEED
from segtool.config.description import field_docs, reference, schema
from segtool.config.overrides import apply
from segtool.config.parsing import parse
from segtool.config.registry import MODULES, Component, _registered, build, names, options, register
from segtool.config.sections import Sections
from segtool.config.yaml_io import dump, load_file
from segtool.errors import ConfigError, Problem

ROOT = Path(__file__).parent.parent

STREETS = """\
data:
  encoding: index
  root: ../data/streets
  train: {images: train/images, masks: train/masks}
  val:   {images: val/images,   masks: val/masks}
  classes:                               # order is the class index
    - {name: sky,      values: [0], color: "#808080"}
    - {name: building, values: [1, 3..9]}
  ignore: [11]
model:
  encoder: {name: conv, channels: [32, 64], downsample: max}
  decoder: unet
loss:
  - cross_entropy                        # a bare name means its defaults
  - {name: dice, weight: 0.5}
augment: {crop: [352, 480], scale: [0.5, 2.0], flip: horizontal, rotate: 10, color: 0.3}
optim: {name: adamw, lr: 1e-3, weight_decay: 1e-2, schedule: poly, warmup: 100}
train: {epochs: 20, batch_size: 8,
        precision: auto, compile: auto, ema: 0.999, seed: 0}
"""

EVERYTHING = """\
format: 1
data:
  root: .
  format: folders
  train:
    images: a
    masks: b
  val:
    images: a
    masks: b
  test:
    images: a
    masks: b
  split:
    val: 0.1
    test: 0.1
    seed: 1
    group: (.)_
  pairing:
    image_prefix: a
    image_suffix: b
    mask_prefix: c
    mask_suffix: d
  encoding: rgb
  nearest: true
  classes:
    - name: x
      colors: ["#000000"]
      color: "#000000"
    - name: y
      colors: ["#ffffff"]
  ignore: ["#123456"]
  exif: apply
  channels: 3
  mean: [0.5, 0.5, 0.5]
  std: [0.5, 0.5, 0.5]
  mask_mode: RGB
  palette: "000000"
model:
  encoder: conv
  decoder: unet
loss:
  - name: dice
    weight: 0.5
augment:
  crop: [8, 8]
  scale: [1, 2]
  flip: none
  rotate: 0
  color: 0
optim:
  name: sgd
  lr: 0.1
  weight_decay: 0
  momentum: 0.9
  schedule: poly
  power: 0.9
  warmup: 1
  clip: 1
train:
  steps: 3
  batch_size: 1
  eval_every: 1
  patience: 1
  precision: auto
  compile: auto
  ema: 0.9
  seed: 1
  workers: 0
  keep: 1
  samples: 1
limits:
  max_pixels: 100
"""


@pytest.fixture
def streets(tmp_path: Path) -> Path:
    return written(tmp_path, STREETS)


def written(folder: Path, text: str) -> Path:
    path = folder / "streets.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def problems(path: Path, *overrides: str) -> list[str]:
    """Returns the lines of the refusal, with the folder taken off."""
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    return [problem.replace(f"{path.parent}/", "") for problem in caught.value.problems]


def edited(text: str, *changes: tuple[str, str]) -> str:
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return text


# Reading


def test_a_file_becomes_a_config(streets: Path) -> None:
    config = load_config(streets)
    assert config == Config(
        data=Data(
            root="../data/streets",
            train=Folders("train/images", "train/masks"),
            val=Folders("val/images", "val/masks"),
            classes=(ClassSpec("sky", (0,), (), "#808080"), ClassSpec("building", (1, "3..9"))),
            ignore=(11,),
        ),
        model=Model(Component("conv", {"channels": [32, 64], "downsample": "max"}), Component("unet")),
        loss=(LossTerm("cross_entropy"), LossTerm("dice", {}, 0.5)),
        augment=Augment((352, 480), (0.5, 2.0), "horizontal", 10.0, 0.3),
        optim=Optim("adamw", 1e-3, 1e-2, warmup=100),
        train=Train(epochs=20.0),
    )


def test_the_full_file_of_these_tests_is_valid(tmp_path: Path) -> None:
    assert load_config(written(tmp_path, EVERYTHING)).train.steps == 3


def test_a_hundred_epochs_are_the_default_length(tmp_path: Path) -> None:
    text = STREETS.replace("epochs: 20, ", "")
    assert load_config(written(tmp_path, text)).train.epochs == 100
    assert load_config(written(tmp_path, text), ["train.steps=7"]).train == Train(steps=7)


def test_a_config_without_training_pairs_is_enough_to_score_with(tmp_path: Path) -> None:
    text = "data: {classes: [{name: a, values: [0]}, {name: b, values: [1]}]}"
    assert load_config(written(tmp_path, text)).data.train == Folders()


# Format


@pytest.mark.parametrize("first", ["format: 1\n", ""])
def test_a_config_without_a_version_is_of_the_current_one(first: str, tmp_path: Path) -> None:
    config = load_config(written(tmp_path, first + STREETS))
    assert config.format == 1
    assert dump_config(config).startswith("format: 1\n")


@pytest.mark.parametrize("version", [2, 3, 10**18])
def test_a_config_of_a_newer_version_says_to_upgrade_and_judges_nothing_else_in_it(
    version: int, tmp_path: Path
) -> None:
    text = f"layers: {{3: x}}\nformat: {version}\ndata: [of, another, kind]\n"
    found = problems(written(tmp_path, text), "data.root.nowhere=3", "no_value")
    told = f"streets.yaml:2: format: config format {version}, but this segtool reads up to 1; upgrade segtool"
    assert found == [told]


@pytest.mark.parametrize("written_as", ["0", "-1", "1.0", "2.0", '"1"', "true", "null", "[1]", "{}", "next"])
def test_a_version_that_is_none_is_told_with_its_line(written_as: str, tmp_path: Path) -> None:
    (found,) = problems(written(tmp_path, f"format: {written_as}\n{STREETS}"))
    assert re.match(r"streets\.yaml:1: format: expected (a whole number|1, the version of .*), found ", found), found
    assert "upgrade" not in found


# Problems


def test_a_loss_without_a_name_is_missed(streets: Path) -> None:
    assert problems(streets, "loss=[{nam: dice}]") == [
        "--set loss: loss.0.name: missing, and it has no default; add it"
    ]


@pytest.mark.parametrize("key", ["loss", "model.encoder", "data.classes"])
def test_a_name_that_stands_as_a_key_is_told_as_what_it_is(streets: Path, key: str) -> None:
    value = "{x: {smooth: 1}}" if key == "model.encoder" else "[{x: 1}]"
    place = key if key == "model.encoder" else f"{key}.0"
    expected = f"--set {key}: {place}.name: missing, and it has no default; "
    expected += "if x is the name, write {name: x, …} in place of {x: …}"
    assert problems(streets, f"{key}={value}")[0] == expected
    assert problems(streets, "loss=[{weight: 0.5}]")[0].endswith("; add it")


@pytest.mark.parametrize(
    ("name", "wrong", "hint"),
    [
        ("lr", "lt", "lr"),
        ("seed", "sed", "seed"),
        ("batch_size", "batchsize", "batch_size"),
        ("epochs", "epoch", "epochs"),
    ],
)
def test_short_and_joined_words_are_recognised(name: str, wrong: str, hint: str, tmp_path: Path) -> None:
    found = problems(written(tmp_path, edited(STREETS, (f"{name}: ", f"{wrong}: "))))
    assert found[0].endswith(f"unknown key; did you mean '{hint}'?")


def test_a_key_of_another_section_is_named_with_its_section(streets: Path) -> None:
    assert problems(streets, "train.lr=1") == ["--set train.lr: unknown key; did you mean 'optim.lr'?"]


def fields_below(cls: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yields the dotted path and annotation of every field that YAML can give, with position 0 in lists of sections."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        at = f"{path}.{field.name}".lstrip(".")
        yield at, hints[field.name]
        for member in (hints[field.name], *get_args(hints[field.name])):
            if dataclasses.is_dataclass(member) and not issubclass(typing.cast(type, member), Component):
                position = ".0" if get_origin(hints[field.name]) is tuple else ""
                yield from fields_below(member, at + position)


FIELDS = dict(fields_below(Sections, ""))


def misfits(annotation: Any) -> list[str]:
    """Returns YAML values of every kind that the annotation does not admit."""
    members = (
        get_args(annotation)
        if isinstance(annotation, types.UnionType) or get_origin(annotation) is typing.Union
        else [annotation]
    )
    kinds = {"true": bool, "1.5": float, "nonsense": str, "[[]]": tuple, "{no: 1}": dict, "null": type(None), "7": int}
    fitting: set[Any] = set()
    for member in members:
        if get_origin(member) is Literal:
            continue
        if get_origin(member) is tuple:
            continue  # an empty list in a list is no item of any of these
        if dataclasses.is_dataclass(member):
            fitting |= {str} if issubclass(typing.cast(type, member), Component) else set()
        else:
            fitting |= {member} | ({int} if member is float else set())
    return [text for text, kind in kinds.items() if kind not in fitting]


def test_the_walk_over_the_fields_finds_them_all() -> None:
    assert len(FIELDS) > 55
    assert {"data.classes.0.color", "data.val.list", "limits.max_pixels", "train.compile"} <= set(FIELDS)


@pytest.mark.parametrize("path", [path for path in FIELDS if "loss.0" not in path])  # it takes others for its options
def test_every_key_misspelt_by_one_letter_is_named_with_its_line_and_the_right_word(path: str, tmp_path: Path) -> None:
    *above, key = path.split(".")
    rows = ["  " * level + ("-" if name == "0" else f"{name}:") for level, name in enumerate(above)]
    others = {name for other in FIELDS for name in other.split(".")} - {key}
    for wrong in {key[:-1] + "q", key[0] + key[2:], key + key[-1], key[0] + "z" + key[1:]}:
        if others & {wrong, wrong[:-1]}:
            continue  # `colorq` is as near to `color` as to `colors`
        text = "\n".join([*rows, f"{'  ' * len(above)}{wrong}: 1"])
        where = f"streets.yaml:{len(rows) + 1}: {'.'.join([*above, wrong])}"
        assert f"{where}: unknown key; did you mean '{key}'?" in problems(written(tmp_path, text)), wrong


@pytest.mark.parametrize("path", FIELDS)
def test_every_field_refuses_every_other_type(path: str, tmp_path: Path) -> None:
    file = written(tmp_path, EVERYTHING)
    values = misfits(FIELDS[path])
    assert len(values) >= 4
    for value in values:
        found = problems(file, f"{path}={value}")
        assert all(problem.startswith(f"--set {path}: ") for problem in found), (value, found)
        assert any(re.search("expected|unknown key|missing", problem) for problem in found), (value, found)


@pytest.mark.parametrize(
    ("key", "written_as", "said"),
    [
        ("batch_size: 8", "batch_size: 8.0", "expected a whole number, found 8.0; write 8"),
        ("batch_size: 8", 'batch_size: "8"', "expected a whole number, found '8'; write a plain decimal number"),
        ("batch_size: 8", "batch_size: 010", "expected a whole number, found '010'; write a plain decimal number"),
        ("batch_size: 8", "batch_size: true", "expected a whole number, found true"),
        ("lr: 1e-3", "lr: .inf", "expected a number, found '.inf'"),
        ("lr: 1e-3", "lr: 1_000", "expected a number, found '1_000'; write a plain decimal number"),
        ("compile: auto", "compile: on", "expected auto, true or false, found 'on'; write true or false"),
        ("schedule: poly", "schedule: ploy", "found 'ploy'; did you mean 'poly'?"),
        ("name: sky,", "name: 3,", "expected text, found 3; put quotes around it if it is text"),
        ("crop: [352, 480]", "crop: 352", "expected a list of 2 whole numbers or null, found 352"),
        ("crop: [352, 480]", "crop: [352]", "expected a list of 2 whole numbers or null, found [352]"),
        ("crop: [352, 480]", "crop: [1, 2, 3]", "expected a list of 2 whole numbers or null, found [1, 2, 3]"),
        ("decoder: unet", "decoder: {upsample: nearest}", "model.decoder.name: missing"),
        ("decoder: unet", "decoder:", "expected a name or a mapping with `name` and its options, found null"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_remedy(key: str, written_as: str, said: str, tmp_path: Path) -> None:
    text = edited(STREETS, (key, written_as))
    (found,) = problems(written(tmp_path, text))
    line = 1 + text[: text.index(written_as)].count("\n")
    assert found.startswith(f"streets.yaml:{line}: ")
    assert said in found


def test_all_problems_are_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = edited(
        STREETS,
        ("encoding:", "encodng:"),
        ("values: [1, 3..9]", "values: [1, 9..3]"),
        ("weight: 0.5", "weight: heavy"),
        ("flip: horizontal", "flip: sideways"),
        ("batch_size: 8", "batch_size: 0"),
    )
    found = problems(written(tmp_path, text), "optim.lr=-1", "train.stepz=3")
    assert found == [
        "streets.yaml:2: data.encodng: unknown key; did you mean 'encoding'?",
        "streets.yaml:15: loss.1.weight: expected a number, found 'heavy'",
        "streets.yaml:16: augment.flip: expected none, horizontal, vertical or both, found 'sideways'",
        "streets.yaml:18: train.batch_size: expected at least 1 and at most a million, found 0",
        "--set optim.lr: expected above 0, found -1.0",
        "--set train.stepz: unknown key; did you mean 'steps'?",
    ]


def test_rules_that_read_what_could_not_be_read_keep_silent(tmp_path: Path) -> None:
    text = edited(STREETS, ("encoding: index", "encoding: palete"), ("name: building", "name: sky"))
    found = problems(written(tmp_path, text))
    assert [problem.split(": ")[1] for problem in found] == ["data.encoding", "data.classes.1.name"]


def test_a_class_without_a_name_does_not_hide_other_problems(tmp_path: Path) -> None:
    text = edited(STREETS, ("name: sky,", ""), ("lr: 1e-3", "lr: 0"))
    assert [problem.split(": ")[1] for problem in problems(written(tmp_path, text))] == [
        "data.classes.0.name",
        "optim.lr",
    ]


@pytest.mark.parametrize("key", ["a.b: 1", "1: 2", "0.0: 1", '"": 1', "data.root: x", "? ''"])
def test_odd_keys_are_unknown_keys(key: str, tmp_path: Path) -> None:
    assert all("unknown key" in problem for problem in problems(written(tmp_path, f"{STREETS}{key}\n")))


# Rules

RULES = [
    (["data.classes=[]"], "data.classes: no classes; list them"),
    (["data.classes=[{name: a, values: [0]}]"], "data.classes: one class only"),
    (
        ["data.classes=[" + ",".join(f"{{name: c{i}, values: [{i}]}}" for i in range(256)) + "]"],
        "256 classes; expected at most 255",
    ),
    (["data.classes.1.name=sky"], "class 0 is named 'sky' too"),
    (["data.classes.1.name=' '"], "an empty name"),
    (['data.classes.1.name="a\\nb"'], "do not print"),
    (['data.classes.1.name="a\\u202eb"'], "do not print"),
    (["data.classes.1.values=[0]"], "0 is already given by data.classes.0.values.0 (class 'sky')"),
    (["data.classes.1.values=[5, 1..9]"], "1..9 is already given by data.classes.1.values.0"),
    (["data.classes.1.values=[0..9]"], "0..9 is already given by data.classes.0.values.0 (class 'sky')"),
    (["data.ignore=[4]"], "--set data.ignore: data.ignore.0: 4 is already given by data.classes.1.values.1"),
    (["data.ignore=[1..300]"], "data.ignore.0: 1..300 is already given by data.classes.1"),
    (["data.ignore=[7..6]"], "an empty range, 7..6; write the smaller end first, 6..7"),
    (["data.ignore=[void]"], "expected a whole number, or a range such as 1..65535, found 'void'"),
    (["data.ignore=[1..]"], "found '1..'"),
    (["data.ignore=[4294967296]"], "beyond the 32-bit integers"),
    (["data.ignore=[-2147483649]"], "beyond the 32-bit integers"),
    (["data.ignore=[12..99999999999]"], "found '12..99999999999'"),
    (
        ["data.encoding=rgb", "data.ignore=[]"],
        "data.classes.0.values: not read with data.encoding: rgb, which reads `colors`",
    ),
    (
        ["data.encoding=palette", 'data.classes=[{name: a}, {name: b, colors: ["#000000"]}]', "data.ignore=[]"],
        "data.classes.0: no `colors`, which data.encoding: palette reads",
    ),
    (['data.classes.1.colors=["#000000"]'], "data.classes.1.colors: not read with data.encoding: index"),
    (["data.classes.1.values=[]"], "data.classes.1: no `values`, which data.encoding: index reads"),
    (["data.classes.0.color=red"], "expected a colour as '#rrggbb', found 'red'"),
    (
        [
            "data.encoding=rgb",
            'data.classes=[{name: a, colors: ["#ABCDEF"]}, {name: b, colors: ["#abcdef"]}]',
            "data.ignore=[]",
        ],
        "data.classes.1.colors.0: #abcdef is already given by data.classes.0.colors.0 (class 'a')",
    ),
    (["data.encoding=rgb", 'data.classes=[{name: a, colors: ["#ABCDEF"]}, {name: b, colors: [blue]}]'], "found 'blue'"),
    (
        ["data.encoding=rgb", 'data.classes=[{name: a, colors: ["#000000"]}, {name: b, colors: ["#000001"]}]'],
        "data.ignore.0: expected a colour as '#rrggbb', found 11",
    ),
    (["data.encoding=threshold", "data.classes=[{name: a, values: [0]}, {name: b}]"], "nearest of at least two values"),
    (
        ["data.encoding=alpha", "data.classes=[{name: a, values: [0]}, {name: b}]"],
        "data.encoding: alpha takes the nearest",
    ),
    (["data.nearest=true"], "only for colours, but data.encoding is index"),
    (["data.val={images: a}"], "--set data.val: no masks, which data.format: folders reads"),
    (["data.val={}"], "no images and no masks"),
    (["data.val={images: a, masks: b, part: c}"], "data.val.part: names lines of a list, but there is no list"),
    (["data.format=list", "data.train={list: a, pairing: {mask_suffix: b}}"], "train.pairing: not read with"),
    (["data.val={images: '', masks: b}"], "data.val.images: an empty path"),
    (["data.format=list"], "data.train: no list, which data.format: list reads"),
    (["data.split.val=1"], "--set data.split.val: expected at least 0 and below 1, found 1.0"),
    (["data.split.test=-0.1"], "expected at least 0 and below 1, found -0.1"),
    (
        ["data.split={val: 0.5, test: 0.5}", "data.val=null"],
        "data.split: val 0.5 and test 0.5 leave nothing to train on",
    ),
    (["data.split.group='('"], "'(' is no regular expression"),
    (["data.split.group=abc"], "'abc' has no group"),
    (["data.mean=[0, 0, 0]"], "data.mean: given without data.std"),
    (["data.std=[1, 1, 1]"], "data.std: given without data.mean"),
    (["data.mean=[0, 0]", "data.std=[1, 1, 1]"], "data.mean: 2 values for 3 channels"),
    (["data.mean=[0.5]", "data.std=[0.5]"], "1 values for 3 channels"),
    (["data.mean=[124, 116, 104]", "data.std=[1, 1, 1]"], "divide by 255"),
    (["data.mean=[0, 0, 0]", "data.std=[1, 0, 1]"], "data.std: expected above 0 to 1"),
    (["data.mean=[]", "data.std=[]"], "0 values for 3 channels"),
    (["data.palette=abcd"], "expected 6 hexadecimal digits for each"),
    (["data.palette=zzzzzz"], "expected 6 hexadecimal digits for each"),
    (["data.palette=''"], "expected 6 hexadecimal digits for each"),
    ([f"data.palette='{'0' * 6 * 257}'"], "1 to 256 colours, found 1542 characters"),
    (["data.channels=0"], "expected at least 1 and at most 65,535, found 0"),
    (["loss=[]"], "--set loss: no loss"),
    (["loss.1.weight=-1"], "expected at least 0, found -1.0"),
    (["loss=[{name: dice, weight: 0}]"], "every weight is 0"),
    (["augment.crop.1=0"], "at least 1 pixel, found [352, 0]"),
    (["augment.scale=[2, 1]"], "an upper end not below it, found [2.0, 1.0]"),
    (["augment.scale=[0, 1]"], "a lower end above 0"),
    (["augment.rotate=-1"], "from 0 to 180 degrees, found -1.0"),
    (["augment.color=1.1"], "from 0 to 1, found 1.1"),
    (["optim.lr=0"], "expected above 0, found 0.0"),
    (["optim.weight_decay=-1"], "expected at least 0"),
    (["optim.momentum=1"], "expected at least 0 and below 1"),
    (["optim.power=0"], "expected above 0"),
    (["optim.warmup=-1"], "expected at least 0"),
    (["optim.clip=0"], "expected above 0, or null for no clipping"),
    (["train.epochs=0"], "expected above 0"),
    (["train.steps=0"], "expected at least 1"),
    (["train.epochs=1", "train.steps=1"], "train.steps: train.epochs is given too"),
    (["train.batch_size=0"], "expected at least 1"),
    (["train.eval_every=0"], "expected above 0"),
    (["train.eval_every=1e308"], "expected above 0 and at most a trillion, found 1.0e+308"),
    (["train.samples=1000001"], "expected at least 0 and at most a million"),
    (["augment.blur=1e308"], "expected at least 0 and at most 1,000 pixels"),
    (["augment.elastic=1e308"], "expected at least 0 and at most 10,000 pixels"),
    (["augment.scale=[1e-308, 1.0]"], "expected a range within 0.001 to 1,000"),
    (["augment.scale=[1.0, 1e308]"], "expected a range within 0.001 to 1,000"),
    (["train.patience=0"], "expected at least 1, or null for never"),
    (["train.ema=1"], "expected above 0 and below 1, or null for none"),
    (["train.ema=0"], "expected above 0 and below 1, or null for none"),
    (["train.seed=-1"], "expected at least 0"),
    (["train.workers=-1"], "expected auto, or at least 0"),
    (["train.keep=0"], "expected at least 1"),
    (["train.samples=-1"], "expected at least 0"),
    (["limits.max_pixels=0"], "expected at least 1"),
]


@pytest.mark.parametrize(("overrides", "said"), RULES, ids=[" ".join(sets)[:60] for sets, _ in RULES])
def test_a_value_that_cannot_be_meant_is_refused(overrides: list[str], said: str, streets: Path) -> None:
    found = problems(streets, *overrides)
    assert any(said in problem for problem in found), found


@pytest.mark.parametrize(
    "overrides",
    [
        ["data.ignore=[2, 10..300, -1]"],
        ["data.classes.1.values=[5..5]"],
        ["data.encoding=threshold", "data.classes.1.values=[200..255]", "data.ignore=[]"],
        ["data.split={val: 0.6, test: 0.6}", "data.test={images: a, masks: b}"],
        ["data.mean=[0, 0.5, 1]", "data.std=[1, 1, 1]"],
        ["data.channels=1", "data.mean=[0.5]", "data.std=[0.25]"],
        ["train.epochs=0.5"],
        ["train.ema=null", "train.patience=null", "optim.clip=null", "train.workers=0"],
        ["train.compile=false"],
        ["loss=[{name: dice, weight: 0}, cross_entropy]"],
        ["data.split.group=^(\\w+)_(a|b)"],
        ["data.train={images: ., masks: .}"],
    ],
)
def test_a_value_at_the_edge_is_accepted(overrides: list[str], streets: Path) -> None:
    load_config(streets, overrides)


# Overrides


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("optim.lr=3e-4", "optim.lr", 3e-4),
        ("loss.1.weight=0.3", "loss.1.weight", 0.3),
        ("loss.0=dice", "loss.0", "dice"),
        ("augment.crop.0=64", "augment.crop", [64, 480]),
        ("augment={crop: [8, 9]}", "augment", plain(Augment(crop=(8, 9)))),
        ("data.root=/abs/dir", "data.root", "/abs/dir"),
        ("data.root=a=b#c", "data.root", "a=b#c"),
        ('data.root="a #b"', "data.root", "a #b"),
        ("data.val=null", "data.val", None),
        ("data.val=", "data.val", None),
        ("data.test.images=x", "data.test", {"images": "x", "masks": "m"}),
        ("model.encoder=resnet34", "model.encoder", "resnet34"),
        ("model.encoder.channels=[8,16]", "model.encoder", {"name": "conv", "channels": [8, 16], "downsample": "max"}),
        ("model.decoder.upsample=nearest", "model.decoder", {"name": "unet", "upsample": "nearest"}),
        ("model.decoder.upsample.kernel=4", "model.decoder", {"name": "unet", "upsample": {"kernel": 4}}),
        ("model.decoder.name=fcn", "model.decoder", {"name": "fcn"}),
        ("loss.0.label_smoothing=0.1", "loss.0", {"name": "cross_entropy", "label_smoothing": 0.1}),
        ("data.split.group=^(a)", "data.split.group", "^(a)"),
        ("limits.max_pixels=5", "limits", {"max_pixels": 5}),
        (" optim.lr =1", "optim.lr", 1),
    ],
)
def test_an_override_changes_one_value_and_nothing_else(override: str, path: str, value: Any, streets: Path) -> None:
    extra = ["data.test.masks=m"] if path == "data.test" else []
    base = plain(load_config(streets, ["data.test={images: i, masks: m}"] if extra else []))
    after = plain(load_config(streets, [*extra, override]))
    value = "fcn" if value == {"name": "fcn"} else value
    names_of = path.split(".")
    for data in (base, after):
        holder = data
        for name in names_of[:-1]:
            holder = holder[int(name)] if isinstance(holder, list) else holder[name]
        last: Any = int(names_of[-1]) if isinstance(holder, list) else names_of[-1]
        if data is after:
            assert holder[last] == value
        holder[last] = "taken out"
    assert after == base


def test_an_override_below_a_default_keeps_the_defaults_name(tmp_path: Path) -> None:
    head = STREETS[: STREETS.index("model:")]
    config = load_config(
        written(tmp_path, head),
        ["model.decoder.upsample=nearest", "model.encoder.channels=[8]", "loss.0.label_smoothing=0.1"],
    )
    assert config.model == Model(Component("conv", {"channels": [8]}), Component("unet", {"upsample": "nearest"}))
    assert config.loss == (LossTerm("cross_entropy", {"label_smoothing": 0.1}),)


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps"),
    [
        (["train.steps=5"], None, 5),
        (["train.epochs=3"], 3, None),
        (["train.steps=5", "train.epochs=null"], None, 5),
        (["train.steps=null"], 20, None),
        (["train.epochs=null"], 100, None),
        (["train={steps: 5}"], None, 5),
        (["train.steps=5", "train.steps=6"], None, 6),
    ],
)
def test_epochs_and_steps_take_each_others_place(
    overrides: list[str], epochs: float | None, steps: int | None, streets: Path
) -> None:
    train = load_config(streets, overrides).train
    assert (train.epochs, train.steps) == (epochs, steps)


def test_an_override_settles_a_file_that_gives_both_lengths(tmp_path: Path) -> None:
    path = written(tmp_path, edited(STREETS, ("epochs: 20", "epochs: 20, steps: 7")))
    assert problems(path) == [
        "streets.yaml:18: train.steps: train.epochs is given too, and they exclude each other; keep one of the two"
    ]
    assert load_config(path, ["train.epochs=2"]).train.steps is None


def test_a_resolved_config_takes_an_override_of_the_other_length(streets: Path, tmp_path: Path) -> None:
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(dump_config(load_config(streets)))
    train = load_config(resolved, ["train.steps=9"]).train
    assert (train.epochs, train.steps) == (None, 9)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("optim.lr", "--set optim.lr: expected KEY=VALUE"),
        ("=3", "--set =3: expected KEY=VALUE"),
        ("", "--set : expected KEY=VALUE"),
        ("a..b=1", "an empty name in 'a..b'"),
        (".a=1", "an empty name"),
        ("loss.2=dice", "--set loss.2: loss has no position 2, the last position is 1"),
        ("loss.-1=dice", "expected a position from 0, found '-1'"),
        ("loss.first=dice", "expected a position from 0, found 'first'"),
        ("loss.99999999999999.weight=1", "has no position"),
        ("data.root.x=1", "data.root is '../data/streets', which has no keys; set data.root itself"),
        ("optim.lr.x=1", "optim.lr is 0.001, which has no keys"),
        ("data.mean.0=1", "data.mean has no items; set the whole list, such as data.mean=[1, 2]"),
        ("train.seed=[", "--set train.seed: not YAML"),
        ("train.seed=*x", "--set train.seed: aliases"),
        ("augment={crop: [1, 2], crop: null}", "--set augment: crop: the key is already given"),
        ("data.classes.0.color=#808080", "#808080 begins a comment in YAML; put quotes around the text"),
        ("data.pairing.mask_suffix=a # b", "# b begins a comment"),
        ("a: b=1", "unknown key"),
        ("trian.seed=1", "--set trian.seed: trian: unknown key; did you mean 'train'?"),
        ("train.seed.=1", "an empty name"),
    ],
)
def test_an_override_that_cannot_be_applied_says_why(override: str, said: str, streets: Path) -> None:
    (found,) = problems(streets, override)
    assert said in found
    both = problems(streets, override, "optim.lr=0")
    assert sorted(both) == sorted([found, "--set optim.lr: expected above 0, found 0.0"])


def test_overrides_that_cannot_be_applied_are_told_at_once(streets: Path) -> None:
    assert len(problems(streets, "a", "b", "loss.7=x", "optim.lr=1")) == 3


# Origins


def test_show_tells_where_each_value_came_from(streets: Path) -> None:
    config = load_config(streets, ["augment.crop.0=64", "loss.0.label_smoothing=0.1", "optim.lr=3e-4"])
    shown = {path: (value, origin.replace(f"{streets.parent}/", "")) for path, value, origin in show(config)}
    assert shown["data.root"] == ("../data/streets", "streets.yaml:3")
    assert shown["data.classes.1.values"] == ([1, "3..9"], "streets.yaml:8")
    assert shown["augment.crop"] == ([64, 480], "streets.yaml:16, --set augment.crop.0")
    assert shown["loss.0.name"] == ("cross_entropy", "streets.yaml:14")
    assert shown["loss.0.label_smoothing"] == (0.1, "--set loss.0.label_smoothing")
    assert shown["model.decoder"] == ("unet", "streets.yaml:12")
    assert shown["optim.lr"] == (3e-4, "--set optim.lr")
    assert shown["train.seed"] == (0, "streets.yaml:19")
    assert shown["train.keep"] == (2, "default")


def test_show_has_every_value_once(streets: Path) -> None:
    rows = show(load_config(streets))
    assert len({path for path, _, _ in rows}) == len(rows)
    assert not any(path.startswith("origins") for path, _, _ in rows)


def test_problems_found_later_get_their_place(streets: Path) -> None:
    config = load_config(streets, ["model.decoder.upsample.kernel=4", "optim.lr=1"])
    later = [
        Problem("model.encoder.channels", "too many"),
        Problem("model.decoder.upsample.kernel", "too big"),
        Problem("data.test", "missing"),
        Problem("limits.max_pixels", "too few"),
    ]
    with pytest.raises(ConfigError) as caught, located(config):
        raise ConfigError(*later)
    assert [problem.replace(f"{streets.parent}/", "") for problem in caught.value.problems] == [
        "streets.yaml:11: model.encoder.channels: too many",
        "--set model.decoder.upsample.kernel: too big",
        "streets.yaml:1: data.test: missing",
        "streets.yaml: limits.max_pixels: too few",
    ]
    assert isinstance(caught.value.__cause__, ConfigError)


def test_other_errors_pass_through_located(streets: Path) -> None:
    with pytest.raises(KeyError), located(load_config(streets)):
        raise KeyError("x")
    original = ConfigError("a.csv: something")
    with pytest.raises(ConfigError) as caught, located(load_config(streets)):
        raise original
    assert caught.value is original


def test_origins_take_no_part_in_equality_and_survive_replace(streets: Path) -> None:
    config = load_config(streets)
    replaced = dataclasses.replace(config, train=Train(steps=1))
    assert replaced.origins is config.origins
    assert dataclasses.replace(config, origins=Config().origins) == config
    assert "origins" not in dump_config(config)


def test_plain_data_is_parsed_without_a_file() -> None:
    config = parse_config({"data": {"classes": [{"name": "a", "values": [0]}, {"name": "b", "values": [1]}]}})
    assert [spec.name for spec in config.data.classes] == ["a", "b"]
    with pytest.raises(ConfigError, match=r"^optim\.lr: expected a number, found NaN$"):
        parse_config({**plain(config), "optim": {"lr": float("nan")}})


# Writing


NAME = st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=8).filter(
    str.strip
)
PATH = NAME | st.sampled_from(["010", "off", "1..3", "#808080", "3e-4", "null", "a: b", "../x y"])
NUMBER = st.floats(1e-12, 1e12)
OPTION = st.none() | st.booleans() | st.integers(-5, 5) | NUMBER | PATH | st.lists(st.integers(0, 9), max_size=3)
OPTIONS = st.dictionaries(
    st.from_regex(r"[a-z]{1,5}", fullmatch=True).filter(lambda k: k not in ("name", "weight")), OPTION, max_size=3
)
COMPONENT = st.builds(Component, PATH, OPTIONS)
FOLDERS = st.builds(Folders, images=PATH, masks=PATH)
COLOR = st.from_regex(r"#[0-9a-f]{6}", fullmatch=True)


@st.composite
def data_sections(draw: st.DrawFn) -> Data:
    labels = draw(st.lists(NAME, min_size=2, max_size=4, unique=True))
    classes = tuple(
        ClassSpec(label, (10 * index, f"{10 * index + 1}..{10 * index + 9}"), (), draw(st.none() | COLOR))
        for index, label in enumerate(labels)
    )
    return Data(
        root=draw(PATH),
        train=draw(FOLDERS),
        val=draw(st.none() | FOLDERS),
        split=Split(
            val=draw(st.floats(0, 0.4)), test=draw(st.floats(0, 0.4)), group=draw(st.none() | st.just("^(.*)_[0-9]+"))
        ),
        pairing=Pairing(mask_suffix=draw(PATH)),
        classes=classes,
        ignore=draw(st.sampled_from([(), (255,), ("200..255", 100)])),
        exif=draw(st.sampled_from(["apply", "ignore", "error"])),
        mask_mode=draw(st.sampled_from([None, "L", "1", "I;16"])),
        palette=draw(st.none() | st.just("010203")),
    )


CONFIGS = st.builds(
    Config,
    data=data_sections(),
    model=st.builds(Model, COMPONENT, COMPONENT),
    loss=st.lists(st.builds(LossTerm, PATH, OPTIONS, NUMBER), min_size=1, max_size=3).map(tuple),
    augment=st.builds(
        Augment, crop=st.none() | st.tuples(st.integers(1, 999), st.integers(1, 999)), rotate=st.floats(0, 180)
    ),
    optim=st.builds(Optim, lr=NUMBER, clip=st.none() | NUMBER, warmup=st.integers(0, 2**40)),
    train=st.builds(
        Train,
        epochs=NUMBER,
        ema=st.none() | st.floats(0.1, 0.9),
        compile=st.sampled_from(["auto", True, False]),
        workers=st.sampled_from(["auto", 0, 4]),
    ),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(CONFIGS)
def test_a_dumped_config_loads_to_an_equal_one(tmp_path: Path, config: Config) -> None:
    path = tmp_path / "dumped.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config
    assert dump_config(load_config(path)) == dump_config(config)


def test_components_are_written_as_bare_names_where_nothing_is_set() -> None:
    nested = Config(model=Model(Component("conv"), Component("fcn", {"upsample": Component("nearest", {"a": (1, 2)})})))
    text = dump_config(nested)
    assert "model: {encoder: conv, decoder: {name: fcn, upsample: {name: nearest, a: [1, 2]}}}\n" in text
    assert "loss: [cross_entropy]\n" in text


def test_a_config_is_plain_json() -> None:
    assert json.loads(json.dumps(plain(Config())))["train"]["batch_size"] == 8


# Schema and reference


def accepts(schema: dict[str, Any], value: Any) -> bool:
    """A slow and obvious validator of the few words of JSON Schema that `schema` uses."""
    if isinstance(value, int | float):
        least, most = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        above, below = schema.get("exclusiveMinimum", -math.inf), schema.get("exclusiveMaximum", math.inf)
        if not (least <= value <= most and above < value < below):
            return False
    if "anyOf" in schema:
        return any(accepts(option, value) for option in schema["anyOf"])
    if "enum" in schema:
        return any(value == choice and type(value) is type(choice) for choice in schema["enum"])
    kind = {dict: "object", list: "array", str: "string", bool: "boolean", int: "integer", float: "number"}.get(
        type(value), "null"
    )
    if schema["type"] != kind and not (schema["type"] == "number" and kind == "integer"):
        return False
    if kind == "array":
        items = schema.get("prefixItems") or [schema["items"]] * len(value)
        return len(items) == len(value) and all(map(accepts, items, value))
    if kind == "object":
        known = schema["properties"]
        fitting = all(accepts(known[key], item) for key, item in value.items() if key in known)
        complete = set(schema.get("required", ())) <= set(value)
        return fitting and complete and (schema["additionalProperties"] or set(value) <= set(known))
    return len(value) >= schema.get("minLength", 0) if kind == "string" else True


def test_the_schema_accepts_what_loads(tmp_path: Path) -> None:
    for text in (STREETS, EVERYTHING, dump_config(Config())):
        assert accepts(schema(), load_file(written(tmp_path, text)).data)


@pytest.mark.parametrize("path", FIELDS)
def test_the_schema_refuses_what_does_not_load(path: str, tmp_path: Path) -> None:
    from segtool.config.yaml_io import load

    data = load_file(written(tmp_path, EVERYTHING)).data
    for text in misfits(FIELDS[path]):
        changed, *_ = apply(data, {}, [f"{path}={text}"], defaults={})
        assert not accepts(schema(), changed), load(text, where=str).data


@pytest.mark.parametrize("path", BOUNDS)
def test_the_schema_has_the_ends_of_the_numbers_that_load_and_the_page_tells_them(path: str, tmp_path: Path) -> None:
    data = load_file(written(tmp_path, STREETS)).data
    for value in (-1, 0, 1, 181, 10**13):
        changed, *_ = apply(data, {}, [f"{path}={value}"], defaults={})
        said = ""
        try:
            parse_text(STREETS, "c.yaml", [f"{path}={value}"])
        except ConfigError as error:
            said = str(error)
        assert accepts(schema(), changed) is not (f"{path}: expected" in said), value
    assert f"Expected: {BOUNDS[path].words}." in reference()


@pytest.mark.parametrize("path", BOUNDS)
def test_the_words_of_a_bound_tell_its_numbers(path: str) -> None:
    words, ends = BOUNDS[path]
    words = words.replace("a million", "1000000").replace("a trillion", "1000000000000").replace(",", "")
    if closed := re.match(r"(?:from )?(\d+)(?: to (\d+))?", words):
        told = {"minimum": float(closed[1]), "maximum": float(closed[2] or closed[1])}
    else:
        kinds = {"at least": "minimum", "above": "exclusiveMinimum", "at most": "maximum", "below": "exclusiveMaximum"}
        told = {kinds[kind]: float(end) for kind, end in re.findall(rf"({'|'.join(kinds)}) (\d+)", words)}
    untold = {"exclusiveMaximum": MAX_SEED}  # nobody's seed comes near
    assert told == {kind: end for kind, end in ends.items() if (kind, end) not in untold.items()}


def test_the_schema_names_every_component_by_text_or_mapping() -> None:
    encoder = schema()["properties"]["model"]["properties"]["encoder"]
    bare, mapping = encoder["anyOf"]
    assert bare["type"] == "string"
    assert mapping["required"] == ["name"]
    assert mapping["additionalProperties"] is True
    assert schema()["properties"]["loss"]["items"]["anyOf"][1]["properties"]["weight"]["type"] == "number"
    assert "origins" not in schema()["properties"]


def test_every_field_has_its_sentence() -> None:
    def classes(cls: Any) -> Iterator[Any]:
        yield cls
        for _, annotation in fields_below(cls, ""):
            yield from (m for m in (annotation, *get_args(annotation)) if dataclasses.is_dataclass(m))

    for cls in {c for c in classes(Sections) if not issubclass(c, Component)}:
        assert set(field_docs(cls)) == {field.name for field in dataclasses.fields(cls)}, cls
        assert all(text.endswith(".") for text in field_docs(cls).values()), cls


def test_the_reference_page_is_current() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "make_config_reference.py"))
    assert script["main"](["--check"]) == 0


def test_the_reference_has_a_row_for_every_option_of_a_component() -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    for entry in [entry for kind in COMPONENTS for entry in entries(kind)]:
        assert f"\n* `{entry.name}`: " in page, entry.name
        assert all(f"\n| `{option.name}` | " in page for option in entry.options), entry.name


def test_the_reference_has_a_row_for_every_key() -> None:
    text = reference()
    assert all(f"\n| `{path.rpartition('.')[2]}` | " in text for path in FIELDS)


def test_the_example_of_the_reference_page_loads(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    path = written(tmp_path, example)
    assert load_config(path).train.steps == 5000
    for override in re.findall(r"\| `--set '?([^`']+)'?` \|", page):
        load_config(path, [override])


def test_importing_the_config_is_cheap() -> None:
    code = "import sys, time; import segtool.config; print(time.process_time(), *sys.modules)"
    spent, *modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"torch", "numpy", "pydantic", "PIL"} & set(modules)
    assert float(spent) < 0.5  # 0.07 s on an idle machine; pydantic alone takes more


# Components


class Plain:
    """A component with options of several types.

    Args:
        width: given by the code.
        kernel: size in pixels,
            of each side.
        inner: another component.
    """

    def __init__(
        self,
        width: int,
        *,
        kernel: int = 2,
        mode: Literal["a", "b"] = "a",
        scale: float | None = None,
        sizes: tuple[int, ...] = (1, 2),
        inner: Component = Component("nearest", {"x": 1}),  # noqa: B008 - frozen
    ) -> None:
        if kernel < 1:
            raise ValueError(f"expected a kernel of at least 1, found {kernel}")
        self.values = (width, kernel, mode, scale, sizes, inner)


class Demanding:
    """Has an option without a default."""

    def __init__(self, *, channels: tuple[int, ...]) -> None:
        self.channels = channels


@pytest.fixture
def dummies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registers two components of a kind of their own."""
    monkeypatch.setitem(MODULES, "dummy", ("json",))
    monkeypatch.setitem(_registered, "dummy", {})
    register("dummy", "plain")(Plain)
    register("dummy", "demanding")(Demanding)


@pytest.mark.parametrize("value", [True, 1.0, "1"])
def test_a_listed_number_is_taken_from_a_whole_number_alone(value: object) -> None:
    numbers = Literal[0, 1, 2]
    assert parse(numbers, 1, path="skips") == 1
    with pytest.raises(ConfigError, match=r"^skips: expected 0, 1 or 2, found "):
        parse(numbers, value, path="skips")


@pytest.mark.usefixtures("dummies")
class TestRegistry:
    def test_names_are_in_the_order_of_registration(self) -> None:
        assert names("dummy") == ["plain", "demanding"]

    def test_options_come_from_the_signature_and_the_docstring(self) -> None:
        found = options(Plain)
        assert list(found) == ["kernel", "mode", "scale", "sizes", "inner"]
        assert (found["kernel"].annotation, found["kernel"].default) == (int, 2)
        assert found["kernel"].doc == "size in pixels, of each side."
        assert found["mode"].doc == ""

    def test_a_component_is_built_with_parsed_options(self) -> None:
        component = Component("plain", {"sizes": [3, 4], "scale": 2, "inner": "bilinear"})
        built = build("dummy", component, 7, path="model.decoder")
        assert built.values == (7, 2, "a", 2.0, (3, 4), Component("bilinear"))

    def test_a_nested_component_without_a_name_changes_the_default(self) -> None:
        built = build("dummy", Component("plain", {"inner": {"kernel": 4}}), 7, path="m")
        assert built.values[-1] == Component("nearest", {"x": 1, "kernel": 4})

    def test_an_unknown_name_gets_a_proposal(self) -> None:
        with pytest.raises(ConfigError, match=r"^m: unknown dummy 'plian'; did you mean 'plain'\?$"):
            build("dummy", Component("plian"), path="m")
        with pytest.raises(ConfigError, match=r"known: demanding, plain"):
            build("dummy", Component("zzz"), path="m")

    def test_all_wrong_options_are_told_at_once(self) -> None:
        given = {"kernal": 3, "mode": "c", "scale": "big", "sizes": [1, True], "kernel": 2.0, "inner": {"name": 3}}
        with pytest.raises(ConfigError) as caught:
            build("dummy", Component("plain", given), 1, path="model.decoder")
        assert caught.value.problems == (
            "model.decoder.kernal: unknown key; did you mean 'kernel'?",
            "model.decoder.mode: expected a or b, found 'c'",
            "model.decoder.scale: expected a number or null, found 'big'",
            "model.decoder.sizes.1: expected a whole number, found true",
            "model.decoder.kernel: expected a whole number, found 2.0; write 2",
            "model.decoder.inner.name: expected text, found 3; put quotes around it if it is text",
        )
        assert all(isinstance(detail, Problem) for detail in caught.value.details)

    def test_a_misspelt_key_that_all_losses_have_gets_a_proposal(self) -> None:
        term = LossTerm("plain", {"wieght": 2})
        with pytest.raises(ConfigError, match=r"^loss\.0\.wieght: unknown key; did you mean 'weight'\?$"):
            build("dummy", term, 1, path="loss.0")

    def test_an_option_without_a_default_is_missed(self) -> None:
        with pytest.raises(ConfigError, match=r"^m\.channels: missing"):
            build("dummy", Component("demanding"), path="m")

    def test_what_a_component_says_of_its_options_is_a_problem_of_the_config(self) -> None:
        with pytest.raises(ConfigError, match=r"^m: expected a kernel of at least 1, found 0$"):
            build("dummy", Component("plain", {"kernel": 0}), 1, path="m")

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: …")])
    def test_memory_that_runs_out_is_no_problem_of_the_config(
        self, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fails(_self: Plain) -> None:
            raise error

        monkeypatch.setattr(Plain, "__init__", fails)
        with pytest.raises(type(error)) as caught:
            build("dummy", Component("plain"), path="m")
        assert explain(caught.value) == 4

    def test_numbers_that_are_not_finite_are_no_options(self) -> None:
        with pytest.raises(ConfigError, match=r"m\.scale: expected a number or null"):
            build("dummy", Component("plain", {"scale": float("inf")}), 1, path="m")


def test_dumping_any_scalar_option_keeps_its_type() -> None:
    component = Component("x", {"a": 1, "b": 1.0, "c": True, "d": "1", "e": None})
    assert dump({"m": component.plain()}) == 'm: {name: x, a: 1, b: 1.0, c: true, d: "1", e: null}\n'
