"""EfficientNet and EfficientNet V2: (fused) inverted residuals that end linearly, so that nothing follows a node.

The 1x1 convolution behind the last block makes the features: frozen, not a task's.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    stem, *stages, last = network.features
    return Parts(
        stem=stem,
        blocks=tuple(block for stage in stages for block in stage),
        activation=nn.Identity(),
        pooling=nn.Sequential(last, network.avgpool, nn.Flatten()),
        classifier="classifier.1",
    )
