"""The shape of a student, as plain data: nodes 0..L, the paths between them, and what each costs.

No torch here: `inspect` and `pruning` work on this alone, and it is what the model file's metadata keeps.

    node 0 is the stem's output; the universal block l leads from node l-1 to node l, a proxy from node p to l, p < l
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

UNIVERSAL = "universal"
PROXY = "proxy"


@dataclass(frozen=True)
class Cost:
    """Parameters (numbers that are trained or were pretrained), MACs (one multiply-add = 1), and measured latency.

    `latency` is in microseconds; None where nobody has measured it.
    """

    parameters: int
    macs: int
    latency: float | None = None

    def __add__(self, other: Cost) -> Cost:
        """The sum; its latency is known only if both are."""
        latency = None if self.latency is None or other.latency is None else self.latency + other.latency
        return Cost(self.parameters + other.parameters, self.macs + other.macs, latency)


NOTHING = Cost(0, 0, 0.0)


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of `costs`; nothing costs nothing."""
    return sum(costs, NOTHING)


@dataclass(frozen=True)
class Path:
    """One way into node `sink`, with its attention weight `alpha` in [0, 1].

    `own` is what is the task's own of a universal block's `cost`: see `core.adapters`. All of a proxy is.
    """

    source: int
    sink: int
    kind: str
    alpha: float
    cost: Cost
    own: Cost = NOTHING

    @property
    def is_universal(self) -> bool:
        return self.kind == UNIVERSAL

    @property
    def task_cost(self) -> Cost:
        """What is this task's own of it."""
        return self.own if self.is_universal else self.cost

    @property
    def universal_cost(self) -> Cost:
        """What is the backbone's of it. Nobody measures the two apart, so the time of both is here."""
        if not self.is_universal:
            return NOTHING
        return Cost(self.cost.parameters - self.own.parameters, self.cost.macs - self.own.macs, self.cost.latency)

    @property
    def name(self) -> str:
        """Unique in its graph: "universal 3" or "proxy 1-3"."""
        return f"universal {self.sink}" if self.is_universal else f"proxy {self.source}-{self.sink}"


def _order(path: Path) -> tuple[int, bool, int]:
    return (path.sink, not path.is_universal, -path.source)


