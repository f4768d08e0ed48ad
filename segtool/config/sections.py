"""The sections of a config as frozen dataclasses.

The docstring under each field becomes its entry in `docs/config.md` and in the JSON Schema.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from segtool.config.overrides import Origins
from segtool.config.registry import Component

_CONV = Component("conv")
_UNET = Component("unet")


@dataclass(frozen=True)
class LossTerm(Component):
    """A loss and its weight in the sum."""

    weight: float = 1.0
    """Factor of this loss in the sum, 0 or more."""


@dataclass(frozen=True)
class Pairing:
    """How an image finds its mask: by stem, after these are taken off."""

    image_prefix: str = ""
    """Taken off the front of an image's stem before stems are compared."""
    image_suffix: str = ""
    """Taken off the end of an image's stem."""
    mask_prefix: str = ""
    """Taken off the front of a mask's stem."""
    mask_suffix: str = ""
    """Taken off the end of a mask's stem, such as `_mask`."""
    image_folder: str = ""
    """Name of the folders further down that hold the images, as in `seq1/Images/0001.png`: what lies in no folder of
    that name is no image, and the name is taken off the path before it is compared."""
    mask_folder: str = ""
    """Name of the folders further down that hold the masks, as in `seq1/Labels/0001.png`."""
    image_words: str = ""
    """Words that tell images, with blanks between, as `camera` of `camera/7_camera_001.png`. With these or `mask_words`
    the keys above are not used: paths are compared by the words and numbers that are left in them, and a file that
    lacks one of the words is no image. A name that begins with that of a folder around it says it once: `7/7_1`."""
    mask_words: str = ""
    """Words that tell masks, as `label` of `label/7_label_001.png`; a file that lacks one of them is no mask."""
    mask_format: Literal["", "bmp", "dib", "gif", "jfif", "jpe", "jpeg", "jpg", "png", "tif", "tiff", "webp"] = ""
    """The ending of masks that lie in one folder with their images and bear the same names, as `7.tif` beside `7.png`.
    Without it the images are what JPEGs there are, else WebP, else TIFF, else BMP."""
    by_number: bool = False
    """Whether numbers in stems are compared by their value, so that `img_001` is `img_1`."""
    by_name: bool = False
    """Whether files are compared by their names alone, whatever folders below `images` and `masks` they lie in, so that
    `day_1/7.jpg` finds `7.png`."""


@dataclass(frozen=True)
class Folders:
    """Where one split's images and masks are: two folders, with or without a list of what belongs to the split, or a
    list of pairs."""

    images: str | None = None
    """Folder of images, relative to `data.root`; searched with its subfolders. With `data.format: list`: the folder
    that the images in the list are relative to; null: `data.root`."""
    masks: str | None = None
    """Folder of masks, relative to `data.root`; with `data.format: list` as `images`."""
    list: str | None = None
    """A CSV, text, JSON or YAML file, relative to `data.root`. With `data.format: folders`: one image a line, by its
    stem, file name or path, or a folder of images; only these belong to the split, and a split of the same folders that
    has no list is what no other lists. With `data.format: list`: an image and a mask on each line, relative to
    `data.root`. A JSON or YAML is a list of names, or of names by keys (`image`, `mask`), has such a list under the
    name of each split, or the split of each name."""
    part: str | None = None
    """Only the lines of `list` in whose column named split (or subset, set, fold, phase, usage, partition, is_valid,
    is_train, …), or in whose column of nothing but splits, this stands; of a JSON or YAML the list under this key."""
    pairing: Pairing | None = None
    """How the images of this split find their masks; null: as `data.pairing` says."""


@dataclass(frozen=True)
class Split:
    """How pairs are held out where no folder does it."""

    val: float = 0.2
    """Share of the training pairs held out for validation when `data.val` is not given."""
    test: float = 0.0
    """Share held out for the test when `data.test` is not given."""
    seed: int = 0
    """Seed of the permutation that decides."""
    group: str | None = None
    """A regular expression on the stem; what its first group matches is kept in one split (frames of one video,
    slices of one patient)."""
    stratify: bool = False
    """Whether the parts are chosen so that each has its share of the images, or groups, in which each class occurs;
    the masks are read for it."""


