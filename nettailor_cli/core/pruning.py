"""Step 4, prune: which paths go, and what that makes dead (PAPER.md, "Pruning").

The order matters. Universal blocks go first, then the softmax is taken over what is left, then weak proxies go: a proxy
that looked weak beside its universal block may be all that a node has once the block is gone. The strongest path of
every node stays as long as the node is needed, so input and output are always connected.

With a shared prefix N (`tailor --shared-prefix`) blocks 1..N always stay, and something that reads them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.graph import Graph, Path

PROXY_THRESHOLD = 0.05
"""Proxies with a smaller alpha go, where nothing else was asked for."""


@dataclass(frozen=True)
class Pruned:
    """What pruning gives: the smaller `graph`, and how many universal blocks were asked to go (`removed`).

    More blocks may be gone than `removed`: those that the removal made dead.
    """

    graph: Graph
    removed: int


def prune(graph: Graph, remove: int, proxy_threshold: float, shared_prefix: int = 0) -> Pruned:
    """Drop the `remove` universal blocks with the smallest alpha, then proxies with alpha < `proxy_threshold`.

    `proxy_threshold` is in [0, 1] and is compared with the attention after the universal blocks are gone. Raises
    UsageError when `remove` is negative or so large that nothing would connect input and output.
    """
    _check_threshold(proxy_threshold)
    most = len(_ranked(graph, shared_prefix))
    if not 0 <= remove <= most:
        beside = f" beside the {shared_prefix} of its shared prefix" if shared_prefix else ""
        raise UsageError(f"--remove {remove}: the student has {most} universal blocks{beside}", f"choose 0 to {most}")
    smaller = _without_weakest(graph, remove, shared_prefix)
    if smaller is None:
        raise UsageError(
            f"--remove {remove} would cut the output off from the input",
            "remove fewer blocks, or prune a student with more proxies (tailor --skips)",
        )
    return Pruned(drop_weak_proxies(smaller, proxy_threshold, shared_prefix), remove)


def prune_to(graph: Graph, macs_share: float, proxy_threshold: float, shared_prefix: int = 0) -> Pruned:
    """`prune` with the smallest number of removed blocks that brings the MACs to `macs_share` of the backbone's.

    When none does, the one with the fewest MACs of all. `macs_share` is in (0, 1].
    """
    _check_threshold(proxy_threshold)
    candidates: list[Pruned] = []
    for remove in range(len(_ranked(graph, shared_prefix)) + 1):
        smaller = _without_weakest(graph, remove, shared_prefix)
        if smaller is None:
            break
        pruned = Pruned(drop_weak_proxies(smaller, proxy_threshold, shared_prefix), remove)
        if pruned.graph.cost.macs <= macs_share * graph.backbone.macs:
            return pruned
        candidates.append(pruned)
    return min(candidates, key=lambda pruned: pruned.graph.cost.macs)


def _check_threshold(proxy_threshold: float) -> None:
    if not 0 <= proxy_threshold <= 1:
        raise UsageError(f"--proxy-threshold {proxy_threshold:g} is not between 0 and 1")


def _ranked(graph: Graph, shared_prefix: int) -> list[int]:
    """The universal blocks that may go, the weakest first; of equal ones the earlier goes."""
    return [path.sink for path in sorted(graph.universal, key=lambda p: (p.alpha, p.sink)) if path.sink > shared_prefix]


def _without_weakest(graph: Graph, remove: int, shared_prefix: int) -> Graph | None:
    """`graph` without its `remove` weakest universal blocks; None when that would disconnect it."""
    smaller = remove_blocks(graph, _ranked(graph, shared_prefix)[:remove])
    return smaller if is_whole(smaller, shared_prefix) else None


def is_whole(graph: Graph, shared_prefix: int = 0) -> bool:
    """Whether something leads into the last node, and the blocks of the shared prefix are all there.

    `graph` has no dead paths, so what is there is connected with both ends.
    """
    return bool(graph.into(graph.last)) and {*graph.blocks_kept} >= {*range(1, shared_prefix + 1)}


def remove_blocks(graph: Graph, blocks: Collection[int]) -> Graph:
    """`graph` without the universal blocks numbered in `blocks` and everything that is dead without them."""
    return drop_dead(graph.keeping(lambda path: not (path.is_universal and path.sink in blocks)))


def drop_weak_proxies(graph: Graph, threshold: float, shared_prefix: int = 0) -> Graph:
    """`graph` without proxies of alpha < `threshold`, but with the strongest path of every node that is needed.

    Where nothing would read the shared prefix any more, a way from it to the last node stays: from node to node the
    strongest path. `graph` is whole, see `is_whole`.
    """
    kept = _strong(graph, threshold, [])
    if shared_prefix and not any(path.source == shared_prefix and path.name in kept for path in graph.paths):
        kept = _strong(graph, threshold, _way_out(graph, shared_prefix))
    return drop_dead(graph.keeping(lambda path: path.name in kept))


def _way_out(graph: Graph, node: int) -> list[Path]:
    """Paths from `node` to the last node, out of each node the strongest; of equal ones that to the nearer node."""
    way: list[Path] = []
    while node != graph.last:
        out = [path for path in graph.paths if path.source == node]
        way.append(max(out, key=lambda path: (path.alpha, -path.sink)))
        node = way[-1].sink
    return way


def _strong(graph: Graph, threshold: float, anyway: Collection[Path]) -> set[str]:
    """The names of the paths that stay: strong ones, the strongest of every node that is needed, and those of `anyway`.

    Nodes are visited from the last to the first, so that a node is known to be needed (something that stays reads it)
    before its own paths are judged.
    """
    kept = {path.name for path in anyway}
    needed = {graph.last, *(node for path in anyway for node in (path.source, path.sink))}
    for node in range(graph.last, 0, -1):
        if node not in needed:
            continue
        paths = graph.into(node)
        strong = [path for path in paths if path.is_universal or path.alpha >= threshold]
        for path in strong or [max(paths, key=_strength)]:
            kept.add(path.name)
            needed.add(path.source)
    return kept


def drop_dead(graph: Graph) -> Graph:
    """`graph` without input- and output-excluded paths, to a fixed point (PAPER.md, "a path can go for three reasons").

    A path is dead when nothing leads into its source (unless that is the stem's output) or nothing that leads out of
    its sink (unless that is the last node).
    """
    while True:
        fed = {0, *graph.nodes}
        read = {graph.last, *(path.source for path in graph.paths)}
        smaller = graph.keeping(lambda path, fed=fed, read=read: path.source in fed and path.sink in read)  # type: ignore[misc]
        if len(smaller.paths) == len(graph.paths):
            return smaller
        graph = smaller


def _strength(path: Path) -> tuple[float, int]:
    return (path.alpha, path.source)  # of equal ones the nearer source: it has seen more of the network
