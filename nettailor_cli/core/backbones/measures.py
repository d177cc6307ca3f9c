"""What is measured of a network's parts, on the meta device (shapes without values), so that no family has to tell."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from math import prod
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.func import functional_call

from nettailor_cli.core.backbones.decomposition import Parts
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.tracing import trace
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.scaling import Scaling

_SIDE = 64
"""Height and width of the map that a block is measured on, in positions."""


@dataclass(frozen=True)
class Work:
    """A block's multiply-adds for each position that it gives, what is computed once per picture left out.

    `usual` counts them on a large map. `least` is what is left where the convolutions before a stride run on no more
    positions than those behind it: the number of weights, and a bound at every size.
    """

    usual: float
    least: int


@dataclass(frozen=True)
class Measures:
    """channels of nodes 0..L; scaling and work of blocks 1..L; features: numbers per image behind the pooling.

    bypassed: whether a block adds to its input and passes it on as it is, and proxies in its place are to do so, too.
    """

    channels: tuple[int, ...]
    scalings: tuple[Scaling, ...]
    work: tuple[Work, ...]
    bypassed: tuple[bool, ...]
    features: int


def measure(parts: Parts) -> Measures:
    """Runs every part on shapes alone. `parts` may live anywhere and stay as they are, in evaluation mode.

    Raises ValueError, and whatever else a network's own code raises, for parts that don't take and
    give maps (N, C, H, W) of any size.
    """
    channels = [_run(parts.stem, torch.empty(1, 3, 4 * _SIDE, 4 * _SIDE, device="meta")).shape[1]]
    scalings, work = [], []
    for block in parts.blocks:
        scaling, done, out = _measure_block(block, channels[-1])
        scalings.append(scaling)
        work.append(done)
        channels.append(out)
    pooled = _run(parts.pooling, torch.empty(1, channels[-1], _SIDE, _SIDE, device="meta"))
    if pooled.dim() != 2:
        raise ValueError(f"its features have {pooled.dim()} dimensions")
    bypassed = tuple(parts.proxies == "budgeted" and _passes_input(block) for block in parts.blocks)
    return Measures(tuple(channels), tuple(scalings), tuple(work), bypassed, pooled.shape[1])


def bears(network: nn.Module, size: int) -> bool:
    """Whether `network` can run on pictures of `size` x `size` pixels."""
    try:
        _run(network, torch.empty(1, 3, size, size, device="meta"))
    except (RuntimeError, AssertionError):  # a window is larger than what there is, says torch, in many words
        return False
    return True


def measured(arch: str, parts: Parts) -> Measures:
    """`measure`; for timm's networks, which nobody here described, with a UsageError where it fails."""
    try:
        return measure(parts)
    except Exception as error:
        if not arch.startswith(TIMM):
            raise
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UsageError(
            f"{arch} can't be tailored: its blocks don't take and give maps (N, C, H, W) of any size: {reason[:160]}"
        ) from error


def _measure_block(block: nn.Module, channels: int) -> tuple[Scaling, Work, int]:
    def out(side: int) -> Tensor:
        y = _run(block, torch.empty(1, channels, side, side, device="meta"))
        if y.dim() != 4 or y.shape[2] != y.shape[3]:
            raise ValueError(f"a block gives {tuple(y.shape)}, which is not a map with its channels first")
        return y

    def as_many(more: int) -> bool:
        try:
            return out(more).shape[2] == side
        except (RuntimeError, AssertionError):  # some of timm's take no odd sizes
            return False

    with _counting(block) as counted:
        first = out(_SIDE)
    side, usual, least = first.shape[2], 0, 0
    for layer, shape in counted:
        positions = prod(shape[2:]) if isinstance(layer, nn.Conv2d) else prod(shape[1:-1])
        if positions > 1 or side == 1:  # squeeze-excitation runs on one
            usual += positions * layer.weight.numel()
            least += layer.weight.numel()
    growth = out(2 * _SIDE).shape[2] - side
    if growth <= 0 or _SIDE % growth:
        raise ValueError("a block's output does not grow with its input")
    stride = _SIDE // growth
    # the last size that still gives as much: one more, and there is a position more
    largest = next(s for s in range(_SIDE, _SIDE + stride) if s + 1 == _SIDE + stride or not as_many(s + 1))
    scaling = Scaling(stride, largest + 1 - stride * side)
    return scaling, Work(usual / side**2, least), first.shape[1]


def _passes_input(block: nn.Module) -> bool:
    try:
        return trace(block).passes_input
    except (NotImplementedError, AssertionError, TypeError, fx.proxy.TraceError):  # some of timm's can't be looked into
        return False


def _run(module: nn.Module, x: Tensor) -> Tensor:
    named = (*module.named_parameters(), *module.named_buffers())
    state = {name: tensor.to("meta") for name, tensor in named}
    # torch prints the code of a traced part that it could not run
    with torch.no_grad(), _evaluating(module), redirect_stderr(StringIO()):
        result: Tensor = functional_call(module, state, (x,))
    return result


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """In evaluation mode inside, each submodule in its own mode again behind it."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


@contextmanager
def _counting(block: nn.Module) -> Iterator[list[tuple[Any, torch.Size]]]:
    """Every convolution and linear layer that runs in `block`, with the shape of what it gives."""
    counted: list[tuple[Any, torch.Size]] = []
    hooks = [
        layer.register_forward_hook(lambda layer, _, y: counted.append((layer, y.shape)))
        for layer in block.modules()
        if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    try:
        yield counted
    finally:
        for hook in hooks:
            hook.remove()
