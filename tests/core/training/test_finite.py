from __future__ import annotations

import math

import pytest

from nettailor_cli.core.training.finite import what_is_broken


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({"loss": math.nan}, "not finite: cross-entropy"),
        ({"loss": math.nan, "cross_entropy": math.nan, "hint": 1.0}, "not finite: cross-entropy"),
        ({"loss": math.inf, "cross_entropy": 0.1, "hint": math.inf, "expected_complexity": 0.5}, "not finite: hint"),
        ({"loss": math.nan, "cross_entropy": 0.1, "expected_complexity": math.nan}, "not finite: E[C]"),
        (
            {"loss": math.nan, "hint": -math.inf, "expected_complexity": math.nan, "cross_entropy": math.nan},
            "not finite: cross-entropy, E[C], hint",
        ),
        ({"loss": math.inf, "cross_entropy": 1e38, "hint": 3e38}, "each term is finite, their weighted sum is not"),
    ],
)
def test_the_terms_to_blame_are_named(figures: dict[str, float], said: str) -> None:
    assert what_is_broken({**figures, "accuracy": 50.0}) == said
