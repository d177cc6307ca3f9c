"""Accuracy against cost: every candidate of a search beside the teacher and the baselines, as a scatter plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from nettailor_cli.core.drawing.forms import FORMATS
from nettailor_cli.core.drawing.labels import Area, Label, find_places
from nettailor_cli.core.drawing.plotting import figure, saved
from nettailor_cli.core.drawing.scene import clipped
from nettailor_cli.core.printable import harmless

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CANDIDATE, CHOSEN, BASELINE = "candidate", "chosen", "baseline"
TEACHER, STUDENT = "teacher", "student"

WIDTH, HEIGHT = 720.0, 480.0
LEGEND = 5
"""So many entries fit into one line of the legend."""
INK, GREY = "#222222", "#8a8a8a"
NAMES = 9.0
"""Points: the size of the names beside the marks."""


@dataclass(frozen=True)
class _Look:
    """How the rows of one kind are drawn, and what the legend calls them. first: whose names get their places first."""

    words: str
    marker: str
    colour: str
    size: float
    first: int


_LOOKS = {
    CANDIDATE: _Look("candidate", "o", "#0072b2", 5.5, 3),
    BASELINE: _Look("baseline", "s", "#707070", 5.5, 1),
    TEACHER: _Look("teacher", "D", "#222222", 6.0, 2),
    STUDENT: _Look("student", "D", "#009e73", 6.0, 2),
    CHOSEN: _Look("chosen", "*", "#d55e00", 14.0, 0),
}
"""Drawn in this order, the chosen one on top."""


@dataclass(frozen=True)
class Row:
    """One network of the table.

    name: what stands beside its point, e.g. "4" for 4 removed blocks. kind: CANDIDATE, CHOSEN, BASELINE, TEACHER or
    STUDENT, the unpruned one. macs: in percent of the backbone's. accuracy: in percent. error: its standard error in
    points, None if unknown. Raises ValueError when the kind is another, a number is not finite or the error negative.
    """

    name: str
    kind: str
    macs: float
    accuracy: float
    error: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in _LOOKS:
            raise ValueError(f"{self.name}: unknown kind {self.kind!r}")
        if not all(math.isfinite(number) for number in (self.macs, self.accuracy, self.error or 0.0)):
            raise ValueError(f"{self.name}: a number that is not finite")
        if self.error is not None and self.error < 0:
            raise ValueError(f"{self.name}: a standard error below 0")


def draw_candidates(
    rows: Sequence[Row],
    form: str,
    *,
    tolerance: float | None = None,
    aims_at: str = TEACHER,
    split: str = "val",
    title: str = "",
) -> bytes:
    """The scatter plot of `rows` as a file in `form`, "svg" or "png". Equal rows give equal bytes.

    tolerance: in points; a line is drawn so far below the teacher, and if `aims_at` is STUDENT, another below a student
    that is better. split: on which the accuracies were measured. Raises UsageError when matplotlib is not installed,
    ValueError when there is nothing to draw.
    """
    if not rows or form not in FORMATS:
        raise ValueError(f"{len(rows)} rows to draw as {form!r}")
    with figure(WIDTH, HEIGHT) as drawn:
        axes = drawn.add_axes((0.095, 0.19, 0.885, 0.73 if title else 0.78))
        _set_up(axes, rows, split, title)
        levels = _draw_tolerance(axes, rows, tolerance, aims_at)
        for layer, (kind, look) in enumerate(_LOOKS.items(), start=3):
            _draw_points(axes, [row for row in rows if row.kind == kind], look, layer)
        handles, _ = axes.get_legend_handles_labels()
        columns = len(handles) if len(handles) <= LEGEND else -(-len(handles) // 2)
        drawn.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=9, handletextpad=0.4)
        _write_names(axes, rows, levels)
        return saved(drawn, form)


def _set_up(axes: Axes, rows: Sequence[Row], split: str, title: str) -> None:
    axes.set_xlabel("MACs, % of the backbone's", fontsize=10)
    bars = " (bars: standard error)" if any(row.error for row in rows) else ""
    axes.set_ylabel(f"accuracy on {harmless(split)}, %{bars}", fontsize=10)
    if title:
        axes.set_title(
            clipped(harmless(title), 17, 0.88 * WIDTH), fontsize=11, fontweight="bold", loc="left", color=INK
        )
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(104.0, 1.06 * max(row.macs for row in rows)))
    low = min(row.accuracy - (row.error or 0) for row in rows)
    high = max(row.accuracy + (row.error or 0) for row in rows)
    room = 0.1 * max(high - low, 1.0)
    axes.set_ylim(low - room, high + room)


def _draw_tolerance(axes: Axes, rows: Sequence[Row], tolerance: float | None, aims_at: str) -> list[float]:
    """The lines below the teacher, and below a better student that is aimed at; returns their accuracies."""
    if tolerance is None:
        return []
    teachers = [row for row in rows if row.kind == TEACHER]
    least = max((row.accuracy for row in teachers), default=0.0)
    better = [row for row in rows if row.kind == STUDENT == aims_at and row.accuracy > least]
    for row, dashes in zip([*teachers, *better], [(5, 3), (1, 2)], strict=False):
        words = f"{row.kind} \N{MINUS SIGN} {tolerance:g} points"
        axes.axhline(row.accuracy - tolerance, color=GREY, linestyle=(0, dashes), linewidth=1, zorder=1, label=words)
    return [row.accuracy - tolerance for row in [*teachers, *better]]


def _draw_points(axes: Axes, rows: Sequence[Row], look: _Look, layer: int) -> None:
    if not rows:
        return
    macs, accuracies = [row.macs for row in rows], [row.accuracy for row in rows]
    measured = [row for row in rows if row.error]
    if measured:
        axes.errorbar(
            [row.macs for row in measured],
            [row.accuracy for row in measured],
            yerr=[row.error or 0.0 for row in measured],
            fmt="none",
            ecolor=look.colour,
            elinewidth=0.9,
            capsize=2.5,
            alpha=0.5,
            zorder=layer,
        )
    axes.plot(
        macs,
        accuracies,
        linestyle="none",
        marker=look.marker,
        markersize=look.size,
        color=look.colour,
        markeredgecolor="#ffffff",
        markeredgewidth=0.6,
        label=look.words,
        zorder=layer,
    )


def _write_names(axes: Axes, rows: Sequence[Row], levels: Sequence[float]) -> None:
    """The names beside their points, the most needed and the long ones first. The axes' limits have to be settled."""
    rows = sorted(rows, key=lambda row: _LOOKS[row.kind].first)
    names = [clipped(harmless(row.name), 12, 0.3 * WIDTH) for row in rows]
    places = find_places(
        [_label(axes, name, row) for name, row in zip(names, rows, strict=True)],
        _lines(axes, rows, levels),
        Area(axes.bbox.x0, axes.bbox.y0, axes.bbox.x1, axes.bbox.y1),
    )
    points_per_pixel = 72 / axes.figure.dpi
    for name, row, place in zip(names, rows, places, strict=True):
        if place is None:
            continue
        colour = _LOOKS[row.kind].colour
        at = axes.transData.transform((row.macs, row.accuracy))
        dx, dy = (points_per_pixel * (place.area.middle - at)).tolist()
        axes.annotate(
            name,
            (row.macs, row.accuracy),
            (dx, dy),
            textcoords="offset points",
            fontsize=NAMES,
            color=colour,
            horizontalalignment="center",
            verticalalignment="center",
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkB": 3} if place.far else None,
            zorder=8,
        )


def _label(axes: Axes, name: str, row: Row) -> Label:
    """What `name` needs for a place, measured by writing it once."""
    text = axes.text(row.macs, row.accuracy, name, fontsize=NAMES)
    extent = text.get_window_extent()
    text.remove()
    x, y = axes.transData.transform((row.macs, row.accuracy)).tolist()
    return Label(x, y, 0.7 * _LOOKS[row.kind].size, extent.width, extent.height)


def _lines(axes: Axes, rows: Sequence[Row], levels: Sequence[float]) -> list[Area]:
    """The pixels of the error bars and the tolerance's lines, with a little room beside them."""
    found: list[Area] = []
    for row in rows:
        if row.error:
            ends = [(row.macs, row.accuracy - row.error), (row.macs, row.accuracy + row.error)]
            (x, low), (_, high) = axes.transData.transform(ends).tolist()
            found.append(Area(x - 3, low, x + 3, high))
    for level in levels:
        _, y = axes.transData.transform((0, level)).tolist()
        found.append(Area(0, y - 1, WIDTH, y + 1))
    return found
