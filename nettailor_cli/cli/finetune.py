"""nettailor finetune"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from nettailor_cli.cli import options, settings_options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.settings import FINETUNE


@settings_options.with_settings(FINETUNE)
def finetune(
    *,
    pruned: Annotated[Path, typer.Argument(metavar="PRUNED", help="what prune wrote", autocompletion=model_files)],
    output_file: options.OutputFile = None,
    run: options.RunPath = None,
    data: options.Data = None,
    teacher: options.TeacherFile = None,
    no_teacher: options.NoTeacher = False,
    preset: settings_options.Preset = None,
    resume: options.Resume = False,
    force: options.Force = False,
    config: options.Config = None,
    tensorboard: options.TensorBoard = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    settings: dict[str, Any],
) -> None:
    """Retrain what pruning left, without the complexity term. Writes RUN/model.safetensors."""
    from nettailor_cli.cli.training import make_job, show_written, training_output

    output = training_output(as_json=as_json, quiet=quiet)
    if teacher is not None and no_teacher:
        raise UsageError("--teacher and --no-teacher: give one of them")
    job = make_job(
        output, data=data, backbone=None, run=run or pruned.parent, preset=preset, config=config, settings=settings,
        resume=resume, force=force, tensorboard=tensorboard,
    )  # fmt: skip
    from nettailor_cli.core.stages.start import start_finetune

    path = output_file or job.run.model
    document = start_finetune(job, pruned, path, teacher, no_teacher=no_teacher)
    show_written(output, document, path, f"nettailor evaluate {path} --data DIR")
