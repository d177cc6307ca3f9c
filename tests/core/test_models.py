from __future__ import annotations

from typing import Any

import pytest
import torch

from nettailor_cli.core import models
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.student import Student
from tests.core.plain import random_student, shared_backbone, triples
from tests.core.test_delta import document


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ({"bn_stats": "frozen", "proxy_width": 2**16}, "has shape"),
        ({"bn_stats": "adapt", "proxy_width": 5}, "lacks the tensor"),
    ],
)
def test_what_a_file_claims_is_compared_with_its_tensors_before_anything_is_allocated(
    said: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    student = random_student("resnet50", triples(16, 1), proxy_width=5)
    claims = document(graph=student.graph, classes=tuple(map(str, range(7))), student=said, backbone="resnet50.x")
    where = []

    def make(*args: Any, **kwargs: Any) -> Student:
        where.append(torch.get_default_device().type)
        return Student(*args, **kwargs)

    monkeypatch.setattr(models, "Student", make)
    with pytest.raises(FileError, match=reason):
        models.student_from(claims, student.task_state(), shared_backbone("resnet50"))
    assert where == ["meta"]
    honest = document(graph=student.graph, classes=claims.classes, student={"bn_stats": "frozen", "proxy_width": 5})
    before = torch.get_rng_state()
    loaded = models.student_from(honest, student.task_state(), shared_backbone("resnet50"))
    assert where == ["meta", "meta", "cpu"]
    assert all(torch.equal(loaded.task_state()[name], tensor) for name, tensor in student.task_state().items())
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    Student(shared_backbone("resnet50"), student.graph, 7, proxy_width=5)
    assert torch.equal(torch.get_rng_state(), after), "the comparison draws no random numbers"
