"""Numbers that are none: a loss or a weight that became NaN or infinite, found before it is in any file.

The loss of a step is on the host anyway, so looking at it costs nothing. Weights are looked at once per epoch and
before every checkpoint; between two looks a broken weight shows in the loss of the next step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from nettailor_cli.core.errors import RunFailed
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.training.checkpoint import Position

_TERMS = {"cross_entropy": "cross-entropy", "expected_complexity": "E[C]", "entropy": "entropy", "hint": "hint"}
"""The terms of the loss (Eq. 12), by the names of their figures."""

LESS = 4.0
"""The learning rate that is proposed is so many times smaller."""


def what_is_broken(figures: Mapping[str, float]) -> str:
    """Which terms of a loss that is not finite are to blame; a loss without named terms is cross-entropy alone."""
    terms = {name: figures[key] for key, name in _TERMS.items() if key in figures}
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    if terms and not broken:
        return "each term is finite, their weighted sum is not"
    return "not finite: " + ", ".join(broken or [_TERMS["cross_entropy"]])


def failed(
    what: str, trouble: str, settings: Settings, precision: str, checkpoint: Path, kept: Position | None
) -> RunFailed:
    """The error of the stage `what`: its `trouble`, what was kept, and what to type.

    `kept` is the position of the file `checkpoint`; None: there is no such file yet.
    """
    lower = min(settings.lr / LESS, Settings.lr)
    again = f"--force --lr {lower:g} starts again with a smaller learning rate (in a --config file: lr under [{what}])"
    if precision != "fp32":
        again += ", --precision fp32 with exacter numbers"
    if kept is None:
        return RunFailed(f"{trouble}; there was no checkpoint yet", again)
    return RunFailed(
        f"{trouble}; kept is the checkpoint of epoch {kept.epoch + 1}, batch {kept.batch}: {checkpoint}",
        f"{again}; --resume goes on from the checkpoint with the settings as they were",
    )
