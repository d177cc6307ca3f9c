"""nettailor prune"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nettailor_cli.cli import options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.output import Output
from nettailor_cli.cli.training import show_written
from nettailor_cli.core.pruning import PROXY_THRESHOLD
from nettailor_cli.core.stages.prune import MACS_SHARE, prune_file


def prune(
    student: Annotated[Path, typer.Argument(metavar="STUDENT", help="what tailor wrote", autocompletion=model_files)],
    remove: Annotated[
        int | None,
        typer.Option(
            "--remove",
            metavar="K",
            help=f"how many blocks to remove (default: what brings the MACs to {MACS_SHARE:.0%})",
            show_default=False,
        ),
    ] = None,
    proxy_threshold: Annotated[
        float, typer.Option("--proxy-threshold", metavar="T", help="proxies with a smaller alpha go")
    ] = PROXY_THRESHOLD,
    output_file: options.OutputFile = None,
    force: options.Force = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Remove what the attention says is unimportant. Writes RUN/pruned.safetensors."""
    output = Output(as_json=as_json, quiet=quiet)
    path = output_file or student.parent / "pruned.safetensors"
    result = prune_file(student, path, remove=remove, proxy_threshold=proxy_threshold, force=force, progress=output)
    if result.chosen:
        cost, backbone = result.document.graph.cost, result.document.graph.backbone
        reached = (
            "which brings"
            if cost.macs <= MACS_SHARE * backbone.macs
            else f"{MACS_SHARE:.0%} is out of reach, this brings"
        )
        output.note(
            f"--remove {result.removed}, {reached} the MACs to {cost.macs / backbone.macs:.0%} of the backbone's"
        )
    show_written(output, result.document, path, f"nettailor finetune {path}")
