"""From what was asked of `fit` to its search: teacher and student first, where the run has none."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.store import find, find_by_fingerprint
from nettailor_cli.core.data import Dataset
from nettailor_cli.core.data.splits import folds as possible_folds
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.drawing import candidates
from nettailor_cli.core.drawing.run_pictures import write_pictures
from nettailor_cli.core.errors import DataError, FileError, UsageError
from nettailor_cli.core.files import check_place, sha256_of
from nettailor_cli.core.models import load_teacher
from nettailor_cli.core.presets import QUICK, resolve
from nettailor_cli.core.progress import PartOf
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite
from nettailor_cli.core.search.asked import Asked, remembered
from nettailor_cli.core.search.choice import Choice, Row, Wanted, standard_error
from nettailor_cli.core.search.probe import Probe, some
from nettailor_cli.core.settings import FINETUNE, TAILOR, TEACH, completed, fields_of, flag_of, lengthened, to_document
from nettailor_cli.core.stages.baselines import fine_tuned
from nettailor_cli.core.stages.candidate import Fold, MadeOtherwise
from nettailor_cli.core.stages.fit import Search
from nettailor_cli.core.stages.job import Job, settle_machine
from nettailor_cli.core.stages.start import bench_for, refuse_to_price, start_tailor, start_teach, teacher_settings
from nettailor_cli.core.stages.trials import UNPRUNED, accuracy_together
from nettailor_cli.core.stages.workbench import find_pictures

FOLDS = 3
"""Of cross-validation, where the tolerance is less than two pictures of val."""

_PASSING = ("device", "precision", "workers", "cache_limit", "memory_limit", "seed", "hint_weights")
"""Settings that may differ from the student's, or (the seed) are told by the split; retraining has its own hint."""


@dataclass(frozen=True)
class Fitted:
    """What was written and says of itself, what was chosen and why, all that was tried, the teacher's accuracy.

    The accuracies are over all `folds`, but for the baselines that are fine-tuned: those are the first fold's.
    """

    document: ModelDocument
    choice: Choice
    rows: list[Row]
    teacher_accuracy: float
    folds: int


def start_fit(job: Job, asked: Asked, *, baselines: bool = False, latency_table: Path | None = None) -> Fitted:
    """`nettailor fit`: writes RUN/model.safetensors, the leanest network that is good enough, or the closest to it.

    Beside it architecture.svg and candidates.svg, and as .png, are its pictures. Uses RUN's student if there is one,
    else tailors one (and teaches, if there is no teacher). Cross-validation takes place in RUN/folds/N. The rows hold
    the unpruned student, and with `baselines` what else they are to be compared with (see `stages.baselines`). With
    `job.resume` what is not typed is as the run remembers it. Raises UsageError, DataError and FileError as the stages
    do, and DataError when there is nothing to validate on.
    """
    with job.holding() as held:
        return _fit(held, asked, baselines=baselines, latency_table=latency_table)


def _fit(job: Job, asked: Asked, *, baselines: bool, latency_table: Path | None) -> Fitted:
    if job.resume:
        asked = remembered(asked, job.run.read().get("fit", {}))
    asked.check_aim()
    config = None if asked.config is None else Path(asked.config)
    job = replace(job, preset=asked.preset, config=config, flags=asked.flags)
    dataset = _check(job, asked)
    if job.force:
        job.processes.alone(lambda: _forget(job.run))
    with _as_it_was_if_refused(job):
        job.processes.alone(lambda: job.run.record({"fit": asked.to_toml()}))
        first = _fold(job, dataset, latency_table)
        _check_costs(first, asked)
        numbers = _folds_beside(first, asked)
        table = latency_table or (job.run.latencies if job.run.latencies.exists() else None)
        folds = [first, *(_another(first, number, table) for number in numbers)]
        for fold in folds:
            fold.memory.limit //= len(folds)
        search = Search(folds, asked.plan, _wanted(folds, asked))
        choice, rows = search.go()
    chosen, tensors = delta.read(first.file(choice.row.name))
    told = {
        "tolerance": asked.accuracy_matters,
        "aim": None if asked.accuracy_matters is None else asked.aims_at,
        "folds": len(folds),
        **vars(asked.plan),
        "met": choice.met,
    }
    chosen = replace(chosen, settings={**chosen.settings, "fit": told})
    job.check_lock()
    job.processes.alone(lambda: delta.write(job.run.model, chosen, tensors))
    rows.append(search.trials.unpruned())
    if baselines:
        rows.append(search.random(len(choice.row.blocks)))
    for fold in folds:
        fold.memory.forget()
    if baselines:
        rows += fine_tuned(first, choice.row)
    search.trials.record(rows)
    fitted = Fitted(chosen, choice, rows, _accuracy(folds, delta.TEACHER), len(folds))
    if job.processes.is_main:
        write_pictures(
            job.run.path,
            chosen,
            _drawn(fitted),
            job.progress,
            tolerance=asked.accuracy_matters,
            aims_at=asked.aims_at,
        )
    return fitted


