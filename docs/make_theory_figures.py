"""Draws the figures of docs/theory.md from what segtool's own layers compute.

Run from anywhere: `python docs/make_theory_figures.py [NAME …]` (or `make figures`); it needs `pip install '.[docs]'`.
The same versions of torch and matplotlib give the same files.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, Rectangle
from torch import nn
from torch.nn import functional as F

from segtool.commands import demo
from segtool.config import Model
from segtool.config.registry import Component
from segtool.models.blocks import Activation, conv_unit
from segtool.models.encoders import ConvEncoder
from segtool.models.layers import describe
from segtool.models.segmenter import Segmenter, build_model
from segtool.models.upsamplers import BedOfNails, Bilinear, MaxUnpool, Nearest, Transposed
from segtool.scoring import metrics

IMAGES = Path(__file__).with_name("images")
BLUE, ORANGE, GREEN, RED, SKY, PURPLE = "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7"
"""Of the palette of Okabe and Ito, which is told apart with any colour vision."""
GREY = "#8a8a8a"
BLUES = LinearSegmentedColormap.from_list("blues", ["#ffffff", "#9ccbe8"])
ORANGES = LinearSegmentedColormap.from_list("oranges", ["#ffffff", "#f4bf58"])
STYLE = {
    "figure.dpi": 110,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def main(names: list[str]) -> int:
    """Draws the figures of these names, or all."""
    matplotlib.use("Agg")
    plt.rcParams.update(STYLE)
    for name in names or FIGURES:
        torch.manual_seed(0)
        figure = FIGURES[name]()
        path = IMAGES / f"theory-{name}.png"
        figure.savefig(path, bbox_inches="tight", pad_inches=0.1, metadata={"Software": None})
        plt.close(figure)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
    return 0


def grid(
    axes: Axes,
    numbers: Any,
    title: str = "",
    *,
    colors: Any = BLUES,
    high: float | None = None,
    room: int | None = None,
) -> None:
    """Draws a map as squares with their numbers in them, in the middle of `room` squares; zeros are pale."""
    values = np.asarray(numbers, dtype=float)
    axes.imshow(np.abs(values), cmap=colors, vmin=0, vmax=high or np.abs(values).max() or 1)
    for (i, j), number in np.ndenumerate(values):
        color = "#b0b0b0" if number == 0 else "black"
        axes.text(j, i, f"{number:.3g}", ha="center", va="center", fontsize=9.5, color=color)
    height, width = values.shape
    frame(axes, height, width)
    axes.text((width - 1) / 2, -0.5 - (room or height) * 0.04, title, ha="center", va="bottom", fontsize=11)
    if room:
        axes.set(
            xlim=((width - room - 1) / 2, (width + room - 1) / 2),
            ylim=((height + room - 1) / 2, (height - room - 1) / 2),
        )


def frame(axes: Axes, height: int, width: int) -> None:
    """Draws the lines between squares, and takes the axes away."""
    axes.set_xticks([])
    axes.set_yticks([])
    for side in axes.spines.values():
        side.set_visible(False)
    for i in range(height + 1):
        axes.plot([-0.5, width - 0.5], [i - 0.5] * 2, color="#c8c8c8", lw=0.7, clip_on=False)
    for j in range(width + 1):
        axes.plot([j - 0.5] * 2, [-0.5, height - 0.5], color="#c8c8c8", lw=0.7, clip_on=False)


def outline(axes: Axes, y: float, x: float, height: int, width: int, color: str = RED) -> None:
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, height, fill=False, ec=color, lw=2.2, clip_on=False, zorder=5))


def between(figure: Figure, left: Axes, right: Axes, text: str) -> None:
    """Writes a sign into the gap between two axes of a row."""
    a, b = left.get_position(), right.get_position()
    figure.text((a.x1 + b.x0) / 2, (a.y0 + a.y1) / 2, text, ha="center", va="center", fontsize=20, color=GREY)


def transposed() -> Figure:
    """One transposed convolution, computed in both ways."""
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    kernel = torch.tensor([[1.0, 2.0, 0.0], [0.0, 1.0, 3.0], [2.0, 0.0, 1.0]])
    out = F.conv_transpose2d(x[None, None], kernel[None, None], stride=2)[0, 0]
    holes = torch.zeros(3, 3)
    holes[::2, ::2] = x
    framed = F.pad(holes, (2, 2, 2, 2))
    assert torch.equal(F.conv2d(framed[None, None], kernel.flip(0, 1)[None, None])[0, 0], out)

    figure, axes = plt.subplots(2, 5, figsize=(13.2, 5.5), gridspec_kw={"wspace": 0.3, "hspace": 0.18})
    grid(axes[0, 0], x, "input", room=7)
    grid(axes[0, 1], holes, "zeros inserted (s = 2)", room=7)
    grid(axes[0, 2], framed, "framed by $k-1$ zeros", high=4, room=7)
    outline(axes[0, 2], 2, 2, 3, 3)
    grid(axes[0, 3], kernel.flip(0, 1), "kernel, turned by 180°", colors=ORANGES, room=7)
    grid(axes[0, 4], out, "output: $2(2-1)+3=5$", high=20, room=7)
    outline(axes[0, 4], 2, 2, 1, 1)
    for column, sign in enumerate(("→", "→", "⋆", "=")):
        between(figure, axes[0, column], axes[0, column + 1], sign)
    for column, (i, j) in enumerate(np.ndindex(2, 2)):
        alone = torch.zeros(2, 2)
        alone[i, j] = x[i, j]
        put_down = F.conv_transpose2d(alone[None, None], kernel[None, None], stride=2)[0, 0]
        grid(axes[1, column], put_down, f"{x[i, j]:.0f} times the kernel", colors=ORANGES, high=12, room=7)
        outline(axes[1, column], 2 * i, 2 * j, 3, 3, ORANGE)
    grid(axes[1, 4], out, "their sum", high=20, room=7)
    for column, sign in enumerate("+++="):
        between(figure, axes[1, column], axes[1, column + 1], sign)
    return figure


def overlap() -> Figure:
    """How many terms each output of a transposed convolution sums."""
    figure, axes = plt.subplots(2, 3, figsize=(12.5, 6.6), gridspec_kw={"height_ratios": [1, 2.6], "hspace": 0.02})
    for column, kernel in enumerate((2, 3, 4)):
        up = Transposed(1, 1, 2, kernel=kernel)
        nn.init.ones_(up.conv.weight)
        terms = up(torch.ones(1, 1, 4, 4))[0, 0].detach()
        top, padding = axes[0, column], up.conv.padding[0]
        for i in range(4):
            top.plot([2 * i - padding - 0.42, 2 * i - padding + kernel - 0.58], [3 - i] * 2, lw=7, color=COLORS[i])
        top.set(xlim=(-0.5, 7.5), ylim=(-0.8, 3.8), xticks=range(8), yticks=[])
        for edge in range(9):
            top.axvline(edge - 0.5, color="#e2e2e2", lw=0.8, zorder=0)
        for side in ("left", "bottom"):
            top.spines[side].set_visible(False)
        even = "equal" if kernel % 2 == 0 else "uneven"
        top.set_title(f"kernel {kernel}, stride 2: {even}")
        grid(axes[1, column], terms, high=4)
    axes[0, 0].set_ylabel("one axis:\nfour inputs", rotation=0, ha="right", va="center")
    axes[1, 0].set_ylabel("both axes:\nterms per\noutput pixel", rotation=0, ha="right", va="center")
    return figure


COLORS = (BLUE, ORANGE, GREEN, RED)


def upsamplers() -> Figure:
    """One small map through the five upsamplers."""
    rows = ("120531", "431202", "206117", "113420", "082251", "319043")
    fine = torch.tensor([[float(digit) for digit in row] for row in rows])
    x, indices = F.max_pool2d(fine[None, None], 2, return_indices=True)
    learned = Transposed(1, 1, 2)
    learned.conv.weight.data[0, 0] = torch.tensor([[1.0, 0.5], [-0.5, 2.0]])
    figure, axes = plt.subplots(2, 4, figsize=(13.5, 7.1), gridspec_kw={"wspace": 0.14, "hspace": 0.2})
    grid(axes[0, 0], x[0, 0], "the map", high=9, room=6)
    grid(axes[0, 1], Nearest(1, 1, 2)(x)[0, 0], "nearest", high=9)
    grid(axes[0, 2], Bilinear(1, 1, 2)(x)[0, 0], "bilinear", high=9)
    grid(axes[0, 3], BedOfNails(1, 1, 2)(x)[0, 0], "bed_of_nails", high=9)
    grid(axes[1, 0], fine, "what the encoder max-pooled", colors=ORANGES, high=9)
    grid(axes[1, 1], MaxUnpool(1, 1, 2)(x, indices)[0, 0], "max_unpool", high=9)
    for position in indices.flatten().tolist():
        for panel in (axes[1, 0], axes[1, 1]):
            outline(panel, position // 6, position % 6, 1, 1)
    grid(axes[1, 2], learned.conv.weight[0, 0].detach(), "a kernel that might be learned", colors=ORANGES, room=6)
    grid(axes[1, 3], learned(x)[0, 0].detach(), "transposed, kernel 2", high=18)
    return figure


def pooling() -> Figure:
    """What becomes of the gradient at the output of a pooling."""
    x = torch.tensor([[[[1.0, 7, 2, 3, 0, 4], [3, 2, 8, 5, 9, 1], [6, 0, 1, 2, 2, 3], [4, 5, 7, 3, 5, 8]]]])
    d = torch.tensor([[[[4.0, 8, 2], [6, 2, 4]]]])
    figure, axes = plt.subplots(1, 4, figsize=(14.5, 2.9), gridspec_kw={"wspace": 0.16, "width_ratios": [6, 3, 6, 6]})
    grid(axes[0], x[0, 0], "input")
    grid(axes[1], d[0, 0], "gradient at the output", colors=ORANGES, high=8)
    for panel, kind, title in ((axes[2], "max", "max: to the maximum"), (axes[3], "avg", "avg: shared")):
        image = x.clone().requires_grad_()
        ConvEncoder(1, channels=(1, 1), downsample=kind).downs[0](image).backward(d)
        grid(panel, image.grad[0, 0], title, colors=ORANGES, high=8)
    for i, j in np.ndindex(2, 3):
        cell = x[0, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        best = int(cell.argmax())
        for panel in (axes[0], axes[2], axes[3]):
            outline(panel, 2 * i, 2 * j, 2, 2, GREY)
        for panel in (axes[0], axes[2]):
            outline(panel, 2 * i + best // 2, 2 * j + best % 2, 1, 1)
    return figure


def activations() -> Figure:
    """Each activation and its derivative."""
    figure, axes = plt.subplots(2, 3, figsize=(12, 5.6), sharex=True, sharey=True, gridspec_kw={"hspace": 0.25})
    for panel, name in zip(axes.flat, get_args(Activation), strict=True):
        z = torch.linspace(-4, 4, 401, requires_grad=True)
        out = conv_unit(1, 1, activation=name, norm="none").activation(z * 1)
        out.sum().backward()
        panel.axhline(0, color="#d8d8d8", lw=1)
        panel.axvline(0, color="#d8d8d8", lw=1)
        panel.plot(z.detach(), out.detach(), color=BLUE, lw=2.4, label="f(z)")
        panel.plot(z.detach(), z.grad, color=RED, lw=2, ls="--", label="f'(z), the derivative")
        panel.set_title(name, family="monospace")
        panel.set_ylim(-1.3, 2.3)
    axes[0, 0].legend(loc="upper left")
    for panel in axes[1]:
        panel.set_xlabel("z")
    return figure


def shift() -> Figure:
    """How far logits are from following a shifted image."""
    figure, axes = plt.subplots(figsize=(10.5, 4.2))
    lines = (("max", BLUE, "-", "o"), ("avg", ORANGE, "--", "s"), ("stride", GREEN, ":", "^"))
    for downsample, color, style, marker in lines:
        errors = shift_errors(network((8, 8, 8, 8), downsample))
        axes.plot(
            errors, color=color, ls=style, marker=marker, lw=2, label=f"4 levels, stride 8, downsample: {downsample}"
        )
    axes.plot(shift_errors(network((8,), "max")), color=RED, marker="D", lw=2, label="1 level, stride 1")
    axes.set(
        xlabel="shift of the image, pixels",
        ylabel="change of the logits\n(RMS, in their deviations)",
        ylim=(-0.02, None),
    )
    axes.set_xticks(range(0, 25, 4))
    for multiple in (8, 16, 24):
        axes.axvline(multiple, color="#d8d8d8", lw=1, zorder=0)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.28), ncols=2)
    return figure


def network(channels: tuple[int, ...], downsample: str) -> Segmenter:
    """A U-Net of two classes with its initial weights."""
    style = {"norm": "none", "blocks": 1}
    encoder = Component("conv", {"channels": channels, "downsample": downsample, **style})
    return build_model(Model(encoder, Component("unet", style)), 2)


@torch.no_grad()
def shift_errors(model: Segmenter) -> list[float]:
    """RMS of (logits of the shifted image - shifted logits), over their deviation, for shifts of 0 to 24 pixels."""
    image, _ = demo.draw_scene(0, "test", 0, height=192, width=256)
    image = torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5
    logits, margin = model(image), model.receptive_field // 2 + 24
    errors = []
    for by in range(25):
        difference = model(image.roll(by, 3)) - logits.roll(by, 3)
        inside = difference[..., margin:-margin, margin:-margin]
        errors.append(float(inside.square().mean().sqrt() / logits.std()))
    return errors


def field() -> Figure:
    """The theoretical receptive field, layer by layer, and the part of it that counts."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(13.5, 4.6), gridspec_kw={"wspace": 0.2})
    for channels, blocks, color, label in (
        ((4, 4, 4, 4), 2, BLUE, "8 convolutions, pooled three times"),
        ((4,), 8, ORANGE, "8 convolutions, not pooled"),
    ):
        encoder = Component("conv", {"channels": channels, "blocks": blocks})
        layers = describe(build_model(Model(encoder), 2), 64, 64).layers
        fields = [1, *(layer.receptive_field for layer in layers if layer.name.startswith("encoder"))]
        left.step(range(len(fields)), fields, where="post", color=color, lw=2.4, label=label)
        for number, layer in enumerate(layers, start=1):
            if layer.name.startswith("encoder.downs"):
                left.plot(number, fields[number], "v", color=RED, ms=9)
        left.text(len(fields) - 0.8, fields[-1], f"{fields[-1]} px", color=color, va="center")
    left.plot([], [], "v", color=RED, ms=9, label="pooling")
    left.set(xlabel="layer", ylabel="theoretical field, pixels", xlim=(0, 12.6), ylim=(0, 72))
    left.legend(loc="upper left")

    for depth, color, style in ((2, GREEN, ":"), (8, BLUE, "-"), (32, PURPLE, "--")):
        profile = gradient_profile(depth)
        places = np.arange(len(profile)) - len(profile) // 2
        right.plot(places, profile / profile.max(), color=color, lw=2.2, ls=style)
        deviation = float(np.sqrt((profile * places**2).sum() / profile.sum()))
        right.plot(
            [],
            [],
            color=color,
            lw=2.2,
            ls=style,
            label=f"{depth} layers: field {2 * depth + 1},\ndeviation {deviation:.1f}",
        )
        right.plot(
            [-depth - 0.5, depth + 0.5], [-0.05 - 0.05 * (depth > 2) - 0.05 * (depth > 8)] * 2, color=color, lw=4
        )
    right.set(
        xlabel="pixels from the centre", ylabel="gradient at the input, relative", xlim=(-36, 36), ylim=(-0.2, 1.05)
    )
    right.set_yticks([0, 0.5, 1])
    right.legend(loc="upper left", fontsize=10)
    return figure


