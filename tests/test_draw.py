import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from segtool.data.draw import contact_sheet, gallery, legend, overlay, panel, png, sample, window
from segtool.data.palette import COLORS

RED, BLUE, GREEN = (200, 0, 0), (0, 0, 200), (0, 200, 0)
THREE = np.array([RED, BLUE, GREEN], np.uint8)
NAMES = ["red", "blue", "green"]


def grey(height, width, value=100):
    return np.full((height, width, 3), value, np.uint8)


def part(picture, height, width):
    return np.asarray(picture)[:height, :width]


def has(picture, color):
    return bool((np.asarray(picture) == color).all(axis=2).any())


def test_inside_a_class_image_and_colour_are_mixed():
    picture = overlay(grey(20, 30), np.zeros((20, 30), np.uint8), THREE, NAMES)
    assert part(picture, 20, 30).reshape(-1, 3).tolist() == [[150, 50, 50]] * 600  # half of 100, half of the colour


def test_a_border_bears_the_full_colour_above_and_left_of_it():
    indices = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 2, 2], [2, 2, 2, 2]], np.uint8)
    shown = part(overlay(grey(4, 4), indices, THREE, NAMES), 4, 4)
    mixed = {index: [round(0.5 * 100 + 0.5 * c) for c in THREE[index]] for index in range(3)}
    full = {index: THREE[index].tolist() for index in range(3)}
    assert shown.tolist() == [
        [mixed[0], full[0], mixed[1], mixed[1]],
        [full[0], full[0], full[1], full[1]],
        [mixed[2]] * 4,
        [mixed[2]] * 4,
    ]


def test_ignored_pixels_show_the_image_even_along_borders():
    indices = np.zeros((9, 9), np.uint8)
    indices[3:6, 3:6] = 255
    shown = part(overlay(grey(9, 9), indices, THREE, NAMES), 9, 9)
    assert (shown[3:6, 3:6] == 100).all()
    assert not (shown == 100).all(axis=2)[indices == 0].any()


@pytest.mark.parametrize(("channels", "shown"), [(1, [0, 0, 0]), (2, [0, 0, 0]), (3, [0, 1, 2]), (6, [0, 1, 2])])
def test_of_two_channels_the_first_is_shown_and_of_more_the_first_three(channels, shown):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, channels), np.uint8)
    ignored = np.full((5, 7), 255, np.uint8)
    for pixels in (image, image.astype(np.float32)):
        assert np.array_equal(part(overlay(pixels, ignored, THREE, NAMES), 5, 7), image[..., shown])
        assert np.array_equal(part(sample(pixels, ignored, ignored, THREE, NAMES), 5, 7), image[..., shown])
        assert np.array_equal(part(panel(pixels, ignored, THREE), 5, 7), image[..., shown])


def test_bands_of_rows_are_blended_like_the_whole(monkeypatch):
    rng = np.random.default_rng(0)
    image, indices = rng.integers(0, 256, (23, 10, 3), np.uint8), rng.integers(0, 3, (23, 10), np.uint8)
    whole = overlay(image, indices, THREE, NAMES)
    monkeypatch.setattr("segtool.data.draw._BAND", 30)
    assert np.array_equal(overlay(image, indices, THREE, NAMES), whole)


def test_grey_float_and_alpha_images_are_shown_like_rgb():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (6, 7, 1), np.uint8)
    indices = np.zeros((6, 7), np.uint8)
    expected = np.asarray(overlay(np.concatenate([values] * 3, axis=2), indices, THREE, NAMES))
    transparent = np.concatenate([values, values, values, np.zeros_like(values)], axis=2)
    for same in (values, values.astype(np.float32) + 0.25, transparent):
        assert np.array_equal(np.asarray(overlay(same, indices, THREE, NAMES)), expected)


