"""Tensors by name: copying one state into another, strictly; looking for numbers that are none; sharing them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

from nettailor_cli.core.errors import FileError

M = TypeVar("M", bound=nn.Module)


def sharing_copy(module: M, copied: Iterable[Tensor] = ()) -> M:
    """A copy of `module` that holds the very same parameters and buffers, but for copies of those in `copied`."""
    apart = {id(tensor) for tensor in copied}
    tensors = itertools.chain(module.parameters(), module.buffers())
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors if id(tensor) not in apart})


def copy_state(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Copy `given` into `own`'s tensors, in place. Raises FileError unless names and shapes are the same."""
    check_state(own, given)
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(given[name])


def check_state(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> None:
    """Raises FileError unless `given` has `own`'s names and shapes; `own` may live on the meta device."""
    if own.keys() != given.keys():
        missing, extra = sorted(own.keys() - given.keys()), sorted(given.keys() - own.keys())
        what = (
            f"lacks the tensor {missing[0]!r}" if missing else f"has a tensor {extra[0]!r} that does not belong there"
        )
        raise FileError(f"the file {what}")
    for name, tensor in own.items():
        if given[name].shape != tensor.shape:
            raise FileError(f"the tensor {name!r} has shape {list(given[name].shape)}, not {list(tensor.shape)}")


def snapshot(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors in `state`."""
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def first_broken(state: Mapping[str, Tensor]) -> str | None:
    """The name of the first of the tensors with a value that is not finite. Asks the device once."""
    numbers = {name: tensor for name, tensor in state.items() if tensor.is_floating_point()}
    if not numbers:
        return None
    finite = torch.stack([tensor.detach().isfinite().all() for tensor in numbers.values()]).tolist()
    return next((name for name, good in zip(numbers, finite, strict=True) if not good), None)
