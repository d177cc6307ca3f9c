"""Batch norm takes its statistics from at least two values per channel: one picture of 1 x 1 maps has a single one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.training.precision import Machine


@contextlib.contextmanager
def enough_values(what: str) -> Iterator[None]:
    """Within, torch's refusal is a UsageError that says what to change; `what` is the stage's name."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):  # torch's words
            raise
        raise UsageError(
            f"{what}: batch norm can't be trained on one image of this size at a time",
            "choose a larger --batch-size or --size, or fewer processes or --accumulate",
        ) from error


def try_one_picture(
    what: str, module: nn.Module, predict: Callable[[Tensor], Tensor], size: int, machine: Machine
) -> None:
    """Raises UsageError when `predict` can't see one picture of `size` pixels while `module` is in training mode.

    Nothing changes but the mode: the statistics of the batch norms are put back.
    """
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    module.train(True)
    try:
        with enough_values(what), torch.no_grad(), machine.autocast():
            predict(torch.zeros(1, 3, size, size, device=machine.device))
    finally:
        for buffer, value in before:
            buffer.copy_(value)
