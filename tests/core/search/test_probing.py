from __future__ import annotations

import itertools

import pytest

from nettailor_cli.core.search.probing import LEFT, MENDED, next_probe

WANTED = 90.0


def probes(full: list[float], screened: list[float]) -> list[int]:
    """The numbers that are tried when `full[k]` is what the full training of k gives."""
    tried: dict[int, float] = {}
    order: list[int] = []
    while (k := next_probe(tried, screened, WANTED)) is not None:
        assert k not in tried and 0 <= k < len(full)
        tried[k] = full[k]
        order.append(k)
    return order


def falling(blocks: int, edge: int, by: float) -> list[float]:
    """Accuracies that fall by so much with every block, the one after `edge` being the first below what is wanted."""
    return [WANTED + by * (edge + 0.5 - k) for k in range(blocks + 1)]


def test_the_first_is_the_leanest_that_the_short_trainings_promise() -> None:
    fall = (92.0 + MENDED * 8.0 - WANTED) / LEFT
    screened = [92.0, 91.0, 92.0 - fall + 0.1, 92.0 - fall - 0.1]
    assert next_probe({}, screened, WANTED) == 2


def test_where_they_promise_less_it_begins_with_half_of_the_blocks() -> None:
    """Measured: ResNet-18, 136 characters, 64 px; with all blocks 91.5 % are missed, with two fewer not."""
    screened = [88.6, 87.7, 86.5, 84.9, 81.1, 78.3, 70.8, 62.1, 43.8]
    assert next_probe({}, screened, 91.5) == 4
    assert next_probe({}, [50.0], WANTED) == 0
    assert probes([88.0] * 9, [50.0] * 9) == [4, 3, 1, 0]


def test_a_first_guess_in_the_middle_takes_the_fewest_steps_wherever_the_edge_is() -> None:
    """On the average over all edges, in blocks that are trained in full; a start with all of them is the reference."""

    def trained(start: int | None) -> float:
        total = 0
        for edge in range(9):
            full, screened = falling(8, edge, by=1.0), [80.0 - 5.0 * k for k in range(9)]
            tried = {} if start is None else {start: full[start]}
            while (k := next_probe(tried, screened, WANTED)) is not None:
                tried[k] = full[k]
            total += sum(9 - k for k in tried)
        return total / 9

    assert trained(None) == trained(4)
    assert trained(4) < 0.95 * trained(2) < 0.85 * trained(0)


@pytest.mark.parametrize("edge", range(-1, 9))
@pytest.mark.parametrize("steep", [0.0, 0.5, 5.0, 40.0])
def test_the_edge_is_found_whatever_the_short_trainings_say(edge: int, steep: float) -> None:
    """When all up to `edge` are within and none beyond, edge and edge + 1 are both tried."""
    screened = [WANTED - 4.0 - steep * k for k in range(9)]
    order = probes(falling(8, edge, by=1.0), screened)
    assert {edge, edge + 1} & {*range(9)} <= {*order}


def test_where_full_trainings_leave_the_expected_share_two_of_them_do() -> None:
    full = falling(16, 11, by=1.0)
    short = (full[0] - 100 * MENDED) / (1 - MENDED)
    screened = [short + (accuracy - full[0]) / LEFT for accuracy in full]
    assert probes(full, screened) == [11, 12]


def test_a_first_guess_that_was_too_careful_is_made_up_for_in_one_step() -> None:
    """Measured: ResNet-18, 102 kinds of flowers, 64 px; the fifth block can go, the sixth costs too much."""
    screened = [73.8, 70.5, 67.3, 65.9, 52.7, 42.6, 41.6, 28.1, 22.2]
    full = {3: 77.9, 4: 73.5, 5: 72.6, 6: 70.2}
    assert next_probe({}, screened, 70.5) == 4
    assert next_probe({3: full[3]}, screened, 70.5) == 6
    assert next_probe({3: full[3], 6: full[6]}, screened, 70.5) == 5
    assert next_probe({3: full[3], 6: full[6], 5: full[5]}, screened, 70.5) is None


def test_a_first_guess_that_went_too_far_is_taken_back_by_one() -> None:
    """Measured: ResNet-18, 136 characters, 64 px; the short trainings said that three would not do, nor two."""
    screened = [89.0, 87.2, 87.0, 85.2, 82.0, 84.5, 75.6, 67.6, 44.3]
    full = {0: 90.2, 1: 91.1, 2: 90.6, 3: 91.8, 4: 90.0, 5: 89.7}
    assert next_probe({4: full[4]}, screened, 91.5) == 3
    assert next_probe({4: full[4], 3: full[3]}, screened, 91.5) == 5  # it looks no worse than the fourth
    assert next_probe({4: full[4], 3: full[3], 5: full[5]}, screened, 91.5) is None


def test_never_more_than_a_few() -> None:
    """For 16 blocks at most seven of 17, wherever the edge is and however far off the short trainings are."""
    screens = [[WANTED - 4.0 - steep * k for k in range(17)] for steep in (0.0, 0.1, 0.5, 2.0, 5.0, 20.0)]
    falls = (0.05, 0.2, 1.0, 3.0, 10.0)
    most = max(
        len(probes(falling(16, edge, by), screened))
        for edge, by, screened in itertools.product(range(-1, 17), falls, screens)
    )
    assert most == 7


def test_nothing_is_within() -> None:
    assert probes([80.0] * 5, [70.0, 60.0, 50.0, 40.0, 30.0])[-1] == 0


def test_the_neighbour_beyond_the_edge_is_tried_when_its_short_training_looked_no_worse() -> None:
    tried = {1: 92.0, 2: 89.0}
    assert next_probe(tried, [90.0, 85.0, 80.0, 80.0, 50.0], WANTED) == 3
    assert next_probe(tried, [90.0, 85.0, 80.0, 79.0, 50.0], WANTED) is None
    assert next_probe({**tried, 3: 88.0}, [90.0, 85.0, 80.0, 80.0, 80.0], WANTED) is None
