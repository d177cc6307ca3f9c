"""What is known of candidates without training them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from nettailor_cli.core.search.choice import Wanted
from nettailor_cli.core.stages.trials import Trials

IMAGES = (7, 5, 8)


def trials(accuracy: float | None, student: float | None = None) -> Trials:
    made = Trials.__new__(Trials)
    made.wanted = Wanted(accuracy, tolerance=0.0, student=student)
    made.least = accuracy or 0.0
    made.folds = [SimpleNamespace(student=(with_metric("teacher", 100.0, n),)) for n in IMAGES]  # type: ignore[misc]
    return made


def with_metric(name: str, accuracy: float, images: int) -> Any:
    return SimpleNamespace(metrics={name: {"accuracy": accuracy, "images": images}})


@pytest.mark.parametrize("wanted", [0.0, 70.0, 80.0, 92.0, 95.0, 100.0])
def test_a_candidate_is_out_of_reach_when_no_result_in_the_other_folds_would_do(wanted: float) -> None:
    """Against all results that the other folds can have."""
    for done in (1, 2, 3):
        for right in itertools.product(*(range(n + 1) for n in IMAGES[:done])):
            documents = [with_metric("model", 100 * r / n, n) for r, n in zip(right, IMAGES, strict=False)]
            others = itertools.product(*(range(n + 1) for n in IMAGES[done:]))
            possible = any(100 * (sum(right) + sum(more)) / sum(IMAGES) >= wanted - 1e-9 for more in others)
            expected = not possible and done < len(IMAGES)  # once all are known there is nothing to stop
            assert trials(wanted)._is_out_of_reach(documents) == expected
            # good enough for the teacher is good enough, though it was aimed higher
            assert trials(wanted, student=100.0)._is_out_of_reach(documents) == expected


def test_without_a_tolerance_nothing_is_out_of_reach() -> None:
    assert not trials(None)._is_out_of_reach([with_metric("model", 0.0, IMAGES[0])])
