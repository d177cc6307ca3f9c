from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from nettailor_cli.core.adapters import AdaptedConv, adaptable, has_norms, merge, start_fresh, with_own_parts
from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.student import Once, Student
from nettailor_cli.core.task_tensors import tensors_for
from tests.core.deploy.networks import SIZE
from tests.core.deploy.test_lowering import check
from tests.core.plain import assert_same, fresh_backbone, triples
from tests.core.test_student import compare_with_plain

OWN = {"bn_affine": "tuned", "adapter_rank": 4}


def own_student(arch: str = "resnet18", size: int = 64, seed: int = 0, **more: int) -> Student:
    """With parts of its own inside the blocks that do something."""
    backbone = fresh_backbone(arch)
    backbone.preprocessing = Preprocessing(size)
    graph = student_graph(backbone, 3, skips=1, **OWN, **more)  # type: ignore[arg-type]
    student = Student(backbone, graph, 3, **OWN)  # type: ignore[arg-type]
    student.start_fresh(torch.Generator().manual_seed(seed))
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for name, parameter in student.universal.named_parameters():
            if parameter.requires_grad and parameter.dim() == 4:
                parameter.normal_(0, 0.05, generator=generator)
            elif parameter.requires_grad:
                parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
                assert "bn" in name or "downsample.1" in name
    return student.eval()


@pytest.mark.parametrize(("stride", "kernel", "dilation"), [(1, 3, 1), (2, 3, 1), (2, 1, 1), (1, 5, 2), (3, 3, 1)])
@pytest.mark.parametrize("size", [7, 12])
def test_an_adapter_adds_two_matrices_at_every_position_of_its_convolution(
    stride: int, kernel: int, dilation: int, size: int
) -> None:
    torch.manual_seed(0)
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(6, 8, kernel, stride=stride, padding=padding, dilation=dilation).double()
    adapted = AdaptedConv(conv, 2).double()
    x = torch.randn(2, 6, size, size, dtype=torch.float64)
    matrix = adapted.up.weight.flatten(1) @ adapted.down.weight.flatten(1)
    expected = conv(x).clone()
    for row in range(expected.shape[2]):
        for column in range(expected.shape[3]):
            expected[:, :, row, column] += x[:, :, stride * row, stride * column] @ matrix.T
    torch.testing.assert_close(adapted(x), expected)
    merged = adapted.merged()
    assert type(merged) is nn.Conv2d and merged.weight.shape == conv.weight.shape
    torch.testing.assert_close(merged(x), expected)


def test_adapters_stand_beside_convolutions_that_they_cost_less_than() -> None:
    assert adaptable(nn.Conv2d(8, 8, 3, padding=1), 1)
    assert adaptable(nn.Conv2d(8, 8, 1), 3) and not adaptable(nn.Conv2d(8, 8, 1), 4)
    assert not adaptable(nn.Conv2d(8, 8, 3, padding=1), 0)
    assert not adaptable(nn.Conv2d(8, 8, 3, padding=1, groups=2), 1)
    assert not adaptable(nn.Conv2d(8, 8, 2, padding=1, dilation=2), 1), "it has no tap in the middle"
    assert not adaptable(nn.Conv2d(8, 8, 3), 1), "an adapter would see other positions"
    assert not adaptable(nn.Conv2d(8, 8, 3, padding="same"), 1)
    assert not adaptable(nn.Linear(8, 8), 1)


def test_a_block_without_own_parts_is_the_block_itself() -> None:
    block = fresh_backbone("resnet18").blocks[0]
    assert with_own_parts(block) is block and merge(block) is block
    plain = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
    assert with_own_parts(plain, bn_affine="tuned", adapter_rank=1) is plain, "off-centre, and no batch norm"
    assert has_norms(block) and not has_norms(plain)


