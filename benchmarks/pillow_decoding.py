"""Decodes all masks of folders with Pillow, in a process for each core, and does nothing else with them.

    python -m benchmarks.pillow_decoding FOLDER...

It is what `benchmarks.scoring` measures the scoring of masks against; it imports no more than it needs.
"""

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image


def decode(file: Path) -> int:
    """Decodes a mask and returns its number of pixels."""
    with Image.open(file) as image:
        return np.asarray(image).size


if __name__ == "__main__":
    files = [path for folder in sys.argv[1:] for path in sorted(Path(folder).iterdir())]
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("fork")) as pool:
        assert all(pool.map(decode, files, chunksize=50))
