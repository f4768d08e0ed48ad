"""The command line. Each command imports what it needs in its body, so that `segtool --help` is instant."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from segtool import __version__
from segtool.errors import CheckpointError, DataError, LostError, SegtoolError, shown
from segtool.system import streams
from segtool.system.disk import require_plain, write_atomically
from segtool.system.signals import end_at_signals, end_if_ending, end_where_asked

if TYPE_CHECKING:
    from segtool.commands.score_report import Scored
    from segtool.config import Config
    from segtool.data.facts import Progress

LAUNCHER_SECONDS = 5  # in which a launcher has seen that a process ended

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # boxes around the help would double its time
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    help="The shortest honest path from a folder of labelled images to a segmentation model that its owner can trust.",
    epilog="Exit codes: 0 done, 1 a bug of ours, 2 usage or config, 3 data, 4 checkpoint, disk or memory, "
    "5 training diverged, 6 --fail-under not reached, 129 terminal closed, 130 interrupted, "
    "143 terminated.",
)
config_app = typer.Typer(no_args_is_help=True, help="Show a resolved config, or the schema of all configs.")
app.add_typer(config_app, name="config")

ConfigOrData = Annotated[Path, typer.Argument(metavar="CONFIG|DATA_DIR", help="A config, a run, or a data folder.")]
ConfigOrRun = Annotated[Path, typer.Argument(metavar="CONFIG|RUN", help="A config file or a run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the config, such as optim.lr=3e-4; repeatable."),
]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda|mps", help="Where the network runs.")]
Flip = Annotated[
    bool,
    typer.Option("--flip", help="Average with the prediction of the mirror image, left to right; doubles the time."),
]
Json = Annotated[bool, typer.Option("--json", help="Standard output is one JSON document and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress; warnings and errors only.")]
Tile = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        help="Predict larger images in overlapping tiles of this side. Default: above 2 megapixels.",
    ),
]


def main() -> None:
    """Runs the command line and exits with the code of what happened."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    end_at_signals()
    streams.secure()
    try:
        try:
            _require_current_folder()
            _require_words(arguments)
            app(arguments, prog_name="segtool")
        except SystemExit as ended:
            if ended.code == SegtoolError.exit_code:
                _tell_keys(arguments)
            raise
        finally:
            sys.stdout.flush()
    except Exception as error:
        from segtool.system.launch import record

        record(error)
        if isinstance(error, LostError):
            time.sleep(LAUNCHER_SECONDS)  # first comes what ended the other; the launcher ends this one meanwhile
        if debug:
            raise
        from segtool.commands.endings import explain

        sys.exit(explain(error))
    finally:
        end_if_ending()


def _require_current_folder() -> None:
    """Raises in a folder that was deleted, where torch's libraries would end the process on their own."""
    try:
        os.getcwd()
    except OSError as error:
        raise SegtoolError(f"the current folder: {error.strerror}, it was deleted or moved; cd to another") from error


def _require_words(arguments: list[str]) -> None:
    """Raises SegtoolError for an argument of no characters, which as a path would be the current folder."""
    for position, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if not argument or (option.startswith("--") and equals and not value):
            after = option or " ".join(["segtool", *arguments[:position]])
            raise SegtoolError(f"{after}: an empty argument; give it a value: a variable of the shell may be unset")


