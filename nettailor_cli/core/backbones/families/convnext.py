"""ConvNeXt: residual blocks that end linearly, so that nothing follows a node.

The layer norm and the 2x2 convolution between two stages belong to the next block; the last layer norm to the pooling.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nettailor_cli.core.backbones.decomposition import Parts


def decompose(network: Any) -> Parts:
    stem, *features = network.features
    blocks: list[nn.Module] = list(features[0])
    for between, stage in zip(features[1::2], features[2::2], strict=True):
        first, *others = stage
        blocks += [nn.Sequential(*between, first), *others]
    norm, flatten, _ = network.classifier
    return Parts(
        stem=stem,
        blocks=tuple(blocks),
        activation=nn.Identity(),
        pooling=nn.Sequential(network.avgpool, norm, flatten),
        classifier="classifier.2",
    )
