"""Views of a confusion matrix: on the terminal, for --json, and as a CSV file or a picture."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from nettailor_cli.core.errors import UsageError, did_you_mean
from nettailor_cli.core.files import check_place, write_atomically, write_text
from nettailor_cli.core.printable import csv_line, harmless

if TYPE_CHECKING:
    from nettailor_cli.core.confusion import ClassScore, Confusion

CSV, PICTURES = ".csv", (".png", ".svg")

_CLASSES = 20
"""Up to so many classes all of them are shown, otherwise the worst ones."""

_WORST = 10
"""Rows of a table that can't show everything."""

_NAME = 24
"""Columns of a class name from which on it may be folded."""


def check_file(path: Path) -> None:
    """Raises UsageError when it can be seen beforehand that `path` can't become a confusion matrix."""
    suffix = path.suffix.lower()
    if suffix not in (CSV, *PICTURES):
        known = (CSV, *PICTURES)
        hint = did_you_mean(suffix, known) if suffix else ""
        raise UsageError(f"--confusion {path}: the ending says what to write", hint or f"choose {', '.join(known)}")
    if suffix in PICTURES and importlib.util.find_spec("matplotlib") is None:
        raise UsageError(f"--confusion {path}: a picture needs matplotlib", "pip install 'nettailor[plot]'")
    check_place(path)


def write_file(path: Path, confusion: Confusion) -> None:
    """Write the matrix to `path`, as its ending says; a file that is there is replaced."""
    if path.suffix.lower() == CSV:
        write_text(path, _csv(confusion))
        return
    from nettailor_cli.cli.confusion_picture import draw, save

    figure = draw(confusion)
    write_atomically(path, lambda temporary: save(figure, temporary, path.suffix.lower()[1:]))


def documents(confusion: Confusion) -> dict[str, Any]:
    """For --json: class by class, and the matrix as lists in the order of `classes`, one per true class."""
    return {
        "classes": list(confusion.classes),
        "per_class": [
            {
                "class": score.name,
                "images": score.images,
                "right": score.right,
                "accuracy": score.accuracy,
                "predicted": score.predicted,
                "precision": score.precision,
            }
            for score in confusion.per_class()
        ],
        "confusion": confusion.counts.tolist(),
    }


def show(console: Console, confusion: Confusion) -> None:
    """Class by class, then the whole matrix if there is room for it, else the pairs that are confused most often."""
    _show_classes(console, confusion)
    matrix = _matrix(console, confusion)
    if matrix is not None:
        console.print("rows: the true class, columns: what it was taken for")
        console.print(matrix)
    else:
        _show_pairs(console, confusion)


def _show_classes(console: Console, confusion: Confusion) -> None:
    scores = confusion.per_class()
    shown = scores if len(scores) <= _CLASSES else _worst(scores)
    table = _table("class", "right", "images", "accuracy", "precision")
    for score in shown:
        table.add_row(
            score.name,
            str(score.right),
            str(score.images),
            _percent(score.accuracy),
            _percent(score.precision),
        )
    if len(shown) < len(scores):
        console.print(f"the {len(shown)} worst of {len(scores)} classes (--json and --confusion FILE.csv have all)")
    console.print(table)


def _worst(scores: list[ClassScore]) -> list[ClassScore]:
    measured = [(score.accuracy, place, score) for place, score in enumerate(scores) if score.accuracy is not None]
    return [score for _, _, score in sorted(measured)[:_WORST]]


def _matrix(console: Console, confusion: Confusion) -> Table | None:
    """The whole matrix, its columns by number; None when there is no room: a number that is cut off is a wrong one."""
    size = len(confusion.classes)
    if size > _CLASSES:
        return None
    cells = [[str(count) if count else "." for count in row] for row in confusion.counts.tolist()]
    numbers = [str(number) for number in range(1, size + 1)]
    widths = [max(map(len, column)) for column in zip(numbers, *cells, strict=True)]
    names = [harmless(name) for name in confusion.classes]
    needed = len(str(size)) + min(_NAME, max(map(cell_len, names))) + sum(widths) + 2 * (size + 1)
    if needed > console.width:
        return None
    table = _table("", "", *numbers)
    for number, name, row in zip(numbers, names, cells, strict=True):
        table.add_row(number, name, *row)
    return table


def _show_pairs(console: Console, confusion: Confusion) -> None:
    pairs = confusion.most_confused(_WORST)
    if not pairs:
        console.print("no image was taken for another class")
        return
    console.print("most often confused")
    table = _table("true class", "images", "taken for")
    for pair in pairs:
        table.add_row(pair.true, str(pair.count), pair.predicted)
    console.print(table)


def _table(*columns: str) -> Table:
    """Columns of names are to the left and may be folded; those of numbers are to the right and never cut off."""
    table = Table(box=None, pad_edge=False)
    for place, name in enumerate(columns):
        words = name in ("class", "true class", "taken for") or (not name and place == 1)
        table.add_column(name, justify="left" if words else "right", overflow="fold", no_wrap=not words)
    return table


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f} %"


def _csv(confusion: Confusion) -> str:
    """One row per true class, one column per predicted class, both under their names."""
    lines = [csv_line(["true class", *confusion.classes])]
    for name, row in zip(confusion.classes, confusion.counts.tolist(), strict=True):
        lines.append(csv_line([name, *map(str, row)]))
    return "\n".join(lines) + "\n"
