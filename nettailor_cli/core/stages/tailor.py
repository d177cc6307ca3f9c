"""Steps 2 and 3, augment and tailor: put proxies beside the frozen blocks and train what is the task's own on Eq. 12.

Writes RUN/student.safetensors. `TailorTrainee` also serves step 5, which is the same with gamma1 = 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.complexity import ExpectedComplexity
from nettailor_cli.core.data import Batch
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.files import write_bytes
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.objective import entropy, hint, warm_up
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.settings import LOGITS, RELATIVE, TAILOR, Settings
from nettailor_cli.core.stages.carry_out import carry_out, generator_for, lasting_settings, run_table
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.latencies import Latencies
from nettailor_cli.core.stages.teach import accuracy
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.student import Activations, Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.compiling import Compiled
from nettailor_cli.core.training.frozen import quick, quick_twin
from nettailor_cli.core.training.memory import Memory
from nettailor_cli.core.training.precision import to_machine
from nettailor_cli.core.training.trainee import Group

AFFINE_LR = 0.1
"""Share of the learning rate for a task's own scales and shifts of the blocks: at all of it the attention collapsed."""

ADAPTER_CLIP = 1.0
"""Length to which gradients of the adapters are shortened: nothing bounds what they add, and a large hint tore them
off."""


@dataclass
class TailorTrainee:
    """Eq. 12 on a student, whose task parameters are all that is trained.

    Without a `teacher` there is no hint; without `complexity` (as in step 5) there is no E[C]. `quick` is `module` on
    copies of its frozen parts that run faster, and what is used in training; the result is measured on `module`.
    `compiled` are the forwards of that student and of `teacher` in training, where they are given. `memory` is for the
    teacher's logits, where the hint has no more of it and other trainings see the same batches.
    """

    module: Student
    teacher: Teacher | None
    complexity: ExpectedComplexity | None
    settings: Settings
    quick: Student | None = None
    compiled: tuple[Compiled, Compiled | None] | None = None
    memory: Memory | None = None

    def groups(self) -> list[Group]:
        named = {name: p for name, p in self.module.named_parameters() if p.requires_grad}
        logits = {name: p for name, p in named.items() if p is self.module.attention.logits}
        in_blocks = {name: p for name, p in named.items() if name.startswith("universal.")}
        affine = {name: p for name, p in in_blocks.items() if p.dim() == 1}
        adapters = {name: p for name, p in in_blocks.items() if p.dim() > 1}
        weights = {name: p for name, p in named.items() if name not in {*logits, *in_blocks}}
        groups = [
            Group(weights, self.settings.lr, self.settings.weight_decay),
            Group(logits, self.settings.logits_lr, 0.0, clip=self.settings.logits_clip),
        ]
        if affine:
            groups.append(Group(affine, AFFINE_LR * self.settings.lr, self.settings.weight_decay))
        if adapters:
            groups.append(Group(adapters, self.settings.lr, self.settings.weight_decay, clip=ADAPTER_CLIP))
        return groups

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        network = self.quick or self.module
        run_student, run_teacher = self.compiled or (network, self.teacher)
        student = run_student(batch.images)
        logits = student.logits.float()
        cross_entropy = F.cross_entropy(logits, batch.labels, label_smoothing=self.settings.label_smoothing)
        # the logits of the attention get a gradient in any case, which DistributedDataParallel waits for
        loss, figures = cross_entropy + 0 * student.alpha.sum(), {"cross_entropy": cross_entropy}
        if self.complexity is not None:
            expected = self.complexity(student.alpha)
            loss = loss + warm_up(self.settings.gamma1, self.settings.gamma1_warmup, done) * expected
            figures["expected_complexity"] = expected
            if self.settings.entropy:
                figures["entropy"] = entropy(student.alpha, len(self.module.graph.nodes))
                loss = loss + warm_up(self.settings.entropy, 1.0, done) * figures["entropy"]
        if run_teacher is not None:
            omega = self._hint(batch, network, student, run_teacher)
            loss = loss + self.settings.gamma2 * omega
            figures["hint"] = omega
        return {"loss": loss, "accuracy": accuracy(logits, batch.labels), **figures}

    def _hint(
        self, batch: Batch, network: Student, student: Activations, run_teacher: Callable[[Tensor], Activations]
    ) -> Tensor:
        """Omega, see `objective.hint`."""
        weights = self.settings.hint_weights
        if weights == LOGITS:

            def logits() -> Tensor:
                with torch.no_grad():
                    return run_teacher(batch.images).logits

            wanted = logits() if self.memory is None else self.memory.recall(batch.place, logits)
            return hint(student.nodes, student.logits, None, wanted, weights=weights)
        with torch.no_grad():
            teacher = run_teacher(batch.images)
        return hint(
            network.local_nodes(student) if self.settings.hint == "block-local" else student.nodes,
            student.logits,
            [x for x in teacher.nodes if x is not None],
            teacher.logits,
            relative=self.settings.hint_scale == RELATIVE,
            weights=weights,
        )

    def predict(self, images: Tensor) -> Tensor:
        return (self.quick or self.module)(images).logits

    def predict_exactly(self, images: Tensor) -> Tensor:
        return self.module(images).logits

    def figures(self) -> dict[str, Any]:
        return {"alpha": {path.name: round(path.alpha, 4) for path in self.module.attended_graph().paths}}

    def state(self) -> dict[str, Tensor]:
        return self.module.task_state()


