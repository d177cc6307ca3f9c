"""The student written out in plain tensor operations, from PAPER.md alone: what the tests hold the engine against.

A path is a triple (source, sink, kind) here, kind "u" (universal block) or "p" (proxy). Random start values throughout.
"""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from nettailor_cli.core.backbones.backbone import Backbone, build_random
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.student import Student

Triple = tuple[int, int, str]

BLOCKS_PER_STAGE = {"resnet18": (2, 2, 2, 2), "resnet34": (3, 4, 6, 3), "resnet50": (3, 4, 6, 3)}


def strides_of(arch: str) -> list[int]:
    """The first block of stages 2, 3 and 4 halves the resolution."""
    return [
        2 if stage > 0 and block == 0 else 1
        for stage, count in enumerate(BLOCKS_PER_STAGE[arch])
        for block in range(count)
    ]


def triples(blocks: int, skips: int | None) -> list[Triple]:
    """All paths in canonical order: by sink, the universal block first, then proxies from near to far."""
    found: list[Triple] = []
    for sink in range(1, blocks + 1):
        found.append((sink - 1, sink, "u"))
        nearest_first = list(reversed(range(sink)))
        found += [(source, sink, "p") for source in (nearest_first if skips is None else nearest_first[:skips])]
    return found


def triple_of(path: Path) -> Triple:
    return (path.source, path.sink, "u" if path.kind == UNIVERSAL else "p")


def free_graph(blocks: int, paths: list[Triple]) -> Graph:
    """A graph in which nothing costs anything, with equal attention in each node."""
    nothing = Cost(0, 0)
    count = {sink: sum(other[1] == sink for other in paths) for _, sink, _ in paths}
    return Graph(
        blocks=(nothing,) * blocks,
        stem=nothing,
        head=nothing,
        paths=tuple(
            Path(source, sink, UNIVERSAL if kind == "u" else PROXY, 1 / count[sink], nothing)
            for source, sink, kind in paths
        ),
    )


@functools.cache
def _backbone(arch: str) -> Backbone:
    backbone = build_random(arch, 3)
    shake(backbone, 4)
    return backbone


def fresh_backbone(arch: str) -> Backbone:
    """A backbone of one's own, with batch norms that do something."""
    backbone = build_random(arch, 3)
    backbone.load_state_dict(_backbone(arch).state_dict())
    return backbone


def shared_backbone(arch: str) -> Backbone:
    """The same, for those who change nothing in it."""
    return _backbone(arch)


