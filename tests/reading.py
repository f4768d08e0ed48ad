"""The readers of images and masks under the limit of pixels that a config has if it sets none."""

from __future__ import annotations

from functools import partial

from segtool.config import Limits
from segtool.data import images, masks

MAX_PIXELS = Limits().max_pixels

read_image = partial(images.read_image, max_pixels=MAX_PIXELS)
image_size = partial(images.image_size, max_pixels=MAX_PIXELS)
read_mask = partial(masks.read_mask, max_pixels=MAX_PIXELS)
