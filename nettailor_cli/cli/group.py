"""The Typer application's group of commands: each is loaded when it is called, and what is said of wrong words is made
harmless, as all that is shown.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand, TyperGroup

from nettailor_cli.cli.commands import COMMANDS, load
from nettailor_cli.cli.errors import reader_may_go
from nettailor_cli.core.printable import harmless


class Group(TyperGroup):
    """A wrong word may be the name of a file: a shell puts those that begin with - in the place of a pattern, too."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: TyperCommand(name, help=line) for name, line in COMMANDS.items()}  # to be listed

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args[0] in COMMANDS:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        with _harmless_errors(), reader_may_go():  # of --help
            return super().make_context(*args, **kwargs)

    def invoke(self, *args: Any, **kwargs: Any) -> Any:
        with _harmless_errors(), reader_may_go():
            return super().invoke(*args, **kwargs)


@contextlib.contextmanager
def _harmless_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # the class of usage errors is none of what Typer offers to others; only they have both of these
        message = getattr(error, "message", None)
        if hasattr(error, "format_message") and isinstance(message, str):
            setattr(error, "message", harmless(message))  # noqa: B010 - mypy does not know that it is there
        raise
