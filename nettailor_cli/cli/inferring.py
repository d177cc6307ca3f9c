"""What the commands that run finished networks have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nettailor_cli.core.training.precision import Machine


def machine_for_inference(device: str, precision: str) -> Machine:
    """Where to run, in fp32 unless something else was asked for; memory is kept between tensors. Raises UsageError."""
    from nettailor_cli.core.allocation import keep_freed_memory
    from nettailor_cli.core.training.precision import choose_machine

    keep_freed_memory()
    return choose_machine(device, "fp32" if precision == "auto" else precision)
