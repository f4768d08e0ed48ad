"""The theory that docs/theory.md explains: each identity as a sum written out in loops, against the layers in use.

Kernels are random and not symmetric, and maps are higher than wide or wider than high, so that a kernel that is
turned, mirrored or transposed, and two axes that are swapped, cannot pass. What must not hold is shown not to.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from numpy import ndarray as Array
from torch import Tensor, nn
from torch.nn import functional as F

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.models.blocks import LEAKY_SLOPE, Activation, conv_unit
from segtool.models.encoders import ConvEncoder, Encoder, Features
from segtool.models.layers import describe
from segtool.models.segmenter import Segmenter, build_model
from segtool.models.upsamplers import BedOfNails, Bilinear, MaxUnpool, Nearest, Transposed


@pytest.fixture(autouse=True)
def float64():
    """Sums in another order agree to 1e-10 then, and no tolerance has to be argued about."""
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(torch.float32)


def same(found: Tensor | Array, expected: Tensor | Array) -> bool:
    found, expected = torch.as_tensor(found).detach(), torch.as_tensor(expected).detach()
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=0, atol=1e-10)


def turned(kernel: Tensor) -> Tensor:
    """rot180: both axes reversed."""
    return kernel.flip(-2, -1)


def value(image: Array, y: int, x: int) -> float:
    """The pixel, or the zero around the image."""
    return image[y, x] if 0 <= y < image.shape[0] and 0 <= x < image.shape[1] else 0.0


def matrix(operation: Callable[[Tensor], Tensor], height: int, width: int) -> Tensor:
    """Returns the matrix of a linear operation on one channel: column j is what becomes of pixel j alone."""
    pixels = torch.eye(height * width).view(-1, 1, height, width)
    return torch.stack([operation(pixel[None]).detach().flatten() for pixel in pixels], dim=1)


# Convolution and cross-correlation: A and B are matrices, zero outside, and the result holds all places of overlap.


def convolution(a: Tensor, b: Tensor) -> Array:
    """(A * B)[i, j] = sum of A[m, n] B[i - m, j - n] over m, n."""
    a, b = a.numpy(), b.numpy()
    (h, w), (u, v) = a.shape, b.shape
    out = np.zeros((h + u - 1, w + v - 1))
    for i, j in np.ndindex(out.shape):
        out[i, j] = sum(a[m, n] * value(b, i - m, j - n) for m, n in np.ndindex(a.shape))
    return out


def correlation(a: Tensor, b: Tensor) -> Array:
    """(A ⋆ B)[i, j] = sum of A[i + m, j + n] B[m, n] over m, n, from i = 1 - height of B and j = 1 - width of B on."""
    a, b = a.numpy(), b.numpy()
    (h, w), (u, v) = a.shape, b.shape
    out = np.zeros((h + u - 1, w + v - 1))
    for i, j in np.ndindex(out.shape):
        out[i, j] = sum(value(a, i + 1 - u + m, j + 1 - v + n) * b[m, n] for m, n in np.ndindex(b.shape))
    return out


def conv2d(a: Tensor, b: Tensor) -> Tensor:
    """Returns what `conv2d` makes of A and the kernel B at all places of overlap."""
    return F.conv2d(a[None, None], b[None, None], padding=(b.shape[0] - 1, b.shape[1] - 1))[0, 0]


A, B = (5, 7), (2, 3)


def test_conv2d_is_the_cross_correlation_and_not_the_convolution():
    a, b = torch.randn(A), torch.randn(B)
    assert same(conv2d(a, b), correlation(a, b))
    assert not same(conv2d(a, b), convolution(a, b))


def test_a_cross_correlation_is_a_convolution_with_the_kernel_turned_by_180_degrees():
    a, b = torch.randn(A), torch.randn(B)
    assert same(conv2d(a, b), convolution(a, turned(b)))
    assert same(conv2d(a, turned(b)), convolution(a, b))
    for wrong in (b.flip(0), b.flip(1)):
        assert not same(conv2d(a, b), convolution(a, wrong))


def test_convolution_commutes_and_cross_correlation_comes_out_turned():
    a, b = torch.randn(A), torch.randn(B)
    assert same(conv2d(a, turned(b)), convolution(b, a))
    assert same(conv2d(b, turned(a)), convolution(a, b))
    assert not same(conv2d(a, b), conv2d(b, a))
    assert same(conv2d(a, b), turned(conv2d(b, a)))


def test_two_layers_without_an_activation_are_one_whose_kernel_is_the_convolution_of_both():
    image, first, second = torch.randn(7, 9), torch.randn(2, 3), torch.randn(3, 2)
    both = conv2d(conv2d(image, first), second)
    assert same(both, correlation(image, torch.as_tensor(convolution(first, second))))
    assert not same(both, correlation(image, torch.as_tensor(correlation(first, second))))
    assert not same(conv2d(conv2d(image, first).relu(), second), both)


def test_convolution_is_associative_and_cross_correlation_is_not():
    a, b, c = torch.randn(4, 5), torch.randn(2, 3), torch.randn(3, 2)
    left, right = torch.as_tensor(convolution(a, b)), torch.as_tensor(convolution(b, c))
    assert same(convolution(left, c), convolution(a, right))
    assert not same(conv2d(conv2d(a, b), c), conv2d(a, conv2d(b, c)))


def linear_layers() -> dict[str, Callable[[Tensor], Tensor]]:
    """Every layer that theory.md calls linear, as it stands in a network; of 3 channels, on maps of 4x6."""
    _, indices = F.max_pool2d(torch.randn(2, 3, 8, 12), 2, return_indices=True)
    ups = {name: registry.build("upsampler", Component(name), 3, 3, 2, path="") for name in registry.names("upsampler")}
    layers: dict[str, Callable[[Tensor], Tensor]] = {name: partial(up, indices=indices) for name, up in ups.items()}
    layers["conv"] = conv_unit(3, 5, activation="relu", norm="none")[0]
    layers["conv of stride 2"] = conv_unit(3, 5, activation="relu", norm="none", stride=2)[0]
    layers["average pooling"] = ConvEncoder(3, channels=(3, 3), downsample="avg").downs[0]
    return layers


def is_linear(layer: Callable[[Tensor], Tensor]) -> bool:
    x, y = torch.randn(2, 3, 4, 6), torch.randn(2, 3, 4, 6)
    bias = layer(torch.zeros(2, 3, 4, 6))
    return same(layer(2 * x - 3 * y) - bias, 2 * (layer(x) - bias) - 3 * (layer(y) - bias))


def test_convolutions_average_pooling_and_upsamplers_are_linear_up_to_their_bias():
    assert all(is_linear(layer) for layer in linear_layers().values())


def test_max_pooling_and_activations_are_not_linear():
    activations = [conv_unit(1, 1, activation=name, norm="none").activation for name in get_args(Activation)]
    assert not any(is_linear(layer) for layer in [nn.MaxPool2d(2), *activations])


# A layer: N C H W images x, K kernels w of C channels, K biases b; d is the loss's gradient at the output z.


def convolution_layer(stride: int) -> nn.Conv2d:
    """The convolution of segtool's own unit, 2 channels to 3, with biases that are not 0."""
    conv = conv_unit(2, 3, activation="relu", norm="none", stride=stride)[0]
    nn.init.normal_(conv.bias)
    return conv


