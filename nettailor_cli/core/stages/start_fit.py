"""From what was asked of `fit` to its search: teacher and student first, where the run has none."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.store import find_by_fingerprint
from nettailor_cli.core.budgets import Budget
from nettailor_cli.core.data.splits import folds as possible_folds
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.drawing import candidates
from nettailor_cli.core.drawing.run_pictures import write_pictures
from nettailor_cli.core.errors import DataError, UsageError
from nettailor_cli.core.files import check_place, sha256_of
from nettailor_cli.core.models import load_teacher
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite
from nettailor_cli.core.search.choice import Choice, Row, Wanted
from nettailor_cli.core.search.probe import Probe, some
from nettailor_cli.core.settings import FINETUNE, TAILOR, resolve
from nettailor_cli.core.stages.baselines import fine_tuned
from nettailor_cli.core.stages.candidate import Fold
from nettailor_cli.core.stages.fit import Plan, Search
from nettailor_cli.core.stages.job import Job, settle_machine
from nettailor_cli.core.stages.start import start_tailor
from nettailor_cli.core.stages.workbench import find_pictures, open_workbench

FOLDS = 3
"""Of cross-validation, where the tolerance is less than two pictures of val."""


@dataclass(frozen=True)
class Limits:
    """What was asked for. tolerance: points of val accuracy below the teacher's; None: as a budget allows."""

    tolerance: float | None
    macs: Budget | None = None
    parameters: Budget | None = None
    bytes: Budget | None = None
    latency: Budget | None = None


@dataclass(frozen=True)
class Fitted:
    """What was written and says of itself, what was chosen and why, all that was tried, the teacher's accuracy.

    The accuracies are over all `folds`.
    """

    document: ModelDocument
    choice: Choice
    rows: list[Row]
    teacher_accuracy: float
    folds: int


def start_fit(
    job: Job,
    limits: Limits,
    plan: Plan,
    *,
    folds: int = 0,
    baselines: bool = False,
    latency_table: Path | None = None,
) -> Fitted:
    """`nettailor fit`: writes RUN/model.safetensors, the leanest network within `limits`, or the closest to them.

    Beside it architecture.svg and candidates.svg, and as .png, are its pictures.

    Uses RUN's student if there is one, else tailors one (and teaches, if there is no teacher). `folds`: for
    cross-validation, each in RUN/folds/N; 0: as many as the number of val pictures asks for. With `baselines` the rows
    hold, beside the candidates, what they are to be compared with (see `stages.baselines`). Raises UsageError,
    DataError and FileError as the stages do, and DataError when there is nothing to validate on.
    """
    most = possible_folds(resolve(FINETUNE, flags=job.flags, config=job.config, preset=job.preset).val_fraction)
    if folds > most:
        raise UsageError(f"--folds {folds}: there are {most} parts of the size of val", "a smaller --val-fraction")
    output = job.run.model
    refuse_to_overwrite(output, force=job.force or job.resume)
    check_place(output)
    if job.force:
        for leftover in ("search", "checkpoints", "folds", "baselines"):
            shutil.rmtree(job.run.path / leftover, ignore_errors=True)
    elif (job.run.path / "search").exists() and not job.resume:
        raise UsageError(f"{job.run.path} has an unfinished fit", "--resume goes on with it, --force starts again")
    first = _fold(job, latency_table)
    if limits.latency and first.student[0].graph.backbone.latency is None:
        raise UsageError(
            f"--max-latency: {job.run.student} was not tailored for latency",
            "--cost latency, and --force if it is there",
        )
    wanted_folds = _number_of_folds(first, limits, folds)
    table = latency_table or (job.run.latencies if job.run.latencies.exists() else None)
    others = [_fold(_job_of_fold(first, number), table) for number in range(1, wanted_folds)]
    search = Search([first, *others], plan, _wanted([first, *others], limits))
    choice, rows = search.go()
    chosen, tensors = delta.read(first.file(choice.row.name))
    fit = {"tolerance": limits.tolerance, "folds": wanted_folds, **vars(plan), "met": choice.met}
    chosen = replace(chosen, settings={**chosen.settings, "fit": fit})
    delta.write(output, chosen, tensors)
    if baselines:
        student = first.student[0]
        removed = student.graph.last - len(choice.row.blocks)
        rows += [search.unpruned(), search.random(removed), *fine_tuned(job, student, choice.row)]
    fitted = Fitted(chosen, choice, rows, _teacher_accuracy([first, *others]), wanted_folds)
    write_pictures(job.run.path, chosen, _drawn(fitted), job.progress, tolerance=limits.tolerance)
    return fitted


