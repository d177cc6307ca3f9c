"""The ResNet family (ResNet, ResNeXt, Wide ResNet).

A block G_l ends before its last ReLU: in the student other paths join there (PAPER.md, Eq. 2).
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import chain
from typing import Any

from torch import Tensor, nn

from nettailor_cli.core.backbones.decomposition import Parts, ProxyKind


class _Residual(nn.Module):
    """Takes over a torchvision block's submodules under their own names."""

    downsample: nn.Module | None

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.register_module("downsample", None)  # most blocks have none
        for name, child in block.named_children():
            self.add_module(name, child)

    def shortcut(self, x: Tensor) -> Tensor:
        return x if self.downsample is None else self.downsample(x)


class BasicResidual(_Residual):
    """Two 3x3 convolutions and the shortcut, before the last ReLU."""

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    conv2: nn.Module
    bn2: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounded up."""
        out = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(out)).add_(self.shortcut(x))


class BottleneckResidual(_Residual):
    """1x1, 3x3 and 1x1 convolutions and the shortcut, before the last ReLU."""

    conv1: nn.Module
    bn1: nn.Module
    conv2: nn.Module
    bn2: nn.Module
    relu: nn.Module
    conv3: nn.Module
    bn3: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounded up."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.bn3(self.conv3(out)).add_(self.shortcut(x))


def decompose(network: Any) -> Parts:
    theirs = list(chain(network.layer1, network.layer2, network.layer3, network.layer4))
    kind: ProxyKind = "bottleneck" if hasattr(theirs[0], "conv3") else "basic"
    residual = BottleneckResidual if kind == "bottleneck" else BasicResidual
    names = ("conv1", "bn1", "relu", "maxpool")
    return Parts(
        stem=nn.Sequential(OrderedDict((name, getattr(network, name)) for name in names)),
        blocks=tuple(residual(block) for block in theirs),
        activation=nn.ReLU(),
        pooling=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier="fc",
        proxies=kind,
    )
