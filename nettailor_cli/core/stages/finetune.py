"""Step 5, finetune: train what pruning left, with the complexity term switched off. Writes RUN/model.safetensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.settings import FINETUNE, Settings
from nettailor_cli.core.stages.carry_out import Part, carry_out, lasting_settings
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.tailor import make_trainee
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.memory import Memory


def finetune(
    job: Job,
    pruned: ModelDocument,
    student: Student,
    teacher: Teacher | None,
    teacher_digest: str,
    settings: Settings,
    bench: Workbench,
    output: Path,
    part: Part | None = None,
    memory: Memory | None = None,
    afterwards: Callable[[], None] = lambda: None,
) -> ModelDocument:
    """Train `student` (which says `pruned` of itself) under `teacher` and write `output`.

    `part`, `afterwards`: see `carry_out`. `memory`: see `TailorTrainee`.
    """
    trainee = make_trainee(student, teacher, None, settings, bench, job.progress, memory)

    def finish(metrics: dict[str, Any]) -> tuple[ModelDocument, dict[str, Tensor]]:
        own = {**lasting_settings(settings, bench, FINETUNE), "teacher": teacher is not None}
        document = replace(
            pruned,
            stage=delta.MODEL,
            graph=student.attended_graph(),
            data=bench.data_document(settings),
            settings={**pruned.settings, FINETUNE: own},
            metrics={**pruned.metrics, **({delta.MODEL: metrics} if metrics else {})},
        )
        return document, student.task_state()

    identity = {"pruned": pruned.to_json(), "teacher": teacher_digest}
    return carry_out(
        job,
        FINETUNE,
        output,
        trainee,
        bench,
        settings,
        identity=identity,
        finish=finish,
        part=part,
        afterwards=afterwards,
    )
