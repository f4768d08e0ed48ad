"""What a run was made from and computes with, as `run.json` keeps it, and what may not change under its weights."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shlex
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy
import torch

from segtool import __version__
from segtool.config import Config, plain
from segtool.config.registry import filled
from segtool.config.yaml_io import flow, join
from segtool.data.pairs import Record
from segtool.errors import ConfigError, DataError, shown
from segtool.prediction.inference import fast_dtype
from segtool.runs.run_directory import RunDirectory
from segtool.system.distributed import World
from segtool.system.terminal import Reporter

if TYPE_CHECKING:
    from segtool.training.plan import Plan, Prepared


# What a run's weights were made for: a resume that changes one of these is a new run.
OF_DATA = ("classes", "encoding", "channels", "ignore", "mean", "std", "fold")
FIXED = ("model", "optim.name", *(f"data.{key}" for key in OF_DATA))
# What says which pairs there are and into which splits they are dealt.
DEALT = tuple(f"data.{key}" for key in ("format", "train", "val", "test", "split", "unpaired", "pairing", "exclude"))
RESOLVED = ("mean", "std", "mask_mode", "palette")  # keys of `data` that a training fills in from its data
SHOWN_IN = re.compile(r"data\.classes\.\d+\.color")  # a colour of pictures, which no weight depends on


def resolved_like(given: Config, before: Config) -> Config:
    """Returns a config as the user gives it with what the run had resolved: format of masks, mean, deviation."""
    resolved = {key: getattr(given.data, key) or getattr(before.data, key) for key in RESOLVED}
    return replace(given, data=replace(given.data, **resolved))


def refuse_changes(before: Config, after: Config, where: Path) -> None:
    """Raises ConfigError where a config differs from that of the weights in what they were made for."""
    changed = [
        f"{where}: {key} was {flow(was)} in the run and is {flow(now)} now; its weights were made for the former: "
        "start a new run for this"
        for key, was, now in _changed(_filled(before), _filled(after))
        if key.startswith(FIXED) and not SHOWN_IN.fullmatch(key)
    ]
    if changed:
        raise ConfigError(*changed)


def _filled(config: Config) -> Config:
    """Returns a config whose network sets all options, so that one which is set to its default is no change."""
    model = config.model
    encoder, decoder = filled("encoder", model.encoder), filled("decoder", model.decoder)
    return replace(config, model=replace(model, encoder=encoder, decoder=decoder))


def differences(before: Config, after: Config) -> list[str]:
    """Returns every value of the config that has changed, as a config has them."""
    return [f"{key} {flow(was)} -> {flow(now)}" for key, was, now in _changed(before, after)]


def _changed(before: Config, after: Config) -> list[tuple[str, Any, Any]]:
    """Returns each key whose value differs, with both values; null where one config lacks it."""
    return list(_differing("", plain(before), plain(after)))


def _differing(key: str, was: Any, now: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yields what differs of two plain values, as deep as both are mappings, or lists of mappings."""
    if isinstance(was, dict) and isinstance(now, dict):
        for name in dict.fromkeys([*was, *now]):
            yield from _differing(join(key, name), was.get(name), now.get(name))
    elif isinstance(was, list) and isinstance(now, list) and all(isinstance(item, dict) for item in was + now):
        for place, (one, other) in enumerate(zip_longest(was, now)):
            yield from _differing(join(key, str(place)), one, other)
    elif was != now:
        yield key, was, now


def first_facts(work: Prepared) -> dict[str, Any]:
    """Returns what `run.json` says of a run that begins."""
    return {
        "command": _command(),
        "seed": work.config.train.seed,
        "device": str(work.device),
        "processes": work.world.size,
        "job": _job(),
        "steps": work.plan.steps,
        "inference_precision": str(fast_dtype(work.device)).removeprefix("torch."),
        "choices": {choice.what: f"{choice.value} ({choice.reason})" for choice in work.plan.choices},
        "splits": {name: len(found) for name, found in work.records.items()},
        "data": fingerprint(work.records),
        **_machine(),
        "start": timestamp(),
    }


def continued_facts(
    facts: Mapping[str, Any], step: int, plan: Plan, device: torch.device, world: World, reporter: Reporter
) -> dict[str, Any]:
    """Returns the facts of a run that goes on, and warns where it computes with something else than before."""
    machine = _machine()
    computing = {"device": str(device), "processes": world.size}
    now = {"step": step, "command": _command(), **computing, **machine, "start": timestamp()}
    resumes = facts.get("resumed", [])
    before = resumes[-1] if resumes else facts
    pairs = {
        **{key: (before.get(key), value) for key, value in computing.items()},
        **{key: (before.get("host", {}).get(key), machine["host"][key]) for key in ("processor", "threads")},
        **{key: (before.get("versions", {}).get(key), version) for key, version in machine["versions"].items()},
    }
    changed = [f"{key} {was} -> {here}" for key, (was, here) in pairs.items() if was not in (None, here)]
    if changed:
        reporter.warn(
            f"the run goes on with {', '.join(changed)}: close to what it would have become, but not bit for bit"
        )
    left = {key: value for key, value in facts.items() if key not in ("end", "steps_done")}
    return {**left, "steps": plan.steps, "resumed": [*resumes, now]}


def _machine() -> dict[str, Any]:
    """Returns what a run computes with: on the same, with as many threads, the same config gives the same bits."""
    return {
        "versions": {
            "segtool": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
        },
        "host": {
            "system": platform.platform(),
            "processor": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
        },
    }


def _job() -> str | None:
    """Returns the name of the job that a launcher has started this process for; None where it has none."""
    name = os.environ.get("TORCHELASTIC_RUN_ID")
    return None if name == "none" else name  # torchrun's default, which all jobs share


def is_of_this_job(directory: Path) -> bool:
    """Whether the launcher of this process began the run, so that a process it starts again may continue it."""
    job = _job()
    return job is not None and RunDirectory(directory).read_facts().get("job") == job


def require_alike(world: World, facts: Any) -> None:
    """Raises DataError on the first process whose facts are not those of the main one; the others end with it."""
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    with world.agreed():
        if digest != world.gather_json([digest])[0]:
            raise DataError(
                f"process {world.rank} of {world.size}, on {platform.node()}, finds other files than process 0: give "
                "all hosts the same files at the same place"
            )


def is_dealt_anew(facts: Mapping[str, Any], records: Mapping[str, Sequence[Record]], changes: Sequence[str]) -> bool:
    """Whether data that has another fingerprint than when a run began has other pairs in its splits, as far as known.

    Args:
        changes: Of the config since then, as of `differences`.
    """
    sizes = {name: len(found) for name, found in records.items()}
    return facts.get("splits") != sizes or any(change.startswith(DEALT) for change in changes)


def fingerprint(records: Mapping[str, Sequence[Record]]) -> str:
    """Returns a sha256 over the stems and file sizes of all pairs."""
    digest = hashlib.sha256()
    for split, found in records.items():
        for record in found:
            sizes = [_file_size(path) for path in (record.image, record.mask) if path is not None]
            digest.update(json.dumps([split, record.stem, sizes]).encode())
    return digest.hexdigest()


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise DataError(f"{shown(path)}: was there and is not now ({error.strerror}); restore it") from error


def _command() -> str:
    return shlex.join(["segtool", *sys.argv[1:]])


def timestamp() -> str:
    """Returns the time now, as ISO 8601 with the offset from UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
