"""What a model takes beside its backbone and its teacher, all measured in turn in one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.backbones.catalog import parse_name
from nettailor_cli.core.deploy.spread import Spread, warn_of_restlessness
from nettailor_cli.core.deploy.timing import BATCHES, Stopwatch, on_machine, some_images
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import Cost
from nettailor_cli.core.models import Model, load_teacher
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.precision import Machine

BACKBONE, TEACHER, MODEL = "backbone", "teacher", "model"


@dataclass(frozen=True)
class Contender:
    """Something that turns images (N, 3, H, W), on the machine, into predictions, and what it costs on paper."""

    name: str
    cost: Cost
    run: Callable[[Tensor], object]


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


def contenders(model: Model, teacher: Teacher | None, machine: Machine) -> list[Contender]:
    """The backbone with a classifier for the model's classes, the teacher if there is one, and the model as loaded.

    The backbone's weights are random, which doesn't matter to a clock.
    """
    document = model.document
    backbone = Teacher(build_random(parse_name(document.backbone).arch, 0), len(document.classes))
    whole = document.graph.backbone
    found = [_contender(BACKBONE, whole, backbone, machine)]
    if teacher is not None:
        found.append(_contender(TEACHER, whole, teacher, machine))
    return [*found, _contender(MODEL, document.graph.cost, model.network, machine)]


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


def _on(contender: Contender, images: Tensor) -> Callable[[], object]:
    return lambda: contender.run(images)