def _tell_keys(arguments: list[str]) -> None:
    """Says how a key of the config is set where one was given as an option, as other programs have them."""
    from segtool.config.parsing import dotted_keys
    from segtool.config.sections import Sections
    from segtool.system.terminal import print_errors

    commands = typer.main.get_group(app).commands
    taken = {name: {word for each in command.params for word in each.opts} for name, command in commands.items()}
    options = set().union(*taken.values())
    asked = next((taken[argument] for argument in arguments if argument in taken), set())
    where = "" if "--set" in asked else "segtool train CONFIG "  # of a command that takes no config
    for position, argument in enumerate(arguments):
        option, _, value = argument.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        keys = [key for key in dotted_keys(Sections) if key.rpartition(".")[2] == name]
        if keys and option.startswith("--") and option not in options:
            value = value or next(iter(arguments[position + 1 :]), "VALUE")
            settings = " or ".join(f"{where}--set {key}={value}" for key in keys)
            print_errors([f"{option}: no option; a key of the config is set with {settings}"])


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"segtool {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error; anywhere.")] = False,
) -> None:
    """Options of the program itself."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write to.")] = Path("segtool-demo"),
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Make a small data set, then init, check, train, eval and predict."""
    import shlex

    from segtool.commands.demo import TRAINING, make_dataset
    from segtool.runs.run_directory import argument

    if out.exists() and any(out.iterdir()):
        raise SegtoolError(f"{out}: is not empty; choose another --out or remove it")
    make_dataset(out / "data")
    places = (out / "data", out / "config.yaml", out / "run", out / "predictions")
    data, config, run, predictions = map(argument, places)
    settings = [argument for key in TRAINING for argument in ("--set", key)]
    common = ["--device", device, *(["--quiet"] if quiet else [])]
    for command in (
        ["init", data, "--out", config],
        ["check", config],
        ["train", config, "--run", run, *settings, *common],
        ["eval", run, *common],
        ["predict", run, f"{data}/test/images", "--out", predictions, "--overlay", *common],
    ):
        print(f"\n$ segtool {shlex.join(command)}", file=sys.stderr)
        code = app(command, prog_name="segtool", standalone_mode=False)
        sys.stdout.flush()  # so that a log has the commands and what they print in their order
        if code:
            raise typer.Exit(code)
        end_where_asked()
    print(f"\nLook at  {predictions}/overlays  (image and predicted classes)")
    print(f"and at   {run}/samples  (image | truth | prediction)")
    print(f"Masks:   {predictions}")
    print(f"Config:  {config}  (commented; start from it for your own data)")


@app.command()
def init(
    data_dir: Annotated[Path, typer.Argument(metavar="DATA_DIR", help="Folder of images and masks.")],
    out: Annotated[
        Path | None, typer.Option(metavar="CONFIG", help="Config to write. Default: DATA_DIR's name.")
    ] = None,
    model: Annotated[str, typer.Option(metavar="unet|fcn", help="Which network to write.")] = "unet",
    force: Annotated[bool, typer.Option("--force", help="Replace a config that is there.")] = False,
) -> None:
    """Look at a folder and write a commented config that trains."""
    from segtool.system.pools import import_numpy

    import_numpy()
    from segtool.init.scaffold import scaffold
    from segtool.runs.run_directory import typed

    data_dir = _existing(data_dir, of="images and masks")
    out = out or Path(f"{data_dir.resolve().name}.yaml")
    if out.is_dir() or not out.parent.is_dir():
        raise SegtoolError(f"{out}: is not a file in an existing folder; choose another --out")
    if out.exists() and not force:
        raise SegtoolError(f"{out}: is there already; choose another --out, or --force to replace it")
    require_plain(out)
    text = scaffold(data_dir, model=model, config_dir=out.parent.resolve(), progress=_looking())
    write_atomically(out, text.encode("utf-8", "surrogateescape"))
    print(shown(f"wrote {out}"))
    _tell_problems(out)
    print(f"next: segtool check {typed(out)}; segtool train {typed(out)}", file=sys.stderr)


def _tell_problems(config: Path) -> None:
    """Prints the errors and warnings of the data on standard error, the gravest first, as `check` finds them."""
    from rich.console import Console

    from segtool.check.report import examine, render
    from segtool.config import load_config

    findings = examine(load_config(config), config.resolve().parent).findings
    if grave := [finding for finding in findings if finding.severity != "note"]:
        render(Console(stderr=True, highlight=False), grave)


