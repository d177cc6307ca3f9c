"""What a model takes beside its backbone, teacher and student, folded and exported, all measured in turn in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.backbones.catalog import parse_name
from nettailor_cli.core.deploy.export import runner_for
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.deploy.plan import LOGITS
from nettailor_cli.core.deploy.spread import Spread, warn_of_restlessness
from nettailor_cli.core.deploy.standalone import StandaloneNetwork
from nettailor_cli.core.deploy.timing import BATCHES, Stopwatch, on_machine, some_images
from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.graph import Cost
from nettailor_cli.core.models import Model, load_model, load_teacher
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.precision import Machine

BACKBONE, TEACHER, STUDENT, MODEL = "backbone", "teacher", "student", "model"
FOLDED = "folded "
"""Before a name: the same network with its batch norms folded and its alphas absorbed, as `export` writes it."""


@dataclass(frozen=True)
class Contender:
    """Something that turns images (N, 3, H, W), on the machine, into predictions, and what it costs on paper.

    `prepare` makes of the images what `run` takes, and is not timed.
    """

    name: str
    cost: Cost
    run: Callable[[Any], object]
    prepare: Callable[[Tensor], Any] = lambda images: images


@dataclass(frozen=True)
class Measurement:
    """latency: microseconds per batch. speed: how many times as fast as the first contender, round by round."""

    batch: int
    latency: Spread
    speed: Spread
    rounds: int

    @property
    def throughput(self) -> float:
        """Images per second, from the median."""
        return self.batch / self.latency.median * 1e6

    def to_json(self) -> dict[str, Any]:
        return {
            "latency_us": self.latency.to_json(),
            "images_per_second": self.throughput,
            "speed": self.speed.to_json(),
            "rounds": self.rounds,
        }


@dataclass(frozen=True)
class Row:
    """One contender's measurements, by batch size."""

    name: str
    cost: Cost
    measurements: dict[int, Measurement]

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "batches": {str(batch): measurement.to_json() for batch, measurement in self.measurements.items()},
        }


def contenders(
    model: Model,
    machine: Machine,
    *,
    teacher: Teacher | None = None,
    student: Model | None = None,
    exported: Sequence[Path] = (),
) -> list[Contender]:
    """The backbone with a classifier for the model's classes first, then what there is, and the model as loaded.

    Backbone and model come a second time, folded, if they can be exported; `exported` files last. The backbone's
    weights are random, which doesn't matter to a clock. Raises UsageError for an exported file whose kind is unknown or
    needs an extra, FileError for one that is damaged.
    """
    document = model.document
    backbone = Teacher(build_random(parse_name(document.backbone).arch, 0), len(document.classes))
    whole = document.graph.backbone
    folded: list[Contender] = []
    with suppress(UsageError):  # some of timm's networks can't be exported
        backbone_folded = _folded(BACKBONE, whole, backbone, document.preprocessing, machine)
        folded = [backbone_folded, _folded(MODEL, document.graph.cost, model.network, document.preprocessing, machine)]
    found = [_contender(BACKBONE, whole, backbone, machine)]
    if teacher is not None:
        found.append(_contender(TEACHER, whole, teacher, machine))
    if student is not None:
        found.append(_contender(STUDENT, student.document.graph.cost, student.network, machine))
    found.append(_contender(MODEL, document.graph.cost, model.network, machine))
    cost = folded[-1].cost if folded else document.graph.cost
    return [*found, *folded, *(Contender(path.name, cost, runner_for(path), _pictures) for path in exported)]


def student_beside(model: Model, file: Path, home: Path, progress: Progress) -> Model | None:
    """The unpruned student that the model in `file` was made of: the one beside it, if it fits."""
    beside = file.parent / "student.safetensors"
    if isinstance(model.network, Teacher) or model.document.stage == delta.STUDENT or not beside.exists():
        return None
    document = delta.read_document(beside)
    own = model.document
    if (document.fingerprint, document.classes, document.preprocessing) != (
        own.fingerprint,
        own.classes,
        own.preprocessing,
    ):
        progress.warn(f"{beside} is left out: it is for another task or backbone")
        return None
    return load_model(beside, home=home, progress=progress)


def exported_beside(file: Path) -> list[Path]:
    """The exports of the model in `file`, as far as they lie beside it under its name."""
    return [path for path in (file.with_suffix(suffix) for suffix in (".onnx", ".pt2")) if path.exists()]


def teacher_of(model: Model, file: Path, named: Path | None, progress: Progress) -> Teacher | None:
    """The teacher in `named`, else the one beside the model's `file` if it fits; none for a model that is a teacher.

    Raises as `models.load_teacher` does for one that was named.
    """
    document = model.document
    beside = file.parent / "teacher.safetensors"
    if named is None and (isinstance(model.network, Teacher) or not beside.exists()):
        return None
    try:
        return load_teacher(named or beside, document.backbone, document.preprocessing, document.classes)[0]
    except FileError as error:
        if named is not None:
            raise
        progress.warn(f"the teacher beside the model is left out: {error.message}")
        return None


def benchmark(
    contestants: Sequence[Contender],
    size: int,
    machine: Machine,
    progress: Progress,
    *,
    batches: Sequence[int] = BATCHES,
    stopwatch: Stopwatch | None = None,
) -> list[Row]:
    """A row per contender, on images of `size` pixels; at every batch size they take turns, round by round."""
    stopwatch = stopwatch or Stopwatch()
    measurements: dict[str, dict[int, Measurement]] = {contender.name: {} for contender in contestants}
    progress.start("measuring", len(batches))
    for batch in batches:
        images = some_images(batch, size, machine)
        taken = stopwatch.time({contender.name: _on(contender, images) for contender in contestants}, machine)
        first = taken[contestants[0].name]
        for name, times in taken.items():
            speed = Spread.of([theirs / own for theirs, own in zip(first, times, strict=True)])
            measurements[name][batch] = Measurement(batch, Spread.of(times), speed, len(times))
        progress.advance()
    progress.finish()
    warn_of_restlessness([m.latency for rows in measurements.values() for m in rows.values()], progress)
    return [Row(contender.name, contender.cost, measurements[contender.name]) for contender in contestants]


def _contender(name: str, cost: Cost, network: Student | Teacher, machine: Machine) -> Contender:
    return Contender(name, cost, on_machine(network, machine))


def _folded(
    name: str, cost: Cost, network: Student | Teacher, preprocessing: Preprocessing, machine: Machine
) -> Contender:
    plan, tensors = lower(network, torch.bfloat16 if machine.bf16 else torch.float32)
    alone = on_machine(StandaloneNetwork(plan, tensors, preprocessing, LOGITS), machine)
    count = sum(tensor.numel() for tensor in tensors.values())
    return Contender(FOLDED + name, replace(cost, parameters=count), alone.logits_of)


def _pictures(images: Tensor) -> np.ndarray[Any, Any]:
    """(N, 3, S, S) in [0, 1] -> uint8 (N, S, S, 3), which is what exported files take."""
    return (255 * images.float().cpu()).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def _on(contender: Contender, images: Tensor) -> Callable[[], object]:
    prepared = contender.prepare(images)
    return lambda: contender.run(prepared)
