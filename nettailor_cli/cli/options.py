"""Options that several commands share, each declared once.

The settings of the training stages are declared in `core/settings.py`; `with_settings` makes options of them, in
groups, so that --help shows the few that a first-time user needs first.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.settings import FIELDS, PRESETS, SIZES, TEACH, fields_of, flag_of

Data = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="folder of pictures: DIR/train/CLASS/*.jpg with val/ and test/ if there are, or DIR/CLASS/*.jpg; "
        "or torchvision:NAME, a set that torchvision downloads, e.g. torchvision:flowers102",
        show_default=False,
    ),
]
BackboneName = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        metavar="ARCH[.TAG]",
        help="pretrained network, e.g. resnet18; see: nettailor backbones list (default: the one in the package)",
        show_default=False,
    ),
]
RunPath = Annotated[
    Path | None,
    typer.Option("--run", metavar="RUN", help="run directory (default: runs/<data>-<backbone>)", show_default=False),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        "--weights", metavar="FILE", help="import the backbone from this .pth or .safetensors file", show_default=False
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="|".join(PRESETS),
        help="a set of defaults; paper: the published settings (default: standard)",
        show_default=False,
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        "--size", metavar="PX", help="input size (default: the backbone's own)", min=8, max=4096, show_default=False
    ),
]
Resume = Annotated[
    bool, typer.Option("--resume", help="go on where an interrupted run stopped", rich_help_panel="Running")
]
Force = Annotated[bool, typer.Option("--force", help="replace what is there", rich_help_panel="Running")]
TensorBoard = Annotated[
    bool,
    typer.Option("--tensorboard", help="also write TensorBoard curves to RUN/tensorboard", rich_help_panel="Running"),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE.toml",
        help="settings from a file, e.g. another run's run.toml",
        rich_help_panel="Running",
        show_default=False,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        "--mean",
        metavar="R,G,B",
        help="what the backbone's inputs are normalised with (default: as the weights file says, else ImageNet's)",
        rich_help_panel="Data",
        show_default=False,
    ),
]
Std = Annotated[
    str | None, typer.Option("--std", metavar="R,G,B", rich_help_panel="Data", help="see --mean", show_default=False)
]
TeacherFile = Annotated[
    Path | None,
    typer.Option("--teacher", metavar="FILE", help="teacher to imitate (default: the run's)", show_default=False),
]
NoTeacher = Annotated[bool, typer.Option("--no-teacher", help="train without a teacher's hint")]
LatencyTableFile = Annotated[
    Path | None,
    typer.Option(
        "--latency-table",
        metavar="FILE",
        help="with --cost latency: what benchmark --calibrate wrote (default: this machine is measured)",
        rich_help_panel="Objective",
        show_default=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON document", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print errors and warnings only", rich_help_panel="Output")]
Device = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda|mps", help="where to compute")]
Precision = Annotated[
    str, typer.Option("--precision", metavar="auto|fp32|bf16", help="auto: fp32, the same figures on every machine")
]
Workers = Annotated[
    int, typer.Option("--workers", min=0, max=1024, help="threads that decode pictures (0: one per core)")
]
CacheLimit = Annotated[str, typer.Option("--cache-limit", metavar="SIZE", help=FIELDS["cache_limit"].metadata["help"])]
OutputFile = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="FILE", help="where to write", show_default=False)
]


def home() -> Path:
    """Where backbones, downloaded sets and decoded pictures are kept: $NETTAILOR_HOME, or ~/.nettailor."""
    named = os.environ.get("NETTAILOR_HOME")
    try:
        return Path(named) if named else Path.home() / ".nettailor"
    except RuntimeError as error:
        raise UsageError("there is no home directory", "set NETTAILOR_HOME to a folder") from error


def three_numbers(text: str | None, flag: str) -> tuple[float, ...] | None:
    """ "0.485,0.456,0.406" -> three floats. Raises UsageError."""
    if text is None:
        return None
    try:
        numbers = tuple(float(part) for part in text.strip("[]() ").split(","))
    except ValueError:
        numbers = ()
    if len(numbers) != 3:
        raise UsageError(f"{flag} {text}: three numbers are needed, like 0.485,0.456,0.406")
    return numbers


def with_settings(
    stage: str, names: Sequence[str] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Replace a command's parameter `settings` by one option per setting; what is typed comes as a dict.

    The settings are those of `stage`, or only `names` of them.
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
        options = [_option(name, stage) for name in names]
        wrapped.__signature__ = own.replace(parameters=[*first, *options, *rest])  # type: ignore[attr-defined]
        wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
        return wrapped

    return decorate


def _panel(parameter: inspect.Parameter) -> str | None:
    """The heading that a parameter stands under in --help; None for the main one."""
    return next(
        (info.rich_help_panel for info in getattr(parameter.annotation, "__metadata__", ()) if info is not None), None
    )


def _option(name: str, stage: str) -> inspect.Parameter:
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
                help=f"{meta['help']}{_default(name, stage)}",
                rich_help_panel=None if name in _FIRST else meta["panel"],
                show_default=False,
            ),
        ],
    )


def _default(name: str, stage: str) -> str:
    """The default for --help, where it says something."""
    default = PRESETS["standard"][stage].get(name, FIELDS[name].default)
    if default is None:
        return ""
    shown = {True: "on", False: "off"}[default] if isinstance(default, bool) else default
    if name in SIZES:
        shown = f"{default / 1e9:g}GB"
    carried = "the run's, else " if FIELDS[name].metadata["carried"] and stage != TEACH else ""
    return f" (default: {carried}{shown})"


_FIRST = ("epochs",)
"""Settings among the options that --help shows first."""