@dataclass(frozen=True)
class ClassSpec:
    """One class: its name, and the stored values or colours that mean it."""

    name: str
    """Shown in tables and legends."""
    values: tuple[int | str, ...] = ()
    """With `encoding: index`, `threshold` or `alpha`: stored values, or ranges such as `1..65535`. The first is what
    predictions are written with."""
    colors: tuple[str, ...] = ()
    """With `encoding: palette` or `rgb`: stored colours as `#rrggbb`. The first is what predictions are written
    with."""
    color: str | None = None
    """Colour in overlays and sample pictures, `#rrggbb`; null: the first of `colors`, else one of a colour-blind-safe
    palette."""


@dataclass(frozen=True)
class Seen:
    """The training images in numbers: the least and the largest of each, over up to 500 of them."""

    mean: tuple[tuple[float, float], ...] = ()
    """Of an image's mean, for each channel, in 0..1."""
    std: tuple[tuple[float, float], ...] = ()
    """Of its standard deviation, for each channel."""
    size: tuple[tuple[int, int], ...] = ()
    """Of its height and of its width in pixels."""


@dataclass(frozen=True)
class Data:
    """Where the images and masks are, and what the stored masks mean."""

    root: str = "."
    """Folder of the data, relative to the config file."""
    format: Literal["folders", "list"] = "folders"
    """`folders`: pairs found by stem in two folders; `list`: pairs named in a file."""
    train: Folders = Folders()
    """Training pairs."""
    val: Folders | None = None
    """Validation pairs; null: a share of the training pairs (`data.split`)."""
    test: Folders | None = None
    """Test pairs; null: a share of the training pairs, if `data.split.test` is above 0."""
    split: Split = Split()
    """How pairs are held out where no folder does it."""
    fold: str | None = None
    """`k/n`, such as `2/5`: the pairs of train and val are divided into n parts as `data.split` says, of which the k-th
    (from 1) validates and the others train; the test is the same in all. Null: no cross-validation. `segtool train
    --folds 5` trains them all."""
    pairing: Pairing = Pairing()
    """How an image finds its mask."""
    unpaired: Literal["error", "skip"] = "error"
    """What becomes of an image without a mask, or a mask without an image: `error` stops the training, `skip` leaves
    them out, for data that is labelled in part."""
    exclude: tuple[str, ...] = ()
    """Images or masks, by their paths relative to `data.root` as `segtool check` names them, that are left out together
    with their partners: what cannot be read or is labelled wrong, and shall stay where it is."""
    encoding: Literal["index", "threshold", "palette", "rgb", "alpha"] = "index"
    """What a stored mask's pixels are. `index`: integers, palette indices included; `threshold`: grey values, each
    taken as the nearest of the classes' values; `palette`: the colours of a palette image; `rgb`: colours; `alpha`: the
    opacity, 0 to 255, of masks whose colours tell nothing, each level taken as the nearest of the classes' values."""
    nearest: bool = False
    """With `palette` or `rgb`: a colour that is not listed counts as the nearest one that is (exact otherwise).
    Needed for coloured masks stored as JPEG."""
    classes: tuple[ClassSpec, ...] = ()
    """The classes; the order is the class index."""
    ignore: tuple[int | str, ...] = ()
    """Stored values (or ranges such as `200..255`, or `#rrggbb` colours) that are not trained on and not scored."""
    exif: Literal["apply", "ignore", "error"] = "apply"
    """What becomes of a photograph's EXIF orientation: `apply` turns the image as a viewer shows it, `ignore` keeps
    the stored grid, `error` refuses such a file."""
    channels: int = 3
    """Channels given to the network: 1 (grey), 3 (RGB), 4 (RGBA), or the number of samples of a multi-channel TIFF; a
    grey image becomes 3 equal channels, a colour image becomes luminance when 1."""
    mean: tuple[float, ...] | None = None
    """Mean of each channel, in 0..1; null: of the encoder's weights, else measured on the training images and written
    to the run's config."""
    std: tuple[float, ...] | None = None
    """Standard deviation of each channel, in 0..1; null: as `mean`."""
    seen: Seen | None = None
    """What the training images were like, for `predict` to tell of images that are unlike them all. Each new training
    measures it and writes it to the run's config; null: not known, and `predict` tells of none."""
    mask_mode: Literal["L", "P", "1", "I;16", "RGB", "LA", "RGBA"] | None = None
    """Pixel format that predictions are written with; null: that of the first training mask."""
    palette: str | None = None
    """Palette that predictions are written with when `mask_mode` is `P`, as hexadecimal RGB triples without
    separators; null: that of the first training mask."""

    @property
    def parts(self) -> dict[str, Folders]:
        """The splits that have files of their own, by name."""
        return {name: part for name in ("train", "val", "test") if (part := getattr(self, name)) is not None}

    @property
    def by_color(self) -> bool:
        """Whether classes are told by colours, and not by values."""
        return self.encoding in ("palette", "rgb")


