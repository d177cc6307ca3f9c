"""nettailor evaluate"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from nettailor_cli.cli import confusion as views
from nettailor_cli.cli import options, settings_options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.inferring import machine_for_inference
from nettailor_cli.cli.output import Output
from nettailor_cli.core.errors import GateNotMet, UsageError
from nettailor_cli.core.settings import CACHE_LIMIT, checked


def evaluate(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="a model file: teacher, student, pruned or final", autocompletion=model_files
        ),
    ],
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", help="folder of pictures, or torchvision:NAME", show_default=False),
    ],
    split: Annotated[
        str | None,
        typer.Option("--split", metavar="train|val|test|all", help="(default: test, else val)", show_default=False),
    ] = None,
    top_k: Annotated[
        list[int] | None,
        typer.Option(
            "--top-k",
            metavar="K",
            help="also: right class among the K best; may be given several times",
            show_default=False,
        ),
    ] = None,
    min_accuracy: Annotated[
        float | None,
        typer.Option("--min-accuracy", metavar="PERCENT", help="exit 3 when the accuracy is lower", show_default=False),
    ] = None,
    confusion: Annotated[
        list[Path] | None,
        typer.Option(
            "--confusion",
            metavar="FILE.csv|.png|.svg",
            help="write the confusion matrix, as the ending says; may be given several times",
            show_default=False,
        ),
    ] = None,
    skip_bad_images: Annotated[bool, typer.Option("--skip-bad-images", help="leave broken pictures out")] = False,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    workers: options.Workers = 0,
    cache_limit: settings_options.CacheLimit = f"{CACHE_LIMIT / 1e9:g}GB",
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure a model on a folder of pictures: accuracy and loss, also class by class, and what it confuses."""
    output = Output(as_json=as_json, quiet=quiet)
    if split not in (None, "train", "val", "test", "all"):
        raise UsageError(f"--split {split} is unknown", "choose train, val, test or all")
    for path in confusion or ():
        views.check_file(path)
    limit = checked("cache_limit", cache_limit)
    from nettailor_cli.core.data import Cache, data_folder
    from nettailor_cli.core.inference import evaluate_on
    from nettailor_cli.core.models import load_model

    loaded = load_model(model, home=options.home(), progress=output)
    machine = machine_for_inference(device, precision)
    ks = tuple(dict.fromkeys((1, *(top_k or ()))))
    folder = data_folder(data, options.home(), output)
    done = evaluate_on(
        loaded, folder, machine, output, split=split, top_k=ks, workers=workers, skip_bad=skip_bad_images,
        cache=Cache(options.home(), limit),
    )  # fmt: skip
    score = done.score
    document = {
        "file": str(model),
        "split": done.split,
        "images": score.images,
        "skipped": done.skipped,
        "accuracy": score.accuracy,
        "loss": score.loss,
        "top_k": {str(k): share for k, share in score.top_k.items()},
        "device": machine.device.type,
        "precision": machine.precision,
        **views.documents(done.confusion),
    }

    def show(console: Console) -> None:
        console.print(f"accuracy {score.accuracy:.2f} % on {done.split} ({score.images} images), loss {score.loss:.4f}")
        for k, share in score.top_k.items():
            if k > 1:
                console.print(f"top-{k} {share:.2f} %")
        views.show(console, done.confusion)

    output.result(document, show)
    for path in confusion or ():
        views.write_file(path, done.confusion)
        output.note(f"wrote {path}")
    if min_accuracy is not None and not score.accuracy >= min_accuracy:  # NaN is no gate to pass
        raise GateNotMet(f"accuracy {score.accuracy:.2f} % is below --min-accuracy {min_accuracy:g}")
