"""What a task may have of its own inside the universal blocks that it keeps; the blocks themselves stay as they are.

    bn_affine "tuned"   y = gamma * (x - mean) / sqrt(var + eps) + beta, with gamma and beta the task's
    adapter_rank r      y = conv(x) + up(down(x)): two 1x1 convolutions with r channels between them

Neither changes a network at its start: gamma and beta are the backbone's, and `up` is zero.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from nettailor_cli.core.state import sharing_copy


class AdaptedConv(nn.Module):
    """`conv`, which is the backbone's, and beside it two 1x1 convolutions with `rank` channels between them."""

    def __init__(self, conv: nn.Conv2d, rank: int) -> None:
        super().__init__()
        self.conv = conv
        self.down = nn.Conv2d(conv.in_channels, rank, 1, stride=conv.stride, bias=False)  # type: ignore[arg-type]
        self.up = nn.Conv2d(rank, conv.out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C_in, H, W) -> (N, C_out, H', W'), as `conv`."""
        result: Tensor = self.conv(x) + self.up(self.down(x))
        return result

    def merged(self) -> nn.Conv2d:
        """One convolution that does the same, its weights in float64: the sum is not rounded."""
        merged = copy.deepcopy(self.conv)
        weight = self.conv.weight.detach().double().clone()
        product = self.up.weight.detach().double().flatten(1) @ self.down.weight.detach().double().flatten(1)
        weight[:, :, weight.shape[2] // 2, weight.shape[3] // 2] += product
        merged.weight = nn.Parameter(weight, requires_grad=False)
        return merged


def with_own_parts(block: nn.Module, *, bn_affine: str = "frozen", adapter_rank: int = 0) -> nn.Module:
    """`block` with trainable parts of a task's own; its frozen tensors are the very same, and `block` is not changed.

    Adapters stand beside the convolutions that they cost less than, see `adaptable`. `block` itself comes back where
    nothing is the task's own.
    """
    norms = _norms(block) if bn_affine == "tuned" else []
    convs = [name for name, layer in block.named_modules() if adaptable(layer, adapter_rank)]
    if not norms and not convs:
        return block
    own = sharing_copy(block, (parameter for norm in norms for parameter in norm.parameters()))
    for norm in _norms(own) if norms else []:
        norm.requires_grad_(True)
    for name in convs:
        parent, _, child = name.rpartition(".")
        conv = own.get_submodule(name)
        assert isinstance(conv, nn.Conv2d)
        setattr(own.get_submodule(parent), child, AdaptedConv(conv, adapter_rank))
    return own


def adaptable(layer: nn.Module, rank: int) -> bool:
    """Whether an adapter of `rank` can stand beside `layer`: it sees the same positions, for less than it costs."""
    if rank < 1 or type(layer) is not nn.Conv2d or layer.groups != 1 or isinstance(layer.padding, str):
        return False
    centred = all(
        kernel % 2 == 1 and 2 * padding == dilation * (kernel - 1)
        for padding, dilation, kernel in zip(layer.padding, layer.dilation, layer.kernel_size, strict=True)
    )
    return centred and rank * (layer.in_channels + layer.out_channels) < layer.weight.numel()


def start_fresh(block: nn.Module, generator: torch.Generator) -> None:
    """Adapters as at the start of tailoring: `down` keeps the size of values, `up` is zero.

    Random numbers come from `generator` alone.
    """
    for layer in block.modules():
        if isinstance(layer, AdaptedConv):
            with torch.no_grad():
                layer.down.weight.normal_(0.0, layer.down.in_channels**-0.5, generator=generator)
                layer.up.weight.zero_()


def merge(block: nn.Module) -> nn.Module:
    """`block` with its adapters in the weights of their convolutions (float64): for what no other task shares."""
    if not any(isinstance(layer, AdaptedConv) for layer in block.modules()):
        return block
    own = copy.deepcopy(block)
    for parent in list(own.modules()):
        for name, layer in list(parent.named_children()):
            if isinstance(layer, AdaptedConv):
                setattr(parent, name, layer.merged())
    return own


def has_norms(block: nn.Module) -> bool:
    """Whether `block` has scales and shifts that could be tuned."""
    return bool(_norms(block))


def _norms(block: nn.Module) -> list[nn.BatchNorm2d]:
    return [layer for layer in block.modules() if isinstance(layer, nn.BatchNorm2d) and layer.affine]
