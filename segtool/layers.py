"""What `segtool inspect` prints: a network layer by layer, with the arithmetic behind every size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from segtool.models.segmenter import Segmenter
from segtool.models.trace import Operation, trace

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Layer:
    """One convolution, pooling or upsampling."""

    name: str
    """Dotted name of the module, as in the weights' keys."""
    kind: str
    """What it is and its kernel, such as `conv 3x3`."""
    channels: int
    height: int
    width: int
    """Output size."""
    formula: str
    """The output height from the input height, such as `(240 + 2*1 - 3)/1 + 1 = 240`."""
    stride: int | None
    """Image pixels from one output pixel to the next; null behind a pooling of the whole image."""
    receptive_field: int | None
    """Image pixels along one axis that an output pixel depends on at most; null: the whole image."""
    parameters: int
    """Weights and biases, those of the norm that follows included."""
    multiply_adds: int
    """For one image; multiplications by weights only."""


@dataclass(frozen=True)
class Summary:
    """A network at one image size."""

    input: tuple[int, int, int]
    """Channels, height and width of the image."""
    padded: tuple[int, int]
    """Height and width inside the network: the next multiples of the stride."""
    layers: tuple[Layer, ...]
    """In the order in which they run."""
    stride: int
    """Largest stride inside: training crops are at least this large."""
    receptive_field: int
    """Side of the window, centred on an output pixel, that holds all it depends on. Larger than the last layer's
    field where upsampling puts pixels off the centre of what they see."""
    parameters: int
    """Of the whole network."""
    multiply_adds: int
    """Of the whole network, for one image."""
    warnings: tuple[str, ...]
    """What is likely not meant, such as a checkerboard."""


def describe(model: Segmenter, height: int, width: int) -> Summary:
    """Returns the layers of a network for an image of height x width. Nothing is computed, on no device."""
    operations = trace(model, (model.in_channels, height, width), period=model.stride)
    return Summary(
        input=(model.in_channels, height, width),
        padded=(height + -height % model.stride, width + -width % model.stride),
        layers=tuple(_layer(operation) for operation in operations),
        stride=model.stride,
        receptive_field=model.receptive_field,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        multiply_adds=sum(operation.multiply_adds for operation in operations),
        warnings=tuple(_checkerboard(operation) for operation in operations if operation.uneven_overlap),
    )


def rows_table(summary: Summary) -> Table:
    """Returns the layers as a table for a terminal, with the totals in its last row."""
    from rich.table import Table

    table = Table(title="{} x {} x {} image".format(*summary.input), title_justify="left")
    for heading in ("layer", "kind"):
        table.add_column(heading, overflow="fold")
    table.add_column("output C x H x W", justify="right")
    table.add_column("output height", overflow="fold")
    for heading in ("stride", "field", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for layer in summary.layers:
        table.add_row(*_cells(layer))
    table.add_section()
    totals = (summary.stride, summary.receptive_field, summary.parameters, summary.multiply_adds)
    table.add_row("whole network", "", "", "", *(f"{total:,}" for total in totals))
    return table


def _layer(operation: Operation) -> Layer:
    field = operation.field
    return Layer(
        name=operation.name,
        kind=operation.kind,
        channels=operation.channels,
        height=operation.height,
        width=operation.width,
        formula=operation.formula,
        stride=field.jump if field else None,
        receptive_field=field.extent if field else None,
        parameters=operation.parameters,
        multiply_adds=operation.multiply_adds,
    )


def _cells(layer: Layer) -> list[str]:
    size = f"{layer.channels} x {layer.height} x {layer.width}"
    whole = [f"{value:,}" if value is not None else "all" for value in (layer.stride, layer.receptive_field)]
    return [layer.name, layer.kind, size, layer.formula, *whole, f"{layer.parameters:,}", f"{layer.multiply_adds:,}"]


def _checkerboard(operation: Operation) -> str:
    k, s = operation.kernel, operation.stride
    return (
        f"{operation.name}: kernel {k} is no multiple of stride {s} ({k} % {s} = {k % s}), so neighbouring outputs sum "
        f"unequally many terms (checkerboard); use kernel {-(-k // s) * s}"
    )
