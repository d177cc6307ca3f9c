"""MobileNet V2 and V3: inverted residuals that end linearly, so that nothing follows a node.

What is behind the last block (a 1x1 convolution, in V3 a linear layer as well) makes the features: frozen, not a
task's.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    stem, *blocks, last = network.features
    *before, _ = network.classifier
    return Parts(
        stem=stem,
        blocks=tuple(blocks),
        activation=nn.Identity(),
        pooling=nn.Sequential(last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *before),
        classifier=f"classifier.{len(before)}",
    )
