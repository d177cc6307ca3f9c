"""A network's forward pass, as torch.fx records it, cut into parts that run one after the other.

The parts are made of the network's own layers, with two changes that leave the arithmetic as it is: nothing is done in
place (a proxy may read the same map), and timm's batch norm with its activation becomes two layers, so that it can be
folded and exported like any other.
"""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

_IN_PLACE: dict[Any, Any] = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}
_RELUS = (F.relu, F.relu_, torch.relu, "relu", "relu_")


@dataclass(frozen=True)
class Piece:
    """Nodes in the order in which they run, from the value `start` to the value `end`."""

    start: fx.Node
    nodes: tuple[fx.Node, ...]
    end: fx.Node


class BlockTracer(fx.Tracer):
    """Traces a network down to torch's own layers, and those of timm that can't be looked into.

    `inputs` and `outputs`: of each of `blocks`, by id, the values that it was called with and gave.
    """

    def __init__(self, blocks: Collection[nn.Module], leaves: Sequence[type], functions: Sequence[Any]) -> None:
        super().__init__(autowrap_functions=tuple(functions))
        self._leaves = tuple(leaves)
        self.inputs: dict[int, list[Any]] = {id(block): [] for block in blocks}
        self.outputs: dict[int, list[Any]] = {id(block): [] for block in blocks}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # what computes its weights anew at every step stays whole; so does timm's plain layer norm
        whole = isinstance(m, (nn.Conv2d, *self._leaves)) or type(m).__name__ in ("LayerNorm", "LayerNorm2d")
        return whole or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        result = super().call_module(m, forward, args, kwargs)
        if id(m) in self.outputs:
            self.inputs[id(m)].append(_node_of(args[0] if args else None))
            self.outputs[id(m)].append(_node_of(result))
        return result


def _node_of(value: Any) -> fx.Node | None:
    return value.node if isinstance(value, fx.Proxy) else None


def cut(graph: fx.Graph, ends: Sequence[fx.Node]) -> list[Piece] | None:
    """The nodes up to each of `ends`, and those behind the last; None where a piece reads more than the end before."""
    image = next(node for node in graph.nodes if node.op == "placeholder")
    (result,) = next(node for node in graph.nodes if node.op == "output").args
    if not isinstance(result, fx.Node):
        return None
    pieces = []
    rest = iter(graph.nodes)
    for start, end in zip([image, *ends], [*ends, result], strict=True):
        nodes = tuple(_up_to(rest, end))
        if not nodes or nodes[-1] is not end:
            return None
        known = {start, *nodes}
        if any(one not in known and one.op != "get_attr" for node in nodes for one in node.all_input_nodes):
            return None
        pieces.append(Piece(start, nodes, end))
    return pieces


def _up_to(nodes: Iterator[fx.Node], last: fx.Node) -> Iterator[fx.Node]:
    for node in nodes:
        if node.op != "placeholder":
            yield node
        if node is last:
            return


def is_relu(network: nn.Module, node: fx.Node) -> bool:
    if node.op == "call_module":
        return type(network.get_submodule(str(node.target))) is nn.ReLU
    return node.target in _RELUS


def module_of(network: nn.Module, piece: Piece, *, but_the_last: bool = False) -> fx.GraphModule:
    """`piece` as a module, in evaluation mode; `but_the_last`: without the operation that gives its end."""
    return _Maker(network, piece).made(piece.nodes[-1].args[0] if but_the_last else piece.end)


