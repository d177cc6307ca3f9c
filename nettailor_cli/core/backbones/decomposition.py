"""A network as stem, blocks 1..L and pooling: what a family has to tell, and what is measured from that.

Legend: N images, H x W pixels, L blocks, nodes 0..L (node 0 is the stem's output), C_l channels of node l.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Literal, cast

import torch
from torch import nn

from nettailor_cli.core.backbones.families import family_of
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision

ProxyKind = Literal["basic", "bottleneck", "budgeted"]
_RANDOM = (
    "Dropout",
    "StochasticDepth",
    "DropPath",
    "DropBlock2d",
)  # what is the identity in evaluation, and draws random numbers in training


@dataclass(frozen=True)
class Parts:
    """What a family's description gives. Node 0 is the stem's output, node l is activation(block_l(node l-1)).

    The modules are the network's own (or hold its own parameters): nothing is copied. A block's children stand in the
    order in which they run.
    """

    stem: nn.Module
    blocks: tuple[nn.Module, ...]  # block l at index l-1, without its last activation where the node has it
    activation: nn.Module  # ReLU, or Identity where a network's blocks end linearly
    pooling: nn.Module  # node L (N, C_L, H, W) -> (N, features), with whatever frozen layers are in between
    classifier: str  # the name of the linear layer that we leave out, in torchvision's keys
    norm: nn.Module = field(default_factory=nn.Identity)  # between node L and the pooling: each task trains its own
    auxiliary: tuple[str, ...] = ()  # heads that only torchvision's training uses: their tensors are left out too
    old_names: tuple[str, str] | None = None  # of tensors in some of torchvision's files: a pattern, and what it is now
    proxies: ProxyKind = "budgeted"  # the others are the published ones, see core.proxies


def make_network(arch: str, device: str = "cpu") -> nn.Module:
    """The network with random weights: torchvision's, our own, or timm's; without auxiliary heads.

    On `meta` it has shapes only and takes no time to initialise. Raises UsageError for a network of timm that is not
    there.
    """
    make = getattr(_module(arch), "make_network", None)
    if make is not None:
        with torch.device(device):
            return cast(nn.Module, make(arch))
    models = import_torchvision().models
    plain = {"aux_logits": False, "init_weights": False} if family_of(arch) in ("googlenet", "inception") else {}
    with torch.device(device), _widths_on_the_cpu(models.regnet.BlockParams):
        return cast(nn.Module, getattr(models, arch)(weights=None, **plain))


@contextmanager
def _widths_on_the_cpu(block_params: Any) -> Iterator[None]:
    """torchvision finds RegNets' widths by calculating with tensors, which have no values on `meta`."""
    theirs = block_params.from_init_params

    def ours(**given: Any) -> Any:
        with torch.device("cpu"):
            return theirs(**given)

    block_params.from_init_params = ours
    try:
        yield
    finally:
        block_params.from_init_params = theirs


def decompose(arch: str, network: Any) -> Parts:
    """`network` of the name `arch` in parts, in the order in which they run. Shares the parameters.

    Dropout and stochastic depth are taken out of `network`: in evaluation mode they are the identity, and training
    draws no random numbers but those of its seed. Raises UsageError for a network of timm that does not come apart.
    """
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child).__name__ in _RANDOM:
                setattr(parent, name, nn.Identity())
    parts: Parts = _module(arch).decompose(network)
    return parts


def _module(arch: str) -> Any:
    """The family's description of `arch`."""
    family = family_of(arch)
    assert family is not None, f"no family describes {arch}"
    return import_module(f"nettailor_cli.core.backbones.families.{family}")
