"""Checkpoints: a directory of safetensors and JSON, committed by one rename and verified by sha256. No pickle.

step-00001200/
  model.safetensors      weights and buffers that training goes on from
  ema.safetensors        averaged weights, where the config has them
  optimizer.safetensors  the optimizer's state, as `parameter.key`
  config.yaml            the resolved config
  state.json             format version, step, score and what else training needs to go on
  manifest.json          size and sha256 of each of the above, see `checkpoint_files`; written last
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from segtool.config import Config, dump_config, load_config
from segtool.errors import CheckpointError, ConfigError, DiskError
from segtool.runs.checkpoint_files import FORMAT, OTHER, dump_json, json_object, verified, verified_file, with_manifest
from segtool.system import disk
from segtool.system.terminal import counted

STEP = re.compile(r"step-([0-9]{8,18})")
MOMENTS, COUNT = {"momentum_buffer", "exp_avg", "exp_avg_sq"}, "step"  # in an optimizer's state, by torch's names
SCALER = ("scale", "_growth_tracker")  # what changes in a gradient scaler's state, by torch's names
MAX_NUMBER = 1e300  # of a score or a scale


@dataclass(frozen=True)
class Progress:
    """Where training stands: everything that continuing needs beside tensors and config."""

    step: int = 0
    steps: int = 0
    score: float | None = None
    """Mean IoU on the validation split of the weights saved here; None where they were not scored."""
    best: float | None = None
    """Best score up to here."""
    stale: int = 0
    """Validations since the best one."""
    finished: bool = False


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint saves of a training, and what loading one writes into."""

    model: nn.Module
    ema: nn.Module | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None
    """Of the loss, in fp16."""


