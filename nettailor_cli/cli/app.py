"""The Typer application. The commands are in commands.py. No torch here, nor in anything that this imports."""

from __future__ import annotations

from typing import Annotated

import typer

from nettailor_cli._version import __version__
from nettailor_cli.cli.group import Group

app = typer.Typer(
    name="nettailor",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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
