"""Every family: its networks in parts give what they give whole, cost what they cost whole, and can be tailored."""

from __future__ import annotations

import copy
import functools
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.catalog import ARCHS, parse_name
from nettailor_cli.core.backbones.decomposition import make_network
from nettailor_cli.core.backbones.families import FAMILIES, TIMM, family_of, why_refused
from nettailor_cli.core.complexity import macs, parameters, student_graph, untouched_graph
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.deploy import onnx_file, pt2_file, safetensors_file
from nettailor_cli.core.deploy.lowering import lower
from nettailor_cli.core.deploy.standalone import Runner, StandaloneNetwork
from nettailor_cli.core.folding import fold_proxies
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.models import student_from
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.proxies import BypassedProxy
from nettailor_cli.core.pruning import prune
from nettailor_cli.core.scaling import between
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import tensors_for
from nettailor_cli.core.teacher import Teacher
from nettailor_cli.core.training.frozen import quick, quick_twin
from nettailor_cli.core.training.precision import Machine
from tests.core.backbones.families.networks import CLASSES, SMALL, small_backbone, small_network
from tests.core.deploy.networks import distance

CPU = Machine(torch.device("cpu"), bf16=False, reason="a test")
BF16 = Machine(torch.device("cpu"), bf16=True, reason="a test")
arch = pytest.mark.parametrize("arch", SMALL)
OWN = {"bn_affine": "tuned", "adapter_rank": 1}
REAL = [
    "regnet_x_400mf",
    "mobilenet_v2",
    "efficientnet_b0",
    "convnext_tiny",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "googlenet",
]
"""Quick ones among torchvision's own."""


def images_for(arch: str, count: int = 2, more: int = 0) -> Tensor:
    size = SMALL[arch][1] + more
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(size))


@functools.cache
def graph_of(arch: str) -> Graph:
    """Of a fresh student with one skip: to count its costs takes longer than anything else here."""
    return student_graph(small_backbone(arch), CLASSES, skips=1)


def loud_student(backbone: Backbone, graph: Graph) -> Student:
    """With proxies as loud as the blocks, in evaluation mode."""
    student = Student(backbone, graph, CLASSES)
    generator = torch.Generator().manual_seed(5)
    student.start_fresh(generator)
    with torch.no_grad():
        student.attention.logits.normal_(0, 1, generator=generator)
        for parameter in student.proxies.parameters():
            if parameter.dim() == 4:
                parameter.normal_(0, parameter.shape[1] ** -0.5, generator=generator)
    return student.eval()


def test_every_family_has_a_small_network_here() -> None:
    assert {family_of(arch) for arch in SMALL if not arch.startswith(TIMM)} == set(FAMILIES)
    assert {family_of(arch) for arch in ARCHS} == set(FAMILIES)
    assert not any(family_of(name) for name in ("vit_b_16", "swin_t", "squeezenet1_0"))
    assert why_refused("resnet18") is None


@arch
@pytest.mark.parametrize("more", [0, 1, 14])
def test_untouched_the_parts_give_the_networks_own_output_bit_for_bit(arch: str, more: int) -> None:
    network, backbone, images = small_network(arch), small_backbone(arch), images_for(arch, more=more)
    with torch.inference_mode():
        nodes = backbone.nodes(images)
        logits = network.get_submodule(backbone.classifier)(backbone.pool(nodes[-1]))
        assert torch.equal(logits, network(images))
    assert [node.shape[1] for node in nodes] == list(backbone.channels)
    for source in range(len(nodes)):
        for sink in range(source, len(nodes)):
            assert between(backbone.scalings, source, sink).of(nodes[source].shape[2]) == nodes[sink].shape[2]


@arch
def test_the_parts_cost_what_the_network_costs(arch: str) -> None:
    network, backbone = small_network(arch), small_backbone(arch)
    graph = untouched_graph(backbone, CLASSES)
    assert graph.cost.macs == graph.backbone.macs == macs(network, images_for(arch, 1))
    assert graph.cost.parameters == parameters(network)
    assert type(graph).from_json(graph.to_json()) == graph


