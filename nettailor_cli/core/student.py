"""Step 2, augment: the student, a frozen backbone with proxies beside its blocks (PAPER.md, Eqs. 2-4).

    x_l = act( alpha_l^l * G_l(x_{l-1}) + sum_p alpha_p^l * A_p^l(x_p) ),   alpha^l = softmax(a^l)

What is the task's own (proxies, attention logits a, classifier; where they are asked for, the backbone's batch-norm
statistics and parts inside universal blocks) is named here, by `task_state`, so that nobody has to filter by names.

N images, C channels, H x W pixels, L blocks, P paths.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core import adapters
from nettailor_cli.core.adapters import with_own_parts
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.graph import NOTHING, Graph, Path
from nettailor_cli.core.proxies import pool, scaled_proxy, start_fresh
from nettailor_cli.core.scaling import Scaling, between
from nettailor_cli.core.state import copy_state

FROZEN = ("stem", "universal", "pooling")
"""The parts that are the backbone's."""

LEAD = 4.0
"""By how much a universal path's attention logit starts above a proxy's; their middle is 0."""


@dataclass(frozen=True)
class Activations:
    """What one forward pass gives.

    nodes: x_0..x_L, each (N, C_l, H_l, W_l); None where a node is gone. logits: (N, classes). alpha: (P,), in [0, 1].
    """

    nodes: list[Tensor | None]
    logits: Tensor
    alpha: Tensor


Run = Callable[..., Tensor]
"""How a student has its frozen parts run: a function, and what it is to be called with."""


def run_now(function: Callable[..., Tensor], x: Tensor, *more: Hashable) -> Tensor:
    """A Run that keeps nothing."""
    return function(x, *more)


class Once:
    """A Run for several students of one backbone on the same `images`: what they have in common is computed once.

    Kept is the result of the same function on the same tensor, if that is `images` or a kept result itself: the stem
    and the universal blocks, as far as nothing of a task's own comes in. Holds these tensors for as long as it lives.
    """

    def __init__(self, images: Tensor) -> None:
        self._common = {id(images): images}  # held, so that no other tensor gets the same id
        self._kept: dict[tuple[Hashable, ...], Tensor] = {}

    def __call__(self, function: Callable[..., Tensor], x: Tensor, *more: Hashable) -> Tensor:
        if id(x) not in self._common:
            return function(x, *more)
        key = (function, id(x), *more)
        if key not in self._kept:
            y = self._kept[key] = function(x, *more)
            self._common[id(y)] = y
        return self._kept[key]


class Attention(nn.Module):
    """Eq. 3 for all nodes at once: a softmax over the logits of the paths that merge in the same node."""

    def __init__(self, sinks: Sequence[int]) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(len(sinks)))
        rows = {sink: row for row, sink in enumerate(sorted(set(sinks)))}
        counts = {sink: itertools.count() for sink in rows}
        self.register_buffer("row", torch.tensor([rows[sink] for sink in sinks]), persistent=False)
        self.register_buffer("column", torch.tensor([next(counts[sink]) for sink in sinks]), persistent=False)
        self.shape = (len(rows), max(sinks.count(sink) for sink in rows))

    row: Tensor
    column: Tensor

    def forward(self, logits: Tensor | None = None) -> Tensor:
        """(P,) -> (P,), in [0, 1], summing to 1 over each node's paths."""
        logits = self.logits if logits is None else logits
        padded = logits.new_full(self.shape, -torch.inf)
        padded = padded.index_put((self.row, self.column), logits)
        return padded.softmax(dim=1)[self.row, self.column]