@contextlib.contextmanager
def _as_it_was_if_refused(job: Job) -> Iterator[None]:
    """What was typed and does not go with what is there is not remembered for the next --resume."""
    before = job.run.read()
    try:
        yield
    except (UsageError, MadeOtherwise):
        if job.processes.is_main:
            job.run.record({name: before.get(name, {}) for name in ("fit", FINETUNE)})
        raise


# before anything is written


def _check(job: Job, asked: Asked) -> Dataset:
    """The pictures; everything that can be refused at once is."""
    output, searched = job.run.model, job.run.path / "search"
    if not job.force:
        if output.exists() and not (job.resume and "fit" in delta.read_document(output).settings):
            refuse_to_overwrite(output, force=False)
        if searched.exists() and not job.resume:
            raise UsageError(f"{job.run.path} has an unfinished fit", "--resume goes on with it, --force starts again")
    check_place(output)
    student = None if job.force or not job.run.student.exists() else delta.read_document(job.run.student)
    carried = teacher_settings(job, None) if student is None else student.settings.get(TAILOR, {})
    stages = [resolve(stage, flags=job.flags, config=job.config, preset=job.preset) for stage in (TEACH, TAILOR)]
    settings = resolve(FINETUNE, flags=job.flags, config=job.config, preset=job.preset, carried=carried)
    if student is None:
        refuse_to_price(stages[1])
    if student is None and asked.max_latency is not None and stages[1].cost != "latency":
        raise UsageError("--max-latency needs a student that is tailored for latency", "--cost latency")
    most = possible_folds(settings.val_fraction)
    if asked.folds is not None and asked.folds > most:
        raise UsageError(
            f"--folds {asked.folds}: there are {most} parts of the size of val", "a smaller --val-fraction"
        )
    dataset = find_pictures(job.data_folder(), settings, classes=None if student is None else student.classes)
    if "val" not in dataset.splits:
        raise DataError(f"{dataset.root} has nothing to validate on", "more pictures per class, or a val folder")
    if student is not None:
        _refuse_another(job, student, dataset)
    return dataset


def _refuse_another(job: Job, student: ModelDocument, dataset: Dataset) -> None:
    """Raises UsageError when what was typed is not what RUN's student is: it would change nothing."""
    tailored = completed(student.settings.get(TAILOR, {}), TAILOR)
    if tailored.get("teacher") is False:
        raise UsageError(f"{job.run.student} was tailored without a teacher", "fit measures itself by the teacher")
    if not job.run.teacher.exists():
        raise UsageError(f"there is no teacher at {job.run.teacher}", "--force starts again")
    different = []
    if student.data.get("digest") != dataset.digest:
        different.append("other pictures or another split")
    if delta.read_document(job.run.teacher).metrics.get("teacher") != student.metrics.get("teacher"):
        different.append("another teacher")
    if job.backbone is not None and job.backbone.lower() not in (student.backbone, student.backbone.split(".")[0]):
        different.append("another backbone")
    elif job.weights is not None:
        with job.processes.main_first():
            named = find(student.backbone, home=job.home, weights=job.weights, progress=job.progress)
        different += [] if named.fingerprint == student.fingerprint else ["another backbone"]
    given = student.preprocessing
    for flag, typed, own in (
        ("--size", job.size, given.size),
        ("--mean", job.mean, given.mean),
        ("--std", job.std, given.std),
    ):
        different += [] if typed is None or typed == own else [f"another {flag}"]
    defaults, settings = (to_document(resolve(TAILOR, flags=flags), TAILOR) for flags in ({}, job.flags))
    for name in job.flags:
        if name in settings and name not in _PASSING and settings[name] != tailored.get(name, defaults[name]):
            different.append(f"another {flag_of(name)}")
    if different:
        raise UsageError(f"{job.run.student} was tailored with {', '.join(different)}", "--force tailors again")


