"""nettailor teach"""

from __future__ import annotations

from typing import Any

from nettailor_cli.cli import options, settings_options
from nettailor_cli.core.settings import TEACH


@settings_options.with_settings(TEACH)
def teach(
    *,
    backbone: options.BackboneName = None,
    data: options.Data = None,
    run: options.RunPath = None,
    weights: options.Weights = None,
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
    """Fine-tune the whole backbone on your pictures: the teacher. Writes RUN/teacher.safetensors."""
    from nettailor_cli.cli.training import make_job, show_written, training_output

    output = training_output(as_json=as_json, quiet=quiet)
    job = make_job(
        output, data=data, backbone=backbone, run=run, weights=weights, mean=mean, std=std, size=size,
        preset=preset, config=config, settings=settings, resume=resume, force=force, tensorboard=tensorboard,
    )  # fmt: skip
    from nettailor_cli.core.stages.start import start_teach

    document = start_teach(job)
    show_written(output, document, job.run.teacher, f"nettailor tailor --run {job.run.path}")
