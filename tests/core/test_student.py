from __future__ import annotations

import weakref

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.complexity import student_graph
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.student import Attention, Once, Student
from tests.core.plain import (
    Triple,
    assert_same,
    free_graph,
    fresh_backbone,
    plain_forward,
    random_student,
    shared_backbone,
    strides_of,
    triples,
)

# Of resnet18's graph: node 6 is gone altogether, nodes 2, 5, 7 and 8 live on proxies alone.
PRUNED: list[Triple] = [
    (0, 1, "u"),
    (0, 1, "p"),
    (1, 2, "p"),
    (0, 2, "p"),
    (2, 3, "u"),
    (0, 3, "p"),
    (3, 4, "u"),
    (4, 5, "p"),
    (2, 5, "p"),
    (5, 7, "p"),
    (4, 7, "p"),
    (7, 8, "p"),
    (5, 8, "p"),
]


def images_of(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


def compare_with_plain(student: Student, arch: str, paths: list[Triple], images: Tensor) -> None:
    with torch.no_grad():
        activations = student(images)
        logits = dict(zip(paths, student.attention.logits.tolist(), strict=True))
        nodes, class_logits = plain_forward(student.state_dict(), images, arch, paths, logits)
    for number, x in enumerate(activations.nodes):
        if number in nodes:
            assert x is not None
            assert_same(x, nodes[number])
        else:
            assert x is None
    assert_same(activations.logits, class_logits)


@pytest.mark.parametrize("size", [64, 72, 100])
@pytest.mark.parametrize("skips", [1, 3, None])
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_student_computes_equations_2_to_4(arch: str, skips: int | None, size: int) -> None:
    paths = triples(len(strides_of(arch)), skips)
    compare_with_plain(random_student(arch, paths, seed=size), arch, paths, images_of(size))


def test_the_student_computes_equations_2_to_4_on_large_pictures() -> None:
    paths = triples(8, 3)
    compare_with_plain(random_student("resnet18", paths, seed=1), "resnet18", paths, images_of(300, 1))


@pytest.mark.parametrize("size", [64, 100])
def test_a_pruned_student_computes_what_is_left(size: int) -> None:
    compare_with_plain(random_student("resnet18", PRUNED, seed=2), "resnet18", PRUNED, images_of(size))


def test_the_width_inside_bottleneck_proxies_can_be_chosen() -> None:
    paths = triples(16, 1)
    student = random_student("resnet50", paths, proxy_width=5)
    assert student.state_dict()["proxies.3-4.conv1.weight"].shape == (5, 256, 1, 1)
    assert student.state_dict()["proxies.3-4.conv2.weight"].shape == (512, 5, 1, 1)
    compare_with_plain(student, "resnet50", paths, images_of(64, 1))


@pytest.mark.parametrize(("arch", "width"), [("resnet18", None), ("resnet18", 5), ("resnet50", None)])
def test_proxies_can_look_at_their_neighbours(arch: str, width: int | None) -> None:
    paths = triples(len(strides_of(arch)), 2)
    student = random_student(arch, paths, proxy_width=width, proxy_depthwise=True)
    inside = {"resnet18": width or 64, "resnet50": 16}[arch]
    assert student.state_dict()["proxies.0-1.depthwise.weight"].shape == (inside, 1, 3, 3)
    compare_with_plain(student, arch, paths, images_of(64, 1))


def test_bottleneck_proxies_have_the_released_codes_width() -> None:
    shapes = {
        n: tuple(t.shape) for n, t in random_student("resnet50", triples(16, 1)).state_dict().items() if "conv1" in n
    }
    assert shapes["proxies.0-1.conv1.weight"] == (16, 64, 1, 1)  # max(256 // 32, 16)
    assert shapes["proxies.3-4.conv1.weight"] == (16, 256, 1, 1)  # max(512 // 32, 16)
    assert shapes["proxies.7-8.conv1.weight"] == (32, 512, 1, 1)  # 1024 // 32
    assert shapes["proxies.13-14.conv1.weight"] == (64, 1024, 1, 1)  # 2048 // 32


def test_alpha_is_a_softmax_over_the_paths_that_merge_in_a_node() -> None:
    attention = Attention([1, 1, 2, 4, 4, 4])
    logits = torch.tensor([0.0, 2.0, -7.0, 1.0, 1.0, 3.0])
    e = torch.exp(torch.tensor(2.0)).item()
    expected = [1 / (1 + e), e / (1 + e), 1.0, 1 / (2 + e), 1 / (2 + e), e / (2 + e)]
    assert attention(logits).tolist() == pytest.approx(expected, rel=1e-6)


def test_a_softmax_of_extreme_logits_stays_finite_and_differentiable() -> None:
    attention = Attention([1, 1, 2, 2, 2])
    with torch.no_grad():
        attention.logits.copy_(torch.tensor([500.0, -500.0, 1e4, -1e4, 1e4]))
    alpha = attention()
    alpha[[0, 2]].sum().backward()
    assert alpha.tolist() == [1.0, 0.0, 0.5, 0.0, 0.5]
    assert torch.isfinite(attention.logits.grad).all()


def test_a_saturated_attention_keeps_its_ranking_in_the_graph() -> None:
    student = random_student("resnet18", triples(8, 1))
    with torch.no_grad():
        student.attention.logits.zero_()
        student.attention.logits[::2] = torch.arange(20.0, 36.0, 2.0)
    alphas = [path.alpha for path in student.attended_graph().universal]
    assert student.attention()[::2].unique().numel() < 8, "in float32 they are not told apart"
    assert alphas == sorted(alphas)
    assert len(set(alphas)) == 8


def test_a_fresh_student_favours_the_universal_path_and_its_proxies_are_nearly_silent() -> None:
    student = random_student("resnet18", triples(8, 3), seed=5)
    student.start_fresh(torch.Generator().manual_seed(1))
    logits = [+2.0 if kind == "u" else -2.0 for _, _, kind in triples(8, 3)]
    assert student.attention.logits.tolist() == logits
    convolutions = torch.cat([p.flatten() for n, p in student.proxies.named_parameters() if "conv" in n])
    assert convolutions.mean().item() == pytest.approx(0, abs=1e-4)
    assert convolutions.std().item() == pytest.approx(0.01, rel=0.01)


def test_a_new_students_proxy_batch_norms_are_1_and_0() -> None:
    student = Student(shared_backbone("resnet18"), free_graph(8, triples(8, 1)), 3)
    norms = {n: p for n, p in student.proxies.named_parameters() if "bn" in n}
    assert len(norms) == 16
    assert all(p.eq(1.0 if n.endswith("weight") else 0.0).all() for n, p in norms.items())


def test_a_fresh_start_depends_on_its_generator_alone() -> None:
    def start(ambient: int, seed: int) -> dict[str, Tensor]:
        torch.manual_seed(ambient)
        student = Student(shared_backbone("resnet18"), free_graph(8, triples(8, 1)), 3)
        student.start_fresh(torch.Generator().manual_seed(seed))
        return {name: tensor.clone() for name, tensor in student.task_state().items()}

    one, two, other = start(1, 7), start(2, 7), start(1, 8)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert not torch.equal(one["proxies.0-1.conv.weight"], other["proxies.0-1.conv.weight"])


def train_a_step(student: Student) -> None:
    student.train()
    optimiser = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(2):
        activations = student(images_of(64, 4))
        (activations.logits.square().mean() + sum(x.mean() for x in activations.nodes if x is not None)).backward()
        optimiser.step()


def test_frozen_training_leaves_the_backbone_bit_identical() -> None:
    backbone = fresh_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state().items()}
    student = random_student_on(backbone, "frozen")
    own = {name: tensor.clone() for name, tensor in student.task_state().items()}
    train_a_step(student)
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state().items())
    assert all(not torch.equal(own[name], tensor) for name, tensor in student.task_state().items())


