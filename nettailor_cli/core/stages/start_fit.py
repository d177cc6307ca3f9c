"""From what was asked of `fit` to its search: teacher and student first, where the run has none."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.store import find_by_fingerprint
from nettailor_cli.core.budgets import Budget
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import DataError, UsageError
from nettailor_cli.core.files import check_place, sha256_of
from nettailor_cli.core.models import load_teacher
from nettailor_cli.core.run import refuse_to_overwrite
from nettailor_cli.core.search.choice import Choice, Row, Wanted
from nettailor_cli.core.search.probe import Probe, some
from nettailor_cli.core.settings import FINETUNE, TAILOR, resolve
from nettailor_cli.core.stages.baselines import fine_tuned
from nettailor_cli.core.stages.fit import Plan, Search
from nettailor_cli.core.stages.job import Job, settle_machine
from nettailor_cli.core.stages.start import start_tailor
from nettailor_cli.core.stages.workbench import find_pictures, open_workbench


@dataclass(frozen=True)
class Limits:
    """What was asked for. tolerance: points of val accuracy below the teacher's; None: as a budget allows."""

    tolerance: float | None
    macs: Budget | None = None
    parameters: Budget | None = None
    bytes: Budget | None = None


@dataclass(frozen=True)
class Fitted:
    """The document of what was written, what was chosen and why, everything that was tried, the teacher's accuracy."""

    document: ModelDocument
    choice: Choice
    rows: list[Row]
    teacher_accuracy: float


def start_fit(job: Job, limits: Limits, plan: Plan, *, baselines: bool = False) -> Fitted:
    """`nettailor fit`: writes RUN/model.safetensors, the leanest network within `limits`, or the closest to them.

    With `baselines` the rows hold, beside the candidates, what they are to be compared with (see `stages.baselines`).
    Uses RUN's student if there is one, else tailors one (and teaches, if there is no teacher). Raises UsageError,
    DataError and FileError as the stages do, and DataError when there is nothing to validate on.
    """
    output = job.run.model
    refuse_to_overwrite(output, force=job.force or job.resume)
    check_place(output)
    if job.force:
        for leftover in (job.run.path / "search", job.run.path / "checkpoints"):
            shutil.rmtree(leftover, ignore_errors=True)
    elif (job.run.path / "search").exists() and not job.resume:
        raise UsageError(f"{job.run.path} has an unfinished fit", "--resume goes on with it, --force starts again")
    student_file = job.run.student
    if job.force or not student_file.exists():
        start_tailor(job)
    else:
        job.progress.note(f"student: {student_file}, as it was tailored")
    document, tensors = delta.read(student_file)
    settings = resolve(
        FINETUNE, flags=job.flags, config=job.config, preset=job.preset, carried=document.settings.get(TAILOR, {})
    )
    dataset = find_pictures(job.data_folder(), settings, classes=document.classes)
    if document.data.get("digest") != dataset.digest:
        raise UsageError(
            f"{student_file} was tailored to other pictures or another split", "--force starts again, --run elsewhere"
        )
    machine = settle_machine(job, settings)
    teacher_file = job.run.teacher
    teacher, _ = load_teacher(teacher_file, document.backbone, document.preprocessing, document.classes)
    bench = open_workbench(dataset, settings, document.preprocessing, machine, job.progress)
    if bench.validation is None:
        raise DataError(f"{dataset.root} has nothing to validate on", "more pictures per class, or a val folder")
    backbone = find_by_fingerprint(document.fingerprint, name=document.backbone, home=job.home, progress=job.progress)
    backbone.preprocessing = document.preprocessing
    teacher_accuracy = float(document.metrics["teacher"]["accuracy"])
    wanted = _wanted(document, limits, teacher_accuracy)
    search = Search(
        job=job, student=(document, tensors), teacher=teacher, teacher_digest=sha256_of(teacher_file),
        settings=settings, bench=bench, plan=plan, wanted=wanted,
        probe=Probe(backbone, document, some(bench.training(settings, settings.seed)), machine),
    )  # fmt: skip
    choice, rows = search.go()
    chosen, tensors = delta.read(search.file(choice.row.name))
    fit = {"tolerance": limits.tolerance, **vars(plan), "met": choice.met, "reason": choice.reason}
    chosen = replace(chosen, settings={**chosen.settings, "fit": fit})
    delta.write(output, chosen, tensors)
    if baselines:
        removed = document.graph.last - len(choice.row.blocks)
        rows += [search.unpruned(), search.random(removed), *fine_tuned(job, document, choice.row)]
    return Fitted(chosen, choice, rows, teacher_accuracy)


def _wanted(document: ModelDocument, limits: Limits, teacher_accuracy: float) -> Wanted:
    whole = document.graph.backbone
    return Wanted(
        None if limits.tolerance is None else teacher_accuracy - limits.tolerance,
        macs=limits.macs.limit(whole.macs) if limits.macs else None,
        parameters=limits.parameters.limit(whole.parameters) if limits.parameters else None,
        bytes=limits.bytes.limit(4 * whole.parameters) if limits.bytes else None,
    )
