"""Arcs from node to node as cubic Bézier curves, cut at the edges of a row.

A point is (u, v): u along the row of nodes, in nodes; v above it, in pixels.
"""

from __future__ import annotations

from nettailor_cli.core.drawing.scene import Point

Bezier = tuple[Point, Point, Point, Point]

LOWEST, STEP, HIGHEST = 26.0, 20.0, 320.0
"""Pixels: an arc to the next node, what every further node adds, and where that becomes less to stay below."""
FOOT = 0.07
"""Nodes: arcs leave to the right of their source's middle and arrive to the left of their sink's, wide ones closer."""


def height(span: int, widest: int) -> float:
    """How high an arc over `span` nodes rises, when the widest of the picture spans `widest`."""
    return LOWEST + (span - 1) * min(STEP, (HIGHEST - LOWEST) / max(1, widest - 1))


def arc(source: int, sink: int, top: float) -> Bezier:
    """From node `source` to node `sink`, rising to `top`; u never turns back. Wide ones are steeper: they nest."""
    span = sink - source
    foot, lean = FOOT / span, 0.15 + 0.07 * span
    control = top / 0.75  # a Bézier curve with both controls there comes to three quarters of it
    return (source + foot, 0.0), (source + foot + lean, control), (sink - foot - lean, control), (sink - foot, 0.0)


def highest(curve: Bezier, begin: float, end: float) -> float:
    """The largest v of the arc `curve` with begin <= u <= end; 0 when it isn't there. It is highest in its middle."""
    if not _meets(curve, begin, end):
        return 0.0
    middle = (curve[0][0] + curve[3][0]) / 2
    nearest = min(max(middle, begin), end)
    return point_at(curve, 0.5 if nearest == middle else _crossing(curve, nearest))[1]


def point_at(curve: Bezier, t: float) -> Point:
    """Where `curve` is at t in [0, 1]."""
    s = 1 - t
    p, q, r, w = s * s * s, 3 * s * s * t, 3 * s * t * t, t * t * t
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = curve
    return (p * ax + q * bx + r * cx + w * dx, p * ay + q * by + r * cy + w * dy)


def between(curve: Bezier, begin: float, end: float) -> Bezier | None:
    """The part of `curve` with begin <= u <= end, or None when there is none. Its u has to grow with t."""
    if not _meets(curve, begin, end):
        return None
    if curve[3][0] > end:
        curve = _halves(curve, _crossing(curve, end))[0]
    if curve[0][0] < begin:
        curve = _halves(curve, _crossing(curve, begin))[1]
    return curve


def _meets(curve: Bezier, begin: float, end: float) -> bool:
    return curve[3][0] > begin and curve[0][0] < end


def _crossing(curve: Bezier, u: float) -> float:
    """The t at which `curve` passes u, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if point_at(curve, middle)[0] < u else (low, middle)
    return (low + high) / 2


def _halves(curve: Bezier, t: float) -> tuple[Bezier, Bezier]:
    """`curve` in two, before and behind t (de Casteljau)."""
    a, b, c, d = curve
    ab, bc, cd = _mix(a, b, t), _mix(b, c, t), _mix(c, d, t)
    abc, bcd = _mix(ab, bc, t), _mix(bc, cd, t)
    middle = _mix(abc, bcd, t)
    return (a, ab, abc, middle), (middle, bcd, cd, d)


def _mix(p: Point, q: Point, t: float) -> Point:
    return (p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]))
