"""A part of a network (stem, block, pooling) as operations in a row, found by torch.fx, whatever family it is of.

Modules of torch.nn stay whole; containers and residual sums are followed. Export is made of it, and what has no handler
in `deploy/operations.py` is refused there by name, so that nothing is exported wrong.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from nettailor_cli.core.backbones.torchvision_shim import import_torchvision

_SUMS = (operator.add, operator.iadd, torch.add, "add", "add_")


@dataclass(frozen=True)
class Traced:
    """`graph` of one input; `terms` are what is added up last, in order: the output itself where nothing is."""

    graph: fx.Graph
    terms: tuple[fx.Node, ...]
    last_sums: frozenset[fx.Node]
    """The additions that give the output of `terms`."""

    @property
    def passes_input(self) -> bool:
        """Whether the input itself is a term: a shortcut without a convolution."""
        return any(term.op == "placeholder" for term in self.terms)


def trace(part: nn.Module) -> Traced:
    """`part` of one input and one output, as it runs in evaluation mode."""
    shuffle = import_torchvision().models.shufflenetv2.channel_shuffle
    graph = _Tracer(autowrap_functions=(shuffle,)).trace(part)
    (result,) = next(node for node in graph.nodes if node.op == "output").args
    assert isinstance(result, fx.Node)
    last_sums: set[fx.Node] = set()
    terms: list[fx.Node] = []

    def follow(node: fx.Node) -> None:
        if is_sum(node) and len(node.users) == 1:
            last_sums.add(node)
            for term in node.args:
                assert isinstance(term, fx.Node)
                follow(term)
        else:
            terms.append(node)

    follow(result)
    return Traced(graph, tuple(terms), frozenset(last_sums))


def is_sum(node: fx.Node) -> bool:
    """Whether `node` adds two tensors."""
    return node.target in _SUMS and len(node.args) == 2 and not node.kwargs


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # ConvNeXt's LayerNorm2d and Permute are torchvision's own
        return (
            isinstance(m, (nn.LayerNorm, nn.Conv2d))
            or type(m).__name__ == "Permute"
            or super().is_leaf_module(m, module_qualified_name)
        )


def module_of(node: fx.Node, part: nn.Module) -> Any:
    """The module that `node` calls."""
    assert isinstance(node.target, str)
    return part.get_submodule(node.target)
