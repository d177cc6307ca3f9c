"""Students and teachers as plans, held against the equations written out in plain operations."""

from __future__ import annotations

import pytest
import torch

from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.deploy.lowering import LEAST_SCALE, lower
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher
from tests.core.deploy.networks import (
    PRUNED,
    SIZE,
    distance,
    normalised,
    pictures,
    plain_logits,
    pruned_student,
    standalone,
)
from tests.core.plain import Triple, random_student, shake, strides_of, triples


def check(student: Student, arch: str, paths: list[Triple], size: int = SIZE) -> None:
    images = pictures(size=size)
    expected = plain_logits(student, arch, paths, images)
    with torch.inference_mode():
        assert distance(standalone(student, torch.float64)(images), expected) < 1e-9
        assert distance(standalone(student, torch.float32)(images), expected) < 1e-4


@pytest.mark.parametrize(("arch", "skips"), [("resnet18", 1), ("resnet18", 3), ("resnet18", None), ("resnet50", 2)])
def test_equals_the_unfolded_network(arch: str, skips: int | None) -> None:
    paths = triples(len(strides_of(arch)), skips)
    check(random_student(arch, paths, seed=5), arch, paths)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_equals_it_with_depthwise_convolutions_in_the_proxies(arch: str) -> None:
    paths = triples(len(strides_of(arch)), 2)
    student = random_student(arch, paths, seed=5, proxy_depthwise=True)
    check(student, arch, paths)
    assert {step.groups for step in lower(student)[0].steps if step.output.startswith("proxy3_4")} == {1, 128, 16} - {
        16 if arch == "resnet18" else 128
    }


def test_equals_it_at_a_size_that_halves_unevenly() -> None:
    paths = triples(8, 3)
    check(random_student("resnet18", paths, seed=6), "resnet18", paths, size=50)


def test_adapted_statistics_are_folded_too() -> None:
    paths = triples(8, 2)
    student = random_student("resnet18", paths, bn_stats="adapt", shared=False)
    before = student.state_dict()["universal.1.bn1.running_mean"].clone()
    student.train()(torch.randn(4, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)))
    student.eval()
    assert not torch.equal(student.state_dict()["universal.1.bn1.running_mean"], before)
    check(student, "resnet18", paths)


def test_dead_blocks_are_gone() -> None:
    student = pruned_student()
    check(student, "resnet18", PRUNED)
    plan, tensors = lower(student)
    outputs = {step.output for step in plan.steps}
    assert {name.split("_")[0] for name in outputs if name.startswith("block")} == {"block1", "block3", "block4"}
    proxies = {name.removesuffix("_conv1") for name in outputs if name.startswith("proxy")}
    # where a proxy is alone its convolution is the node
    assert proxies == {"proxy0_1", "proxy1_2", "proxy0_2", "proxy0_3", "proxy2_4", "proxy5_7", "proxy4_7"}
    assert "node6" not in outputs and {"node5", "node8"} <= outputs
    # weights stay as many as they were, two vectors per batch norm become one, and nothing else is there
    weights = sum(p.numel() for p in student.parameters() if p.dim() == 4)
    norms = sum(m.num_features for m in student.modules() if isinstance(m, torch.nn.BatchNorm2d))
    head = sum(p.numel() for p in student.head.parameters())
    assert sum(tensor.numel() for tensor in tensors.values()) == weights + norms + head


def test_a_path_that_has_lost_all_attention_is_dropped_with_everything_that_only_it_reads() -> None:
    """Node 2 is read by block 3 and nothing else; its alpha is exactly 0."""
    paths: list[Triple] = [(0, 1, "u"), (1, 2, "u"), (2, 3, "u"), (1, 3, "p"), (3, 4, "u"), (4, 5, "p"), (5, 8, "p")]
    student = random_student("resnet18", paths, seed=8)
    with torch.no_grad():
        student.attention.logits[2] = -2000.0
    check(student, "resnet18", paths)
    outputs = {step.output for step in lower(student)[0].steps}
    assert "node2" not in outputs and not any(name.startswith(("block2", "block3")) for name in outputs)


def test_small_alphas_stay_out_of_the_activations() -> None:
    """A row of shortcuts without convolutions, alpha about 0.12 each: 0.12, then 0.014 would be below the limit."""
    paths = triples(16, 1)
    student = random_student("resnet50", paths, seed=9)
    with torch.no_grad():
        student.attention.logits.zero_()
        student.attention.logits[1::2] = 2.0
    assert student.attention()[0].item() ** 2 < LEAST_SCALE < student.attention()[0].item()
    check(student, "resnet50", paths)
    depthwise = [step for step in lower(student)[0].steps if step.groups > 1]
    # blocks 1, 4, 8 and 14 have a convolution in the shortcut; behind each every second alpha is one too many
    assert [step.output for step in depthwise] == [f"block{number}_shortcut" for number in (3, 6, 10, 12, 16)]


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_teachers(arch: str) -> None:
    teacher = Teacher(build_random(arch, 1), 5)
    shake(teacher, 2)
    images = pictures(2)
    with torch.inference_mode():
        folded = standalone(teacher, torch.float64)(images)
        expected = teacher.double()(normalised(images)).logits
    assert distance(folded, expected) < 1e-9


def test_the_network_stays_as_it_is() -> None:
    student = pruned_student()
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    _, tensors = lower(student)
    for tensor in tensors.values():
        tensor.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in student.state_dict().items())
