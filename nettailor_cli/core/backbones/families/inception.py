"""Inception V3: a block is an inception module. The auxiliary head is left out.

A module's branches end in ReLUs already; the node's own keeps it so when proxies, which don't, join.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    children = dict(network.named_children())
    stem = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2")
    return Parts(
        stem=nn.Sequential(*(children[name] for name in stem)),
        blocks=tuple(module for name, module in children.items() if name.startswith("Mixed_")),
        activation=nn.ReLU(),
        pooling=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier="fc",
        auxiliary=("AuxLogits",),
    )
