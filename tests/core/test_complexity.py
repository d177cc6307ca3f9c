from __future__ import annotations

import itertools
import math
import random

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.complexity import ExpectedComplexity, path_costs, student_graph, untouched_graph
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.student import Student
from tests.core.plain import BLOCKS_PER_STAGE, shared_backbone

# PAPER.md: computed from the released code, for 102 classes
TABLE = [
    ("resnet18", 1, 8, 580_454),
    ("resnet18", 3, 21, 1_198_054),
    ("resnet18", 5, 30, 1_507_558),
    ("resnet18", None, 36, 1_693_414),
    ("resnet34", 1, 16, 1_145_318),
    ("resnet34", 3, 45, 2_802_534),
    ("resnet34", 5, 70, 4_135_526),
    ("resnet34", None, 136, 6_879_078),
    ("resnet50", 1, 16, 1_420_870),
    ("resnet50", 3, 45, 3_560_358),
]


def at_size(arch: str, size: int) -> Backbone:
    backbone = shared_backbone(arch)
    backbone.preprocessing = Preprocessing(size=size)
    return backbone


@pytest.mark.parametrize(("arch", "skips", "proxies", "parameters"), TABLE)
def test_task_parameters_are_those_of_the_released_code(
    arch: str, skips: int | None, proxies: int, parameters: int
) -> None:
    graph = student_graph(at_size(arch, 64), 102, skips=skips)
    assert len(graph.proxies) == proxies
    assert graph.task_cost.parameters == parameters
    assert len(graph.universal) == sum(BLOCKS_PER_STAGE[arch])


@pytest.mark.parametrize(("arch", "skips", "proxies", "parameters"), [TABLE[1], TABLE[9]])
def test_the_students_own_tensors_have_as_many_parameters(
    arch: str, skips: int | None, proxies: int, parameters: int
) -> None:
    backbone = at_size(arch, 64)
    graph = student_graph(backbone, 102, skips=skips)
    student = Student(backbone, graph, 102)
    trained = [p for name, p in student.named_parameters() if p.requires_grad and name != "attention.logits"]
    assert sum(p.numel() for p in trained) == parameters
    assert len(student.proxies) == proxies
    assert student.attention.logits.numel() == proxies + len(graph.universal)
    by_proxy = {
        p.name: sum(x.numel() for x in student.proxies[f"{p.source}-{p.sink}"].parameters()) for p in graph.proxies
    }
    assert by_proxy == {p.name: p.cost.parameters for p in graph.proxies}


@pytest.mark.parametrize("skips", [1, 3, None])
@pytest.mark.parametrize("shared_prefix", [1, 2, 8])
def test_a_shared_prefix_has_no_proxies_into_its_nodes_and_changes_nothing_else(
    skips: int | None, shared_prefix: int
) -> None:
    backbone = at_size("resnet18", 64)
    usual = student_graph(backbone, 5, skips=skips)
    graph = student_graph(backbone, 5, skips=skips, shared_prefix=shared_prefix)
    for node in range(1, 9):
        if node <= shared_prefix:
            (alone,) = graph.into(node)
            assert alone.is_universal and alone.alpha == 1.0 and alone.cost == usual.into(node)[0].cost
        else:
            assert graph.into(node) == usual.into(node)
    assert student_graph(backbone, 5, skips=skips, shared_prefix=0) == usual


def test_a_shared_prefix_is_no_longer_than_the_backbone() -> None:
    with pytest.raises(UsageError, match=r"--shared-prefix 9: resnet18\.random has 8 blocks"):
        student_graph(at_size("resnet18", 64), 5, skips=1, shared_prefix=9)


def test_a_fresh_graph_has_the_attention_that_a_fresh_student_starts_with() -> None:
    backbone = at_size("resnet18", 64)
    graph = student_graph(backbone, 5, skips=3)
    node1, node8 = graph.into(1), graph.into(8)
    assert [p.alpha for p in node1] == pytest.approx([1 / (1 + math.exp(-4)), math.exp(-4) / (1 + math.exp(-4))])
    assert [p.alpha for p in node8] == pytest.approx(
        [1 / (1 + 3 * math.exp(-4))] + [math.exp(-4) / (1 + 3 * math.exp(-4))] * 3
    )
    student = Student(backbone, graph, 5)
    student.start_fresh(torch.Generator())
    assert [p.alpha for p in student.attended_graph().paths] == pytest.approx([p.alpha for p in graph.paths])


