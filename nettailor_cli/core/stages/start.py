"""From what was asked to what a stage needs: the backbone, the settings, the pictures, the teacher.

What a run was given once holds for its later stages: data folder, backbone and size stand in run.toml, and so do the
settings about data and objective (`settings.CARRIED`), unless they are given again.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from nettailor_cli.core import delta
from nettailor_cli.core.adapters import has_norms
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.embedded import DEFAULT
from nettailor_cli.core.backbones.store import find, find_by_fingerprint
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.config_file import size_in
from nettailor_cli.core.data import Dataset
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.files import sha256_of
from nettailor_cli.core.models import load_model, load_teacher
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.presets import default_of, resolve
from nettailor_cli.core.sealed import is_sealed
from nettailor_cli.core.settings import (
    ABSOLUTE,
    CARRIED,
    FINETUNE,
    LOGITS,
    RELATIVE,
    TAILOR,
    TEACH,
    Settings,
    fields_of,
    flag_of,
    lengthened,
)
from nettailor_cli.core.stages.carry_out import Part
from nettailor_cli.core.stages.finetune import finetune
from nettailor_cli.core.stages.job import Job, ready_to_write, settle_machine
from nettailor_cli.core.stages.latencies import LATENCY, settle_latencies
from nettailor_cli.core.stages.tailor import tailor
from nettailor_cli.core.stages.teach import teach
from nettailor_cli.core.stages.workbench import Workbench, find_pictures, open_workbench
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.checkpoint import read as read_checkpoint
from nettailor_cli.core.training.precision import Machine

NO_TEACHER = "none"
_OF_THE_HINT = ("gamma2", "hint", "hint_scale", "hint_weights")

_MACHINE = ("device", "precision", "workers", "cache_limit", "memory_limit", "accumulate", "compile")
"""Flags of `tailor` that go for the teacher as well when it has to be taught first; so do the carried ones."""


def start_teach(job: Job, part: Part | None = None) -> ModelDocument:
    """`nettailor teach`: writes RUN/teacher.safetensors and returns its document. `part`: as `carry_out` has it."""
    with job.holding() as held:
        return _teach(held, part)


def _teach(job: Job, part: Part | None) -> ModelDocument:
    output = job.run.teacher
    if not ready_to_write(job, TEACH, output):
        return delta.read_document(output)
    settings = _settings(job, TEACH, output, {})
    # the folder first: a slip of the pen there should not cost a download
    dataset = find_pictures(job.data_folder(), settings)
    settings = lengthened(settings, len(dataset.splits["train"]))
    backbone = _backbone(job)
    _warn_of_idle_flags(job, TEACH, settings, dataset)
    bench = bench_for(job, dataset, settings, backbone.preprocessing, settle_machine(job, settings))
    return teach(job, backbone, settings, bench, part)


def start_tailor(
    job: Job, teacher: Path | None = None, *, no_teacher: bool = False, latency_table: Path | None = None
) -> ModelDocument:
    """`nettailor tailor`: writes RUN/student.safetensors, after RUN/teacher.safetensors if none fits."""
    with job.holding() as held:
        return _tailor(held, teacher, no_teacher=no_teacher, latency_table=latency_table)


def _tailor(job: Job, teacher: Path | None, *, no_teacher: bool, latency_table: Path | None) -> ModelDocument:
    output = job.run.student
    if not ready_to_write(job, TAILOR, output):
        return delta.read_document(output)
    settings = _settings(job, TAILOR, output, teacher_settings(job, teacher))
    refuse_to_price(settings)
    dataset = find_pictures(job.data_folder(), settings)
    settings = lengthened(settings, len(dataset.splits["train"]))
    backbone = _backbone(job)
    _warn_of_idle_flags(
        job,
        TAILOR,
        settings,
        dataset,
        latency_batch="" if settings.cost == LATENCY else "the cost is not latency",
        bn_affine="" if any(map(has_norms, backbone.blocks)) else f"{backbone.arch} has no batch norms in its blocks",
        **_idle_of_the_hint(settings, teacher=not no_teacher),
    )
    if settings.hint_scale == "auto":
        # gamma2 = 10 belongs to the absolute errors of the networks that the published proxies are for
        settings = replace(settings, hint_scale=RELATIVE if backbone.proxy_kind == "budgeted" else ABSOLUTE)
    machine = settle_machine(job, settings)
    if settings.shared_prefix and settings.bn_stats != "frozen":
        job.progress.warn("--shared-prefix: nothing can be shared, because the batch-norm statistics are adapted")
    graph = student_graph(
        backbone,
        len(dataset.classes),
        skips=settings.skips,
        proxy_width=settings.proxy_width,
        proxy_depthwise=settings.proxy_depthwise,
        shared_prefix=settings.shared_prefix,
        bn_affine=settings.bn_affine,
        adapter_rank=settings.adapter_rank,
        logits_lead=settings.logits_lead,
    )
    if settings.adapter_rank and not any(path.own.macs for path in graph.universal):
        job.progress.warn("--adapter-rank has no effect: an adapter costs more than any convolution that it fits")
    latencies = job.processes.from_main(lambda: settle_latencies(job, settings, backbone, machine, latency_table))
    if latencies is not None:
        graph = latencies.on(graph, backbone, settings)  # a table that does not fit is told before hours of teaching
    bench = bench_for(job, dataset, settings, backbone.preprocessing, machine)
    if no_teacher:
        return tailor(job, backbone, graph, latencies, None, None, NO_TEACHER, settings, bench)
    if teacher is None:
        teacher = job.run.teacher
        unfinished = job.resume and job.run.checkpoint(TEACH, teacher).exists()
        if unfinished or not teacher.exists() or not _fits(job, backbone, bench):
            _teach_first(job, backbone, settings, bench)
    network, document = load_teacher(teacher, backbone.name, backbone.preprocessing, dataset.classes)
    if document is not None:
        _warn_of_another_split(job, "the teacher", document, dataset)
    return tailor(job, backbone, graph, latencies, network, document, sha256_of(teacher), settings, bench)


def start_finetune(
    job: Job, pruned: Path, output: Path, teacher: Path | None = None, *, no_teacher: bool = False
) -> ModelDocument:
    """`nettailor finetune`: trains the network in `pruned` and writes `output`.

    What is locked is the run, which has the log, the settings and the checkpoints of all outputs, wherever these lie.
    """
    with job.holding() as held:
        return _finetune(held, pruned, output, teacher, no_teacher=no_teacher)


def _finetune(job: Job, pruned: Path, output: Path, teacher: Path | None, *, no_teacher: bool) -> ModelDocument:
    if not ready_to_write(job, FINETUNE, output):
        return delta.read_document(output)
    with job.processes.main_first():
        model = load_model(pruned, home=job.home, progress=job.progress, trainable=True)
    if not isinstance(model.network, Student):
        raise FileError(f"{pruned} is a teacher: it is fine-tuned already", "finetune takes what prune or tailor wrote")
    document = model.document
    tailored = document.settings.get(TAILOR, {})
    settings = _settings(job, FINETUNE, output, tailored)
    dataset = find_pictures(job.data_folder(), settings, classes=document.classes)
    settings = lengthened(settings, len(dataset.splits["train"]))
    _warn_of_another_split(job, str(pruned), document, dataset)
    machine = settle_machine(job, settings)
    network, digest = None, NO_TEACHER
    if not no_teacher and (teacher is not None or tailored.get("teacher") is not False):
        teacher = teacher or job.run.teacher
        if not teacher.exists():
            raise UsageError(f"there is no teacher at {teacher}", "name one with --teacher FILE, or say --no-teacher")
        network, _ = load_teacher(teacher, document.backbone, document.preprocessing, document.classes)
        digest = sha256_of(teacher)
    _warn_of_idle_flags(job, FINETUNE, settings, dataset, **_idle_of_the_hint(settings, teacher=network is not None))
    bench = bench_for(job, dataset, settings, document.preprocessing, machine)
    return finetune(job, document, model.network, network, digest, settings, bench, output)


def refuse_to_price(settings: Settings) -> None:
    """Raises UsageError for a student whose parts have no latency in any table."""
    if settings.cost == LATENCY and settings.adapter_rank:
        raise UsageError("--adapter-rank: nobody has measured the latency of adapters", "--cost macs, or no adapters")


def _settings(job: Job, stage: str, output: Path, carried: Mapping[str, Any]) -> Settings:
    """The stage's settings. On --resume those that it was started with hold, unless others are typed."""
    if not job.resume:
        return resolve(stage, flags=job.flags, config=job.config, preset=job.preset, carried=carried)
    checkpoint = job.run.checkpoint(stage, output)
    known = read_checkpoint(checkpoint)["identity"] if checkpoint.exists() else job.run.read().get(stage, {})
    started = {name: value for name, value in known.items() if name in fields_of(stage)}
    if job.preset is None and job.config is None:
        return resolve(stage, flags={**started, **job.flags}, carried=carried)
    again = resolve(stage, flags=job.flags, config=job.config, preset=job.preset, carried=carried)
    # what was left to us is not chosen a second time
    left = (name for name in ("device", "precision") if getattr(again, name) == "auto" and name in started)
    chosen = {name: started[name] for name in left}
    return replace(again, **chosen)