def shake(module: torch.nn.Module, seed: int) -> None:
    """Random scales, shifts and statistics for every batch norm in `module`."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            with torch.no_grad():
                part.weight.uniform_(0.5, 1.5, generator=generator)
                part.bias.normal_(0, 0.3, generator=generator)
                part.running_mean.normal_(0, 0.3, generator=generator)
                part.running_var.uniform_(0.5, 2.0, generator=generator)


def random_student(
    arch: str,
    paths: list[Triple],
    *,
    classes: int = 7,
    seed: int = 0,
    bn_stats: str = "frozen",
    proxy_width: int | None = None,
    proxy_depthwise: bool = False,
    shared: bool = True,
) -> Student:
    """A student with random proxies (as loud as the blocks), logits, classifier and batch norms, in eval mode."""
    backbone = shared_backbone(arch) if shared else fresh_backbone(arch)
    graph = free_graph(len(strides_of(arch)), paths)
    student = Student(
        backbone, graph, classes, bn_stats=bn_stats, proxy_width=proxy_width, proxy_depthwise=proxy_depthwise
    )
    generator = torch.Generator().manual_seed(seed)
    shake(student.proxies, seed + 1)
    with torch.no_grad():
        for parameter in student.proxies.parameters():
            if parameter.dim() == 4:
                parameter.normal_(0, 1 / math.sqrt(parameter.shape[1]), generator=generator)
        student.attention.logits.normal_(0, 1.5, generator=generator)
        student.head.weight.normal_(0, 0.1, generator=generator)
        student.head.bias.normal_(0, 0.1, generator=generator)
    return student.eval()


def plain_forward(
    state: dict[str, Tensor], images: Tensor, arch: str, paths: list[Triple], logits: dict[Triple, float]
) -> tuple[dict[int, Tensor], Tensor]:
    """Node activations and class logits of the student with `paths`, straight from the tensors in `state`."""

    def conv(x: Tensor, name: str, stride: int = 1, padding: int = 0) -> Tensor:
        if f"{name}.up.weight" in state:
            adapter = torch.einsum("ormn,ricd->oi", state[f"{name}.up.weight"], state[f"{name}.down.weight"])
            own = torch.einsum("oi,nihw->nohw", adapter, x[:, :, ::stride, ::stride])
            return own + F.conv2d(x, state[f"{name}.conv.weight"], stride=stride, padding=padding)
        return F.conv2d(x, state[f"{name}.weight"], stride=stride, padding=padding)

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{part}"][None, :, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / torch.sqrt(var + 1e-5) * weight + bias

    def block(x: Tensor, name: str, stride: int) -> Tensor:
        if state.keys() & {f"{name}.conv3.weight", f"{name}.conv3.up.weight"}:
            y = F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1"))
            y = F.relu(norm(conv(y, f"{name}.conv2", stride, 1), f"{name}.bn2"))
            y = norm(conv(y, f"{name}.conv3"), f"{name}.bn3")
        else:
            y = F.relu(norm(conv(x, f"{name}.conv1", stride, 1), f"{name}.bn1"))
            y = norm(conv(y, f"{name}.conv2", 1, 1), f"{name}.bn2")
        if f"{name}.downsample.1.weight" in state:
            x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return x + y

    def proxy(x: Tensor, name: str, stride: int) -> Tensor:
        if stride > 1:
            x = F.max_pool2d(x, stride + 1, stride, stride // 2)
        if f"{name}.conv2.weight" in state:
            x = look(F.relu(norm(conv(x, f"{name}.conv1"), f"{name}.bn1")), name)
            return norm(conv(x, f"{name}.conv2"), f"{name}.bn2")
        return norm(conv(look(x, name), f"{name}.conv"), f"{name}.bn")

    def look(x: Tensor, name: str) -> Tensor:
        """Every channel's own 3x3 neighbourhood, as a sum of nine shifted pictures."""
        if f"{name}.depthwise.weight" not in state:
            return x
        weight, (height, width) = state[f"{name}.depthwise.weight"], x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1))
        shifted = [
            weight[:, 0, i, j, None, None] * padded[:, :, i : i + height, j : j + width]
            for i in range(3)
            for j in range(3)
        ]
        return torch.stack(shifted).sum(dim=0)

    strides = strides_of(arch)
    stem = F.relu(norm(conv(images, "stem.conv1", 2, 3), "stem.bn1"))
    nodes = {0: F.max_pool2d(stem, 3, 2, 1)}
    for node in range(1, len(strides) + 1):
        into = [path for path in paths if path[1] == node]
        if not into:
            continue
        whole = sum(math.exp(logits[path]) for path in into)
        merged = torch.zeros(())
        for path in reversed(into):
            source, _, kind = path
            if kind == "u":
                y = block(nodes[source], f"universal.{node}", strides[node - 1])
            else:
                y = proxy(nodes[source], f"proxies.{source}-{node}", math.prod(strides[source:node]))
            merged = merged + math.exp(logits[path]) / whole * y
        nodes[node] = F.relu(merged)
    pooled = nodes[len(strides)].mean(dim=(2, 3))
    return nodes, pooled @ state["head.weight"].T + state["head.bias"]


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal to 1e-5 of the largest value."""
    assert actual.shape == expected.shape
    scale = expected.abs().max().item()
    assert 1e-6 < scale < 1e12, "the comparison would say nothing"
    assert (actual - expected).abs().max().item() <= 1e-5 * scale