def test_an_image_of_12_bits_in_16_is_shown_from_its_darkest_to_its_brightest():
    stored = np.arange(1000, 4096, dtype=np.float32).reshape(43, 72)[..., None]
    image, ignored = stored / 257, np.full((43, 72), 255, np.uint8)
    for shown in (overlay(image, ignored, THREE, NAMES), sample(image, ignored, ignored, THREE, NAMES)):
        pixels = part(shown, 43, 72)
        assert (pixels.min(), pixels.max()) == (0, 255)
        assert (np.diff(pixels[..., 0].ravel().astype(int)) >= 0).all()
    brighter = part(panel(image + 1, None, THREE, shown=window(image)), 43, 72)
    assert brighter.mean() > part(panel(image, None, THREE), 43, 72).mean() + 10
    assert (part(panel(image * 0 + 7, None, THREE), 43, 72) == 7).all()
    assert window(image * 6) == (0.0, 255.0)


def test_the_legend_shows_the_classes_that_occur_and_no_other():
    indices = np.zeros((60, 90), np.uint8)
    indices[:30] = 2
    picture = overlay(grey(60, 90), indices, THREE, NAMES)
    below = picture.crop((0, 60, picture.width, picture.height))
    assert has(below, RED)
    assert has(below, GREEN)
    assert not has(below, BLUE)


def test_where_everything_is_ignored_there_is_no_legend():
    picture = overlay(grey(5, 6), np.full((5, 6), 255, np.uint8), THREE, NAMES)
    assert np.array_equal(np.asarray(picture), grey(5, 6))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 50), (50, 1), (7, 5), (96, 128), (700, 900)])
def test_any_size_works_and_the_image_keeps_its_own(height, width):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    indices = rng.integers(0, 3, (height, width)).astype(np.uint8)
    indices[0, 0] = 255
    picture = overlay(image, indices, THREE, NAMES)
    assert picture.mode == "RGB"
    assert picture.width >= width
    assert picture.height >= height
    assert part(picture, 1, 1).tolist() == image[:1, :1].tolist()
    assert sample(image, indices, indices, THREE, NAMES).height > height


@pytest.mark.parametrize(
    "name",
    [
        "",
        " ",
        "two\nlines",
        "tab\there",
        "\x00\x1b[31m",
        "道路",
        "\ud800",
        "🚗",
        "שלום",
        "e\u0301",
        "x" * 5000,
    ],
)
def test_no_name_breaks_the_legend(name):
    picture = legend([(name, RED), ("road", BLUE)], width=128)
    assert has(picture, RED)
    assert has(picture, BLUE)


def test_a_long_name_is_cut_to_the_width_of_the_image():
    assert legend([("x" * 5000, RED)], width=300).width == 300
    cut, by_hand = legend([("x" * 5000, RED)], width=2000), legend([("x" * 29 + "...", RED)], width=2000)
    assert np.array_equal(np.asarray(cut), np.asarray(by_hand))


def test_letters_grow_with_the_image():
    assert legend([("road", RED)], width=2000).height > 3 * legend([("road", RED)], width=200).height


def test_many_classes_are_all_in_the_legend():
    entries = [(f"class {index}", (index, 255 - index, 7)) for index in range(200)]
    colors = {tuple(color) for color in np.asarray(legend(entries, width=128)).reshape(-1, 3).tolist()}
    assert {color for _, color in entries} <= colors


def test_a_sample_shows_image_truth_and_prediction_in_this_order():
    image = grey(40, 120)
    truth, prediction = np.zeros((40, 120), np.uint8), np.ones((40, 120), np.uint8)
    picture = np.asarray(sample(image, truth, prediction, THREE, NAMES))
    step = (picture.shape[1] - 120) // 2
    assert (picture[:40, :120] == image).all()
    assert (picture[:40, step : step + 120] == RED).all()
    assert (picture[:40, 2 * step :] == BLUE).all()
    assert (picture[:40, 120:step] == 255).all()
    assert (picture[40:] < 128).any(axis=(0, 2))[:120].any()  # a caption


