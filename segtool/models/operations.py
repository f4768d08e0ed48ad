"""The functions that a network moves pixels with, one handler for each: size, formula, cost and field of what it gives.

A handler takes what tells the field of a tensor, the function's output and its arguments.

Source of the arithmetic: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from segtool.models.receptive_field import Field


@dataclass
class Operation:
    """One convolution, pooling or upsampling of a network."""

    name: str
    """Dotted name of the module that did it, as in the weights' keys; "" where the network does it itself."""
    kind: str
    """What it is and its kernel, such as `conv 3x3`."""
    channels: int
    height: int
    width: int
    """Output size."""
    formula: str
    """The output height from the input height, such as `(240 + 2*1 - 3)/1 + 1 = 240`."""
    field: Field | None
    """None where every pixel of the image counts, or it is not known."""
    multiply_adds: int
    """For one image; multiplications by weights only, biases and interpolation left out."""
    kernel: int = 1
    step: int = 1
    """Pixels from one place of the kernel to the next: of the input, or of the output of an upsampling."""
    parameters: int = 0
    """Weights and biases of the module, and of the norm after it."""
    kept: int = 0
    """Bytes that autograd keeps for the backward pass because of it and of the norm and activation after it, and of no
    layer before, in float32."""

    @property
    def stride(self) -> int | None:
        """Image pixels from one output pixel to the next; null behind a pooling of the whole image."""
        return None if self.field is None else self.field.jump

    @property
    def receptive_field(self) -> int | None:
        """Image pixels along one axis that an output pixel depends on at most; null: the whole image.

        The statistics of group and instance norms and the gates of squeeze-and-excitation blocks see the whole image
        too, and do not count here.
        """
        return None if self.field is None else self.field.extent

    @property
    def uneven_overlap(self) -> bool:
        """Whether neighbouring outputs of a transposed convolution sum unequally many terms."""
        return self.kind.startswith("transposed") and self.kernel % self.step != 0


FieldOf = Callable[[Any], Field | None]
"""Returns the field of a tensor that a function was called with; None where it is not known."""


def _side(value: Any) -> int:
    """Returns the side along the height of an argument that may be one number or one for each axis."""
    return value[0] if isinstance(value, (list, tuple)) else value


def _named(kind: str, kernel: Any) -> str:
    sides = tuple(kernel) if isinstance(kernel, (list, tuple)) else (kernel, kernel)
    return f"{kind} {sides[0]}x{sides[-1]}"


def _conv_kind(inputs: int, outputs: int, groups: int) -> str:
    if groups == 1:
        return "conv"
    return "depthwise conv" if groups == inputs == outputs else "grouped conv"


def _operation(kind: str, output: Any, formula: str, field: Field | None, **rest: Any) -> Operation:
    tensor = output[0] if isinstance(output, tuple) else output
    _, channels, height, width = tensor.shape
    return Operation("", kind, channels, height, width, formula, field, rest.pop("multiply_adds", 0), **rest)


def _windowed(
    field_of: FieldOf,
    kind: str,
    x: Tensor,
    output: Any,
    kernel: Any,
    stride: Any,
    padding: Any,
    *,
    dilation: Any = 1,
    cost: int = 0,
    rounding: str = "floor",
) -> Operation:
    """A convolution or pooling: output v reads inputs `v * stride - padding + dilation * t`, t below kernel."""
    k, s, p, d = _side(kernel), _side(stride), _side(padding), _side(dilation)
    size, reaching = x.shape[-2], d * (k - 1) + 1
    result = (output[0] if isinstance(output, tuple) else output).shape[-2]
    exact = (size + 2 * p - reaching) % s == 0
    quotient = f"({size} + 2*{p} - {k if d == 1 else f'({d}*({k} - 1) + 1)'})/{s}"
    formula = f"{quotient if exact else f'{rounding}({quotient})'} + 1 = {result}"
    field = field_of(x)
    field = field and field.down(s, lambda v: range(v * s - p, v * s - p + reaching, d))
    return _operation(_named(kind, kernel), output, formula, field, kernel=k, step=s, multiply_adds=cost)


