"""A whole way through the commands with a composed set: what is typed, and what is moved in between."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import Command, Result

from composed.choices import LISTED, MIXED, Choices
from composed.sets import Composed, Pair
from composed.storing import CHANNELS

NETWORKS = {
    "unet": ("model.encoder={name: conv, channels: [4, 8], norm: instance}", "model.decoder=unet"),
    "fcn": ("model.encoder={name: conv, channels: [4, 6, 8], norm: instance}", "model.decoder={name: fcn, skips: 1}"),
    "valid": ("model.encoder={name: conv, channels: [4, 8], norm: group}", "model.decoder={name: unet, valid: true}"),
    "max_unpool": (
        "model.encoder={name: conv, channels: [4, 4], downsample: max}",
        "model.decoder={name: fcn, skips: 0, upsample: max_unpool}",
    ),
}
SETTINGS = (
    "train.steps=2", "train.batch_size=2", "train.workers=0", "train.compile=false", "train.precision=fp32",
    "train.samples=1", "train.ema=null", "augment.crop=[16, 16]", "optim.lr=0.02", "optim.warmup=0",
)  # fmt: skip
QUIET = ("--quiet", "--device", "cpu")


@dataclass
class Way:
    """One way through the commands, and where things lie on it."""

    segtool: Command
    set: Composed
    home: Path
    config: Path
    settings: tuple[str, ...] = ()
    """What is set of the data each time that the config is read."""
    runs: tuple[Path, ...] = ()

    @property
    def choices(self) -> Choices:
        """What the way is made of."""
        return self.set.choices

    def do(self, *arguments: str | Path, code: int = 0) -> Result:
        """Runs a command, which must end with the code."""
        result = self.segtool(*arguments)
        assert result.code == code, f"{arguments}: {result.code}\n{result.out[-1500:]}\n{result.err[-1500:]}"
        return result

    def said(self, path: Path) -> Path:
        """Returns a path as the user types it."""
        if self.choices["spelling"] == "absolute":
            return path
        return Path(os.path.relpath(path.parent.resolve(), Path.cwd())) / path.name

    @property
    def sets(self) -> list[str]:
        """Returns the settings as they are typed."""
        return [f"--set={setting}" for setting in self.settings]

    @property
    def how(self) -> list[str]:
        """Returns the options of how a network is asked."""
        tiles = ["--tile", "16"] if self.choices["tile"] == "tiles" else []
        return [*tiles, *(["--flip"] if self.choices["flip"] == "flip" else [])]

    @property
    def first_run(self) -> Path:
        """The first run, or its first fold."""
        return self.runs[0] / "fold-1" if self.choices["members"] == "folds" else self.runs[0]

    @property
    def members(self) -> list[Path]:
        """Returns what is typed for the networks."""
        if self.choices["member"] == "checkpoint" and self.choices["members"] != "folds":
            return [self.said(sorted((run / "checkpoints").glob("step-*"))[-1]) for run in self.runs]
        return [self.said(run) for run in self.runs]


def begin(segtool: Command, made: Composed, home: Path, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Returns the way as it begins, in its working folder."""
    place = {"beside": made.root.parent, "in_root": made.root, "elsewhere": home / "configs/of mine"}
    folder = place[made.choices["config_place"]]
    elsewhere = home / "work"
    for needed in (folder, elsewhere):
        needed.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir({"config": folder, "root": made.root, "elsewhere": elsewhere}[made.choices["working_folder"]])
    return Way(segtool, made, home, folder / "own.yaml")


def write_own_config(way: Way) -> None:
    """Writes the config of somebody who knows the set."""
    root = way.set.root
    if way.choices["root_written"] == "relative":
        above = root.parent.resolve() / root.name
        is_here = way.config.parent.resolve() == root.resolve()
        root = Path("." if is_here else os.path.relpath(above, way.config.parent.resolve()))
    config = {"data": {"root": root.as_posix(), **way.set.data}, "loss": ["cross_entropy", "dice"]}
    way.config.write_text(yaml.safe_dump(config, allow_unicode=True), encoding="utf-8")


def train(way: Way) -> None:
    """Trains what is asked for: one network, two, or folds."""
    choices = way.choices
    place = way.home / "runs of mine"
    if choices["run"] == "linked":
        target = way.home / "a/big/disk"
        target.mkdir(parents=True)
        place.symlink_to(target, target_is_directory=True)
    settings = [f"--set={setting}" for setting in (*NETWORKS[choices["network"]], *SETTINGS)]
    command = ["train", way.said(way.config), *way.sets, *settings, *QUIET]
    if choices["members"] == "folds":
        way.do(*command, "--run", place / "folded", "--folds", "2")
        way.runs = (place / "folded",)
        return
    if choices["run"] == "numbered":
        way.do(*command)
        way.runs = (Path.cwd() / "runs" / f"{way.config.stem}-1",)
    else:
        way.do(*command, "--run", way.said(place / "first"))
        way.runs = (place / "first",)
    if choices["resumed"] == "resumed":
        way.do("train", way.said(way.runs[0]), "--resume", "--set=train.steps=3", *QUIET)
    if choices["members"] == "two":
        way.do(*command, "--run", place / "second", "--set=train.seed=1", *_differences(way))
        way.runs += (place / "second",)