@app.command()
def check(
    config: ConfigOrData,
    overrides: Overrides = None,
    augment: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Also draw what augmentation makes of training images: PNG files in DIR."),
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit 3 on warnings too.")] = False,
    as_json: Json = False,
) -> None:
    """Find every problem of the data in one pass: file, pixel, remedy. Never edits data."""
    from rich.console import Console

    from segtool.system.pools import import_numpy

    import_numpy()
    from segtool.check.report import examine, render, to_json
    from segtool.system.terminal import Reporter

    resolved, base = _load(config, overrides)
    report = examine(resolved, base, progress=Reporter().counter(unit="file", label="checking"))
    severities = {finding.severity for finding in report.findings}
    if not as_json:
        render(Console(highlight=False), report.findings, report.summary)
    pictures = None if augment is None else _previews(resolved, base, augment, drawable="error" not in severities)
    if as_json:
        named = {} if pictures is None else {"augment": [str(path) for path in pictures]}
        print(json.dumps({**to_json(report.findings, report.summary), **named}, indent=1))
    if severities & ({"error", "warning"} if strict else {"error"}):
        raise typer.Exit(DataError.exit_code)


@app.command()
def train(
    config: ConfigOrData,
    overrides: Overrides = None,
    run: Annotated[Path | None, typer.Option(metavar="DIR", help="Run directory. Default: runs/NAME-n.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run exactly where it stopped.")] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="30m", help="Wall-clock time of the whole command: 90s, 30m, 2h.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            min=2, max=9999, metavar="N", help="Cross-validate: a run for each of N folds in DIR/fold-1 …, and a table."
        ),
    ] = None,
    gpus: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes to train with, one a GPU; without GPUs on the CPU.")
    ] = 1,
    max_restarts: Annotated[
        int,
        typer.Option(min=0, metavar="M", help="With --gpus: how often all start again when one was killed or hung."),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; write nothing.")] = False,
    no_preflight: Annotated[
        bool, typer.Option("--no-preflight", help="Do not try network, data and disk before the first step.")
    ] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Train: check the data, train, measure, save."""
    from segtool.commands.sources import Session, new_directory

    if max_restarts and gpus == 1:
        raise SegtoolError("--max-restarts goes with --gpus N, or is an option of torchrun; leave it out")
    session = Session(
        config=config,
        overrides=tuple(overrides or ()),
        run=run,
        resume=resume,
        budget=None if budget is None else _seconds(budget),
        device=device,
        quiet=quiet,
        gpus=gpus,
        max_restarts=max_restarts,
        preflight=not no_preflight,
    )
    if folds is not None:
        from segtool.commands.crossvalidate import cross_validate, tell_folds

        directory, scores = cross_validate(session, folds, dry_run=dry_run)
        if scores:
            tell_folds(directory, scores)
        return
    if not resume and "RANK" not in os.environ:
        new_directory(session)  # before torch is loaded, which takes seconds
    from segtool.commands.session import train_session

    train_session(session, dry_run=dry_run)
    end_where_asked()


@app.command("eval")
def evaluate(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RUN",
            help="A run directory (its best checkpoint), a checkpoint, or a directory of folds; several are scored as "
            "an ensemble, on the data of the first.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="train|val|test", help="Default: test where there is one, else val.")
    ] = None,
    predictions: Annotated[Path | None, typer.Option(metavar="DIR", help="Score these masks instead of a run.")] = None,
    masks: Annotated[Path | None, typer.Option(metavar="DIR", help="The truth for --predictions.")] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="CONFIG", help="What the masks of --predictions and --masks mean."),
    ] = None,
    overrides: Overrides = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Per-image table. Default: in the run, or beside --predictions.")
    ] = None,
    fail_under: Annotated[
        str | None, typer.Option(metavar="miou=0.8", help="Exit 6 when a score is lower; several with commas.")
    ] = None,
    flip: Flip = False,
    tile: Tile = None,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Score a trained model on a split, or masks that any tool made."""
    from segtool.commands.score_report import missed, parse_limits, require_place, show, write_table
    from segtool.data.words import SPLITS
    from segtool.system.terminal import print_errors

    limits = parse_limits(fail_under)
    if csv is not None and os.environ.get("RANK", "0") == "0":  # of several processes the main one writes
        require_place(csv)  # before what may take hours
    if predictions is not None:
        if runs or split is not None or flip or tile is not None or device != "auto":
            raise SegtoolError(
                "--predictions takes --masks and --config, but no RUN, --split, --flip, --tile or --device, as no "
                "network runs; leave them out"
            )
        if masks is None or config is None:
            raise SegtoolError("--predictions needs --masks DIR (the truth) and --config CONFIG (what the masks mean)")
        found = _score_predictions(predictions, masks, config, overrides)
    elif not runs:
        raise SegtoolError("eval needs a RUN, or --predictions DIR --masks DIR --config CONFIG")
    elif masks is not None or config is not None:
        raise SegtoolError("--masks and --config go with --predictions; leave them out, a RUN has its own config")
    elif split not in (None, *SPLITS):
        raise SegtoolError(f"--split {split}: expected {', '.join(SPLITS[:-1])} or {SPLITS[-1]}")
    else:
        from segtool.commands.use import evaluate_session

        found = evaluate_session(runs, split, tuple(overrides or ()), flip=flip, tile=tile, device=device, quiet=quiet)
        if not found.is_main:
            return
    table = write_table(found, csv)
    show(found, table, as_json=as_json)
    if problems := missed(found.scores, limits):
        print_errors(problems)
        raise typer.Exit(6)
    if table is None and csv is not None:
        raise typer.Exit(CheckpointError.exit_code)


@app.command()
def predict(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN... IMAGES",
            help="A run directory (its best checkpoint) or a checkpoint; of several, or of a directory of folds, the "
            "class probabilities are averaged. Then the images: a folder, a file or several.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the masks go: a PNG for each image.")],
    overlay: Annotated[
        bool, typer.Option("--overlay", help="Also draw the classes over each image, in DIR/overlays.")
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Also write each class's probability, in DIR/probabilities: .npy, K H W, float32."
        ),
    ] = False,
    overrides: Overrides = None,
    flip: Flip = False,
    tile: Tile = None,
    resume: Annotated[bool, typer.Option("--resume", help="Skip images whose outputs are there.")] = False,
    device: Device = "auto",
    quiet: Quiet = False,
) -> None:
    """Predict masks: one per image, same stem, tree, height and width."""
    from segtool.commands.use import predict_session

    predict_session(
        paths,
        out,
        tuple(overrides or ()),
        flip=flip,
        overlays=overlay,
        probabilities=probabilities,
        tile=tile,
        resume=resume,
        device=device,
        quiet=quiet,
    )