def test_own_parts_change_nothing_at_the_start_and_share_what_is_frozen() -> None:
    block = fresh_backbone("resnet18").blocks[2].requires_grad_(False).eval()
    before = copy.deepcopy(block.state_dict())
    own = with_own_parts(block, bn_affine="tuned", adapter_rank=4).eval()
    start_fresh(own, torch.Generator().manual_seed(0))
    x = torch.randn(2, 64, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(own(x), block(x))
    frozen = {id(tensor) for tensor in (*block.parameters(), *block.buffers())}
    ours = {name: p for name, p in own.named_parameters() if id(p) not in frozen}
    assert {name for name, p in own.named_parameters() if p.requires_grad} == ours.keys()
    assert {name.rsplit(".", 1)[0] for name in ours} == {
        "bn1", "bn2", "downsample.1", "conv1.down", "conv1.up", "conv2.down", "conv2.up", "downsample.0.down",
        "downsample.0.up",
    }  # fmt: skip
    assert all(id(buffer) in frozen for buffer in own.buffers())
    with torch.no_grad():
        for parameter in ours.values():
            parameter.add_(1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in block.state_dict().items())


def test_a_students_own_parts_cost_what_they_cost_by_hand() -> None:
    backbone = fresh_backbone("resnet18")
    backbone.preprocessing = Preprocessing(64)  # nodes of 16, 16, 16, 8, 8 ... positions a side
    plain = student_graph(backbone, 3, skips=1)
    tuned = student_graph(backbone, 3, skips=1, bn_affine="tuned")
    both = student_graph(backbone, 3, skips=1, **OWN)  # type: ignore[arg-type]
    first, third = (both.into(node)[0] for node in (1, 3))
    adapters = 2 * 4 * (64 + 64)
    assert first.own.parameters == 2 * 2 * 64 + adapters
    assert first.own.macs == adapters * 16 * 16
    # conv1 64 -> 128, conv2 128 -> 128, downsample 64 -> 128, three batch norms
    adapters = 4 * (64 + 128) + 4 * (128 + 128) + 4 * (64 + 128)
    assert third.own.parameters == 3 * 2 * 128 + adapters
    assert third.own.macs == adapters * 8 * 8
    for graph in (tuned, both):
        assert graph.blocks == plain.blocks and graph.backbone == plain.backbone
        for path, old in zip(graph.universal, plain.universal, strict=True):
            added = path.own.parameters if graph is both else 0
            norms = sum(2 * 64 * 2 ** ((path.sink - 1) // 2) for _ in range(3 if path.sink in (3, 5, 7) else 2))
            assert path.cost.macs == old.cost.macs + path.own.macs
            assert path.cost.parameters == old.cost.parameters + (added - norms if added else 0)
            assert path.universal_cost.parameters == old.cost.parameters - norms
        assert graph.cost == graph.universal_cost + graph.task_cost
        assert Graph.from_json(graph.to_json()) == graph
    assert tuned.cost.parameters == plain.cost.parameters and tuned.cost.macs == plain.cost.macs


def test_the_shared_prefix_has_nothing_of_the_tasks_own() -> None:
    student = own_student(shared_prefix=2)
    assert [path.own.parameters > 0 for path in student.graph.universal] == [False, False] + [True] * 6
    assert not any(p.requires_grad for node in "12" for p in student.universal[node].parameters())


def test_only_the_tasks_parts_are_trained_and_saved() -> None:
    backbone = fresh_backbone("resnet18")
    backbone.preprocessing = Preprocessing(64)
    graph = student_graph(backbone, 3, skips=1, **OWN)  # type: ignore[arg-type]
    student = Student(backbone, graph, 3, **OWN)  # type: ignore[arg-type]
    student.start_fresh(torch.Generator().manual_seed(0))
    frozen = copy.deepcopy(backbone.state_dict())
    trained = {name: p for name, p in student.named_parameters() if p.requires_grad}
    optimiser = torch.optim.SGD(trained.values(), 0.1)
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    before = {name: p.detach().clone() for name, p in trained.items()}
    for _ in range(2):  # `down` has no gradient while `up` is zero
        student.train()
        optimiser.zero_grad()
        F.cross_entropy(student(images).logits, torch.tensor([0, 1, 2, 0])).backward()
        optimiser.step()
    assert all(not torch.equal(before[name], parameter) for name, parameter in trained.items())
    assert all(torch.equal(frozen[name], tensor) for name, tensor in backbone.state_dict().items())
    state = student.task_state()
    assert trained.keys() <= state.keys()
    others = {name for name in state.keys() - trained.keys() if not name.startswith("proxies.")}
    assert not others, "the proxies' statistics are all that is saved beside"
    assert state.keys() >= {"universal.1.bn1.weight", "universal.3.downsample.0.up.weight"}


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_a_smaller_graph_keeps_the_own_parts_of_the_blocks_that_stay(arch: str) -> None:
    student = own_student(arch)
    graph = student.attended_graph().keeping(lambda path: not path.is_universal or path.sink in (1, 3))
    backbone = fresh_backbone(arch)
    smaller = Student(backbone, graph, 3, **OWN)  # type: ignore[arg-type]
    state = tensors_for(graph, [(student.graph, student.task_state())])
    smaller.load_task_state(state)
    kept = {name.split(".")[1] for name in state if name.startswith("universal.")}
    assert kept == {"1", "3"}
    for node in kept:
        theirs, ours = student.universal[node].state_dict(), smaller.universal[node].state_dict()
        assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


def test_two_students_of_one_backbone_have_parts_of_their_own_each() -> None:
    backbone = fresh_backbone("resnet18")
    backbone.preprocessing = Preprocessing(64)
    graph = student_graph(backbone, 3, skips=1, **OWN)  # type: ignore[arg-type]
    one, other = (Student(backbone, graph, 3, **OWN) for _ in range(2))  # type: ignore[arg-type]
    one.load_task_state(own_student(seed=1).task_state())
    other.load_task_state(own_student(seed=2).task_state())
    assert one.universal["1"].bn1.weight is not other.universal["1"].bn1.weight
    assert torch.equal(one.universal["1"].bn1.weight, own_student(seed=1).universal["1"].bn1.weight)
    assert one.universal["1"].conv1.conv.weight is other.universal["1"].conv1.conv.weight


@pytest.mark.parametrize("size", [64, 75])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_student_computes_equations_2_to_4_with_them(arch: str, size: int) -> None:
    student = own_student(arch, size)
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(size))
    with torch.no_grad():
        compare_with_plain(student, arch, triples(len(student.universal), 1), images)


@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_standing_alone_it_computes_the_same_without_adapters(arch: str) -> None:
    student = own_student(arch, SIZE)
    paths = triples(len(student.universal), 1)
    check(student, arch, paths)
    adapters = {name for name, _ in student.named_parameters() if ".down." in name or ".up." in name}
    convs = [p for name, p in student.named_parameters() if p.dim() == 4 and name not in adapters]
    plan, tensors = lower(student)
    assert sum(step.op == "conv" for step in plan.steps) == len(convs)
    assert sum(t.numel() for t in tensors.values() if t.dim() == 4) == sum(p.numel() for p in convs)


def test_what_a_task_has_of_its_own_is_not_kept_for_others() -> None:
    backbone = fresh_backbone("resnet18")
    backbone.preprocessing = Preprocessing(64)
    graph = student_graph(backbone, 3, skips=1, **OWN)  # type: ignore[arg-type]
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    once, calls = Once(images), []
    backbone.stem.register_forward_hook(lambda *_: calls.append(1))
    kept = []
    for seed in (1, 2, 3):
        student = Student(backbone, graph, 3, **OWN)  # type: ignore[arg-type]
        student.load_task_state(own_student(seed=seed).task_state())
        with torch.no_grad():
            assert torch.equal(student(images, once).logits, student(images).logits)
        kept.append(len(once._kept))
    assert len(calls) == 1 + 3 and kept[0] == kept[1] == kept[2]


def test_merging_adapters_changes_nothing_but_rounding_and_leaves_the_block_as_it_is() -> None:
    block = own_student().universal["3"]
    merged = merge(block).double()
    assert not any(isinstance(layer, AdaptedConv) for layer in merged.modules())
    assert any(isinstance(layer, AdaptedConv) for layer in block.modules())
    x = torch.randn(2, 64, 9, 9, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert_same(merged(x.double()).float(), block(x))
