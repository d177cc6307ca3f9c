"""A delta's tensors, path by path: what a smaller graph keeps of one delta or takes from several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nettailor_cli.core.graph import Graph, Path

if TYPE_CHECKING:
    from torch import Tensor

LOGITS = "attention.logits"
_OF_ALL_PATHS = ("head", "norm", "stem", "pooling")

Source = tuple[Graph, Mapping[str, "Tensor"]]
"""A delta: its graph and its tensors."""


def tensors_for(graph: Graph, sources: Sequence[Source]) -> dict[str, Tensor]:
    """The task's tensors for `graph`: those of each path, and its attention logit, from the first source that has it.

    What belongs to no path (the classifier, its norm, statistics of stem and pooling) is the first source's. Raises
    KeyError when no source has a path.
    """
    rows: list[Tensor] = []
    tensors: dict[str, Tensor] = {}
    for name, tensor in sources[0][1].items():
        if name.split(".")[0] in _OF_ALL_PATHS:
            tensors[name] = tensor
    for path in graph.paths:
        source, own = _first_with(path, sources)
        rows.append(own[LOGITS][[other.name for other in source.paths].index(path.name)])
        home = f"universal.{path.sink}." if path.is_universal else f"proxies.{path.source}-{path.sink}."
        tensors.update({name: tensor for name, tensor in own.items() if name.startswith(home)})
    tensors[LOGITS] = rows[0].new_tensor([row.item() for row in rows])
    return tensors


def _first_with(path: Path, sources: Sequence[Source]) -> Source:
    for graph, tensors in sources:
        if any(other.name == path.name for other in graph.paths):
            return graph, tensors
    raise KeyError(path.name)
