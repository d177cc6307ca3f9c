from __future__ import annotations

import math

import pytest

from nettailor_cli.core.settings import Settings
from nettailor_cli.core.training.schedule import rate_factor


def factors(settings: Settings, steps: int, steps_per_epoch: int = 10) -> list[float]:
    return [rate_factor(settings, step, steps, steps_per_epoch) for step in range(steps)]


def test_the_published_schedule_falls_to_a_tenth_every_20_epochs() -> None:
    settings = Settings(schedule="step", step_epochs=20, warmup=0.0)
    rates = factors(settings, 50 * 3, 3)
    assert rates == pytest.approx([1.0] * 60 + [0.1] * 60 + [0.01] * 30)


def test_half_a_cosine_without_warm_up() -> None:
    root = math.sqrt(0.5)
    expected = [1.0, (1 + root) / 2, 0.5, (1 - root) / 2]
    assert factors(Settings(schedule="cosine", warmup=0.0), 4) == pytest.approx(expected)


def test_the_rise_is_a_line_that_ends_on_the_peak_and_is_followed_by_half_a_cosine() -> None:
    root = math.sqrt(0.5)
    rates = factors(Settings(schedule="cosine", warmup=0.5), 8)
    assert rates == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.0, (1 + root) / 2, 0.5, (1 - root) / 2])


def test_steps_are_counted_from_the_start_of_the_run_with_a_warm_up_too() -> None:
    settings = Settings(schedule="step", step_epochs=2, warmup=0.25)
    assert factors(settings, 8, 2) == pytest.approx([0.5, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 0.1])


@pytest.mark.parametrize("tens", [1, 3, 7, 9, 14, 57, 100])
def test_a_tenth_of_the_steps_rises(tens: int) -> None:
    rates = factors(Settings(warmup=0.1), 10 * tens)
    assert rates[:tens] == pytest.approx([(step + 1) / tens for step in range(tens)])


@pytest.mark.parametrize("schedule", ["cosine", "step"])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.37, 0.9])
@pytest.mark.parametrize("steps", [1, 2, 3, 10, 97])
def test_a_rate_is_never_zero_nor_above_its_peak_and_rises_before_it_falls(
    schedule: str, warmup: float, steps: int
) -> None:
    rates = factors(Settings(schedule=schedule, warmup=warmup, step_epochs=1), steps)
    assert all(0 < rate <= 1 for rate in rates)
    peak = rates.index(max(rates))
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)
