"""What the training commands have in common: from options to a Job, and the summary at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from nettailor_cli.cli import processes
from nettailor_cli.cli.inspect import show_summary, summary_document
from nettailor_cli.cli.options import home, three_numbers
from nettailor_cli.cli.output import Output
from nettailor_cli.cli.signals import StopRequest
from nettailor_cli.core.backbones.catalog import parse_name
from nettailor_cli.core.backbones.embedded import DEFAULT
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.run import RunDirectory

if TYPE_CHECKING:
    from nettailor_cli.core.delta import ModelDocument
    from nettailor_cli.core.stages.job import Job


def training_output(*, as_json: bool, quiet: bool) -> Output:
    """The Output of a training command; where torchrun started several processes, only the first one's says anything.

    First of all, so that whatever goes wrong is told once. Raises as `processes.join` does.
    """
    output = Output(as_json=as_json, quiet=quiet)
    if not processes.join().is_main:
        output.silence()
    return output


def make_job(
    output: Output,
    *,
    data: Path | None,
    backbone: str | None,
    run: Path | None,
    resume: bool,
    force: bool,
    settings: dict[str, Any],
    preset: str | None,
    config: Path | None,
    weights: Path | None = None,
    mean: str | None = None,
    std: str | None = None,
    size: int | None = None,
    tensorboard: bool = False,
) -> Job:
    """The Job that was typed. Raises UsageError for what can't be."""
    from nettailor_cli.core.data.torchvision_sets import set_name
    from nettailor_cli.core.stages.job import Job

    if resume and force:
        raise UsageError("--resume goes on and --force starts again: give one of them")
    if run is None:
        if data is None:
            raise UsageError("--data DIR is missing", "or name a run that has it already: --run RUN")
        run = Path("runs") / f"{set_name(data) or data.resolve().name}-{parse_name(backbone or DEFAULT).as_file}"
    return Job(
        run=RunDirectory(run),
        home=home(),
        progress=output,
        stop=StopRequest(),
        data=data,
        backbone=backbone,
        weights=weights,
        mean=three_numbers(mean, "--mean"),
        std=three_numbers(std, "--std"),
        size=size,
        flags=settings,
        preset=preset,
        config=config,
        resume=resume,
        force=force,
        tensorboard=tensorboard,
        processes=processes.joined(),
    )


def show_written(output: Output, document: ModelDocument, path: Path, next_step: str) -> None:
    """The result of a stage: what was written, its figures, and what to type next."""

    def show(console: Console) -> None:
        show_summary(console, document)
        console.print(f"wrote {path}", soft_wrap=True)

    output.result({"file": str(path), **summary_document(document)}, show)
    if not output.as_json and not output.quiet:
        output.note(f"next: {next_step}")
