from __future__ import annotations

import itertools
import random

import pytest

from nettailor_cli.core.drawing.labels import Area, Label, Place, crosses, find_places

ROOM = Area(0, 0, 400, 300)


def one(x: float, y: float) -> Label:
    return Label(x, y, radius=4, width=30, height=12)


def mark_of(label: Label) -> Area:
    return Area(label.x - label.radius, label.y - label.radius, label.x + label.radius, label.y + label.radius)


def found(places: list[Place | None]) -> list[Place]:
    assert None not in places
    return [place for place in places if place is not None]


def test_alone_it_stands_close_to_the_right() -> None:
    (place,) = found(find_places([one(200, 150)], [], ROOM))
    assert not place.far
    assert place.area == pytest.approx((207, 144, 237, 156))


def test_at_the_right_edge_it_stands_elsewhere_close_by() -> None:
    (place,) = found(find_places([one(395, 150)], [], ROOM))
    assert not place.far and ROOM.holds(place.area) and place.area.right < 395


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_covered(seed: int) -> None:
    rng = random.Random(seed)
    labels = [one(rng.uniform(10, 390), rng.uniform(10, 290)) for _ in range(30)]
    lines = [Area(label.x - 2, label.y - 20, label.x + 2, label.y + 20) for label in labels]
    places = [place for place in find_places(labels, lines, ROOM) if place is not None]
    assert len(places) >= 25
    for a, b in itertools.combinations([place.area for place in places], 2):
        assert not a.overlaps(b)
    for place, other in itertools.product(places, (*lines, *map(mark_of, labels))):
        assert not place.area.overlaps(other)
        assert ROOM.holds(place.area)


def test_a_line_to_a_far_label_goes_around_other_marks_where_it_can() -> None:
    # walls left and right of the point, a mark above it: far below is free
    walls = [Area(0, 140, 195, 300), Area(205, 140, 400, 300)]
    labels = [one(200, 200), Label(200, 230, radius=4, width=1000, height=12)]
    place, other = find_places(labels, walls, ROOM)
    assert other is None, "it is wider than the room"
    assert place is not None and place.far
    assert not crosses((200, 200), place.area.middle, mark_of(labels[1]))


def test_where_there_is_no_room_there_is_no_place_and_the_first_goes_first() -> None:
    first, second = find_places([one(20, 20), one(20, 20)], [], Area(14, 0, 60, 40))
    assert first is not None
    assert second is None


def test_crossing_agrees_with_a_walk_along_the_line() -> None:
    rng = random.Random(1)
    area = Area(40, 40, 60, 70)
    seen = {True: 0, False: 0}
    for _ in range(300):
        start, end = ((rng.uniform(0, 100), rng.uniform(0, 100)) for _ in range(2))
        steps = (
            (start[0] + k / 500 * (end[0] - start[0]), start[1] + k / 500 * (end[1] - start[1])) for k in range(501)
        )
        # grazed corners are left to either answer
        inner = any(41 <= x <= 59 and 41 <= y <= 69 for x, y in steps)
        if inner:
            assert crosses(start, end, area)
        elif not crosses(start, end, Area(39, 39, 61, 71)):
            assert not crosses(start, end, area)
        seen[inner] += 1
    assert min(seen.values()) > 30
    assert crosses((50, 0), (50, 100), area) and not crosses((30, 0), (30, 100), area)
    assert not crosses((0, 50), (39, 50), area) and crosses((0, 50), (41, 50), area)
