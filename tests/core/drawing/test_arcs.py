from __future__ import annotations

import math

import pytest

from nettailor_cli.core.drawing.arcs import Bezier, arc, between, height, highest, point_at


def by_formula(curve: Bezier, t: float) -> tuple[float, float]:
    weights = [math.comb(3, k) * t**k * (1 - t) ** (3 - k) for k in range(4)]
    return (
        sum(w * p[0] for w, p in zip(weights, curve, strict=True)),
        sum(w * p[1] for w, p in zip(weights, curve, strict=True)),
    )


@pytest.mark.parametrize(("source", "sink"), [(0, 1), (3, 6), (0, 50)])
def test_an_arc_rises_to_its_height_between_its_nodes_and_never_turns_back(source: int, sink: int) -> None:
    curve = arc(source, sink, 40.0)
    us = [point_at(curve, step / 100)[0] for step in range(101)]
    assert us == sorted(us)
    assert source < us[0] < source + 0.1 and sink - 0.1 < us[-1] < sink
    assert point_at(curve, 0.5) == pytest.approx(((source + sink) / 2, 40.0))
    assert highest(curve, source, sink) == pytest.approx(40.0)


@pytest.mark.parametrize("t", [0.0, 0.1, 0.5, 0.9, 1.0])
def test_points_are_those_of_bernsteins_formula(t: float) -> None:
    curve = arc(2, 5, 30.0)
    assert point_at(curve, t) == pytest.approx(by_formula(curve, t))


@pytest.mark.parametrize(("begin", "end"), [(2.5, 4.2), (-1.0, 3.3), (3.3, 9.0)])
def test_a_part_lies_on_the_whole_and_ends_at_the_edges(begin: float, end: float) -> None:
    whole = arc(2, 5, 30.0)
    part = between(whole, begin, end)
    assert part is not None
    assert part[0][0] == pytest.approx(max(begin, whole[0][0]))
    assert part[3][0] == pytest.approx(min(end, whole[3][0]))
    on_whole = [by_formula(whole, step / 2000) for step in range(2001)]
    for step in range(6):
        point = by_formula(part, step / 5)
        assert min(math.dist(point, other) for other in on_whole) < 0.04


@pytest.mark.parametrize(("begin", "end"), [(0, 9), (0, 3.1), (4.1, 9), (2.5, 2.7), (6, 9)])
def test_the_highest_point_in_a_window_is_that_of_a_search(begin: float, end: float) -> None:
    whole = arc(2, 5, 30.0)
    seen = [v for u, v in (by_formula(whole, step / 4000) for step in range(4001)) if begin <= u <= end]
    assert highest(whole, begin, end) == pytest.approx(max(seen, default=0.0), abs=0.1)


def test_a_window_that_holds_all_of_it_changes_nothing_and_one_beside_it_holds_none() -> None:
    whole = arc(2, 5, 30.0)
    assert between(whole, 0, 9) == whole
    assert between(whole, 5, 9) is None
    assert between(whole, 0, 2) is None


def test_wider_arcs_are_higher_and_none_is_higher_than_the_limit() -> None:
    for widest in (1, 3, 8, 50):
        heights = [height(span, widest) for span in range(1, widest + 1)]
        assert heights == sorted(set(heights))
        assert heights[-1] <= 320
