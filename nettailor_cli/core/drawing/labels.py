"""Where names go beside the points of a plot, so that they cover neither points nor each other. Pixels, y up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

DISTANCES = (3.0, 10.0, 18.0, 28.0, 40.0, 54.0, 70.0, 90.0, 115.0)
"""From the rim of a point's mark to its label. From the second on a thin line has to join the two."""
CROSSING = 25.0
"""How much farther a label goes so that the line to its point crosses nothing."""
_ANGLES = (0, 90, 270, 180, 45, 315, 135, 225, *range(15, 360, 15))
"""Where a label goes, in degrees, the best first: right of its point, above, below, left, then what lies between."""


class Area(NamedTuple):
    """A rectangle."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def middle(self) -> tuple[float, float]:
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    def overlaps(self, other: Area) -> bool:
        return (
            self.left < other.right and other.left < self.right and self.bottom < other.top and other.bottom < self.top
        )

    def holds(self, other: Area) -> bool:
        return (
            self.left <= other.left
            and other.right <= self.right
            and self.bottom <= other.bottom
            and other.top <= self.top
        )


@dataclass(frozen=True)
class Label:
    """A text of `width` x `height` for the point (x, y), whose mark has the radius `radius`."""

    x: float
    y: float
    radius: float
    width: float
    height: float


@dataclass(frozen=True)
class Place:
    """Where a label stands, and whether so far from its point that a line has to join them."""

    area: Area
    far: bool


def find_places(labels: Sequence[Label], lines: Sequence[Area], room: Area) -> list[Place | None]:
    """A place inside `room` for each of `labels`, the first ones first; None for one that finds no free place.

    No label covers a mark, another label or one of `lines`. The line from a label to its point crosses other marks and
    labels only where a place without that would be `CROSSING` farther away.
    """
    marks = [_area(label.x, label.y, 2 * label.radius, 2 * label.radius) for label in labels]
    written: list[Area] = []
    found: list[Place | None] = []
    for label, mark in zip(labels, marks, strict=True):
        taken = (*lines, *marks, *written)
        others = [other for other in (*marks, *written) if not other.overlaps(mark)]
        best, least = None, math.inf
        for place, distance in _around(label):
            if distance >= least:
                break
            if not room.holds(place.area) or any(place.area.overlaps(other) for other in taken):
                continue
            crossed = place.far and any(crosses((label.x, label.y), place.area.middle, other) for other in others)
            penalty = distance + CROSSING * crossed
            if penalty < least:
                best, least = place, penalty
        if best is not None:
            written.append(best.area)
        found.append(best)
    return found


def _around(label: Label) -> Iterator[tuple[Place, float]]:
    """Where a label could stand around its point, the best place first, and how far from its point's mark."""
    for distance in DISTANCES:
        for angle in _ANGLES:
            x = label.x + math.cos(math.radians(angle)) * (label.radius + distance + label.width / 2)
            y = label.y + math.sin(math.radians(angle)) * (label.radius + distance + label.height / 2)
            yield Place(_area(x, y, label.width, label.height), distance > DISTANCES[0]), distance


def _area(x: float, y: float, width: float, height: float) -> Area:
    return Area(x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def crosses(start: tuple[float, float], end: tuple[float, float], area: Area) -> bool:
    """Whether the line from `start` to `end` has a point in `area` (clipping after Liang and Barsky)."""
    enter, leave = 0.0, 1.0
    for begin, step, low, high in (
        (start[0], end[0] - start[0], area.left, area.right),
        (start[1], end[1] - start[1], area.bottom, area.top),
    ):
        if step == 0:
            if not low <= begin <= high:
                return False
            continue
        near, far = sorted(((low - begin) / step, (high - begin) / step))
        enter, leave = max(enter, near), min(leave, far)
    return enter <= leave
