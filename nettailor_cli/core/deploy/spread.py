"""A measured quantity: its median, and the quartiles that say how far to trust it. No torch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from nettailor_cli.core.progress import Progress

_RESTLESS = 0.25
"""A machine is busy with other things when half of what is measured has quartiles further apart than this share."""


@dataclass(frozen=True)
class Spread:
    """`median` of some measurements; a quarter of them lie below `low`, a quarter above `high`. In any unit."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of one value or more."""
        # not at the top: it would make every command start a little later
        from statistics import quantiles

        low, median, high = quantiles(values, n=4, method="inclusive") if len(values) > 1 else [values[0]] * 3
        return cls(median, low, high)

    def to_json(self) -> dict[str, float | list[float]]:
        return {"median": self.median, "quartiles": [self.low, self.high]}


def warn_of_restlessness(spreads: Iterable[Spread], progress: Progress) -> None:
    """Say so when the machine was too busy for its medians to be trusted."""
    share = Spread.of([(spread.high - spread.low) / spread.median for spread in spreads]).median
    if share > _RESTLESS:
        progress.warn(
            f"the quartiles lie {100 * share:.0f} % of the median apart: the machine is busy with other things, "
            "so measure again when it is not"
        )


def duration(microseconds: float) -> str:
    """Three digits and a unit: "812 us", "3.21 ms", "1.20 s"."""
    for unit, size in (("s", 1e6), ("ms", 1e3)):
        if microseconds >= 0.9995 * size:
            return f"{_three_digits(microseconds / size)} {unit}"
    return f"{_three_digits(microseconds)} us"


def _three_digits(number: float) -> str:
    return f"{number:.0f}" if number >= 99.95 else f"{number:.1f}" if number >= 9.995 else f"{number:.2f}"