def _drawn(fitted: Fitted) -> list[candidates.Row]:
    """The rows as they are drawn; what was given up halfway is not."""
    whole = fitted.document.graph.backbone
    drawn = [candidates.Row("teacher", candidates.TEACHER, 100.0, fitted.teacher_accuracy)]
    for row in fitted.rows:
        if not row.given_up:
            kind = candidates.CHOSEN if row == fitted.choice.row else row.kind
            drawn.append(candidates.Row(row.name, kind, 100 * row.macs / whole.macs, row.accuracy, row.standard_error))
    return drawn


def _fold(job: Job, latency_table: Path | None) -> Fold:
    """What the search needs of one run directory; the teacher and the student are made where there is none."""
    student_file, teacher_file = job.run.student, job.run.teacher
    if job.force or not student_file.exists():
        start_tailor(job, latency_table=latency_table)
    else:
        job.progress.note(f"student: {student_file}, as it was tailored")
    document, tensors = delta.read(student_file)
    carried = document.settings.get(TAILOR, {})
    settings = resolve(FINETUNE, flags=job.flags, config=job.config, preset=job.preset, carried=carried)
    dataset = find_pictures(job.data_folder(), settings, classes=document.classes)
    if document.data.get("digest") != dataset.digest:
        raise UsageError(
            f"{student_file} was tailored to other pictures or another split", "--force starts again, --run elsewhere"
        )
    if "val" not in dataset.splits or "teacher" not in document.metrics:
        raise DataError(f"{dataset.root} has nothing to validate on", "more pictures per class, or a val folder")
    machine = settle_machine(job, settings)
    teacher, _ = load_teacher(teacher_file, document.backbone, document.preprocessing, document.classes)
    bench = open_workbench(dataset, settings, document.preprocessing, machine, job.progress, job.home)
    backbone = find_by_fingerprint(document.fingerprint, name=document.backbone, home=job.home, progress=job.progress)
    backbone.preprocessing = document.preprocessing
    return Fold(
        job=job,
        student=(document, tensors),
        teacher=teacher,
        teacher_digest=sha256_of(teacher_file),
        settings=settings,
        bench=bench,
        probe=Probe(backbone, document, some(bench.training(settings, settings.seed)), machine),
    )


def _number_of_folds(first: Fold, limits: Limits, folds: int) -> int:
    images = first.student[0].metrics["teacher"]["images"]
    if folds or limits.tolerance is None or limits.tolerance * images / 100 >= 2:
        return folds or 1
    folds = min(FOLDS, possible_folds(first.settings.val_fraction))
    first.job.progress.note(
        f"cross-validation with {folds} folds: a tolerance of {limits.tolerance:g} points is less than two of val's "
        f"{images} pictures (--folds 1 does without)"
    )
    return folds


def _job_of_fold(first: Fold, number: int) -> Job:
    """The job that does the same with another part of the pictures as val, in RUN/folds/`number`."""
    job, document = first.job, first.student[0]
    given = document.preprocessing
    return replace(
        job, run=RunDirectory(job.run.path / "folds" / str(number)), backbone=document.backbone, weights=None,
        mean=given.mean, std=given.std, size=given.size, data=job.data_folder(), resume=True, force=False,
        flags={**job.flags, "fold": number, "shared_prefix": document.shared_prefix},
    )  # fmt: skip


def _teacher_accuracy(folds: list[Fold]) -> float:
    metrics = [fold.student[0].metrics["teacher"] for fold in folds]
    return sum(m["accuracy"] * m["images"] for m in metrics) / sum(m["images"] for m in metrics)


def _wanted(folds: list[Fold], limits: Limits) -> Wanted:
    whole = folds[0].student[0].graph.backbone
    return Wanted(
        None if limits.tolerance is None else _teacher_accuracy(folds) - limits.tolerance,
        macs=limits.macs.limit(whole.macs) if limits.macs else None,
        parameters=limits.parameters.limit(whole.parameters) if limits.parameters else None,
        bytes=limits.bytes.limit(4 * whole.parameters) if limits.bytes else None,
        latency=1e6 * limits.latency.limit((whole.latency or 0.0) / 1e6) if limits.latency else None,
    )