# --- MACs


def halved(size: int) -> int:
    return (size + 1) // 2


def conv_macs(side: int, kernel: int, channels_in: int, channels_out: int) -> int:
    return side * side * kernel * kernel * channels_in * channels_out


def plan(arch: str, size: int) -> tuple[int, list[int], list[tuple[int, int]]]:
    """By hand: MACs of the stem and of every block, and (channels, side) of nodes 0..L."""
    bottleneck = arch == "resnet50"
    side = halved(size)
    stem = conv_macs(side, 7, 3, 64)
    side = halved(side)
    channels, nodes, blocks = 64, [(64, side)], []
    for stage, count in enumerate(BLOCKS_PER_STAGE[arch]):
        width = 64 * 2**stage
        out = 4 * width if bottleneck else width
        for number in range(count):
            strided = stage > 0 and number == 0
            after = halved(side) if strided else side
            if bottleneck:
                macs = conv_macs(side, 1, channels, width) + conv_macs(after, 3, width, width)
                macs += conv_macs(after, 1, width, out)
            else:
                macs = conv_macs(after, 3, channels, width) + conv_macs(after, 3, width, width)
            if strided or channels != out:
                macs += conv_macs(after, 1, channels, out)
            blocks.append(macs)
            channels, side = out, after
            nodes.append((channels, side))
    return stem, blocks, nodes


@pytest.mark.parametrize(
    ("arch", "size", "giga"), [("resnet18", 224, 1.814), ("resnet50", 224, 4.089), ("resnet18", 72, None)]
)
def test_macs_are_multiply_adds_of_convolutions_and_classifier(arch: str, size: int, giga: float | None) -> None:
    graph = untouched_graph(at_size(arch, size), 1000)
    stem, blocks, nodes = plan(arch, size)
    head = nodes[-1][0] * 1000
    assert graph.stem.macs == stem
    assert [block.macs for block in graph.blocks] == blocks
    assert graph.head == Cost(head + 1000, head)
    assert graph.backbone.macs == stem + sum(blocks) + head
    if giga is not None:
        assert graph.backbone.macs / 1e9 == pytest.approx(giga, abs=0.0005)


@pytest.mark.parametrize(("arch", "parameters"), [("resnet18", 11_689_512), ("resnet50", 25_557_032)])
def test_the_parts_add_up_to_the_whole_network(arch: str, parameters: int) -> None:
    from fvcore.nn import FlopCountAnalysis

    network = getattr(import_torchvision().models, arch)(weights=None).eval()
    analysis = FlopCountAnalysis(network, torch.zeros(1, 3, 96, 96)).unsupported_ops_warnings(False)
    counted = analysis.by_operator()
    graph = untouched_graph(at_size(arch, 96), 1000)
    assert graph.backbone.macs == counted["conv"] + counted["linear"]
    assert graph.backbone.parameters == parameters  # published by torchvision


@pytest.mark.parametrize("size", [64, 72])
def test_basic_proxies_cost_one_1x1_convolution_at_their_sinks_resolution(size: int) -> None:
    _, _, nodes = plan("resnet18", size)
    for path in student_graph(at_size("resnet18", size), 5, skips=None).proxies:
        (channels_in, _), (channels_out, side) = nodes[path.source], nodes[path.sink]
        assert path.cost.macs == conv_macs(side, 1, channels_in, channels_out)
        assert path.cost.parameters == channels_in * channels_out + 2 * channels_out