def gradient_profile(depth: int) -> np.ndarray:
    """Along one axis, the gradient of one output of `depth` equal 3x3 convolutions at the image."""
    layers = nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=1, bias=False) for _ in range(depth)))
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    image = torch.zeros(1, 1, 81, 81, requires_grad=True)
    layers(image)[0, 0, 40, 40].backward()
    return image.grad[0, 0].sum(0).numpy()


def detail() -> Figure:
    """The best label map with one label for each cell of a stride, on the demo's test masks."""
    masks = [demo.draw_scene(0, "test", index)[1] for index in range(demo.SIZES["test"])]
    shown = 0
    figure, axes = plt.subplots(1, 4, figsize=(14, 3.2), gridspec_kw={"wspace": 0.05})
    for panel, ratio in zip(axes, (1, 2, 4, 8), strict=True):
        coarse = [majority(mask, ratio) for mask in masks]
        pairs = zip(masks, coarse, strict=True)
        scores = metrics.iou(sum(metrics.confusion_matrix(mask, rough, 6) for mask, rough in pairs))
        panel.imshow(coarse[shown], cmap=ListedColormap([color for _, color in demo.CLASSES]), vmin=0, vmax=5)
        panel.set_axis_off()
        title = f"stride {ratio}: mIoU {100 * metrics.mean(scores):.1f}, road {100 * scores[demo.ROAD]:.1f}"
        panel.set_title("truth, stride 1" if ratio == 1 else title)
    return figure