def written_out(x: Array, w: Array, b: Array, s: int, p: int) -> Array:
    """z[n, k, i, j] = b[k] + sum of x[n, c, s i + u - p, s j + v - p] w[k, c, u, v] over c, u, v."""
    (batch, _, height, width), (kernels, _, side, _) = x.shape, w.shape
    z = np.zeros((batch, kernels, (height + 2 * p - side) // s + 1, (width + 2 * p - side) // s + 1))
    for n, k, i, j in np.ndindex(z.shape):
        terms = (value(x[n, c], s * i + u - p, s * j + v - p) * w[k, c, u, v] for c, u, v in np.ndindex(w.shape[1:]))
        z[n, k, i, j] = b[k] + sum(terms)
    return z


def gradient_of_weights(x: Array, d: Array, w: Array, s: int, p: int) -> Array:
    """dL/dw[k, c, u, v] = sum of d[n, k, i, j] x[n, c, s i + u - p, s j + v - p] over n, i, j."""
    out = np.zeros_like(w)
    for k, c, u, v in np.ndindex(out.shape):
        places = np.ndindex(len(d), *d.shape[2:])
        out[k, c, u, v] = sum(d[n, k, i, j] * value(x[n, c], s * i + u - p, s * j + v - p) for n, i, j in places)
    return out


def gradient_of_input(x: Array, d: Array, w: Array, s: int, p: int) -> Array:
    """dL/dx[n, c, y, x] = sum of d[n, k, i, j] w[k, c, y + p - s i, x + p - s j] over k, i, j; w is 0 outside."""
    out = np.zeros_like(x)
    for n, c, row, column in np.ndindex(out.shape):
        terms = (
            d[n, k, i, j] * value(w[k, c], row + p - s * i, column + p - s * j) for k, i, j in np.ndindex(d.shape[1:])
        )
        out[n, c, row, column] = sum(terms)
    return out


@pytest.mark.parametrize("stride", [1, 2])
def test_a_layers_output_and_three_gradients_are_the_sums_written_out(stride):
    conv = convolution_layer(stride)
    x = torch.randn(2, 2, 4, 5, requires_grad=True)
    z = conv(x)
    d = torch.randn_like(z)
    z.backward(d)
    image, w, b, back = x.detach().numpy(), conv.weight.detach().numpy(), conv.bias.detach().numpy(), d.numpy()
    assert same(z, written_out(image, w, b, stride, 1))
    assert same(conv.weight.grad, gradient_of_weights(image, back, w, stride, 1))
    assert same(x.grad, gradient_of_input(image, back, w, stride, 1))
    assert same(conv.bias.grad, [sum(back[n, k].sum() for n in range(2)) for k in range(3)])


def test_the_textbooks_layer_of_true_convolution_has_the_gradients_that_the_textbook_gives():
    """z = x * w + b where the kernel lies within the image: z[i, j] is entry (i + h - 1, j + w - 1) of all of x * w."""
    x, w, b = torch.randn(5, 7), torch.randn(2, 3), torch.randn(1)
    for tensor in (x, w, b):
        tensor.requires_grad_()
    z = F.conv2d(x[None, None], turned(w)[None, None], b)[0, 0]
    d = torch.randn_like(z)
    z.backward(d)
    image, kernel, back = x.detach(), w.detach(), d
    assert same(z, convolution(image, kernel)[1:5, 2:7] + b.item())
    assert same(x.grad, correlation(back, kernel))  # the forward pass convolves, the backward pass correlates
    assert same(w.grad, turned(torch.as_tensor(correlation(image, back)[3:5, 4:7])))
    assert same(b.grad, back.sum()[None])


def test_the_input_gradient_of_conv2d_is_a_true_convolution():
    x, w = torch.randn(5, 7, requires_grad=True), torch.randn(2, 3)
    z = F.conv2d(x[None, None], w[None, None])[0, 0]
    d = torch.randn_like(z)
    z.backward(d)
    assert same(x.grad, convolution(d, w))
    assert not same(x.grad, correlation(d, w))


# From the classifier to the fully convolutional network.


def test_a_fully_connected_layer_is_a_convolution_over_the_whole_window():
    dense = nn.Linear(2 * 3 * 5, 4)
    conv = nn.Conv2d(2, 4, (3, 5))
    conv.load_state_dict({"weight": dense.weight.view(4, 2, 3, 5), "bias": dense.bias})
    image = torch.randn(1, 2, 6, 9)
    scores = conv(image)
    assert scores.shape == (1, 4, 4, 5)
    for i, j in np.ndindex(4, 5):
        assert same(scores[0, :, i, j], dense(image[0, :, i : i + 3, j : j + 5].flatten()))
    assert same(conv(image[..., :3, :5]).flatten(), dense(image[..., :3, :5].flatten()))


def test_a_classifier_made_convolutional_scores_every_window_at_its_stride_in_one_pass():
    trunk = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2))  # a window of 8x10 becomes 3x4
    dense = nn.Linear(3 * 3 * 4, 5)
    conv = nn.Conv2d(3, 5, (3, 4))
    conv.load_state_dict({"weight": dense.weight.view(5, 3, 3, 4), "bias": dense.bias})
    image = torch.randn(1, 1, 14, 12)
    scores = conv(trunk(image))
    assert scores.shape[2:] == (4, 2)
    for i, j in np.ndindex(4, 2):
        window = image[..., 2 * i : 2 * i + 8, 2 * j : 2 * j + 10]
        assert same(scores[0, :, i, j], dense(trunk(window).flatten()))


