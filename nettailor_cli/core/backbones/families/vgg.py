"""VGG and AlexNet: a block is a convolution with what pools before it; its ReLU follows the node.

The two linear layers before the classifier make the features: frozen, not a task's.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    groups: list[list[nn.Module]] = [[]]
    for layer in network.features:
        if isinstance(layer, nn.ReLU):
            groups.append([])
        else:
            groups[-1].append(layer)
    stem, *blocks, rest = groups
    *before, _ = network.classifier
    return Parts(
        stem=nn.Sequential(*stem, nn.ReLU()),
        blocks=tuple(nn.Sequential(*group) for group in blocks),
        activation=nn.ReLU(),
        pooling=nn.Sequential(*rest, network.avgpool, nn.Flatten(), *before),
        classifier=f"classifier.{len(before)}",
    )
