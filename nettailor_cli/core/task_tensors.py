"""A delta's tensors, path by path: what a smaller graph keeps of one delta or takes from several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import Graph, Path

if TYPE_CHECKING:
    from torch import Tensor

LOGITS = "attention.logits"
_OF_ALL_PATHS = {"head", "norm", "stem", "pooling"}

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
        if _home(name) in _OF_ALL_PATHS:
            tensors[name] = tensor
    logits = [{path.name: row for path, row in zip(source.paths, own[LOGITS], strict=True)} for source, own in sources]
    homes = [_by_home(own) for _, own in sources]
    for path in graph.paths:
        first = next((number for number, known in enumerate(logits) if path.name in known), None)
        if first is None:
            raise KeyError(path.name)
        rows.append(logits[first][path.name])
        tensors.update(homes[first].get(_home_of(path), {}))
    tensors[LOGITS] = rows[0].new_tensor([row.item() for row in rows])
    return tensors


def check_tensors(graph: Graph, classes: int, tensors: Mapping[str, Tensor]) -> None:
    """Whether `tensors` can be those of a delta with this graph: what can be told without its backbone.

    A logit for every path, a classifier for all classes, tensors for every proxy, none for paths that are not there;
    no value that is NaN or infinite, and no negative variance. Raises FileError, naming the tensor.
    """
    shapes = {LOGITS: (len(graph.paths),), "head.bias": (classes,)}
    for name, shape in shapes.items():
        if name not in tensors:
            raise FileError(f"the file lacks the tensor {name!r}")
        if tuple(tensors[name].shape) != shape:
            raise FileError(f"the tensor {name!r} has shape {list(tensors[name].shape)}, not {list(shape)}")
    homes = _by_home(tensors)
    needed = {_home_of(path) for path in graph.proxies}
    for home in sorted(needed - homes.keys()):
        raise FileError(f"the file lacks the tensors of {home}")
    allowed = needed | {_home_of(path) for path in graph.universal} | _OF_ALL_PATHS | {_home(LOGITS)}
    for home in sorted(homes.keys() - allowed):
        raise FileError(f"the file has a tensor {next(iter(homes[home]))!r} that does not belong there")
    check_values(tensors)


def check_values(tensors: Mapping[str, Tensor]) -> None:
    """Raises FileError, naming the tensor, for values that no network computes with; in fp32 they have to be finite."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise FileError(f"the tensor {name!r} holds values that are not floating-point numbers")
        values = tensor.float()
        if not bool(values.isfinite().all()):
            raise FileError(f"the tensor {name!r} holds values that are not finite (NaN or infinite)")
        if name.endswith("running_var") and bool((values < 0).any()):
            raise FileError(f"the tensor {name!r} holds variances below zero")


def _home(name: str) -> str:
    """The module of the student that a tensor belongs to: "proxies.0-2", "universal.3", or the first word."""
    first, *rest = name.split(".")
    return f"{first}.{rest[0]}" if first in ("universal", "proxies") and rest else first


def _home_of(path: Path) -> str:
    return f"universal.{path.sink}" if path.is_universal else f"proxies.{path.source}-{path.sink}"


def _by_home(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    homes: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        homes.setdefault(_home(name), {})[name] = tensor
    return homes
