"""What is measured on a run that has ended."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.upsampler_scores import Hits, thin_hits
from segtool.commands.demo import CLASSES
from segtool.prediction.inference import Predictor
from segtool.prediction.predict import build_predictor
from segtool.runs import checkpoint


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """Returns the stored values of a picture."""
    with Image.open(path) as picture:
        return np.array(picture)


def trained(run: Path) -> Predictor:
    """Returns the network of a run at its end."""
    return _predictor(max(checkpoint.committed(run / "checkpoints")))


def untrained(run: Path) -> Predictor:
    """Returns the network of a run before its first step."""
    return _predictor(min(checkpoint.committed(run / "checkpoints")))


def logits(predictor: Predictor, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Returns logits K H W of an image H W 3."""
    return predictor.forward(_tensor(image)).numpy()


def thin_iou(masks: Path, predictions: Path) -> float:
    """Returns the IoU on thin structures over all masks of a folder."""
    hits = [
        thin_hits(read_pixels(mask), read_pixels(predictions / mask.name), len(CLASSES))
        for mask in sorted(masks.iterdir())
    ]
    total = Hits(*(sum(values) for values in zip(*hits, strict=True)))
    return total.intersection / total.union


def training_rate(run: Path) -> float:
    """Returns images per second: the median over the windows of 20 steps that a run notes, without the first."""
    lines = (run / "timing.jsonl").read_text(encoding="utf-8").splitlines()
    rates = [json.loads(line)["images_per_second"] for line in lines]
    return statistics.median(rates[1:] or rates)


def prediction_ms(predictor: Predictor, images: Sequence[NDArray[np.uint8]]) -> float:
    """Returns the median time from an image's pixels to its classes, in milliseconds."""
    times = []
    for image in images:
        began = time.perf_counter()
        predictor.classes(_tensor(image))
        times.append(1000 * (time.perf_counter() - began))
    return statistics.median(times)


def _predictor(path: Path) -> Predictor:
    return build_predictor(checkpoint.load(path), torch.device("cpu"))


def _tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, 2, 0)))
