"""Where a number that is not finite first appears, found by making the training step once more under observation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from segtool.errors import few

NOWHERE = (
    "made once more, the same step is finite: the device or its memory is at fault, or a compiled kernel "
    "(train.compile=false does without)"
)


def first_appearance(model: nn.Module, criterion: nn.Module, repeat: Callable[[], object]) -> str:
    """Returns where a number that is not finite first appears, as a sentence; "" where it does not appear again.

    Args:
        model: The network; its weights must be those before the step. Its buffers are left as they are found.
        criterion: Called with the logits, the target and the denominators.
        repeat: Makes the forward and backward passes of the step, uncompiled.
    """
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if spoiled := not_finite(model.named_parameters()):
        return f"the weights were not finite before the step: {few(spoiled, 3)}"
    with _observed(model, criterion) as found:
        repeat()
    model.load_state_dict(buffers, strict=False)
    if found:
        return found[0]
    gradients = {name: p.grad.abs().max().item() for name, p in model.named_parameters() if p.grad is not None}
    largest = max(gradients, key=gradients.__getitem__)
    if gradients[largest] > 1e18:  # the squares of such float32 numbers are infinite
        return f"every gradient is finite, but their norm is not; the largest is {gradients[largest]:.3g}, of {largest}"
    return ""


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Returns the names of the parameters or buffers that hold a number that is not finite."""
    named = [(name, value) for name, value in tensors if value.is_floating_point()]
    finite = torch.stack([value.detach().isfinite().all() for _, value in named]).tolist()
    return [name for (name, _), whole in zip(named, finite, strict=True) if not whole]


@contextmanager
def _observed(model: nn.Module, criterion: nn.Module) -> Generator[list[str]]:
    """Collects, in the order in which they happen, sentences on what is not finite: outputs, losses, gradients."""
    found: list[str] = []
    hooks = []

    def look_at(name: str, layer: nn.Module) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: Any, output: Any) -> None:
            if not _finite(output):
                kind = type(layer).__name__
                found.append(f"it first appears in what {name} ({kind}) gives, to which {_described(inputs)} came")

        return hook

    def look_at_loss(_: nn.Module, inputs: Any, output: Any) -> None:
        if not _finite(output):
            found.append(f"it first appears in the loss, of logits that are {_described(inputs[:1])}")

    def look_at_gradient(name: str) -> Callable[[Tensor], None]:
        def hook(parameter: Tensor) -> None:
            if not _finite(parameter.grad):
                found.append(f"the loss is finite; it first appears, going backward, in the gradient of {name}")

        return hook

    for name, layer in model.named_modules():
        if not any(layer.children()):
            hooks.append(layer.register_forward_hook(look_at(name, layer)))
    hooks.append(criterion.register_forward_hook(look_at_loss))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            hooks.append(parameter.register_post_accumulate_grad_hook(look_at_gradient(name)))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _described(values: Any) -> str:
    tensors = list(_tensors(values))
    if not _finite(tensors):
        return "numbers that were not finite already"
    return f"finite numbers of up to {max((t.abs().max().item() for t in tensors if t.numel()), default=0.0):.3g}"


def _finite(values: Any) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in _tensors(values))


def _tensors(values: Any) -> Iterator[Tensor]:
    """Yields the tensors of floating-point numbers in a tensor, or in a list or tuple of such."""
    if isinstance(values, Tensor):
        if values.is_floating_point():
            yield values.detach()
    elif isinstance(values, Iterable) and not isinstance(values, str):
        for value in values:
            yield from _tensors(value)
