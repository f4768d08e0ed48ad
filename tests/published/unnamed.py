"""Sets whose names hardly say what is a mask: words in the midst of paths, kinds of both, or nothing but the pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scenes import aerial, lesion, membranes, nuclei, objects, street

from published.registry import VOC_COLORS, binary, colored, pairs, published, rim, save, text, unsupported


@published({"train": 12, "test": 9}, "index", [0, 255], masks="/Label/", warns="without a mask")
def dagm(root: Path) -> None:
    """DAGM: `Class1/Train/0001.PNG`, `Class1/Train/Label/0001_label.PNG`; what is good has no mask."""
    for number in (1, 2, 3):
        for part, num in (("Train", 10), ("Test", 8)):
            for index, (image, mask) in enumerate(pairs(lesion, num, seed=1000 * number + num)):
                folder, stem = root / f"Class{number}" / part, f"{3 * index + (part == 'Test'):04d}"
                save(folder / f"{stem}.PNG", image[..., 0])
                if index % 3 == 0:
                    save(folder / "Label" / f"{stem}_label.PNG", binary(mask))
            text(folder / "Label" / "Labels.txt", ["1", *[f"{index}\t0\t0001.PNG\t0\t0" for index in range(num)]])


@published({"train": 14, "test": 5}, "index", [0, 1, 2, 3], ignore=[255], images="/edr/", masks="/labels/")
def ai4mars(root: Path) -> None:
    """AI4Mars: three kinds of images, and masks of the test as three numbers of people agree upon them."""
    base = root / "ai4mars-dataset-merged-0.1" / "msl"
    for index, (image, mask) in enumerate(pairs(street, 24, seed=970)):
        mask, number = np.where(mask < 4, mask, 255).astype(np.uint8), 486264973 + 137 * index
        stem = f"NLB_{number}EDR_F0481570NCAM{index:05d}M1"
        save(base / "images" / "edr" / f"{stem}.JPG", image[..., 0], format="JPEG")
        save(base / "images" / "mxy" / f"{stem.replace('EDR', 'MXY')}.png", binary(mask == 3))
        save(base / "images" / "rng-30m" / f"{stem.replace('EDR', 'RNG')}.png", binary(mask == 0))
        if index < 14:
            save(base / "labels" / "train" / f"{stem}.png", mask)
        for least in (1, 2, 3) if 14 <= index < 19 else ():
            agreed = rim(mask, 255) if least > 1 else mask
            save(base / "labels" / "test" / f"masked-gold-min{least}-100agree" / f"{stem}_merged.png", agreed)


@published({"train": 10, "val": 5, "test": 5}, "rgb", ["#000000", "#010000"])
def bbbc039(root: Path) -> None:
    """BBBC039: ids of nuclei in the red channel, RGBA; lists in `metadata`."""
    names = []
    for index, (image, mask) in enumerate(pairs(nuclei, 20, seed=971)):
        names.append(f"IXMtest_A{index:02d}_s{index % 9 + 1}_w1051DAA7C-7042-435F-99F0-1E847D9B42CB")
        save(root / "images" / f"{names[-1]}.tif", image[..., 1].astype(np.uint16) * 200)
        nothing = np.zeros_like(mask)
        save(root / "masks" / f"{names[-1]}.png", np.dstack([mask, nothing, nothing, nothing + 255]))
    for part, first, last in (("training", 0, 10), ("validation", 10, 15), ("test", 15, 20)):
        text(root / "metadata" / f"{part}.txt", [f"{name}.png" for name in names[first:last]])


@published(16, "rgb", [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in VOC_COLORS[1:6]], images="/Images/", masks="ImagesPNG")
def whdld(root: Path) -> None:
    """WHDLD: `Images` beside `ImagesPNG`: two names for images, and the masks in one of them."""
    for index, (image, mask) in enumerate(pairs(aerial, 16, seed=972)):
        save(root / "WHDLD" / "Images" / f"wh{index:04d}.jpg", image)
        save(root / "WHDLD" / "ImagesPNG" / f"wh{index:04d}.png", colored(mask, VOC_COLORS[1:]))


@published({"train": 14, "test": 6}, "index", [0, 255], images="_In/", masks="_Out/")
def lucchi(root: Path) -> None:
    """Lucchi++: `Train_In` and `Train_Out`, whose names say neither."""
    for part, num in (("Train", 14), ("Test", 6)):
        for index, (image, mask) in enumerate(pairs(membranes, num, seed=976 + num)):
            save(root / "Lucchi++" / f"{part}_In" / f"mask{index:04d}.png", image[..., 0])
            save(root / "Lucchi++" / f"{part}_Out" / f"mask{index:04d}.png", binary(mask))


@published(16, "index", [0, 255], masks="_contour")
def waterloo(root: Path) -> None:
    """Waterloo's skin cancer: `1_orig.jpg` and `1_contour.png` in nested folders."""
    for part, kind in ((1, "melanoma"), (2, "notmelanoma")):
        for index, (image, mask) in enumerate(pairs(lesion, 8, seed=977 + part), 1):
            folder = root / f"Skin Image Data Set-{part}" / "skin_data" / kind / "dermis"
            save(folder / f"D{index}_orig.jpg", image)
            save(folder / f"D{index}_contour.png", binary(mask))