def _differences(way: Way) -> list[str]:
    """Returns what the second network has of its own."""
    channels = data_of(way.first_run / "config.yaml")["channels"]
    others = [count for count in CHANNELS[way.choices["image"]] if count != channels]
    changed = {
        "alike": (),
        "other_network": NETWORKS["fcn" if way.choices["network"] == "unet" else "unet"],
        "other_channels": tuple(f"data.channels={count}" for count in others[:1]),
    }[way.choices["second"]]
    return [f"--set={setting}" for setting in changed]


def move(way: Way, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Returns the way after what is moved when the training is done."""
    match way.choices["afterwards"]:
        case "run_moved":
            target = way.home / "archive" / "2024" / "best"
            target.parent.mkdir(parents=True)
            shutil.move(way.runs[0], target)
            way.runs = (target, *way.runs[1:])
        case "training_removed":
            for folder in ("train/images", "images/train"):
                if (way.set.root / folder).is_dir():
                    (way.set.root / folder).rename(way.home / "training images")
        case "all_moved":
            return _all_moved(way, monkeypatch)
    return way


def _all_moved(way: Way, monkeypatch: pytest.MonkeyPatch) -> Way:
    """Moves data, configs and runs to another home, as a disk that is mounted elsewhere does."""
    old, new = way.home, way.home.with_name("another home")

    def moved(path: Path) -> Path:
        return new / os.path.relpath(path, old)

    here = Path.cwd()
    monkeypatch.chdir(old.parent)
    old.rename(new)
    for link in [path for path in new.rglob("*") if path.is_symlink()]:
        target = moved(link.readlink())
        link.unlink()
        link.symlink_to(target, target_is_directory=target.is_dir())
    monkeypatch.chdir(moved(here))
    pairs = tuple(replace(pair, image=moved(pair.image), mask=moved(pair.mask)) for pair in way.set.pairs)
    made = replace(way.set, root=moved(way.set.root), pairs=pairs)
    return replace(way, set=made, home=new, config=moved(way.config), runs=tuple(map(moved, way.runs)))


def score(way: Way) -> dict[str, Any] | None:
    """Returns what `eval` tells of the runs; None of folds without a test, which it refuses."""
    command = ["eval", *way.members, "--json", "--quiet", *_where(way), *way.how]
    data = data_of(way.first_run / "config.yaml")
    if way.choices["members"] == "folds" and not (data.get("test") or data.get("split", {}).get("test")):
        way.do(*command, code=3)
        return None
    return json.loads(way.do(*command).out)


def score_masks(way: Way, predictions: Path, masks: Path) -> dict[str, Any]:
    """Returns what `eval --predictions` tells of masks."""
    by_run = way.choices["scored_by"] == "run"
    config, sets = (way.first_run, _where(way)) if by_run else (way.config, way.sets)
    command = ["eval", "--predictions", predictions, "--masks", masks, "--config", config, "--json", *sets]
    return json.loads(way.do(*command).out)


def _where(way: Way) -> list[str]:
    """Returns what tells a run where its data is, if it was moved away from it."""
    return [f"--set=data.root={way.set.root}"] if way.choices["afterwards"] == "run_moved" else []


def predict(way: Way, pairs: list[Pair], out: Path, *more: str) -> dict[str, str]:
    """Predicts the images of some pairs, and returns for each pair's stem that of its mask in `out`."""
    inputs, stems = _inputs(way, pairs)
    extras = [f"--{name}" for name in ("overlay", "probabilities") if way.choices["extras"] in (name, "both")]
    way.do("predict", *way.members, *map(way.said, inputs), "--out", out, "--quiet", *extras, *way.how, *more)
    return stems


def _inputs(way: Way, pairs: list[Pair]) -> tuple[list[Path], dict[str, str]]:
    if way.choices["inputs"] == "files":
        return [pair.image for pair in pairs], {pair.stem: pair.image.stem for pair in pairs}
    if way.choices["inputs"] == "tree":
        tree = way.home / "copied images"
        for pair in pairs:
            copy_to(pair.image, tree / (pair.stem + pair.image.suffix))
        return [tree], {pair.stem: pair.stem for pair in pairs}
    folder = way.set.root / _folder(way, pairs, "images")
    return [folder], {pair.stem: pair.image.relative_to(folder).with_suffix("").as_posix() for pair in pairs}


def folder_of_masks(way: Way, pairs: list[Pair]) -> Path:
    """Returns a folder that holds the masks of these pairs and no others."""
    folder = way.set.root / _folder(way, pairs, "masks")
    if way.choices["layout"] in ("splits", "splits_inside") or len(pairs) == len(way.set.pairs):
        return folder
    copied = way.home / "truth"
    for pair in pairs:
        copy_to(pair.mask, copied / pair.mask.relative_to(folder))
    return copied


def _folder(way: Way, pairs: list[Pair], kind: str) -> str:
    """Returns the folder of images or masks below the root; of a layout with folders of splits, that of these pairs."""
    layout, split = way.choices["layout"], pairs[0].split
    if layout in LISTED:
        return {"images": "scans", "masks": "drawn"}[kind]
    if layout in MIXED:
        return "images/masks" if layout == "masks_within" else "."
    return {"splits": f"{split}/{kind}", "splits_inside": f"{kind}/{split}"}.get(layout, kind)


def copy_to(source: Path, target: Path) -> None:
    """Copies a file, with the folders that it needs."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)


def data_of(config: Path) -> dict[str, Any]:
    """Returns the section `data` of a config file."""
    return yaml.safe_load(config.read_text(encoding="utf-8"))["data"]
