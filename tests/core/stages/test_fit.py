"""What the search decides without training; the search itself is in tests/cli/fit."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nettailor_cli.core.search.asked import STUDENT, Plan
from nettailor_cli.core.search.choice import CANDIDATE, Row, Wanted
from nettailor_cli.core.stages.fit import Search
from nettailor_cli.core.stages.trials import Trials


class ToyTrials(Trials):
    """`accuracies` and MACs by the number of removed blocks; 100 MACs less with each. Nothing is trained.

    has_folds: as if there were some, which end a candidate that is of no use.
    """

    def __init__(self, accuracies: list[float], wanted: Wanted) -> None:
        self.accuracies, self.rows, self.length, self.least = accuracies, {}, 0.0, wanted.accuracy
        self.wanted, self.cut_short, self.has_folds = wanted, set(), False
        self.folds = [None]  # type: ignore[list-item]

    def full(self, name: str, made: Any, k: int, short: float, **_: Any) -> Row:
        accuracy, ends = self.accuracies[k], self.has_folds and k > 0 and self.accuracies[k] < self.least
        self.cut_short |= {name} if ends else set()
        self.rows[name] = replace(self.costs(k), name=name, accuracy=accuracy, given_up=ends)
        return self.rows[name]

    @staticmethod
    def costs(graph: Any) -> Row:
        return Row("", CANDIDATE, (), 0.0, 100, 1000 - 100 * graph, 0, 0, 0.0)


class Toy(Search):
    """The gradual search over them."""

    def __init__(self, accuracies: list[float], wanted: Wanted, screened: list[float] | None = None) -> None:
        self.trials: Any = ToyTrials(accuracies, wanted)
        self.screened = screened or accuracies
        self.plan, self.wanted, self.aim = Plan(), wanted, wanted.aim
        self.main: Any = SimpleNamespace(job=SimpleNamespace(progress=SimpleNamespace(note=lambda text: None)))
        self.folds = [self.main]

    def _shrink(self) -> Any:
        states = [
            (SimpleNamespace(graph=k, metrics={"model": {"accuracy": a, "images": 1}}), {})
            for k, a in enumerate(self.screened)
        ]
        return {id(self.main): states}

    def _swapped(self, state: Any, k: int) -> None: ...

    def _with_fewer_proxies(self, chains: Any, k: int) -> None: ...


SLOPE = [90.0, 89.0, 88.0, 87.0, 86.0, 85.0, 84.0, 83.0]
"""Accuracies with 0, 1, 2, ... blocks removed."""


def test_the_edge_is_the_teachers_or_if_asked_for_that_of_a_better_student() -> None:
    assert Toy(SLOPE, Wanted(84.0, tolerance=0.5, student=87.5)).go()[0].row.name == "k06"
    choice, _ = Toy(SLOPE, Wanted(84.0, tolerance=0.5, student=87.5, aims_at=STUDENT)).go()
    assert (choice.row.name, choice.met) == ("k03", True)


def test_the_edge_is_a_margin_away_from_the_teachers_where_something_is_and_else_the_teachers() -> None:
    assert Toy(SLOPE, Wanted(84.0, tolerance=0.5, margin=2.0)).go()[0].row.name == "k04"
    choice, _ = Toy(SLOPE, Wanted(89.2, tolerance=0.5, margin=2.0)).go()
    assert (choice.row.name, choice.met) == ("k00", True)


def test_once_a_candidate_comes_up_to_it_after_all_the_aim_is_what_it_was() -> None:
    """The whole student doesn't, and for a while what is as good as the best is looked for; then another does."""
    hump = [89.7, 90.9, 91.0, 91.0, 91.2, 91.8, 91.5, 90.5]
    choice, rows = Toy(hump, Wanted(91.5, tolerance=0.5), screened=[60.0 - 5 * k for k in range(8)]).go()
    assert {row.name for row in rows} == {"k00", "k01", "k03", "k04", "k06", "k07"}
    assert (choice.row.name, choice.met) == ("k06", True)


def test_what_was_cut_short_for_an_aim_that_nothing_comes_up_to_is_trained_for_the_lower_one() -> None:
    screened = [60.0 - 5 * k for k in range(8)]
    search = Toy([89.0, 88.9, 88.8, 88.7, 88.6, 80.0, 79.0, 78.0], Wanted(91.5, tolerance=0.5), screened)
    search.trials.has_folds = True
    choice, _ = search.go()
    assert (choice.row.name, choice.met) == ("k04", False)


def test_of_a_student_that_no_candidate_comes_up_to_the_search_goes_on_from_the_best() -> None:
    choice, _ = Toy(SLOPE, Wanted(84.0, tolerance=1.5, student=99.0, aims_at=STUDENT)).go()
    assert (choice.row.name, choice.met) == ("k01", False)


@pytest.mark.parametrize("affordable", range(8))
def test_where_a_budget_and_the_students_tolerance_exclude_each_other_the_most_accurate_that_it_allows(
    affordable: int,
) -> None:
    """Aimed at the student, which only the largest come up to; the budget begins with `affordable` blocks removed."""
    wanted = Wanted(85.0, tolerance=0.5, student=89.5, aims_at=STUDENT, macs=1000 - 100 * affordable)
    choice, _ = Toy(SLOPE, wanted).go()
    assert choice.row.macs <= 1000 - 100 * affordable
    assert choice.met == (SLOPE[affordable] >= 89.0)
    if affordable > 1:
        assert choice.row.name == f"k{affordable:02d}"