class _Maker:
    def __init__(self, network: nn.Module, piece: Piece) -> None:
        self.network, self.piece = network, piece
        self.graph = fx.Graph()
        self.parts: dict[str, Any] = {}
        self.values: dict[fx.Node, fx.Node] = {piece.start: self.graph.placeholder("x")}
        targets = [str(node.target) for node in piece.nodes if node.op in ("call_module", "get_attr")]
        self.common = _common([target.split(".")[:-1] for target in targets])

    def made(self, end: Any) -> fx.GraphModule:
        for node in self.piece.nodes:
            if node is not self.piece.end or end is self.piece.end:
                self.values[node] = self._copied(node)
        self.graph.output(self.values[end])
        for node in reversed(self.graph.nodes):  # checks of shapes, and what nobody reads
            if not node.users and node.op not in ("placeholder", "output"):
                self.graph.erase_node(node)
        kept = {str(node.target) for node in self.graph.nodes if node.op in ("call_module", "get_attr")}
        made = fx.GraphModule({name: part for name, part in self.parts.items() if name in kept}, self.graph)
        unsaved = constants(self.network)
        for name, part in self.parts.items():  # what the network does not store is not stored here
            if name in made._buffers and id(part) in unsaved:
                made._non_persistent_buffers_set.add(name)
        return made.eval()

    def _copied(self, node: fx.Node) -> fx.Node:
        if node.op == "call_module":
            return self._layer(node)
        if node.op == "get_attr":
            return self.graph.get_attr(self._named(str(node.target), _attribute(self.network, str(node.target))))
        if node.target is F.dropout:  # traced in evaluation mode
            return self.values[node.args[0]]  # type: ignore[index]
        copied = self.graph.node_copy(node, self.values.__getitem__)
        copied.target = _IN_PLACE.get(copied.target, copied.target)
        if copied.op == "call_method" and str(copied.target).endswith("_") and hasattr(Tensor, str(copied.target)[:-1]):
            copied.target = str(copied.target)[:-1]
        if copied.kwargs.get("inplace"):
            copied.kwargs = {**copied.kwargs, "inplace": False}
        return copied

    def _layer(self, node: fx.Node) -> fx.Node:
        target = str(node.target)
        layer = self.network.get_submodule(target)
        args = [self.values[arg] if isinstance(arg, fx.Node) else arg for arg in node.args]
        if type(layer).__name__ == "BatchNormAct2d":
            normed = self.graph.call_module(self._named(target, _plain(layer)), tuple(args))
            following = [m for m in (layer.drop, layer.act) if not isinstance(m, nn.Identity)]
            for number, module in enumerate(following):
                name = self._named(f"{target}_act{number or ''}", module)
                normed = self.graph.call_module(name, (normed,))
            return normed
        if isinstance(layer, nn.Identity):
            assert isinstance(args[0], fx.Node)
            return args[0]
        return self.graph.call_module(self._named(target, layer), tuple(args))

    def _named(self, target: str, part: Any) -> str:
        """Flat names, so that a part's layers stand in the order in which they run."""
        name = "_".join(target.split(".")[self.common :])
        if name.isdigit():
            name = f"layer{name}"
        assert self.parts.setdefault(name, part) is part or type(part) is nn.BatchNorm2d, f"two layers called {name}"
        return name


def _common(paths: Sequence[Sequence[str]]) -> int:
    """How many names the paths have in common at their start."""
    count = 0
    while paths and all(len(path) > count and path[count] == paths[0][count] for path in paths):
        count += 1
    return count


def _attribute(network: nn.Module, target: str) -> Any:
    owner, _, name = target.rpartition(".")
    return getattr(network.get_submodule(owner), name)


def _plain(norm: Any) -> nn.BatchNorm2d:
    """The batch norm without the activation: the very same tensors."""
    plain = nn.BatchNorm2d(norm.num_features, norm.eps, norm.momentum, affine=False, track_running_stats=False)
    plain.affine, plain.track_running_stats = norm.affine, norm.track_running_stats
    plain._parameters.update(norm._parameters)
    plain._buffers.update(norm._buffers)
    return plain


def constants(network: nn.Module) -> set[int]:
    """The ids of the buffers that are not stored with the network."""
    saved = {id(tensor) for tensor in network.state_dict(keep_vars=True).values()}
    return {id(buffer) for buffer in network.buffers() if id(buffer) not in saved}
