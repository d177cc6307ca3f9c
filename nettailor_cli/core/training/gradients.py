"""The gradients of one step, always the whole batch's: micro-batches add up, and so do the processes' shares.

A loss is a mean over pictures, plus what does not depend on them (E[C]). So the whole batch's is the sum over its parts
of the part's loss times its share of the pictures. DistributedDataParallel takes the mean over processes; times their
number that is the sum.

Batch norm is the exception. On CUDA it sees all processes' shares of a micro-batch (SyncBatchNorm); on the CPU its own
only, and the running statistics are averaged after every step. As they are linear in the batches', that is the mean at
any time, and every process has the same ones to save.
"""

from __future__ import annotations

import contextlib
import warnings

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nettailor_cli.core.data import Batch
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import Processes
from nettailor_cli.core.training.trainee import Trainee


class Gradients:
    """Adds a batch's gradients up in the parameters of `trainee`, in `accumulate` micro-batches one after another."""

    def __init__(self, trainee: Trainee, machine: Machine, processes: Processes, accumulate: int = 1) -> None:
        self._machine = machine
        self._processes = processes
        self._accumulate = accumulate
        self._losses: nn.Module = _Losses(trainee)
        self._norms: list[nn.BatchNorm2d] = []
        if processes.count > 1:
            if machine.device.type == "cuda":
                synchronise_norms(trainee.module)
            else:
                self._norms = [module for module in trainee.module.modules() if isinstance(module, nn.BatchNorm2d)]
            with warnings.catch_warnings():
                # its successor, forward_sync_buffers, is not in every torch that we run with
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                # takes the main process's weights for all; buffers are not its business afterwards
                self._losses = DistributedDataParallel(self._losses, broadcast_buffers=False)

    def __call__(self, batch: Batch, done: float) -> dict[str, float]:
        """The figures of the whole batch, of which `batch` may be this process's share; see `Trainee.losses`."""
        figures: dict[str, float] = {}
        parts = batch.parts(self._accumulate)
        for number, part in enumerate(parts, 1):
            with self._quietly() if number < len(parts) else contextlib.nullcontext():
                with self._machine.autocast():
                    losses = self._losses(part, done)
                (losses["loss"] * (part.share * self._processes.count)).backward()
            for name, value in losses.items():
                figures[name] = figures.get(name, 0.0) + value.item() * part.share
        self._processes.average(self._statistics(), batch.share)
        return self._processes.sums(figures)

    def _quietly(self) -> contextlib.AbstractContextManager[None]:
        """Within, gradients add up in this process alone."""
        if isinstance(self._losses, DistributedDataParallel):
            return self._losses.no_sync()
        return contextlib.nullcontext()

    def _statistics(self) -> list[Tensor]:
        """What this process's batch norms have seen of their own."""
        own = (
            statistic for norm in self._norms if norm.training for statistic in (norm.running_mean, norm.running_var)
        )
        return [statistic for statistic in own if statistic is not None]


class _Losses(nn.Module):
    """The losses as a module's forward, which is where DistributedDataParallel begins to wait for gradients."""

    def __init__(self, trainee: Trainee) -> None:
        super().__init__()
        self.module = trainee.module
        self._compute = trainee.losses

    def forward(self, batch: Batch, done: float) -> dict[str, Tensor]:
        return self._compute(batch, done)


def synchronise_norms(module: nn.Module) -> None:
    """Let every batch norm in `module` that learns its statistics in training see all processes' pictures.

    In place; parameters, buffers and their names stay. `module` comes out in training mode.
    """
    module.train(True)
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and child.training:
                setattr(parent, name, nn.SyncBatchNorm.convert_sync_batchnorm(child))
