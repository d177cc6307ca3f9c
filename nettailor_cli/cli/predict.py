"""nettailor predict"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nettailor_cli.cli import options
from nettailor_cli.cli.output import Output, csv_line, harmless
from nettailor_cli.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from nettailor_cli.core.inference import Prediction

DEFAULT_TOP_K = 3
FORMATS = ("table", "jsonl", "csv")


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model file")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|DIR...", help="pictures, or folders of them")],
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help=f"classes per picture (default: {DEFAULT_TOP_K})")
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="how to print them")] = "table",
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    as_json: options.Json = False,
    quiet: Annotated[
        bool,
        typer.Option(
            "--quiet", "-q", help="print the pictures' classes, errors and warnings only", rich_help_panel="Output"
        ),
    ] = False,
) -> None:
    """Name the most probable classes of pictures. Unreadable ones are reported, the rest is done (exit 2)."""
    output = Output(as_json=as_json, quiet=quiet)
    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", f"choose {', '.join(FORMATS)}")
    from nettailor_cli.core.inference import find_images
    from nettailor_cli.core.inference import predict as run
    from nettailor_cli.core.models import load_model
    from nettailor_cli.core.training.precision import choose_machine

    paths = find_images(images)
    loaded = load_model(model, home=options.home(), progress=output)
    if top_k is None:
        top_k = min(DEFAULT_TOP_K, len(loaded.document.classes))
    machine = choose_machine(device, "fp32" if precision == "auto" else precision)
    predictions = run(loaded, paths, machine, top_k=top_k, workers=workers)
    bad: list[Prediction] = []
    good = _reporting(predictions, bad, output)
    if as_json:
        output.result({"file": str(model), "predictions": [_document(p) for p in good]}, lambda console: None)
    elif form == "jsonl":
        for prediction in good:
            output.row(json.dumps(_document(prediction)))
    elif form == "csv":
        output.row(
            csv_line(["image", *(f"{what}_{k}" for k in range(1, top_k + 1) for what in ("class", "probability"))])
        )
        for prediction in good:
            cells = (cell for name, p in prediction.classes for cell in (name, f"{p:.6f}"))
            output.row(csv_line([str(prediction.path), *cells]))
    else:
        _show_table(output.out, list(good))
    if bad:
        raise DataError(f"{len(bad)} of {len(paths)} pictures can't be read")


def _reporting(predictions: Iterable[Prediction], bad: list[Prediction], output: Output) -> Iterable[Prediction]:
    """The predictions that worked; those that didn't are warned of and collected in `bad`."""
    for prediction in predictions:
        if prediction.error:
            output.warn(f"{prediction.path}: {prediction.error}")
            bad.append(prediction)
        else:
            yield prediction


def _document(prediction: Prediction) -> dict[str, object]:
    return {
        "image": str(prediction.path),
        "classes": [{"class": name, "probability": probability} for name, probability in prediction.classes],
    }


def _show_table(console: Console, predictions: Sequence[Prediction]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("image", overflow="fold")
    table.add_column("classes", overflow="fold")
    for prediction in predictions:
        best = ", ".join(f"{harmless(name)} {100 * probability:.1f} %" for name, probability in prediction.classes)
        table.add_row(harmless(prediction.path), best)
    console.print(table)
