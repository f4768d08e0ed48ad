"""Inference: tiles give what the whole image gives, cover every pixel, and take no more memory than a row of them."""

from __future__ import annotations

from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from segtool.config import Model, registry
from segtool.config.registry import Component
from segtool.errors import ConfigError
from segtool.models.segmenter import build_model
from segtool.prediction import inference
from segtool.prediction.ensemble import Ensemble
from segtool.prediction.inference import OVERLAP, Normalize, Predictor, fast_dtype, largest, spans

CPU = torch.device("cpu")
PLAIN = Normalize((0.0, 0.0, 0.0), (1 / 255,) * 3)  # leaves the stored values as they are
SHALLOW, DEEP = (4, 8), (4, 6, 8)
NETWORKS = [(*parts, SHALLOW) for parts in product(("unet", "fcn"), registry.names("upsampler"))]
NETWORKS += [("unet", "transposed", DEEP), ("fcn", "max_unpool", DEEP)]


def network(decoder: str, upsample: Any, channels: tuple[int, ...], **more: Any) -> Any:
    """A network whose normalisation has seen data, so that no layer is the identity."""
    torch.manual_seed(0)
    encoder = Component("conv", {"channels": list(channels)})
    options = {"upsample": upsample, **({"skips": 1} if decoder == "fcn" else {}), **more}
    model = build_model(Model(encoder, Component(decoder, options)), 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return model


def stub(function: Any, stride: int = 1) -> Any:
    """A model of one function on images N C H W."""

    class Stub(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stride, self.margin = stride, 0
            self.sizes: list[tuple[int, int]] = []

        def forward(self, images: Tensor) -> Tensor:
            self.sizes.append((images.shape[2], images.shape[3]))
            return function(images)

    return Stub()


def picture(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def joined(predictor: Predictor, image: Tensor, tile: int | None) -> Tensor:
    return torch.cat(list(predictor.bands(image, tile)), 1)


def far_from_borders(length: int, tile: int, stride: int, reach: int) -> np.ndarray:
    """Whether each position is more than `reach` pixels from every end of a tile that is no end of the image."""
    tile = max(-(-tile // stride) * stride, 2 * stride)
    far = np.ones(length, bool)
    for span in spans(length, tile, min(tile // 4, OVERLAP), stride):
        for border in span:
            if 0 < border < length:
                far &= np.abs(np.arange(length) + 0.5 - border) > reach
    return far


def worst_difference(predictor: Predictor, image: Tensor, tile: int) -> tuple[float, float]:
    """Returns the largest difference of tiles and whole far from artificial borders, and anywhere."""
    height, width = image.shape[1:]
    stride, reach = predictor.model.stride, predictor.model.receptive_field // 2
    rows, columns = (far_from_borders(length, tile, stride, reach) for length in (height, width))
    assert rows.mean() > 0.1, "nothing is compared"
    assert columns.mean() > 0.1, "nothing is compared"
    difference = (joined(predictor, image, tile) - predictor.forward(image)).abs().amax(0)
    return difference[torch.from_numpy(rows)][:, torch.from_numpy(columns)].max().item(), difference.max().item()


@pytest.mark.parametrize(("decoder", "upsample", "channels"), NETWORKS)
def test_tiles_give_the_whole_image_far_from_their_borders(decoder, upsample, channels):
    model = network(decoder, upsample, channels)
    predictor = Predictor(model, Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)), CPU)
    tile = 3 * model.receptive_field + 1  # no multiple of the stride
    image = picture(2 * tile + 7, tile + tile // 3)
    far, anywhere = worst_difference(predictor, image, tile)
    assert far < 1e-5
    assert anywhere > 1e-5, "the borders of tiles must show, else nothing was tiled"


@pytest.mark.parametrize("upsample", ["transposed", {"name": "transposed", "kernel": 4}, "bilinear"], ids=str)
def test_tiles_of_valid_convolutions_give_the_whole_image_up_to_their_borders(monkeypatch, upsample):
    model = network("unet", upsample, DEEP, valid=True)
    predictor = Predictor(model, PLAIN, CPU)
    image = picture(67, 90)
    whole = predictor.forward(image)
    for tile in (24, 40):
        torch.testing.assert_close(joined(predictor, image, tile), whole, rtol=1e-5, atol=1e-5)
    # Negative control: tiles that see nothing around them.
    monkeypatch.setattr(model, "places", lambda start, stop, _: (torch.arange(start, stop), (0, 0)))
    assert (joined(predictor, image, 24) - whole).abs().max() > 1e-3


def test_tiles_of_valid_convolutions_that_are_smaller_than_their_margin_give_the_whole_image_too():
    model = network("unet", "transposed", DEEP, valid=True)
    predictor = Predictor(model, PLAIN, CPU)
    for size in (65, model.margin - 3):  # the last tile has one pixel; the image is too small to be reflected
        image = picture(size, 3 * size)
        found = joined(predictor, image, 16)
        torch.testing.assert_close(found, predictor.forward(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("upsample", ["transposed", "max_unpool"])
def test_tiles_that_do_not_begin_on_the_stride_give_something_else(monkeypatch, upsample):
    """Negative control of the comparison above."""
    predictor = Predictor(network("unet", upsample, DEEP), PLAIN, CPU)
    aligned = inference.spans

    def shifted(length: int, *rest: int) -> list[tuple[int, int]]:
        return [(start - (start > 0), stop - (stop < length)) for start, stop in aligned(length, *rest)]

    monkeypatch.setattr(inference, "spans", shifted)
    tile = 3 * predictor.model.receptive_field + 1
    assert worst_difference(predictor, picture(2 * tile + 7, tile), tile)[0] > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (23, 5), (32, 32)])
def test_a_tile_of_the_image_or_more_is_the_whole_image_to_the_last_bit(size):
    predictor = Predictor(network("unet", "transposed", SHALLOW), PLAIN, CPU)
    image = picture(*size)
    for tile in (max(size), 1000):
        assert torch.equal(joined(predictor, image, tile), predictor.forward(image))


@pytest.mark.parametrize("stride", [1, 4, 8])
@pytest.mark.parametrize("tile", [1, 7, 16, 33])
@pytest.mark.parametrize("size", [(5, 90), (61, 40), (33, 33)])
def test_a_network_that_answers_pixel_by_pixel_gives_the_same_in_tiles_at_every_size(size, tile, stride):
    predictor = Predictor(stub(lambda images: images * 2 - 3, stride), PLAIN, CPU)
    image = picture(*size)
    torch.testing.assert_close(joined(predictor, image, tile), image.float() * 2 - 3, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("tile", [1, 16, 40, 1000])
def test_a_constant_answer_stays_constant(tile):
    predictor = Predictor(stub(lambda images: torch.full_like(images, 0.7), 4), PLAIN, CPU)
    logits = joined(predictor, picture(70, 53), tile)
    assert logits.shape == (3, 70, 53)
    torch.testing.assert_close(logits, torch.full((3, 70, 53), 0.7), rtol=1e-6, atol=0)


def test_a_blend_of_two_tiles_is_their_mean_weighted_by_the_distance_to_their_ends():
    """One row of 10 pixels in tiles that answer 1 and 2 and have two pixels in common.

    There the first falls as 2/3, 1/3, and the second rises as 1/3, 2/3.
    """
    answers = iter([1.0, 2.0])
    predictor = Predictor(stub(lambda images: torch.full_like(images, next(answers))), PLAIN, CPU)
    assert spans(10, 8, 2, 1) == [(0, 6), (4, 10)]
    first = [1, 1, 1, 1, 2 / 3, 1 / 3, 0, 0, 0, 0]
    second = [0, 0, 0, 0, 1 / 3, 2 / 3, 1, 1, 1, 1]
    expected = [a + 2 * b for a, b in zip(first, second, strict=True)]
    row = joined(predictor, picture(1, 10), 8)[0, 0]
    torch.testing.assert_close(row, torch.tensor(expected))


def test_tiles_are_blended_as_if_all_of_them_were_summed_up_with_their_weights_and_divided_by_those():
    """Against sums over the whole image, in which every tile answers its own number."""
    numbers = iter(range(100))
    predictor = Predictor(stub(lambda images: torch.full_like(images, next(numbers)), 4), PLAIN, CPU)
    height, width, tile, overlap = 53, 90, 32, 8

    def weight(start: int, stop: int, length: int) -> np.ndarray:
        rising = [1.0 if start == 0 else min(1.0, (i - start + 1) / (overlap + 1)) for i in range(start, stop)]
        falling = [1.0 if stop == length else min(1.0, (stop - i) / (overlap + 1)) for i in range(start, stop)]
        return np.minimum(rising, falling)

    sums, weights = np.zeros((height, width)), np.zeros((height, width))
    tiles = product(spans(height, tile, overlap, 4), spans(width, tile, overlap, 4))
    for number, ((top, bottom), (left, right)) in enumerate(tiles):
        own = np.outer(weight(top, bottom, height), weight(left, right, width))
        sums[top:bottom, left:right] += number * own
        weights[top:bottom, left:right] += own
    assert number >= 5
    np.testing.assert_allclose(joined(predictor, picture(height, width), tile)[0], sums / weights, atol=1e-5)


@pytest.mark.parametrize("length", [*range(1, 70), 1000, 4001])
def test_tiles_cover_a_side_from_end_to_end_and_begin_on_the_stride(length):
    for stride, tile, overlap in ((1, 8, 2), (4, 16, 4), (8, 16, 4), (8, 32, 8), (8, 16, 0), (32, 96, 24)):
        found = spans(length, tile, overlap, stride)
        assert (found[0][0], found[-1][1]) == (0, length)
        assert all(start % stride == 0 and start + overlap * (len(found) > 1) < stop for start, stop in found)
        assert max(stop - start for start, stop in found) <= tile
        assert all(stop - start == overlap for (_, stop), (start, _) in pairwise(found))
        assert len({stop - start for start, stop in found[:-1]}) <= 1, "one size of tiles, but for the last"
        assert len(found) <= max(1, -(-(length - overlap) // ((tile - overlap) // stride * stride)))


@pytest.mark.parametrize("size", [(100, 30), (101, 64), (37, 200)])
def test_bands_join_to_the_image_and_come_as_soon_as_their_rows_are_done(size):
    model = stub(lambda images: images, 4)
    predictor = Predictor(model, PLAIN, CPU)
    bands = predictor.bands(picture(*size), 32)
    heights = [next(bands).shape[1]]
    across = len(spans(size[1], 32, 8, 4))
    assert len(model.sizes) == across  # one row of tiles, and no more
    heights += [band.shape[1] for band in bands]
    assert sum(heights) == size[0]
    assert max(heights) <= 32
    assert len(model.sizes) == across * len(spans(size[0], 32, 8, 4))
    assert max(max(sides) for sides in model.sizes) <= 32


def test_the_logits_held_at_once_are_those_of_a_tile_and_of_what_the_next_row_of_tiles_overlaps(monkeypatch):
    made: list[int] = []
    empty = Tensor.new_empty

    def counting(self: Tensor, *shape: Any) -> Tensor:
        made.append(int(np.prod(shape)))
        return empty(self, *shape)

    monkeypatch.setattr(Tensor, "new_empty", counting)
    predictor = Predictor(stub(lambda images: images, 4), PLAIN, CPU)
    covered = np.zeros((400, 300), int)
    for top, left, scores in predictor.pieces(picture(400, 300), 32):
        assert scores.shape[1] <= 32
        assert scores.shape[2] <= 32
        covered[top : top + scores.shape[1], left : left + scores.shape[2]] += 1
    assert (covered == 1).all()
    assert made == [3 * 8 * 300]


def test_a_function_is_called_after_each_row_of_tiles():
    model = stub(lambda images: images, 4)
    seen: list[int] = []
    Predictor(model, PLAIN, CPU).classes(picture(80, 50), 32, after_row=lambda: seen.append(len(model.sizes)))
    across, down = len(spans(50, 32, 8, 4)), len(spans(80, 32, 8, 4))
    assert seen == [across * (row + 1) for row in range(down)]
    assert down > 1


def test_an_image_whose_channels_lie_together_gives_the_same():
    """As a reader makes it: H W C in memory, and no copy."""
    predictor = Predictor(network("unet", "transposed", DEEP), PLAIN, CPU)
    image = picture(45, 70)
    permuted = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    for tile in (None, 24):
        torch.testing.assert_close(joined(predictor, permuted, tile), joined(predictor, image, tile))


def test_large_images_are_tiled_by_themselves_and_small_ones_are_not(monkeypatch):
    monkeypatch.setattr(inference, "MAX_WHOLE_PIXELS", 1000)
    monkeypatch.setattr(inference, "AUTO_TILE", 16)
    model = stub(lambda images: images)
    predictor = Predictor(model, PLAIN, CPU)
    joined(predictor, picture(25, 40), None)
    assert model.sizes == [(25, 40)]
    joined(predictor, picture(25, 41), None)
    assert len(model.sizes) > 5
    assert max(max(sides) for sides in model.sizes[1:]) <= 16


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_the_largest_score_is_argmaxs_and_the_first_among_equals(layout):
    scores = torch.randint(0, 3, (1, 7, 20, 31), generator=torch.Generator().manual_seed(0)).float()
    found = largest(scores.contiguous(memory_format=layout)[0])
    assert (found == scores[0].numpy().argmax(0)).all()
    assert found.dtype == np.uint8
    assert ((scores[0] == scores[0].amax(0)).sum(0) > 1).any(), "else none are equal"


def test_the_lowest_class_is_taken_among_equal_logits():
    predictor = Predictor(stub(lambda images: images * 0), PLAIN, CPU)
    assert (predictor.classes(picture(9, 9)) == 0).all()


@pytest.mark.parametrize("tile", [None, 16])
def test_probabilities_sum_to_one_and_are_largest_at_the_class(tile):
    predictor = Predictor(network("unet", "bilinear", SHALLOW), PLAIN, CPU)
    image = picture(45, 38)
    classes, probabilities = predictor.classes_and_probabilities(image, tile)
    assert classes.shape == (45, 38)
    assert probabilities.shape == (3, 45, 38)
    assert (classes.dtype, probabilities.dtype) == (np.uint8, np.float32)
    np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-6)
    assert (probabilities.argmax(0) == classes).all()
    assert (classes == predictor.classes(image, tile)).all()


def test_the_largest_probability_is_the_class_s_where_logits_round_to_the_same():
    predictor = Predictor(stub(lambda images: images * torch.tensor([0, 1e-10, -1e-10])[:, None, None]), PLAIN, CPU)
    image = picture(9, 9)
    classes, probabilities = predictor.classes_and_probabilities(image)
    assert (probabilities.argmax(0) == classes).all()
    assert (classes == predictor.classes(image)).all()
    assert len(np.unique(classes)) == 2
    np.testing.assert_allclose(probabilities, 1 / 3, rtol=3e-7)


def test_normalize_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel():
    normalize = Normalize((0.2, 0.4, 0.6), (0.1, 0.2, 0.5))
    image = torch.tensor([51, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1)
    expected = torch.tensor([(0.2 - 0.2) / 0.1, (0.2 - 0.4) / 0.2, (1 - 0.6) / 0.5])
    torch.testing.assert_close(normalize(image).flatten(), expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(normalize(image.float()), normalize(image))


def test_an_image_is_predicted_alone_and_without_gradients():
    predictor = Predictor(network("unet", "transposed", SHALLOW), PLAIN, CPU)
    logits = predictor.forward(picture(20, 20))
    assert not predictor.model.training
    assert not logits.requires_grad
    assert torch.equal(logits, predictor.forward(picture(20, 20)))


# --- bfloat16


@pytest.mark.parametrize("upsample", registry.names("upsampler"))
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_bfloat16_gives_nearly_the_same_logits_in_float32(upsample, norm):
    def model() -> Any:
        made = network("unet", upsample, SHALLOW, norm=norm)
        nn.init.normal_(made.head.weight, std=3.0, generator=torch.Generator().manual_seed(0))
        return made

    exact = Predictor(model(), Normalize((0.4,) * 3, (0.2,) * 3), CPU)
    rounded = Predictor(model(), Normalize((0.4,) * 3, (0.2,) * 3), CPU, dtype=torch.bfloat16)
    image = picture(45, 60)
    logits, expected = rounded.forward(image), exact.forward(image)
    assert logits.dtype == torch.float32
    assert (logits != expected).any()
    assert (logits != logits.bfloat16()).float().mean() > 0.5, "the head does not round"
    assert (logits - expected).abs().mean() < 0.05 * expected.std()


def test_float32_is_what_a_device_without_fast_bfloat16_computes_in(monkeypatch):
    for fast, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda fast=fast: fast)
        assert fast_dtype(CPU) == dtype
    assert fast_dtype(torch.device("mps")) == torch.float32


# --- ensembles


def softmax(logits: Tensor) -> np.ndarray:
    """The written-out probabilities K H W, pixel by pixel."""
    values = logits.numpy().astype(np.float64)
    probabilities = np.zeros_like(values)
    for y, x in product(*map(range, values.shape[1:])):
        exponents = [np.exp(value) for value in values[:, y, x]]
        probabilities[:, y, x] = [exponent / sum(exponents) for exponent in exponents]
    return probabilities


def two_networks() -> list[Predictor]:
    """Networks of strides 2 and 4 and of other normalisation, whose answers differ from pixel to pixel."""
    members = [
        Predictor(network("unet", "transposed", SHALLOW), Normalize((0.4,) * 3, (0.2,) * 3), CPU),
        Predictor(network("fcn", "bilinear", DEEP), Normalize((0.6,) * 3, (0.3,) * 3), CPU),
    ]
    for seed, member in enumerate(members):
        nn.init.normal_(member.model.head.weight, std=2.0, generator=torch.Generator().manual_seed(seed))
        member.model.head.weight.data -= member.model.head.weight.data.mean(1, keepdim=True)
    return members


def test_an_ensemble_gives_the_mean_of_the_probabilities():
    members, image = two_networks(), picture(13, 18)
    answers = [softmax(member.forward(image)) for member in members]
    expected = (answers[0] + answers[1]) / 2
    assert np.abs(answers[0] - answers[1]).max() > 0.2, "else there is nothing to average"
    classes, probabilities = Ensemble(members).classes_and_probabilities(image)
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)
    assert (classes.dtype, probabilities.dtype) == (np.uint8, np.float32)
    assert (classes == probabilities.argmax(0)).all()
    assert (classes == Ensemble(members).classes(image)).all()


def test_a_flip_adds_the_answer_to_the_mirror_image_mirrored_back():
    members, image = two_networks(), picture(9, 14)
    mirrored = torch.from_numpy(image.numpy()[:, :, ::-1].copy())
    answers = [softmax(member.forward(image)) for member in members]
    answers += [softmax(member.forward(mirrored))[:, :, ::-1] for member in members]
    _, probabilities = Ensemble(members, flip=True).classes_and_probabilities(image)
    np.testing.assert_allclose(probabilities, sum(answers) / 4, atol=1e-6)


@pytest.mark.parametrize("tile", [None, 8])
def test_a_network_that_mirrors_with_its_image_gains_nothing_from_a_flip(tile):
    member, image = Predictor(stub(lambda images: images / 100, 2), PLAIN, CPU), picture(21, 30)
    _, flipped = Ensemble([member], flip=True).classes_and_probabilities(image, tile)
    np.testing.assert_allclose(flipped, member.classes_and_probabilities(image, tile)[1], atol=1e-6)


def test_what_depends_on_left_and_right_is_balanced_by_a_flip():
    # Class 0 gets the column's number as its logit, so that the mean is symmetric and the plain answer is not.
    member = Predictor(
        stub(lambda images: torch.arange(6.0).expand(1, 1, 4, 6) * torch.eye(3)[0][:, None, None]), PLAIN, CPU
    )
    _, plain = member.classes_and_probabilities(picture(4, 6))
    _, flipped = Ensemble([member], flip=True).classes_and_probabilities(picture(4, 6))
    np.testing.assert_allclose(flipped, flipped[:, :, ::-1], atol=1e-7)
    assert np.abs(plain - plain[:, :, ::-1]).max() > 0.5


@pytest.mark.parametrize("tile", [None, 16])
def test_a_network_twice_is_that_network(tile):
    (member, _), image = two_networks(), picture(45, 38)
    classes, probabilities = Ensemble([member, member]).classes_and_probabilities(image, tile)
    alone = member.classes_and_probabilities(image, tile)
    assert (classes == alone[0]).all()
    # Softmax rounds by where a value lies in a vector, and an ensemble's bands are cut otherwise than tiles.
    np.testing.assert_allclose(probabilities, alone[1], rtol=0, atol=1e-7)


def test_members_that_tile_by_other_strides_are_averaged_pixel_by_pixel():
    members, image = two_networks(), picture(61, 50)
    bands = [[band.shape[1] for band in member.bands(image, 22)] for member in members]
    assert bands[0] != bands[1], "else there is nothing to align"
    mirrored = image.flip(2)
    answers = [joined(member, image, 22).softmax(0) for member in members]
    answers += [joined(member, mirrored, 22).softmax(0).flip(2) for member in members]
    ensemble = Ensemble(members, flip=True)
    made = list(ensemble.bands(image, 22))
    torch.testing.assert_close(torch.cat(made, 1), torch.stack(answers).mean(0), atol=1e-6, rtol=0)
    assert max(band.shape[1] for band in made) <= 24


def test_an_ensemble_computes_no_more_than_the_rows_of_tiles_that_a_band_needs():
    models = [stub(lambda images: images, stride) for stride in (4, 8)]
    ensemble = Ensemble([Predictor(model, PLAIN, CPU) for model in models], flip=True)
    bands = ensemble.bands(picture(200, 40), 32)
    next(bands)
    assert [len(model.sizes) for model in models] == [2 * len(spans(40, 32, 8, stride)) for stride in (4, 8)]


def test_members_of_grey_and_of_colour_images_each_take_their_channels_of_the_image():
    grey = Predictor(stub(lambda images: images.repeat(1, 3, 1, 1) / 100), Normalize((0.0,), (1 / 255,)), CPU)
    color = Predictor(stub(lambda images: images / 50), PLAIN, CPU)
    ensemble = Ensemble([color, grey])
    assert ensemble.channels == (1, 3)
    image = torch.cat([picture(5, 6, seed=1)[:1], picture(5, 6, seed=2)])
    expected = (softmax(image[1:].float() / 50) + softmax(image[:1].float().repeat(3, 1, 1) / 100)) / 2
    np.testing.assert_allclose(ensemble.classes_and_probabilities(image)[1], expected, atol=1e-6)


def test_there_is_a_network_for_every_upsampler():
    assert len({upsample for _, upsample, _ in NETWORKS}) == len(registry.names("upsampler")) >= 5
    with pytest.raises(ConfigError):
        network("unet", "no_such", SHALLOW)
