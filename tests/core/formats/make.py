"""How the old files in tests/core/formats/VERSION were made, each once, by the package of its time.

    python tests/core/formats/make.py FOLDER

They are real files, written by the package's own writers, but nothing in them was trained or measured: weights are
small patterns (a teacher then compresses to a few kB), figures are invented. Backbone: the package's own. When a
format's version goes up, commit the files of a new folder, made by the new code; never make the old ones again.
"""

from __future__ import annotations

import gzip
import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.embedded import DEFAULT
from nettailor_cli.core.backbones.store import find
from nettailor_cli.core.complexity import student_graph, untouched_graph
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.deploy.latency_table import HEAD, STEM, LatencyTable
from nettailor_cli.core.deploy.spread import Spread
from nettailor_cli.core.files import sha256_of
from nettailor_cli.core.manifest import BundledTask, Manifest, StoredFile, write_manifest
from nettailor_cli.core.models import load_model
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.progress import Silent
from nettailor_cli.core.settings import FINETUNE, TAILOR, TEACH, to_document
from nettailor_cli.core.stages.prune import prune_file
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training import checkpoint
from nettailor_cli.core.training.checkpoint import Position

HOME = Path("/nowhere")
SIZE = 32
CLASSES = ("blue disc", "grün", "red\tsquare")
PATHS = ("proxy 0-1", "proxy 0-2")
LOGITS = {"universal 1": -1.0, "proxy 0-1": 1.0, "universal 2": 0.5, "proxy 0-2": 0.0}
DATA = {
    "name": "shapes", "classes": 3, "images": {"train": 20, "val": 4, "test": 12}, "skipped": 0, "digest": "0d" * 32,
    "split_seed": 0, "val_fraction": 0.2, "fold": 0, "group": None,
}  # fmt: skip


def pattern(tensor: Tensor, scale: float, period: int = 13) -> None:
    """Fill it with multiples of `scale`, from -period / 2 to period / 2; exact in every float type."""
    with torch.no_grad():
        values = torch.arange(tensor.numel()) * 7 % period - period // 2
        tensor.copy_(values.reshape(tensor.shape) * scale)


def images() -> Tensor:
    """Two pictures (2, 3, SIZE, SIZE), already normalised."""
    batch = torch.zeros(2, 3, SIZE, SIZE)
    pattern(batch, 1 / 16, period=31)
    return batch


def settings(*stages: str) -> dict[str, object]:
    known = {}
    for stage in stages:
        typed = {"device": "cpu", "precision": "fp32", "seed": 3}
        known[stage] = {k: v for k, v in to_document(resolve(stage, flags=typed), stage).items() if k != "workers"}
    return known


def metric(accuracy: float) -> dict[str, object]:
    return {"split": "val", "accuracy": accuracy, "loss": 0.5, "images": 4}


def make_teacher(folder: Path) -> None:
    """The stem and one block, as teach --cut 1 leaves them; compressed, because its size is in no way the format's."""
    backbone = find(DEFAULT, home=HOME, progress=Silent()).cut(1)
    backbone.preprocessing = replace(backbone.preprocessing, size=SIZE)
    teacher = Teacher(backbone, len(CLASSES))
    for name, tensor in teacher.state().items():
        if tensor.dim() == 4:
            pattern(tensor, 1 / 64)
        elif not name.startswith("fc"):
            tensor.fill_(float("weight" in name or "var" in name))
    pattern(teacher.head.weight, 1 / 32)
    pattern(teacher.head.bias, 1 / 8)
    own = settings(TEACH)
    own[TEACH]["cut"] = 1  # type: ignore[index]
    document = ModelDocument(
        stage=delta.TEACHER, backbone=DEFAULT, fingerprint=backbone.fingerprint,
        graph=untouched_graph(backbone, len(CLASSES)), classes=CLASSES, preprocessing=backbone.preprocessing,
        student={}, data=DATA, settings=own, metrics={"teacher": metric(75.0)},
    )  # fmt: skip
    delta.write(folder / "teacher.safetensors", document, teacher.state())


