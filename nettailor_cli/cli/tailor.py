"""nettailor tailor"""

from __future__ import annotations

from typing import Any

from nettailor_cli.cli import options, settings_options
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.settings import TAILOR


@settings_options.with_settings(TAILOR)
def tailor(
    *,
    backbone: options.BackboneName = None,
    data: options.Data = None,
    run: options.RunPath = None,
    weights: options.Weights = None,
    teacher: options.TeacherFile = None,
    no_teacher: options.NoTeacher = False,
    latency_table: options.LatencyTableFile = None,
    preset: settings_options.Preset = None,
    size: options.Size = None,
    mean: options.Mean = None,
    std: options.Std = None,
    resume: options.Resume = False,
    force: options.Force = False,
    config: options.Config = None,
    tensorboard: options.TensorBoard = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    settings: dict[str, Any],
) -> None:
    """Learn which blocks your task needs (teaches first if the run has no teacher). Writes RUN/student.safetensors."""
    from nettailor_cli.cli.training import make_job, show_written, training_output

    output = training_output(as_json=as_json, quiet=quiet)
    if teacher is not None and no_teacher:
        raise UsageError("--teacher and --no-teacher: give one of them")
    job = make_job(
        output, data=data, backbone=backbone, run=run, weights=weights, mean=mean, std=std, size=size,
        preset=preset, config=config, settings=settings, resume=resume, force=force, tensorboard=tensorboard,
    )  # fmt: skip
    from nettailor_cli.core.stages.start import start_tailor

    document = start_tailor(job, teacher, no_teacher=no_teacher, latency_table=latency_table)
    show_written(output, document, job.run.student, f"nettailor prune {job.run.student}")
