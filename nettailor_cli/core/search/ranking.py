"""Which universal block goes next: the one with the lowest score. Needs no torch.

alpha       its attention, as published
alpha-cost  its attention per MAC that goes with it
loss        the loss of the network without it
loss-cost   by how much the loss rises without it, per MAC that goes with it
"""

from __future__ import annotations

from collections.abc import Callable

from nettailor_cli.core.graph import Graph
from nettailor_cli.core.pruning import remove_blocks

RANKINGS = ("alpha", "alpha-cost", "loss", "loss-cost")


def scores(graph: Graph, ranking: str, loss_of: Callable[[Graph], float]) -> dict[int, float]:
    """Block -> score, for the universal blocks of `graph` that can go: without the others nothing reaches the output.

    `loss_of` gives the loss of a network with that graph; it is called for the rankings by loss only, once for each
    block and, for loss-cost, once more for `graph` itself. Raises ValueError for an unknown ranking.
    """
    if ranking not in RANKINGS:
        raise ValueError(f"no ranking is called {ranking!r}")
    now = loss_of(graph) if ranking == "loss-cost" else 0.0
    found: dict[int, float] = {}
    for path in graph.universal:
        smaller = remove_blocks(graph, {path.sink})
        if not smaller.into(graph.last):
            continue
        score = loss_of(smaller) - now if ranking.startswith("loss") else path.alpha
        saved = graph.cost.macs - smaller.cost.macs
        found[path.sink] = score / max(1, saved) if ranking.endswith("cost") else score
    return found


def weakest(found: dict[int, float]) -> int | None:
    """The block with the lowest score, of equal ones the first; None when no block can go."""
    return min(found, key=lambda block: (found[block], block), default=None)