def majority(mask: np.ndarray, ratio: int) -> np.ndarray:
    """Returns the mask with each cell of ratio x ratio pixels filled by its most frequent class."""
    votes = F.one_hot(torch.from_numpy(mask).long(), 6).permute(2, 0, 1)[None].float()
    winners = F.avg_pool2d(votes, ratio).argmax(1, keepdim=True).float()
    return F.interpolate(winners, scale_factor=ratio, mode="nearest")[0, 0].numpy().astype(np.uint8)


def architectures() -> Figure:
    """What goes across from encoder to decoder in five architectures."""
    figure, axes = plt.subplots(2, 3, figsize=(14, 8), gridspec_kw={"wspace": 0.08, "hspace": 0.28})
    panels = (
        ("FCN-32s", "decoder: {name: fcn, skips: 0}", {}),
        ("FCN-16s", "decoder: {name: fcn, skips: 1}", {2: "sum"}),
        ("FCN-8s", "decoder: {name: fcn, skips: 2}", {2: "sum", 1: "sum"}),
        ("SegNet", "decoder: {name: fcn, skips: 0, upsample: max_unpool}", {2: "indices", 1: "indices", 0: "indices"}),
        ("U-Net", "decoder: unet", {2: "concatenate", 1: "concatenate", 0: "concatenate"}),
    )
    for panel, (name, key, across) in zip(axes.flat, panels, strict=False):
        letter_u(panel, across)
        panel.set_title(key, fontsize=10.5)
        panel.text(0.5, 1.11, name, transform=panel.transAxes, ha="center", weight="bold", fontsize=12.5)
    legend(axes[1, 2])
    return figure


