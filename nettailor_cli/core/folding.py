"""Batch norms into the convolutions before them, in evaluation mode: the same function with one operation less.

    g * BN(conv(s * x)) = conv'(x),   w' = g * s * f * w,   b' = g * (beta - f * mean),   f = gamma / sqrt(var + eps)

Everything is computed in float64 and rounded once.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from nettailor_cli.core.proxies import BasicProxy, BottleneckProxy, BypassedProxy, Depthwise
from nettailor_cli.core.student import Student


def fold(
    layer: nn.Module, bn: nn.Module | None, *, scale: float = 1.0, gain: float | Tensor = 1.0
) -> tuple[Tensor, Tensor]:
    """A convolution or linear layer and the batch norm behind it as one: weight and bias, float64, on the CPU.

    `scale` is what the stored input has to be multiplied by first, `gain` what the result is multiplied by: a number,
    or one for each channel. Where `bn` is None there is none, or it was folded before.
    """
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    w = _double(layer.weight)
    b = None if layer.bias is None else _double(layer.bias)
    each = (-1,) + (1,) * (w.dim() - 1)  # the shape of one number for each channel
    if bn is None:
        taken = torch.as_tensor(gain * scale, dtype=torch.float64).reshape(each)
        return w * taken, w.new_zeros(len(w)) if b is None else b * gain
    factor, shift = _as_factors(bn, b)
    return w * (gain * scale * factor).reshape(each), gain * shift


def diagonal(layer: nn.Module | Tensor, *, scale: float = 1.0, gain: float | Tensor = 1.0) -> tuple[Tensor, Tensor]:
    """A batch norm, or one factor for each channel, as a depthwise 1x1 convolution: what `fold` gives."""
    factor, shift = (layer, torch.zeros_like(layer)) if isinstance(layer, Tensor) else _as_factors(layer, None)
    return (gain * scale * factor).reshape(-1, 1, 1, 1), gain * shift


def _as_factors(bn: nn.Module, bias: Tensor | None) -> tuple[Tensor, Tensor]:
    """BN(x + bias) as factor * x + shift, one of each for each channel."""
    assert isinstance(bn, nn.BatchNorm2d)
    assert bn.running_mean is not None and bn.running_var is not None
    gamma, beta, mean, var = (_double(tensor) for tensor in (bn.weight, bn.bias, bn.running_mean, bn.running_var))
    factor = gamma / (var + bn.eps).sqrt()  # (out,)
    return factor, beta - (mean if bias is None else mean - bias) * factor


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().double()  # in this order: some devices have no float64


class ProxyLayer(NamedTuple):
    """A convolution of a proxy, its batch norm (None: it has none, or none any more), and whether a ReLU follows."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    relu: bool = False


def proxy_layers(proxy: nn.Module) -> list[ProxyLayer]:
    """What `proxy` computes, in order. What bypasses it is not among it."""
    if isinstance(proxy, BypassedProxy):
        return proxy_layers(proxy.body)
    if isinstance(proxy, nn.Sequential):
        both = zip(proxy, (*list(proxy)[1:], None), strict=True)
        return [ProxyLayer(m, None, isinstance(after, nn.ReLU)) for m, after in both if isinstance(m, nn.Conv2d)]
    assert isinstance(proxy, (BasicProxy, BottleneckProxy))
    looks = [ProxyLayer(proxy.depthwise, None)] if isinstance(proxy.depthwise, Depthwise) else []
    if isinstance(proxy, BasicProxy):
        return [*looks, ProxyLayer(proxy.conv, proxy.bn)]
    return [ProxyLayer(proxy.conv1, proxy.bn1, relu=True), *looks, ProxyLayer(proxy.conv2, proxy.bn2)]


def fold_proxies(student: Student) -> Student:
    """Fold the batch norms of `student`'s proxies, in place, for inference; its stem and blocks stay as they are.

    They are shared with other tasks, and so they must. Afterwards the student can neither be trained nor written to a
    model file; to call it a second time changes nothing. Returns `student`.
    """
    for key, proxy in student.proxies.items():
        if isinstance(proxy, BypassedProxy):
            proxy.body = _folded_proxy(proxy.body)
        else:
            student.proxies[key] = _folded_proxy(proxy)
    return student


def _folded_proxy(proxy: nn.Module) -> nn.Module:
    if isinstance(proxy, nn.Sequential):
        return proxy
    layers: list[nn.Module] = []
    for layer in proxy_layers(proxy):
        layers += [_folded(layer.conv, layer.norm)] + [nn.ReLU(inplace=True)] * layer.relu
    return nn.Sequential(*layers).eval()


def _folded(conv: nn.Conv2d, bn: nn.Module | None) -> nn.Module:
    weight, bias = fold(conv, bn)
    size = conv.kernel_size[0]  # of proxies, 1 or 3 in both directions
    with torch.device("meta"):  # nothing to initialise: the values come next
        new = nn.Conv2d(conv.in_channels, conv.out_channels, size, padding=size // 2, groups=conv.groups)
    new.weight = nn.Parameter(weight.to(conv.weight), requires_grad=False)
    new.bias = nn.Parameter(bias.to(conv.weight), requires_grad=False)
    return new
