"""From what was asked to what a stage needs: the backbone, the settings, the pictures, the teacher.

What a run was given once holds for its later stages: data folder, backbone and size stand in run.toml, and so do the
settings about data and objective (`settings.CARRIED`), unless they are given again.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.store import find, find_by_fingerprint
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.models import load_model, load_teacher
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.settings import CARRIED, FINETUNE, TAILOR, TEACH, Settings, fields_of, resolve
from nettailor_cli.core.stages.finetune import finetune
from nettailor_cli.core.stages.job import Job, Workbench, find_pictures, open_workbench, ready_to_write
from nettailor_cli.core.stages.tailor import tailor
from nettailor_cli.core.stages.teach import teach
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher

NO_TEACHER = "none"

_MACHINE = ("device", "precision", "workers", "memory_limit")
"""Flags of `tailor` that go for the teacher as well when it has to be taught first; so do the carried ones."""


def start_teach(job: Job) -> ModelDocument:
    """`nettailor teach`: writes RUN/teacher.safetensors and returns its document."""
    if not ready_to_write(job, TEACH, job.run.teacher):
        return delta.read_document(job.run.teacher)
    settings = _settings(job, TEACH, {})
    # the folder first: a slip of the pen there should not cost a download
    dataset = find_pictures(_data(job), settings)
    backbone = _backbone(job)
    bench = open_workbench(job, dataset, settings, backbone.preprocessing)
    return teach(job, backbone, settings, bench)


def start_tailor(job: Job, teacher: Path | None = None, *, no_teacher: bool = False) -> ModelDocument:
    """`nettailor tailor`: writes RUN/student.safetensors, after RUN/teacher.safetensors if none fits."""
    if not ready_to_write(job, TAILOR, job.run.student):
        return delta.read_document(job.run.student)
    settings = _settings(job, TAILOR, job.run.read().get(TEACH, {}))
    # the folder first: a slip of the pen there should not cost a download
    dataset = find_pictures(_data(job), settings)
    backbone = _backbone(job)
    bench = open_workbench(job, dataset, settings, backbone.preprocessing)
    if no_teacher:
        return tailor(job, backbone, None, None, NO_TEACHER, settings, bench)
    if teacher is None:
        teacher = job.run.teacher
        if not teacher.exists() or not _fits(job, backbone, bench):
            _teach_first(job, backbone, settings, bench)
    network, document = load_teacher(teacher, backbone.name, backbone.preprocessing, bench.dataset.classes)
    return tailor(job, backbone, network, document, _digest(teacher), settings, bench)


def start_finetune(
    job: Job, pruned: Path, output: Path, teacher: Path | None = None, *, no_teacher: bool = False
) -> ModelDocument:
    """`nettailor finetune`: trains the network in `pruned` and writes `output`."""
    if not ready_to_write(job, FINETUNE, output):
        return delta.read_document(output)
    model = load_model(pruned, home=job.home, progress=job.progress)
    if not isinstance(model.network, Student):
        raise FileError(f"{pruned} is a teacher: it is fine-tuned already", "finetune takes what prune or tailor wrote")
    document = model.document
    settings = _settings(job, FINETUNE, document.settings.get(TAILOR, {}))
    dataset = find_pictures(_data(job), settings, classes=document.classes)
    bench = open_workbench(job, dataset, settings, document.preprocessing)
    without = no_teacher or (teacher is None and document.settings.get(TAILOR, {}).get("teacher") is False)
    network: Teacher | None = None
    if not without:
        teacher = teacher or job.run.teacher
        if not teacher.exists():
            raise UsageError(f"there is no teacher at {teacher}", "name one with --teacher FILE, or say --no-teacher")
        network, _ = load_teacher(teacher, document.backbone, document.preprocessing, document.classes)
    digest = NO_TEACHER if teacher is None or without else _digest(teacher)
    return finetune(job, document, model.network, network, digest, settings, bench, output)


def _settings(job: Job, stage: str, carried: Mapping[str, Any]) -> Settings:
    """The stage's settings. On --resume those that the run was started with hold, unless typed again."""
    if job.resume:
        started = job.run.read().get(stage)
        if started is None:
            if not job.run.checkpoint(TEACH, job.run.teacher).exists():  # else that is what goes on
                job.progress.note(f"nothing to resume in {job.run.path}: starts from the beginning")
        else:
            flags = {**started, **{name: value for name, value in job.flags.items() if value is not None}}
            return resolve(stage, flags={name: flags[name] for name in flags if name in fields_of(stage)})
    return resolve(stage, flags=job.flags, config=job.config, preset=job.preset, carried=carried)


def _backbone(job: Job) -> Backbone:
    """The backbone that was named, or the run's own."""
    earlier = job.run.read().get("run", {})
    name = job.backbone or earlier.get("backbone")
    if name is None:
        raise UsageError("which backbone?", "say --backbone resnet18, or another of: nettailor backbones list")
    if (
        job.weights is None
        and job.mean is None
        and job.std is None
        and earlier.get("backbone", "").split(".")[0] == name
        and "fingerprint" in earlier
    ):
        # the run's own backbone, when it is called by its bare name again
        backbone = find_by_fingerprint(
            earlier["fingerprint"], name=earlier["backbone"], home=job.home, progress=job.progress
        )
        backbone.preprocessing = Preprocessing.from_json(earlier["preprocessing"])
    else:
        backbone = find(name, home=job.home, weights=job.weights, mean=job.mean, std=job.std, progress=job.progress)
    size = job.size or (
        earlier.get("preprocessing", {}).get("size") if earlier.get("fingerprint") == backbone.fingerprint else None
    )
    if size is not None:
        backbone.preprocessing = Preprocessing.from_json({**backbone.preprocessing.to_json(), "size": size})
    return backbone


def _data(job: Job) -> Path:
    if job.data is not None:
        return job.data
    earlier = job.run.read().get("run", {}).get("data")
    if earlier is None:
        raise UsageError("which pictures?", "name their folder with --data DIR")
    return Path(earlier)


def _fits(job: Job, backbone: Backbone, bench: Workbench) -> bool:
    """Whether RUN's teacher is one for this backbone, pictures and size. Raises UsageError when it is another's."""
    document = delta.read_document(job.run.teacher)
    differences = [
        what
        for what, same in (
            ("backbone", document.fingerprint == backbone.fingerprint),
            ("classes", document.classes == bench.dataset.classes),
            ("data", document.data.get("digest") == bench.dataset.digest),
            ("size", document.preprocessing == backbone.preprocessing),
        )
        if not same
    ]
    if not differences:
        job.progress.note(f"teacher: {job.run.teacher} (same backbone, classes, data and size)")
        return True
    if job.force:
        return False
    raise UsageError(
        f"{job.run.teacher} was taught with another {' and '.join(differences)}",
        "choose another --run, name a teacher with --teacher, or teach again with --force",
    )


def _teach_first(job: Job, backbone: Backbone, settings: Settings, bench: Workbench) -> None:
    """Write RUN/teacher.safetensors, with the flags that are not `tailor`'s own."""
    ready_to_write(job, TEACH, job.run.teacher)
    shared = replace(job, flags={name: value for name, value in job.flags.items() if name in (*CARRIED, *_MACHINE)})
    job.progress.note("teacher: none yet, so one is taught first")
    # a network of its own: training changes it, and the student needs the backbone as it is
    teach(shared, copy.deepcopy(backbone), _settings(shared, TEACH, vars(settings)), bench)


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
