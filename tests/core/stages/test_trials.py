"""What is known of candidates without training them."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from nettailor_cli.core.search.asked import STUDENT, Plan
from nettailor_cli.core.search.choice import Wanted
from nettailor_cli.core.stages.trials import Trials

IMAGES = (7, 5, 8)


def trials(accuracy: float | None, student: float | None = None, **limits: Any) -> Trials:
    folds: Any = [
        SimpleNamespace(
            student=(with_metric("teacher", 100.0, n),),
            settings=SimpleNamespace(epochs=4),
            teacher_accuracy=100.0,
            images=n,
        )
        for n in IMAGES
    ]
    return Trials(folds, Plan(), Wanted(accuracy, tolerance=0.0, student=student, aims_at=STUDENT, **limits))


def with_metric(name: str, accuracy: float, images: int) -> Any:
    return SimpleNamespace(metrics={name: {"accuracy": accuracy, "images": images}}, graph=SimpleNamespace(last=8))


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


def test_without_a_tolerance_or_inside_a_budget_nothing_is_out_of_reach() -> None:
    nothing_right = [with_metric("model", 0.0, IMAGES[0])]
    assert trials(90.0)._is_out_of_reach(nothing_right)
    assert not trials(None)._is_out_of_reach(nothing_right)
    assert not trials(90.0, macs=1.0)._is_out_of_reach(nothing_right)


def test_a_candidate_is_given_up_far_below_the_teacher_or_the_student_if_that_is_worse() -> None:
    made = trials(100.0)
    fold = made.folds[1]
    made.unshrunk = {id(fold): 95.0}
    assert made.floor(fold, 8.0) == 87.0  # a teacher without an error has no standard error
    made.unshrunk = {id(fold): 100.0}
    assert made.floor(fold, 8.0) == 92.0
    made.unshrunk = {id(fold): 5.0}
    assert made.floor(fold, 8.0) == 0.0


def test_inside_a_budget_no_candidate_is_given_up() -> None:
    made = trials(100.0, macs=1.0)
    assert made.floor(made.folds[0], 8.0) == 0.0
