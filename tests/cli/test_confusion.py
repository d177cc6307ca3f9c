"""The views of a confusion matrix: on terminals of any width, as CSV, as a picture."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

import numpy as np
import pytest

from nettailor_cli.cli.confusion import check_file, show, write_file
from nettailor_cli.cli.confusion_picture import draw
from nettailor_cli.cli.output import HarmlessConsole
from nettailor_cli.core.confusion import Confusion

NASTY = ("[red]x[/red]", "\x1b[31mevil", "two\nlines", '=1+1,"q"', "$x^2$")


def confusion(counts: list[list[int]], classes: tuple[str, ...] | None = None) -> Confusion:
    return Confusion(classes or tuple(f"class {n}" for n in range(len(counts))), np.array(counts, np.int64))


def random_confusion(size: int, most: int, classes: tuple[str, ...] | None = None) -> Confusion:
    return confusion(np.random.default_rng(size).integers(1, most, (size, size)).tolist(), classes)


def shown(result: Confusion, columns: int = 100) -> str:
    console = HarmlessConsole(file=io.StringIO(), width=columns, markup=False, highlight=False, emoji=False)
    show(console, result)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= columns
    return text


def test_few_classes_are_shown_whole() -> None:
    text = shown(confusion([[3, 1, 0], [0, 12, 0], [2, 2, 0]], ("ant", "bee", "cat")))
    lines = [line.split() for line in text.splitlines()]
    assert ["ant", "3", "4", "75.00", "%", "60.00", "%"] in lines
    assert ["bee", "12", "12", "100.00", "%", "80.00", "%"] in lines
    assert ["cat", "0", "4", "0.00", "%", "-"] in lines
    assert lines[-4:] == [
        ["1", "2", "3"],
        ["1", "ant", "3", "1", "."],
        ["2", "bee", ".", "12", "."],
        ["3", "cat", "2", "2", "."],
    ]


@pytest.mark.parametrize("columns", [50, 80, 100, 140])
@pytest.mark.parametrize("most", [5, 10_000_000])
def test_no_number_of_the_matrix_is_ever_cut_off(columns: int, most: int) -> None:
    result = random_confusion(12, most)
    text = shown(result, columns)
    assert "…" not in text
    assert ("rows: the true class" in text) == (columns >= (80 if most == 5 else 140))
    if "rows: the true class" in text:
        rows = text.split("it was taken for\n")[1].splitlines()[1:]
        assert [[int(cell) for cell in row.split()[3:]] for row in rows] == result.counts.tolist()
    else:
        assert "most often confused" in text


def test_many_classes_show_the_worst_and_the_most_confused_pairs() -> None:
    counts = np.diag(np.arange(100, 200))
    counts[40, 41] = 300  # class 40: 140 of 440
    counts[7, 9] = 50
    text = shown(confusion(counts.tolist()))
    assert "the 10 worst of 100 classes" in text and "--confusion FILE.csv" in text
    first = text.splitlines()[2]
    assert re.match(r"class 40 +140 +440 +31.82 %", first), first
    pairs = text.split("most often confused\n")[1].splitlines()[1:]
    assert [line.split() for line in pairs] == [
        ["class", "40", "300", "class", "41"],
        ["class", "7", "50", "class", "9"],
    ]


def test_without_a_mistake() -> None:
    assert "no image was taken for another class" in shown(confusion(np.diag([3] * 30).tolist()))


def test_classes_without_images_are_not_among_the_worst() -> None:
    counts = np.zeros((30, 30), int)
    counts[4, 4] = 1
    text = shown(confusion(counts.tolist()))
    assert "the 1 worst of 30 classes" in text and "class 4 " in text and "class 5" not in text


def test_strange_names_stay_harmless(tmp_path: Path) -> None:
    result = random_confusion(5, 9, NASTY)
    text = shown(result)
    assert "[red]x[/red]" in text and "\x1b" not in text and "\\x1b[31mevil" in text and "two\\nlines" in text
    write_file(tmp_path / "c.csv", result)
    raw = (tmp_path / "c.csv").read_text()
    assert len(raw.splitlines()) == 6 and "\x1b" not in raw
    rows = list(csv.reader(io.StringIO(raw)))
    assert rows[0] == ["true class", "[red]x[/red]", "\\x1b[31mevil", "two\\nlines", '\'=1+1,"q"', "$x^2$"]
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == result.counts.tolist()
    labels = [label.get_text() for label in draw(result).axes[0].get_xticklabels()]
    assert labels == [cell.removeprefix("'") for cell in rows[0][1:]]
    write_file(tmp_path / "c.png", result)  # $x^2$ is drawn as it stands, a broken formula is no error
    write_file(tmp_path / "d.png", random_confusion(2, 9, ("$\\broken{", "漢字")))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, 2, 26, 101])
def test_a_picture_holds_shares_of_each_row(size: int, tmp_path: Path) -> None:
    result = random_confusion(size, 50)
    result.counts[size // 2] = 0  # a class without images
    axes = draw(result).axes[0]
    drawn = np.asarray(axes.images[0].get_array())
    for i, row in enumerate(result.counts.tolist()):
        assert drawn[i].tolist() == pytest.approx([count / max(1, sum(row)) for count in row])
    written = {(int(t.get_position()[1]), int(t.get_position()[0])): int(t.get_text()) for t in axes.texts}
    expected = {(i, j): n for i, row in enumerate(result.counts.tolist()) for j, n in enumerate(row) if n}
    assert written == (expected if size <= 25 else {})
    assert len(axes.get_yticklabels()) == (size if size <= 100 else 0)
    for suffix in (".png", ".svg"):
        write_file(tmp_path / f"c{suffix}", result)
        assert (tmp_path / f"c{suffix}").stat().st_size > 1000


def test_what_a_file_may_be_called(tmp_path: Path) -> None:
    for name in ("a.csv", "b.PNG", "c.svg"):
        check_file(tmp_path / name)
