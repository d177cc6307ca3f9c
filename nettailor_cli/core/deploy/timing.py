"""How long calls take on a machine, and a description of that machine.

Calls that are to be compared are timed in rounds, A B C A B C ..., so that whatever else the machine does hits all of
them alike. A device that works behind our back (CUDA, MPS) is waited for after every call.
"""

from __future__ import annotations

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from nettailor_cli.core.training.precision import Machine

Name = TypeVar("Name")
Module = TypeVar("Module", bound=nn.Module)

BATCHES = (1, 32)
"""Batch sizes that are measured unless others are named: one image as it comes, and as many as keep a machine busy."""

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Stopwatch:
    """Times calls for about `seconds`, in `least` to `most` rounds, after `warm_up` rounds that don't count.

    `clock` gives seconds, as time.perf_counter does.
    """

    seconds: float = 5.0
    least: int = 7
    most: int = 300
    warm_up: int = 3
    clock: Callable[[], float] = time.perf_counter

    def time(self, calls: Mapping[Name, Callable[[], object]], machine: Machine) -> dict[Name, list[float]]:
        """Microseconds of every call in every round, in inference mode and the machine's arithmetic.

        All lists have the same length, and the entries at one index come from the same round.
        """
        wait = _waiting(machine.device)
        taken: dict[Name, list[float]] = {name: [] for name in calls}
        with torch.inference_mode(), machine.autocast():
            for _ in range(self.warm_up):
                for call in calls.values():
                    call()
                    wait()
            start = self.clock()
            for rounds in range(1, self.most + 1):
                for name, call in calls.items():
                    before = self.clock()
                    call()
                    wait()
                    taken[name].append((self.clock() - before) * 1e6)
                if rounds >= self.least and self.clock() - start >= self.seconds:
                    break
        return taken


def on_machine(module: Module, machine: Machine) -> Module:
    """In evaluation mode on the device, convolutions in the layout that is fast there."""
    return module.eval().to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def some_images(batch: int, size: int, machine: Machine) -> Tensor:
    """(batch, 3, size, size) in [0, 1] on the machine, always the same ones."""
    images = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return images.to(machine.device, memory_format=torch.channels_last)


def _waiting(device: torch.device) -> Callable[[], None]:
    """What returns when everything that was given to `device` is done."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """torch's CPU threads set to `count` inside; None leaves them as they are."""
    before = torch.get_num_threads()
    torch.set_num_threads(count or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def describe(machine: Machine) -> dict[str, str | int]:
    """The machine as readers of a measurement need it. Nothing that changes from run to run."""
    on_gpu = machine.device.type == "cuda"
    return {
        "device": machine.device.type,
        "name": torch.cuda.get_device_name(machine.device) if on_gpu else _processor(),
        "threads": torch.get_num_threads(),
        "torch": str(torch.__version__),
        "precision": machine.precision,
    }


def _processor() -> str:
    """The CPU's model, else its kind."""
    with contextlib.suppress(OSError):
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model") and value.strip():
                return value.strip()
    return platform.processor() or platform.machine() or "unknown"
