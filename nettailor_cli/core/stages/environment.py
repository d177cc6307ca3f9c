"""What the last bits of a training depend on besides settings and pictures: the machine, its threads, the versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np
import PIL
import torch

from nettailor_cli._version import __version__
from nettailor_cli.core.deploy.timing import describe
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import Processes

_MATTERS = ("name", "simd", "torch", "numpy", "pillow", "nettailor")


def environment_of(machine: Machine, processes: Processes) -> dict[str, str | int]:
    """As model files and run.toml have it. Nothing in it changes from run to run on one machine."""
    return {
        **describe(machine),
        **({"simd": torch.backends.cpu.get_cpu_capability()} if machine.device.type == "cpu" else {}),
        **({"processes": processes.count} if processes.count > 1 else {}),
        "nettailor": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def changes_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments and may change a result's last bits, in words; what is unknown does not."""
    changed = []
    if before.get("threads", now["threads"]) != now["threads"]:
        changed.append(f"{now['threads']} threads now, {before['threads']} before")
    for name in _MATTERS:
        if name in before and name in now and before[name] != now[name]:
            called = "" if name in ("name", "simd") else f"{name} "
            changed.append(f"{called}{now[name]} now, {before[name]} before")
    return changed
