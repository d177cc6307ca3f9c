"""DenseNet: a block is a dense layer, whose output stands beside its input; a transition belongs to the next block."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.decomposition import Parts


class Grown(nn.Module):
    """A dense layer's input and its new channels, as one tensor."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        for name, child in layer.named_children():
            self.add_module(name, child)

    norm1: nn.Module
    relu1: nn.Module
    conv1: nn.Module
    norm2: nn.Module
    relu2: nn.Module
    conv2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C + growth, H, W)."""
        inside = self.conv1(self.relu1(self.norm1(x)))
        return torch.cat([x, self.conv2(self.relu2(self.norm2(inside)))], dim=1)


def decompose(network: Any) -> Parts:
    children = dict(network.features.named_children())
    blocks: list[nn.Module] = []
    before: list[nn.Module] = []
    for name, child in children.items():
        if name.startswith("transition"):
            before = [child]
        elif name.startswith("denseblock"):
            first, *others = (Grown(layer) for layer in child.children())
            blocks += [nn.Sequential(*before, first) if before else first, *others]
    return Parts(
        stem=nn.Sequential(*(children[name] for name in ("conv0", "norm0", "relu0", "pool0"))),
        blocks=tuple(blocks),
        activation=nn.Identity(),
        pooling=nn.Sequential(children["norm5"], nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier="classifier",
        old_names=(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    )
