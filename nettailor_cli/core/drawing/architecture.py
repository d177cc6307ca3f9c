"""A model's architecture like the figures of the NetTailor paper, laid out: nodes in a row, blocks between neighbours.

    stem (0) =[block 1]= (1) =[block 2]= (2) ... (L) classifier        proxies: arcs above, from source to sink

Opacity is alpha. Deep backbones take several rows: windows onto one long row, which overlap a little, so that an arc
that crosses the edge of a row goes on in the next one at the same height.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.drawing.arcs import Bezier, arc, between, height, highest, point_at
from nettailor_cli.core.drawing.legend import legend
from nettailor_cli.core.drawing.scene import Box, Curve, Disc, Paint, Point, Scene, Shape, Text, clipped, text_width
from nettailor_cli.core.drawing.style import BLOCK, CLASSIFIER, GREY_LINE, INK, LINK, MARGIN, REMOVED, proxy_paint
from nettailor_cli.core.graph import Graph, Path
from nettailor_cli.core.printable import harmless

BLOCKS_PER_ROW = 18
NARROWEST = 640.0
"""Pixels, for the title's sake."""
END = 82.0
"""Room for the stem and the classifier beside the nodes."""
RADIUS, HALF = 9.0, 11.0
"""Of a node, and half the height of a block."""
TITLE, SMALL, TINY = 15.0, 11.0, 10.0
SHOWN_ALPHA = 0.05
"""Arcs fainter than this carry no number."""


@dataclass(frozen=True)
class _Row:
    """The window onto nodes first..last. left: where node `first` is; base: the nodes' height; pitch: their distance.

    continues: whether the network goes on before and behind the window.
    """

    first: int
    last: int
    left: float
    pitch: float
    base: float
    continues: tuple[bool, bool]

    def place(self, point: Point) -> Point:
        """(nodes, pixels above) -> pixels."""
        return (self.left + (point[0] - self.first) * self.pitch, self.base - 0.8 * RADIUS - point[1])

    def x(self, node: float) -> float:
        return self.place((node, 0))[0]

    @property
    def window(self) -> tuple[float, float]:
        """The stretch of nodes that is seen, a little more where the network goes on."""
        before, behind = self.continues
        return self.first - 0.4 * before, self.last + 0.4 * behind

    def curve(self, whole: Bezier) -> Bezier | None:
        """What is seen of `whole` in this row, in pixels."""
        part = between(whole, *self.window)
        if part is None:
            return None
        a, b, c, d = part
        return self.place(a), self.place(b), self.place(c), self.place(d)


def architecture(document: ModelDocument) -> Scene:
    """The picture of a teacher's, student's or model's graph. Equal documents give equal scenes."""
    graph = document.graph
    arcs = _arcs(graph)
    rows = _rows(graph, arcs)
    width = max(NARROWEST, rows[0].x(rows[0].last) + END + MARGIN)
    heading = _heading(document, width)
    elements: list[Shape | Text] = [*heading]
    for path, whole in arcs:
        pieces = tuple(piece for row in rows if (piece := row.curve(whole)))
        elements.append(
            Shape(Curve(pieces), proxy_paint(path.sink - path.source), "proxy", path.name, _tip(path), path.alpha)
        )
    for row in rows:
        elements += [*_ends(row), *_blocks(graph, row), *_nodes(graph, row)]
    elements += _numbers(arcs, rows)
    key, bottom = legend(graph, top=rows[-1].base + HALF + 18, width=width)
    return Scene(
        width,
        math.ceil(bottom + MARGIN),
        title="; ".join(text.text for text in heading),
        description=f"Backbone fingerprint: {document.fingerprint}. Classes: {', '.join(document.classes)}.",
        elements=(*elements, *key),
    )


def _arcs(graph: Graph) -> list[tuple[Path, Bezier]]:
    """The proxies with their curves, the widest first: the short ones lie on top."""
    proxies = sorted(graph.proxies, key=lambda path: (path.source - path.sink, path.sink))
    widest = max((path.sink - path.source for path in proxies), default=1)
    return [(p, arc(p.source, p.sink, height(p.sink - p.source, widest))) for p in proxies]


def _rows(graph: Graph, arcs: list[tuple[Path, Bezier]]) -> list[_Row]:
    blocks = math.ceil(graph.last / math.ceil(graph.last / BLOCKS_PER_ROW))
    pitch = min(84.0, max(58.0, 640.0 / blocks))
    rows: list[_Row] = []
    base = MARGIN + 2 * TITLE + 10
    for first in range(0, graph.last, blocks):
        last = min(first + blocks, graph.last)
        row = _Row(first, last, MARGIN + END, pitch, 0.0, (first > 0, last < graph.last))
        base += max([HALF, *(highest(whole, *row.window) for _, whole in arcs)]) + RADIUS + 12
        rows.append(_Row(first, last, row.left, pitch, base, row.continues))
        base += HALF + 22
    return rows