@arch
def test_proxies_are_bypassed_where_blocks_that_add_nothing_pass_their_input_on(arch: str) -> None:
    """With all parameters 0 a residual block gives its input, any other none of it."""
    backbone = copy.deepcopy(small_backbone(arch))
    for parameter in backbone.blocks.parameters():
        nn.init.zeros_(parameter)
    last, side = len(backbone.blocks), 32
    for source in range(last):
        x = start = torch.rand(2, backbone.channels[source], side, side)
        for sink in range(source + 1, last + 1):
            with torch.no_grad():
                x = backbone.activation(backbone.blocks[sink - 1](x))
            expected = backbone.proxy_kind == "budgeted" and torch.equal(x, start)
            assert isinstance(backbone.make_proxy(source, sink), BypassedProxy) == expected, (source, sink)


@pytest.mark.parametrize(("arch", "bypassed"), [("mobilenet_v2", 2), ("convnext_tiny", 4)])
def test_bypassed_proxies_that_reach_far_are_exported_with_the_shortcuts_beside_them(arch: str, bypassed: int) -> None:
    backbone = small_backbone(arch)
    student = loud_student(copy.deepcopy(backbone), student_graph(backbone, CLASSES, skips=3)).double()
    assert sum(isinstance(proxy, BypassedProxy) for proxy in student.proxies.values()) == bypassed
    images = pictures_for(arch)
    plan, tensors = lower(student, torch.float64)
    standalone = StandaloneNetwork(plan, tensors, backbone.preprocessing, "logits").eval()
    with torch.inference_mode():
        expected = student(normalised(images)).logits
        assert distance(standalone(images), expected) < 1e-9
        assert distance(fold_proxies(fold_proxies(student))(normalised(images)).logits, expected) < 1e-9


@arch
def test_every_tensor_has_torchvisions_name(arch: str) -> None:
    network, backbone = small_network(arch), small_backbone(arch)
    theirs = {key: t for key, t in network.state_dict().items() if not key.startswith(f"{backbone.classifier}.")}
    assert {key: t.data_ptr() for key, t in backbone.state().items()} == {k: t.data_ptr() for k, t in theirs.items()}
    linear = network.get_submodule(backbone.classifier)
    assert isinstance(linear, nn.Linear) and linear.in_features == backbone.features


@arch
def test_no_block_changes_what_it_is_given(arch: str) -> None:
    """Nodes are read several times: a ReLU in place at a block's start would spoil them."""
    backbone = small_backbone(arch)
    with torch.inference_mode():
        nodes = backbone.nodes(images_for(arch))
        before = [node.clone() for node in nodes]
        for block, x in zip(backbone.blocks, nodes[:-1], strict=True):
            block(x)
        backbone.pool(nodes[-1])
    assert all(torch.equal(node, kept) for node, kept in zip(nodes, before, strict=True))


@arch
def test_training_draws_no_random_numbers(arch: str) -> None:
    backbone = copy.deepcopy(small_backbone(arch)).train()
    before = torch.get_rng_state()
    backbone(images_for(arch))
    assert torch.equal(torch.get_rng_state(), before)


@arch
def test_folded_and_cast_it_computes_the_same(arch: str) -> None:
    exact = copy.deepcopy(small_backbone(arch)).double()
    folded = copy.deepcopy(exact)
    quick(folded, CPU)
    images = images_for(arch).double()
    with torch.inference_mode():
        expected = exact(images)
        assert distance(folded(images), expected) < 1e-9
        rough = copy.deepcopy(small_backbone(arch))
        quick(rough, BF16)
        with BF16.autocast():
            assert distance(rough(images.float()), expected) < 0.1


