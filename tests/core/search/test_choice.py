from __future__ import annotations

import math
from dataclasses import replace

import pytest

from nettailor_cli.core.search.choice import BASELINE, CANDIDATE, Row, Wanted, choose


def row(
    name: str, accuracy: float, macs: int, *, kind: str = CANDIDATE, given_up: bool = False, images: int = 400
) -> Row:
    return Row(name, kind, (1, 2), accuracy, images, macs, 2 * macs, 4 * macs, 40, given_up)


ROWS = [row("a", 92.0, 900), row("b", 91.0, 700), row("c", 89.9, 500), row("d", 80.0, 300)]


def test_the_leanest_within_the_tolerance() -> None:
    choice = choose(ROWS, Wanted(accuracy=90.0))
    assert (choice.row.name, choice.met) == ("b", True)


def test_exactly_at_the_tolerance_is_within() -> None:
    assert choose(ROWS, Wanted(accuracy=89.9)).row.name == "c"


def test_a_choice_within_noise_says_so() -> None:
    """b is 1.0 point above; the standard error of 91 % of 400 pictures is 1.43 points."""
    assert "standard error of 1.4" in choose(ROWS, Wanted(accuracy=90.0)).reason
    certain = [row("a", 92.0, 900, images=40_000)]
    assert "standard error" not in choose(certain, Wanted(accuracy=90.0)).reason


def test_standard_error_by_hand() -> None:
    assert row("x", 80.0, 1, images=100).standard_error == pytest.approx(4.0)  # 100 * sqrt(0.8 * 0.2 / 100)
    assert math.isnan(row("x", 80.0, 1, images=0).standard_error)


def test_none_within_the_tolerance_gives_the_most_accurate_and_says_so() -> None:
    choice = choose(ROWS, Wanted(accuracy=99.0))
    assert (choice.row.name, choice.met) == ("a", False)


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Wanted(None, macs=700), "b"),
        (Wanted(None, macs=699), "c"),
        (Wanted(None, parameters=650), "d"),
        (Wanted(None, bytes=2000), "c"),
        (Wanted(None, macs=2000, bytes=1200), "d"),
    ],
)
def test_a_budget_alone_gives_the_most_accurate_inside_it(wanted: Wanted, name: str) -> None:
    choice = choose(ROWS, wanted)
    assert (choice.row.name, choice.met) == (name, True)


def test_outside_every_budget_the_closest_is_given_and_it_says_so() -> None:
    choice = choose(ROWS, Wanted(None, macs=100))
    assert (choice.row.name, choice.met) == ("d", False)


def test_a_tolerance_inside_a_budget() -> None:
    assert choose(ROWS, Wanted(90.0, macs=800)).row.name == "b"
    assert not choose(ROWS, Wanted(90.0, macs=600)).met


def test_within_no_tolerance_the_leanest_within_it_of_the_most_accurate() -> None:
    rows = [row("a", 90.0, 900), row("b", 91.0, 700), row("c", 90.6, 500), row("d", 90.4, 300)]
    choice = choose(rows, Wanted(95.0, tolerance=0.5))
    assert (choice.row.name, choice.met) == ("c", False)
    assert "c is the leanest within it of b, which is the most accurate" in choice.reason
    assert choose(rows, Wanted(95.0, tolerance=0.1)).reason.endswith("; b is the most accurate")
    assert choose(rows, Wanted(95.0, tolerance=0.5, macs=400)).row.name == "d"


def test_a_student_better_than_its_teacher_is_what_candidates_are_measured_by_if_asked_for() -> None:
    wanted = Wanted(79.5, tolerance=0.5, student=91.4, aims_at="student")
    assert wanted.aim == pytest.approx(90.9)
    assert (choose(ROWS, wanted).row.name, choose(ROWS, wanted).met) == ("b", True)
    assert Wanted(90.0, tolerance=0.5, student=80.0, aims_at="student").aim == 90.0
    assert Wanted(None, macs=1, student=80.0, aims_at="student").aim is None


