"""The files that images become when they are predicted: where they lie, and that they replace no other file."""

from __future__ import annotations

import io
import os
import stat
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from segtool.config import Data
from segtool.data.files import UNREAD_PICTURES, list_files, stem_of
from segtool.data.images import IMAGE_SUFFIXES
from segtool.data.pairs import tell_apart
from segtool.data.predictions import MADE_BY, OVERLAYS, is_prediction
from segtool.errors import CheckpointError, DataError, SegtoolError, shown
from segtool.system.disk import make_folder, remove_abandoned, write_atomically
from segtool.system.terminal import counted

MOST_COLLISIONS = 20  # that are told: a folder of images and masks of the same names may have thousands


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


def list_jobs(inputs: Sequence[Path], out: Path, *, overlays: bool, probabilities: bool) -> list[Job]:
    """Returns the jobs for files and folders, in the order of their stems.

    A folder's images keep their place in its tree; a file goes directly into `out`.

    Raises:
        DataError: an input does not exist, or a folder holds no image.
        SegtoolError: two images would write one file, or an output would replace an input; all are named. Or `out` is
            itself a folder of inputs.
    """
    if out.is_dir() and any(given.is_dir() and out.samefile(given) for given in inputs):
        # What lies beside an image under its name is an image to `check`, to training and to the next prediction.
        raise SegtoolError(
            f"{out}: is the folder of the images: a mask would replace an input image, or lie beside it under its "
            "name; choose another --out"
        )
    images: list[tuple[Path, str]] = []  # image, and its stem relative to `out`
    missing = []
    for given in inputs:
        if given.is_dir():
            # What an earlier prediction left in a folder within the images is not an image to predict.
            listed = list_files(given, IMAGE_SUFFIXES)
            left = _folders_within(out, listed) if out.is_dir() else frozenset()
            found = [path for path in listed if not (path.parent in left and is_prediction(path))]
            images += [(path, stem_of(path, given)) for path in found]
            if not found:
                missing.append(f"{given}: holds no image; expected PNG, JPEG, TIFF, BMP or WebP files")
        elif given.exists():
            images.append((given, given.stem))
        else:
            missing.append(f"{given}: no such file or folder; expected an image or a folder of images")
    if missing:
        raise DataError(*missing)
    jobs = [
        Job(
            image,
            out,
            out / f"{stem}.png",
            out / OVERLAYS / f"{stem}.png" if overlays else None,
            out / "probabilities" / f"{stem}.npy" if probabilities else None,
        )
        for image, stem in images
    ]
    _check_collisions(jobs)
    return jobs


def unread_pictures(inputs: Sequence[Path]) -> list[Path]:
    """Returns the pictures in the given folders that no mask is made of, as they are of a kind that is not read."""
    return [path for given in inputs if given.is_dir() for path in list_files(given, UNREAD_PICTURES)]


def masks_among(data: Data, inputs: Sequence[Path], jobs: Sequence[Job]) -> Iterator[str]:
    """Yields a warning for masks in a given folder, by what a config says of them, that are predicted with its images.

    They lie in a folder of their own, as a split's do, or are named as masks in one folder with the images.
    """
    parts = list(data.parts.values()) if data.format == "folders" else []
    places = {both for part in parts for both in _tails(str(part.images), str(part.masks))}
    pairings = {part.pairing or data.pairing for part in parts if part.images == part.masks}
    for given in filter(Path.is_dir, inputs):
        folder = Path(os.path.abspath(given))
        files = [job.image for job in jobs if job.image.is_relative_to(folder)]
        told = f"of the {len(files)} images are masks by the config of the run, and predicted all the same"
        for images, masks in sorted(places):
            lying = [file for file in files if file.is_relative_to(folder / masks)]
            if lying and any(file.is_relative_to(folder / images) for file in set(files).difference(lying)):
                yield shown(f"{given / masks}: {len(lying)} {told}; to leave them out, name {given / images} instead")
        for pairing in pairings:
            _, named = tell_apart(files, pairing)
            if (pairing.mask_prefix or pairing.mask_suffix or pairing.mask_format) and 0 < len(named) < len(files):
                first = given / named[0].relative_to(folder)
                yield shown(f"{first}: {len(named)} {told}; to leave them out, name the images alone")


