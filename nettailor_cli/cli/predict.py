"""nettailor predict"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nettailor_cli.cli import options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.inferring import machine_for_inference
from nettailor_cli.cli.names import names_on_stdin
from nettailor_cli.cli.output import Output
from nettailor_cli.cli.predictions import FORMATS, document, writer
from nettailor_cli.core.errors import DataError, UsageError, did_you_mean

if TYPE_CHECKING:
    from nettailor_cli.core.inference import Prediction
    from nettailor_cli.core.models import Model

DEFAULT_TOP_K = 3
STDIN = "-"
_HOW = "nettailor predict MODEL IMAGE..., or nettailor predict --bundle FOLDER IMAGE..."


def predict(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL", help="a model file; none with --bundle", autocompletion=model_files, show_default=False
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|DIR|PATTERN...|-",
            help="pictures, folders of them, patterns like 'photos/**/*.jpg', or - for names on standard input",
            show_default=False,
        ),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option(
            "--bundle", metavar="FOLDER", help="all tasks of a bundle, instead of a MODEL", show_default=False
        ),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            "--task",
            metavar="NAME",
            help="with --bundle: this task only; may be given several times",
            show_default=False,
        ),
    ] = None,
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

    Those that can't be read are rows with an error; the rest is done, and the exit code is 2. JSON has the names as
    they are. Tables and CSV have escapes for what can't be seen; in CSV a name that begins with = + - or @ has an
    apostrophe before it.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if form not in FORMATS:
        raise UsageError(f"--format {form} is unknown", did_you_mean(form, FORMATS) or f"choose {', '.join(FORMATS)}")
    if tasks and bundle is None:
        raise UsageError("--task names a task of a bundle", "name the bundle: --bundle FOLDER")
    names = images or []
    if bundle is not None and model is not None:
        names, model = [model, *names], None
    if not names:
        raise UsageError("which pictures?" if model or bundle else "which model, and which pictures?", _HOW)
    streamed = _is_stream(names, null)
    from nettailor_cli.core.data import find_images, images_from
    from nettailor_cli.core.inference import PREDICTION_BATCH, predict_tasks

    paths: Iterable[Path] = (
        images_from(names_on_stdin(null=null)) if streamed else find_images([Path(name) for name in names])
    )
    models = _models(model, bundle, tasks, output)
    if top_k is None:
        top_k = min(DEFAULT_TOP_K, max(len(loaded.document.classes) for loaded in models.values()))
    machine = machine_for_inference(device, precision)
    batches = predict_tasks(
        models, paths, machine, top_k=top_k, batch_size=batch_size or PREDICTION_BATCH, workers=workers
    )
    count = Count()
    if as_json:
        rows = [document(prediction) for batch in count.of(batches) for prediction in batch]
        source = {"file": model} if bundle is None else {"bundle": str(bundle), "tasks": list(models)}
        output.result({**source, "predictions": rows}, lambda console: None)
    else:
        write = writer(form, output, top_k, tasks=bundle is not None)
        for batch in count.of(batches):
            write(batch)
    if not count.all:
        raise DataError("no names came on standard input")
    if count.bad:
        raise DataError(f"{count.bad // len(models)} of {count.all // len(models)} pictures can't be read")


def _models(file: str | None, bundle: Path | None, tasks: Sequence[str] | None, output: Output) -> dict[str, Model]:
    """Task -> model: those of the bundle that were asked for, or the only one, which has no name."""
    if bundle is None:
        assert file is not None
        from nettailor_cli.core.models import load_model

        return {"": load_model(Path(file), home=options.home(), progress=output)}
    from nettailor_cli.core.deploy.bundle import load_bundle

    loaded = load_bundle(bundle, progress=output)
    return {task: loaded.model(task) for task in (tasks or loaded.tasks)}


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
