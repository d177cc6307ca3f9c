"""Step 1, teach: fine-tune the whole backbone on the task. Writes RUN/teacher.safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.complexity import untouched_graph
from nettailor_cli.core.data import Batch
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.settings import TEACH, Settings
from nettailor_cli.core.stages.carry_out import Part, carry_out, generator_for, lasting_settings, run_table
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.compiling import Compiled
from nettailor_cli.core.training.precision import to_machine
from nettailor_cli.core.training.taps import go_tapwise
from nettailor_cli.core.training.trainee import Group


@dataclass
class TeachTrainee:
    """Cross-entropy, every parameter (or the classifier's), one rate. Batch norms are decayed as well, as published.

    `compiled` is `module`'s forward in training, where it is given.
    """

    module: Teacher
    settings: Settings
    compiled: Compiled | None = None

    def groups(self) -> list[Group]:
        trained = {name: parameter for name, parameter in self.module.named_parameters() if parameter.requires_grad}
        return [Group(trained, self.settings.lr, self.settings.weight_decay)]

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        logits = (self.compiled or self.module)(batch.images).logits.float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.settings.label_smoothing)
        return {"loss": loss, "accuracy": accuracy(logits, batch.labels)}

    def predict(self, images: Tensor) -> Tensor:
        return self.module(images).logits

    def predict_exactly(self, images: Tensor) -> Tensor:
        return self.predict(images)

    def figures(self) -> dict[str, Any]:
        return {}

    def state(self) -> dict[str, Tensor]:
        return self.module.state()


def accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Top-1 in percent, of one batch."""
    return (logits.detach().argmax(dim=1) == labels).float().mean() * 100


def teach(
    job: Job, backbone: Backbone, settings: Settings, bench: Workbench, part: Part | None = None
) -> ModelDocument:
    """Fine-tune `backbone` on the pictures of `bench` and write the teacher. `part`: as `carry_out` has it."""
    output = job.run.teacher
    if settings.cut is not None:
        if settings.cut > len(backbone.blocks):
            raise UsageError(f"--cut {settings.cut}: {backbone.name} has {len(backbone.blocks)} blocks")
        backbone.cut(settings.cut)
    graph = untouched_graph(backbone, len(bench.dataset.classes))
    teacher = Teacher(backbone, len(bench.dataset.classes), frozen=settings.freeze)
    teacher.start_fresh(generator_for(TEACH, settings.seed))
    to_machine(teacher, bench.machine)
    go_tapwise(teacher, bench.machine)
    compiled = Compiled(teacher, job.progress) if settings.compile else None

    def finish(metrics: dict[str, Any]) -> tuple[ModelDocument, dict[str, Tensor]]:
        document = ModelDocument(
            stage=delta.TEACHER,
            backbone=backbone.name,
            fingerprint=backbone.fingerprint,
            graph=graph,
            classes=bench.dataset.classes,
            preprocessing=backbone.preprocessing,
            student={},
            data=bench.data_document(settings),
            settings={TEACH: lasting_settings(settings, bench, TEACH)},
            metrics={"teacher": metrics} if metrics else {},
        )
        return document, teacher.state()

    return carry_out(
        job, TEACH, output, TeachTrainee(teacher, settings, compiled), bench, settings,
        identity={"backbone": backbone.fingerprint, "preprocessing": backbone.preprocessing.to_json()},
        about=run_table(backbone, bench), finish=finish, part=part,
    )  # fmt: skip
