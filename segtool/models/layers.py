"""What `segtool inspect` prints: a network layer by layer, with the arithmetic behind every size."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rich import box
from rich.table import Table

from segtool.models.operations import Operation
from segtool.models.segmenter import Segmenter
from segtool.models.trace import trace

NARROW = 90  # columns up to which those of the table stand close together
WIDE = 150  # columns from which a layer has its table's row to itself; below, it takes two lines
OF_LAYERS = ("name", "kind", "channels", "height", "width", "formula")
OF_LAYERS += ("stride", "receptive_field", "parameters", "multiply_adds", "kept")
"""What `inspect --json` tells of each layer."""


@dataclass(frozen=True)
class Summary:
    """A network at one image size."""

    input: tuple[int, int, int]
    """Channels, height and width of the image."""
    padded: tuple[int, int]
    """Height and width inside the network: the next multiples of the stride."""
    layers: tuple[Operation, ...]
    """In the order in which they run; what is kept of them is for one image."""
    stride: int
    """Largest stride inside: training crops are at least this large."""
    receptive_field: int | None
    """Side of the window, centred on an output pixel, that holds all it depends on. Larger than the last layer's
    field where upsampling puts pixels off the centre of what they see. Null: the whole image, or it is not known."""
    parameters: int
    """Of the whole network."""
    multiply_adds: int
    """Of the whole network, for one image."""
    batch: int
    """Images that go through the network at once in training."""
    kept: int
    """Bytes that autograd keeps of that batch for the backward pass, in float32."""
    warnings: tuple[str, ...]
    """What is likely not meant, such as a checkerboard."""


def describe(model: Segmenter, height: int, width: int, *, batch: int = 1) -> Summary:
    """Returns the layers of a network for images of height x width, in the mode in which it is: heads that only
    training uses are there in training. Nothing is computed, on no device.
    """
    size = (model.in_channels, height, width)
    operations = trace(model, size, period=model.stride, batch=batch, keeping=True)
    warnings = [_checkerboard(operation) for operation in operations if operation.uneven_overlap]
    if model.training and model.stride > 1 and model.deepest(height) == model.deepest(width) == 1:
        warnings.append(_single_pixel(height, width, model.stride))
    return Summary(
        input=size,
        padded=(height + sum(model.padding(height)), width + sum(model.padding(width))),
        layers=tuple(replace(operation, kept=round(operation.kept / batch)) for operation in operations),
        stride=model.stride,
        receptive_field=model.receptive_field,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=sum(operation.multiply_adds for operation in operations),
        batch=batch,
        kept=sum(operation.kept for operation in operations),
        warnings=tuple(warnings),
    )


def rows_table(summary: Summary, *, width: int) -> Table:
    """Returns the layers as a table of `width` columns, with the totals in its last row.

    Below 150 columns a layer takes two lines, which 80 columns hold.
    """
    wide = width >= WIDE
    title = "{} x {} x {} image".format(*summary.input)
    if summary.padded != summary.input[1:]:
        title += ", padded to {} x {}".format(*summary.padded)
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.padding = (0, 1 if width > NARROW else 0, 0, 0)
    for headings, right in _COLUMNS:
        for heading in headings if wide else ("\n".join(headings),):
            table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for layer in summary.layers:
        size = f"{layer.channels} x {layer.height} x {layer.width}"
        names = (layer.name or "(network)", layer.formula), (layer.kind, size)
        table.add_row(*_as_columns([*names, *_numbers(layer, layer.kept)], wide=wide))
    table.add_section()
    numbers = _numbers(summary, summary.kept / summary.batch)
    table.add_row(*_as_columns([("whole network", ""), ("", ""), *numbers], wide=wide))
    return table


_COLUMNS = (
    (("layer", "output height"), False),
    (("kind", "output C x H x W"), False),
    (("stride", "field"), True),
    (("parameters", "multiply-adds"), True),
    (("kept MB",), True),
)
"""Headings of the columns, those that share one in a narrow table together; and whether they hold numbers."""

DEFINITIONS = (
    "stride, field: image pixels from one output pixel to the next, and those it depends on along an axis; "
    "kept MB: what autograd keeps for the backward pass, of one image in float32, at the layer that first needs it"
)


def _as_columns(cells: list[tuple[str, ...]], *, wide: bool) -> list[str]:
    """Returns the cells of a row, each by itself or those of a column together."""
    if wide:
        return [cell for column in cells for cell in column]
    return ["\n".join(column).rstrip() for column in cells]


def _numbers(of: Operation | Summary, kept: float) -> list[tuple[str, ...]]:
    field = "all" if of.receptive_field is None else f"{of.receptive_field:,}"
    stride = "all" if of.stride is None else f"{of.stride:,}"
    return [(stride, field), (f"{of.parameters:,}", f"{of.multiply_adds:,}"), (f"{kept / 1e6:,.2f}",)]


def _checkerboard(operation: Operation) -> str:
    k, s = operation.kernel, operation.step
    return (
        f"{operation.name}: kernel {k} is no multiple of stride {s} ({k} % {s} = {k % s}), so neighbouring outputs sum "
        f"unequally many terms (checkerboard); use kernel {-(-k // s) * s}"
    )


def _single_pixel(height: int, width: int, stride: int) -> str:
    return (
        f"of a crop of {height}x{width} the deepest map is a single pixel: 8 of the 9 weights of a 3x3 convolution "
        f"there meet padding only, and learn nothing; use a larger augment.crop (above {stride}) or fewer levels"
    )
