from __future__ import annotations

import torch
from torch import nn

from nettailor_cli.core.backbones.backbone import build_random
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.data import Batch
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.gradients import synchronise_norms
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.statistics import re_estimate

CPU = Machine(torch.device("cpu"), bf16=False, reason="a test")


def make_student(bn_stats: str) -> Student:
    backbone = build_random("resnet18", 0)
    backbone.preprocessing = Preprocessing(size=32)
    student = Student(backbone, student_graph(backbone, 3, skips=1), 3, bn_stats=bn_stats)
    student.start_fresh(torch.Generator().manual_seed(0))
    return student


def batches(count: int) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    return [
        Batch(torch.randn(4, 3, 32, 32, generator=generator), torch.zeros(4, dtype=torch.int64)) for _ in range(count)
    ]


def norms(student: Student) -> dict[str, nn.BatchNorm2d]:
    return {name: module for name, module in student.named_modules() if isinstance(module, nn.BatchNorm2d)}


def test_the_first_proxys_statistics_are_the_plain_means_over_the_batches() -> None:
    student, pictures = make_student("frozen"), batches(3)
    re_estimate(student, pictures, CPU)
    proxy = student.proxies["0-1"]
    with torch.no_grad():
        inputs = [proxy.conv(student.stem(batch.images)) for batch in pictures]
    mean = torch.stack([x.mean(dim=(0, 2, 3)) for x in inputs]).mean(dim=0)
    variance = torch.stack([x.var(dim=(0, 2, 3), unbiased=True) for x in inputs]).mean(dim=0)
    torch.testing.assert_close(proxy.bn.running_mean, mean)
    torch.testing.assert_close(proxy.bn.running_var, variance)


def test_norms_that_several_processes_share_on_cuda_are_measured_as_others() -> None:
    alone, together = make_student("frozen"), make_student("frozen")
    synchronise_norms(together)
    for student in (alone, together):
        re_estimate(student, batches(2), CPU)
    assert isinstance(together.proxies["0-1"].bn, nn.SyncBatchNorm)
    torch.testing.assert_close(together.proxies["0-1"].bn.running_var, alone.proxies["0-1"].bn.running_var)


def test_what_was_known_before_counts_nothing() -> None:
    student, pictures = make_student("frozen"), batches(2)
    re_estimate(student, pictures, CPU)
    once = {name: norm.running_var.clone() for name, norm in norms(student).items() if norm.running_var is not None}
    for name, norm in norms(student).items():
        if name.startswith("proxies"):
            norm.running_var.fill_(7)
    re_estimate(student, pictures, CPU)
    for name, variance in once.items():
        torch.testing.assert_close(norms(student)[name].running_var, variance, rtol=0, atol=0)


def test_frozen_statistics_stay_and_adapted_ones_are_measured_too() -> None:
    for bn_stats, moves in (("frozen", False), ("adapt", True)):
        student = make_student(bn_stats)
        before = {name: norm.running_mean.clone() for name, norm in norms(student).items()}
        re_estimate(student, batches(2), CPU)
        moved = {name for name, norm in norms(student).items() if not torch.equal(norm.running_mean, before[name])}
        assert any(name.startswith("proxies") for name in moved)
        assert any(name.startswith(("stem", "universal")) for name in moved) == moves


def test_nothing_else_changes() -> None:
    student = make_student("adapt")
    parameters = {name: p.detach().clone() for name, p in student.named_parameters()}
    re_estimate(student, batches(1), CPU)
    assert all(torch.equal(p, parameters[name]) for name, p in student.named_parameters())
    assert not student.training
    assert {norm.momentum for norm in norms(student).values()} == {0.1}