@dataclass(frozen=True)
class Model:
    """The network: an encoder and a decoder by name. `segtool list encoders` and `decoders` show their options."""

    encoder: Component = _CONV
    """Encoder and its options."""
    decoder: Component = _UNET
    """Decoder and its options."""


@dataclass(frozen=True)
class Augment:
    """Random changes of the training images. All geometry is one resampling; a mask moves with its image."""

    crop: tuple[int, int] | None = None
    """Height and width in pixels of the training crop; null: the size of the first training image. Where the image
    does not reach, the mask is ignored."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Range of the zoom, drawn log-uniformly."""
    flip: Literal["none", "horizontal", "vertical", "both"] = "none"
    """Mirrored with probability 1/2 along each named axis."""
    rotate: float = 0.0
    """Largest rotation in degrees, to either side."""
    color: float = 0.0
    """Largest relative change of brightness, contrast and saturation, each drawn on its own. This and what follows up
    to `jpeg` leave alpha, the fourth of 4 channels, as it is."""
    hue: float = 0.0
    """Largest turn of the hue of RGB in degrees, to either side, at equal luminance: 20 makes an orange of a red."""
    tint: float = 0.0
    """Largest relative change of each channel on its own, as of the colour of the light or of a camera's white balance;
    white keeps its luminance."""
    gamma: float = 0.0
    """Largest relative change of the exponent that brightness is raised to, drawn log-uniformly: from 1 / (1 + gamma)
    to 1 + gamma."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels of the crop, drawn uniformly from 0."""
    noise: float = 0.0
    """Largest standard deviation of Gaussian noise in each value, as a share of the full range, drawn uniformly
    from 0."""
    jpeg: int | None = None
    """Lowest quality, 1 to 100, of a JPEG compression that the crop is put through, drawn uniformly up to 100; null:
    none. For 8-bit images of 1 or 3 channels."""
    elastic: float = 0.0
    """Standard deviation, in pixels of the crop, of the random displacement of control points 64 pixels apart, smooth
    in between. Above 10 some crops fold over themselves, from 16 on most do."""
    erase: float = 0.0
    """Largest share of the crop's area that one rectangle takes away, drawn uniformly from 0: the image has its mean
    colour there and the mask is ignored."""
    rare: float = 0.0
    """Share of the crops that are centred, as far as the image reaches, on a pixel of a class drawn from those in the
    image: each with a probability inverse to its share of the training pixels."""


@dataclass(frozen=True)
class Optim:
    """The optimizer and its learning rate."""

    name: Literal["adamw", "sgd"] = "adamw"
    """`adamw` or `sgd`."""
    lr: float = 1e-3
    """Largest learning rate, reached at the end of the warm-up."""
    weight_decay: float = 1e-2
    """Decoupled for AdamW, an L2 term for SGD; not applied to norms and biases."""
    momentum: float = 0.9
    """Of SGD; AdamW's first beta."""
    schedule: Literal["poly", "cosine", "constant", "one_cycle"] = "poly"
    """How the learning rate falls after the warm-up. `one_cycle` has its own: it rises from lr / 25 over the first 30 %
    of the run, then falls to lr / 250,000, both along a cosine."""
    power: float = 0.9
    """Exponent of `poly`."""
    warmup: int = 0
    """Steps of linear warm-up; cut to a tenth of the run where it is longer; no part of `one_cycle`."""
    clip: float | None = None
    """Largest norm of the gradient; null: not clipped."""
    layer_decay: float = 1.0
    """Factor of the learning rate from each of the encoder's levels to the next finer one: below 1, what is nearer to
    the image learns more slowly. The deepest level has the encoder's own factor."""