ACROSS = {
    "sum": (ORANGE, "-", "map → 1x1 convolution, summed"),
    "concatenate": (GREEN, "-", "whole map, concatenated"),
    "indices": (RED, ":", "positions of the maxima only"),
}


def letter_u(axes: Axes, across: dict[int, str], levels: int = 4) -> None:
    """Draws an encoder going down, a decoder going up, and what goes across at each level."""
    side = [1.5, 1.1, 0.8, 0.55]
    left, right = [level * 0.85 for level in range(levels)], [8.0 - level * 0.85 for level in range(levels)]
    heights = [-1.55 * level for level in range(levels)]
    bottom = (left[-1] + right[-1]) / 2
    left[-1] = right[-1] = bottom
    for level in range(levels):
        boxes = [(left[level], BLUE)] if level == levels - 1 else [(left[level], BLUE), (right[level], SKY)]
        for x, color in boxes:
            size = side[level]
            axes.add_patch(Rectangle((x - 0.16, heights[level] - size / 2), 0.32, size, fc=color, ec="white", zorder=3))
        label = "1" if level == 0 else f"1/{2**level}"
        axes.text(-1.15, heights[level], label, ha="center", va="center", color=GREY)
        if level:
            for column in (left, right):
                start, end = (column[level - 1], heights[level - 1]), (column[level], heights[level])
                arrow(axes, *((start, end) if column is left else (end, start)), color=GREY, style="-")
    for level, kind in across.items():
        color, style, _ = ACROSS[kind]
        ends = (left[level] + 0.2, heights[level]), (right[level] - 0.2, heights[level])
        arrow(axes, *ends, color=color, style=style, shrink=0, width=2.2)
    axes.set(xlim=(-1.6, 8.8), ylim=(heights[-1] - 0.5, 1.0))
    axes.set_axis_off()


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    *,
    color: str,
    style: str,
    shrink: float = 13,
    width: float = 1.4,
) -> None:
    if style != "-":  # a broken line would break the head too
        axes.plot(*zip(start, end, strict=True), color=color, ls=style, lw=width)
        start = end[0] - 0.2, end[1]
    shape = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=13, color=color, lw=width, shrinkA=shrink, shrinkB=shrink
    )
    axes.add_patch(shape)


def legend(axes: Axes) -> None:
    axes.add_patch(Rectangle((0.4, 3.55), 0.25, 0.8, fc=BLUE))
    axes.text(1.3, 3.95, "encoder's map (the lowest: the deepest)", va="center")
    axes.add_patch(Rectangle((0.4, 2.55), 0.25, 0.8, fc=SKY))
    axes.text(1.3, 2.95, "decoder's map, upsampled from below", va="center")
    for y, (color, style, text) in zip((2.0, 1.2, 0.4), ACROSS.values(), strict=True):
        arrow(axes, (0, y), (1.1, y), color=color, style=style, shrink=0, width=2.2)
        axes.text(1.3, y, text, va="center")
    axes.text(0, -0.4, "Numbers: size of the level against the image.", va="center", color=GREY)
    axes.set(xlim=(-0.3, 6.4), ylim=(-0.8, 4.8))
    axes.set_axis_off()


FIGURES: dict[str, Callable[[], Figure]] = {
    "activations": activations,
    "pooling": pooling,
    "upsamplers": upsamplers,
    "transposed": transposed,
    "overlap": overlap,
    "shift": shift,
    "field": field,
    "detail": detail,
    "architectures": architectures,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
