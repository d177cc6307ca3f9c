"""The Visual Decathlon's wide ResNet with 26 layers, which torchvision doesn't have (PAPER.md, its last section).

A block's last ReLU is its own, and the node applies another, which changes nothing until proxies join. The batch norm
behind the last node is each task's own.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.backbones.decomposition import Parts

WIDTHS = (64, 128, 256)
BLOCKS = 4
"""Channels of the stages, and blocks in each."""


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut without weights: averages of 2x2, and zeros for the channels that are new."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shrinks = stride == 2

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W), or with stride 2 (N, 2 C, H / 2, W / 2), rounded up."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        if self.shrinks:
            x = F.avg_pool2d(x, 2, ceil_mode=True)  # an uneven map's last row is averaged over what there is of it
            x = torch.cat([x, torch.zeros_like(x)], dim=1)
        return F.relu(y + x)


class WideResNet(nn.Module):
    """A 3x3 stem with 32 channels at full resolution, three stages, a batch norm, the average, a linear layer."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS, blocks: int = BLOCKS, classes: int = 1000) -> None:
        super().__init__()
        stem = widths[0] // 2
        self.conv1 = nn.Conv2d(3, stem, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.blocks = nn.Sequential(
            *(
                Block(width // 2 if first else width, width, 2 if first else 1)
                for width in widths
                for first in (True, *[False] * (blocks - 1))
            )
        )
        self.norm = nn.BatchNorm2d(widths[-1])
        self.fc = nn.Linear(widths[-1], classes)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, classes)."""
        x = F.relu(self.bn1(self.conv1(images)))
        logits: Tensor = self.fc(self.norm(self.blocks(x)).mean(dim=(2, 3)))
        return logits


def make_network(arch: str) -> nn.Module:
    """With random weights; there is only one `arch`."""
    network = WideResNet()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def decompose(network: Any) -> Parts:
    return Parts(
        stem=nn.Sequential(network.conv1, network.bn1, nn.ReLU()),
        blocks=tuple(network.blocks),
        activation=nn.ReLU(),
        norm=network.norm,
        pooling=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classifier="fc",
        proxies="basic",
    )