def _forget(run: RunDirectory) -> None:
    """What --force starts again from nothing; the teacher stays if it fits."""
    for leftover in ("search", "checkpoints", "folds", "baselines"):
        if (run.path / leftover).exists():
            shutil.rmtree(run.path / leftover)
    for file in (run.student, run.pruned, run.model):
        file.unlink(missing_ok=True)


# folds


def _fold(job: Job, dataset: Dataset, latency_table: Path | None) -> Fold:
    """What the search needs of one run directory; the teacher and the student are made where there is none."""
    student_file, teacher_file = job.run.student, job.run.teacher
    if student_file.exists():
        job.progress.note(f"student: {student_file}, as it was tailored")
    else:
        start_tailor(job, latency_table=latency_table)
    document, tensors = delta.read(student_file)
    carried = document.settings.get(TAILOR, {})
    settings = resolve(FINETUNE, flags=job.flags, config=job.config, preset=job.preset, carried=carried)
    settings = lengthened(settings, len(dataset.splits["train"]))
    job.processes.alone(lambda: job.run.record({FINETUNE: to_document(settings, FINETUNE)}))
    if document.data.get("digest") != dataset.digest:
        raise UsageError(f"{student_file} was tailored to other pictures or another split", "--force starts again")
    machine = settle_machine(job, settings)
    teacher, _ = load_teacher(teacher_file, document.backbone, document.preprocessing, document.classes)
    bench = bench_for(job, dataset, settings, document.preprocessing, machine)
    if bench.validation is None:
        raise DataError(f"no val picture of {dataset.root} can be read", "repair some of them")
    with job.processes.main_first():
        home, progress = job.home, job.progress
        backbone = find_by_fingerprint(document.fingerprint, name=document.backbone, home=home, progress=progress)
    backbone.preprocessing = document.preprocessing
    return Fold(
        job=job,
        student=(document, tensors),
        student_digest=sha256_of(student_file),
        teacher=teacher,
        teacher_digest=sha256_of(teacher_file),
        settings=settings,
        bench=bench,
        probe=Probe(backbone, document, some(bench.training(settings, settings.seed)), machine),
    )


def _folds_beside(first: Fold, asked: Asked) -> list[int]:
    """The numbers of the other folds. By default none, or so many that the tolerance is more than chance."""
    dataset, settings, note = first.bench.dataset, first.settings, first.job.progress.note
    wanted = asked.folds
    if wanted is None:
        images = first.images
        tolerance = asked.accuracy_matters
        if tolerance is None or tolerance * images / 100 >= 2:
            return []
        why = f"a tolerance of {tolerance:g} points is less than two of val's {images} pictures"
        if (dataset.root / "val").is_dir():
            note(f"no cross-validation, though {why}: there is a val folder (--folds {FOLDS} mixes it with train)")
            return []
        if asked.preset == QUICK:
            note(f"no cross-validation with --preset {QUICK}, though {why} (--folds {FOLDS})")
            return []
        wanted = FOLDS
        note(f"cross-validation with up to {wanted} folds: {why} (--folds 1 does without)")
    numbers: list[int] = []
    for number in range(possible_folds(settings.val_fraction)):
        if number != settings.fold and len(numbers) < wanted - 1:
            try:
                find_pictures(dataset.root, replace(settings, fold=number), classes=dataset.classes)
            except DataError as error:
                first.job.progress.warn(error.message)
            else:
                numbers.append(number)
    return numbers


