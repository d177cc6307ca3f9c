"""What a path costs, and the expected complexity E[C] of a student under attention (PAPER.md, Eqs. 5-10).

A path can go because its own alpha is 0 (r = 1 - alpha), because every path into its source is gone (the product of
their r) or because every path out of its sink is gone (likewise). Two readings of how these events combine:

    published      E[C] = C * (1 - r - prod_in - prod_out)             Eq. 9: disjoint events; can fall below 0
    independence   E[C] = C * alpha * (1 - prod_in) * (1 - prod_out)   in [0, C]

The stem's output can't be excluded (prod_in = 0 from node 0) and neither can the last node (prod_out = 0 into node L).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from nettailor_cli.core.adapters import with_own_parts
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.graph import NOTHING, PROXY, UNIVERSAL, Cost, Graph, Path, sources_of_proxies, untouched
from nettailor_cli.core.proxies import pool
from nettailor_cli.core.scaling import between
from nettailor_cli.core.student import LEAD

_COUNTED = ("conv", "linear", "addmm", "matmul", "mm", "bmm", "einsum")
"""fvcore's handlers that count a multiply-add; the others (batch norm, pooling, ...) are switched off."""


class ExpectedComplexity(nn.Module):
    """E[C] of a student as a function of its attention: one number, relative to the backbone without classifier.

    `cost` "macs", "params" or "latency" says what C counts; `exclusion` which reading of Eqs. 5-10 combines the events.
    """

    def __init__(self, graph: Graph, *, exclusion: str = "published", cost: str = "macs") -> None:
        super().__init__()
        self.exclusion = exclusion
        costs, whole = path_costs(graph, cost)
        self.register_buffer("cost", torch.tensor(costs) / whole, persistent=False)
        into = _padded_rows([[i for i, q in enumerate(graph.paths) if q.sink == p.source] for p in graph.paths])
        out_of = _padded_rows([[i for i, q in enumerate(graph.paths) if q.source == p.sink] for p in graph.paths])
        self.register_buffer("into_source", into, persistent=False)
        self.register_buffer("out_of_sink", out_of, persistent=False)
        self.register_buffer("from_stem", torch.tensor([p.source == 0 for p in graph.paths]), persistent=False)
        self.register_buffer("to_last", torch.tensor([p.sink == graph.last for p in graph.paths]), persistent=False)

    cost: Tensor
    into_source: Tensor
    out_of_sink: Tensor
    from_stem: Tensor
    to_last: Tensor

    def forward(self, alpha: Tensor) -> Tensor:
        """alpha (P,) in [0, 1] -> a number; below 0 is possible for "published", not for "independence"."""
        gone = torch.cat([1 - alpha, alpha.new_ones(1)])  # the last entry is the padding: a factor of 1
        prod_in = gone[self.into_source].prod(dim=1).masked_fill(self.from_stem, 0.0)
        prod_out = gone[self.out_of_sink].prod(dim=1).masked_fill(self.to_last, 0.0)
        if self.exclusion == "published":
            kept = alpha - prod_in - prod_out
        else:
            kept = alpha * (1 - prod_in) * (1 - prod_out)
        return (self.cost * kept).sum()


def path_costs(graph: Graph, cost: str) -> tuple[list[float], float]:
    """The paths' costs, in canonical order, and the backbone's (all but the classifier), in the same unit.

    Raises UsageError for "latency" when the graph carries none: see `deploy.latency_table.LatencyTable.on`.
    """
    paths = [_number(p.cost, cost) for p in graph.paths]
    return paths, sum(_number(c, cost) for c in (graph.stem, *graph.blocks, graph.pooling))


def _number(cost: Cost, kind: str) -> float:
    if kind == "latency":
        if cost.latency is None:
            raise UsageError("the graph has no measured latencies", "tailor it with --cost latency")
        return cost.latency
    return float(cost.parameters if kind == "params" else cost.macs)


