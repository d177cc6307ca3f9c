from __future__ import annotations

import itertools

import pytest

from nettailor_cli.core.search.probing import first_probe, next_probe


def probes(within: list[bool], start: int, screened: list[float] | None = None) -> list[int]:
    """The numbers that are tried when `within[k]` is what the full training of k shows."""
    screened = screened or [100.0 - k for k in range(len(within))]
    tried: dict[int, bool] = {}
    order: list[int] = []
    while (k := next_probe(tried, screened, start)) is not None:
        assert k not in tried and 0 <= k < len(within)
        tried[k] = within[k]
        order.append(k)
    return order


def test_the_first_is_the_leanest_that_the_short_trainings_promise() -> None:
    assert first_probe([90.0, 89.5, 88.2, 89.1, 80.0], wanted=89.6, recovery=1.0) == 3
    assert first_probe([50.0, 40.0], wanted=89.6, recovery=1.0) == 0


@pytest.mark.parametrize("start", range(9))
@pytest.mark.parametrize("edge", range(9))
def test_the_edge_is_found_from_every_start(edge: int, start: int) -> None:
    """When all up to `edge` are within and none beyond, edge and edge + 1 are both tried."""
    order = probes([k <= edge for k in range(9)], start)
    assert edge in order
    assert edge == 8 or edge + 1 in order


def test_a_right_guess_costs_two_trainings() -> None:
    assert probes([k <= 4 for k in range(9)], start=4) == [4, 5]
    assert probes([k <= 4 for k in range(9)], start=5) == [5, 4]


def test_never_more_than_a_few() -> None:
    """For 16 blocks at most eight of 17, wherever the edge is and wherever the search starts."""
    most = max(
        len(probes([k <= edge for k in range(17)], start)) for edge, start in itertools.product(range(17), range(17))
    )
    assert most == 8


def test_nothing_is_within() -> None:
    assert probes([False] * 5, start=2)[-1] == 0


def test_the_neighbour_beyond_the_edge_is_tried_when_its_short_training_looked_no_worse() -> None:
    within = [True, True, False, True, False]
    assert 3 in probes(within, start=1, screened=[95, 94, 90, 91, 80])
    assert 3 not in probes(within, start=1, screened=[95, 94, 92, 91, 80])