def make_student(folder: Path) -> None:
    """All blocks and two small proxies; of nodes 1 and 2 the proxies have a say."""
    backbone = find(DEFAULT, home=HOME, progress=Silent())
    backbone.preprocessing = replace(backbone.preprocessing, size=SIZE)
    dense = student_graph(backbone, len(CLASSES), skips=3)
    graph = dense.keeping(lambda path: path.is_universal or path.name in PATHS)
    student = Student(backbone, graph, len(CLASSES), bn_stats="frozen", proxy_width=None)
    student.start_fresh(torch.Generator().manual_seed(0))
    for name, tensor in student.task_state().items():
        if tensor.dim() == 4:
            pattern(tensor, 1 / 64)
        elif name.startswith("head."):
            pattern(tensor, 1 / 32)
    with torch.no_grad():
        student.attention.logits.copy_(torch.tensor([LOGITS.get(path.name, 0.0) for path in graph.paths]))
    document = ModelDocument(
        stage=delta.STUDENT, backbone=DEFAULT, fingerprint=backbone.fingerprint, graph=student.attended_graph(),
        classes=CLASSES, preprocessing=backbone.preprocessing,
        student={"bn_stats": "frozen", "proxy_width": None, "shared_prefix": 0}, data=DATA,
        settings={**settings(TEACH, TAILOR)}, metrics={"teacher": metric(75.0), "student": metric(50.0)},
    )  # fmt: skip
    delta.write(folder / "student.safetensors", document, student.task_state())


def make_model(folder: Path) -> None:
    """What prune --remove 1 leaves of the student, with another classifier."""
    document, tensors = delta.read(folder / "pruned.safetensors")
    pattern(tensors["head.weight"], 1 / 16)
    finished = replace(
        document, stage=delta.MODEL, settings={**document.settings, **settings(FINETUNE)},
        metrics={**document.metrics, "model": metric(100.0)},
    )  # fmt: skip
    delta.write(folder / "model.safetensors", finished, tensors)


def make_others(folder: Path) -> None:
    """A checkpoint, a bundle's manifest, a latency table."""
    torch.manual_seed(5)  # the generator's state is in the file
    weight = torch.arange(6.0).reshape(2, 3)
    checkpoint.save(
        folder / "checkpoint.safetensors",
        identity={"stage": "teach", "lr": 0.02, "group": None},
        position=Position(epoch=2, batch=5, sums={"loss": 1.25, "images": 40.0}, best_epoch=1, best_accuracy=62.5),
        model={"fc.weight": weight},
        best={"fc.weight": weight + 1},
        momentum={"head.weight": weight * 2},
    )
    model = folder / "model.safetensors"
    document = delta.read_document(model)
    task = BundledTask(
        document.stage, len(CLASSES), document.graph.blocks_kept, StoredFile(sha256_of(model), model.stat().st_size)
    )
    backbone = StoredFile("ab" * 32, 44_000_000)
    (folder / "bundle").mkdir()
    blocks = document.graph.blocks_kept
    manifest = Manifest(document.backbone, document.fingerprint, blocks, "fp32", backbone, {"signs": task})
    write_manifest(folder / "bundle", manifest)
    names = [STEM, *(f"universal {n}" for n in range(1, document.graph.last + 1)), *PATHS, HEAD]
    timings = {name: Spread(10.0 + number, 9.5, 30.5) for number, name in enumerate(names)}
    machine = {"device": "cpu", "name": "A machine", "threads": 2, "torch": "2.6.0", "precision": "fp32"}
    table = LatencyTable("resnet18", SIZE, None, False, machine, {1: timings, 8: timings})
    (folder / "latency.toml").write_text(table.to_toml(), encoding="utf-8")


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    make_teacher(folder)
    make_student(folder)
    prune_file(folder / "student.safetensors", folder / "pruned.safetensors", remove=1)
    make_model(folder)
    make_others(folder)
    logits = {}
    for stage in delta.STAGES:
        model = load_model(folder / f"{stage}.safetensors", home=HOME, progress=Silent())
        with torch.inference_mode():
            logits[stage] = model.logits(images()).tolist()
    (folder / "logits.json").write_text(json.dumps(logits, indent=1) + "\n")
    teacher = folder / "teacher.safetensors"
    (folder / "teacher.safetensors.gz").write_bytes(gzip.compress(teacher.read_bytes(), mtime=0))
    teacher.unlink()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