def _padded_rows(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of different length as one matrix, filled up with the index one past the last path."""
    width = max((len(row) for row in rows), default=0) or 1
    return torch.tensor([[*row, *itertools.repeat(len(rows), width - len(row))] for row in rows])


def macs(module: nn.Module, *inputs: Tensor) -> int:
    """MACs of one forward pass of `module` (in eval mode) on `inputs`, counted by fvcore."""
    from fvcore.nn import FlopCountAnalysis

    with torch.no_grad():
        analysis = FlopCountAnalysis(module, inputs).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        return round(sum(count for kind, count in analysis.by_operator().items() if kind in _COUNTED))


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def untouched_graph(backbone: Backbone, classes: int) -> Graph:
    """The graph of `backbone` with a classifier for `classes`, at the backbone's own input size: a teacher's."""
    return _Counter(backbone, classes).untouched


def student_graph(
    backbone: Backbone,
    classes: int,
    *,
    skips: int | None,
    proxy_width: int | None = None,
    proxy_depthwise: bool = False,
    shared_prefix: int = 0,
    bn_affine: str = "frozen",
    adapter_rank: int = 0,
    logits_lead: float = LEAD,
) -> Graph:
    """A fresh student's graph: every universal block, and the proxies of the `skips` closest nodes (None: all).

    Nodes 1..`shared_prefix` have the universal path alone, with nothing of the task's own in it; the others' blocks
    have what `adapters.with_own_parts` says. Raises UsageError when there are fewer blocks.
    """
    if shared_prefix > len(backbone.blocks):
        raise UsageError(f"--shared-prefix {shared_prefix}: {backbone.name} has {len(backbone.blocks)} blocks")
    counter = _Counter(backbone, classes)
    paths = list(counter.untouched.paths)
    for node in range(shared_prefix + 1, counter.untouched.last + 1):
        sources = sources_of_proxies(node, skips)
        logits = torch.tensor([logits_lead] + [0.0] * len(sources), dtype=torch.float64)
        alphas = logits.softmax(dim=0).tolist()
        cost, own = counter.block(node, bn_affine, adapter_rank)
        paths[node - 1] = Path(node - 1, node, UNIVERSAL, alphas[0], cost, own)
        paths += [
            Path(source, node, PROXY, alpha, counter.proxy(source, node, proxy_width, proxy_depthwise))
            for source, alpha in zip(sources, alphas[1:], strict=True)
        ]
    whole = counter.untouched
    return replace(whole, paths=tuple(paths))


class _Counter:
    """Counts the parts of one backbone at its input size, each once; proxies of equal shape are counted once too."""

    def __init__(self, backbone: Backbone, classes: int) -> None:
        self.backbone = backbone
        training = backbone.training
        backbone.eval()
        size = backbone.preprocessing.size
        images = torch.zeros(1, 3, size, size, device=next(backbone.parameters()).device)
        with torch.no_grad():
            self.nodes = backbone.nodes(images)
        head = nn.Linear(backbone.features, classes)
        self.untouched = untouched(
            blocks=[
                Cost(parameters(block), macs(block, x))
                for block, x in zip(backbone.blocks, self.nodes[:-1], strict=True)
            ],
            stem=Cost(parameters(backbone.stem), macs(backbone.stem, images)),
            pooling=Cost(parameters(backbone.pooling), macs(backbone.pooling, self.nodes[-1]), 0.0),
            head=Cost(parameters(head) + parameters(backbone.norm), macs(head, torch.zeros(1, backbone.features))),
        )
        backbone.train(training)
        self._seen: dict[tuple[object, ...], Cost] = {}

    def block(self, node: int, bn_affine: str, adapter_rank: int) -> tuple[Cost, Cost]:
        """What block `node` costs with a task's own parts inside, and what these cost."""
        block, cost = self.backbone.blocks[node - 1], self.untouched.blocks[node - 1]
        adapted = with_own_parts(block, bn_affine=bn_affine, adapter_rank=adapter_rank)
        if adapted is block:
            return cost, NOTHING
        x, shared = self.nodes[node - 1], {id(parameter) for parameter in block.parameters()}
        own = sum(parameter.numel() for parameter in adapted.parameters() if id(parameter) not in shared)
        whole = Cost(parameters(adapted), macs(adapted.to(x.device).eval(), x)) if adapter_rank else cost
        return whole, Cost(own, whole.macs - cost.macs, 0.0)

    def proxy(self, source: int, sink: int, width: int | None, depthwise: bool) -> Cost:
        x = pool(self.nodes[source], between(self.backbone.scalings, source, sink))
        proxy = self.backbone.make_proxy(source, sink, width, depthwise=depthwise).to(x.device).eval()
        shapes = (x.shape, *(parameter.shape for parameter in proxy.parameters()))
        if shapes not in self._seen:
            self._seen[shapes] = Cost(parameters(proxy), macs(proxy, x))
        return self._seen[shapes]
