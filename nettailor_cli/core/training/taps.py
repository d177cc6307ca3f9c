"""Convolutions on small maps, tap by tap: the same sum in another order, in a fraction of the time in fp32 on a CPU.

    y[i, j] = b + sum over taps (p, q) of W[p, q] x[s i + p - pad, s j + q - pad]          x is 0 outside of the map

A tap is one matrix product, over those positions alone at which it hits the map: on a map of 2 x 2 a 3x3 convolution
counts 36 products of C_out x C_in numbers, and 20 of them are with the padding. Convolution kernels are made for large
maps; with as many weights as the last blocks have, they reach a quarter of a matrix product's rate there.

N images, C channels, H x W pixels, (P, Q) the convolution's window; maps are held as (H, W, N, C) inside.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core.training.precision import Machine

FEWEST_IMAGES = 8
"""In a batch: below, a product's rows are too few to pay for nine calls."""

FEWEST_CHANNELS = 256
"""Of input and result, both: with fewer, convolution kernels are as fast."""

Span = tuple[slice, slice]
"""Rows and columns of a map."""


class TapwiseConv2d(nn.Conv2d):
    """A convolution that goes tap by tap where its result has no more pixels than its window, and else as ever."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W'), float32."""
        result = _result_size(x.shape[2:], self.weight.shape[2:], self.stride, self._padding)
        small = 0 < math.prod(result) <= math.prod(self.weight.shape[2:])
        if not small or len(x) < FEWEST_IMAGES or x.dtype != torch.float32:
            return super().forward(x)
        # the permutations out here: what a Function returns as a view can't be changed in place, as ReLUs do
        y: Tensor = _Tapwise.apply(
            x.permute(2, 3, 0, 1).contiguous(), self.weight, self.bias, self.stride, self._padding
        )
        return y.permute(2, 3, 0, 1).contiguous(memory_format=torch.channels_last)

    @property
    def _padding(self) -> tuple[int, ...]:
        assert not isinstance(self.padding, str)
        return self.padding


def go_tapwise(module: nn.Module, machine: Machine) -> None:
    """Let the convolutions in `module` for which it pays go tap by tap, in training on `machine`: fp32 on a CPU.

    Their tensors stay theirs, and the results are the same up to rounding.
    """
    if machine.device.type != "cpu" or machine.bf16:  # not measured: there convolutions have units of their own
        return
    for layer in module.modules():
        if type(layer) is nn.Conv2d and _pays(layer):
            layer.__class__ = TapwiseConv2d


def _pays(layer: nn.Conv2d) -> bool:
    plain = layer.groups == 1 and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    wide = min(layer.in_channels, layer.out_channels) >= FEWEST_CHANNELS
    return plain and wide and max(layer.kernel_size) > 1 and set(layer.dilation) == {1}


class _Tapwise(torch.autograd.Function):
    """(H, W, N, C_in) -> (H', W', N, C_out) and the gradients of input, weight and bias, each a product per tap."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
    ) -> Tensor:
        taps = weight.permute(0, 2, 3, 1)  # (C_out, P, Q, C_in), a view
        shape = (*_result_size(x.shape, taps.shape[1:], stride, padding), x.shape[2], len(weight))
        y = x.new_zeros(shape)
        if bias is not None:
            y += bias
        for p, q, read, written in _taps(x.shape, taps.shape[1:], stride, padding):
            y[written] += x[read] @ taps[:, p, q].t()
        ctx.save_for_backward(x, weight)
        ctx.how = (stride, padding)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        to_x, to_weight, to_bias = ctx.needs_input_grad[:3]
        taps = weight.permute(0, 2, 3, 1)
        dx = torch.zeros_like(x) if to_x else None
        dw = torch.zeros_like(weight, memory_format=torch.channels_last) if to_weight else None
        for p, q, read, written in _taps(x.shape, taps.shape[1:], *ctx.how):
            part = dy[written]
            if dx is not None:
                dx[read] += part @ taps[:, p, q]
            if dw is not None:
                dw[:, :, p, q] = part.flatten(0, 2).t() @ x[read].flatten(0, 2)
        return dx, dw, dy.sum(dim=(0, 1, 2)) if to_bias else None, None, None


def _result_size(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """(H', W'). `size` begins with (H, W), `window` with (P, Q)."""
    height, width = ((size[d] + 2 * padding[d] - window[d]) // stride[d] + 1 for d in (0, 1))
    return height, width


def _taps(
    size: Sequence[int], window: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> Iterator[tuple[int, int, Span, Span]]:
    """For every tap that hits the map: p, q, which pixels of the input it reads and to which of the result they add."""
    height, width = _result_size(size, window, stride, padding)
    for p in range(window[0]):
        for q in range(window[1]):
            rows = _hits(size[0], height, p - padding[0], stride[0])
            columns = _hits(size[1], width, q - padding[1], stride[1])
            if rows is not None and columns is not None:
                yield p, q, (rows[0], columns[0]), (rows[1], columns[1])


def _hits(size: int, results: int, offset: int, stride: int) -> tuple[slice, slice] | None:
    """Along one direction: where i * stride + offset is on the map, and the i for which it is; None: for none."""
    first = max(0, -(offset // stride))
    last = min(results - 1, (size - 1 - offset) // stride)
    if last < first:
        return None
    start = first * stride + offset
    return slice(start, last * stride + offset + 1, stride), slice(first, last + 1)
