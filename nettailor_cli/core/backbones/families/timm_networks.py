"""timm's networks: stem, blocks and head are found on a trace of the network, whatever family it is of.

A network names what holds its blocks (`blocks`, `stages`, `layer1`, ...). Its forward pass is cut behind each block;
what runs between two of them belongs to the second (a stage's own downsampling). Every cut has to be one map that all
that follows is computed from, else the network is refused. A ReLU that ends every block goes to the node.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from torch import fx, nn

from nettailor_cli.core.backbones.decomposition import Parts, ProxyKind
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.families.cutting import BlockTracer, Piece, cut, is_relu, module_of
from nettailor_cli.core.backbones.timm_shim import import_timm, name_in_timm
from nettailor_cli.core.errors import UsageError

_HOLDERS = re.compile(
    r"(dense_)?(blocks|stages|layers|levels)|features|body|(layer|stage|level|block|s)[1-9]\d*"
    r"|mixed_.*|Mixed_.*|repeat(_\d)?|cell_\d+|reduction_cell_\d+"
)
"""What the children of timm's networks are called that hold blocks, or are blocks."""

_HELD_IN = "blocks"  # by a stage, beside what goes before them
_BETWEEN = ("downsample", "pool", "transition")  # stand among a stage's blocks without being one
_PUBLISHED: dict[str, ProxyKind] = {"BasicBlock": "basic", "Bottleneck": "bottleneck"}  # of ResNets, see core.proxies


def make_network(arch: str) -> nn.Module:
    """timm's network of the ARCH `arch`, with random weights.

    Raises UsageError when timm is not installed, has no network of this name, or can't make it.
    """
    timm, name = import_timm(), name_in_timm(arch)
    try:
        network: nn.Module = timm.create_model(name, pretrained=False)
    except Exception as error:
        raise _refused(arch, f"timm can't make it: {_first_line(error)}") from error
    return network


def decompose(network: Any) -> Parts:
    """Raises UsageError, with the reason, when `network` does not come apart."""
    arch = TIMM + str(network.pretrained_cfg["architecture"])
    network.eval()
    classifier = _classifier(arch, network)
    for module in network.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False
    linear = network.get_submodule(classifier)
    network.set_submodule(classifier, nn.Identity())
    try:
        return _in_parts(arch, network, classifier)
    finally:
        network.set_submodule(classifier, linear)


def _in_parts(arch: str, network: nn.Module, classifier: str) -> Parts:
    """`network` has no classifier any more; `classifier` is where it was."""
    reason = ""
    for fine in (True, False):  # where a stage's blocks read from one another, stages may still be in a row
        blocks = list(_blocks(network, fine=fine))
        if len(blocks) < 2:
            reason = reason or "it does not tell its blocks apart"
            continue
        graph, tracer = _traced(arch, network, blocks)
        inputs, outputs = (
            [node for block in blocks for node in calls[id(block)]] for calls in (tracer.inputs, tracer.outputs)
        )
        if len(outputs) != len(blocks) or None in (*inputs, *outputs):
            reason = reason or "a block runs more than once, not at all, or gives more than one map"
            continue
        # a first block that reads the picture is the stem
        ends = [*outputs] if inputs[0].op == "placeholder" else [inputs[0], *outputs]
        pieces = cut(graph, ends)
        if pieces is not None:
            return _parts(network, pieces, classifier, blocks)
        reason = reason or "its blocks are not in a row: one reads more than what the one before gives"
    raise _refused(arch, reason)


def _classifier(arch: str, network: Any) -> str:
    name = network.pretrained_cfg.get("classifier")
    if not isinstance(name, str):
        raise _refused(arch, "it has several classifiers, or none")
    try:
        layer = network.get_submodule(name)
    except AttributeError:
        raise _refused(arch, f"it has no classifier {name}") from None
    if not isinstance(layer, nn.Linear) and not (isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)):
        raise _refused(arch, f"its classifier {name} is a {type(layer).__name__}, not a linear layer on features")
    return name


def _blocks(network: nn.Module, *, fine: bool) -> Iterator[nn.Module]:
    """The blocks, in the order in which they are registered; without `fine`, stages stay whole."""
    for name, child in network.named_children():
        if _HOLDERS.fullmatch(name):
            for block in _inside(child, top=True):
                yield from _inside(block, top=False) if fine else (block,)


def _inside(module: nn.Module, *, top: bool) -> Iterator[nn.Module]:
    held = getattr(module, _HELD_IN, None)
    if isinstance(held, (nn.Sequential, nn.ModuleList)):
        if top:
            yield module
        else:
            yield from _inside(held, top=False)
    elif isinstance(module, (nn.Sequential, nn.ModuleList)) or "Stage" in type(module).__name__:
        children = [
            (name, child)
            for name, child in module.named_children()
            if not name.startswith(_BETWEEN) and any(True for _ in child.parameters())
        ]
        layers = [child for _, child in children if type(child).__module__.startswith("torch.nn.modules.")]
        if top:
            for _, child in children:
                if not isinstance(child, nn.BatchNorm2d):
                    yield child
        elif any(not isinstance(layer, (nn.Sequential, nn.ModuleList)) for layer in layers):
            yield module  # a row of plain layers is one block
        else:
            for _, child in children:
                yield from _inside(child, top=False)
    else:
        yield module


def _traced(arch: str, network: nn.Module, blocks: list[nn.Module]) -> tuple[fx.Graph, BlockTracer]:
    layers = import_timm().layers
    tracer = BlockTracer(blocks, layers.get_notrace_modules(), layers.get_notrace_functions())
    try:
        return tracer.trace(network), tracer
    except Exception as error:
        raise _refused(arch, f"its forward pass can't be followed: {_first_line(error)}") from error


def _parts(network: nn.Module, pieces: list[Piece], classifier: str, blocks: list[nn.Module]) -> Parts:
    stem, *middle, last = pieces
    activated = all(is_relu(network, piece.end) for piece in middle)
    kinds = {type(block).__name__ if type(block).__module__ == "timm.models.resnet" else "" for block in blocks}
    return Parts(
        stem=module_of(network, stem),
        blocks=tuple(module_of(network, piece, but_the_last=activated) for piece in middle),
        activation=nn.ReLU() if activated else nn.Identity(),
        pooling=module_of(network, last),
        classifier=classifier,
        proxies=_PUBLISHED.get(kinds.pop(), "budgeted") if len(kinds) == 1 else "budgeted",
    )


def _refused(arch: str, reason: str) -> UsageError:
    return UsageError(f"{arch} can't be tailored: {reason}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:120]