def make_trainee(
    student: Student,
    teacher: Teacher | None,
    complexity: ExpectedComplexity | None,
    settings: Settings,
    bench: Workbench,
    progress: Progress,
    memory: Memory | None = None,
) -> TailorTrainee:
    """Student, teacher and E[C] on the machine, ready to train."""
    for module in (student, teacher, complexity):
        if module is not None:
            to_machine(module, bench.machine)
    if teacher is not None:
        quick(teacher, bench.machine)
    twin = quick_twin(student, bench.machine)
    compiled = None
    if settings.compile:
        compiled = Compiled(twin, progress), None if teacher is None else Compiled(teacher, progress)
    return TailorTrainee(student, teacher, complexity, settings, twin, compiled, memory)


def tailor(
    job: Job,
    backbone: Backbone,
    graph: Graph,
    latencies: Latencies | None,
    teacher: Teacher | None,
    teacher_document: ModelDocument | None,
    teacher_digest: str,
    settings: Settings,
    bench: Workbench,
) -> ModelDocument:
    """Make a student of `backbone` with the fresh `graph`, tailor it under `teacher` (None: without hint), write it.

    `latencies` are those that the graph carries; the run keeps their table. `teacher_document` is what the teacher's
    file says of itself, if it is one of ours; `teacher_digest` tells teachers apart, so that no other one goes on with
    this one's work.
    """
    output = job.run.student
    classes = bench.dataset.classes
    shaping = {name: getattr(settings, name) for name in delta.SHAPING}
    student = Student(backbone, graph, len(classes), **shaping)
    student.start_fresh(
        generator_for(TAILOR, settings.seed), proxy_start=settings.proxy_start, logits_lead=settings.logits_lead
    )
    complexity = ExpectedComplexity(student.graph, exclusion=settings.exclusion, cost=settings.cost)
    trainee = make_trainee(student, teacher, complexity, settings, bench, job.progress)
    table = {} if latencies is None else {"latency_table": latencies.to_json()}
    digest = {} if latencies is None else {"latency_table": latencies.digest}

    def finish(metrics: dict[str, Any]) -> tuple[ModelDocument, dict[str, Tensor]]:
        earlier = teacher_document
        document = ModelDocument(
            stage=delta.STUDENT,
            backbone=backbone.name,
            fingerprint=backbone.fingerprint,
            graph=student.attended_graph(),
            classes=classes,
            preprocessing=backbone.preprocessing,
            student={**shaping, "shared_prefix": settings.shared_prefix},
            data=bench.data_document(settings),
            settings={
                **(earlier.settings if earlier else {}),
                TAILOR: {**lasting_settings(settings, bench, TAILOR), "teacher": teacher is not None, **table},
            },
            metrics={**(earlier.metrics if earlier else {}), **({"student": metrics} if metrics else {})},
            environment=earlier.environment if earlier else {},
        )
        return document, student.task_state()

    identity = {
        "backbone": backbone.fingerprint,
        "preprocessing": backbone.preprocessing.to_json(),
        "teacher": teacher_digest,
        **digest,
    }
    if latencies is not None and not (job.resume and job.run.checkpoint(TAILOR, output).exists()):
        # a run that is gone on with has its own already
        table_file, data = job.run.latencies, latencies.data
        job.processes.alone(lambda: write_bytes(table_file, data))
    return carry_out(
        job,
        TAILOR,
        output,
        trainee,
        bench,
        settings,
        identity=identity,
        about={**run_table(backbone, bench), **digest},
        finish=finish,
    )
