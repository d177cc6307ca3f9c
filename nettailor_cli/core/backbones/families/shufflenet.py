"""ShuffleNet V2: half of the channels pass a block by, then all are shuffled.

Everything that leaves a block is a ReLU's already; the node's own keeps it so when proxies, which are not, join.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    return Parts(
        stem=nn.Sequential(network.conv1, network.maxpool),
        blocks=(*network.stage2, *network.stage3, *network.stage4),
        activation=nn.ReLU(),
        pooling=nn.Sequential(network.conv5, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier="fc",
    )
