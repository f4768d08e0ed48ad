"""What a network does, operation by operation, without computing it: sizes, formulas, costs and receptive fields.

`trace` runs the network once on the meta device, where tensors have shapes and no values, and watches every function
call. So it holds for any network, branches included: nothing has to be declared. What a call does, `operations` says.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from segtool.models.operations import HANDLERS, Operation
from segtool.models.receptive_field import Field


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
        keeping: Also count what autograd keeps for the backward pass: every storage that it saves, once, parameters
            and buffers left out. Takes several times as long, since the norms run too.
    """
    hollow = _hollow(model, learning=keeping)
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


def unreached(model: nn.Module, size: tuple[int, int, int]) -> list[nn.Parameter]:
    """Returns the parameters that no gradient ever reaches, as of a part of a backbone whose map nothing uses.

    Args:
        model: The network, called with one tensor, which returns one or a list, in the mode in which it is.
        size: C, H, W of the image.
    """
    hollow = _hollow(model, learning=True)
    outputs = functional_call(model, hollow, (torch.empty((2, *size), device="meta"),))
    left = [output.grad_fn for output in (outputs if isinstance(outputs, list) else [outputs])]
    nodes = set(left)
    while left:
        further = {node for node, _ in left.pop().next_functions if node is not None} - nodes
        nodes |= further
        left += further
    reached = {id(getattr(node, "variable", None)) for node in nodes}
    return [p for name, p in model.named_parameters() if p.requires_grad and id(hollow[name]) not in reached]


def _hollow(model: nn.Module, *, learning: bool) -> dict[str, Tensor]:
    """Returns parameters and buffers of a network without values, by name."""
    return {
        name: torch.empty_like(tensor, device="meta", requires_grad=learning and tensor.requires_grad)
        for name, tensor in chain(model.named_parameters(), model.named_buffers())
    }


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
        handler = HANDLERS.get(name)
        if handler is not None:
            self._record(handler(self.field, output, *args, **kwargs), output)
        elif func is F.pad:
            self.see(output, self._moved(args[0], -args[1][2] if len(args[1]) > 2 else 0))
        elif name == "__getitem__" and isinstance(output, Tensor) and output.ndim == 4:
            self.see(output, self._moved(args[0], *_rows(args[1], args[0].shape[-2])))
        elif isinstance(output, Tensor) and output.ndim >= 4:
            self.see(output, self._pointwise(output, [*args, *kwargs.values()]))
        self._claim(self._kept - kept)
        return output

    def _run(self, func: Any, name: str, args: Any, kwargs: Any) -> Any:
        if name in _NORMS and not self._keeping:
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


def _rows(index: Any, height: int) -> tuple[int, int]:
    """Returns first row and step of an index `..., rows, columns` or `:, :, rows, columns`; 0 and 1 of any other."""
    if isinstance(index, tuple) and (len(index) == 4 or (len(index) == 3 and index[0] is Ellipsis)):
        rows = index[-2]
        if isinstance(rows, slice):
            first, _, step = rows.indices(height)
            return first, step
    return 0, 1


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
