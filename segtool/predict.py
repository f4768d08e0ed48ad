"""Prediction: one mask per image, with the image's stem, tree, height and width."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, PngImagePlugin

from segtool.checkpoint import Checkpoint
from segtool.config import Config
from segtool.data.files import list_files, stem_of
from segtool.data.images import IMAGE_SUFFIXES, image_size
from segtool.data.labels import Labels
from segtool.data.spool import release
from segtool.disk import make_folder, remove_abandoned, write_atomically
from segtool.draw import overlay
from segtool.ensemble import Ensemble, read_views
from segtool.errors import CheckpointError, ConfigError, DataError, SegtoolError
from segtool.inference import MAX_WHOLE_PIXELS, BandPredictor, Normalize, Predictor, fast_dtype, tile_advice
from segtool.members import require_agreement
from segtool.models.segmenter import assemble, outline
from segtool.shortage import shortage_told

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


def build_predictor(checkpoint: Checkpoint, device: torch.device, *, dtype: torch.dtype | None = None) -> Predictor:
    """Returns the network of a checkpoint, ready to predict; in the type that is fastest here where none is given.

    Raises:
        CheckpointError: the checkpoint's config has no network, or the weights do not fit it.
    """
    config = checkpoint.config
    network = (config.model, len(config.data.classes), config.data.channels)
    try:
        checkpoint.require_fit(outline(*network))  # before it takes any memory
    except ConfigError as error:
        raise CheckpointError(
            f"{checkpoint.path}: its config is of no network ({error}); use another checkpoint of the run"
        ) from error
    model = assemble(*network)
    model.load_state_dict(dict(checkpoint.weights))
    normalize = Normalize(config.data.mean or (), config.data.std or ())
    return Predictor(model, normalize, device, dtype=dtype or fast_dtype(device))


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
            listed = list_files(given, IMAGE_SUFFIXES)
            left = _folders_within(out, listed) if out.is_dir() and not out.samefile(given) else frozenset()
            found = [path for path in listed if not (path.parent in left and _is_made(path))]
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


def _folders_within(out: Path, files: Iterable[Path]) -> frozenset[Path]:
    """Returns the folders of some files that are `out` or lie within it, by whatever links they are named."""
    real = out.resolve()
    return frozenset(folder for folder in {file.parent for file in files} if folder.resolve().is_relative_to(real))


def predict(
    predictor: BandPredictor, config: Config, jobs: Iterable[Job], *, tile: int | None = None, resume: bool = False
) -> Iterator[Path | DataError]:
    """Yields the path of each mask once it is written, or the DataError of an image that cannot be used.

    While an image goes through the network, the next one is read and what became of the one before is written. Only
    small ones: two large images at once would take twice the memory.

    Args:
        tile: Side in pixels of the tiles that every larger image is predicted in; None: only above 2 megapixels.
        resume: Leave what is there from before; else it is made anew.

    Raises:
        CheckpointError: an output cannot be written, or would replace what segtool did not make.
    """
    jobs = list(jobs)
    _remove_abandoned(jobs)
    labels = Labels.from_config(config.data)
    read = partial(_read, channels=predictor.channels, config=config, resume=resume)
    writing: Future[Path | DataError] | None = None
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        for job, image in _read_ahead(jobs, read, reader, max_pixels=config.limits.max_pixels):
            try:
                outcome, large = _predicted(predictor, labels, job, image(), tile)
            except SegtoolError:
                if writing:
                    yield writing.result()
                raise
            del image
            if writing:
                yield writing.result()
            writing = None if large else writer.submit(outcome)
            if large:
                yield outcome()
            del outcome  # and its mask
        if writing:
            yield writing.result()


Outcome = Callable[[], Path | DataError]


def _remove_abandoned(jobs: Sequence[Job]) -> None:
    """Removes what predictions that were killed left unfinished beside the outputs, but in linked folders."""
    for folder, out in {(path.parent, job.out) for job in jobs for path in job.outputs}:
        if not any((out / parent).is_symlink() for parent in (folder / "x").relative_to(out).parents if parent.name):
            remove_abandoned(folder)


def _read(job: Job, *, channels: Sequence[int], config: Config, resume: bool) -> np.ndarray | DataError | None:
    """Returns the image of a job, H W C; None where there is nothing to do, or the error of one that cannot be used."""
    for path in job.outputs:
        _check_target(path, job.out)
    if resume and all(path.exists() for path in job.outputs):
        return None
    try:
        return read_views(job.image, channels, exif=config.data.exif, max_pixels=config.limits.max_pixels)
    except DataError as error:
        return error


def _read_ahead(
    jobs: Sequence[Job], read: Callable[[Job], Any], reader: Executor, *, max_pixels: int
) -> Iterator[tuple[Job, Callable[[], Any]]]:
    """Yields each job with what returns its image; where it and the next one are small, reading that has begun.

    What is large is read where it is asked for: the C library gives each thread its own memory, and what one has freed
    another cannot use.
    """
    queued: deque[Future[Any]] = deque()
    next_small = bool(jobs) and _is_small(jobs[0].image, max_pixels)
    for job, following in zip_longest(jobs, jobs[1:]):
        ready, small = bool(queued), next_small
        next_small = following is not None and _is_small(following.image, max_pixels)
        if following and small and next_small:
            queued.append(reader.submit(read, following))
        # Kept in no variable here, so that the image goes when it is done with.
        yield job, queued.popleft().result if ready else partial(read, job)


def _is_small(path: Path, max_pixels: int) -> bool:
    """Whether an image is one that goes through the network as a whole; so is one that cannot be read."""
    try:
        height, width = image_size(path, exif="ignore", max_pixels=max_pixels)
    except DataError:
        return True
    return height * width <= MAX_WHOLE_PIXELS


def _predicted(
    predictor: BandPredictor, labels: Labels, job: Job, image: np.ndarray | DataError | None, tile: int | None
) -> tuple[Outcome, bool]:
    """Returns what writes the files of an image, and whether they are large."""
    if image is None:
        return (lambda: job.mask), False
    if isinstance(image, DataError):
        return (lambda: image), False
    indices, probabilities = _answer(predictor, job, image, tile)
    picture = image[..., -predictor.channels[-1] :]  # of several views the one with the most channels
    write = partial(_write_all, labels, job, indices, probabilities, picture if job.overlay else None)
    return write, indices.size > MAX_WHOLE_PIXELS


def _answer(
    predictor: BandPredictor, job: Job, image: np.ndarray, tile: int | None
) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the class indices H W, and the probabilities K H W where they are asked for."""
    tensor = torch.from_numpy(image).permute(2, 0, 1)

    def advice() -> str:
        leave_out = ", and no --probabilities, which are held for the whole image" if job.probabilities else ""
        return tile_advice(predictor, job.image, image.shape[:2], tile) + leave_out

    with shortage_told(advice):
        if job.probabilities:
            return predictor.classes_and_probabilities(tensor, tile)
        return predictor.classes(tensor, tile, after_row=partial(release, image)), None