@pytest.mark.parametrize(
    ("arch", "bn_stats", "own"),
    [
        *((arch, "frozen", {}) for arch in SMALL),
        *((arch, "adapt", {}) for arch in ("mobilenet_v2", "decathlon_wrn26")),
        *((arch, "frozen", OWN) for arch in ("regnet_y_400mf", "mobilenet_v3_small", "convnext_tiny", "densenet121")),
        ("mobilenet_v2", "adapt", OWN),
    ],
)
def test_a_student_trains_prunes_and_is_the_same_after_saving_and_loading(
    arch: str, bn_stats: str, own: dict[str, Any], tmp_path: Path
) -> None:
    backbone = copy.deepcopy(small_backbone(arch))
    graph = student_graph(backbone, CLASSES, skips=1, **own) if own else graph_of(arch)
    student = Student(backbone, graph, CLASSES, bn_stats=bn_stats, **own)
    student.start_fresh(torch.Generator().manual_seed(0))
    frozen = copy.deepcopy(backbone.state_dict())
    images, labels = images_for(arch, 4), torch.tensor([0, 1, 2, 3])
    twin = quick_twin(student, CPU)
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    optimiser = torch.optim.SGD(trained, 0.05)
    losses = []
    for _ in range(2):
        student.train()
        loss = F.cross_entropy(twin(images).logits, labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    names = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
    moved = [
        not torch.equal(parameter, old)
        for name, parameter, old in zip(names, trained, before, strict=True)
        if not name.endswith(".down.weight")  # by less than rounding, while `up` is near zero
    ]
    assert sum(moved) > 0.9 * len(moved), "one whose ReLU is never above zero on these four pictures may stay"
    stays = [torch.equal(tensor, frozen[name]) for name, tensor in backbone.state_dict().items()]
    assert all(stays) or bn_stats == "adapt"

    pruned = prune(student.eval().attended_graph(), len(backbone.blocks) // 2, 0.05).graph
    smaller = Student(backbone, pruned, CLASSES, bn_stats=bn_stats, **own)
    state = student.task_state()
    smaller.load_task_state(tensors_for(pruned, [(student.graph, state)]))
    document = ModelDocument(
        stage=delta.PRUNED,
        backbone=backbone.name,
        fingerprint="0" * 64,
        graph=smaller.attended_graph(),
        classes=tuple(f"class {number}" for number in range(CLASSES)),
        preprocessing=backbone.preprocessing,
        student={"bn_stats": bn_stats, "proxy_width": None, **own},
        data={},
        settings={},
        metrics={},
    )
    delta.write(tmp_path / "pruned.safetensors", document, smaller.task_state())
    read, tensors = delta.read(tmp_path / "pruned.safetensors")
    assert read.graph == document.graph
    loaded = student_from(read, tensors, copy.deepcopy(small_backbone(arch)))
    with torch.inference_mode():
        expected = smaller.eval()(images).logits
        assert torch.equal(loaded(images).logits, expected)
        assert distance(fold_proxies(loaded)(images).logits, expected) < 1e-4


@arch
@pytest.mark.parametrize("bn_stats", ["frozen", "adapt"])
def test_only_adapted_statistics_are_the_tasks(arch: str, bn_stats: str) -> None:
    backbone = copy.deepcopy(small_backbone(arch))
    norms = [m for m in backbone.modules() if isinstance(m, nn.BatchNorm2d) and m is not backbone.norm]
    student = Student(backbone, graph_of(arch), CLASSES, bn_stats=bn_stats)
    adapted = [name for name in student.task_state() if name.split(".")[0] in student.frozen()]
    assert len(adapted) == (2 * len(norms) if bn_stats == "adapt" else 0)
    assert not any(p.requires_grad for part in student.frozen().values() for p in part.parameters())
    student.train()
    assert {norm.training for norm in norms} <= {bn_stats == "adapt"}


@pytest.mark.parametrize("arch", [*REAL, "resnet50", "densenet121", "decathlon_wrn26"])
def test_a_proxy_costs_about_an_eighteenth_of_its_block_and_never_more_than_an_eighth(arch: str) -> None:
    """On torchvision's own network, on shapes alone, at its own size and at an uneven one."""
    network = make_network(arch, "meta").eval()
    backbone = Backbone(f"{arch}.x", network, Preprocessing())
    shares = []
    for size in (224, 75):
        nodes = backbone.nodes(torch.empty(1, 3, size, size, device="meta"))
        for sink, block in enumerate(backbone.blocks, start=1):
            whole = weights_times_positions(block, nodes[sink - 1])
            for source in range(max(0, sink - 3), sink):
                with torch.device("meta"):
                    proxy = backbone.make_proxy(source, sink)
                own = sum(p.numel() for p in proxy.parameters() if p.dim() == 4) * nodes[sink].shape[2] ** 2
                shares.append(own / whole)
    assert max(shares) <= 1 / 8
    usual = sorted(shares)[len(shares) // 2]
    assert usual == pytest.approx(1 / 18, rel=0.1) or backbone.proxy_kind != "budgeted"


def weights_times_positions(block: nn.Module, x: Tensor) -> int:
    counted: list[int] = []
    hooks = [
        layer.register_forward_hook(
            lambda layer, _, y: counted.append(layer.weight.numel() * y.numel() // y.shape[1 if y.dim() == 4 else -1])
        )
        for layer in block.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    hooks += [
        layer.register_forward_hook(lambda layer, _, y: counted.append(layer.weight.numel() * y[..., 0].numel()))
        for layer in block.modules()
        if isinstance(layer, nn.Linear)
    ]
    block(x)
    for hook in hooks:
        hook.remove()
    return sum(counted)


def pictures_for(arch: str) -> Tensor:
    size = SMALL[arch][1]
    return torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))


def normalised(images: Tensor) -> Tensor:
    usual = Preprocessing()
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (usual.mean, usual.std))
    return (images.permute(0, 3, 1, 2).double() / 255 - mean) / std


@arch
@pytest.mark.parametrize("kind", ["student", "pruned", "teacher"])
def test_lowered_it_computes_the_same(arch: str, kind: str) -> None:
    backbone = copy.deepcopy(small_backbone(arch))
    if kind == "teacher":
        network: Student | Teacher = Teacher(backbone, CLASSES)
        network.start_fresh(torch.Generator().manual_seed(1))
    else:
        network = loud_student(backbone, graph_of(arch))
        if kind == "pruned":
            graph = prune(network.attended_graph(), len(backbone.blocks) // 2, 0.1).graph
            proxies, smaller = network.proxies, Student(backbone, graph, CLASSES)
            for key in smaller.proxies:
                smaller.proxies[key] = proxies[key]
            network = smaller.eval()
    network.double()
    images = pictures_for(arch)
    plan, tensors = lower(network, torch.float64)
    standalone = StandaloneNetwork(plan, tensors, backbone.preprocessing, "logits").eval()
    with torch.inference_mode():
        assert distance(standalone(images), network(normalised(images)).logits) < 1e-9


@arch
@pytest.mark.parametrize("form", ["onnx", "safetensors", "pt2"])
def test_the_exported_file_computes_the_same(arch: str, form: str, tmp_path: Path) -> None:
    if form == "pt2" and arch not in ("convnext_tiny", "shufflenet_v2_x0_5", "vgg11_bn"):
        pytest.skip("torch.export takes seconds; these three have all the operations that the runtime traces")
    student = loud_student(copy.deepcopy(small_backbone(arch)), graph_of(arch))
    plan, tensors = lower(student)
    network = StandaloneNetwork(plan, tensors, Preprocessing(SMALL[arch][1]), "probabilities").eval()
    document = {
        "standalone": plan.version,
        "classes": [str(number) for number in range(CLASSES)],
        "preprocessing": network.preprocessing.to_json(),
        "output": {"name": "probabilities"},
    }
    module = {"onnx": onnx_file, "safetensors": safetensors_file, "pt2": pt2_file}[form]
    module.write(tmp_path / f"net.{form}", network, document)
    run: Runner = module.runner(tmp_path / f"net.{form}")
    images = pictures_for(arch)
    with torch.inference_mode():
        expected = student.double()(normalised(images)).logits
    for part in (images, images[:1]):
        output, logits = run(part.numpy())
        assert distance(torch.from_numpy(logits), expected[: len(part)]) < 1e-4
        assert (torch.from_numpy(output) - expected[: len(part)].softmax(dim=1)).abs().max() < 1e-4


@pytest.mark.parametrize("arch", REAL)
def test_torchvisions_own_networks_too(arch: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make_network(arch).eval()
    backbone = Backbone(f"{arch}.x", network, Preprocessing(49))
    images = torch.randn(1, 3, 49, 49, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = network.get_submodule(backbone.classifier)(backbone(images))
        assert torch.equal(logits, network(images))
    assert parse_name(backbone.name).arch == arch and len(list(pairwise(backbone.channels))) == len(backbone.blocks)