def teacher_settings(job: Job, teacher: Path | None) -> Mapping[str, Any]:
    """What the teacher was taught with, as far as its file or the run says so."""
    file = teacher or job.run.teacher
    if file.exists() and is_sealed(file):
        settings = delta.read_document(file).settings.get(TEACH, {})
    else:
        settings = job.run.read().get(TEACH, {})
    return settings if isinstance(settings, Mapping) else {}


def _backbone(job: Job) -> Backbone:
    """See `_found_backbone`; the main process imports or downloads it, where it has to be."""
    with job.processes.main_first():
        return _found_backbone(job)


def _found_backbone(job: Job) -> Backbone:
    """The backbone that was named, the run's own, or the one that comes with the package."""
    earlier = job.run.read().get("run", {})
    own = earlier.get("backbone", "")
    name = job.backbone or own
    if not name and job.weights is not None:
        raise UsageError(f"which network is in {job.weights}?", "say --backbone resnet18, or another ARCH")
    name = name or DEFAULT
    if job.weights is None and "fingerprint" in earlier and name in (own, own.split(".")[0]):
        # by content, so that another import of the same name changes nothing for this run
        backbone = find_by_fingerprint(earlier["fingerprint"], name=own, home=job.home, progress=job.progress)
        backbone.preprocessing = Preprocessing.from_json(
            {
                **earlier["preprocessing"],
                **({} if job.mean is None else {"mean": job.mean}),
                **({} if job.std is None else {"std": job.std}),
            }
        )
    else:
        backbone = find(name, home=job.home, weights=job.weights, mean=job.mean, std=job.std, progress=job.progress)
    size = job.size or (size_in(job.config) if job.config else None)
    if size is None and earlier.get("fingerprint") == backbone.fingerprint:
        size = earlier["preprocessing"]["size"]
    if size is not None:
        backbone.check_size(size)
        backbone.preprocessing = replace(backbone.preprocessing, size=size)
    return backbone


