"""Several processes at one training, as torchrun starts them: what the first does for all, and how they stay together.

All of them do the same work on the same weights, each on its share of every batch. The first one alone writes files
and reports; whatever is decided by a measurement is decided there. What they tell each other here (never the
gradients) goes over gloo, also where the training itself uses NCCL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from nettailor_cli.core.errors import RunFailed, UsageError

Result = TypeVar("Result")

PATIENCE = timedelta(hours=24)
"""How long the others wait for one, as while it decodes a large set. One that has ended is noticed at once."""

_A_MOMENT = timedelta(seconds=5)
_FAILED, _TOLD = "nettailor/failed", "nettailor/told"


@dataclass(frozen=True)
class Processes:
    """This process, number `rank` of `count`, and number `local_rank` on its machine. `store`: what all can read."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    store: dist.Store | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes and reports."""
        return self.rank == 0

    # who does what

    def wait(self) -> None:
        """Until all processes have come to this point."""
        self._reduce([0.0])

    def alone(self, work: Callable[[], object]) -> None:
        """`work` in the main process, between two waits: all have read what was there, and will see what is new."""
        self.wait()
        if self.is_main:
            work()
        self.wait()

    @contextlib.contextmanager
    def main_first(self) -> Iterator[None]:
        """The body in every process, but the others begin when the main one is through: they find what it left."""
        if not self.is_main:
            self.wait()
        yield
        if self.is_main:
            self.wait()

    def from_main(self, work: Callable[[], Result]) -> Result:
        """What `work` gives in the main process, the only one to do it, in all of them."""
        if self.count == 1:
            return work()
        box = [work() if self.is_main else None]
        dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return cast(Result, box[0])

    # what they agree on

    def sums(self, figures: Mapping[str, float]) -> dict[str, float]:
        """Every figure added up over the processes; all give the same names in the same order."""
        return dict(zip(figures, self._reduce(list(figures.values())), strict=True))

    def agreed(self, signal: int | None) -> int | None:
        """The signal that any process got (the highest number of several), or None."""
        return int(self._reduce([float(signal or 0)], largest=True)[0]) or None

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace each of `tensors` (float32, on the CPU) by its sum over the processes, weighted; in place."""
        if self.count == 1 or not tensors:
            return
        flat = torch.cat([tensor.flatten() for tensor in tensors]) * weight
        dist.all_reduce(flat)
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.copy_(mean.view_as(tensor))

    def _reduce(self, values: list[float], *, largest: bool = False) -> list[float]:
        """The sums of all processes' values, or the largest ones."""
        if self.count == 1:
            return values
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor, dist.ReduceOp.MAX if largest else dist.ReduceOp.SUM)
        return cast("list[float]", tensor.tolist())

    # where they work

    def check_device(self, device: torch.device) -> None:
        """Raises UsageError when this process can't have an accelerator of the kind `device` to itself."""
        if self.count == 1 or device.type == "cpu":
            return
        if device.type != "cuda" or device.index is not None:
            raise UsageError(f"--device {device} can't be divided among {self.count} processes", "--device cuda or cpu")
        if self.local_rank >= (there := torch.cuda.device_count()):
            raise UsageError(
                f"process {self.local_rank + 1} of this machine has no accelerator, there are {there}",
                f"torchrun --nproc-per-node {there}",
            )

    # how they end

    def fail(self, code: int, tell: Callable[[], None]) -> int:
        """On the way out after an error: the process that has the first one calls `tell`; its exit code is everyone's.

        The others fail soon as well, because it is gone. They keep quiet and leave it time to speak.
        """
        if self.store is None:
            tell()
            return code
        own = f"{self.rank} {code}"
        try:
            first = self.store.compare_set(_FAILED, "", own).decode()
        except RuntimeError:  # the process that kept the store has ended: it has told why
            return code
        if first == own:
            tell()
        with contextlib.suppress(RuntimeError):
            if first == own:
                self.store.set(_TOLD, "yes")
            else:
                self.store.wait([_TOLD], _A_MOMENT)
        return int(first.split()[1])

    def leave(self) -> None:
        """At the end of all work, together."""
        if self.count > 1:
            self.wait()
            dist.destroy_process_group()


ALONE = Processes()
"""The one process that there is without torchrun."""


def join(rank: int, count: int, local_rank: int, meeting: str) -> Processes:
    """This process among `count`, which meet at the URL `meeting` (tcp://HOST:PORT or file:///PATH).

    On CUDA every process of a machine has an accelerator of its own. Raises RunFailed when the others can't be reached.
    """
    cuda = torch.cuda.is_available()
    if cuda and local_rank < torch.cuda.device_count():
        torch.cuda.set_device(local_rank)  # from here on "cuda" is this one
    backend = "cpu:gloo,cuda:nccl" if cuda and dist.is_nccl_available() else "gloo"
    try:
        store, _, _ = next(dist.rendezvous(meeting, rank, count))
        dist.init_process_group(backend, store=store, rank=rank, world_size=count, timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise RunFailed(f"the {count} processes can't meet at {meeting}: {str(error).splitlines()[0]}") from error
    return Processes(rank, count, local_rank, store)
