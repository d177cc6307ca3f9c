"""Whether a network in parts gives what it gives whole, bit for bit: asked for those that nobody here described."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import nn

from nettailor_cli.core.backbones.families.cutting import constants
from nettailor_cli.core.backbones.measures import bears
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.scaling import between

_SIDES = (96, 75, 224, 256, 384)
"""Of pictures, in pixels: compared is on the first two that the network takes. Some take no odd maps, or few sizes."""


def compare(backbone: Any, network: nn.Module) -> None:
    """`backbone` was made of `network`, and has weights that are loaded. Raises UsageError where they differ.

    What is left out of the network (its classifier) is not run, and may hold anything.
    """
    generator = torch.Generator().manual_seed(0)
    linear = network.get_submodule(backbone.classifier)
    network.eval().set_submodule(backbone.classifier, nn.Identity())
    try:
        with torch.no_grad():
            sides = list(itertools.islice((side for side in _SIDES if bears(backbone, side)), 2))
            if not sides:
                raise UsageError(f"{backbone.arch} can't be tailored: it takes pictures of none of {_SIDES} px")
            for side in sides:
                images = torch.randn(2, 3, side, side, generator=generator)
                nodes = backbone.nodes(images)
                if not torch.equal(backbone.pool(nodes[-1]), network(images)):
                    raise UsageError(f"{backbone.arch} can't be tailored: in parts it gives something else than whole")
                first = nodes[0].shape[2]
                for number, node in enumerate(nodes):
                    if node.shape[2] != between(backbone.scalings, 0, number).of(first):
                        raise UsageError(
                            f"{backbone.arch} can't be tailored: block {number} does not scale alike at all sizes"
                        )
    finally:
        network.set_submodule(backbone.classifier, linear)


def has_constants(network: nn.Module) -> bool:
    """Whether there are tensors that are not stored with the network."""
    return bool(constants(network))
