"""nettailor predict"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nettailor_cli.cli import options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.names import names_on_stdin
from nettailor_cli.cli.output import Output
from nettailor_cli.cli.predictions import FORMATS, document, writer
from nettailor_cli.core.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from nettailor_cli.core.inference import Prediction

DEFAULT_TOP_K = 3
STDIN = "-"


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model file", autocompletion=model_files)],
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|DIR|PATTERN...|-",
            help="pictures, folders of them, patterns like 'photos/**/*.jpg', or - for names on standard input",
        ),
    ],
    top_k: Annotated[
        int | None, typer.Option("--top-k", metavar="K", help=f"classes per picture (default: {DEFAULT_TOP_K})")
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="how to print them")] = "table",
    null: Annotated[
        bool, typer.Option("--null", "-0", help="names on standard input end with a NUL byte (find -print0)")
    ] = False,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            metavar="N",
            min=1,
            max=65_536,
            help="pictures at a time; rows come out batch by batch (default: 64)",
            show_default=False,
            rich_help_panel="Running",
        ),
    ] = None,
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
    """Name the most probable classes of pictures.

    Those that can't be read are rows with an error; the rest is done, and the exit code is 2.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", did_you_mean(form, FORMATS) or f"choose {', '.join(FORMATS)}")
    streamed = _is_stream(images, null)
    from nettailor_cli.core.data import find_images, images_from
    from nettailor_cli.core.inference import PREDICTION_BATCH, predict_batches
    from nettailor_cli.core.models import load_model
    from nettailor_cli.core.training.precision import choose_machine

    paths: Iterable[Path] = (
        images_from(names_on_stdin(null=null)) if streamed else find_images([Path(name) for name in images])
    )
    loaded = load_model(model, home=options.home(), progress=output)
    if top_k is None:
        top_k = min(DEFAULT_TOP_K, len(loaded.document.classes))
    machine = choose_machine(device, "fp32" if precision == "auto" else precision)
    batches = predict_batches(
        loaded, paths, machine, top_k=top_k, batch_size=batch_size or PREDICTION_BATCH, workers=workers
    )
    count = Count()
    if as_json:
        rows = [document(prediction) for batch in count.of(batches) for prediction in batch]
        output.result({"file": str(model), "predictions": rows}, lambda console: None)
    else:
        write = writer(form, output, top_k)
        for batch in count.of(batches):
            write(batch)
    if not count.all:
        raise DataError("no names came on standard input")
    if count.bad:
        raise DataError(f"{count.bad} of {count.all} pictures can't be read")


def _is_stream(images: Sequence[str], null: bool) -> bool:
    """Whether the names come on standard input. Raises UsageError for what can't be meant."""
    if STDIN in images and len(images) > 1:
        raise UsageError("- reads the names of all pictures from standard input: give it alone")
    if null and STDIN not in images:
        raise UsageError("--null is for names on standard input", "nettailor predict MODEL - --null")
    if "" in images:  # Path("") would be the current folder
        raise UsageError("the name of a picture is empty", "an unset variable?")
    return STDIN in images


class Count:
    """How many predictions went by, and how many of them have an error."""

    def __init__(self) -> None:
        self.all = 0
        self.bad = 0

    def of(self, batches: Iterable[list[Prediction]]) -> Iterator[list[Prediction]]:
        for batch in batches:
            self.all += len(batch)
            self.bad += sum(bool(prediction.error) for prediction in batch)
            yield batch