@dataclass(frozen=True)
class Checkpoint:
    """A verified checkpoint, read into memory on the CPU."""

    path: Path
    config: Config
    progress: Progress
    tensors: Mapping[str, Mapping[str, Tensor]]
    """By file: `model`, `optimizer` and perhaps `ema`."""
    scaler: Mapping[str, float] | None = None
    """Scale of the loss, and the steps since it was changed; of fp16 only."""

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The weights to predict with: averaged where there are such."""
        return self.tensors.get("ema", self.tensors["model"])

    def require_fit(self, network: nn.Module) -> None:
        """Compares the saved weights with those of a network, which may be without values (`outline`).

        Raises:
            CheckpointError: their names, shapes or types are not the network's, or a value is not finite.
        """
        expected = {name: _described(tensor) for name, tensor in network.state_dict().items()}
        for name in [name for name in ("model", "ema") if name in self.tensors]:
            weights = self.tensors[name]
            found = {key: _described(tensor) for key, tensor in weights.items()}
            other = next((key for key in sorted(expected | found) if found.get(key) != expected.get(key)), None)
            if other is not None:
                raise CheckpointError(
                    f"{self.path}: its weights do not fit its config: {name}.safetensors has {other[:200]!r} as "
                    f"{found.get(other, 'nothing')}, and the network has {expected.get(other, 'nothing')}; {OTHER}"
                )
            if spoiled := sorted(key for key, tensor in weights.items() if not tensor.isfinite().all()):
                raise CheckpointError(
                    f"{self.path}: {name}.safetensors has values of {spoiled[0]!r} that are not finite (of "
                    f"{counted(len(spoiled), 'tensor')} in all), which segtool saves of no training; {OTHER}"
                )

    def restore(self, state: TrainState) -> None:
        """Writes the saved weights, averages and optimizer state into those of a fresh training.

        Where the training has averages and the checkpoint none, they begin at the saved weights.

        Raises:
            CheckpointError: they are of another network or another optimizer.
        """
        saved, given = self.config.optim.name, type(state.optimizer).__name__.lower()
        if saved != given:
            raise CheckpointError(
                f"{self.path}: its optimizer state is of {saved}, and this training has {given}; set optim.name back "
                f"to {saved}, or start a new run"
            )
        try:
            state.model.load_state_dict(dict(self.tensors["model"]))
            if state.ema is not None:
                state.ema.load_state_dict(dict(self.weights))
            _restore_optimizer(state, self.tensors["optimizer"])
            if state.scaler is not None and self.scaler is not None:
                state.scaler.load_state_dict({**state.scaler.state_dict(), **self.scaler})
        except (RuntimeError, KeyError) as error:
            raise CheckpointError(
                f"{self.path}: does not fit the network of this training ({error}); {OTHER}"
            ) from error


def save(directory: Path, state: TrainState, config: Config, progress: Progress) -> Path:
    """Commits a checkpoint as `directory/step-…` and returns its path; an existing one is left as it is.

    Raises:
        DiskError: the disk did not take it; nothing of it is left, and earlier checkpoints are intact.
    """
    target = directory / f"step-{progress.step:08d}"
    if target in committed(directory):
        return target
    temporary = directory / f".tmp-{target.name}-{os.getpid()}"
    files = _contents(state, config, progress)
    disk.make_folder(directory)
    try:
        temporary.mkdir()
        for name, content in files.items():
            disk.write_new(temporary / name, content)
        disk.sync_folder(temporary)
        os.rename(temporary, target)
        disk.sync_folder(directory)
    except OSError as error:
        raise _not_written(target, files, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def num_bytes(state: TrainState, config: Config, progress: Progress) -> int:
    """Returns the size of a checkpoint in bytes. The files are made as for `save`, and not written."""
    return sum(map(len, _contents(state, config, progress).values()))


def load(path: Path) -> Checkpoint:
    """Returns the checkpoint in a directory, after its sizes and sha256 sums are verified.

    Raises:
        CheckpointError: it is not a checkpoint, is damaged, or is of a newer format.
    """
    contents = verified(path)
    state = json_object(path, "state.json", contents["state.json"])
    progress, scaler = _progress(path, state), _scaler(path, state)
    names = [name for name in contents if name.endswith(".safetensors")]
    # The bytes of each go before those of the next become tensors: an optimizer's are twice those of its network.
    tensors = {Path(name).stem: _tensors(path / name, contents.pop(name)) for name in names}
    try:
        config = load_config(path / "config.yaml", content=contents["config.yaml"])
    except ConfigError as error:
        raise CheckpointError(
            *error.problems, f"{path}: its config is not one that this segtool reads; {OTHER}"
        ) from error
    return Checkpoint(path, config, progress, tensors, scaler)


def read_progress(path: Path) -> Progress:
    """Returns where training stood at a checkpoint; of its files only `state.json` is verified. Raises as `load`."""
    return _progress(path, json_object(path, "state.json", verified_file(path, "state.json")))


def step_of(path: Path) -> int:
    """Returns the step that the directory of a checkpoint is named after."""
    return int(path.name.removeprefix("step-"))


def committed(directory: Path) -> list[Path]:
    """Returns the checkpoint directories in the order of their steps, whether they verify or not."""
    if not directory.is_dir():
        return []
    found = [path for path in directory.iterdir() if STEP.fullmatch(path.name)]
    return sorted((path for path in found if path.is_dir() and not path.is_symlink()), key=step_of)


def _contents(state: TrainState, config: Config, progress: Progress) -> dict[str, bytes]:
    files = {"model.safetensors": _dump(state.model.state_dict())}
    if state.ema is not None:
        files["ema.safetensors"] = _dump(state.ema.state_dict())
    files["optimizer.safetensors"] = _dump(_optimizer_tensors(state))
    files["config.yaml"] = dump_config(config).encode()
    scaler = {} if state.scaler is None else {"scaler": {key: state.scaler.state_dict()[key] for key in SCALER}}
    files["state.json"] = dump_json({"format": FORMAT, **dataclasses.asdict(progress), **scaler})
    return with_manifest(files)


def _dump(tensors: Mapping[str, Tensor]) -> bytes:
    # safetensors refuses tensors in channels_last memory; the layout is a matter of the training that loads them.
    return dump_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})


def _optimizer_tensors(state: TrainState) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": torch.as_tensor(value)
        for name, parameter in state.model.named_parameters()
        for key, value in state.optimizer.state.get(parameter, {}).items()
        if value is not None
    }


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _restore_optimizer(state: TrainState, saved: Mapping[str, Tensor]) -> None:
    parameters = dict(state.model.named_parameters())
    for full_name, tensor in saved.items():
        name, _, key = full_name.rpartition(".")
        parameter = parameters[name]
        counts = key == COUNT and tensor.ndim == 0 and tensor.isfinite() and tensor >= 0
        if key not in MOMENTS | {COUNT} or not (counts or _described(tensor) == _described(parameter)):
            raise RuntimeError(f"the optimizer's {full_name[:200]!r} is {_described(tensor)}")
        if tensor.shape == parameter.shape:
            # In the parameter's own memory layout: the fused optimizers walk both as flat memory.
            value = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
        else:
            value = tensor.to(parameter.device, copy=True)  # the count of steps, which a fused kernel reads there
        state.optimizer.state[parameter][key] = value


def _not_written(target: Path, files: Mapping[str, bytes], error: OSError) -> DiskError:
    there = [path for path in committed(target.parent) if path != target]
    before = f"the previous checkpoint {there[-1].name} is intact" if there else "there is no earlier checkpoint"
    return disk.not_written(target, sum(map(len, files.values())), error, before)


def _progress(path: Path, state: Mapping[str, Any]) -> Progress:
    """Returns what `state.json` holds, each value of its type and within its range."""
    progress = Progress(**{f.name: state[f.name] for f in dataclasses.fields(Progress) if f.name in state})
    counts = (progress.step, progress.steps, progress.stale)
    whole = all(type(count) is int and 0 <= count < 10**18 for count in counts)
    scores = all(value is None or _is_number(value) for value in (progress.score, progress.best))
    if not (whole and scores and type(progress.finished) is bool):
        raise CheckpointError(f"{path / 'state.json'}: holds a value of the wrong kind; {OTHER}")
    return progress


def _scaler(path: Path, state: Mapping[str, Any]) -> dict[str, float] | None:
    """Returns what `state.json` holds of the loss's scaler; None where it holds nothing of it."""
    saved = state.get("scaler")
    if saved is None:
        return None
    if not isinstance(saved, dict) or set(saved) != set(SCALER) or not all(map(_is_number, saved.values())):
        raise CheckpointError(f"{path / 'state.json'}: holds a scaler of the wrong kind; {OTHER}")
    return saved


def _is_number(value: Any) -> bool:
    # Compared, since a whole number may be too large for math.isfinite.
    return type(value) in (int, float) and -MAX_NUMBER <= value <= MAX_NUMBER


def _tensors(path: Path, content: bytes) -> dict[str, Tensor]:
    try:
        return load_tensors(content)
    except MemoryError:
        raise
    except Exception as error:  # the file is anyone's: whatever its reader stumbles over, the file is at fault
        raise CheckpointError(f"{path}: not a safetensors file ({error}); {OTHER}") from error