def bench_for(
    job: Job, dataset: Dataset, settings: Settings, preprocessing: Preprocessing, machine: Machine
) -> Workbench:
    with job.processes.main_first():  # which fills the cache
        return open_workbench(dataset, settings, preprocessing, machine, job.progress, job.home)


def _fits(job: Job, backbone: Backbone, bench: Workbench) -> bool:
    """Whether RUN's teacher is one for this backbone, pictures and size. Raises UsageError when it is another's."""
    document = delta.read_document(job.run.teacher)
    given, own = document.preprocessing, backbone.preprocessing
    differences = [
        what
        for what, same in (
            ("backbone", document.fingerprint == backbone.fingerprint),
            ("classes", document.classes == bench.dataset.classes),
            ("data or split", document.data.get("digest") == bench.dataset.digest),
            ("size", given.size == own.size),
            ("mean and std", (given.mean, given.std) == (own.mean, own.std)),
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


def _idle_of_the_hint(settings: Settings, *, teacher: bool) -> dict[str, str]:
    """Flag -> why it changes nothing."""
    if not teacher:
        return dict.fromkeys(_OF_THE_HINT, "there is no teacher")
    logits_alone = "the hint has the logits alone (--hint-weights equal has the nodes, too)"
    return dict.fromkeys(("hint", "hint_scale"), logits_alone if settings.hint_weights == LOGITS else "")


def _warn_of_idle_flags(job: Job, stage: str, settings: Settings, dataset: Dataset, **reasons: str) -> None:
    """Say which flags change nothing, and why. `reasons`: flag -> why, empty where it does matter.

    A default that was typed, or that fit's folds pass on, misleads nobody.
    """
    own_val = "there is a val folder" if (dataset.root / "val").is_dir() and not settings.fold else ""
    reasons |= {
        "step_epochs": "" if settings.schedule == "step" else "the schedule is not step",
        "min_crop": "" if settings.augment == "resized-crop" else "pictures are not cropped like that",
        "patience": "" if "val" in dataset.splits else "there are no val pictures",
        "group": own_val,
        "val_fraction": own_val,
    }
    for name, reason in reasons.items():
        if reason and job.flags.get(name) not in (None, default_of(name, stage)):
            job.progress.warn(f"{flag_of(name)} has no effect: {reason}")


def _warn_of_another_split(job: Job, what: str, document: ModelDocument, dataset: Dataset) -> None:
    """A network that has seen the pictures of val makes every choice on val worthless."""
    if document.data.get("digest") != dataset.digest:
        job.progress.warn(f"{what} was trained on other pictures or another split: val may hold some that it has seen")


def _teach_first(job: Job, backbone: Backbone, settings: Settings, bench: Workbench) -> None:
    """Write RUN/teacher.safetensors, with the flags that are not `tailor`'s own."""
    output = job.run.teacher
    ready_to_write(job, TEACH, output)
    shared = replace(job, flags={name: value for name, value in job.flags.items() if name in (*CARRIED, *_MACHINE)})
    job.progress.note("teacher: none yet, so one is taught first")
    # a network of its own: training changes it, and the student needs the backbone as it is
    own = lengthened(_settings(shared, TEACH, output, vars(settings)), len(bench.dataset.splits["train"]))
    teach(shared, copy.deepcopy(backbone), own, bench)
