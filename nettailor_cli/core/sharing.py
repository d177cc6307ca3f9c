"""What tasks on one backbone have in common when they look at the same picture. Needs no torch.

The stem's output is the same for all that prepare their pictures alike and leave the batch-norm statistics frozen. So
is that of the universal blocks 1..m, if nodes 1..m-1 have the universal path alone; in node m, proxies part the tasks,
or in block m + 1 what is the task's own there.
"""

from __future__ import annotations

from collections.abc import Iterable

from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.graph import NOTHING, Graph
from nettailor_cli.core.preprocessing import Preprocessing


def common_blocks(graph: Graph) -> tuple[int, ...]:
    """The universal blocks that compute nothing of the task's own: 1..m; none if block 1 is gone."""
    found: list[int] = []
    for node in range(1, graph.last + 1):
        paths = graph.into(node)
        if not any(path.is_universal and path.own == NOTHING for path in paths):
            break
        found.append(node)
        if len(paths) > 1:
            break
    return tuple(found)


def macs_together(documents: Iterable[ModelDocument]) -> int:
    """MACs of all tasks on the same picture, with what they have in common computed once."""
    documents = list(documents)
    seen: set[tuple[Preprocessing, int]] = set()  # 0 stands for the stem
    saved = 0
    for document in documents:
        if document.shaping["bn_stats"] != "frozen":
            continue
        graph, images = document.graph, document.preprocessing
        for part in (0, *common_blocks(graph)):
            cost = graph.blocks[part - 1] if part else graph.stem
            saved += cost.macs if (images, part) in seen else 0
            seen.add((images, part))
    return sum(document.graph.cost.macs for document in documents) - saved