def _tails(images: str, masks: str) -> Iterator[tuple[Path, Path]]:
    """Yields two folders, and what is left of both without the folders that both lie in, one after the other."""
    one, other = Path(os.path.normpath(images)).parts, Path(os.path.normpath(masks)).parts
    while one != other:
        yield Path(*one), Path(*other)
        if one[:1] != other[:1]:
            return
        one, other = one[1:], other[1:]


def remove_unfinished(jobs: Sequence[Job]) -> None:
    """Removes what predictions that were killed left unfinished beside the outputs, but in linked folders."""
    for folder, out in {(path.parent, job.out) for job in jobs for path in job.outputs}:
        if not any((out / parent).is_symlink() for parent in (folder / "x").relative_to(out).parents if parent.name):
            remove_abandoned(folder)


def require_replaceable(path: Path, out: Path) -> None:
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
    if not is_prediction(path):
        raise CheckpointError(f"{path}: was not made by segtool, and is not replaced; choose another --out")


def write_png(path: Path, picture: Image.Image) -> None:
    """Writes a picture, which says that it is ours."""
    facts = PngImagePlugin.PngInfo()
    facts.add_text("Software", MADE_BY)
    buffer = io.BytesIO()
    # The palette of a mask is longer than any text before it: the text chunk goes first, level 1 is 40 % faster than 6.
    picture.save(buffer, "PNG", compress_level=1, pnginfo=facts)
    _write(path, buffer.getvalue())


def write_npy(path: Path, array: np.ndarray) -> None:
    """Writes a .npy file, version 1.0, with `MADE_BY` as a comment in its header.

    Source: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
    """
    facts = {"descr": array.dtype.str, "fortran_order": False, "shape": array.shape}
    header = f"{facts}  # {MADE_BY}"
    header += " " * (-(len(header) + 11) % 64) + "\n"  # data begins at a multiple of 64 bytes
    _write(path, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + array.tobytes())


def _write(path: Path, content: bytes) -> None:
    make_folder(path.parent)
    write_atomically(path, content, sync_name=False)


def _folders_within(out: Path, files: Iterable[Path]) -> frozenset[Path]:
    """Returns the folders of some files that are `out` or lie within it, by whatever links they are named."""
    real = out.resolve()
    return frozenset(folder for folder in {file.parent for file in files} if folder.resolve().is_relative_to(real))


def _check_collisions(jobs: Sequence[Job]) -> None:
    writers: dict[str, list[Path]] = {}
    for job in jobs:
        for path in job.outputs:
            # Compared without case and in composed form, since some file systems know no other way.
            writers.setdefault(unicodedata.normalize("NFC", str(path)).casefold(), []).append(job.image)
    shared = dict.fromkeys(tuple(images) for images in writers.values() if len(images) > 1)
    apart = "predict them into separate --out folders, or name those of one kind alone"
    problems = [
        f"{', '.join(map(str, images))}: would all be written to one file; "
        + (apart if len(set(images)) > 1 else "name the image once")
        for images in list(shared)[:MOST_COLLISIONS]
    ]
    if len(shared) > MOST_COLLISIONS:
        problems.append(f"and so would the images of {counted(len(shared) - MOST_COLLISIONS, 'more file')}")
    sources = {os.path.realpath(job.image) for job in jobs}
    problems += [
        f"{path}: the output would replace an input image; choose another --out"
        for job in jobs
        for path in job.outputs
        if os.path.realpath(path) in sources
    ]
    if problems:
        raise SegtoolError(*problems)
