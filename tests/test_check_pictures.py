"""What `check` tells of pictures and masks compared with each other, and when it keeps silent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import check
from PIL import Image
from test_check import CLASSES, SIZE, edit, found, make, picture, rename, truth

from segtool.check import of_fits, of_masks, of_splits
from segtool.config import ClassSpec, Config, Data, Folders, Split
from segtool.data.facts import MaskFacts

BLOCKS = (48, 64)


def blocks(root: Path, count: int = 20, *, specks: int = 0, strewn: tuple[int, ...] = ()) -> Config:
    """Writes masks of one block each, binary, with `specks` single pixels of it in some."""
    config = make(root, train=count, val=0, test=0)
    for index in range(count):
        rng = np.random.default_rng(index)
        mask = np.zeros(BLOCKS, np.uint8)
        mask[4:20, 6:30] = 1
        if index in strewn:
            places = rng.permutation(12 * 30)[:specks]
            mask[22 + 2 * (places // 30), 2 * (places % 30)] = 1
        picture(index, BLOCKS).save(root / f"train/images/train_{index}.png")
        Image.fromarray(mask).save(root / f"train/masks/train_{index}.png")
    return replace(config, data=replace(config.data, val=None, test=None, classes=CLASSES[:2]))


def test_palettes_at_odds_are_a_warning_under_index_and_none_where_they_agree(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    black_red_blue = bytes([0, 0, 0, 255, 0, 0, 0, 0, 255])
    for path in (tmp_path / "set").glob("*/masks/*.png"):
        image = Image.open(path)
        image.putpalette(black_red_blue)
        image.save(path)
    assert check(config, tmp_path) == []
    path = tmp_path / "set/train/masks/train_3.png"
    image = Image.open(path)
    image.putpalette(bytes([*black_red_blue, 0, 0, 0]))
    image.putpixel((9, 9), 3)  # black again
    image.putpixel((8, 9), 7)  # of no colour
    image.save(path)
    assert "SEG306" not in found(config, tmp_path)
    # Indices are exchanged as the palette is, so that its colours mean what those of the others do.
    edit(path, lambda mask: np.copyto(mask, np.array([0, 2, 1], np.uint8)[np.minimum(mask, 2)]))
    image = Image.open(path)
    image.putpalette(bytes([0, 0, 0, 0, 0, 255, 255, 0, 0]))
    image.save(path)
    finding = found(config, tmp_path)["SEG306"]
    assert (finding.severity, finding.files) == ("warning", ("train/masks/train_3.png",))
    assert "data.encoding to palette" in finding.remedy
    names = ("#000000", "#ff0000", "#0000ff")
    classes = tuple(ClassSpec(spec.name, colors=(color,)) for spec, color in zip(CLASSES, names, strict=True))
    by_color = replace(config, data=replace(config.data, encoding="palette", classes=classes))
    assert check(by_color, tmp_path) == []


def test_a_constant_image_is_a_note_where_its_mask_is_of_one_class_too(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    for index in (1, 2):
        Image.new("RGB", (32, 24), (9, 9, 9)).save(tmp_path / f"set/train/images/train_{index}.png")
    edit(tmp_path / "set/train/masks/train_2.png", lambda mask: mask.fill(0))
    told = {(f.code, f.severity): f.files for f in check(config, tmp_path)}
    assert told["SEG208", "warning"] == ("train/images/train_1.png",)
    assert told["SEG208", "note"] == ("train/images/train_2.png",)
    assert {code for code, _ in told} == {"SEG208", "SEG305"}  # two black pictures are no duplicates


def test_a_white_sky_above_the_tip_of_a_roof_is_no_mask_in_the_place_of_an_image(tmp_path: Path) -> None:
    root = tmp_path / "set"
    config = blocks(root)
    mask = np.zeros(BLOCKS, np.uint8)
    mask[-8:, :10] = 1
    roof = 75 + np.arange(BLOCKS[1]) // 2  # lit from one side
    sky, drawn = (np.where(mask, color, 255).astype(np.uint8) for color in (roof, 80))
    Image.fromarray(mask).save(root / "train/masks/train_3.png")
    for image, told in ((sky, False), (drawn, True)):
        Image.fromarray(image).convert("RGB").save(root / "train/images/train_3.png")
        findings = found(config, tmp_path)
        assert ("SEG211" in findings) == told
    assert findings["SEG211"].files == ("train/images/train_3.png",)


def test_an_image_that_is_its_mask_of_a_scratch_is_told_where_it_is_so_in_every_pixel(tmp_path: Path) -> None:
    root = tmp_path / "set"
    config = blocks(root)
    mask = np.zeros(BLOCKS, np.uint8)
    mask[20:22, 5:40] = 1  # has no pixel far from its edges
    Image.fromarray(mask).save(root / "train/masks/train_3.png")
    for grain, told in ((0, True), (1, False)):
        drawn = mask * 200 + np.random.default_rng(0).integers(0, grain + 1, BLOCKS)
        Image.fromarray(drawn.astype(np.uint8)).convert("RGB").save(root / "train/images/train_3.png")
        assert ("SEG211" in found(config, tmp_path)) == told


def test_one_file_in_two_lists_is_told_once(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    row = "{0}/images/{0}_{1}.png,{0}/masks/{0}_{1}.png"
    for split, count in (("train", 8), ("val", 3)):
        (tmp_path / f"set/{split}.csv").write_text("\n".join(row.format(split, n) for n in range(count)))
    with (tmp_path / "set/val.csv").open("a") as file:
        file.write("\n" + row.format("train", 4))
    parts = {"train": Folders(list="train.csv"), "val": Folders(list="val.csv"), "test": None}
    findings = found(replace(config, data=replace(config.data, format="list", **parts)), tmp_path)
    assert {code: f.severity for code, f in findings.items()} == {"SEG504": "warning"}
    assert findings["SEG504"].example == "train/images/train_4.png is in train and in val"


def test_equal_pictures_with_masks_that_mean_the_same_or_differ_by_a_slip_do_not_disagree(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    root = tmp_path / "set/train"
    large = truth(0, (100, 100))
    for index in (1, 2, 3):
        picture(1, (100, 100)).save(root / f"images/train_{index}.png")
        Image.fromarray(large).save(root / f"masks/train_{index}.png")
    edit(root / "masks/train_2.png", lambda mask: mask[50, 50:51].fill(2))
    palette = Image.fromarray(large)
    palette.putpalette(bytes(range(9)))
    palette.save(root / "masks/train_3.png")
    assert "SEG307" not in found(config, tmp_path)
    edit(root / "masks/train_2.png", lambda mask: mask[50:60].fill(2))
    finding = found(config, tmp_path)["SEG307"]
    assert finding.count == 1
    assert sorted(finding.files) == [f"train/masks/train_{index}.png" for index in (1, 2, 3)]
    assert "at (" in finding.example


def test_a_near_copy_of_a_picture_that_stands_twice_in_each_split_is_told_once(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=9, val=6)
    known = np.asarray(picture(0, (100, 100)))
    for split, pixels in (("train", known), ("val", np.minimum(known, 250) + 5)):
        for index in (1, 2):
            Image.fromarray(pixels).save(tmp_path / f"set/{split}/images/{split}_{index}.png")
            Image.fromarray(truth(0, (100, 100))).save(tmp_path / f"set/{split}/masks/{split}_{index}.png")
    findings = found(config, tmp_path)
    assert (findings["SEG505"].count, findings["SEG506"].count) == (2, 1)
    assert findings["SEG506"].files == ("val/images/val_1.png", "train/images/train_1.png")


def masks_with_specks(*specks: tuple[int, ...], edges: float) -> list[MaskFacts]:
    """Returns masks of 200x200 pixels with so many specks of each class, and so many pixels at edges."""
    outline = np.full((1, 1), 255 * edges / 40_000)
    return [
        MaskFacts(Path(f"{n}.png"), size=(200, 200), specks=np.array(s), outline=outline) for n, s in enumerate(specks)
    ]


@pytest.mark.parametrize(
    ("odd", "others", "edges", "told"),
    [
        ((10, 10), (0,), 200, True),
        ((10, 10), (1,), 201, False),  # below one at ten pixels of edges
        ((35, 5), (0,), 200, True),  # of one class, where others have none
        ((34, 5), (0,), 200, False),
        ((35, 5), (0,), 401, False),
        ((35, 5), (1,), 200, False),  # where others have some
        ((8, 8), (0,), 10_000, True),  # of two classes, where others have none, however long the edges
        ((8, 7), (0,), 10_000, False),
        ((8, 8), (1,), 10_000, False),
        ((15, 16), (8,), 200, False),  # less than four times what is usual
        ((16, 16), (8,), 200, True),
        ((19, 20), (15,), 200, False),  # and one at five pixels is enough
        ((20, 20), (15,), 200, True),
        ((199,), (9,), 10_000, False),  # far more than others have, however long the edges
        ((200,), (9,), 10_000, True),
        ((249,), (25,), 10_000, False),
        ((250,), (25,), 10_000, True),
    ],
)
def test_specks_are_noise_by_their_number_beside_edges_classes_and_other_masks(
    odd: tuple[int, ...], others: tuple[int, ...], edges: float, told: bool
) -> None:
    masks = masks_with_specks(odd, *[others] * 20, edges=edges)
    assert of_masks._noisy(masks) == masks[:told]
    assert of_masks._noisy([]) == []


def test_specks_that_lie_alone_are_noise_where_a_fifth_of_the_masks_has_them() -> None:
    def masks(*lonely: tuple[int, ...]) -> list[MaskFacts]:
        found = masks_with_specks(*[(20, 20)] * len(lonely), edges=4000)
        return [replace(mask, lonely=np.array(one)) for mask, one in zip(found, lonely, strict=True)]

    often = masks((6, 30, 6), (30, 6, 0), *[(30, 5, 5)] * 8)
    assert of_masks._noisy(often) == often[:2]
    assert of_masks._noisy(masks((6, 30, 6), *[(30, 5, 5)] * 8)) == []


@pytest.mark.parametrize(("side", "stripe", "told"), [(64, 0, True), (63, 0, False), (64, 3, False)])
def test_masks_that_are_noise_everywhere_are_told_unless_they_are_small(
    side: int, stripe: int, told: bool, tmp_path: Path
) -> None:
    config = make(tmp_path / "set", train=12, val=0, test=0)
    rng = np.random.default_rng(0)
    for index, path in enumerate(sorted((tmp_path / "set/train/masks").iterdir())):
        picture(index, (side, 90)).save(tmp_path / "set/train/images" / path.name)
        mask = rng.random((side, 90)) < 0.5 if stripe == 0 else np.indices((side, 90))[1] // stripe % 2
        Image.fromarray(mask.astype(np.uint8)).save(path)
    findings = found(replace(config, data=replace(config.data, val=None, test=None)), tmp_path)
    assert ("SEG308" in findings) == told
    if told:
        assert findings["SEG308"].count == 12
        assert findings["SEG308"].example.endswith("75 % of its pixels differ from one beside them")


def test_specks_of_one_class_in_few_masks_are_noise_and_in_many_small_objects(tmp_path: Path) -> None:
    few = found(blocks(tmp_path / "few", specks=60, strewn=(4, 9)), tmp_path)
    assert few["SEG308"].files == ("train/masks/train_4.png", "train/masks/train_9.png")
    assert "SEG308" not in found(blocks(tmp_path / "many", specks=60, strewn=tuple(range(0, 20, 3))), tmp_path)
    assert "SEG308" not in found(blocks(tmp_path / "hardly", specks=15, strewn=(4, 9)), tmp_path)


def test_a_mask_with_far_more_specks_than_all_others_is_noise_where_many_have_a_few(tmp_path: Path) -> None:
    config = blocks(tmp_path / "set", specks=25, strewn=tuple(range(8, 14)))
    picture(4, (96, 128)).save(tmp_path / "set/train/images/train_4.png")
    mask = np.zeros((96, 128), np.uint8)
    mask[2:50:4, 2:98:8] = 1
    Image.fromarray(mask).save(tmp_path / "set/train/masks/train_4.png")
    assert "SEG308" not in found(config, tmp_path)  # 144 small objects
    mask[2::4, 2::8] = 1
    Image.fromarray(mask).save(tmp_path / "set/train/masks/train_4.png")
    assert found(config, tmp_path)["SEG308"].files == ("train/masks/train_4.png",)
    picture(5, (96, 128)).save(tmp_path / "set/train/images/train_5.png")
    mixed = np.zeros((96, 128), np.uint8)
    mixed[:, 64:] = 1
    mixed[2::16, 2::8] ^= 1  # of both classes, whose few are told without those of others
    Image.fromarray(mixed).save(tmp_path / "set/train/masks/train_5.png")
    assert found(config, tmp_path)["SEG308"].files == ("train/masks/train_4.png", "train/masks/train_5.png")


@pytest.mark.parametrize(("others", "told"), [(0, True), (200, False)])
def test_as_many_specks_as_small_masks_have_are_noise_where_others_have_none(
    others: int, told: bool, tmp_path: Path
) -> None:
    config = make(tmp_path / "set", train=12, val=0, test=0)
    for index, path in enumerate(sorted((tmp_path / "set/train/masks").iterdir())):
        picture(index, (96, 128)).save(tmp_path / "set/train/images" / path.name)
        mask = np.repeat(np.arange(96, dtype=np.uint8) // 4 % 2, 128).reshape(96, 128)
        spots = mask[1::4, ::2].copy()
        spots.ravel()[: 480 if index == 5 else others] ^= 1
        mask[1::4, ::2] = spots
        Image.fromarray(mask).save(path)
    data = replace(config.data, val=None, test=None, split=Split(val=0.2, seed=0))
    findings = found(replace(config, data=data), tmp_path)
    noisy = sorted((tmp_path / "set/train/masks").iterdir())[5]
    assert ("SEG308" in findings) == told
    assert not told or findings["SEG308"].files == (f"train/masks/{noisy.name}",)


@pytest.mark.parametrize(("pairs", "having", "severity"), [(40, 2, "note"), (16, 4, "note"), (40, 4, "warning")])
def test_a_class_that_chance_leaves_out_of_validation_is_a_note_where_few_have_it_or_validate(
    pairs: int, having: int, severity: str, tmp_path: Path
) -> None:
    config = make(tmp_path / "set", train=pairs, val=0, test=0)
    for index, path in enumerate(sorted((tmp_path / "set/train/masks").iterdir())):
        edit(path, lambda mask, index=index: mask[:3, :4].fill(2 if index < having else 0))
    data = replace(config.data, val=None, test=None, split=Split(val=0.2, seed=0))
    held = next(
        finding
        for seed in range(20)
        if (
            finding := found(replace(config, data=replace(data, split=Split(val=0.2, seed=seed))), tmp_path).get(
                "SEG402"
            )
        )
    )
    assert held.severity == severity


@pytest.mark.parametrize("numbers", [True, False])
def test_numbers_with_a_letter_start_again_in_each_split_without_a_note(tmp_path: Path, numbers: bool) -> None:
    config = make(tmp_path / "set", train=9, val=6, test=6)
    rename(tmp_path / "set", "{0}_G" if numbers else "{1}_G")
    assert list(found(config, tmp_path)) == ([] if numbers else ["SEG502"])


def test_a_class_of_another_share_in_validation_is_a_note_and_a_small_difference_none(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=16, val=10)
    for path in (tmp_path / "set/val/masks").iterdir():
        edit(path, lambda mask: mask[3:9].fill(1))
    assert "SEG507" not in found(config, tmp_path)
    for path in (tmp_path / "set/val/masks").iterdir():
        edit(path, lambda mask: mask[3:22].fill(1))
    finding = found(config, tmp_path)["SEG507"]
    assert finding.severity == "note"
    assert "leaf" in finding.message


@pytest.mark.parametrize(
    ("one", "other", "told"),
    [
        ({0.3: 20}, {0.5: 20}, True),
        ({0.3: 4}, {0.5: 4}, False),  # chance gives that
        ({0.1: 80, 0.5: 20}, {0.5: 100}, True),
        ({0.1: 60, 0.5: 40}, {0.5: 100}, False),  # too many pictures of both are alike
        ({0.3: 20}, {0.44: 20}, False),  # hardly more
        ({0.01: 20}, {0.03: 20}, True),  # three times as much
        ({0.01: 20}, {0.029: 20}, False),
        ({0.0002: 20}, {0.0009: 20}, False),  # rare in both
        ({0.0: 20}, {0.5: 20}, False),  # absent, which is another finding
    ],
)
def test_shares_of_a_class_are_of_another_kind_where_they_hardly_overlap_and_differ_much(
    one: dict[float, int], other: dict[float, int], told: bool
) -> None:
    parts = [np.repeat(list(counts), list(counts.values())) for counts in (one, other)]
    assert of_splits._apart(*parts)[0] == told
    assert not of_splits._apart(parts[0], np.zeros(0))[0]
    assert not of_splits._apart(np.zeros(0), parts[1])[0]


GREY = (ClassSpec("out", (0,)), ClassSpec("in", (1, 255)))
SOFT = (ClassSpec("out", (0,)), ClassSpec("in", (255,)))
IDS = (ClassSpec("out", (0,)), ClassSpec("in", ("1..255",)))


def levels(mask: np.ndarray, *values: int) -> np.ndarray:
    """Returns a mask in which what is 0 and 1 has these values, all of them where there are more."""
    return np.where(mask > 0, np.resize(np.array(values[1:]), mask.shape), values[0]).astype(np.uint8)


@pytest.mark.parametrize(
    ("data", "usual", "odd", "told"),
    [
        (Data(classes=GREY), (0, 255), (0, 1), "0/1, not 0/255"),
        (Data(classes=CLASSES[:2], ignore=(255,)), (0, 1), (0, 255), ""),  # all ignored but 0
        (Data(classes=IDS), (0, 1), (0, *range(1, 30)), ""),  # numbers of objects
        (Data(classes=SOFT, encoding="threshold"), (0, 255), (0, *range(230, 256)), "soft edges, not 0/255"),
        (Data(classes=SOFT, encoding="threshold"), (0, *range(230, 256)), (0, 255), ""),  # exact by chance
    ],
)
def test_a_mask_stored_in_another_way_than_most_is_told_where_most_are_exact(
    data: Data, usual: tuple[int, ...], odd: tuple[int, ...], told: str, tmp_path: Path
) -> None:
    config = make(tmp_path / "set", train=6, val=0, test=0)
    for index, path in enumerate(sorted((tmp_path / "set/train/masks").iterdir())):
        Image.fromarray(levels(truth(index) % 2, *(usual if index else odd))).save(path)
    given = {"root": config.data.root, "train": config.data.train, "val": None, "test": None, "split": Split(val=0.4)}
    finding = found(replace(config, data=replace(data, **given)), tmp_path).get("SEG312")
    assert bool(finding) == bool(told)
    assert not finding or (finding.files == ("train/masks/train_0.png",) and told in finding.message)


def test_a_photograph_among_masks_that_a_threshold_reads_is_told_once(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    paths = sorted((tmp_path / "set").glob("*/masks/*.png"))
    for index, path in enumerate(paths):
        Image.fromarray(levels(truth(index) % 2, 0, 255)).save(path)
    config = replace(config, data=replace(config.data, encoding="threshold", classes=SOFT))
    picture(5).convert("L").save(paths[0])
    findings = found(config, tmp_path)
    assert {code: finding.severity for code, finding in findings.items()} == {"SEG313": "warning"}
    assert "more than 32 from the value of any class" in findings["SEG313"].example
    picture(5).save(paths[0])
    assert list(found(config, tmp_path)) == ["SEG301"]


def test_blank_masks_and_those_of_pictures_that_show_nothing_are_no_copies(tmp_path: Path) -> None:
    config = make(tmp_path / "set")
    root = tmp_path / "set/train"
    for index in (1, 2):
        edit(root / f"masks/train_{index}.png", lambda mask: mask.fill(0))
    for index in (3, 4):
        Image.new("RGB", SIZE[::-1], (index, 0, 0)).save(root / f"images/train_{index}.png")
    (root / "masks/train_4.png").write_bytes((root / "masks/train_3.png").read_bytes())
    assert set(found(config, tmp_path)) == {"SEG208", "SEG305"}
    for owner, other, count in ((5, 6, 1), (7, 0, 2)):
        (root / f"masks/train_{other}.png").write_bytes((root / f"masks/train_{owner}.png").read_bytes())
        assert found(config, tmp_path)["SEG309"].count == count


def test_two_pictures_may_have_one_mask_where_they_show_one_scene() -> None:
    rng = np.random.default_rng(0)
    scene, grain = rng.normal(0, 1, (2, 16, 16))
    unlike = np.eye(2, dtype=np.float32)
    alike = np.float32([[1, 0], [0.6, 0.8]])
    for looks, apart, expected in (
        ([scene, scene + 0.1 * grain], unlike, True),  # but for their grain
        ([scene, scene + 0.5 * grain], unlike, False),  # as all bodies in a scanner
        ([scene, scene + 0.5 * grain], alike, True),  # a fixed camera's
        ([scene, scene + 2 * grain], alike, False),
    ):
        assert of_fits._any_alike(np.stack(looks), apart) == expected


def test_images_are_told_to_hold_the_areas_of_their_mask_alone_where_most_hold_more(tmp_path: Path) -> None:
    config = make(tmp_path / "set", train=12, val=0, test=0)
    config = replace(config, data=replace(config.data, val=None, test=None))
    colors = np.array([[20, 30, 90], [200, 90, 40], [90, 200, 60]], np.uint8)
    paths = sorted((tmp_path / "set/train/images").iterdir())
    for index, path in enumerate(paths):
        mask = np.kron(np.random.default_rng(index).integers(0, 3, (4, 4)), np.ones((24, 24), int)).astype(np.uint8)
        Image.fromarray(mask).save(tmp_path / "set/train/masks" / path.name)
        picture(index, (96, 96)).save(path)

    def save_masks_over(images: list[Path], grain: float) -> None:
        for path in images:
            drawn = colors[np.array(Image.open(tmp_path / "set/train/masks" / path.name))]
            noise = np.random.default_rng(0).normal(0, grain, drawn.shape)
            Image.fromarray((drawn + noise).clip(0, 255).astype(np.uint8)).save(path)

    save_masks_over(paths[:2], 0)
    assert found(config, tmp_path)["SEG211"].files == tuple(f"train/images/{path.name}" for path in paths[:2])
    save_masks_over(paths[:2], 30)  # things of one colour, with a grain
    assert "SEG211" not in found(config, tmp_path)
    save_masks_over(paths, 0)  # what the set is made of
    assert "SEG211" not in found(config, tmp_path)