def test_else_the_teacher_is_and_a_student_much_better_than_what_is_chosen_is_worth_a_word() -> None:
    wanted = Wanted(79.5, tolerance=0.5, student=91.4)
    assert wanted.aim == 79.5
    assert choose(ROWS, wanted).row.name == "d"
    assert choose(ROWS, wanted).reason.endswith("; the unpruned student is 11.4 points more accurate (--aim student)")
    little = replace(wanted, student=80.0 + 1.9 * choose(ROWS, wanted).row.standard_error)
    alike = replace(wanted, tolerance=12.0)  # whichever is aimed at, this would be chosen
    for nothing_to_say in (replace(wanted, student=None), replace(wanted, student=70.0), little, alike):
        assert "student" not in choose(ROWS, nothing_to_say).reason


def test_the_leanest_has_to_be_within_the_tolerance_by_the_margin() -> None:
    """c is within it by 0.4 points, and b by 1.5."""
    choice = choose(ROWS, Wanted(89.5, tolerance=0.5, margin=1.4))
    assert (choice.row.name, choice.met) == ("b", True)
    assert choice.reason == (
        "b is the leanest within the tolerance by a standard error or more; c is leaner and within it by less"
    )


def test_where_none_is_by_the_margin_the_most_accurate_that_is_at_all_or_what_is_as_good() -> None:
    choice = choose(ROWS, Wanted(91.4, tolerance=0.5, margin=1.4))
    assert (choice.row.name, choice.met) == ("a", True)
    assert choice.reason == "no candidate is within the tolerance by a standard error or more; a is the most accurate"
    assert choose(ROWS, Wanted(89.5, tolerance=3.0, margin=9.0)).row.name == "c"
    assert not choose(ROWS, Wanted(95.0, tolerance=0.5, margin=1.4)).met


def test_what_misses_the_student_that_was_asked_for_is_as_close_to_the_best_candidate_as_may_be() -> None:
    rows = [row("a", 92.0, 900), row("b", 91.6, 700), row("c", 89.9, 500), row("d", 80.0, 300)]
    choice = choose(rows, Wanted(79.5, tolerance=0.5, student=95.0, aims_at="student"))
    assert (choice.row.name, choice.met) == ("b", False)
    assert choice.reason.startswith("no candidate is within the tolerance of the unpruned student; b is the leanest")


def test_what_only_the_best_candidate_meets_is_not_lost_to_the_tolerance() -> None:
    rows = [row("a", 90.2, 900), row("b", 89.9, 500)]
    choice = choose(rows, Wanted(90.0, tolerance=0.5, student=95.0, aims_at="student"))
    assert (choice.row.name, choice.met) == ("a", False)
    # where the best misses it, too, the leaner one is as good
    choice = choose(rows, Wanted(91.0, tolerance=0.5, student=95.0, aims_at="student"))
    assert (choice.row.name, choice.met) == ("b", False)


def test_baselines_and_what_was_given_up_are_never_chosen() -> None:
    rows = [*ROWS, row("lean", 95.0, 10, kind=BASELINE), row("half", 95.0, 20, given_up=True)]
    assert choose(rows, Wanted(accuracy=90.0)).row.name == "b"


def test_of_equal_macs_the_more_accurate() -> None:
    assert choose([*ROWS, row("b2", 91.5, 700)], Wanted(accuracy=90.0)).row.name == "b2"


def test_a_latency_budget_counts_where_latencies_are_known() -> None:
    rows = [replace(row("a", 92.0, 900), latency=800.0), replace(row("b", 91.0, 700), latency=300.0)]
    assert choose(rows, Wanted(None, latency=500.0)).row.name == "b"
    assert not choose(rows, Wanted(None, latency=200.0)).met
    assert choose(ROWS, Wanted(None, latency=1.0)).row.name == "a"  # nothing is known of these
