"""What a network does, operation by operation, without computing it: sizes, formulas, costs and receptive fields.

`trace` runs the network once on the meta device, where tensors have shapes and no values, and watches every function
call. So it holds for any network, branches included: nothing has to be declared.

Source of the arithmetic: Dumoulin and Visin 2016, "A guide to convolution arithmetic for deep learning".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Field:
    """Along one axis, the input pixels that each pixel of a map depends on; height and width are alike.

    Behind an upsampling, neighbouring pixels see differently placed windows, but the pattern repeats: pixel
    `q * period + phase` depends on input pixels `q * span + low[phase]` to `q * span + high[phase]`, as if the image
    had no border. A pixel that depends on nothing (bed of nails) has low = inf and high = -inf.
    """

    jump: int
    """Input pixels from one pixel of the map to the next: its stride."""
    low: tuple[float, ...]
    high: tuple[float, ...]

    @classmethod
    def of_image(cls, period: int) -> Field:
        """Returns the field of the image itself: each pixel is its own."""
        own = tuple(float(pixel) for pixel in range(period))
        return cls(1, own, own)

    @property
    def extent(self) -> int:
        """The most input pixels that a pixel depends on, along one axis."""
        return int(max(high - low + 1 for low, high in zip(self.low, self.high, strict=True)))

    @property
    def reach(self) -> int:
        """At stride 1: how far from a pixel's own place the farthest input pixel is that it depends on."""
        sides = [
            max(phase - low, high - phase) for phase, (low, high) in enumerate(zip(self.low, self.high, strict=True))
        ]
        return int(max(sides))

    def union(self, other: Field) -> Field:
        """Returns the field of a map whose pixels depend on what those of both maps do."""
        low = tuple(map(min, self.low, other.low))
        return Field(self.jump, low, tuple(map(max, self.high, other.high)))

    def down(self, stride: int, reads: Callable[[int], Iterable[int]]) -> Field | None:
        """Returns the field of a map `stride` times smaller whose pixel v reads this one's pixels `reads(v)`.

        None where the period does not hold that stride: then the field is not known.
        """
        if len(self.low) % stride:
            return None
        return self._read(self.jump * stride, len(self.low) // stride, reads)

    def up(self, stride: int, reads: Callable[[int], Iterable[int]]) -> Field | None:
        """Returns the field of a map `stride` times larger whose pixel v reads this one's pixels `reads(v)`."""
        if self.jump % stride:
            return None
        return self._read(self.jump // stride, len(self.low) * stride, reads)

    def _read(self, jump: int, period: int, reads: Callable[[int], Iterable[int]]) -> Field:
        windows = [[self._at(pixel) for pixel in reads(phase)] for phase in range(period)]
        low = tuple(min((low for low, _ in window), default=math.inf) for window in windows)
        return Field(jump, low, tuple(max((high for _, high in window), default=-math.inf) for window in windows))

    def _at(self, pixel: int) -> tuple[float, float]:
        turns, phase = divmod(pixel, len(self.low))
        shift = turns * self.jump * len(self.low)
        return self.low[phase] + shift, self.high[phase] + shift


@dataclass
class Operation:
    """One convolution, pooling or upsampling of a network."""

    name: str
    """Dotted name of the module that did it."""
    kind: str
    """What it is and the side of its kernel, such as `conv 3x3`."""
    channels: int
    height: int
    width: int
    """Output size."""
    formula: str
    """The output height from the input height, with its numbers."""
    field: Field | None
    """None where every pixel of the image counts, or it is not known."""
    multiply_adds: int
    """For one image; multiplications by weights only, biases and interpolation left out."""
    kernel: int = 1
    stride: int = 1
    parameters: int = 0
    """Of the module, and of the norm after it."""
    kept: int = 0
    """Bytes that autograd keeps for the backward pass because of it, or of the norm and the activation after it."""

    @property
    def uneven_overlap(self) -> bool:
        """Whether neighbouring outputs of a transposed convolution sum unequally many terms."""
        return self.kind.startswith("transposed") and self.kernel % self.stride != 0


def trace(
    model: nn.Module, size: tuple[int, int, int], *, period: int, batch: int = 1, keeping: bool = False
) -> list[Operation]:
    """Returns the operations of a forward pass, in the order in which they run.

    Works on a network on any device, in the mode in which it is, and leaves it as it was; no value is computed. Norms
    count as pointwise, also those whose statistics are the whole image's (group, instance), and so do gates made from
    the mean of the whole image (squeeze and excitation).

    Args:
        model: The network, called with one tensor.
        size: C, H, W of the image.
        period: The largest stride inside the network.
        batch: Images in the forward pass.
        keeping: Also count what autograd keeps for the backward pass: every storage that it saves, once, parameters
            and buffers left out. Takes several times as long, since the norms run too.
    """
    tensors = chain(model.named_parameters(), model.named_buffers())
    hollow = {
        name: torch.empty_like(tensor, device="meta", requires_grad=keeping and tensor.requires_grad)
        for name, tensor in tensors
    }
    images = torch.empty((batch, *size), device="meta", dtype=next(model.parameters()).dtype)
    tracer = _Tracer(keeping=keeping)
    tracer.see(images, Field.of_image(period))
    tracer.own(hollow.values())
    handles = tracer.follow(model)
    saving = torch.autograd.graph.saved_tensors_hooks(tracer.keep, lambda tensor: tensor)
    try:
        with torch.set_grad_enabled(keeping), saving if keeping else nullcontext(), tracer:
            functional_call(model, hollow, (images,))
    finally:
        for handle in handles:
            handle.remove()
    return tracer.operations


class _Tracer(TorchFunctionMode):
    """Watches calls of torch functions, and the modules they are made in."""

    def __init__(self, *, keeping: bool) -> None:
        super().__init__()
        self.operations: list[Operation] = []
        self._keeping = keeping
        self._kept = 0
        self._unclaimed = 0  # kept before the first operation
        self._storages: dict[int, Tensor] = {}  # by identity; a tensor of each is held so that it stays the only one
        self._fields: dict[int, tuple[Tensor, Field | None]] = {}  # by id; the tensor is kept so that its id is
        self._inside: list[str] = []
        self._counted: set[int] = set()

    def see(self, tensor: Tensor, field: Field | None) -> None:
        self._fields[id(tensor)] = tensor, field

    def field(self, tensor: Any) -> Field | None:
        return self._fields.get(id(tensor), (None, None))[1]

    def own(self, tensors: Iterable[Tensor]) -> None:
        """Takes tensors that are there anyway and so are not counted where autograd saves them."""
        self._storages |= {tensor.untyped_storage()._cdata: tensor for tensor in tensors}

    def keep(self, tensor: Tensor) -> Tensor:
        """Counts a tensor that autograd saves, unless its storage was counted before."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._storages:
            self._storages[storage._cdata] = tensor
            self._kept += storage.nbytes()
        return tensor

    def follow(self, model: nn.Module) -> list[Any]:
        """Registers hooks that keep the current module's name, and count each module's own parameters once."""
        handles = []
        for name, module in model.named_modules():
            handles.append(module.register_forward_pre_hook(lambda *_, name=name: self._inside.append(name)))
            handles.append(module.register_forward_hook(self._leave))
        return handles

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._inside.pop()
        if self.operations and id(module) not in self._counted:
            self._counted.add(id(module))
            self.operations[-1].parameters += sum(p.numel() for p in module.parameters(recurse=False))

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        kept = self._kept
        output = self._run(func, name, args, kwargs)
        handler = _HANDLERS.get(name)
        if handler is not None:
            self._record(handler(self, output, *args, **kwargs), output)
        elif func is F.pad:
            self.see(output, self._moved(args[0], -args[1][2] if len(args[1]) > 2 else 0))
        elif name == "__getitem__" and isinstance(output, Tensor) and output.ndim == 4:
            self.see(output, self._moved(args[0], *_rows(args[1], args[0].shape[-2])))
        elif isinstance(output, Tensor) and output.ndim >= 4:
            self.see(output, self._pointwise(output, [*args, *kwargs.values()]))
        self._claim(self._kept - kept)
        return output

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name not in _NORMS:
            return func(*args, **kwargs)
        if not self._keeping:
            return torch.empty_like(args[0])
        if func is F.batch_norm:  # without its check that a channel has two values: nothing is computed here
            return _batch_norm(*args, **kwargs)
        return func(*args, **kwargs)

    def _record(self, operation: Operation, output: Any) -> None:
        operation.name = self._inside[-1] if self._inside else ""
        self.operations.append(operation)
        for tensor in output if isinstance(output, tuple) else (output,):  # pooling: values and indices
            self.see(tensor, operation.field)

    def _claim(self, kept: int) -> None:
        if not self.operations:
            self._unclaimed += kept
            return
        self.operations[-1].kept += kept + self._unclaimed
        self._unclaimed = 0

    def _moved(self, x: Any, first: int, step: int = 1) -> Field | None:
        """Returns the field of a map whose pixel v is x's pixel v * step + first: of a crop, or where first is below 0
        of a padding."""
        field = self.field(x)
        return field and field.down(step, lambda v: (v * step + first,))

    def _pointwise(self, output: Tensor, arguments: list[Any]) -> Field | None:
        """Returns the union over the arguments of the output's size; a gate of size 1x1 does not count.

        None where one of them has seen the image in a way that is not followed, as attention does. The size may stand
        before the channels, as in between in ConvNeXt.
        """
        sizes = {output.shape[-2:], output.shape[1:3]}
        found = None
        for argument in arguments:
            for item in argument if isinstance(argument, (list, tuple)) else (argument,):
                if id(item) not in self._fields or not {item.shape[-2:], item.shape[1:3]} & sizes:
                    continue
                field = self.field(item)
                if field is None and item.shape[-2:] != (1, 1):
                    return None
                if field is not None:
                    found = field if found is None or found.jump != field.jump else found.union(field)
        return found


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


def _rows(index: Any, height: int) -> tuple[int, int]:
    """Returns first row and step of an index `..., rows, columns` or `:, :, rows, columns`; 0 and 1 of any other."""
    if isinstance(index, tuple) and (len(index) == 4 or (len(index) == 3 and index[0] is Ellipsis)):
        rows = index[-2]
        if isinstance(rows, slice):
            first, _, step = rows.indices(height)
            return first, step
    return 0, 1


def _operation(kind: str, output: Any, formula: str, field: Field | None, **rest: Any) -> Operation:
    tensor = output[0] if isinstance(output, tuple) else output
    _, channels, height, width = tensor.shape
    return Operation("", kind, channels, height, width, formula, field, rest.pop("multiply_adds", 0), **rest)


def _windowed(
    tracer: _Tracer,
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
    field = tracer.field(x)
    field = field and field.down(s, lambda v: range(v * s - p, v * s - p + reaching, d))
    return _operation(_named(kind, kernel), output, formula, field, kernel=k, stride=s, multiply_adds=cost)


def _conv(
    tracer: _Tracer,
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
    return _windowed(tracer, kind, x, output, kernel, stride, padding, dilation=dilation, cost=cost)


def _max_pool(
    tracer: _Tracer,
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
    return _windowed(tracer, "max pool", x, output, kernel_size, stride, padding, dilation=dilation, rounding=rounding)


def _avg_pool(
    tracer: _Tracer,
    output: Tensor,
    x: Tensor,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    *_: Any,
) -> Operation:
    rounding = "ceil" if ceil_mode else "floor"
    return _windowed(tracer, "avg pool", x, output, kernel_size, stride or kernel_size, padding, rounding=rounding)


def _transposed(
    tracer: _Tracer,
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
    field = tracer.field(x)
    field = field and field.up(s, lambda v: range(-((k - 1 - v - p) // s), (v + p) // s + 1))
    formula = f"{s}*({x.shape[-2]} - 1) + {k} - 2*{p} + {extra} = {output.shape[-2]}"
    cost = x[0].numel() * weight[0].numel()
    kind = _named("transposed conv", tuple(weight.shape[-2:]))
    return _operation(kind, output, formula, field, kernel=k, stride=s, multiply_adds=cost)


def _pool_to(tracer: _Tracer, output: Tensor, x: Tensor, output_size: Any, *_: Any) -> Operation:
    """A mean over the whole map, or over as many windows as asked for: their fields are not worked out."""
    return _operation("avg pool to a size", output, f"{output.shape[-2]}", None)


def _interpolate(
    tracer: _Tracer,
    output: Tensor,
    x: Tensor,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    *_: Any,
    **__: Any,
) -> Operation:
    ratio, rest = divmod(output.shape[-2], x.shape[-2])
    operation = _copied(tracer, mode, output, x, max(ratio, 1), linear=mode != "nearest")
    if rest or not ratio:  # not by a whole number: nothing of ours, and its field is not worked out
        operation.field, operation.formula = None, f"{output.shape[-2]}"
    return operation


def _bed_of_nails(tracer: _Tracer, output: Tensor, x: Tensor, ratio: int) -> Operation:
    operation = _copied(tracer, "bed of nails", output, x, ratio)
    field = tracer.field(x)
    operation.field = field and field.up(ratio, lambda v: () if v % ratio else (v // ratio,))
    return operation


def _max_unpool(tracer: _Tracer, output: Tensor, x: Tensor, indices: Tensor, ratio: int) -> Operation:
    operation = _copied(tracer, "max unpool", output, x, ratio)
    window = tracer.field(indices)  # where a value lands depends on the pixels that were compared
    window = window and window.up(ratio, lambda v: (v // ratio,))
    operation.field = operation.field and window and operation.field.union(window)
    return operation


def _copied(tracer: _Tracer, kind: str, output: Tensor, x: Tensor, ratio: int, *, linear: bool = False) -> Operation:
    """An upsampling without weights: output v reads input v // ratio, or with `linear` the two nearest ones."""

    def reads(v: int) -> tuple[int, ...]:
        if not linear:
            return (v // ratio,)
        below = (2 * v + 1 - ratio) // (2 * ratio)  # floor of (v + 0.5) / ratio - 0.5
        return (below,) if (2 * v + 1 - ratio) % (2 * ratio) == 0 else (below, below + 1)

    field = tracer.field(x)
    field = field and field.up(ratio, reads)
    formula = f"{ratio}*{x.shape[-2]} = {output.shape[-2]}"
    return _operation(kind, output, formula, field, kernel=ratio, stride=ratio)


def _batch_norm(
    x: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Takes the arguments of `F.batch_norm`; the running statistics are not updated."""
    running = (None, None) if training else (mean, variance)
    return torch.batch_norm(x, weight, bias, *running, training, momentum, eps, False)


_NORMS = {"batch_norm", "group_norm", "instance_norm", "layer_norm"}
"""Only run where memory is counted: they change no shape, and on the meta device take most of the time (70 ms of 85 in
a small U-Net)."""

_HANDLERS: dict[str, Callable[..., Operation]] = {
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