class Student(nn.Module):
    """The frozen stem and the universal blocks that `graph` keeps, with its proxies, attention and a classifier.

    Takes the modules over from `backbone`; blocks that the graph doesn't keep are not referenced any more.
    `bn_stats` "frozen" leaves the backbone bit-identical; "adapt" lets its batch norms use batch statistics in
    training and keeps the running ones with the task. `proxy_width` and `proxy_depthwise`: see
    `proxies.make_proxy`. Blocks of which the graph says that a part is the task's own get it, in a copy, by `bn_affine`
    and `adapter_rank`: see `adapters`.
    """

    def __init__(
        self,
        backbone: Backbone,
        graph: Graph,
        classes: int,
        *,
        bn_stats: str = "frozen",
        proxy_width: int | None = None,
        proxy_depthwise: bool = False,
        bn_affine: str = "frozen",
        adapter_rank: int = 0,
    ) -> None:
        super().__init__()
        self.graph = graph
        self.bn_stats = bn_stats
        self.stem = backbone.stem.requires_grad_(False)
        blocks = {p.sink: backbone.blocks[p.sink - 1].requires_grad_(False) for p in graph.universal}
        for path in graph.universal:
            if path.own.parameters:
                blocks[path.sink] = with_own_parts(blocks[path.sink], bn_affine=bn_affine, adapter_rank=adapter_rank)
        self.universal = nn.ModuleDict({str(node): block for node, block in blocks.items()})
        self.pooling = backbone.pooling.requires_grad_(False)
        self._own = {f"universal.{name}" for name, p in self.universal.named_parameters() if p.requires_grad}
        self.proxies = nn.ModuleDict(
            {
                _key(p.source, p.sink): backbone.make_proxy(p.source, p.sink, proxy_width, depthwise=proxy_depthwise)
                for p in graph.proxies
            }
        )
        self.attention = Attention([p.sink for p in graph.paths])
        self.activation = backbone.activation
        self.norm = copy.deepcopy(backbone.norm).requires_grad_(True)
        self.head = nn.Linear(backbone.features, classes)
        self.scalings = backbone.scalings
        self._into = [
            (node, [(index, p) for index, p in enumerate(graph.paths) if p.sink == node]) for node in graph.nodes
        ]
        self.train(False)

    def start_fresh(
        self, generator: torch.Generator, *, proxy_start: str = "normal", logits_lead: float = LEAD
    ) -> None:
        """What is trained as at the start of tailoring; random numbers come from `generator` alone.

        `proxy_start`: see `proxies.start_fresh`. `logits_lead`: see LEAD.
        """
        for proxy in self.proxies.values():
            start_fresh(proxy, generator, proxy_start)
        with torch.no_grad():
            starts = [(logits_lead if path.is_universal else -logits_lead) / 2 for path in self.graph.paths]
            self.attention.logits.copy_(torch.tensor(starts))
        reset_classifier(self.head, generator)
        adapters.start_fresh(self.universal, generator)

    def frozen(self) -> dict[str, nn.Module]:
        """The backbone's parts. Nothing in them is trained but what is the task's own inside universal blocks."""
        return {name: self.get_submodule(name) for name in FROZEN}

    def on(self, frozen: Mapping[str, nn.Module]) -> Student:
        """This student on other `frozen` parts: a second view, whose trained parameters and buffers are this one's."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, **frozen}
        return twin

    def train(self, mode: bool = True) -> Student:
        """Training mode for what the task trains; the frozen part follows only if its statistics are adapted."""
        super().train(mode)
        if self.bn_stats == "frozen":
            for part in self.frozen().values():
                part.train(False)
        return self

    def forward(self, images: Tensor, run: Run = run_now) -> Activations:
        """Images (N, 3, H, W), normalised as the backbone wants them.

        `run` is given everything that is computed from frozen parts alone: see `Once`.
        """
        alpha = self.attention()
        nodes: list[Tensor | None] = [run(self.stem, images)] + [None] * self.graph.last
        pooled: dict[tuple[int, Scaling], Tensor] = {}  # proxies of the same source share the pooling
        for node, paths in self._into:
            nodes[node] = self._merge(node, paths, nodes, alpha, pooled, run)
        last = nodes[-1]
        assert last is not None, "a graph's last node is always fed"
        return Activations(nodes, self.head(self.pooling(self.norm(last))), alpha)

    def local_nodes(self, activations: Activations) -> list[Tensor | None]:
        """x_1..x_L computed again from *detached* inputs, so that a loss on node l trains node l's own paths only.

        The released code's block-local hint. Every path runs a second time.
        """
        detached = [None if x is None else x.detach() for x in activations.nodes]
        pooled: dict[tuple[int, Scaling], Tensor] = {}
        local: list[Tensor | None] = [detached[0]] + [None] * self.graph.last
        for node, paths in self._into:
            local[node] = self._merge(node, paths, detached, activations.alpha, pooled, run_now)
        return local

    def _merge(
        self,
        node: int,
        paths: list[tuple[int, Any]],
        nodes: list[Tensor | None],
        alpha: Tensor,
        pooled: dict[tuple[int, Scaling], Tensor],
        run: Run,
    ) -> Tensor:
        """Eq. 2 for one node."""
        merged: Tensor | None = None
        for index, path in paths:
            x = nodes[path.source]
            assert x is not None, "a pruned graph has no path from a node that is gone"
            # alone its alpha is 1, and what it gives may be another task's, too
            gain = alpha[index] if len(paths) > 1 else None
            if path.is_universal:
                block = self.universal[str(node)]
                y = run(block, x) if path.own == NOTHING else block(x)
                term = y if gain is None else gain.to(y.dtype) * y
            else:
                scaling = between(self.scalings, path.source, node)
                if (path.source, scaling) not in pooled:
                    pooled[path.source, scaling] = run(pool, x, scaling)
                term = scaled_proxy(self.proxy(path), pooled[path.source, scaling], gain)
            merged = term if merged is None else merged.add_(term)
        assert merged is not None
        return run(self.activation, merged)

    def proxy(self, path: Path) -> nn.Module:
        """The module of a path that is not universal."""
        return self.proxies[_key(path.source, path.sink)]

    def attended_graph(self) -> Graph:
        """The graph with today's attention. In float64, so that a saturated softmax keeps its ranking."""
        with torch.no_grad():
            alphas = self.attention(self.attention.logits.double())
        return self.graph.with_alphas(alphas.tolist())

    def task_state(self) -> dict[str, Tensor]:
        """Everything that is this task's own, by the names of the model file."""
        state = {"attention.logits": self.attention.logits.detach()}
        for part in ("proxies", "norm", "head"):
            state.update(_tensors(part, getattr(self, part)))
        for part, module in self.frozen().items():
            for name, tensor in _tensors(part, module).items():
                if name in self._own or (self.bn_stats == "adapt" and _is_statistic(name)):
                    state[name] = tensor
        return state

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """The reverse of `task_state`. Raises FileError unless names and shapes are exactly this student's."""
        copy_state(self.task_state(), state)


def reset_classifier(head: nn.Linear, generator: torch.Generator) -> None:
    """A fresh classifier: torch's own uniform start, from `generator` alone."""
    bound = head.in_features**-0.5
    with torch.no_grad():
        head.weight.uniform_(-bound, bound, generator=generator)
        head.bias.uniform_(-bound, bound, generator=generator)


def _key(source: int, sink: int) -> str:
    return f"{source}-{sink}"


def _tensors(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    """Detached views, without the counters of batch norm that nothing reads."""
    state = module.state_dict(prefix=f"{prefix}.")
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))
