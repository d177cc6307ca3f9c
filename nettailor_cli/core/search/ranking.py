"""Which universal block goes next: the one with the lowest score. Needs no torch.

alpha       its attention, as published
alpha-cost  its attention per MAC that goes with it
loss        the loss of the network without it
loss-cost   by how much the loss rises without it, per MAC that goes with it
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from nettailor_cli.core.graph import Graph
from nettailor_cli.core.pruning import is_whole, remove_blocks
from nettailor_cli.core.search.asked import RANKINGS


def without(graph: Graph, block: int, whole: Graph, shared_prefix: int = 0) -> Graph:
    """`graph` without the universal `block` and all that is dead without it.

    Where weak proxies went before and left the block alone in its node, or alone to read the shared prefix through,
    those that the student `whole` has there come back: weak beside the block, they are all that can stand in for it.
    """
    smaller = remove_blocks(graph, {block})
    into = graph.into(block)
    if len(into) > 1 and is_whole(smaller, shared_prefix):
        return smaller
    fed = {0, *graph.nodes}
    here = {path.name for path in into}
    back = (path for path in whole.into(block) if path.name not in here and path.source in fed)
    return remove_blocks(replace(graph, paths=(*graph.paths, *back)), {block})


def scores(
    graph: Graph,
    ranking: str,
    loss_of: Callable[[Graph], float],
    shared_prefix: int = 0,
    *,
    whole: Graph | None = None,
) -> dict[int, float]:
    """Block -> score, for the universal blocks of `graph` that can go: without the others nothing reaches the output.

    Blocks 1..`shared_prefix` can't, and none without which nothing would read them. `whole` is the student that `graph`
    was made of, if it is not `graph` itself: see `without`.

    `loss_of` gives the loss of a network with that graph; it is called for the rankings by loss only, once for each
    block and, for loss-cost, once more for `graph` itself. Raises ValueError for an unknown ranking.
    """
    if ranking not in RANKINGS:
        raise ValueError(f"no ranking is called {ranking!r}")
    now = loss_of(graph) if ranking == "loss-cost" else 0.0
    found: dict[int, float] = {}
    for path in graph.universal:
        smaller = without(graph, path.sink, whole or graph, shared_prefix)
        if not is_whole(smaller, shared_prefix):
            continue
        score = loss_of(smaller) - now if ranking.startswith("loss") else path.alpha
        saved = graph.cost.macs - smaller.cost.macs
        found[path.sink] = score / max(1, saved) if ranking.endswith("cost") else score
    return found


def weakest(found: dict[int, float]) -> int | None:
    """The block with the lowest score, of equal ones the first; None when no block can go."""
    return min(found, key=lambda block: (found[block], block), default=None)
