"""What a family of networks has to tell about itself, so that everything else need not know the family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import nn

ProxyKind = Literal["basic", "bottleneck"]


@dataclass(frozen=True)
class Decomposition:
    """A network as stem, blocks 1..L, pooling. Node 0 is the stem's output, node l is activation(block_l(node l-1)).

    The modules are the network's own (or hold its own parameters): nothing is copied.
    """

    stem: nn.Module
    blocks: tuple[nn.Module, ...]  # block l at index l-1, without its last activation
    activation: nn.Module
    pooling: nn.Module  # node L (N, C_L, H, W) -> (N, features)
    channels: tuple[int, ...]  # of nodes 0..L
    strides: tuple[int, ...]  # of blocks 1..L
    features: int
    proxy_kind: ProxyKind
    classifier: str  # the name of the module that we leave out, in torchvision's keys
