"""The wide ResNet of the Visual Decathlon, held against PAPER.md written out in plain operations."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.backbones.catalog import network
from nettailor_cli.core.complexity import student_graph, untouched_graph
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.frozen import quick_twin
from tests.core.backbones.families.test_families import CPU
from tests.core.plain import shake


def plain(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """Features."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    x = F.relu(norm(F.conv2d(images, state["conv1.weight"], padding=1), "bn1"))
    for number in range(12):
        name, stride = f"blocks.{number}", 2 if number % 4 == 0 else 1
        y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"], stride=stride, padding=1), f"{name}.bn1"))
        y = norm(F.conv2d(y, state[f"{name}.conv2.weight"], padding=1), f"{name}.bn2")
        if stride == 2:
            x = torch.cat([F.avg_pool2d(x, 2), torch.zeros_like(F.avg_pool2d(x, 2))], dim=1)
        x = F.relu(x + y)
    return norm(x, "norm").mean(dim=(2, 3))


def test_it_computes_what_the_paper_says() -> None:
    backbone = build_random("decathlon_wrn26", 0)
    shake(backbone, 1)
    for size in (64, 72):
        images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(size))
        with torch.inference_mode():
            torch.testing.assert_close(backbone(images), plain(backbone.state(), images), rtol=1e-4, atol=1e-5)
    assert backbone.channels == (32, *[64] * 4, *[128] * 4, *[256] * 4)
    assert [scaling.stride for scaling in backbone.scalings] == [2, 1, 1, 1] * 3
    # 26 layers: a stem, 12 blocks of two, a classifier
    assert sum(p.dim() == 4 for p in backbone.parameters()) + 1 == 26


def test_its_cost_is_the_published_one() -> None:
    """5.86 M parameters and 0.87 G for a network, in Table 3 (the mean over ten tasks, at 64 and 72 px)."""
    costs = []
    for size in (64, 72):
        backbone = build_random("decathlon_wrn26", 0)
        backbone.preprocessing = type(backbone.preprocessing)(size)
        costs.append(untouched_graph(backbone, 100).cost)
    assert abs(costs[0].parameters / 1e6 - 5.86) < 0.1
    assert costs[0].macs / 1e9 < 0.87 < costs[1].macs / 1e9 * 1.05
    assert network("decathlon_wrn26").size == 64


def test_the_last_norm_is_the_tasks_own() -> None:
    backbone = build_random("decathlon_wrn26", 0)
    backbone.preprocessing = type(backbone.preprocessing)(16)
    student = Student(backbone, student_graph(backbone, 3, skips=1), 3)
    student.start_fresh(torch.Generator().manual_seed(0))
    assert {"norm.weight", "norm.bias", "norm.running_mean", "norm.running_var"} <= set(student.task_state())
    before = backbone.norm.weight.clone()
    twin = quick_twin(student, CPU)
    student.train()
    assert student.norm.training and not student.stem.training
    twin(torch.randn(4, 3, 16, 16)).logits.square().sum().backward()
    assert student.norm.weight.grad is not None
    assert student.norm.running_mean.abs().max() > 0
    assert torch.equal(backbone.norm.weight, before) and backbone.norm.weight.grad is None
    assert backbone.norm.running_mean.abs().max() == 0