@app.command()
def inspect(
    config: ConfigOrRun,
    overrides: Overrides = None,
    size: Annotated[
        str | None, typer.Option(metavar="HxW", help="Input size. Default: the crop, else 256x256.")
    ] = None,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure",
            help="Also run the network: its effective receptive field, and whether its answer moves with the image.",
        ),
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Show the network layer by layer.

    Output size and its formula, stride, receptive field, parameters, multiply-adds, memory.
    """
    from segtool.commands.inspection import inspect_session

    pixels = _size(size) if size else None
    found = inspect_session(config, overrides or (), size=pixels, measuring=measure, device=device, quiet=quiet)
    if as_json:
        print(json.dumps(found.to_json(), indent=1))
        return
    from rich.console import Console

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
    for part in found.parts(width=console.width):
        console.print(part, soft_wrap=not console.is_terminal)
    for warning in found.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, soft_wrap=not console.is_terminal)


@app.command("list")
def list_components(
    kind: Annotated[
        str, typer.Argument(metavar="encoders|decoders|upsamplers|losses|formats|augmentations|optimizers")
    ],
    as_json: Json = False,
) -> None:
    """List what a config may name, with its options and their defaults."""
    from segtool.commands.listing import KINDS, entries, print_entries

    if kind not in KINDS:
        raise SegtoolError(f"list {kind}: unknown; expected one of {', '.join(KINDS)}")
    found = entries(kind)
    if as_json:
        print(json.dumps([asdict(entry) for entry in found], indent=1, ensure_ascii=False))
    else:
        print_entries(found)


@config_app.command("show")
def config_show(config: ConfigOrData, overrides: Overrides = None) -> None:
    """Print the resolved config with where each value came from."""
    from segtool.config import plain, show

    resolved, _ = _load(config, overrides)
    rows = [(path, json.dumps(plain(value), ensure_ascii=False), origin) for path, value, origin in show(resolved)]
    width = max(len(f"{path}: {value}") for path, value, _ in rows)
    for path, value, origin in rows:
        print(shown(f"{f'{path}: {value}'.ljust(min(width, 72))}  # {origin}"))


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of configs, for editors."""
    from segtool.config.description import schema

    print(json.dumps(schema(), indent=1))


