"""How `init` sets the training up: network, loss, augmentation and length, from sizes and counts, with the reasons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from segtool.data.evidence import Guess, percent
from segtool.yaml_io import flow

LARGEST_CROP = 512
BATCH_PIXELS = 8 * 352 * 480  # what a U-Net of 16 to 256 channels trains on in a few GB
TARGET_STEPS = 3000
LONG_RUN = 2000  # steps from which the usual averaging over 1000 steps fits
CHANNELS = (16, 32, 64, 128, 256)
RARE_SHARE = 0.01
VERY_RARE_SHARE = 5e-4
MODELS = ("unet", "fcn")


@dataclass(frozen=True)
class Row:
    """A line of the config, with the comment that stands above it."""

    text: str
    comment: str = ""
    indent: int = 2


# ------------------------------------------------------------------------------------------------- numbers


def choose_crop(sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Returns height and width of the training crop: multiples of 32 within the median image, at most 512.

    An image under 32 pixels a side keeps its size, rounded up to 8.
    """
    return _crop_side([height for height, _ in sizes]), _crop_side([width for _, width in sizes])


def _crop_side(lengths: Sequence[int]) -> int:
    length = int(median(lengths))
    if length < 32:
        return -(-length // 8) * 8
    return min(length // 32 * 32, LARGEST_CROP)


def choose_channels(crop: tuple[int, int]) -> tuple[int, ...]:
    """Returns the widths of the encoder's levels: five, fewer where the deepest map would be under 4 pixels a side."""
    levels = 1
    while levels < len(CHANNELS) and min(crop) >= 4 * 2**levels:
        levels += 1
    return CHANNELS[: max(levels, 2)]


def choose_batch(num_images: int, crop: tuple[int, int]) -> int:
    """Returns the largest power of two that memory and the number of images allow, at most 16."""
    largest = min(num_images, BATCH_PIXELS // (crop[0] * crop[1]), 16)
    return 1 << max(largest.bit_length() - 1, 0)


def choose_epochs(num_images: int, batch: int) -> int:
    """Returns the epochs that make about 3000 steps, within 20 to 400."""
    return min(max(round(TARGET_STEPS * batch / num_images), 20), 400)


# ------------------------------------------------------------------------------------------------- sections


def training_rows(
    sizes: Sequence[tuple[int, int]], num_train: int, guess: Guess, model: str, *, grey: bool
) -> list[Row]:
    """Returns the sections model, loss, augment, optim and train.

    Args:
        sizes: H, W of all images.
        num_train: training images.
        model: decoder, one of MODELS.
        grey: whether all images are grey.
    """
    crop = choose_crop(sizes)
    channels = choose_channels(crop)
    batch = choose_batch(num_train, crop)
    epochs = choose_epochs(num_train, batch)
    steps = -(-epochs * num_train // batch)
    return [
        *_model_rows(model, channels, crop),
        *_loss_rows(guess),
        *_augment_rows(sizes, crop, grey=grey),
        Row("optim:", "", 0),
        Row("name: adamw"),
        Row("lr: 1e-3", "The usual rate of AdamW for a network without pretrained weights."),
        Row("schedule: poly", "Falls to 0 at the end; the first 50 steps rise to it."),
        Row("warmup: 50"),
        Row("clip: 1.0", "Longer gradients are cut to this norm: a bad batch cannot ruin the weights."),
        *_length_rows(num_train, batch, epochs, steps, crop),
    ]


def _model_rows(model: str, channels: tuple[int, ...], crop: tuple[int, int]) -> list[Row]:
    deepest = [-(-side // 2 ** (len(channels) - 1)) for side in crop]
    size = f"{len(channels)} levels: of a {crop[1]}x{crop[0]} crop the deepest map is {deepest[1]}x{deepest[0]}"
    encoder = {"name": "conv", "channels": list(channels), "downsample": "max"}
    decoder: dict[str, object] = {"name": "unet", "upsample": "transposed"}
    comment = "U-Net: every level's maps are joined on the way up."
    if model == "fcn":
        decoder = {"name": "fcn", "skips": min(2, len(channels) - 1)}
        comment = "FCN: the coarse prediction is enlarged, and finer ones are added to it."
    return [
        Row("model:", "", 0),
        Row(f"encoder: {flow(encoder)}", f"{size}. Wider levels learn more and take longer."),
        Row(f"decoder: {flow(decoder)}", comment),
    ]


def _loss_rows(guess: Guess) -> list[Row]:
    rarest, codes = min(zip(guess.shares, guess.codes, strict=True))
    what = f"The rarest class ({guess.text(codes[0])}) covers {percent(rarest)} of the pixels"
    if rarest >= RARE_SHARE:
        first = Row("- cross_entropy", f"{what}: no class weights needed.")
    elif rarest >= VERY_RARE_SHARE:
        term = {"name": "cross_entropy", "class_weights": "median_frequency", "weight_exponent": 0.5}
        first = Row(f"- {flow(term)}", f"{what}: rare classes weigh more, softened.")
    else:
        term = {"name": "cross_entropy", "class_weights": "enet"}
        first = Row(f"- {flow(term)}", f"{what}: rare classes weigh more, at most 50 times.")
    dice = Row("- {name: dice, weight: 0.5}", "Overlap by class, whatever its size; IoU is what will be measured.")
    return [Row("loss:", "", 0), first, dice]


def _augment_rows(sizes: Sequence[tuple[int, int]], crop: tuple[int, int], *, grey: bool) -> list[Row]:
    heights, widths = zip(*sizes, strict=True)
    span = f"Images are {min(widths)}x{min(heights)} to {max(widths)}x{max(heights)}"
    if len(set(sizes)) == 1:
        span = f"All images are {widths[0]}x{heights[0]}"
    flip = "both" if grey else "horizontal"
    why = (
        "Grey images, as of microscopes and scanners, have no up; `horizontal` where yours have."
        if grey
        else "Photographs have an up; `both` for pictures from above."
    )
    return [
        Row("augment:", "", 0),
        Row(f"crop: [{crop[0]}, {crop[1]}]", f"Height and width. {span}."),
        Row("scale: [0.75, 1.5]", "Zoom, so that size is not learned by heart."),
        Row(f"flip: {flip}", why),
        Row("rotate: 10", "Degrees to either side."),
        Row("color: 0.2", "Brightness, contrast and saturation, by up to a fifth."),
    ]


def _length_rows(num_train: int, batch: int, epochs: int, steps: int, crop: tuple[int, int]) -> list[Row]:
    every = max(1, round(epochs / 50))
    ema = 0.999 if steps >= LONG_RUN else 0.99
    rows = [
        Row("train:", "", 0),
        Row(f"epochs: {epochs}", f"{num_train} training images in batches of {batch}: {steps} steps in all."),
        Row(
            f"batch_size: {batch}",
            f"Fits {crop[1]}x{crop[0]} crops in a few GB; less takes less.",
        ),
        Row(f"ema: {ema}", f"Averages the weights over about {round(1 / (1 - ema))} steps: steadier scores."),
        Row("seed: 0", "The same seed gives the same run."),
    ]
    if every > 1:
        rows.insert(
            2, Row(f"eval_every: {every}", "Epochs between two validations, which take longer than so short an epoch.")
        )
    return rows
