"""What the architecture's picture means, below it: only what occurs in it."""

from __future__ import annotations

from collections.abc import Iterator

from nettailor_cli.core.drawing.scene import Box, Curve, Disc, Paint, Shape, Text, text_width
from nettailor_cli.core.drawing.style import BLOCK, CLASSIFIER, INK, MARGIN, REMOVED, SPANS, proxy_paint
from nettailor_cli.core.graph import Graph

SIZE, LINE, SAMPLE = 10.0, 20.0, 26.0
"""Of the letters, of a line, and the width of a sample, in pixels."""


def legend(graph: Graph, *, top: float, width: float) -> tuple[tuple[Shape | Text, ...], float]:
    """The legend of `graph`'s picture from `top` on, as wide as `width` allows, and where it ends."""
    elements: list[Shape | Text] = []
    x, y = MARGIN, top + LINE / 2
    for kind, paint, words, opacities in _entries(graph):
        needed = len(opacities) * (SAMPLE + 2) + 4 + text_width(words, SIZE)
        if x > MARGIN and x + needed > width - MARGIN:
            x, y = MARGIN, y + LINE
        for opacity in opacities:
            elements.append(Shape(_sample(kind, x, y), paint, "legend", opacity=opacity))
            x += SAMPLE + 2
        elements.append(Text(x + 4, y, words, SIZE, INK))
        x += 4 + text_width(words, SIZE) + 14
    return tuple(elements), y + LINE / 2


def _entries(graph: Graph) -> Iterator[tuple[str, Paint, str, tuple[float, ...]]]:
    """Kind of sample, paint, words, and the opacities to show."""
    yield "box", BLOCK, "universal block", (1.0,)
    if len(graph.universal) < graph.last:
        yield "box", REMOVED, "removed", (1.0,)
    if len(graph.nodes) < graph.last:
        yield "disc", REMOVED, "node that is gone", (1.0,)
    yield "box", CLASSIFIER, "the task's own", (1.0,)
    low, before = 0.0, "proxy from "
    for reach, _, words in SPANS:
        found = [span for path in graph.proxies if low < (span := path.sink - path.source) <= reach]
        if found:
            yield "line", proxy_paint(found[0]), f"{before}{words} back", (1.0,)
            before = ""
        low = reach
    yield "box", BLOCK, "opacity and numbers: alpha (here 0.1, 0.5, 1)", (0.1, 0.5, 1.0)


def _sample(kind: str, x: float, y: float) -> Box | Disc | Curve:
    match kind:
        case "box":
            return Box(x, y - 6, SAMPLE, 12, 3)
        case "disc":
            return Disc(x + SAMPLE / 2, y, 6)
        case _:
            return Curve((((x, y), (x + SAMPLE, y)),))
