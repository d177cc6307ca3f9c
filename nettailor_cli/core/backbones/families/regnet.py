"""RegNet X and Y: residual bottlenecks with grouped convolutions (Y: and squeeze-excitation), a ReLU after the sum."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from nettailor_cli.core.backbones.decomposition import Parts


class Residual(nn.Module):
    """torchvision's block before its last ReLU, with the submodules under their own names."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.proj = block.proj
        self.f = block.f

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H / stride, W / stride), rounded up."""
        shortcut = x if self.proj is None else self.proj(x)
        out: Tensor = shortcut + self.f(x)
        return out


def decompose(network: Any) -> Parts:
    return Parts(
        stem=network.stem,
        blocks=tuple(Residual(block) for stage in network.trunk_output for block in stage),
        activation=nn.ReLU(),
        pooling=nn.Sequential(network.avgpool, nn.Flatten()),
        classifier="fc",
    )