def random_student_on(backbone: torch.nn.Module, bn_stats: str) -> Student:
    student = Student(backbone, free_graph(8, triples(8, 3)), 5, bn_stats=bn_stats)
    student.start_fresh(torch.Generator().manual_seed(0))
    return student


def test_adapting_changes_the_running_statistics_and_nothing_else_of_the_backbone() -> None:
    backbone = fresh_backbone("resnet18")
    before = {name: tensor.clone() for name, tensor in backbone.state().items()}
    student = random_student_on(backbone, "adapt")
    train_a_step(student)
    for name, tensor in backbone.state().items():
        if name.endswith(("running_mean", "running_var")):
            assert not torch.equal(before[name], tensor), name
        elif not name.endswith("num_batches_tracked"):
            assert torch.equal(before[name], tensor), name


def test_adapted_statistics_are_kept_with_the_task_and_frozen_ones_are_not() -> None:
    statistics = {
        name
        for name in random_student("resnet18", triples(8, 1)).state_dict()
        if name.startswith(("stem.", "universal.")) and name.endswith(("running_mean", "running_var"))
    }
    assert len(statistics) == 2 * 20  # ResNet-18 has 20 batch norms
    frozen = random_student("resnet18", triples(8, 1), bn_stats="frozen").task_state()
    adapted = random_student("resnet18", triples(8, 1), bn_stats="adapt").task_state()
    assert adapted.keys() - frozen.keys() == statistics
    assert not any(name.startswith(("stem", "universal")) for name in frozen)


