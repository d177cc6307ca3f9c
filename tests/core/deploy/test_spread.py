from __future__ import annotations

import pytest

from nettailor_cli.core.deploy.spread import Spread, duration


def test_quartiles_are_those_of_the_measurements_themselves() -> None:
    assert Spread.of([5.0, 1.0, 3.0, 2.0, 4.0]) == Spread(median=3.0, low=2.0, high=4.0)
    assert Spread.of([1.0, 2.0]) == Spread(median=1.5, low=1.25, high=1.75)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)


def test_one_wild_measurement_moves_neither_median_nor_quartiles() -> None:
    assert Spread.of([1.0, 2.0, 3.0, 4.0, 5e9]) == Spread(3.0, 2.0, 4.0)


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
