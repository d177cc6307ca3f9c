"""Which device and which arithmetic: decided once, by measuring where it matters, with a reason that can be printed."""

from __future__ import annotations

import contextlib
import math
import time
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from nettailor_cli.core.errors import UsageError

PRECISIONS = ("auto", "fp32", "bf16")
_PAYS = 1.2
"""bf16 has to be this much faster than fp32 to be chosen: below, its rounding buys nothing worth having."""

_TRIES = 6


@dataclass(frozen=True)
class Machine:
    """Where and in which arithmetic the work is done. `reason` says why, in one line."""

    device: torch.device
    bf16: bool
    reason: str

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        if self.bf16:
            return torch.autocast(self.device.type, dtype=torch.bfloat16)
        return contextlib.nullcontext()

    @property
    def precision(self) -> str:
        return "bf16" if self.bf16 else "fp32"


def to_machine(module: nn.Module, machine: Machine) -> None:
    """Onto the device, convolutions in the layout that is fast there."""
    module.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def choose_device(device: str) -> tuple[torch.device, str]:
    """The device called `device` ("auto": cuda, else mps, else cpu) and why. Raises UsageError when it is not there."""
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device == "auto":
        best = next(name for name, found in there.items() if found)
        return torch.device(best), "the best there is"
    name = device.split(":")[0]
    if name not in there:
        raise UsageError(f"--device {device} is unknown", "choose auto, cpu, cuda or mps")
    if not there[name]:
        raise UsageError(
            f"--device {device}: this machine has no such device", "leave --device out, or say --device cpu"
        )
    try:
        torch.zeros(1, device=device)
    except RuntimeError as error:
        raise UsageError(f"--device {device}: {str(error).splitlines()[0]}") from error
    return torch.device(device), "as asked"


def choose_machine(device: str, precision: str, why: str = "as asked") -> Machine:
    """Resolve `--device` and `--precision`. "auto" precision times one convolution both ways on a CPU.

    `why` is said of a precision that is not "auto". Raises UsageError for a device or precision that there isn't.
    """
    if precision not in PRECISIONS:
        raise UsageError(f"--precision {precision} is unknown", "choose " + ", ".join(PRECISIONS))
    where, why_device = choose_device(device)
    if precision != "auto":
        return Machine(where, precision == "bf16", f"{where} ({why_device}), {precision} ({why})")
    if where.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        why = "the device has bf16 arithmetic" if bf16 else "the device has no bf16 arithmetic"
    elif where.type == "cpu":
        ratio = _bf16_speedup()
        bf16 = ratio >= _PAYS
        why = f"a convolution runs {ratio:.1f}x as fast in bf16 here"
    else:
        bf16, why = False, "bf16 is not measured on this kind of device"
    return Machine(where, bf16, f"{where} ({why_device}), {'bf16' if bf16 else 'fp32'} ({why})")


def _bf16_speedup() -> float:
    """How many times faster a 3x3 convolution, forward and backward, is in bf16 than in fp32 on this CPU.

    Both are timed in turn and the best of each counts, so that a machine that is busy for a moment does not decide.
    """
    dtypes = (torch.float32, torch.bfloat16)
    best = dict.fromkeys(dtypes, math.inf)
    for _ in range(_TRIES):
        for dtype in dtypes:
            x, weight = (_ones(*shape, dtype=dtype) for shape in ((16, 64, 28, 28), (64, 64, 3, 3)))
            start = time.perf_counter()
            F.conv2d(x, weight, padding=1).sum().backward()
            best[dtype] = min(best[dtype], time.perf_counter() - start)
    return best[torch.float32] / best[torch.bfloat16]


def _ones(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.ones(shape, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
