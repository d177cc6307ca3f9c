"""Options that several commands share, each declared once. Those that are settings: settings_options.py."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from nettailor_cli.core.errors import UsageError

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
