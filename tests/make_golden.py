"""Makes tests/golden/format-N: small runs as this version writes them, which later versions must read and continue.

Run as `python tests/make_golden.py` when the format of checkpoints changes, once a format; what is there is never
replaced. The same version writes the same bytes again on the same machine.

format-N/
  data/{train,val,test}/{images,masks}/*.png
  NAME/                 a run that was killed after the checkpoint of step 20 of 22
  expected/NAME/        of the image data/test/images/0.png: logits.npy (of float32), mask.png; what `eval --json` said;
                        and the lines of metrics.jsonl that the run wrote after step 20
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image

from segtool import cli
from segtool.commands import preparation
from segtool.config.yaml_io import dump
from segtool.prediction import predict
from segtool.runs import checkpoint, checkpoint_files, history
from segtool.training import plan, train

GOLDEN = Path(__file__).with_name("golden")
COLORS = ("#101820", "#c87832", "#2860dc")
STOPPED, STEPS = 20, 22
MARGIN = 1e-3  # between the two largest logits of each pixel: what rounds otherwise elsewhere predicts the same mask

INDEX: dict[str, Any] = {
    "classes": [{"name": name, "values": [value]} for value, name in enumerate(("ground", "block", "bar"))],
    "ignore": [255],
}
PALETTE: dict[str, Any] = {
    "encoding": "palette",
    "classes": [
        {"name": name, "colors": [color]} for color, name in zip(COLORS, ("ground", "block", "bar"), strict=True)
    ],
    "ignore": ["#ffffff"],
    "channels": 1,
}
CASES: dict[str, dict[str, Any]] = {
    "unet": {
        "data": INDEX,
        "model": {"encoder": {"name": "conv", "channels": [4, 8]}, "decoder": "unet"},
        "loss": ["cross_entropy", {"name": "dice", "weight": 0.5}],
        "train": {"ema": 0.9, "seed": 2},
    },
    "segnet": {
        "data": INDEX,
        "model": {
            "encoder": {"name": "conv", "channels": [4, 8, 8], "activation": "leaky_relu", "blocks": 1},
            "decoder": {"name": "fcn", "skips": 0, "upsample": "max_unpool"},
        },
        "loss": ["dice"],
        "optim": {"name": "sgd", "lr": 0.1},
        "train": {"ema": None, "seed": 1},
    },
    "valid": {
        "data": INDEX,
        "model": {
            "encoder": {"name": "conv", "channels": [4, 8], "norm": "group", "downsample": "avg"},
            "decoder": {"name": "unet", "valid": True, "upsample": "bilinear", "norm": "group"},
        },
        "train": {"ema": 0.9, "seed": 1},
    },
    "scaled": {
        "data": INDEX,
        "model": {
            "encoder": {"name": "conv", "channels": [4, 8], "downsample": "stride"},
            "decoder": {"name": "fcn", "skips": 1, "upsample": "nearest"},
        },
        "train": {"ema": None, "precision": "fp16"},
    },
    "palette": {
        "data": PALETTE,
        "model": {
            "encoder": {"name": "conv", "channels": [4, 6, 6], "residual": True, "activation": "gelu"},
            "decoder": {"name": "unet", "upsample": "bed_of_nails", "aux": True},
        },
        "train": {"ema": 0.9},
    },
}


def make(directory: Path) -> None:
    """Writes the golden runs of this version to a directory that is not there."""
    if directory.exists():
        sys.exit(f"{directory}: is there already, and what was released is never made anew")
    directory.mkdir(parents=True)
    write_data(directory / "data")
    for name, sections in CASES.items():
        with same_arithmetic(), tempfile.TemporaryDirectory() as scratch:
            config = Path(scratch) / "config.yaml"
            config.write_text(dump(config_of(directory / "data", sections)), encoding="utf-8")
            run = directory / name
            segtool("train", config, "--run", run)
            keep_until_killed(run, directory / "expected" / name)
            record(run, directory / "expected" / name)


@contextlib.contextmanager
def same_arithmetic() -> Generator[None]:
    """Predicts in float32 and trains on one thread, and lets a CPU do the fp16 that a plan leaves to CUDA."""
    with contextlib.ExitStack() as stack:
        for module in (predict, train):
            stack.enter_context(mock.patch.object(module, "fast_dtype", return_value=torch.float32))
        for module in (plan, preparation):
            stack.enter_context(mock.patch.object(module, "check_machine"))
        yield


def segtool(*arguments: str | Path) -> str:
    """Returns what a command writes to standard output."""
    words = ["segtool", *map(str, arguments)]
    with mock.patch.object(sys, "argv", words), contextlib.redirect_stdout(io.StringIO()) as out:
        try:
            cli.main()
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(f"exit {ended.code}: {' '.join(words)}") from ended
    return out.getvalue()


def logits_of(run: Path, image: Path) -> np.ndarray:
    """Returns the logits K H W of an image by the best checkpoint of a run."""
    saved = history.best(run / "checkpoints")
    assert saved is not None
    predictor = predict.build_predictor(saved, torch.device("cpu"))
    stored = predict.read_views(image, predictor.channels, exif="apply", max_pixels=10**6)
    return torch.cat(list(predictor.bands(torch.from_numpy(stored).permute(2, 0, 1))), 1).numpy()


def keep_until_killed(run: Path, expected: Path) -> None:
    """Leaves of a run what there would be of it, had it been killed in step 22; the rest is what is expected."""
    expected.mkdir(parents=True)
    lines = (run / "metrics.jsonl").read_text().splitlines(keepends=True)
    (run / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] <= STOPPED + 1))
    (expected / "metrics.jsonl").write_text("".join(line for line in lines if json.loads(line)["step"] > STOPPED))
    for path in checkpoint.committed(run / "checkpoints"):
        if path.name != f"step-{STOPPED:08d}":
            shutil.rmtree(path)
    facts = json.loads((run / "run.json").read_text())
    del facts["end"], facts["steps_done"]
    command = f"segtool train config.yaml --run {run.name}"
    facts |= {
        "command": command,
        "host": {"system": "any", "cores": 1, "threads": 1},
        "start": "2026-01-01T00:00:00+0000",
    }
    (run / "run.json").write_text(json.dumps(facts, indent=1) + "\n")
    for name in ("train.log", ".lock", "timing.jsonl"):
        (run / name).unlink(missing_ok=True)


def record(run: Path, expected: Path) -> None:
    """Writes what the checkpoint predicts and scores."""
    image = run.parent / "data" / "test" / "images" / "0.png"
    logits = logits_of(run, image)
    first, second = np.sort(logits, axis=0)[::-1][:2]
    assert (first - second).min() > MARGIN, f"{run.name}: a near tie; change its seed"
    assert len(np.unique(logits.argmax(0))) > 1, f"{run.name}: one class; change its seed"
    np.save(expected / "logits.npy", logits)
    segtool("predict", run, image, "--out", expected / "made")
    (expected / "made" / "0.png").rename(expected / "mask.png")
    (expected / "made").rmdir()
    scores = json.loads(segtool("eval", run, "--json", "--csv", expected / "table.csv"))
    (expected / "table.csv").unlink()
    kept = {key: scores[key] for key in ("split", "step", "images", "miou", "confusion")}
    (expected / "scores.json").write_text(json.dumps(kept) + "\n")


def config_of(data: Path, sections: dict[str, Any]) -> dict[str, Any]:
    """Returns the config of a case."""
    folders = {s: {"images": f"{s}/images", "masks": f"{s}/masks"} for s in ("train", "val", "test")}
    base: dict[str, Any] = {
        "data": {"root": str(data), **folders},
        "augment": {"crop": [16, 16], "flip": "horizontal"},
        "optim": {"lr": 0.01},
        "train": {
            "steps": STEPS,
            "batch_size": 2,
            "precision": "fp32",
            "compile": False,
            "workers": 0,
            "samples": 0,
            "eval_every": 10,
        },
    }
    return base | {
        name: base.get(name, {}) | value if isinstance(value, dict) else value for name, value in sections.items()
    }


def write_data(root: Path) -> None:
    """Writes four training pairs, one to validate with and one to test, of 20x24 pixels; masks have a palette."""
    rng = np.random.default_rng(5)
    palette = [int(color[at : at + 2], 16) for color in COLORS for at in (1, 3, 5)]
    palette += [0] * (3 * 255 - len(palette)) + [255] * 3
    for split, count in (("train", 4), ("val", 1), ("test", 1)):
        for number in range(count):
            mask = np.zeros((20, 24), np.uint8)
            y, x = rng.integers(1, 10, 2)
            mask[y : y + 8, x : x + 9] = 1
            mask[rng.integers(1, 19)] = 2
            colors = np.array(palette, np.uint8).reshape(-1, 3)[mask]
            image = (colors + rng.normal(0, 10, (20, 24, 3))).clip(0, 255).astype(np.uint8)
            mask[:, -1] = 255
            for folder, array in (("images", image), ("masks", mask)):
                path = root / split / folder / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture = Image.fromarray(array)
                if folder == "masks":
                    picture.putpalette(palette)
                picture.save(path, optimize=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    make(GOLDEN / f"format-{checkpoint_files.FORMAT}")
