"""Predictions as rows, batch by batch: a table for people, JSON lines, CSV.

A picture that can't be read is a row with its error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.table import Table

from nettailor_cli.cli.output import Output
from nettailor_cli.core.printable import csv_line, harmless, json_text

if TYPE_CHECKING:
    from nettailor_cli.core.inference import Prediction

Writer = Callable[[Sequence["Prediction"]], None]
"""Prints a batch; what it printed can be read at once."""


def writer(form: str, output: Output, top_k: int, *, tasks: bool = False) -> Writer:
    """The writer of FORMATS[form], for predictions of at most `top_k` classes; with `tasks` a row says whose it is."""
    return FORMATS[form](output, top_k, tasks)


def document(prediction: Prediction) -> dict[str, Any]:
    """One prediction for JSON; `error` is there when the picture can't be read, and then there are no classes.

    `task` is there where there are several.
    """
    classes = [{"class": name, "probability": probability} for name, probability in prediction.classes]
    task = {"task": prediction.task} if prediction.task else {}
    error = {"error": prediction.error} if prediction.error else {}
    return {"image": str(prediction.path), **task, "classes": classes, **error}


def _json_lines(output: Output, top_k: int, tasks: bool) -> Writer:
    return lambda batch: output.rows(json_text(document(prediction)) for prediction in batch)


def _csv(output: Output, top_k: int, tasks: bool) -> Writer:
    columns = [f"{what}_{k}" for k in range(1, top_k + 1) for what in ("class", "probability")]
    head = [csv_line(["image", *(["task"] if tasks else []), *columns, "error"])]

    def write(batch: Sequence[Prediction]) -> None:
        lines = []
        for prediction in batch:
            cells = [cell for name, p in prediction.classes for cell in (name, f"{p:.6f}")]
            cells += [""] * (len(columns) - len(cells))
            task = [prediction.task] if tasks else []
            lines.append(csv_line([str(prediction.path), *task, *cells, prediction.error]))
        output.rows([*head, *lines])
        head.clear()

    return write


def _table(output: Output, top_k: int, tasks: bool) -> Writer:
    """One table, as far as that goes when the later rows are not known yet: a longer path widens what follows."""
    console = output.out
    width = 0

    def write(batch: Sequence[Prediction]) -> None:
        nonlocal width
        table = Table(box=None, pad_edge=False, show_header=not width)
        images = [harmless(prediction.path) for prediction in batch]
        width = min(max(width, *map(cell_len, ("image", *images))), console.width // 2)
        table.add_column("image", overflow="fold", min_width=width)
        if tasks:
            table.add_column("task", overflow="fold")
        table.add_column("classes", overflow="fold")
        for image, prediction in zip(images, batch, strict=True):
            best = ", ".join(f"{name} {100 * p:.1f} %" for name, p in prediction.classes)
            task = [prediction.task] if tasks else []
            table.add_row(image, *task, best or f"error: {prediction.error}")
        console.print(table)

    return write


FORMATS: dict[str, Callable[[Output, int, bool], Writer]] = {"table": _table, "jsonl": _json_lines, "csv": _csv}
