"""MNASNet: inverted residuals that end linearly, so that nothing follows a node.

The 1x1 convolution behind the last block makes the features: frozen, not a task's.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    layers = list(network.layers)
    # convolution, norm, ReLU; a separable convolution with its norms; six stacks; convolution, norm, ReLU
    stem, separable, stacks, last = layers[:3], layers[3:8], layers[8:14], layers[14:]
    return Parts(
        stem=nn.Sequential(*stem),
        blocks=(nn.Sequential(*separable), *(block for stack in stacks for block in stack)),
        activation=nn.Identity(),
        pooling=nn.Sequential(*last, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier="classifier.1",
    )
