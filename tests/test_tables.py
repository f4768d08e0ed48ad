"""What people read: the table of scores, the CSV of images, lines and progress; names in them do nothing."""

from __future__ import annotations

import csv
import io
from itertools import pairwise

import numpy as np
import pytest
from rich.console import Console

from segtool.errors import shown
from segtool.scoring.metrics import ImageScore, Scores
from segtool.scoring.tables import definition, per_image_csv, score_table
from segtool.system.terminal import PLAIN_SECONDS, Reporter, duration, percent

HOSTILE = ["[red]x[/red]", "[/]", ":car:", "back\\", "\x1b]0;title\x07", "two\nlines", "=1+1", "\udcff"]


def scores(names=("sky", "road", "void"), matrix=((6, 2, 0), (1, 1, 0), (0, 0, 0)), *, ignored=5, stem="a/1") -> Scores:
    return Scores.of(names, [ImageScore.of(stem, np.array(matrix, np.int64), ignored)])


def rendered(table) -> str:
    console = Console(file=io.StringIO(), width=200, highlight=False)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def row(text: str, name: str) -> list[str]:
    (line,) = [line for line in text.splitlines() if line.strip("│ ").split("│")[0].strip() == name]
    return [cell.strip() for cell in line.strip("│").split("│")]


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def test_a_row_of_the_table_has_the_class_s_scores_in_per_cent():
    text = rendered(score_table(scores(), "run (test)"))
    assert row(text, "sky") == ["sky", "66.67", "-", "80.00", "85.71", "75.00", "80.00"]
    assert row(text, "road") == ["road", "25.00", "-", "40.00", "33.33", "50.00", "20.00"]
    assert row(text, "mean") == ["mean", "45.83", "-", "60.00", "59.52", "62.50", ""]
    assert "run (test)" in text


def test_a_class_that_is_absent_has_hyphens_and_is_named_under_the_table():
    assert row(rendered(score_table(scores(), "")), "void") == ["void", "-", "-", "-", "-", "-", "0.00"]
    assert "Means are over the 2 of 3 classes in truth or prediction; absent: void." in definition(scores())


def test_means_over_fewer_classes_are_told_under_the_table():
    text = definition(scores(matrix=((6, 0, 0), (4, 0, 0), (0, 0, 0))))
    assert "precision over the 1 that are predicted, those of recall and accuracy over the 2 in truth; absent" in text
    assert "precision" not in definition(scores())


def test_of_several_images_the_table_has_standard_errors_and_says_what_they_are():
    images = [ImageScore.of(str(place), np.array(m), 0) for place, m in enumerate(([[3, 1], [0, 4]], [[1, 1], [2, 4]]))]
    two = Scores.of(("sky", "road"), images)
    text = rendered(score_table(two, ""))
    assert row(text, "sky")[:3] == ["sky", "50.00", "25.00"]
    assert row(text, "road")[:3] == ["road", "66.67", "11.11"]
    assert row(text, "mean")[:3] == ["mean", "58.33", "18.06"]
    assert "mIoU 58.33 ± 18.06  pixel accuracy 75.00 ± 12.50  mean accuracy" in definition(two)
    assert "± is the standard error over the images" in definition(two)
    assert "±" not in definition(scores())


def test_the_baseline_has_a_row_of_its_own():
    assert row(rendered(score_table(scores(), "")), "all sky") == ["all sky", "40.00", "", "44.44", "", "50.00", ""]


def test_the_definition_tells_what_is_left_out():
    text = definition(scores())
    assert (
        "mIoU 45.83  pixel accuracy 70.00  mean accuracy 62.50  mean Dice 60.00  frequency-weighted IoU 58.33" in text
    )
    assert "over 1 image (10 pixels), not a mean over images" in text
    assert "5 pixels with ignored truth (33.33 %) are left out" in text


def test_where_nothing_was_scored_the_table_has_hyphens_and_no_baseline():
    text = rendered(score_table(scores(matrix=np.zeros((3, 3), int)), ""))
    assert row(text, "mean") == ["mean", "-", "-", "-", "-", "-", ""]
    assert "│ all " not in text
    assert "The row" not in text


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are_and_do_nothing_in_a_table(name):
    text = rendered(score_table(scores((name, "b"), ((3, 0), (0, 1))), f"title {name}"))
    assert row(text, shown(name))[1] == "100.00"
    assert row(text, f"all {shown(name)}")
    assert f"title {shown(name)}" in text
    assert all(c.isprintable() or c == "\n" for c in text)


def test_each_image_has_a_line_in_the_csv():
    (line,) = rows(per_image_csv(scores()))
    assert line == {
        "image": "a/1",
        "pixel_accuracy": "0.700000",
        "miou": "0.458333",
        "iou sky": "0.666667",
        "iou road": "0.250000",
        "iou void": "",
        "pixels": "10",
        "ignored_pixels": "5",
    }


def test_an_image_of_which_nothing_counts_has_empty_cells():
    (line,) = rows(per_image_csv(scores(matrix=np.zeros((3, 3), int), ignored=9)))
    assert (line["pixel_accuracy"], line["miou"], line["iou sky"], line["pixels"]) == ("", "", "", "0")


