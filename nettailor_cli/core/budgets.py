"""Budgets as people write them: 900M, 0.9G, 12ms, 8MB, or 40% of the backbone's. The one place that reads them.

COUNT    parameters or MACs: 900M, 0.9G, 1814000000, 1.8e9       k M G T are powers of 1000
SECONDS  12ms, 0.5s, 800us
BYTES    8MB, 500 kB, 4G, 512KiB                                 with an i powers of 1024, the B may be left out
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from nettailor_cli.core.errors import UsageError

_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)"
_POWERS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4}


@dataclass(frozen=True)
class Kind:
    """What a budget counts: how much each of its units is worth, and examples for a message."""

    units: Mapping[str, float]
    examples: str

    def amount(self, text: str) -> float | None:
        """`text` in the kind's own unit, or None when it is not of this kind."""
        match = re.fullmatch(rf"\s*{_NUMBER}\s*([^\W\d]*)\s*", text)
        if match is None or match[2] not in self.units:
            return None
        amount = float(match[1]) * self.units[match[2]]
        return amount if math.isfinite(amount) else None


COUNT = Kind({prefix: 1000.0**power for prefix, power in _POWERS.items()}, "900M, 0.9G")
SECONDS = Kind({"s": 1.0, "ms": 1e-3, "us": 1e-6}, "12ms, 0.5s")
BYTES = Kind(
    {
        prefix + binary + b: float(1024 if binary else 1000) ** power
        for prefix, power in _POWERS.items()
        for binary in (("", "i") if prefix else ("",))
        for b in ("", "B")
    },
    "8MB, 512KiB",
)


@dataclass(frozen=True)
class Budget:
    """A limit above zero: `amount` in the kind's unit, or, if `relative`, in percent of the backbone's."""

    text: str
    amount: float
    relative: bool

    def limit(self, backbone: float) -> float:
        """The most that is allowed, where the backbone has `backbone`."""
        return self.amount / 100 * backbone if self.relative else self.amount

    def allows(self, value: float, backbone: float) -> bool:
        """Whether `value` is at most the limit; NaN never is."""
        return value <= self.limit(backbone)


def parse_budget(text: str, kind: Kind, flag: str) -> Budget:
    """The budget that was typed for `flag`. Raises UsageError when it is none of this kind, or not above zero."""
    percent = re.fullmatch(rf"\s*{_NUMBER}\s*%\s*", text)
    amount = float(percent[1]) if percent else kind.amount(text)
    if amount is None or not (math.isfinite(amount) and amount > 0):
        raise UsageError(f"{flag} {text}: a budget above zero is needed, like {kind.examples} or 40% of the backbone's")
    return Budget(text.strip(), amount, relative=percent is not None)
