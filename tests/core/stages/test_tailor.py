"""What tailoring trains, and with which learning rates and weights."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.complexity import ExpectedComplexity, student_graph
from nettailor_cli.core.data import Batch
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages.tailor import TailorTrainee
from nettailor_cli.core.student import Activations, Student
from nettailor_cli.core.training.memory import Memory


@pytest.fixture(scope="module")
def student() -> Student:
    backbone = build_random("resnet18", 0)
    backbone.preprocessing = Preprocessing(size=32)
    made = Student(backbone, student_graph(backbone, 3, skips=1), 3)
    made.start_fresh(torch.Generator().manual_seed(0))
    return made


def batch() -> Batch:
    return Batch(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)), torch.tensor([0, 2]))


def test_logits_have_their_own_learning_rate_and_clip_and_no_decay_and_the_backbone_is_in_no_group(
    student: Student,
) -> None:
    settings = Settings(lr=0.5, logits_lr=0.25, logits_clip=3.0, weight_decay=0.125)
    weights, logits = TailorTrainee(student, None, None, settings).groups()
    assert (weights.lr, weights.weight_decay, weights.clip) == (0.5, 0.125, 0.0)
    assert (logits.lr, logits.weight_decay, logits.clip) == (0.25, 0.0, 3.0)
    assert list(logits.parameters) == ["attention.logits"]
    assert {name.split(".")[0] for name in weights.parameters} == {"proxies", "head"}
    trained = {id(p) for group in (weights, logits) for p in group.parameters.values()}
    assert trained == {id(p) for p in student.parameters() if p.requires_grad}


def test_the_blocks_own_scales_learn_at_a_tenth_of_the_rate_and_adapters_by_shortened_gradients() -> None:
    backbone = build_random("resnet18", 0)
    backbone.preprocessing = Preprocessing(size=32)
    own: dict[str, Any] = {"bn_affine": "tuned", "adapter_rank": 1}
    student = Student(backbone, student_graph(backbone, 3, skips=1, **own), 3, **own)
    groups = TailorTrainee(student, None, None, Settings(lr=0.5, weight_decay=0.125)).groups()
    weights, _, affine, adapters = groups
    assert (affine.lr, affine.weight_decay) == (pytest.approx(0.05), 0.125)
    assert len(affine.parameters) == 2 * 19 and all(name.startswith("universal.") for name in affine.parameters)
    assert (adapters.lr, adapters.weight_decay, adapters.clip) == (0.5, 0.125, 1.0)
    assert {name.split(".")[-2] for name in adapters.parameters} == {"down", "up"}
    assert {name.split(".")[0] for name in weights.parameters} == {"proxies", "head"} and weights.clip == 0.0
    trained = {id(p) for group in groups for p in group.parameters.values()}
    assert trained == {id(p) for p in student.parameters() if p.requires_grad}


@pytest.mark.parametrize("done, share", [(0.0, 0.0), (0.1, 0.5), (0.2, 1.0), (0.9, 1.0)])
def test_gamma1_rises_over_the_first_share_of_the_steps(student: Student, done: float, share: float) -> None:
    complexity = ExpectedComplexity(student.graph, exclusion="independence")
    trainee = TailorTrainee(student, None, complexity, Settings(gamma1=2.0, gamma1_warmup=0.2))
    figures = trainee.losses(batch(), done)
    added = (figures["loss"] - figures["cross_entropy"]).item()
    assert added == pytest.approx(2.0 * share * figures["expected_complexity"].item(), abs=1e-5)
    assert figures["expected_complexity"].item() > 0.1


def test_the_attentions_entropy_weighs_more_with_every_step(student: Student) -> None:
    complexity = ExpectedComplexity(student.graph, exclusion="independence")
    trainee = TailorTrainee(student, None, complexity, Settings(gamma1=0.0, entropy=2.0))
    share = [1 / (1 + math.exp(-4)), 1 / (1 + math.exp(4))]  # every node has its block and one proxy
    for done in (0.0, 0.5, 1.0):
        figures = trainee.losses(batch(), done)
        assert figures["entropy"].item() == pytest.approx(-sum(p * math.log(p) for p in share), rel=1e-5)
        added = (figures["loss"] - figures["cross_entropy"]).item()
        assert added == pytest.approx(2.0 * done * figures["entropy"].item(), abs=1e-5)


def test_without_complexity_and_teacher_the_loss_is_smoothed_cross_entropy(student: Student) -> None:
    figures = TailorTrainee(student, None, None, Settings(label_smoothing=0.3)).losses(batch(), 0.5)
    assert set(figures) == {"loss", "accuracy", "cross_entropy"}
    logs = student(batch().images).logits.log_softmax(dim=1)
    right = logs[torch.arange(2), batch().labels]
    expected = -(0.7 * right + 0.3 * logs.mean(dim=1)).mean()  # a share of the target goes to all classes alike
    assert figures["loss"].item() == pytest.approx(expected.item(), abs=1e-6)


class CountedTeacher(torch.nn.Module):
    """Logits like none of the student's; how often it ran."""

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student, self.calls = student, 0

    def forward(self, images: torch.Tensor) -> Activations:
        self.calls += 1
        given: Activations = self.student(images)
        return replace(given, logits=given.logits.detach() + images.mean())


@pytest.mark.parametrize("weights, calls", [("logits", 2), ("equal", 4)])
def test_trainings_that_share_a_memory_ask_the_teacher_once_for_the_logits_of_a_batch(
    student: Student, weights: str, calls: int
) -> None:
    teacher: Any = CountedTeacher(student)
    batches = [replace(batch(), images=batch().images + number, place=(0, number)) for number in range(2)]
    plain = TailorTrainee(student, teacher, None, Settings(hint_weights=weights))
    expected = [plain.losses(each, 0.5)["loss"].item() for each in batches]
    teacher.calls, memory = 0, Memory()
    for _ in range(2):
        trainee = TailorTrainee(student, teacher, None, Settings(hint_weights=weights), memory=memory)
        assert [trainee.losses(each, 0.5)["loss"].item() for each in batches] == expected
    assert teacher.calls == calls