@dataclass(frozen=True)
class Graph:
    """A student's paths in canonical order: by sink, the universal block first, then proxies from near to far.

    `blocks[l-1]` is what the backbone's block l costs, whether the student keeps it or not; `pooling` what its frozen
    layers between the last node and the classifier do, which is nothing in many families. Their time is in the head's.
    """

    blocks: tuple[Cost, ...]
    stem: Cost
    head: Cost
    paths: tuple[Path, ...]
    pooling: Cost = NOTHING

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(sorted(self.paths, key=_order)))

    @property
    def last(self) -> int:
        """L, the number of the last node."""
        return len(self.blocks)

    def into(self, node: int) -> tuple[Path, ...]:
        return tuple(path for path in self.paths if path.sink == node)

    @property
    def nodes(self) -> tuple[int, ...]:
        """The nodes 1..L that some path leads into, in order."""
        return tuple(sorted({path.sink for path in self.paths}))

    @property
    def universal(self) -> tuple[Path, ...]:
        return tuple(path for path in self.paths if path.is_universal)

    @property
    def blocks_kept(self) -> tuple[int, ...]:
        """The numbers of the universal blocks, in order."""
        return tuple(path.sink for path in self.universal)

    @property
    def proxies(self) -> tuple[Path, ...]:
        return tuple(path for path in self.paths if not path.is_universal)

    @property
    def backbone(self) -> Cost:
        """The whole backbone with this task's classifier: what a fine-tuned network would cost."""
        return self.stem + total(self.blocks) + self.pooling + self.head

    @property
    def universal_cost(self) -> Cost:
        """What this student uses of the backbone: stem, pooling and the universal blocks that it keeps."""
        return self.stem + total(path.universal_cost for path in self.paths) + self.pooling

    @property
    def task_cost(self) -> Cost:
        """What is this task's own: proxies, classifier, and what it has inside universal blocks."""
        return self.head + total(path.task_cost for path in self.paths)

    @property
    def cost(self) -> Cost:
        return self.universal_cost + self.task_cost

    def with_alphas(self, alphas: Sequence[float]) -> Graph:
        """The same graph with the attention `alphas`, one per path in canonical order."""
        if len(alphas) != len(self.paths):
            raise ValueError(f"{len(alphas)} alphas for {len(self.paths)} paths")
        return replace(self, paths=tuple(replace(p, alpha=float(a)) for p, a in zip(self.paths, alphas, strict=True)))

    def keeping(self, keep: Callable[[Path], bool]) -> Graph:
        """The graph of the paths for which `keep` is true, the attention of each node scaled to sum to 1 again.

        That is the softmax over the surviving logits (PAPER.md, Eq. 3): a softmax restricted to a subset is the
        old one, renormalised.
        """
        survivors = [path for path in self.paths if keep(path)]
        sums: dict[int, float] = {}
        for path in survivors:
            sums[path.sink] = sums.get(path.sink, 0.0) + path.alpha
        return replace(
            self,
            paths=tuple(replace(p, alpha=p.alpha / sums[p.sink] if sums[p.sink] > 0 else 0.0) for p in survivors),
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "stem": _cost_to_json(self.stem),
            "head": _cost_to_json(self.head),
            # only where there is something: files of families that have nothing there are as they always were
            **({} if self.pooling == NOTHING else {"pooling": _cost_to_json(replace(self.pooling, latency=None))}),
            "blocks": [_cost_to_json(block) for block in self.blocks],
            "paths": [
                {
                    "source": p.source,
                    "sink": p.sink,
                    "kind": p.kind,
                    "alpha": p.alpha,
                    **_cost_to_json(p.cost),
                    **({} if p.own == NOTHING else {"own": _cost_to_json(replace(p.own, latency=None))}),
                }
                for p in self.paths
            ],
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Graph:
        """Raises KeyError, TypeError or ValueError when the document is not a graph that could be run."""
        graph = cls(
            blocks=tuple(_cost_from_json(block) for block in document["blocks"]),
            stem=_cost_from_json(document["stem"]),
            head=_cost_from_json(document["head"]),
            paths=tuple(_path_from_json(path) for path in document["paths"]),
            pooling=replace(_cost_from_json(document["pooling"]), latency=0.0) if "pooling" in document else NOTHING,
        )
        graph.check()
        return graph

    def check(self) -> None:
        """Raises ValueError when paths are doubled or run backwards, or nothing joins the last node to the stem."""
        if not self.blocks:
            raise ValueError("a backbone without blocks")
        if not (self.backbone.parameters and self.backbone.macs):
            raise ValueError("a backbone without parameters or MACs")
        for path in self.paths:
            if path.kind not in (UNIVERSAL, PROXY):
                raise ValueError(f"a path of unknown kind {path.kind!r}")
        if len({path.name for path in self.paths}) != len(self.paths):
            raise ValueError("a path stands twice")
        for path in self.paths:
            if not 0 <= path.source < path.sink <= self.last:
                raise ValueError(f"a path from node {path.source} to node {path.sink} of {self.last}")
            if path.is_universal and path.source != path.sink - 1:
                raise ValueError(f"a universal block from node {path.source} to node {path.sink}")
            if not (math.isfinite(path.alpha) and 0 <= path.alpha <= 1):
                raise ValueError(f"alpha {path.alpha} of {path.name} is not in [0, 1]")
            if path.own != NOTHING and not path.is_universal:
                raise ValueError(f"all of {path.name} is the task's own")
            if path.own.parameters > path.cost.parameters or path.own.macs > path.cost.macs:
                raise ValueError(f"more of {path.name} is the task's own than there is of it")
        fed = {0, *self.nodes}
        for path in self.paths:
            if path.source not in fed:
                raise ValueError(f"{path.name} reads node {path.source}, which nothing leads into")
        if self.last not in fed:
            raise ValueError(f"nothing leads into the last node, {self.last}")


def untouched(blocks: Sequence[Cost], stem: Cost, head: Cost, pooling: Cost = NOTHING) -> Graph:
    """The backbone as it is: every universal block alone in its node, alpha 1. This is a teacher's graph."""
    return Graph(
        blocks=tuple(blocks),
        stem=stem,
        head=head,
        pooling=pooling,
        paths=tuple(Path(node - 1, node, UNIVERSAL, 1.0, cost) for node, cost in enumerate(blocks, start=1)),
    )


def sources_of_proxies(node: int, skips: int | None) -> range:
    """The nodes whose proxies lead into `node`, near to far: the `skips` closest before it, the stem's included.

    None means all of them ("dense").
    """
    reach = node if skips is None else min(skips, node)
    return range(node - 1, node - 1 - reach, -1)


def _cost_to_json(cost: Cost) -> dict[str, int | float]:
    measured = {} if cost.latency is None else {"latency_us": cost.latency}
    return {"parameters": cost.parameters, "macs": cost.macs, **measured}


def _cost_from_json(document: dict[str, Any]) -> Cost:
    parameters, macs = document["parameters"], document["macs"]
    if type(parameters) is not int or type(macs) is not int or parameters < 0 or macs < 0:
        raise ValueError("parameters and MACs must be whole numbers, zero or more")
    latency = document.get("latency_us")
    if latency is not None and not (type(latency) in (int, float) and 0 <= latency < math.inf):
        raise ValueError("a latency must be a number of microseconds, zero or more")
    return Cost(parameters, macs, None if latency is None else float(latency))


def _path_from_json(document: dict[str, Any]) -> Path:
    source, sink = document["source"], document["sink"]
    if type(source) is not int or type(sink) is not int:
        raise ValueError("a path's source and sink must be whole numbers")
    if type(document["alpha"]) not in (int, float):
        raise ValueError("a path's alpha must be a number")
    own = replace(_cost_from_json(document["own"]), latency=0.0) if "own" in document else NOTHING
    return Path(source, sink, document["kind"], float(document["alpha"]), _cost_from_json(document), own)
