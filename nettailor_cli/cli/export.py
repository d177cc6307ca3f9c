"""nettailor export"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from nettailor_cli.cli import options
from nettailor_cli.cli.figures import macs, millions
from nettailor_cli.cli.output import Output
from nettailor_cli.core.errors import UsageError

if TYPE_CHECKING:
    from nettailor_cli.core.deploy.export import Export


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="a model file: teacher, student, pruned or final")],
    form: Annotated[str, typer.Option("--format", metavar="onnx|pt2|safetensors", help="what kind of file")],
    output_file: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="where to write")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="compare on pictures below DIR (default: drawn ones)", show_default=False
        ),
    ] = None,
    logits: Annotated[bool, typer.Option("--logits", help="the network gives logits (default: probabilities)")] = False,
    fp16: Annotated[bool, typer.Option("--fp16", help="half precision: half the bytes, coarser figures")] = False,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a standalone network: one file, no backbone beside it, run and compared with the model before it is kept.

    It takes uint8 pictures of the model's size (N, size, size, 3), RGB, as Pillow and numpy have them: the short side
    resized to 8/7 of the size (or as the file says inside), the middle cut out. Batch norms are folded; normalisation
    and class names are inside.
    """
    output = Output(as_json=as_json, quiet=quiet)
    from nettailor_cli.core.deploy.export import export_model
    from nettailor_cli.core.models import load_model

    if output_file.exists() and model.exists() and output_file.samefile(model):
        raise UsageError(f"{output_file} is the model itself", "choose another name with -o")
    loaded = load_model(model, home=options.home(), progress=output)
    done = export_model(
        loaded, output_file, form=form, progress=output, logits=logits, fp16=fp16, data=data, force=force
    )
    output.result(_document(model, done), lambda console: _show(console, done))


def _document(model: Path, done: Export) -> dict[str, Any]:
    difference = done.difference
    return {
        "file": str(done.path),
        "model": str(model),
        "format": done.form,
        **{key: done.document[key] for key in ("precision", "input", "output", "parameters", "macs")},
        "bytes": done.bytes,
        "check": {
            "runtime": done.runtime,
            "pictures": done.pictures,
            "images": difference.images,
            "same_class": difference.same_class,
            "probabilities": difference.probabilities,
            "logits": difference.logits,
            "limit": done.limit,
        },
    }


def _show(console: Console, done: Export) -> None:
    difference, document = done.difference, done.document
    size, output = document["preprocessing"]["size"], document["output"]
    console.print(
        f"{millions(document['parameters'])} parameters, {macs(document['macs'])} MACs, {done.bytes / 1e6:.2f} MB"
    )
    console.print(
        f"uint8 pictures (N, {size}, {size}, 3), RGB -> {output['name']} (N, {output['shape'][1]}), {done.precision}"
    )
    console.print(
        f"differs from the model by {difference.probabilities:.1e} in probabilities and {difference.logits:.1e} of the "
        f"largest logit at most ({done.limit:g} allowed); same class on {difference.same_class} of {difference.images}",
        soft_wrap=True,
    )
    console.print(f"wrote {done.path}", soft_wrap=True)