@dataclass(frozen=True)
class Train:
    """How long and how to train."""

    epochs: float | None = None
    """Length in passes over the training images; 100 where neither this nor `steps` is given."""
    steps: int | None = None
    """Length in optimizer steps; excludes `epochs`."""
    batch_size: int = 8
    """Images in one optimizer step, over all processes."""
    accumulate: int = 1
    """Parts in which the batch goes through the network, one after the other, where it does not fit into memory at
    once. The loss is that of the whole batch; BatchNorm sees the parts."""
    eval_every: float = 1.0
    """Epochs between two validations; one more is made at the end."""
    patience: int | None = None
    """Validations without a better mean IoU after which training ends; null: never."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the forward and backward pass; `auto`: bf16 where the processor computes it faster, fp16 (with a
    scaled loss) on a GPU that only has that, else fp32. fp16 needs CUDA."""
    compile: Literal["auto"] | bool = "auto"
    """Whether torch.compile makes the step faster; `auto`: where the run is long enough to repay the compilation."""
    ema: float | None = 0.999
    """Decay of the averaged weights, which are the ones validated and predicted with; null: the last weights."""
    seed: int = 0
    """Seed of the weights, the order of the images and every augmentation."""
    workers: Literal["auto"] | int = "auto"
    """Processes that load training images; 0 loads in the main one. Does not change the result."""
    cache: Literal["auto"] | bool = "auto"
    """Whether decoded training images and masks are kept in memory; `auto`: where they take at most a quarter of the
    memory that is free. Does not change the result."""
    sync_batch_norm: bool = False
    """Whether BatchNorm takes its statistics over the images of all processes; false: over those of each process. CUDA
    only."""
    timeout: float = 600.0
    """Seconds that processes which train together wait for one another before the job ends."""
    keep: int = 2
    """Checkpoints kept besides the best one."""
    samples: int = 4
    """Validation images drawn as image, truth and prediction, at each validation that is the best so far."""


@dataclass(frozen=True)
class Limits:
    """Guards against files that would take all memory."""

    max_pixels: int = 200_000_000
    """Largest number of pixels of an image or mask; each 16 samples of a pixel count as one."""


@dataclass(frozen=True)
class Sections:
    """The sections of a config file; every one may be left out, `data` aside."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    format: int = 1
    """Version of this format, which stands in every config that segtool writes. A file without it is read as the
    current version; one of a newer version is refused with the advice to upgrade."""
    data: Data = Data()
    """Where the images and masks are, and what the stored masks mean."""
    model: Model = Model()
    """The network."""
    loss: tuple[LossTerm, ...] = (LossTerm("cross_entropy"),)
    """Losses that are summed: names, or mappings with `name`, `weight` (1.0 by default) and the loss's options.
    `segtool list losses` shows them."""
    augment: Augment = Augment()
    """Random changes of the training images."""
    optim: Optim = Optim()
    """The optimizer and its learning rate."""
    train: Train = Train()
    """How long and how to train."""
    limits: Limits = Limits()
    """Guards against files that would take all memory."""


@dataclass(frozen=True)
class Config(Sections):
    """Everything that decides a run, and where each value came from."""

    origins: Origins = field(default_factory=Origins, compare=False, repr=False)
    """Not part of the file: places for messages and for `show`."""


def plain(value: Any) -> Any:
    """Returns a config, or a part of one, as plain data for YAML or JSON; its origins are left out."""
    if isinstance(value, Component):
        return value.plain()
    if dataclasses.is_dataclass(value):
        kept = [f for f in dataclasses.fields(value) if f.compare]
        if isinstance(value, ClassSpec | Folders):
            kept = [f for f in kept if getattr(value, f.name) != f.default]
        return {f.name: plain(getattr(value, f.name)) for f in kept}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value
