"""Colours and lines of the architecture's picture, for the picture and for its legend."""

from __future__ import annotations

import math

from nettailor_cli.core.drawing.scene import Paint

MARGIN = 16.0
INK = "#222222"
BLOCK = Paint(fill="#9a9a9a")
CLASSIFIER = Paint(fill="#9fcbe8")
REMOVED = Paint(fill="#ffffff", stroke="#b0b0b0", dashed=True)
LINK = Paint(stroke=INK, width=1.2)
GREY_LINE = Paint(stroke="#b0b0b0", width=1.2, dashed=True)

SPANS: tuple[tuple[float, str, str], ...] = (
    (1, "#0072b2", "1 node"),
    (2, "#c04a00", "2 nodes"),
    (3, "#00805f", "3 nodes"),
    (5, "#a8327e", "4 or 5 nodes"),
    (12, "#7a5c00", "6 to 12 nodes"),
    (math.inf, "#5b3fa0", "more than 12 nodes"),
)
"""Proxies by their reach: up to so many nodes, a colour (also for the colour-blind), the legend's word."""


def proxy_paint(span: int) -> Paint:
    """The line of a proxy that spans so many nodes."""
    return Paint(stroke=next(colour for reach, colour, _ in SPANS if span <= reach), width=2.2)
