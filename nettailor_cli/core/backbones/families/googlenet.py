"""GoogLeNet: a block is an inception module with what pools before it. The auxiliary heads are left out.

A module's branches end in ReLUs already; the node's own keeps it so when proxies, which don't, join.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    return Parts(
        stem=nn.Sequential(network.conv1, network.maxpool1, network.conv2, network.conv3, network.maxpool2),
        blocks=(
            network.inception3a,
            network.inception3b,
            nn.Sequential(network.maxpool3, network.inception4a),
            network.inception4b,
            network.inception4c,
            network.inception4d,
            network.inception4e,
            nn.Sequential(network.maxpool4, network.inception5a),
            network.inception5b,
        ),
        activation=nn.ReLU(),
        pooling=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier="fc",
        auxiliary=("aux1", "aux2"),
    )