# Activations.


def logistic(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def normal_share(z: float) -> float:
    return (1 + math.erf(z / math.sqrt(2))) / 2


def normal_density(z: float) -> float:
    return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)


FORMULAS: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "relu": (lambda z: max(z, 0), lambda z: float(z > 0)),
    "sigmoid": (logistic, lambda z: logistic(z) * (1 - logistic(z))),
    "tanh": (
        lambda z: (math.exp(z) - math.exp(-z)) / (math.exp(z) + math.exp(-z)),
        lambda z: 4 / (math.exp(z) + math.exp(-z)) ** 2,
    ),
    "leaky_relu": (lambda z: max(z, LEAKY_SLOPE * z), lambda z: 1 if z > 0 else LEAKY_SLOPE),
    "gelu": (lambda z: z * normal_share(z), lambda z: normal_share(z) + z * normal_density(z)),
    "silu": (lambda z: z * logistic(z), lambda z: logistic(z) * (1 + z * (1 - logistic(z)))),
}
"""Each activation and its derivative, as docs/theory.md has them."""


def with_slope(name: str, points: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what segtool's activation makes of the points, and its derivative there by autograd."""
    points = points.clone().requires_grad_()
    out = conv_unit(1, 1, activation=name, norm="none").activation(points * 1)  # a copy: some work in place
    out.sum().backward()
    return out.detach(), points.grad


@pytest.mark.parametrize("name", get_args(Activation))
def test_every_activation_and_its_derivative_follow_their_formulas(name):
    function, derivative = FORMULAS[name]
    points = torch.tensor([-4, -1.5, -0.3, 0.0, 0.2, 1.0, 3.5])
    out, slope = with_slope(name, points)
    assert same(out, [function(z) for z in points.tolist()])
    assert same(slope, [derivative(z) for z in points.tolist()])


def test_the_slope_of_the_sigmoid_is_at_most_a_quarter_and_that_of_tanh_at_most_1():
    points = torch.linspace(-6, 6, 241)
    for name, steepest in (("sigmoid", 0.25), ("tanh", 1)):
        _, slope = with_slope(name, points)
        assert slope.max() == slope[120] == steepest
        assert slope.min() > 0


# Pooling.


def pooled_with_gradient(downsample: str, x: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Returns what the encoder's pooling makes of x, and the gradient at x for the gradient d at its output."""
    x = x.clone().requires_grad_()
    out = ConvEncoder(1, channels=(2, 3), downsample=downsample).downs[0](x)
    out.backward(d)
    return out.detach(), x.grad


def cells(shape: torch.Size):
    """Yields the index of each 2x2 cell's output, and the slice of its pixels."""
    for n, c, i, j in np.ndindex(*shape[:2], shape[2] // 2, shape[3] // 2):
        yield (n, c, i, j), (n, c, slice(2 * i, 2 * i + 2), slice(2 * j, 2 * j + 2))


def test_the_gradient_of_max_pooling_goes_to_the_maximum_and_nowhere_else():
    x, d = torch.randn(2, 2, 6, 8), torch.randn(2, 2, 3, 4)
    out, gradient = pooled_with_gradient("max", x, d)
    for cell, pixels in cells(x.shape):
        best = max(x[pixels].flatten().tolist())
        assert out[cell] == best
        assert same(gradient[pixels], [[d[cell] if v == best else 0.0 for v in row] for row in x[pixels].tolist()])
    assert (gradient != 0).sum() == d.numel()


def test_the_gradient_of_average_pooling_is_shared_equally():
    x, d = torch.randn(2, 2, 6, 8), torch.randn(2, 2, 3, 4)
    out, gradient = pooled_with_gradient("avg", x, d)
    for cell, pixels in cells(x.shape):
        assert math.isclose(out[cell], sum(x[pixels].flatten().tolist()) / 4)
        assert same(gradient[pixels], [[d[cell] / 4] * 2] * 2)


def test_of_equal_maxima_the_first_in_reading_order_takes_the_whole_gradient():
    x = torch.tensor([[5.0, 7.0], [7.0, 7.0]]).view(1, 1, 2, 2)
    _, gradient = pooled_with_gradient("max", x.expand(1, 2, 2, 2), torch.full((1, 2, 1, 1), 3.0))
    assert gradient[0, 0].tolist() == [[0, 3], [0, 0]]


@pytest.mark.parametrize("downsample", ["max", "avg"])
def test_pooling_does_not_see_a_shift_within_its_cells_and_does_see_one_across(downsample):
    pool = ConvEncoder(1, channels=(2, 3), downsample=downsample).downs[0]

    def point(y: int, x: int) -> Tensor:
        image = torch.zeros(1, 1, 6, 8)
        image[0, 0, y, x] = 1
        return pool(image)

    assert all(same(point(2 + y, 4 + x), point(2, 4)) for y, x in product((0, 1), repeat=2))
    assert not same(point(2, 3), point(2, 4))
    assert not same(point(1, 4), point(2, 4))


def test_a_strided_convolution_is_the_one_at_stride_1_with_only_every_second_pixel_kept():
    strided = ConvEncoder(1, channels=(2, 3), downsample="stride").downs[0].conv
    x = torch.randn(1, 2, 6, 8)
    dense = written_out(x.numpy(), strided.weight.detach().numpy(), np.zeros(2), 1, 1)
    assert same(strided(x), dense[:, :, ::2, ::2])
    assert not same(strided(x), dense[:, :, 1::2, 1::2])


# Upsampling without weights.


@pytest.mark.parametrize("ratio", [2, 3])
def test_the_fixed_upsamplers_are_what_their_definitions_say(ratio):
    x = torch.randn(1, 2, 3, 4)
    outputs = {name: torch.zeros(1, 2, 3 * ratio, 4 * ratio) for name in ("nearest", "nails", "bilinear", "unpool")}
    fine = torch.randn(1, 2, 3 * ratio, 4 * ratio)
    _, indices = F.max_pool2d(fine, ratio, return_indices=True)
    for c, i, j in np.ndindex(2, 3 * ratio, 4 * ratio):
        row, column = i // ratio, j // ratio
        own = x[0, c, row, column]
        cell = fine[0, c, row * ratio : (row + 1) * ratio, column * ratio : (column + 1) * ratio]
        outputs["nearest"][0, c, i, j] = own
        outputs["nails"][0, c, i, j] = own if i % ratio == 0 and j % ratio == 0 else 0
        outputs["unpool"][0, c, i, j] = own if fine[0, c, i, j] == cell.max() else 0
        outputs["bilinear"][0, c, i, j] = tents(x[0, c], (i + 0.5) / ratio - 0.5, (j + 0.5) / ratio - 0.5)
    assert same(Nearest(2, 2, ratio)(x), outputs["nearest"])
    assert same(BedOfNails(2, 2, ratio)(x), outputs["nails"])
    assert same(Bilinear(2, 2, ratio)(x), outputs["bilinear"])
    assert same(MaxUnpool(2, 2, ratio)(x, indices), outputs["unpool"])


def tents(image: Tensor, y: float, x: float) -> float:
    """Sum of the pixels, each under a tent of width 2 around it, at a point that is first moved into the image."""
    y, x = min(max(y, 0), image.shape[0] - 1), min(max(x, 0), image.shape[1] - 1)
    weights = ((i, j, max(0, 1 - abs(y - i)) * max(0, 1 - abs(x - j))) for i, j in np.ndindex(*image.shape))
    return sum(image[i, j].item() * weight for i, j, weight in weights)


@pytest.mark.parametrize("ratio", [2, 3])
def test_nearest_is_the_adjoint_of_average_pooling_times_the_cells_area(ratio):
    up = matrix(Nearest(1, 1, ratio), 2, 3)
    down = matrix(lambda x: F.avg_pool2d(x, ratio), 2 * ratio, 3 * ratio)
    assert same(up, ratio**2 * down.T)
    assert same(down @ up, torch.eye(6))  # pooling undoes it


@pytest.mark.parametrize("ratio", [2, 3])
def test_bed_of_nails_is_the_adjoint_of_keeping_every_ratio_th_pixel(ratio):
    up = matrix(BedOfNails(1, 1, ratio), 2, 3)
    assert same(up, matrix(lambda x: x[..., ::ratio, ::ratio], 2 * ratio, 3 * ratio).T)
    assert not same(up, matrix(lambda x: x[..., 1::ratio, 1::ratio], 2 * ratio, 3 * ratio).T)


@pytest.mark.parametrize("ratio", [2, 3])
def test_max_unpooling_is_the_gradient_of_the_max_pooling_whose_indices_it_has(ratio):
    fine = torch.randn(2, 3, 2 * ratio, 4 * ratio, requires_grad=True)
    pooled, indices = F.max_pool2d(fine, ratio, return_indices=True)
    d = torch.randn_like(pooled)
    pooled.backward(d)
    assert same(MaxUnpool(3, 3, ratio)(d, indices), fine.grad)
    _, others = F.max_pool2d(-fine, ratio, return_indices=True)
    assert not same(MaxUnpool(3, 3, ratio)(d, others), fine.grad)


def test_bilinear_upsampling_is_a_transposed_convolution_with_a_tent_away_from_the_border():
    tent = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 4
    learned = Transposed(1, 1, 2, kernel=4)
    learned.conv.weight.data[0, 0] = torch.outer(tent, tent)
    x = torch.randn(1, 1, 4, 5)
    assert same(learned(x)[..., 1:-1, 1:-1], Bilinear(1, 1, 2)(x)[..., 1:-1, 1:-1])
    assert not same(learned(x), Bilinear(1, 1, 2)(x))  # zeros outside there, the border repeated here


# Transposed convolution: a weight w[c, k, u, v] of C inputs and K outputs; stride s, padding p, output padding o.

TRANSPOSED = [
    (2, 2, None),
    (3, 2, None),
    (4, 2, None),
    (5, 2, None),
    (3, 3, None),
    (5, 3, None),
    (2, 3, None),
    (1, 2, None),
    (6, 4, None),
    (3, 3, 1),
]


def transposed_layer(kernel: int, ratio: int, padding: int | None) -> nn.ConvTranspose2d:
    conv = Transposed(2, 3, ratio, kernel=kernel, padding=padding).conv
    nn.init.normal_(conv.bias)
    return conv


def spread(x: Tensor, conv: nn.ConvTranspose2d, ratio: int) -> Tensor:
    """Every input pixel puts its multiple of the kernel down, where they overlap they are summed; then the crop."""
    w, side, p, s = conv.weight.detach(), conv.kernel_size[0], conv.padding[0], conv.stride[0]
    batch, _, height, width = x.shape
    canvas = torch.zeros(batch, w.shape[1], s * height + side + s, s * width + side + s)
    for n, c, k, i, j in np.ndindex(batch, *w.shape[:2], height, width):
        canvas[n, k, s * i : s * i + side, s * j : s * j + side] += x[n, c, i, j] * w[c, k]
    return canvas[..., p : p + ratio * height, p : p + ratio * width] + conv.bias.detach()[:, None, None]


@pytest.mark.parametrize(("kernel", "ratio", "padding"), TRANSPOSED)
def test_a_transposed_convolution_spreads_the_kernel_from_every_pixel_and_sums(kernel, ratio, padding):
    conv, x = transposed_layer(kernel, ratio, padding), torch.randn(2, 2, 3, 4)
    assert same(conv(x), spread(x, conv, ratio))


@pytest.mark.parametrize(("kernel", "ratio", "padding"), TRANSPOSED)
def test_a_transposed_convolution_is_zero_insertion_and_then_a_convolution(kernel, ratio, padding):
    conv, x = transposed_layer(kernel, ratio, padding), torch.randn(1, 2, 3, 4)
    w, p = conv.weight.detach(), conv.padding[0]
    holes = torch.zeros(2, ratio * 3, ratio * 4)
    holes[:, ::ratio, ::ratio] = x[0]
    out = torch.zeros(3, ratio * 3, ratio * 4)
    for k in range(3):
        whole = sum(convolution(holes[c], w[c, k]) for c in range(2))  # true convolution: conv2d has the kernel turned
        room = torch.zeros(ratio * 5 + kernel, ratio * 6 + kernel)
        room[: whole.shape[0], : whole.shape[1]] = torch.as_tensor(whole)
        out[k] = room[p : p + ratio * 3, p : p + ratio * 4] + conv.bias[k].detach()
    assert same(conv(x)[0], out)


@pytest.mark.parametrize(("kernel", "ratio", "padding"), TRANSPOSED)
def test_a_transposed_convolution_is_the_transpose_of_the_strided_one_and_so_its_gradient(kernel, ratio, padding):
    up = Transposed(1, 1, ratio, kernel=kernel, padding=padding)
    strided = nn.Conv2d(1, 1, kernel, stride=ratio, padding=up.conv.padding, bias=False)
    strided.weight.data = up.conv.weight.data
    assert same(matrix(up, 3, 4), matrix(strided, 3 * ratio, 4 * ratio).T)
    image = torch.randn(1, 1, 3 * ratio, 4 * ratio, requires_grad=True)
    d = torch.randn(1, 1, 3, 4)
    strided(image).backward(d)
    assert same(up(d), image.grad)


def test_a_transposed_convolution_is_not_the_inverse_of_the_strided_one():
    up = Transposed(1, 1, 2, kernel=2)
    strided = nn.Conv2d(1, 1, 2, stride=2, bias=False)
    strided.weight.data = up.conv.weight.data
    x = torch.randn(1, 1, 4, 6)
    assert up(strided(x)).shape == x.shape
    assert not same(up(strided(x)), x)


def test_a_transposed_convolution_of_kernel_2_can_be_nearest_and_can_be_bed_of_nails():
    up, x = Transposed(1, 1, 2, kernel=2), torch.randn(1, 1, 3, 4)
    up.conv.weight.data[0, 0] = torch.tensor([[1.0, 1.0], [1.0, 1.0]])
    assert same(up(x), Nearest(1, 1, 2)(x))
    up.conv.weight.data[0, 0] = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert same(up(x), BedOfNails(1, 1, 2)(x))


# Sizes.


def test_the_size_of_a_convolution_and_pooling_is_the_number_of_places_where_the_window_fits():
    checked = 0
    for size, k, s, p in product(range(1, 10), range(1, 6), range(1, 4), range(3)):
        places = [start for start in range(-p, size + p, s) if start + k <= size + p]
        if not places:
            continue
        assert math.floor((size + 2 * p - k) / s) + 1 == len(places)
        x = torch.zeros(1, 1, size, size + 7, device="meta")
        kernel = torch.zeros(1, 1, k, k, device="meta")
        assert F.conv2d(x, kernel, stride=s, padding=p).shape[2] == len(places)
        if 2 * p <= k:
            assert F.max_pool2d(x, k, s, p).shape[2] == F.avg_pool2d(x, k, s, p).shape[2] == len(places)
        checked += 1
    assert checked > 300


def test_the_size_of_a_transposed_convolution_is_any_that_the_convolution_takes_back_and_output_padding_says_which():
    for size, k, s, p in product(range(1, 6), range(1, 6), range(1, 5), range(3)):
        sizes = [n for n in range(1, 40) if n + 2 * p >= k and (n + 2 * p - k) // s + 1 == size]
        formula = [s * (size - 1) + k - 2 * p + o for o in range(s)]
        assert sizes == [n for n in formula if n >= 1]
        x, kernel = torch.zeros(1, 1, size, size + 3, device="meta"), torch.zeros(1, 1, k, k, device="meta")
        for o, expected in enumerate(formula):
            if expected >= 1:
                out = F.conv_transpose2d(x, kernel, stride=s, padding=p, output_padding=o)
                assert out.shape[2:] == (expected, expected + 3 * s)


# Overlap.


def counts(kernel: int, ratio: int, size: int) -> Array:
    """Along one axis: how many input pixels put something down at each output pixel."""
    p = Transposed(1, 1, ratio, kernel=kernel).conv.padding[0]
    pairs = list(product(range(size), range(kernel)))
    return np.array([sum(ratio * i + u - p == v for i, u in pairs) for v in range(ratio * size)])


@pytest.mark.parametrize(("kernel", "ratio"), list(product(range(1, 8), (2, 3))))
def test_outputs_of_a_transposed_convolution_sum_equally_many_terms_just_where_the_stride_divides_the_kernel(
    kernel, ratio
):
    up = Transposed(1, 1, ratio, kernel=kernel)
    nn.init.ones_(up.conv.weight)
    terms = np.outer(counts(kernel, ratio, 7), counts(kernel, ratio, 9))
    assert same(up(torch.ones(1, 1, 7, 9))[0, 0], terms.astype(float))
    inside = terms[2 * ratio : -2 * ratio, 2 * ratio : -2 * ratio]
    assert (inside.min() == inside.max()) == (kernel % ratio == 0)
    if kernel % ratio == 0:
        assert inside.max() == (kernel // ratio) ** 2


@pytest.mark.parametrize("kernel", range(1, 8))
def test_inspect_warns_of_a_checkerboard_just_where_the_counts_differ(kernel):
    upsample = {"name": "transposed", "kernel": kernel}
    network = build_model(Model(Component("conv", {"channels": [2, 3]}), Component("unet", {"upsample": upsample})), 2)
    inside = counts(kernel, 2, 9)[4:-4]
    warned = any("checkerboard" in warning for warning in describe(network, 64, 64).warnings)
    assert warned == (inside.min() != inside.max())


def test_kernel_3_at_stride_2_sums_1_2_or_4_terms_in_a_checkerboard():
    corners = {2: [[1, 1, 1, 1], [1, 1, 1, 1]], 3: [[1, 2, 1, 2], [2, 4, 2, 4]], 4: [[1, 2, 2, 2], [2, 4, 4, 4]]}
    for kernel, corner in corners.items():
        up = Transposed(1, 1, 2, kernel=kernel)
        nn.init.ones_(up.conv.weight)
        assert same(up(torch.ones(1, 1, 4, 5))[0, 0, :2, :4], torch.tensor(corner).double())


# Shifts. Cutting d columns off the left shifts everything by d without bringing in a border.


def shifts(layer: Callable[[Tensor], Tensor], x: Tensor, *, by: int, out: int) -> bool:
    """Whether the output of x shifted `by` pixels is that of x shifted by `out`, to the right and downwards alike."""
    across = same(layer(x[..., by:]), layer(x)[..., out:])
    down = same(layer(x[..., by:, :]), layer(x)[..., out:, :])
    assert across == down
    return across


WINDOWS: dict[str, Callable[[int], nn.Module]] = {
    "convolution": lambda stride: nn.Conv2d(2, 3, 3, stride=stride),
    "max pooling": lambda stride: nn.MaxPool2d(3, stride=stride),
    "average pooling": lambda stride: nn.AvgPool2d(3, stride=stride),
}


@pytest.mark.parametrize("name", WINDOWS)
def test_at_stride_1_convolution_and_pooling_shift_as_their_input_does(name):
    layer, x = WINDOWS[name](1), torch.randn(1, 2, 9, 12)
    assert all(shifts(layer, x, by=d, out=d) for d in (1, 2, 3))
    assert not shifts(layer, x, by=1, out=2)


@pytest.mark.parametrize("name", WINDOWS)
def test_at_stride_2_they_do_so_only_for_even_shifts(name):
    layer, x = WINDOWS[name](2), torch.randn(1, 2, 11, 15)
    assert shifts(layer, x, by=2, out=1)
    assert shifts(layer, x, by=4, out=2)
    assert not same(layer(x[..., 1:]), layer(x)[..., :-1])
    assert not same(layer(x[..., 1:]), layer(x)[..., 1:])


def interior_change(network: Segmenter, by: int) -> float:
    """The logits of a shifted image less the shifted logits, far from the border: the largest, in deviations."""
    reach = network.receptive_field // 2
    side = 2 * (reach + by) + 4
    side += -side % network.stride
    image = torch.randn(1, 3, side, side + network.stride)
    with torch.no_grad():
        logits = network(image)
        difference = network(image.roll((by, by), (2, 3))) - logits.roll((by, by), (2, 3))
    inside = slice(reach + by, -(reach + by))
    return (difference[..., inside, inside].abs().max() / logits.std()).item()


@pytest.mark.parametrize("decoder", ["unet", "fcn"])
@pytest.mark.parametrize(
    ("downsample", "upsample"),
    [("max", "max_unpool"), *product(["max", "avg", "stride"], ["transposed", "bilinear", "nearest", "bed_of_nails"])],
)
def test_a_network_shifts_with_its_image_by_multiples_of_its_stride_and_by_no_other(downsample, upsample, decoder):
    style = {"activation": "leaky_relu", "norm": "none", "blocks": 1}
    encoder = Component("conv", {"channels": [4, 5, 6], "downsample": downsample, **style})
    network = build_model(Model(encoder, Component(decoder, {"upsample": upsample, **style})), 2)
    assert network.stride == 4
    assert interior_change(network, 4) < 1e-10
    assert all(interior_change(network, by) > 0.01 for by in (1, 2, 3))


def test_a_network_of_a_single_level_shifts_with_its_image_by_any_amount():
    network = build_model(Model(Component("conv", {"channels": [4]})), 2).eval()
    assert all(interior_change(network, by) < 1e-10 for by in (1, 2, 3))


# Receptive fields.


def recursion(layers: list[tuple[int, int]]) -> tuple[int, int]:
    """Returns field and stride behind layers of (kernel, stride): r += (k - 1) j, then j *= s."""
    field, jump = 1, 1
    for kernel, stride in layers:
        field, jump = field + (kernel - 1) * jump, jump * stride
    return field, jump


def influence(network: Callable[[Tensor], Tensor], side: int) -> Tensor:
    """Returns the absolute gradient of the middle output pixel, summed over channels, at each pixel of the image."""
    image = torch.randn(1, 1, side, side, requires_grad=True)
    out = network(image)
    out[:, :, out.shape[2] // 2, out.shape[3] // 2].sum().backward()
    return image.grad[0, 0].abs()


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize(("downsample", "down"), [("avg", (2, 2)), ("stride", (3, 2))])
def test_the_field_of_the_recursion_is_where_gradients_arrive(downsample, down, blocks):
    options = {"activation": "tanh", "norm": "none", "downsample": downsample, "blocks": blocks}
    encoder = ConvEncoder(1, channels=(3, 3, 3), **options)
    level = [(3, 1)] * blocks
    field, stride = recursion([*level, down, *level, down, *level])
    assert stride == encoder.strides[-1]
    seen = influence(lambda image: encoder(image).maps[-1], 96) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == field


@pytest.mark.parametrize("depth", [2, 8, 18])
def test_the_effective_field_of_equal_kernels_widens_as_the_root_of_the_depth(depth):
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)))
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    profile = influence(layers, 2 * depth + 5).sum(0)
    places = torch.arange(len(profile), dtype=torch.float64)
    middle = (places * profile).sum()
    variance = (profile * (places - middle) ** 2).sum()
    assert (profile > 0).sum() == 2 * depth + 1 == recursion([(3, 1)] * depth)[0]
    assert math.isclose(variance, depth * (3**2 - 1) / 12)


# Skips.


ARCHITECTURES = {
    "FCN-32s": ("fcn", {"skips": 0}, {"map 3"}),
    "FCN-16s": ("fcn", {"skips": 1}, {"map 3", "map 2"}),
    "FCN-8s": ("fcn", {"skips": 2}, {"map 3", "map 2", "map 1"}),
    "SegNet": ("fcn", {"skips": 0, "upsample": "max_unpool"}, {"map 3", "indices 2", "indices 1", "indices 0"}),
    "U-Net": ("unet", {}, {"map 3", "map 2", "map 1", "map 0"}),
}


class Handed(Encoder):
    """Gives what it holds, whatever the image."""

    def __init__(self, features: Features) -> None:
        super().__init__()
        self.features = features

    def forward(self, images: Tensor) -> Features:
        return self.features


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_an_architecture_is_told_exactly_what_its_paper_hands_over_from_the_encoder(name):
    decoder, options, expected = ARCHITECTURES[name]
    style = {"activation": "leaky_relu", "norm": "none"}
    encoder = Component("conv", {"channels": [4, 5, 6, 7], **style})
    network = build_model(Model(encoder, Component(decoder, {**options, **style})), 3).eval()
    network.encoder.keep_indices()
    images = torch.randn(2, 1, 3, 16, 24)
    one, other = (network.encoder(image) for image in images)

    def logits(features: Features) -> Tensor:
        network.encoder = Handed(features)
        return network(images[0])

    whole = logits(one)
    used = {f"map {i}" for i in range(4) if not same(logits(with_map(one, i, other)), whole)}
    used |= {f"indices {i}" for i in range(3) if not same(logits(with_indices(one, i, other)), whole)}
    assert used == expected


def with_map(features: Features, level: int, other: Features) -> Features:
    maps = list(features.maps)
    maps[level] = other.maps[level]
    return features._replace(maps=maps)


def with_indices(features: Features, level: int, other: Features) -> Features:
    indices = list(features.pool_indices)
    indices[level] = other.pool_indices[level]
    return features._replace(pool_indices=indices)