@pytest.mark.parametrize("width", [None, 24])
def test_bottleneck_proxies_cost_two_1x1_convolutions(width: int | None) -> None:
    _, _, nodes = plan("resnet50", 72)
    for path in student_graph(at_size("resnet50", 72), 5, skips=2, proxy_width=width).proxies:
        (channels_in, _), (channels_out, side) = nodes[path.source], nodes[path.sink]
        m = width or max(channels_out // 32, 16)
        assert path.cost.macs == conv_macs(side, 1, channels_in, m) + conv_macs(side, 1, m, channels_out)
        assert path.cost.parameters == channels_in * m + 2 * m + m * channels_out + 2 * channels_out


@pytest.mark.parametrize(("arch", "width"), [("resnet18", None), ("resnet18", 24), ("resnet50", None)])
def test_a_depthwise_convolution_costs_nine_weights_a_channel(arch: str, width: int | None) -> None:
    _, _, nodes = plan(arch, 72)
    plain, looking = (
        student_graph(at_size(arch, 72), 5, skips=2, proxy_width=width, proxy_depthwise=depthwise).proxies
        for depthwise in (False, True)
    )
    for without, path in zip(plain, looking, strict=True):
        (channels_in, _), (channels_out, side) = nodes[path.source], nodes[path.sink]
        inside = width or (channels_in if arch == "resnet18" else max(channels_out // 32, 16))
        assert path.cost.parameters - without.cost.parameters == 9 * inside
        assert path.cost.macs - without.cost.macs == 9 * inside * side**2


def test_a_pass_to_count_leaves_the_backbone_as_it_is() -> None:
    backbone = at_size("resnet18", 64)
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    backbone.train()
    try:
        student_graph(backbone, 5, skips=1)
        assert backbone.training
    finally:
        backbone.eval()
    assert all(torch.equal(before[name], tensor) for name, tensor in backbone.state_dict().items())


# --- E[C]


def graph_of(
    blocks: list[int], proxies: list[tuple[int, int]], universal: list[int], seed: int, stem: int = 5
) -> Graph:
    """Blocks with these MACs, of which `universal` are kept; proxies of random cost. Parameters are 7 times as many."""
    rng = random.Random(seed)
    paths = [Path(n - 1, n, UNIVERSAL, 1.0, Cost(7 * blocks[n - 1], blocks[n - 1])) for n in universal]
    for source, sink in proxies:
        macs = rng.randint(1, 9)
        paths.append(Path(source, sink, PROXY, 0.5, Cost(7 * macs, macs)))
    costs = tuple(Cost(7 * macs, macs) for macs in blocks)
    return Graph(blocks=costs, stem=Cost(7 * stem, stem), head=Cost(10**6, 10**6), paths=tuple(paths))


GRAPHS = {
    "3 blocks, dense": graph_of([10, 20, 30], [(0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3)], [1, 2, 3], 1),
    "3 blocks, 1 skip": graph_of([40, 10, 20], [(0, 1), (1, 2), (2, 3)], [1, 2, 3], 2),
    "4 blocks, 2 skips": graph_of([9, 8, 7, 6], [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 4)], [1, 2, 3, 4], 3),
    "pruned: no node 2": graph_of([9, 8, 7, 6], [(0, 1), (0, 3), (1, 3), (3, 4), (1, 4)], [1, 4], 4),
    "pruned: proxies alone": graph_of([9, 8, 7], [(0, 1), (0, 2), (1, 2), (1, 3), (2, 3)], [], 5),
    "a teacher": graph_of([9, 8, 7], [], [1, 2, 3], 6),
    "one block": graph_of([9], [(0, 1)], [1], 7),
}


def random_alpha(graph: Graph, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(len(graph.paths), dtype=torch.float64, generator=generator).requires_grad_()


def module(graph: Graph, exclusion: str, cost: str = "macs") -> ExpectedComplexity:
    """With its costs in float64, so that they can be compared to the last digits."""
    expected = ExpectedComplexity(graph, exclusion=exclusion, cost=cost).double()
    costs = torch.tensor([float(p.cost.macs) for p in graph.paths], dtype=torch.float64)
    exact = costs / (graph.stem.macs + sum(block.macs for block in graph.blocks))
    torch.testing.assert_close(expected.cost, exact, rtol=1e-6, atol=0)
    expected.cost = exact
    return expected


def enumerate_exclusions(graph: Graph, alpha: Tensor) -> Tensor:
    """E[C] over all combinations of kept and removed paths, each path kept with probability alpha by itself."""
    paths = graph.paths
    whole = graph.stem.macs + sum(block.macs for block in graph.blocks)
    expected = torch.zeros((), dtype=torch.float64)
    for kept in itertools.product((False, True), repeat=len(paths)):
        spent = 0
        for path, here in zip(paths, kept, strict=True):
            fed = path.source == 0 or any(k for q, k in zip(paths, kept, strict=True) if q.sink == path.source)
            read = path.sink == graph.last or any(k for q, k in zip(paths, kept, strict=True) if q.source == path.sink)
            spent += path.cost.macs if here and fed and read else 0
        if spent:
            probability = torch.stack([a if k else 1 - a for a, k in zip(alpha, kept, strict=True)]).prod()
            expected = expected + probability * spent / whole
    return expected


@pytest.mark.parametrize("name", GRAPHS)
def test_under_independence_value_and_gradient_are_those_of_an_enumeration(name: str) -> None:
    graph = GRAPHS[name]
    alpha = random_alpha(graph, 11)
    value = module(graph, "independence")(alpha)
    brute = enumerate_exclusions(graph, alpha)
    torch.testing.assert_close(value, brute, rtol=1e-12, atol=1e-14)
    got, wanted = torch.autograd.grad(value, alpha)[0], torch.autograd.grad(brute, alpha)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("fixed", [0.0, 1.0])
def test_under_independence_certain_paths_do_no_harm_to_value_or_gradient(name: str, fixed: float) -> None:
    """At alpha 0 and 1 products have zeros among their factors."""
    graph = GRAPHS[name]
    alpha = random_alpha(graph, 12).detach()
    alpha[::2] = fixed
    alpha.requires_grad_()
    value, brute = module(graph, "independence")(alpha), enumerate_exclusions(graph, alpha)
    torch.testing.assert_close(value, brute, rtol=1e-12, atol=1e-14)
    got, wanted = torch.autograd.grad(value, alpha)[0], torch.autograd.grad(brute, alpha)[0]
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-14)


def equation_9(graph: Graph, alpha: list[float]) -> float:
    whole = graph.stem.macs + sum(block.macs for block in graph.blocks)
    paths = list(zip(graph.paths, alpha, strict=True))
    expected = 0.0
    for path, a in paths:
        r = 1 - a
        prod_in = 0.0 if path.source == 0 else math.prod(1 - b for q, b in paths if q.sink == path.source)
        prod_out = 0.0 if path.sink == graph.last else math.prod(1 - b for q, b in paths if q.source == path.sink)
        expected += path.cost.macs / whole * (1 - r - prod_in - prod_out)
    return expected


@pytest.mark.parametrize("name", GRAPHS)
def test_published_is_equation_9_and_its_gradient_that_of_finite_differences(name: str) -> None:
    graph = GRAPHS[name]
    alpha = random_alpha(graph, 13)
    value = module(graph, "published")(alpha)
    assert value.item() == pytest.approx(equation_9(graph, alpha.tolist()), rel=1e-12)
    gradient = torch.autograd.grad(value, alpha)[0].tolist()
    for index, g in enumerate(gradient):
        up, down = alpha.tolist(), alpha.tolist()
        up[index] += 1e-6
        down[index] -= 1e-6
        assert g == pytest.approx((equation_9(graph, up) - equation_9(graph, down)) / 2e-6, rel=1e-6, abs=1e-8)


def test_four_equal_alphas_give_an_input_product_of_0_316() -> None:
    nothing = Cost(0, 0)
    into4 = [Path(3, 4, UNIVERSAL, 0.25, nothing)] + [Path(source, 4, PROXY, 0.25, nothing) for source in (2, 1, 0)]
    chain = [Path(n - 1, n, UNIVERSAL, 1.0, nothing) for n in (1, 2, 3)]
    graph = Graph(
        blocks=(nothing,) * 4 + (Cost(0, 80),),
        stem=Cost(0, 20),
        head=nothing,
        paths=(*chain, *into4, Path(4, 5, UNIVERSAL, 1.0, Cost(0, 80))),
    )
    alpha = torch.tensor([p.alpha for p in graph.paths], dtype=torch.float64)
    for exclusion in ("published", "independence"):  # with alpha 1 the two agree here
        assert module(graph, exclusion)(alpha).item() == pytest.approx(0.8 * (1 - 0.75**4), rel=1e-12)
    assert round(0.75**4, 3) == 0.316


def test_published_can_fall_below_zero_and_independence_stays_between_zero_and_the_whole() -> None:
    below = 0
    for graph in GRAPHS.values():
        whole = sum(path_costs(graph, "macs")[0]) / path_costs(graph, "macs")[1]
        for seed in range(50):
            alpha = random_alpha(graph, seed).detach().square()
            assert 0 <= module(graph, "independence")(alpha).item() <= whole
            below += module(graph, "published")(alpha).item() < 0
        ones = torch.ones(len(graph.paths), dtype=torch.float64)
        assert module(graph, "independence")(ones).item() == pytest.approx(whole, rel=1e-12)
        assert module(graph, "independence")(0 * ones).item() == 0
    assert below > 0


def test_an_untouched_backbone_is_expected_to_cost_its_blocks_share_of_stem_and_blocks() -> None:
    graph = GRAPHS["a teacher"]
    for exclusion in ("published", "independence"):
        assert ExpectedComplexity(graph, exclusion=exclusion)(torch.ones(3)).item() == pytest.approx(24 / 29)


def test_costs_can_be_parameters_instead_of_macs() -> None:
    graph = graph_of([10, 20], [(0, 1)], [1, 2], 1)
    skewed = Graph(
        blocks=(Cost(30, 10), Cost(10, 20)), stem=Cost(60, 5), head=Cost(1000, 1000), paths=graph.paths
    ).keeping(lambda path: path.is_universal)
    ones = torch.ones(2)
    assert ExpectedComplexity(skewed, cost="params")(ones).item() == pytest.approx(7 * 30 / 100)
    assert ExpectedComplexity(skewed, cost="macs")(ones).item() == pytest.approx(30 / 35)


def test_costs_can_be_latencies_worked_out_by_hand() -> None:
    """Two blocks, a proxy beside the second: stem 100 us, blocks 300 and 600, proxy 60; the head does not count."""
    graph = Graph(
        blocks=(Cost(1, 9, 300.0), Cost(1, 9, 600.0)),
        stem=Cost(1, 9, 100.0),
        head=Cost(1, 9, 5000.0),
        paths=(
            Path(0, 1, UNIVERSAL, 1.0, Cost(1, 9, 300.0)),
            Path(1, 2, UNIVERSAL, 0.8, Cost(1, 9, 600.0)),
            Path(0, 2, PROXY, 0.2, Cost(1, 9, 60.0)),
        ),
    )
    assert path_costs(graph, "latency") == ([300.0, 600.0, 60.0], 1000.0)
    alpha = torch.tensor([0.9, 0.8, 0.2])
    # block 1: nothing reads node 1 if block 2 is gone: out = 0.2. block 2: node 1 has block 1 alone: in = 0.1. The
    # proxy starts at the stem and ends at the last node: nothing excludes it.
    published = 0.3 * (0.9 - 0.2) + 0.6 * (0.8 - 0.1) + 0.06 * 0.2
    independence = 0.3 * 0.9 * 0.8 + 0.6 * 0.8 * 0.9 + 0.06 * 0.2
    expected = ExpectedComplexity(graph, cost="latency", exclusion="published")
    assert expected(alpha).item() == pytest.approx(published, rel=1e-6)
    expected = ExpectedComplexity(graph, cost="latency", exclusion="independence")
    assert expected(alpha).item() == pytest.approx(independence, rel=1e-6)


def test_latencies_that_nobody_measured_are_not_taken_for_none_at_all() -> None:
    with pytest.raises(UsageError, match="no measured latencies"):
        ExpectedComplexity(GRAPHS["a teacher"], cost="latency")
