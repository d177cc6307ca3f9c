"""Options made of the settings of the training stages, which are declared in `core/settings.py`.

In groups, so that --help shows the few that a first-time user needs first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from nettailor_cli.core.presets import PRESETS, default_of
from nettailor_cli.core.settings import FIELDS, SIZES, TEACH, fields_of, flag_of

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="|".join(PRESETS),
        help="a set of defaults; paper: the published settings (default: standard)",
        show_default=False,
    ),
]
CacheLimit = Annotated[str, typer.Option("--cache-limit", metavar="SIZE", help=FIELDS["cache_limit"].metadata["help"])]


def with_settings(
    stage: str, names: Sequence[str] | None = None, *, last: str | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `settings` by one option per setting; what is typed comes as a dict.

    The settings are those of `stage`, or only `names` of them. `last` is another stage that they are for.
    """
    names = fields_of(stage) if names is None else names

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        own = inspect.signature(command, eval_str=True)

        def wrapped(**values: Any) -> None:
            typed = {name: values.pop(name) for name in names}
            command(**values, settings={name: value for name, value in typed.items() if value is not None})

        kept = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for n, p in own.parameters.items() if n != "settings"]
        # --help shows headings in order of first appearance: what a training is about before how it is run
        first = [parameter for parameter in kept if not _panel(parameter)]
        rest = [parameter for parameter in kept if _panel(parameter)]
        options = [_option(name, stage, last) for name in names]
        wrapped.__signature__ = own.replace(parameters=[*first, *options, *rest])  # type: ignore[attr-defined]
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        return wrapped

    return decorate


def _panel(parameter: inspect.Parameter) -> str | None:
    """The heading that a parameter stands under in --help; None for the main one."""
    return next(
        (info.rich_help_panel for info in getattr(parameter.annotation, "__metadata__", ()) if info is not None), None
    )


def _option(name: str, stage: str, last: str | None) -> inspect.Parameter:
    field = FIELDS[name]
    kind, meta = str(field.type), field.metadata
    flag = flag_of(name)
    names = f"{flag}/--no-{flag[2:]}" if kind == "bool" else flag
    python_type: Any = {"int": int, "float": float, "bool": bool}.get(kind.split(" ")[0], str)
    metavar = None
    if name == "skips":
        python_type, metavar = str, "K|dense"
    elif name in SIZES:
        python_type, metavar = str, "SIZE"
    elif name == "device":
        metavar = "auto|cpu|cuda|mps"
    elif meta["choices"]:
        metavar = "|".join(meta["choices"])
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[
            python_type | None,
            typer.Option(
                names,
                metavar=metavar,
                help=f"{meta['help']}{_default(name, stage, last)}",
                rich_help_panel=None if name in _FIRST else meta["panel"],
                show_default=False,
            ),
        ],
    )


def _default(name: str, stage: str, last: str | None) -> str:
    """The default for --help, where it says something, and that of the stage `last` if it is another."""
    default = default_of(name, stage)
    if default is None:
        return ""
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    if name in SIZES:
        shown = f"{default / 1e9:g}GB"
    carried = "the run's, else " if FIELDS[name].metadata["carried"] and stage != TEACH else ""
    differs = last is not None and name in fields_of(last) and default_of(name, last) != default
    retraining = f"; in {last} {default_of(name, last)}" if last is not None and differs else ""
    return f" (default: {carried}{shown}{retraining})"


_FIRST = ("epochs",)
"""Settings among the options that --help shows first."""