@pytest.mark.parametrize("ignored", [False, True])
def test_the_legend_of_a_sample_has_the_classes_of_both_and_a_hatched_swatch_where_something_is_ignored(ignored):
    truth, prediction = np.zeros((40, 120), np.uint8), np.zeros((40, 120), np.uint8)
    prediction[:5] = 1
    truth[0, 0] = 255 if ignored else 0
    below = sample(grey(40, 120), truth, prediction, THREE, NAMES).crop((0, 40, 400, 90))
    assert [has(below, color) for color in (RED, BLUE, GREEN)] == [True, True, False]
    dark = (np.asarray(below) == 64).all(axis=2).sum()  # a letter's edge may have a few
    assert (dark > 50) == ignored


def test_a_sample_hatches_what_the_truth_ignores():
    truth = np.zeros((40, 120), np.uint8)
    truth[:, 60:] = 255
    picture = np.asarray(sample(grey(40, 120), truth, np.zeros_like(truth), THREE, NAMES))
    step = (picture.shape[1] - 120) // 2
    panel = picture[:40, step : step + 120]
    assert (panel[:, :60] == RED).all()
    hatched = panel[:, 60:].reshape(-1, 3)
    assert {tuple(color) for color in hatched.tolist()} == {(64, 64, 64), (112, 112, 112)}


def test_pictures_lie_in_rows_with_gaps():
    pictures = [Image.new("RGB", (3, 2), color) for color in (RED, BLUE, GREEN)]
    sheet = np.asarray(contact_sheet(pictures, columns=2, gap=1))
    assert sheet.shape == (5, 7, 3)
    expected = np.full((5, 7, 3), 255, np.uint8)
    expected[0:2, 0:3], expected[0:2, 4:7], expected[3:5, 0:3] = RED, BLUE, GREEN
    assert np.array_equal(sheet, expected)


def test_the_palette_serves_twenty_classes():
    assert len(set(COLORS)) == len(COLORS) >= 20
    indices = np.arange(20, dtype=np.uint8)[None].repeat(4, axis=0)
    shown = part(overlay(grey(4, 20), indices, COLORS, [str(i) for i in range(20)]), 4, 20)
    assert shown[0, :-1].tolist() == [list(color) for color in COLORS[:19]]  # on borders


def test_drawing_needs_no_torch():
    program = "import sys, segtool.data.draw; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_panel_has_the_image_above_itself_under_its_classes_with_ignored_pixels_hatched():
    indices = np.zeros((4, 6), np.uint8)
    indices[:, 3:] = 255
    shown = np.asarray(panel(grey(4, 6), indices, THREE))
    assert shown.shape == (8, 6, 3)
    assert (shown[:4] == 100).all()
    assert (shown[4:, :2] == [150, 50, 50]).all()  # half of 100, half of red
    assert set(map(tuple, shown[4:, 3:].reshape(-1, 3).tolist())) == {(64,) * 3, (112,) * 3}


def test_a_panel_without_indices_is_the_image_and_a_pixel_may_become_a_square():
    image = np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8)
    assert np.array_equal(np.asarray(panel(image, None, THREE)), image)
    assert np.array_equal(np.asarray(panel(image, None, THREE, scale=2)), image.repeat(2, 0).repeat(2, 1))


def test_a_gallery_holds_each_picture_unscaled_under_a_title_and_above_a_legend():
    cells = [
        [("one", panel(grey(40, 50, 10 * (2 * row + column)), None, THREE)) for column in (1, 2)] for row in (0, 1)
    ]
    plain = gallery("title", "note", cells)
    shown = np.asarray(plain)
    tops = []
    for value in (10, 20, 30, 40):
        y, x = np.nonzero((shown == value).all(axis=2))
        assert len(y) >= 40 * 50
        tops.append((y.min(), x.min()))
    assert tops[0][0] == tops[1][0] < tops[2][0] == tops[3][0]
    assert tops[0][1] == tops[2][1] < tops[1][1] == tops[3][1]
    assert (shown[: tops[0][0]] != 255).any(), "the title"
    with_legend = gallery("title", "note", cells, classes=[("red", RED)])
    assert with_legend.height > plain.height
    assert has(with_legend, RED)


def test_a_png_holds_the_picture_exactly():
    picture = panel(np.random.default_rng(0).integers(0, 256, (3, 5, 3), np.uint8), None, THREE)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), np.asarray(picture))