def _heading(document: ModelDocument, width: float) -> tuple[Text, Text]:
    graph = document.graph
    cost, whole = graph.cost, graph.backbone
    name = harmless(document.data.get("name", ""))
    what = f"{name}, {len(document.classes)} classes" if name else f"{len(document.classes)} classes"
    counts = f"{len(graph.universal)} of {graph.last} blocks, {len(graph.proxies)} proxies"
    macs, parameters = 100 * cost.macs / max(1, whole.macs), 100 * cost.parameters / max(1, whole.parameters)
    shares = f"{macs:.1f} % of the backbone's MACs, {parameters:.1f} % of its parameters"
    room = width - 2 * MARGIN
    bold = 1.15 * TITLE  # as wide as letters of this size that are not bold
    first = clipped(f"{harmless(document.backbone)} for {what} ({document.stage})", bold, room)
    return (
        Text(MARGIN, MARGIN + TITLE / 2, first, TITLE, INK, bold=True),
        Text(MARGIN, MARGIN + 1.9 * TITLE, clipped(f"{counts}; {shares}", SMALL, room), SMALL, INK),
    )


def _ends(row: _Row) -> Iterator[Shape | Text]:
    """Stem and classifier before node 0 and behind node L; a dashed line where the network goes on in another row."""
    before, behind = row.continues
    for goes_on, node, side, label, paint in (
        (before, row.first, -1, "stem", BLOCK),
        (behind, row.last, 1, "classifier", CLASSIFIER),
    ):
        near, far = (row.x(node) + side * distance for distance in (RADIUS, RADIUS + 12))
        line = Curve((((near, row.base), (far, row.base)),))
        yield Shape(line, GREY_LINE if goes_on else LINK, "link")
        if not goes_on:
            width = END - RADIUS - 12
            left = min(far, far + side * width)
            yield Shape(Box(left, row.base - HALF, width, 2 * HALF, 4), paint, label)
            yield Text(left + width / 2, row.base, label, TINY, INK, anchor="middle")


def _blocks(graph: Graph, row: _Row) -> Iterator[Shape | Text]:
    """The universal blocks between a row's nodes: grey as alpha where they are kept, dashed outlines where not."""
    kept = {path.sink: path for path in graph.universal}
    for node in range(row.first + 1, row.last + 1):
        begin, end = row.x(node - 1) + RADIUS, row.x(node) - RADIUS
        left, right = begin + 4, end - 7
        box = Box(left, row.base - HALF, right - left, 2 * HALF, 4)
        path = kept.get(node)
        if path is None:
            yield Shape(box, REMOVED, "removed", tip=f"universal {node}: removed")
            continue
        y = row.base
        barbs = ((end - 4, y - 3.5), (end, y)), ((end - 4, y + 3.5), (end, y))
        yield Shape(Curve((((begin, y), (left, y)), ((right, y), (end, y)), *barbs)), LINK, "link")
        yield Shape(box, BLOCK, "universal", path.name, _tip(path), path.alpha)
        yield Shape(box, Paint(stroke=INK, width=0.8), "outline")
        yield Text((left + right) / 2, y, f"{path.alpha:.2f}", TINY, INK, anchor="middle")


def _nodes(graph: Graph, row: _Row) -> Iterator[Shape | Text]:
    fed = {0, *graph.nodes}
    for node in range(row.first, row.last + 1):
        disc = Disc(row.x(node), row.base, RADIUS)
        if node in fed:
            yield Shape(disc, Paint(fill="#ffffff", stroke=INK, width=1.2), "node")
        else:
            yield Shape(disc, REMOVED, "gone", tip=f"node {node}: gone")
        yield Text(row.x(node), row.base, str(node), TINY, INK if node in fed else REMOVED.stroke, anchor="middle")


def _numbers(arcs: list[tuple[Path, Bezier]], rows: list[_Row]) -> Iterator[Text]:
    """The proxies' alphas on their arcs, the strongest first; one that finds no free place is left out."""
    taken: list[Point] = []
    width, tall = text_width("0.00", TINY) + 3, TINY + 2
    for path, whole in sorted(arcs, key=lambda pair: -pair[0].alpha):
        if path.alpha < SHOWN_ALPHA:
            break
        for t in (0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74):
            u, v = point_at(whole, t)
            row = next(row for row in rows if u <= row.last)
            x, y = row.place((u, v))
            if all(abs(x - other) >= width or abs(y - level) >= tall for other, level in taken):
                taken.append((x, y))
                colour = proxy_paint(path.sink - path.source).stroke
                yield Text(x, y, f"{path.alpha:.2f}", TINY, colour, anchor="middle", halo=True)
                break


def _tip(path: Path) -> str:
    own = f" ({path.own.parameters:,} of them the task's own)" if path.own.parameters else ""
    return f"{path.name}: alpha {path.alpha:.3f}, {path.cost.parameters:,} parameters{own}, {path.cost.macs:,} MACs"
