"""Small networks for the tests of deploy, and what they have to give, from tests/core/plain.py."""

from __future__ import annotations

import torch
from torch import Tensor

from nettailor_cli.core.delta import STUDENT, ModelDocument
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.deploy.standalone import StandaloneNetwork
from nettailor_cli.core.models import Model
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from tests.core.plain import Triple, plain_forward, random_student

SIZE = 32
PREPROCESSING = Preprocessing(SIZE)
CLASSES = 7

# Of resnet18's graph: node 6 is gone altogether, nodes 2, 5, 7 and 8 live on proxies alone.
PRUNED: list[Triple] = [
    (0, 1, "u"),
    (0, 1, "p"),
    (1, 2, "p"),
    (0, 2, "p"),
    (2, 3, "u"),
    (0, 3, "p"),
    (3, 4, "u"),
    (2, 4, "p"),
    (4, 5, "p"),
    (5, 7, "p"),
    (4, 7, "p"),
    (7, 8, "p"),
]


def pictures(count: int = 3, size: int = SIZE) -> Tensor:
    """uint8 (count, size, size, 3)."""
    generator = torch.Generator().manual_seed(size)
    return torch.randint(0, 256, (count, size, size, 3), dtype=torch.uint8, generator=generator)


def normalised(images: Tensor) -> Tensor:
    """What a backbone is given: float64 (N, 3, S, S)."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (PREPROCESSING.mean, PREPROCESSING.std))
    return (images.permute(0, 3, 1, 2).double() / 255 - mean) / std


def plain_logits(student: Student, arch: str, paths: list[Triple], images: Tensor) -> Tensor:
    """The logits of `student` on uint8 pictures, in float64, from PAPER.md's equations in plain operations."""
    state = {name: tensor.double() for name, tensor in student.state_dict().items()}
    logits = dict(zip(paths, student.attention.logits.tolist(), strict=True))
    return plain_forward(state, normalised(images), arch, paths, logits)[1]


def standalone(network: Student | Teacher, dtype: torch.dtype, output: str = "logits") -> StandaloneNetwork:
    plan, tensors = lower(network, dtype)
    return StandaloneNetwork(plan, tensors, PREPROCESSING, output).eval()


def pruned_student() -> Student:
    return random_student("resnet18", PRUNED, classes=CLASSES, seed=2)


def model_of(student: Student) -> Model:
    """`student` as if it had been read from a file."""
    document = ModelDocument(
        stage=STUDENT,
        backbone="resnet18.random",
        fingerprint="0" * 64,
        graph=student.graph,
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        preprocessing=PREPROCESSING,
        student={},
        data={},
        settings={},
        metrics={},
    )
    return Model(document, student)


def distance(actual: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest value."""
    assert actual.shape == expected.shape
    scale = expected.abs().max().item()
    assert 1e-6 < scale < 1e12, "the comparison would say nothing"
    return (actual.double() - expected.double()).abs().max().item() / scale
