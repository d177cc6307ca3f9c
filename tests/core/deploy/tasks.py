"""Several tasks of one random resnet18 as model files, and a home folder that has this backbone."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone, from_state
from nettailor_cli.core.backbones.keeping import keep
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.delta import MODEL, ModelDocument
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.preprocessing import Preprocessing
from tests.core.plain import Triple, random_student, shake, shared_backbone, triple_of, triples

SIZE = 32
LAST = 8


def chain(universal: Sequence[int], proxied: Sequence[int]) -> list[Triple]:
    """Paths from node to node: the blocks in `universal`, a proxy into each node of `proxied`, one of both for all."""
    assert {*universal, *proxied} == set(range(1, LAST + 1))
    return [
        (n - 1, n, kind) for n in range(1, LAST + 1) for kind in "up" if n in (universal if kind == "u" else proxied)
    ]


PATHS = {
    # nodes 1 and 2 have the universal path alone
    "flowers": chain([1, 2, 3, 5], [3, 4, 5, 6, 7, 8]),
    # node 1 alone; a proxy that skips, too
    "signs": [*chain([1, 2, 7], [2, 3, 4, 5, 6, 7, 8]), (0, 3, "p")],
    # node 1 is mixed at once
    "digits": chain([1, 4], [1, 2, 3, 4, 5, 6, 7, 8]),
    # nothing universal at all
    "lean": chain([], [1, 2, 3, 4, 5, 6, 7, 8]),
}
CLASSES = {"flowers": 5, "signs": 3, "digits": 10, "lean": 2}


@functools.cache
def dense(size: int) -> Graph:
    """Every path with its costs."""
    backbone = shared_backbone("resnet18")
    backbone.preprocessing = Preprocessing(size)
    return student_graph(backbone, 4, skips=None)


def write_task(
    path: Path,
    fingerprint: str,
    paths: list[Triple],
    *,
    classes: int = 4,
    seed: int = 0,
    size: int = SIZE,
    bn_stats: str = "frozen",
    stage: str = MODEL,
    scale: float = 1.0,
) -> ModelDocument:
    """A model file of a random student with `paths`; `scale` multiplies the classifier."""
    ordered = [triple for triple in triples(LAST, None) if triple in paths]
    assert len(ordered) == len(paths)
    student = random_student(
        "resnet18", ordered, classes=classes, seed=seed, bn_stats=bn_stats, shared=bn_stats == "frozen"
    )
    if bn_stats == "adapt":
        scales = {name: p.detach().clone() for name, p in student.named_parameters()}
        shake(student.stem, seed + 50)
        shake(student.universal, seed + 51)
        with torch.no_grad():  # the statistics alone are the task's
            for name, parameter in student.named_parameters():
                parameter.copy_(scales[name])
    with torch.no_grad():
        student.head.weight.mul_(scale)
    graph = dense(size).keeping(lambda p: triple_of(p) in paths)
    document = ModelDocument(
        stage=stage,
        backbone="resnet18.test",
        fingerprint=fingerprint,
        graph=graph.with_alphas([p.alpha for p in student.attended_graph().paths]),
        classes=tuple(f"class {number}" for number in range(classes)),
        preprocessing=Preprocessing(size),
        student={"bn_stats": bn_stats, "proxy_width": None},
        data={},
        settings={},
        metrics={},
    )
    delta.write(path, document, student.task_state())
    return document


@dataclass(frozen=True)
class Tasks:
    """files: of PATHS, and of "adapted" (statistics of its own) and "large" (48 px), both with flowers' paths."""

    home: Path
    backbone: Backbone
    files: dict[str, Path]

    def some(self, *names: str) -> dict[str, Path]:
        return {name: self.files[name] for name in names}


def make_tasks(root: Path) -> Tasks:
    home = root / "home"
    backbone = from_state("resnet18.test", shared_backbone("resnet18").state(), Preprocessing(SIZE))
    keep(backbone, backbone.state(), source="a test", home=home)
    files = {}
    for seed, (name, paths) in enumerate(PATHS.items()):
        files[name] = root / "runs" / f"{name}.safetensors"
        write_task(files[name], backbone.fingerprint, paths, classes=CLASSES[name], seed=10 * seed)
    for name, more in (("adapted", {"bn_stats": "adapt", "seed": 70}), ("large", {"size": 48, "seed": 80})):
        files[name] = root / "runs" / f"{name}.safetensors"
        write_task(files[name], backbone.fingerprint, PATHS["flowers"], **more)  # type: ignore[arg-type]
    return Tasks(home, backbone, files)


def images(size: int = SIZE, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))