def test_resnet34s_adapted_statistics_are_17024_floats() -> None:
    state = random_student("resnet34", triples(16, 1), bn_stats="adapt").task_state()
    assert sum(t.numel() for n, t in state.items() if n.startswith(("stem.", "universal."))) == 17_024


def test_an_adapted_students_task_state_restores_it_on_a_fresh_backbone() -> None:
    student = random_student_on(fresh_backbone("resnet18"), "adapt")
    train_a_step(student)
    other = random_student_on(fresh_backbone("resnet18"), "adapt")
    other.load_task_state(student.task_state())
    with torch.no_grad():
        assert torch.equal(student.eval()(images_of(64)).logits, other.eval()(images_of(64)).logits)


def test_a_task_state_of_other_names_or_shapes_is_refused() -> None:
    student = random_student("resnet18", triples(8, 1))
    state = {name: tensor.clone() for name, tensor in student.task_state().items()}
    head = state["head.bias"].clone()
    for wrong in (
        {name: tensor for name, tensor in state.items() if name != "head.bias"},
        {**state, "proxies.0-8.conv.weight": torch.zeros(1)},
        {**state, "attention.logits": torch.zeros(17)},
    ):
        with pytest.raises(FileError):
            student.load_task_state({name: torch.zeros_like(tensor) for name, tensor in wrong.items()})
        assert torch.equal(student.head.bias, head), "nothing is changed by a state that is refused"


def test_where_the_logits_start_can_be_chosen_and_the_graph_says_the_same() -> None:
    backbone = fresh_backbone("resnet18")
    graph = student_graph(backbone, 3, skips=2, logits_lead=1.0)
    student = Student(backbone, graph, 3)
    student.start_fresh(torch.Generator().manual_seed(0), logits_lead=1.0)
    assert set(student.attention.logits.tolist()) == {0.5, -0.5}
    alphas = [path.alpha for path in student.attended_graph().paths]
    assert alphas == pytest.approx([path.alpha for path in graph.paths], rel=1e-6)


def test_only_task_parameters_get_gradients() -> None:
    student = random_student_on(fresh_backbone("resnet18"), "adapt").train()
    student(images_of(64, 4)).logits.square().sum().backward()
    with_gradient = {name for name, p in student.named_parameters() if p.grad is not None and p.grad.any()}
    task = {n for n, _ in student.named_parameters() if n.startswith(("proxies.", "attention.", "head."))}
    assert with_gradient == task


def gradients_of(student: Student, loss: Tensor) -> tuple[set[int], set[int]]:
    """The nodes whose proxies, and whose logits, get a gradient from `loss`."""
    student.zero_grad(set_to_none=True)
    if loss.requires_grad:  # a lone universal path has nothing to train
        loss.backward(retain_graph=True)
    assert student.head.weight.grad is None
    proxies = {
        int(name.split(".")[1].split("-")[1])
        for name, p in student.named_parameters()
        if name.startswith("proxies.") and p.grad is not None and p.grad.any()
    }
    grad = student.attention.logits.grad
    if grad is None:
        return proxies, set()
    return proxies, {path.sink for path, g in zip(student.graph.paths, grad, strict=True) if g != 0}


