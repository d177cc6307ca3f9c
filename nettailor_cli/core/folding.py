"""Batch norms into the convolutions before them, in evaluation mode: the same function with one operation less.

    g * BN(conv(s * x)) = conv'(x),   w' = g * s * f * w,   b' = g * (beta - f * mean),   f = gamma / sqrt(var + eps)

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from nettailor_cli.core.proxies import BasicProxy, BottleneckProxy
from nettailor_cli.core.student import Student


def fold(conv: nn.Module, bn: nn.Module | None, *, scale: float = 1.0, gain: float = 1.0) -> tuple[Tensor, Tensor]:
    """`conv` and the batch norm behind it as one convolution's weight and bias, float64, on the CPU.

    `scale` is what the stored input has to be multiplied by first, `gain` what the result is multiplied by. Where `bn`
    is None it was folded before, and `conv` has a bias.
    """
    assert isinstance(conv, nn.Conv2d)
    if bn is None:
        assert conv.bias is not None
        w, b = (tensor.detach().cpu().double() for tensor in (conv.weight, conv.bias))
        return w * (gain * scale), b * gain
    assert isinstance(bn, nn.BatchNorm2d)
    assert conv.bias is None, "no ResNet has a bias before a batch norm"
    assert bn.running_mean is not None and bn.running_var is not None
    given = (conv.weight, bn.weight, bn.bias, bn.running_mean, bn.running_var)
    w, gamma, beta, mean, var = (tensor.detach().cpu().double() for tensor in given)  # some devices have no float64
    factor = gamma / (var + bn.eps).sqrt()  # (out,)
    return w * (gain * scale * factor)[:, None, None, None], gain * (beta - mean * factor)


def proxy_convolutions(proxy: nn.Module) -> list[tuple[nn.Module, nn.Module | None]]:
    """A proxy's convolutions with their batch norms (None: folded already), in order; between two lies a ReLU."""
    if isinstance(proxy, nn.Sequential):
        return [(layer, None) for layer in proxy if isinstance(layer, nn.Conv2d)]
    if isinstance(proxy, BasicProxy):
        return [(proxy.conv, proxy.bn)]
    assert isinstance(proxy, BottleneckProxy)
    return [(proxy.conv1, proxy.bn1), (proxy.conv2, proxy.bn2)]


def fold_proxies(student: Student) -> Student:
    """Fold the batch norms of `student`'s proxies, in place, for inference; its stem and blocks stay as they are.

    They are shared with other tasks, and so they must. Afterwards the student can neither be trained nor written to a
    model file; to call it a second time changes nothing. Returns `student`.
    """
    for key, proxy in student.proxies.items():
        if isinstance(proxy, nn.Sequential):
            continue
        layers: list[nn.Module] = []
        for conv, bn in proxy_convolutions(proxy):
            layers += [nn.ReLU(inplace=True)] * bool(layers) + [_folded(conv, bn)]
        student.proxies[key] = nn.Sequential(*layers).eval()
    return student


def _folded(conv: nn.Module, bn: nn.Module | None) -> nn.Module:
    weight, bias = fold(conv, bn)
    assert isinstance(conv, nn.Conv2d)
    with torch.device("meta"):  # nothing to initialise: the values come next
        new = nn.Conv2d(conv.in_channels, conv.out_channels, 1)
    new.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    new.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
    return new
