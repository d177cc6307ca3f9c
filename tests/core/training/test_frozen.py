from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from nettailor_cli.core.backbones.backbone import Backbone, build_random
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.frozen import quick, quick_twin
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.taps import TapwiseConv2d

FP32 = Machine(torch.device("cpu"), bf16=False, reason="a test")
BF16 = Machine(torch.device("cpu"), bf16=True, reason="a test")


def lively(arch: str) -> Backbone:
    """Random weights with batch norms that do something."""
    backbone = build_random(arch, 0)
    backbone.preprocessing = Preprocessing(size=32)
    torch.manual_seed(0)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return backbone


OWN = {"bn_affine": "tuned", "adapter_rank": 2}
with_and_without_own_parts = pytest.mark.parametrize("own", [{}, {"bn_affine": "tuned"}, {"adapter_rank": 2}, OWN])


def make_student(arch: str = "resnet18", bn_stats: str = "frozen", own: dict[str, Any] | None = None) -> Student:
    backbone, own = lively(arch), own or {}
    student = Student(backbone, student_graph(backbone, 3, skips=1, **own), 3, bn_stats=bn_stats, **own)
    student.start_fresh(torch.Generator().manual_seed(0))
    with torch.no_grad():
        for parameter in student.universal.parameters():
            if parameter.requires_grad and parameter.dim() == 4:  # adapters do nothing at the start
                parameter.fill_(0.01)
    return student


IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("arch", ["resnet18", "resnet50", "resnext50_32x4d"])
def test_folding_changes_nothing_but_rounding_and_leaves_no_batch_norm(arch: str) -> None:
    exact = lively(arch).double()
    folded = copy.deepcopy(exact)
    quick(folded, FP32)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in folded.modules())
    with torch.no_grad():
        expected, found = exact(IMAGES.double()), folded(IMAGES.double())
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    quick(folded, FP32)
    with torch.no_grad():
        assert torch.equal(folded(IMAGES.double()), found)


@with_and_without_own_parts
def test_the_twin_shares_what_is_trained_and_only_that(own: dict[str, Any]) -> None:
    student = make_student(own=own)
    twin = quick_twin(student, BF16)
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    assert {name: p for name, p in twin.named_parameters() if p.requires_grad}.keys() == trained.keys()
    assert all(dict(twin.named_parameters())[name] is p for name, p in trained.items())
    assert next(student.stem.parameters()).dtype == torch.float32
    assert next(twin.stem.parameters()).dtype == torch.bfloat16
    norms = [module for module in twin.universal.modules() if isinstance(module, nn.BatchNorm2d)]
    exact = {id(tensor) for norm in norms for tensor in (*norm.parameters(), *norm.buffers())}
    for tensor in (*twin.universal.parameters(), *twin.universal.buffers()):
        if tensor.is_floating_point():
            kept = tensor.requires_grad or id(tensor) in exact
            assert tensor.dtype == (torch.float32 if kept else torch.bfloat16)
    assert len(norms) == (19 if own else 0), "folded, but those that are tuned or stand behind an adapter"


@pytest.mark.parametrize("machine", [FP32, BF16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("arch", ["resnet18", "alexnet"])
def test_to_make_a_network_quick_changes_no_tensor_that_others_may_hold(arch: str, machine: Machine) -> None:
    network = lively(arch)
    held = {name: (tensor, tensor.clone()) for name, tensor in network.state_dict(keep_vars=True).items()}
    quick(network, machine)
    for tensor, before in held.values():
        assert tensor.dtype == before.dtype and tensor.stride() == before.stride() and torch.equal(tensor, before)


@with_and_without_own_parts
def test_the_twins_output_and_gradients_are_the_students(own: dict[str, Any]) -> None:
    student = make_student(own=own)
    twin = quick_twin(student, FP32)
    gradients = []
    for network in (student, twin):
        student.zero_grad()
        student.train()
        network(IMAGES).logits.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in student.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-3, atol=1e-5, msg=name)
    student.eval()
    with torch.no_grad():
        torch.testing.assert_close(twin(IMAGES).logits, student(IMAGES).logits, rtol=1e-4, atol=1e-5)


def test_proxies_of_the_twin_follow_the_students_mode() -> None:
    student = make_student()
    twin = quick_twin(student, FP32)
    student.train()
    assert all(proxy.training for proxy in twin.proxies.values())
    student.eval()
    assert not any(proxy.training for proxy in twin.proxies.values())


def test_adapted_statistics_are_not_folded_away() -> None:
    student = make_student(bn_stats="adapt")
    assert quick_twin(student, BF16) is student


def test_in_fp32_wide_convolutions_of_the_quick_twin_go_tap_by_tap_and_the_students_own_stay() -> None:
    student = make_student()
    twin = quick_twin(student, FP32)
    assert sum(isinstance(module, TapwiseConv2d) for module in twin.modules()) == 7  # 3 of stage 3, 4 of stage 4
    assert not any(isinstance(module, TapwiseConv2d) for module in student.modules())
    assert not any(isinstance(module, TapwiseConv2d) for module in quick_twin(make_student(), BF16).modules())