@published(12, "index", [0, 255], masks="_mask")
def shapes_to_complete(root: Path) -> None:
    """Images of two values beside their masks, as drawings are: names tell them."""
    for index, (_, mask) in enumerate(pairs(objects(1), 12, seed=984)):
        save(root / f"p{index}.png", binary(np.roll(mask, 1, 0)))
        save(root / f"p{index}_mask.png", binary(mask))


@unsupported("S1Hand.*TIFF with floating-point samples of 32 bits")
def sen1floods11(root: Path) -> None:
    """Sen1Floods11: radar as floats, thirteen signed bands, and water of another source, which is no image."""
    import tifffile

    base = root / "v1.1" / "data" / "flood_events" / "HandLabeled"
    for index, (image, mask) in enumerate(pairs(aerial, 12, seed=985)):
        stem = f"{('Bolivia', 'Ghana', 'India')[index % 3]}_{103757 + 77 * index}"
        water, grey = mask == 1, np.moveaxis(image, -1, 0)
        bands = {
            "S1Hand": (grey[:2] / -10).astype(np.float32),
            "S2Hand": np.repeat(grey[:1], 13, 0).astype(np.int16),
            "LabelHand": np.where(image[..., 0] > 200, -1, water).astype(np.int16),
            "JRC": water.astype(np.uint8),
            "S1OtsuLabelHand": water.astype(np.int8),
        }
        for kind, values in bands.items():
            path = base / kind / f"{stem}_{kind}.tif"
            path.parent.mkdir(parents=True, exist_ok=True)
            tifffile.imwrite(
                path, values, photometric="minisblack", planarconfig="separate" if values.ndim > 2 else None
            )


@unsupported("nothing that says mask or label")
def photographs_twice(root: Path) -> None:
    """The same photographs as JPEG and as PNG: neither are masks."""
    for index, (image, _) in enumerate(pairs(street, 8, seed=986)):
        save(root / "Images" / f"{index}.jpg", image)
        save(root / "ImagesPNG" / f"{index}.png", image)


@published(18, "rgb", ["#000000", "#ff0000", "#00ff00", "#0000ff"], images="/render/", masks="/ground/")
def lunar(root: Path) -> None:
    """Artificial lunar landscapes: kinds of pictures within `images`, and a few real ones with masks beside them."""
    colors = [(0, 0, 0), (255, 0, 0), (0, 255, 0), (0, 0, 255)]
    for index, (image, mask) in enumerate(pairs(objects(3), 18, seed=1007), 1):
        save(root / "images" / "render" / f"render{index:04d}.png", image)
        save(root / "images" / "ground" / f"ground{index:04d}.png", colored(mask, colors))
    for index, (image, mask) in enumerate(pairs(objects(3), 4, seed=1008), 1):
        save(root / "real_moon_images" / f"PCAM{index}.png", image)
        save(root / "real_moon_images" / f"g_PCAM{index}.png", colored(mask, colors))