@pytest.mark.parametrize("paths", [triples(8, 2), PRUNED], ids=["whole", "pruned"])
def test_a_local_loss_trains_its_own_nodes_paths_and_an_end_to_end_loss_the_earlier_ones_too(
    paths: list[Triple],
) -> None:
    student = random_student("resnet18", paths, seed=3)
    activations = student(images_of(64))
    local = student.local_nodes(activations)
    for node in sorted({sink for _, sink, _ in paths}):
        x, y = local[node], activations.nodes[node]
        assert x is not None
        assert y is not None
        assert torch.equal(x, y)
        proxies = {node} if any(sink == node and kind == "p" for _, sink, kind in paths) else set()
        several = {n for n in range(1, 9) if sum(sink == n for _, sink, _ in paths) > 1}
        own = gradients_of(student, x.square().sum())
        assert own == (proxies, {node} & several)
        reached = ancestors(node, paths)
        everything = gradients_of(student, y.square().sum())
        with_proxies = {sink for _, sink, kind in paths if kind == "p"}
        assert everything == (reached & with_proxies, reached & several)
    assert [x is None for x in local] == [x is None for x in activations.nodes]


def ancestors(node: int, paths: list[Triple]) -> set[int]:
    """`node` and the nodes from 1 on that it depends on."""
    found = {node}
    for source, sink, _ in sorted(paths, key=lambda path: -path[1]):
        if sink in found and source > 0:
            found.add(source)
    return found


def test_frozen_students_keep_the_frozen_part_in_evaluation_mode() -> None:
    student = random_student("resnet18", triples(8, 1)).train()
    assert student.proxies.training
    assert not any(m.training for part in (student.stem, student.universal) for m in part.modules())
    adapted = random_student("resnet18", triples(8, 1), bn_stats="adapt").train()
    assert all(m.training for part in (adapted.stem, adapted.universal) for m in part.modules())


class TestOnce:
    def test_runs_the_same_function_on_a_common_tensor_once(self) -> None:
        calls: list[str] = []

        def double(x: Tensor) -> Tensor:
            calls.append("double")
            return 2 * x

        def power(x: Tensor, exponent: int) -> Tensor:
            calls.append(f"power {exponent}")
            return x**exponent

        images = torch.ones(2)
        once = Once(images)
        first = once(double, images)
        assert once(double, images) is first
        cube = once(power, first, 3)
        assert once(power, first, 3) is cube and cube.tolist() == [8.0, 8.0]
        assert once(power, first, 2).tolist() == [4.0, 4.0]
        assert once(double, cube).tolist() == [16.0, 16.0]
        assert calls == ["double", "power 3", "power 2", "double"]

    def test_knows_a_tensor_by_identity_not_by_value(self) -> None:
        images = torch.ones(2)
        once = Once(images)
        calls = []
        for _ in range(2):
            once(calls.append, images.clone())  # type: ignore[arg-type]
        assert len(calls) == 2

    def test_keeps_nothing_of_a_task(self) -> None:
        """What is computed from a tensor that is not common is let go."""
        once = Once(torch.ones(1))
        own = torch.ones(3)
        made = weakref.ref(once(torch.neg, own))
        assert made() is None

    @pytest.mark.parametrize("paths", [triples(8, 3), PRUNED, [(n - 1, n, "u") for n in range(1, 9)]])
    def test_changes_no_bit(self, paths: list[Triple]) -> None:
        student, images = random_student("resnet18", paths, seed=5), images_of(64)
        with torch.no_grad():
            plain, once = student(images), student(images, Once(images))
        assert torch.equal(plain.logits, once.logits)


def test_a_path_alone_in_its_node_has_all_the_attention() -> None:
    """So the forward pass need not multiply by it."""
    student = random_student("resnet18", [(n - 1, n, "u") for n in range(1, 9)], seed=3)
    with torch.no_grad():
        student.attention.logits.copy_(torch.tensor([-80.0, 90.0, 0.1, 3e4, -3e4, 1e-30, 7.0, -0.3]))
        assert student.attention().tolist() == [1.0] * 8