def _conv(
    field_of: FieldOf,
    output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Operation:
    cost = output[0].numel() * weight[0].numel()
    if isinstance(padding, str):
        padding = 0 if padding == "valid" else _side(dilation) * (weight.shape[-2] - 1) // 2
    kind, kernel = _conv_kind(x.shape[1], output.shape[1], groups), tuple(weight.shape[-2:])
    return _windowed(field_of, kind, x, output, kernel, stride, padding, dilation=dilation, cost=cost)


def _max_pool(
    field_of: FieldOf,
    output: Any,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Operation:
    rounding = "ceil" if ceil_mode else "floor"
    stride = stride or kernel_size
    return _windowed(
        field_of, "max pool", x, output, kernel_size, stride, padding, dilation=dilation, rounding=rounding
    )


def _avg_pool(
    field_of: FieldOf,
    output: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_: Any,
) -> Operation:
    rounding = "ceil" if ceil_mode else "floor"
    return _windowed(field_of, "avg pool", x, output, kernel_size, stride or kernel_size, padding, rounding=rounding)


def _transposed(
    field_of: FieldOf,
    output: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Operation:
    """Input i adds to outputs `i * stride - padding + t`, t below kernel: output v reads the i that hit it."""
    k, s, p, extra = weight.shape[-2], _side(stride), _side(padding), _side(output_padding)
    field = field_of(x)
    field = field and field.up(s, lambda v: range(-((k - 1 - v - p) // s), (v + p) // s + 1))
    formula = f"{s}*({x.shape[-2]} - 1) + {k} - 2*{p} + {extra} = {output.shape[-2]}"
    cost = x[0].numel() * weight[0].numel()
    kind = _named("transposed conv", tuple(weight.shape[-2:]))
    return _operation(kind, output, formula, field, kernel=k, step=s, multiply_adds=cost)


def _pool_to(field_of: FieldOf, output: Tensor, x: Tensor, output_size: Any, *_: Any) -> Operation:
    """A mean over the whole map, or over as many windows as asked for: their fields are not worked out."""
    return _operation("avg pool to a size", output, f"{output.shape[-2]}", None)


def _interpolate(
    field_of: FieldOf,
    output: Tensor,
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *_: Any,
    **__: Any,
) -> Operation:
    ratio, rest = divmod(output.shape[-2], x.shape[-2])
    operation = _copied(field_of, mode, output, x, max(ratio, 1), linear=mode != "nearest")
    if rest or not ratio:  # not by a whole number: nothing of ours, and its field is not worked out
        operation.field, operation.formula = None, f"{output.shape[-2]}"
    return operation


def _bed_of_nails(field_of: FieldOf, output: Tensor, x: Tensor, ratio: int) -> Operation:
    operation = _copied(field_of, "bed of nails", output, x, ratio)
    field = field_of(x)
    operation.field = field and field.up(ratio, lambda v: () if v % ratio else (v // ratio,))
    return operation


def _max_unpool(field_of: FieldOf, output: Tensor, x: Tensor, indices: Tensor, ratio: int) -> Operation:
    operation = _copied(field_of, "max unpool", output, x, ratio)
    window = field_of(indices)  # where a value lands depends on the pixels that were compared
    window = window and window.up(ratio, lambda v: (v // ratio,))
    operation.field = operation.field and window and operation.field.union(window)
    return operation


def _copied(field_of: FieldOf, kind: str, output: Tensor, x: Tensor, ratio: int, *, linear: bool = False) -> Operation:
    """An upsampling without weights: output v reads input v // ratio, or with `linear` the two nearest ones."""

    def reads(v: int) -> tuple[int, ...]:
        if not linear:
            return (v // ratio,)
        below = (2 * v + 1 - ratio) // (2 * ratio)  # floor of (v + 0.5) / ratio - 0.5
        return (below,) if (2 * v + 1 - ratio) % (2 * ratio) == 0 else (below, below + 1)

    field = field_of(x)
    field = field and field.up(ratio, reads)
    formula = f"{ratio}*{x.shape[-2]} = {output.shape[-2]}"
    return _operation(kind, output, formula, field, kernel=ratio, step=ratio)


HANDLERS: dict[str, Callable[..., Operation]] = {
    "conv2d": _conv,
    "conv_transpose2d": _transposed,
    "max_pool2d": _max_pool,
    "_max_pool2d": _max_pool,
    "max_pool2d_with_indices": _max_pool,
    "_max_pool2d_with_indices": _max_pool,
    "avg_pool2d": _avg_pool,
    "adaptive_avg_pool2d": _pool_to,
    "interpolate": _interpolate,
    "bed_of_nails": _bed_of_nails,
    "max_unpool": _max_unpool,
}
