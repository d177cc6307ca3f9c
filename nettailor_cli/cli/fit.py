"""nettailor fit"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nettailor_cli.cli import options, settings_options
from nettailor_cli.core.errors import GateNotMet
from nettailor_cli.core.presets import QUICK
from nettailor_cli.core.search.asked import AIMS, RANKINGS, SEARCHES, TEACHER, TOLERANCE, Asked, Plan
from nettailor_cli.core.settings import FINETUNE, SHARED, TAILOR

if TYPE_CHECKING:
    from nettailor_cli.core.stages.start_fit import Fitted


@settings_options.with_settings(TAILOR, SHARED, last=FINETUNE)
def fit(
    *,
    backbone: options.BackboneName = None,
    data: options.Data = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            metavar="POINTS",
            help=f"how far its val accuracy may be below the teacher's (default: {TOLERANCE}; with a budget: any)",
            min=0,
            max=100,
            show_default=False,
        ),
    ] = None,
    aim: Annotated[
        str | None,
        typer.Option(
            "--aim",
            metavar="|".join(AIMS),
            help="the tolerance is below the teacher's accuracy, or the unpruned student's where that is better "
            f"(default: {TEACHER})",
            show_default=False,
        ),
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N|P%", help="at most so many MACs: 900M, 40%")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", metavar="N|P%", help="at most so many parameters: 4M, 30%")
    ] = None,
    max_bytes: Annotated[
        str | None,
        typer.Option("--max-bytes", metavar="SIZE|P%", help="at most so many bytes, delta and blocks in use: 8MB, 30%"),
    ] = None,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            metavar="TIME|P%",
            help="at most so long: 12ms, 40%; the sum of the parts' measured times, needs --cost latency",
        ),
    ] = None,
    run: options.RunPath = None,
    weights: options.Weights = None,
    preset: settings_options.Preset = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    ranking: Annotated[
        str | None,
        typer.Option(
            "--ranking",
            metavar="|".join(RANKINGS),
            help="which block goes next: by alpha, or by the loss without it; -cost: per MAC saved "
            f"(default: {Plan.ranking})",
            show_default=False,
            rich_help_panel="Search",
        ),
    ] = None,
    proxy_threshold: Annotated[
        float | None,
        typer.Option(
            "--proxy-threshold",
            metavar="T",
            help=f"proxies with a smaller alpha go (default: {Plan.proxy_threshold})",
            min=0,
            max=1,
            show_default=False,
            rich_help_panel="Search",
        ),
    ] = None,
    search: Annotated[
        str | None,
        typer.Option(
            "--search",
            metavar="|".join(SEARCHES),
            help="block by block, full trainings around the edge; or one full training for every number of blocks "
            f"(default: {Plan.search})",
            show_default=False,
            rich_help_panel="Search",
        ),
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(
            "--folds",
            metavar="N",
            help="cross-validation: N networks of each, on other val pictures (default: 3 where the tolerance is less "
            f"than two of val's pictures, there is no val folder, and the preset isn't {QUICK}; else 1)",
            min=1,
            show_default=False,
            rich_help_panel="Search",
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option(
            "--baselines",
            help="also train what it is to be compared with: everything, the classifier alone, the backbone cut short, "
            "random blocks",
            rich_help_panel="Search",
        ),
    ] = False,
    latency_table: options.LatencyTableFile = None,
    resume: options.Resume = False,
    force: options.Force = False,
    config: options.Config = None,
    tensorboard: options.TensorBoard = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    settings: dict[str, Any],
) -> None:
    """The whole procedure: the leanest network within the tolerance. Writes RUN/model.safetensors."""
    from nettailor_cli.cli.inspect import show_summary, summary_document
    from nettailor_cli.cli.training import make_job, training_output

    output = training_output(as_json=as_json, quiet=quiet)
    asked = Asked(
        tolerance=tolerance, aim=aim, max_macs=max_macs, max_params=max_params, max_bytes=max_bytes,
        max_latency=max_latency, folds=folds, search=search, ranking=ranking, proxy_threshold=proxy_threshold,
        preset=preset, config=None if config is None else str(config), flags=settings,
    )  # fmt: skip
    job = make_job(
        output, data=data, backbone=backbone, run=run, weights=weights, mean=mean, std=std, size=size,
        preset=preset, config=config, settings=settings, resume=resume, force=force, tensorboard=tensorboard,
    )  # fmt: skip
    from nettailor_cli.core.stages.start_fit import start_fit

    fitted = start_fit(job, asked, baselines=baselines, latency_table=latency_table)
    path = job.run.model
    rows = [row.to_json() for row in fitted.rows]

    def show(console: Console) -> None:
        console.print(_table(fitted))
        console.print(fitted.choice.reason, soft_wrap=True)
        show_summary(console, fitted.document)
        console.print(f"wrote {path}", soft_wrap=True)

    result = {
        "file": str(path),
        "chosen": fitted.choice.row.name,
        "met": fitted.choice.met,
        "reason": fitted.choice.reason,
        "folds": fitted.folds,
        "teacher_accuracy": fitted.teacher_accuracy,
        "candidates": rows,
        **summary_document(fitted.document),
    }
    output.result(result, show)
    if not fitted.choice.met:
        raise GateNotMet(fitted.choice.reason, f"{path} holds it; allow more, or train longer (--preset, --config)")


def _table(fitted: Fitted) -> Table:
    """All that was tried, from the largest to the leanest, after the teacher and before what it is compared with."""
    whole = fitted.document.graph.backbone
    table = Table(box=None, pad_edge=False)
    for name in ("tried", "val accuracy", "MACs", "parameters", "blocks kept", "epochs"):
        table.add_column(name, justify="left" if name in ("tried", "blocks kept") else "right")
    table.add_row("teacher", f"{fitted.teacher_accuracy:.2f} %", "100 %", "100 %", "all", "")
    for row in fitted.rows:
        chosen = " <" if row.name == fitted.choice.row.name else ""
        table.add_row(
            row.name + chosen,
            f"{row.accuracy:.2f} ± {row.standard_error:.2f} %" + (" (given up)" if row.given_up else ""),
            f"{100 * row.macs / whole.macs:.0f} %",
            f"{100 * row.parameters / whole.parameters:.0f} %",
            " ".join(map(str, row.blocks)) or "none",
            f"{row.epochs:.0f}",
        )
    return table
