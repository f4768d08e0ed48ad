"""Prediction: one mask per image, with the image's stem, tree, height and width."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from segtool.checkpoint import Checkpoint
from segtool.config import Config
from segtool.data.images import IMAGE_SUFFIXES
from segtool.data.labels import Labels
from segtool.data.pairs import list_files, stem_of
from segtool.draw import overlay
from segtool.ensemble import Ensemble, read_views
from segtool.errors import CheckpointError, DataError, SegtoolError
from segtool.inference import BandPredictor, Normalize, Predictor
from segtool.members import require_agreement
from segtool.models.segmenter import assemble
from segtool.runs import write_atomically

MADE_BY = "segtool predict"  # stands in each file, so that no other file is ever replaced


@dataclass(frozen=True)
class Job:
    """One image and the files that it becomes, all within `out`."""

    image: Path
    out: Path
    mask: Path
    overlay: Path | None
    probabilities: Path | None

    @property
    def outputs(self) -> list[Path]:
        """All files that the job writes."""
        return [path for path in (self.mask, self.overlay, self.probabilities) if path is not None]


def build_predictor(checkpoint: Checkpoint, device: torch.device) -> Predictor:
    """Returns the network of a checkpoint, ready to predict.

    Raises:
        CheckpointError: the weights do not fit the network of the checkpoint's config.
    """
    config = checkpoint.config
    model = assemble(config.model, len(config.data.classes), config.data.channels)
    try:
        model.load_state_dict(dict(checkpoint.weights))
    except RuntimeError as error:
        raise CheckpointError(f"{checkpoint.path}: its weights do not fit its config: {error}") from error
    return Predictor(model, Normalize(config.data.mean or (), config.data.std or ()), device)


def build_ensemble(checkpoints: Sequence[Checkpoint], device: torch.device, *, flip: bool = False) -> BandPredictor:
    """Returns the networks of checkpoints as one; a single one that does not flip is a plain `Predictor`.

    Raises:
        CheckpointError: as `build_predictor`.
        ConfigError: the checkpoints do not mean the same by their classes.
    """
    require_agreement(checkpoints)
    predictors = [build_predictor(checkpoint, device) for checkpoint in checkpoints]
    return predictors[0] if len(predictors) == 1 and not flip else Ensemble(predictors, flip=flip)


def list_jobs(inputs: Sequence[Path], out: Path, *, overlays: bool, probabilities: bool) -> list[Job]:
    """Returns the jobs for files and folders, in the order of their stems.

    A folder's images keep their place in its tree; a file goes directly into `out`.

    Raises:
        DataError: an input does not exist, or a folder holds no image.
        SegtoolError: two images would write one file, or an output would replace an input; all are named.
    """
    images: list[tuple[Path, Path]] = []  # image, and its stem relative to `out`
    missing = []
    for given in inputs:
        if given.is_dir():
            # What an earlier prediction left in a folder within the images is not an image to predict.
            inside = out.is_dir() and not out.samefile(given)
            found = list_files(given, IMAGE_SUFFIXES, without=(out,) if inside else ())
            images += [(path, Path(stem_of(path, given))) for path in found]
            if not found:
                missing.append(f"{given}: holds no image; expected PNG, JPEG, TIFF, BMP or WebP files")
        elif given.exists():
            images.append((given, Path(given.stem)))
        else:
            missing.append(f"{given}: no such file or folder; expected an image or a folder of images")
    if missing:
        raise DataError(*missing)
    jobs = [
        Job(
            image,
            out,
            out / _with_suffix(stem, ".png"),
            out / "overlays" / _with_suffix(stem, ".png") if overlays else None,
            out / "probabilities" / _with_suffix(stem, ".npy") if probabilities else None,
        )
        for image, stem in images
    ]
    _check_collisions(jobs)
    return jobs


def predict(
    predictor: BandPredictor, config: Config, jobs: Iterable[Job], *, tile: int | None = None, resume: bool = False
) -> Iterator[Path | DataError]:
    """Yields the path of each mask once it is written, or the DataError of an image that cannot be used.

    Args:
        tile: side in pixels of the tiles that every larger image is predicted in; None: only above 4 megapixels.
        resume: leave what is there from before; else it is made anew.

    Raises:
        CheckpointError: an output cannot be written, or would replace what segtool did not make.
    """
    labels = Labels.from_config(config.data)
    for job in jobs:
        for path in job.outputs:
            _check_target(path, job.out)
        if resume and all(path.exists() for path in job.outputs):
            yield job.mask
            continue
        try:
            image = read_views(
                job.image, predictor.channels, exif=config.data.exif, max_pixels=config.limits.max_pixels
            )
        except DataError as error:
            yield error
            continue
        _predict_one(predictor, labels, job, image, tile)
        yield job.mask


def _predict_one(predictor: BandPredictor, labels: Labels, job: Job, image: np.ndarray, tile: int | None) -> None:
    tensor = torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))
    try:
        if job.probabilities:
            indices, probabilities = predictor.classes_and_probabilities(tensor, tile)
            _write(job.probabilities, _npy(probabilities))
        else:
            indices = predictor.classes(tensor, tile)
    except torch.OutOfMemoryError as error:
        height, width = image.shape[:2]
        raise CheckpointError(
            f"{job.image}: out of memory at {width}x{height} pixels; try --tile {max(64, min(height, width) // 2)}"
        ) from error
    if job.overlay:
        picture = image[..., -predictor.channels[-1] :]  # of several views the one with the most channels
        _write(job.overlay, _png(overlay(picture, indices, labels.colors, labels.names)))
    # The mask comes last: where it is, all of the job is done.
    _write(job.mask, _png(labels.encode(indices)))


def _with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _check_collisions(jobs: Sequence[Job]) -> None:
    writers: dict[str, list[Path]] = {}
    for job in jobs:
        for path in job.outputs:
            # Compared without case and in composed form, since some file systems know no other way.
            writers.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), []).append(job.image)
    problems = [
        f"{', '.join(map(str, images))}: would all be written to one file; predict them into separate --out folders"
        for images in dict.fromkeys(tuple(images) for images in writers.values() if len(images) > 1)
    ]
    sources = {os.path.realpath(job.image) for job in jobs}
    problems += [
        f"{path}: the output would replace an input image; choose another --out"
        for job in jobs
        for path in job.outputs
        if os.path.realpath(path) in sources
    ]
    if problems:
        raise SegtoolError(*problems)


def _check_target(path: Path, out: Path) -> None:
    """Raises CheckpointError unless the path is free or holds a file that segtool predicted, in no linked subfolder."""
    for folder in path.relative_to(out).parents:
        if folder.name and (out / folder).is_symlink():
            raise CheckpointError(f"{out / folder}: is a link, which may lead out of {out}; choose another --out")
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); choose another --out") from error
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path}: is a link, a folder or a device, and is not replaced; choose another --out")
    with open(path, "rb") as file:
        if MADE_BY.encode() not in file.read(4096):
            raise CheckpointError(f"{path}: was not made by segtool, and is not replaced; choose another --out")


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"{path.parent}: cannot be made ({error.strerror}); choose another --out") from error
    write_atomically(path, content)


def _png(picture: Image.Image) -> bytes:
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", MADE_BY)
    buffer = io.BytesIO()
    # The palette of a mask is longer than any text before it: the text chunk goes first, level 1 is 40 % faster than 6.
    picture.save(buffer, "PNG", compress_level=1, pnginfo=facts)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    """Returns the bytes of a .npy file, version 1.0, with `MADE_BY` as a comment in its header.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    facts = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    header = f"{facts}  # {MADE_BY}"
    header += " " * (-(len(header) + 11) % 64) + "\n"  # data begins at a multiple of 64 bytes
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes()
