"""The small task-specific blocks A_p^l, and the pooling that brings x_p to the resolution of x_l (PAPER.md, "Student").

Three kinds. "basic": one 1x1 convolution, about 1/18 of a basic block; two, if a width inside is asked for.
"bottleneck": two, with the published width. "budgeted": two, with the width that makes them about 1/18 of the block
that they stand beside, and never over 1/8; beside residual blocks of one shape their input bypasses them. So little
can't stand in for such a block as a whole, but for what it adds.

A 1x1 convolution looks at one pixel, so where a block goes its field of view goes with it. On request a depthwise 3x3
convolution comes before a proxy's last 1x1, for 9 multiply-adds a channel: it gives back a look at the neighbours.

N images, C channels, H x W pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.scaling import Scaling

PROXY_STD = 0.01
"""Standard deviation of a fresh proxy's convolutions; how loud it is, its batch norm and its alpha say."""

SHARE, LARGEST_SHARE = 18, 8
"""A proxy costs about one in SHARE of its block's MACs, at most one in LARGEST_SHARE."""


def pool(x: Tensor, scaling: Scaling) -> Tensor:
    """Max-pool `x` (N, C, H, W) to the resolution that blocks of this scaling give, at every input size."""
    if not scaling.changes:
        return x
    return F.max_pool2d(x, *scaling.window)


class Depthwise(nn.Conv2d):
    """A 3x3 convolution of each channel with weights of its own, without bias; the size stays."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, padding=1, groups=channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) >= 3:
            return super().forward(x)
        # on maps smaller than the window the way back is up to 20 times as fast if the zeros are there beforehand
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, groups=self.groups)


class BasicProxy(nn.Module):
    """1x1 convolution without bias, then batch norm; no activation. About 1/18 of a basic block."""

    def __init__(self, channels_in: int, channels_out: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.depthwise = Depthwise(channels_in) if depthwise else nn.Identity()
        self.conv = nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.bn = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """`gain` (a number): what the result is multiplied by."""
        return scaled_norm(self.bn, self.conv(self.depthwise(x)), gain)


class BottleneckProxy(nn.Module):
    """1x1 convolution to `width` channels, batch norm, ReLU, 1x1 convolution back, batch norm."""

    def __init__(self, channels_in: int, channels_out: int, width: int, *, depthwise: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.depthwise = Depthwise(width) if depthwise else nn.Identity()
        self.conv2 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """`gain` (a number): what the result is multiplied by."""
        inside = F.relu(self.bn1(self.conv1(x)))
        return scaled_norm(self.bn2, self.conv2(self.depthwise(inside)), gain)


class BypassedProxy(nn.Module):
    """x + body(x): the shortcut of residual blocks and a small `body` in the place of what they add to it."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor, gain: Tensor | None = None) -> Tensor:
        """`gain` (a number): what the result is multiplied by."""
        return scaled_proxy(self.body, x, gain) + (x if gain is None else gain.to(x.dtype) * x)


def scaled_proxy(proxy: nn.Module, x: Tensor, gain: Tensor | None) -> Tensor:
    """gain * proxy(x); `proxy` may be folded. Without a gain, proxy(x)."""
    if isinstance(proxy, (BasicProxy, BottleneckProxy, BypassedProxy)):
        return proxy(x, gain)
    y: Tensor = proxy(x)
    return y if gain is None else gain.to(y.dtype) * y


def scaled_norm(bn: nn.Module, x: Tensor, gain: Tensor | None) -> Tensor:
    """gain * bn(x), the gain in bn's scale and shift: no pass over x forward, and none for gain's gradient backward."""
    if gain is None:
        return bn(x)
    if (
        type(bn) is not nn.BatchNorm2d or bn.momentum is None
    ):  # SyncBatchNorm, and cumulative means, have own arithmetic
        return gain.to(x.dtype) * bn(x)
    return F.batch_norm(
        x, bn.running_mean, bn.running_var, gain * bn.weight, gain * bn.bias, bn.training, bn.momentum, bn.eps
    )


def bottleneck_width(channels_out: int) -> int:
    """The released code's m = max(C_out // 32, 16); the paper's text says C_out / 16."""
    return max(channels_out // 32, 16)


def budgeted_width(channels_in: int, channels_out: int, *, usual: float, least: int) -> int:
    """The width m whose m * (C_in + C_out) multiply-adds per position come closest to 1/18 of the block's.

    `usual` are the block's, `least` what they may fall to on small maps: 1/8 of that is never passed, but for a width
    of 1, below which there is nothing.
    """
    each = channels_in + channels_out
    return max(1, min(round(usual / (SHARE * each)), least // (LARGEST_SHARE * each)))


def make_proxy(
    kind: str, channels_in: int, channels_out: int, width: int | None = None, *, depthwise: bool = False
) -> nn.Module:
    """One with `width` channels inside; without it one of `kind` "basic" has one layer, others `bottleneck_width`.

    `depthwise`: with a depthwise 3x3 convolution before its last 1x1.
    """
    if kind == "basic" and width is None:
        return BasicProxy(channels_in, channels_out, depthwise=depthwise)
    return BottleneckProxy(channels_in, channels_out, width or bottleneck_width(channels_out), depthwise=depthwise)


def start_fresh(proxy: nn.Module, generator: torch.Generator, start: str = "normal") -> None:
    """1x1 convolutions as N(0, 0.01^2), or for the `start` "average" as `averaging`; batch norms are 1 and 0 already.

    What is bypassed starts near 0 in either case: its input passes already. Depthwise convolutions start as identities,
    so that a proxy with one starts as the one without.
    """
    for module in proxy.modules():
        if isinstance(module, nn.Conv2d):
            with torch.no_grad():
                if isinstance(module, Depthwise):
                    nn.init.dirac_(module.weight, groups=module.groups)
                    continue
                module.weight.normal_(0.0, PROXY_STD, generator=generator)
                if start == "average" and not isinstance(proxy, BypassedProxy):
                    module.weight.copy_(averaging(*module.weight.shape[:2])[:, :, None, None])


def averaging(channels_out: int, channels_in: int) -> Tensor:
    """(C_out, C_in): passes channels on as they are. To fewer it gives means of neighbours, to more it gives copies."""
    most = max(channels_out, channels_in)
    out, into = (torch.arange(most) * channels // most for channels in (channels_out, channels_in))
    matrix = torch.zeros(channels_out, channels_in)
    matrix[out, into] = 1.0
    return matrix / matrix.sum(dim=1, keepdim=True)