@app.command()
def doctor() -> None:
    """Print Python, torch, devices, cores, memory and disk: pasteable."""
    from segtool.commands.doctor import facts

    for name, value in facts():
        print(f"{name:<14} {value}")


def _load(path: Path, overrides: list[str] | None) -> tuple[Config, Path]:
    """Returns the config that a file, a run or a data folder gives, and the folder that its root is relative to."""
    from segtool.commands.sources import load_any

    return load_any(path, tuple(overrides or ()), progress=_looking())


def _looking() -> Progress:
    """Returns what shows how many files of a data folder `init` has looked at."""
    from segtool.system.terminal import Reporter

    return Reporter().counter(unit="file", label="looking at the data")


def _previews(config: Config, base: Path, directory: Path, *, drawable: bool) -> list[Path]:
    """Returns the pictures of the augmentation that were written, and says on standard error what they are."""
    if not drawable:
        print("no pictures: mend the errors first", file=sys.stderr)
        return []
    from segtool.data.preview import options_on, write_previews

    pictures = write_previews(config, base, directory)
    for path in pictures:
        print(shown(f"wrote {path}"), file=sys.stderr)
    if not options_on(config.augment):
        print("no option of `augment` is on; look at one with, for example, --set augment.elastic=6", file=sys.stderr)
    return pictures


def _existing(path: Path, *, of: str) -> Path:
    if not path.is_dir():
        found = "is a file" if path.exists() else "no such folder"
        raise DataError(f"{path}: {found}; expected a folder of {of}")
    return path


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "min": 60}
    number = text.rstrip("smhin")
    try:
        value = float(number) * units[text[len(number) :] or "s"]
    except (ValueError, KeyError):
        value = 0.0
    if not 0 < value < 1e9:
        raise SegtoolError(f"--budget {text}: not a length of time; expected such as 90s, 30m or 2h")
    return value


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    if not all(side.isdecimal() and len(side) < 7 and int(side) for side in (height, width)):
        raise SegtoolError(f"--size {text}: expected height x width in pixels, such as 352x480")
    return int(height), int(width)


def _score_predictions(predictions: Path, masks: Path, config: Path, overrides: list[str] | None) -> Scored:
    from segtool.commands.score_report import Scored
    from segtool.scoring.score import score_folders

    resolved, base = _load(config, overrides)
    scores = score_folders(resolved, _existing(predictions, of="masks"), _existing(masks, of="masks"), base)
    place = predictions if predictions.name else predictions.resolve()  # of `.` and `..`, whose name is another
    table = place.parent / f"{place.name}-per-image.csv"
    return Scored(scores, f"{predictions} against {masks}", {"split": None}, table)
