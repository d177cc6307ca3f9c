"""A student or a teacher as a plan and its tensors: batch norms folded, alphas absorbed, dead blocks gone.

Where an alpha goes: into the last convolution of its path, and into the shortcut's. A shortcut without a convolution
has no weights to take it up, so node l is stored as y_l = x_l / s_l with s_l = alpha_l * s_{l-1}: then it adds y_{l-1}
as it is, and whoever reads y_l has s_l in his own weights. ReLU and both poolings let a positive factor through. From
node to node s_l may become small and y_l large, which half precision does not bear; below LEAST_SCALE the shortcut gets
a depthwise 1x1 convolution with its alpha instead, and s_l is 1 again.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Plan, Step, needed
from nettailor_cli.core.folding import fold, proxy_convolutions
from nettailor_cli.core.graph import Cost, Path, untouched
from nettailor_cli.core.scaling import Scaling, between
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher

LEAST_SCALE = 1 / 16
_NOTHING = Cost(0, 0)


def lower(network: Student | Teacher, dtype: torch.dtype = torch.float32) -> tuple[Plan, dict[str, Tensor]]:
    """The plan of `network` in evaluation mode, and its tensors in `dtype` on the CPU. `network` stays as it is."""
    blocks: dict[int, Any]
    if isinstance(network, Student):
        trunk: Any = network
        graph = network.attended_graph()
        blocks = {path.sink: network.universal[str(path.sink)] for path in graph.universal}
    else:
        trunk = network.backbone
        blocks = dict(enumerate(trunk.blocks, start=1))
        graph = untouched([_NOTHING] * len(blocks), _NOTHING, _NOTHING)
    build = _Builder()
    build.stem(trunk.stem)
    for node in graph.nodes:
        # an alpha of exactly 0 (a saturated softmax) adds nothing
        paths = [path for path in graph.into(node) if path.alpha > 0]
        scale = _scale(paths, blocks, build.scales)
        terms: list[str] = []
        for path in paths:
            gain = path.alpha / scale
            if path.is_universal:
                terms += build.block(path, blocks[node], gain)
            else:
                scaling = between(trunk.scalings, path.source, node)
                terms += build.proxy(path, trunk.proxy(path), scaling, gain)
        build.node(node, terms, scale)
    build.head(graph.last, network.head)
    plan = Plan(needed(build.steps))
    names = {name for step in plan.steps for name in (step.weight, step.bias) if name}
    return plan, {name: build.tensors[name].to("cpu", dtype) for name in sorted(names)}


def _scale(paths: Iterable[Path], blocks: dict[int, Any], scales: dict[int, float]) -> float:
    """s_l of the node that `paths` lead into."""
    for path in paths:
        if path.is_universal and blocks[path.sink].downsample is None:
            scale = path.alpha * scales[path.source]
            return scale if scale >= LEAST_SCALE else 1.0
    return 1.0


class _Builder:
    """Collects steps and tensors; `scales` has s_l of every node so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.tensors: dict[str, Tensor] = {}
        self.scales: dict[int, float] = {0: 1.0}

    def stem(self, stem: Any) -> None:
        first = self._conv(IMAGE, "stem", stem.conv1, *fold(stem.conv1, stem.bn1), relu=True)
        window = stem.maxpool
        self._pool(first, _node(0), window.kernel_size, window.stride, window.padding)

    def block(self, path: Path, block: Any, gain: float) -> list[str]:
        """A universal block: its convolutions in a row, and the shortcut; both are to be added."""
        name, source, scale = f"block{path.sink}", _node(path.source), self.scales[path.source]
        numbers = [number for number in (1, 2, 3) if hasattr(block, f"conv{number}")]
        layers = [(getattr(block, f"conv{number}"), getattr(block, f"bn{number}")) for number in numbers]
        main = self._chain(source, name, layers, scale, gain)
        if block.downsample is not None:
            conv, bn = block.downsample
            side = self._conv(source, f"{name}_shortcut", conv, *fold(conv, bn, scale=scale, gain=gain))
        elif math.isclose(scale * gain, 1.0, rel_tol=1e-12):
            side = source
        else:
            channels = layers[-1][0].out_channels
            factor = torch.full((channels, 1, 1, 1), scale * gain, dtype=torch.float64)
            shape = nn.Conv2d(channels, channels, 1, groups=channels, device="meta")
            side = self._conv(source, f"{name}_shortcut", shape, factor, factor.new_zeros(channels))
        return [main, side]

    def proxy(self, path: Path, proxy: nn.Module, scaling: Scaling, gain: float) -> list[str]:
        x = _node(path.source)
        if scaling.changes:
            pooled = f"{x}_pooled{scaling.stride}"  # proxies of the same source share the pooling
            if all(step.output != pooled for step in self.steps):
                self._pool(x, pooled, *scaling.window)
            x = pooled
        name = f"proxy{path.source}_{path.sink}"
        return [self._chain(x, name, proxy_convolutions(proxy), self.scales[path.source], gain)]

    def node(self, node: int, terms: list[str], scale: float) -> None:
        """The ReLU of the sum of `terms`."""
        self.scales[node] = scale
        if len(terms) > 1:
            self._step("add", terms, _node(node), relu=True)
        else:  # a proxy alone: its last convolution is the node
            self.steps[-1] = replace(self.steps[-1], output=_node(node), relu=True)

    def head(self, last: int, head: nn.Linear) -> None:
        pooled = self._step("mean", [_node(last)], "features")
        self.tensors["head_weight"] = head.weight.detach().double() * self.scales[last]
        self.tensors["head_bias"] = head.bias.detach().double()
        self._step("linear", [pooled], LOGITS, weight="head_weight", bias="head_bias")

    def _chain(self, x: str, name: str, layers: list[tuple[Any, Any]], scale: float, gain: float) -> str:
        """Convolutions with ReLUs between them; `scale` belongs to the first, `gain` to the last."""
        for number, (conv, bn) in enumerate(layers, start=1):
            is_last = number == len(layers)
            weight, bias = fold(conv, bn, scale=scale if number == 1 else 1.0, gain=gain if is_last else 1.0)
            x = self._conv(x, f"{name}_conv{number}", conv, weight, bias, relu=not is_last)
        return x

    def _conv(self, x: str, name: str, conv: nn.Conv2d, weight: Tensor, bias: Tensor, *, relu: bool = False) -> str:
        assert conv.dilation == (1, 1) and conv.stride[0] == conv.stride[1] and conv.padding[0] == conv.padding[1]
        names = {"weight": f"{name}_weight", "bias": f"{name}_bias"}
        self.tensors |= {names["weight"]: weight, names["bias"]: bias}
        sizes = {"stride": conv.stride[0], "padding": conv.padding[0], "groups": conv.groups}
        return self._step("conv", [x], name, **names, **sizes, relu=relu)

    def _pool(self, x: str, name: str, kernel: int, stride: int, padding: int) -> str:
        return self._step("max_pool", [x], name, kernel=kernel, stride=stride, padding=padding)

    def _step(self, op: str, inputs: list[str], output: str, **details: Any) -> str:
        self.steps.append(Step(op, tuple(inputs), output, **details))
        return output


def _node(number: int) -> str:
    return f"node{number}"