def _write_all(
    labels: Labels, job: Job, indices: np.ndarray, probabilities: np.ndarray | None, picture: np.ndarray | None
) -> Path:
    """Writes the files of a job and returns the mask's path."""
    if job.probabilities:
        assert probabilities is not None
        _write(job.probabilities, _npy(probabilities))
    if job.overlay:
        assert picture is not None
        _write(job.overlay, _png(overlay(picture, indices, labels.colors, labels.names)))
    # The mask comes last: where it is, all of the job is done.
    _write(job.mask, _png(labels.encode(indices)))
    return job.mask


def _with_suffix(stem: Path, suffix: str) -> Path:
    return stem.with_name(stem.name + suffix)


def _check_collisions(jobs: Sequence[Job]) -> None:
    writers: dict[str, list[Path]] = {}
    for job in jobs:
        for path in job.outputs:
            # Compared without case and in composed form, since some file systems know no other way.
            writers.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), []).append(job.image)
    problems = [
        f"{', '.join(map(str, images))}: would all be written to one file; "
        + ("predict them into separate --out folders" if len(set(images)) > 1 else "name the image once")
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
    if not _is_made(path):
        raise CheckpointError(f"{path}: was not made by segtool, and is not replaced; choose another --out")


def _is_made(path: Path) -> bool:
    """Whether a file holds what was predicted; False where it cannot be read."""
    try:
        if not path.is_file():  # a pipe would be waited for
            return False
        with open(path, "rb") as file:
            return MADE_BY.encode() in file.read(4096)
    except OSError:
        return False


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_atomically(path, content, sync_name=False)


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
