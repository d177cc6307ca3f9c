"""A student or a teacher as a plan and its tensors: batch norms folded, alphas absorbed, dead blocks gone.

Where an alpha goes: into the last convolution of its path, and into the shortcut's. A shortcut without a convolution
has no weights to take it up, so node l is stored as y_l = x_l / s_l with s_l = alpha_l * s_{l-1}: then it adds y_{l-1}
as it is, and whoever reads y_l has s_l in his own weights (see `values.py`). From node to node s_l may become small
and y_l large, which half precision does not bear; below LEAST_SCALE the shortcut gets a depthwise 1x1 convolution with
its alpha instead, and s_l is 1 again. What bypasses a proxy is a shortcut like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from nettailor_cli.core.adapters import merge
from nettailor_cli.core.backbones.tracing import Traced, trace
from nettailor_cli.core.deploy.emitting import Emitter
from nettailor_cli.core.deploy.operations import emit_terms, emit_whole
from nettailor_cli.core.deploy.plan import IMAGE, LOGITS, Plan, Step, needed
from nettailor_cli.core.deploy.values import Record, Value, tensors_of
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.folding import proxy_layers
from nettailor_cli.core.graph import NOTHING, Path, untouched
from nettailor_cli.core.proxies import BypassedProxy
from nettailor_cli.core.scaling import Scaling, between
from nettailor_cli.core.student import Student
from nettailor_cli.core.teacher import Teacher

LEAST_SCALE = 1 / 16


def lower(network: Student | Teacher, dtype: torch.dtype = torch.float32) -> tuple[Plan, dict[str, Tensor]]:
    """The plan of `network` in evaluation mode, and its tensors in `dtype` on the CPU. `network` stays as it is.

    Raises UsageError, with the operation's name, for a network that a plan has no words for: some of timm's.
    """
    try:
        return _lower(network, dtype)
    except (NotImplementedError, AssertionError, fx.proxy.TraceError) as error:
        reason = str(error) or "one of its operations has a form that is not known"
        raise UsageError(f"this network can't be exported: {reason}") from error


def _lower(network: Student | Teacher, dtype: torch.dtype) -> tuple[Plan, dict[str, Tensor]]:
    blocks: dict[int, Any]
    if isinstance(network, Student):
        trunk: Any = network
        graph = network.attended_graph()
        blocks = {path.sink: merge(network.universal[str(path.sink)]) for path in graph.universal}
    else:
        trunk = network.backbone
        blocks = dict(enumerate(trunk.blocks, start=1))
        graph = untouched([NOTHING] * len(blocks), NOTHING, NOTHING)
    build = _Builder(activated=not isinstance(trunk.activation, nn.Identity))
    build.stem(trunk.stem)
    for node in graph.nodes:
        # an alpha of exactly 0 (a saturated softmax) adds nothing
        paths = [path for path in graph.into(node) if path.alpha > 0]
        traced = {path.sink: trace(blocks[path.sink]) for path in paths if path.is_universal}
        passing = [
            path
            for path in paths
            if (traced[node].passes_input if path.is_universal else isinstance(trunk.proxy(path), BypassedProxy))
        ]
        scale = _scale(passing, build.nodes)
        terms: dict[str, _Term] = {}
        for path in paths:
            if path.is_universal:
                found, name = build.block(path, blocks[node], traced[node]), f"block{node}_shortcut"
            else:
                scaling = between(trunk.scalings, path.source, node)
                found, name = [build.proxy(path, trunk.proxy(path), scaling)], f"bypass{path.source}_{node}"
                found += [build.nodes[path.source]] if path in passing else []
            for value in found:
                # a shortcut and a bypass of the same node are one term; what is made here is none of them
                label = f"block{node}_scaled" if value.record else name
                terms.setdefault(value.name, _Term(value, label)).gain += path.alpha / scale
        build.node(node, [*terms.values()], scale)
    build.head(graph.last, nn.Sequential(trunk.norm, trunk.pooling), network.head)
    return build.finished(dtype)


def _scale(passing: Sequence[Path], nodes: Mapping[int, Value]) -> float:
    """s_l of the node that the paths `passing` lead into, which pass their source on as it is."""
    if not passing:
        return 1.0
    source = passing[0].source
    scale = sum(path.alpha for path in passing if path.source == source) * nodes[source].factor
    return scale if scale >= LEAST_SCALE else 1.0


@dataclass
class _Term:
    """`gain` times `value` goes into a node; where that takes a step of its own, it is called `name`."""

    value: Value
    name: str
    gain: float = 0.0


class _Builder:
    """Collects steps; `nodes` has the values of the nodes so far, `activated` says whether a ReLU follows them."""

    def __init__(self, *, activated: bool) -> None:
        self.emit = Emitter()
        self.nodes: dict[int, Value] = {}
        self.activated = activated
        self._pooled: dict[tuple[int, Scaling], Value] = {}
        self._head: dict[str, Tensor] = {}

    def stem(self, stem: nn.Module) -> None:
        value = emit_whole(self.emit, stem, trace(stem), "stem", Value(IMAGE, 3))
        self.nodes[0] = self.emit.renamed(value, _node(0)).alone

    def block(self, path: Path, block: nn.Module, traced: Traced) -> list[Value]:
        """A universal block's terms: its convolutions in a row, and the shortcut; all are to be added."""
        return emit_terms(self.emit, block, traced, f"block{path.sink}", self.nodes[path.source])

    def proxy(self, path: Path, proxy: nn.Module, scaling: Scaling) -> Value:
        x = self.nodes[path.source]
        if scaling.changes:
            if (path.source, scaling) not in self._pooled:  # proxies of the same source share the pooling
                inset = "" if scaling.inset == 1 else f"_{scaling.inset}"
                name = f"{x.name}_pooled{scaling.stride}{inset}"
                self._pooled[path.source, scaling] = self.emit.max_pool(x, name, *scaling.window).alone
            x = self._pooled[path.source, scaling]
        for number, layer in enumerate(proxy_layers(proxy), start=1):
            name = f"proxy{path.source}_{path.sink}_conv{number}"
            x = self.emit.conv(x, name, layer.conv, layer.norm)
            if layer.relu:
                x = self.emit.relu(x, name)
        return x

    def node(self, node: int, terms: list[_Term], scale: float) -> None:
        """The sum of `terms` with their gains, and the ReLU if there is one."""
        names = [self.emit.multiplied(term.value, term.gain, term.name) for term in terms]
        first = terms[0].value
        if len(names) > 1:
            value = self.emit.sum_of(names, _node(node), first.channels)
        else:  # a single path with a single term: what makes it makes the node
            value = replace(first, name=names[0], factor=1.0)
            value = self.emit.renamed(value, _node(node)) if names[0] == first.name else value.alone
        if self.activated:
            value = self.emit.relu(value, f"{_node(node)}_relu")
        self.nodes[node] = replace(value, factor=scale).alone

    def head(self, last: int, pooling: nn.Module, head: nn.Linear) -> None:
        features = emit_whole(self.emit, pooling, trace(pooling), "pooling", self.nodes[last])
        features = self.emit.renamed(features, "features")
        step = Step("linear", (features.name,), LOGITS, weight="head_weight", bias="head_bias")
        self.emit.records.append(Record(step, head, scale=features.factor))

    def finished(self, dtype: torch.dtype) -> tuple[Plan, dict[str, Tensor]]:
        plan = Plan(needed([record.step for record in self.emit.records]))
        kept = {step.output for step in plan.steps}
        tensors: dict[str, Tensor] = {}
        for record in self.emit.records:
            if record.step.output in kept:
                tensors |= {name: tensor.to(dtype) for name, tensor in tensors_of(record).items()}
        return plan, dict(sorted(tensors.items()))


def _node(number: int) -> str:
    return f"node{number}"
