"""A scene as PNG, drawn by matplotlib: the same shapes in the same places as in the SVG."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nettailor_cli.core.drawing.forms import PNG
from nettailor_cli.core.drawing.plotting import PIXELS_PER_INCH, figure, saved
from nettailor_cli.core.drawing.scene import Box, Curve, Disc, Scene, Shape, Text
from nettailor_cli.core.printable import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_POINTS = 72 / PIXELS_PER_INCH
"""matplotlib measures lines and letters in points."""


def to_png(scene: Scene) -> bytes:
    """The scene as a PNG file. Raises UsageError when matplotlib is not installed."""
    with figure(scene.width, scene.height) as drawn:
        axes = drawn.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set_xlim(0, scene.width)
        axes.set_ylim(scene.height, 0)
        axes.axis("off")
        for order, element in enumerate(scene.elements):
            if isinstance(element, Text):
                _draw_text(axes, element, order)
            else:
                axes.add_patch(_patch(element, order))
        return saved(drawn, PNG)


def _patch(shape: Shape, order: int) -> Patch:
    patch, paint = _form(shape.form), shape.paint
    patch.set(
        facecolor=paint.fill or "none",
        edgecolor=paint.stroke or "none",
        linewidth=paint.width * _POINTS if paint.stroke else 0,
        linestyle=(0, (3 / paint.width, 3 / paint.width)) if paint.dashed else "-",
        alpha=shape.opacity,
        zorder=order,
    )
    return patch


def _form(form: Box | Disc | Curve) -> Patch:
    from matplotlib.patches import Circle, FancyBboxPatch, PathPatch
    from matplotlib.path import Path

    match form:
        case Box(x, y, width, height, radius):
            corners = f"round,pad=0,rounding_size={radius}" if radius else "square,pad=0"
            return FancyBboxPatch((x, y), width, height, boxstyle=corners)
        case Disc(x, y, radius):
            return Circle((x, y), radius)
        case Curve(pieces):
            points = [point for piece in pieces for point in piece]
            following = {2: [Path.LINETO], 4: [Path.CURVE4] * 3}
            codes = [code for piece in pieces for code in (Path.MOVETO, *following[len(piece)])]
            return PathPatch(Path(points, codes), capstyle="butt")


def _draw_text(axes: Axes, text: Text, order: int) -> None:
    from matplotlib.patheffects import withStroke

    axes.text(
        text.x,
        text.y,
        harmless(text.text),
        fontsize=text.size * _POINTS,
        color=text.colour,
        fontweight="bold" if text.bold else "normal",
        horizontalalignment={"start": "left", "middle": "center", "end": "right"}[text.anchor],
        verticalalignment="center_baseline",
        zorder=order,
        path_effects=[withStroke(linewidth=5 * _POINTS, foreground="#ffffff")] if text.halo else None,
    )
