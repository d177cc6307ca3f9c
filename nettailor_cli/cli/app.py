"""The Typer application: one line per command. No torch here, nor in anything that this imports."""

from __future__ import annotations

from typing import Annotated

import typer

from nettailor_cli._version import __version__
from nettailor_cli.cli import (
    backbones,
    benchmark,
    bundle,
    evaluate,
    export,
    finetune,
    fit,
    inspect,
    predict,
    prune,
    tailor,
    teach,
)
from nettailor_cli.cli.errors import reports_errors
from nettailor_cli.cli.group import Group

app = typer.Typer(
    name="nettailor",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command("teach")(reports_errors(teach.teach))
app.command("tailor")(reports_errors(tailor.tailor))
app.command("prune")(reports_errors(prune.prune))
app.command("finetune")(reports_errors(finetune.finetune))
app.command("fit")(reports_errors(fit.fit))
app.command("inspect")(reports_errors(inspect.inspect))
app.command("evaluate")(reports_errors(evaluate.evaluate))
app.command("predict")(reports_errors(predict.predict))
app.command("benchmark")(reports_errors(benchmark.benchmark))
app.command("export")(reports_errors(export.export))
app.command("bundle")(reports_errors(bundle.bundle))
app.add_typer(backbones.app, name="backbones")


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"nettailor {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Tailor pretrained image networks: one frozen backbone, a small delta per task.

    nettailor fit does it all: teach → tailor → prune → finetune. Look at any of their files with inspect.
    """