@pytest.mark.parametrize("stem", ["=HYPERLINK(1)", "+1", "-1", "@A1"])
def test_a_cell_that_begins_like_a_formula_is_made_text(stem):
    (line,) = rows(per_image_csv(scores(stem=stem)))
    assert line["image"] == f"'{stem}"


@pytest.mark.parametrize("stem", ["\t=1", "\r=1", "a\nb", "\x1b[2J", "\x00", "\u2028", "\u202e", "\udcff"])
def test_control_characters_do_not_reach_the_csv(stem):
    text = per_image_csv(scores((stem, "b"), ((3, 0), (0, 1)), stem=stem))
    assert len(text.splitlines()) == 2
    assert all(c.isprintable() or c == "\n" for c in text)
    text.encode()


@pytest.mark.parametrize("stem", ["a,b", 'say "hi"', "für"])
def test_other_names_come_back_from_the_csv_as_they_were(stem):
    (line,) = rows(per_image_csv(scores((stem, "b"), ((3, 0), (0, 1)), stem=stem)))
    assert line["image"] == stem
    assert f"iou {stem}" in line


def test_printable_text_is_left_alone():
    assert shown("Straße 7, ok: [x] \\ 猫") == "Straße 7, ok: [x] \\ 猫"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (42, "42 s"),
        (99.4, "99 s"),
        (100, "1 min 40 s"),
        (425, "7 min 05 s"),
        (5999.7, "1 h 40 min"),
        (12000, "3 h 20 min"),
    ],
)
def test_a_length_of_time_is_written_as_people_do(seconds, text):
    assert duration(seconds) == text


def test_a_share_is_written_as_a_percentage():
    assert (percent(0.12345), percent(1.0), percent(None)) == ("12.35", "100.00", "-")


class Clock:
    """Stands for the `time` module: each look at it comes `step` seconds later."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def monotonic(self) -> float:
        self.now += self.step
        return self.now


@pytest.fixture
def clock(monkeypatch):
    def start(step: float) -> None:
        monkeypatch.setattr("segtool.system.terminal.time", Clock(step))

    return start


def test_a_line_goes_to_standard_error_and_into_the_log(tmp_path, capsys):
    reporter = Reporter()
    reporter.keep_in(tmp_path / "log")
    reporter.say("one\ntwo [bold] :car:")
    assert capsys.readouterr() == ("", "one\ntwo [bold] :car:\n")
    assert (tmp_path / "log").read_text() == "one\ntwo [bold] :car:\n"


def test_quiet_keeps_lines_in_the_log_and_still_warns(tmp_path, capsys):
    reporter = Reporter(quiet=True)
    reporter.keep_in(tmp_path / "log")
    reporter.say("line")
    reporter.warn("careful")
    assert capsys.readouterr().err == "warning: careful\n"
    assert (tmp_path / "log").read_text() == "line\nwarning: careful\n"


@pytest.mark.parametrize("name", HOSTILE)
def test_names_do_nothing_in_a_line_and_fit_any_log(tmp_path, capsys, name):
    reporter = Reporter()
    reporter.keep_in(tmp_path / "log")
    reporter.say(f"file {name}")
    reporter.warn(name)
    reporter.close()
    said = capsys.readouterr().err
    assert said == (tmp_path / "log").read_text(encoding="utf-8")
    assert all(c.isprintable() or c == "\n" for c in said)
    assert said.startswith("file " + "\n".join(map(shown, name.split("\n"))))


def test_a_long_line_is_not_wrapped_where_no_terminal_shows_it(capsys):
    Reporter().say("x " * 300)
    assert capsys.readouterr().err == "x " * 300 + "\n"


def test_short_work_is_followed_without_a_word_where_no_terminal_shows_it(capsys):
    assert list(Reporter().track("abc", total=3, unit="image", label="scoring")) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_long_work_gets_plain_lines_where_no_terminal_shows_it(clock, capsys):
    clock(PLAIN_SECONDS + 1)
    list(Reporter().track("abc", total=3, unit="image", label="scoring"))
    text = capsys.readouterr().err
    assert text.splitlines() == ["scoring: 0 of 3 images", "scoring: 1 of 3 images", "scoring: 2 of 3 images"]


def test_quiet_work_gets_no_lines(clock, capsys):
    clock(PLAIN_SECONDS + 1)
    list(Reporter(quiet=True).track("abc", total=3, unit="image", label="scoring"))
    assert capsys.readouterr().err == ""


def test_the_bar_of_a_training_that_has_become_longer_shows_the_new_length(capsys):
    reporter = Reporter()
    reporter.console = Console(stderr=True, force_terminal=True)
    reporter.step("first", done=1, total=10)
    reporter.step("later", done=12, total=20)
    reporter.close()
    assert "12/20" in capsys.readouterr().err


def test_steps_are_told_every_ten_seconds_and_at_the_end_where_no_terminal_shows_them(tmp_path, clock, capsys):
    clock(0.6)
    reporter = Reporter()
    reporter.keep_in(tmp_path / "log")
    for done in range(1, 41):
        reporter.step(f"step {done}", done=done, total=40)
    told = [int(line.split()[1]) for line in capsys.readouterr().err.splitlines()]
    assert told[0] == 1
    assert told[-1] == 40
    assert all(8 <= after - before <= 18 for before, after in pairwise(told[:-1]))
    assert [int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()] == told
