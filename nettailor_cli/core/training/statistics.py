"""Batch-norm statistics measured anew, without training: what a network needs after a change of its structure."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from nettailor_cli.core.data import Batch
from nettailor_cli.core.student import Student
from nettailor_cli.core.training.norms import enough_values
from nettailor_cli.core.training.precision import Machine


def re_estimate(student: Student, batches: Iterable[Batch], machine: Machine) -> None:
    """The statistics of the task's own batch norms, as plain means over `batches`; nothing else changes.

    Those are the proxies', and with bn_stats "adapt" the backbone's as well. Leaves `student` in evaluation mode.
    Raises UsageError where a batch has one picture of a size that gives batch norms a single value.
    """
    student.train()
    # SyncBatchNorm, which they are among several processes on CUDA, is no BatchNorm2d
    norms = [module for module in student.modules() if isinstance(module, _BatchNorm) and module.training]
    with enough_values("search"), _averaging(norms), torch.no_grad(), machine.autocast():
        for batch in batches:
            student(batch.images)
    student.eval()


@contextlib.contextmanager
def _averaging(norms: list[_BatchNorm]) -> Iterator[None]:
    """Within, every batch counts alike (torch's momentum None) and what was known before counts nothing."""
    before = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
            if norm.num_batches_tracked is not None:
                norm.num_batches_tracked.zero_()