def _another(first: Fold, number: int, latency_table: Path | None) -> Fold:
    """The same with another part of the pictures as val, in RUN/folds/`number`, taught and tailored as the first."""
    job, document = first.job, first.student[0]
    plain = job.within(RunDirectory(job.run.path / "folds" / str(number)), first.bench.dataset.root)
    plain = replace(plain, progress=PartOf(job.progress, f"fold {number}"))
    recorded = {stage: {**_settings_in(document, stage), "fold": number} for stage in (TEACH, TAILOR)}
    start_teach(replace(plain, flags=recorded[TEACH]))
    start_tailor(replace(plain, flags=recorded[TAILOR]), latency_table=latency_table)
    settings = replace(first.settings, fold=number)
    dataset = find_pictures(first.bench.dataset.root, settings, classes=document.classes)
    flags = {name: value for name, value in to_document(settings, FINETUNE).items() if value is not None}
    return _fold(replace(plain, flags=flags), dataset, latency_table)


def _settings_in(document: ModelDocument, stage: str) -> dict[str, Any]:
    """The settings of `stage` as a model file has them, as flags."""
    known = completed(document.settings.get(stage, {}), stage)
    return {name: value for name, value in known.items() if name in fields_of(stage) and value is not None}


# what is wanted


def _check_costs(first: Fold, asked: Asked) -> None:
    if asked.max_latency is not None and first.student[0].graph.backbone.latency is None:
        raise UsageError(
            f"--max-latency: {first.job.run.student} was not tailored for latency", "--cost latency --force"
        )


def _accuracy(folds: list[Fold], whose: str) -> float:
    """On the val pictures of all folds together, percent: delta.TEACHER's or delta.STUDENT's."""
    metrics = [fold.student[0].metrics.get(whose) for fold in folds]
    if not all(metrics):
        raise FileError(f"{folds[0].job.run.student} does not say how good its {whose} is", "--force starts again")
    return accuracy_together([metric for metric in metrics if metric])


def _wanted(folds: list[Fold], asked: Asked) -> Wanted:
    whole, tolerance = folds[0].student[0].graph.backbone, asked.accuracy_matters
    limits: dict[str, Any] = {
        name: budget.limit(value)
        for name, option, value in (
            ("macs", "max_macs", whole.macs),
            ("parameters", "max_params", whole.parameters),
            ("bytes", "max_bytes", 4 * whole.parameters),
            ("latency", "max_latency", (whole.latency or 0.0) / 1e6),  # budgets of time are in seconds
        )
        if (budget := asked.budget(option)) is not None
    }
    if "latency" in limits:
        limits["latency"] *= 1e6
    if tolerance is None:
        return Wanted(None, **limits)
    teacher, student = (_accuracy(folds, whose) for whose in (delta.TEACHER, delta.STUDENT))
    return Wanted(
        teacher - tolerance,
        tolerance=tolerance,
        margin=standard_error(teacher, sum(fold.images for fold in folds)),
        student=student,
        aims_at=asked.aims_at,
        **limits,
    )


def _drawn(fitted: Fitted) -> list[candidates.Row]:
    """The rows as they are drawn; what was given up halfway is not."""
    whole = fitted.document.graph.backbone
    drawn = [candidates.Row("teacher", candidates.TEACHER, 100.0, fitted.teacher_accuracy)]
    for row in fitted.rows:
        if not row.given_up:
            special = {fitted.choice.row.name: candidates.CHOSEN, UNPRUNED: candidates.STUDENT}
            kind = special.get(row.name, row.kind)
            drawn.append(candidates.Row(row.name, kind, 100 * row.macs / whole.macs, row.accuracy, row.standard_error))
    return drawn
