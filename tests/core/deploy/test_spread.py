from __future__ import annotations

import pytest

from nettailor_cli.core.deploy.spread import Spread, duration, warn_of_restlessness
from nettailor_cli.core.progress import Silent


def test_quartiles_are_those_of_the_measurements_themselves() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert Spread.of([1.0, 2.0]) == Spread(median=1.5, low=1.25, high=1.75)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_one_wild_measurement_moves_neither_median_nor_quartiles() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5e9]) == Spread(3.0, 2.0, 4.0)


class Warnings(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def warn(self, text: str) -> None:
        self.said.append(text)


def test_a_busy_machine_is_told_by_quartiles_that_lie_far_apart_in_half_of_the_measurements() -> None:
    steady, wild = Spread(100.0, 95.0, 105.0), Spread(100.0, 80.0, 140.0)
    words = Warnings()
    warn_of_restlessness([steady, wild, steady], words)
    assert words.said == []
    warn_of_restlessness([wild, wild, steady], words)
    assert len(words.said) == 1 and "60 % of the median apart" in words.said[0] and "busy" in words.said[0]


@pytest.mark.parametrize(
    ("microseconds", "shown"),
    [
        (0.25, "0.25 us"),
        (9.994, "9.99 us"),
        (81.24, "81.2 us"),
        (812.4, "812 us"),
        (999.6, "1.00 ms"),
        (3214, "3.21 ms"),
        (99_960, "100 ms"),
        (1.2e6, "1.20 s"),
        (75e6, "75.0 s"),
    ],
)
def test_durations_have_three_digits_and_a_unit(microseconds: float, shown: str) -> None:
    assert duration(microseconds) == shown
