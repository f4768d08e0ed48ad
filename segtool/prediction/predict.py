"""Prediction: one mask per image, with the image's stem, tree, height and width."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache, partial
from itertools import takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch

from segtool.config import Config
from segtool.data.draw import overlay
from segtool.data.images import image_size, read_views
from segtool.data.labels import Labels
from segtool.data.spool import release
from segtool.errors import CheckpointError, ConfigError, DataError, SegtoolError
from segtool.models.segmenter import assemble, outline
from segtool.prediction.ensemble import Ensemble
from segtool.prediction.inference import MAX_WHOLE_PIXELS, BandPredictor, Normalize, Predictor, fast_dtype, tile_advice
from segtool.prediction.predicted_files import Job, remove_unfinished, require_replaceable, write_npy, write_png
from segtool.runs.checkpoint import Checkpoint
from segtool.runs.members import require_agreement
from segtool.system.pools import num_threads
from segtool.system.shortage import shortage_told

MOST_THREADS = 8
"""That read, and that write: a GPU makes masks faster than one thread decodes images."""
T = TypeVar("T")
Read = np.ndarray | DataError | None
"""The image of a job, H W C; the error of one that cannot be used; None where there is nothing to do."""
Write = Callable[[], Path | DataError]
"""Writes the files of a job and returns the mask's path, or the error of an image that cannot be used."""


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


def predict(
    predictor: BandPredictor,
    config: Config,
    jobs: Iterable[Job],
    *,
    tile: int | None = None,
    resume: bool = False,
    look: Callable[[Job, np.ndarray], object] | None = None,
) -> Iterator[Path | DataError]:
    """Yields the path of each mask once it is written, or the DataError of an image that cannot be used.

    While an image goes through the network, the next ones are read and what became of those before is written. Only
    small ones: two large images at once would take twice the memory.

    Args:
        tile: Side in pixels of the tiles that every larger image is predicted in; None: only above 2 megapixels.
        resume: Leave what is there from before; else it is made anew.
        look: Called with each job and its image H W C, in 0..255, of the channels of `config`; by several threads.

    Raises:
        CheckpointError: an output cannot be written, or would replace what segtool did not make.
    """
    jobs = list(jobs)
    remove_unfinished(jobs)
    labels = Labels.from_config(config.data)

    def read(job: Job) -> Read:
        image = _read(job, channels=predictor.channels, config=config, resume=resume)
        if look and isinstance(image, np.ndarray):
            look(job, image[..., predictor.view(config.data.channels)])
        return image

    threads = max(1, min(MOST_THREADS, num_threads() - 1))
    writing: deque[Future[Path | DataError]] = deque()
    with ThreadPoolExecutor(threads) as reader, ThreadPoolExecutor(threads) as writer:
        for job, image in _read_ahead(jobs, read, reader, ahead=threads, max_pixels=config.limits.max_pixels):
            try:
                write, large = _predicted(predictor, labels, job, image(), tile)
            except SegtoolError:
                yield from _results(writing)
                raise
            del image
            if large:
                yield from _results(writing)
                yield write()
            else:
                writing.append(writer.submit(write))
                yield from _results(writing, left=1 if job.probabilities else threads)  # K floats a pixel are much
            del write  # and its mask
        yield from _results(writing)


def _results(writing: deque[Future[T]], *, left: int = 0) -> Iterator[T]:
    """Waits for the writes that began first, and yields what they return, until only so many are left."""
    while len(writing) > left:
        yield writing.popleft().result()


def _read(job: Job, *, channels: Sequence[int], config: Config, resume: bool) -> Read:
    """Reads the image of a job, once for each of the numbers of `channels`; `resume` skips one whose outputs are there.

    Raises:
        CheckpointError: an output would replace what segtool did not make.
    """
    for path in job.outputs:
        require_replaceable(path, job.out)
    if resume and all(path.exists() for path in job.outputs):
        return None
    limit = config.limits.max_pixels
    try:
        # What goes through the network in tiles is needed in memory by strips alone.
        return read_views(job.image, channels, exif=config.data.exif, max_pixels=limit, spool_pixels=MAX_WHOLE_PIXELS)
    except DataError as error:
        return error


def _read_ahead(
    jobs: Sequence[Job], read: Callable[[Job], Read], reader: Executor, *, ahead: int, max_pixels: int
) -> Iterator[tuple[Job, Callable[[], Read]]]:
    """Yields each job with what returns its image; where it is small, reading of up to `ahead` small ones has begun.

    What is large is read where it is asked for: the C library gives each thread its own memory, and what one has freed
    another cannot use.
    """
    small = cache(partial(_is_small, max_pixels=max_pixels))
    queued: deque[Future[Read]] = deque()
    for number, job in enumerate(jobs):
        begun = bool(queued)
        following = jobs[number + max(1, len(queued)) : number + 1 + ahead]
        if following and small(job.image):
            for other in takewhile(lambda one: small(one.image), following):
                queued.append(reader.submit(read, other))
        # Kept in no variable here, so that the image goes when it is done with.
        yield job, queued.popleft().result if begun else partial(read, job)


def _is_small(path: Path, max_pixels: int) -> bool:
    """Whether an image is one that goes through the network as a whole; so is one that cannot be read."""
    try:
        height, width = image_size(path, exif="ignore", max_pixels=max_pixels)
    except DataError:
        return True
    return height * width <= MAX_WHOLE_PIXELS


def _predicted(predictor: BandPredictor, labels: Labels, job: Job, image: Read, tile: int | None) -> tuple[Write, bool]:
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
    if job.probabilities:
        assert probabilities is not None
        write_npy(job.probabilities, probabilities)
    if job.overlay:
        assert picture is not None
        write_png(job.overlay, overlay(picture, indices, labels.colors, labels.names))
    # The mask comes last: where it is, all of the job is done.
    write_png(job.mask, labels.encode(indices))
    return job.mask
