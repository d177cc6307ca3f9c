"""Batch norms folded into convolutions."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nettailor_cli.core.folding import fold, fold_proxies
from tests.core.deploy.networks import distance
from tests.core.plain import random_student, strides_of, triples


def test_a_case_worked_by_hand() -> None:
    """4 * BN(2 * 3x) with gamma 5, beta 7, mean 11, variance 16 - eps: 4 * (5 * (6x - 11) / 4 + 7) = 30x - 27."""
    conv, bn = nn.Conv2d(1, 1, 1, bias=False), nn.BatchNorm2d(1)
    with torch.no_grad():
        conv.weight.fill_(2)
        bn.weight.fill_(5)
        bn.bias.fill_(7)
        bn.running_mean.fill_(11)
        bn.running_var.fill_(16)
    bn.eps = 0.0
    weight, bias = fold(conv, bn, scale=3, gain=4)
    assert weight.dtype == torch.float64 and weight.tolist() == [[[[30.0]]]]
    assert bias.tolist() == [-27.0]


def test_what_is_folded_already_takes_scale_and_gain() -> None:
    """4 * (2 * 3x + 5) = 24x + 20."""
    conv = nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        conv.weight.fill_(2)
        assert conv.bias is not None
        conv.bias.fill_(5)
    weight, bias = fold(conv, None, scale=3, gain=4)
    assert weight.tolist() == [[[[24.0]]]]
    assert bias.tolist() == [20.0]


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize(("arch", "bn_stats"), [("resnet18", "frozen"), ("resnet18", "adapt"), ("resnet50", "frozen")])
def test_a_student_with_folded_proxies_computes_the_same(arch: str, bn_stats: str, *, depthwise: bool) -> None:
    paths = triples(len(strides_of(arch)), 1)
    student = random_student(arch, paths, bn_stats=bn_stats, proxy_depthwise=depthwise, seed=3)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    shared = {name: tensor for name, tensor in student.state_dict().items() if not name.startswith("proxies")}
    before = {name: tensor.clone() for name, tensor in shared.items()}
    with torch.inference_mode():
        expected = student(images)
        assert fold_proxies(student) is student
        assert distance(student(images).logits, expected.logits) < 1e-5
    assert not any(isinstance(module, nn.BatchNorm2d) for module in student.proxies.modules())
    assert not any(parameter.requires_grad for parameter in student.proxies.parameters())
    # everything else is the same memory with the same values: other tasks use it
    for name, tensor in student.state_dict().items():
        if name in shared:
            assert tensor.data_ptr() == shared[name].data_ptr() and torch.equal(tensor, before[name])


def test_folding_proxies_in_float64_is_exact_and_happens_once() -> None:
    student = random_student("resnet18", triples(8, 3), seed=4, shared=False).double()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.inference_mode():
        expected = student(images).logits
        fold_proxies(student)
        assert distance(student(images).logits, expected) < 1e-12
    proxies = dict(student.proxies.items())
    fold_proxies(student)
    assert all(student.proxies[key] is proxy for key, proxy in proxies.items())


def test_a_folded_student_is_not_mistaken_for_one_that_can_be_written() -> None:
    student = random_student("resnet18", triples(8, 1))
    names = set(student.task_state())
    assert set(fold_proxies(student).task_state()) != names
