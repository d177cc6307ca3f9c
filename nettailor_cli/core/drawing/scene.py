"""A picture as plain data: shapes in pixels, x to the right, y down, in the order of drawing, for svg.py and png.py."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass

Point = tuple[float, float]


@dataclass(frozen=True)
class Paint:
    """How a shape looks. Colours are "#rrggbb" or empty for none; `width` is the stroke's, in pixels."""

    fill: str = ""
    stroke: str = ""
    width: float = 1.0
    dashed: bool = False


@dataclass(frozen=True)
class Box:
    """A rectangle with its upper left corner at (x, y) and corners rounded by `radius`."""

    x: float
    y: float
    width: float
    height: float
    radius: float = 0.0


@dataclass(frozen=True)
class Disc:
    """A circle around (x, y)."""

    x: float
    y: float
    radius: float


@dataclass(frozen=True)
class Curve:
    """Pieces that need not touch: two points are a straight line, four a cubic Bézier curve."""

    pieces: tuple[tuple[Point, ...], ...]


@dataclass(frozen=True)
class Shape:
    """One element of the picture.

    kind: what it stands for ("universal", "proxy", "node", ...). name: unique, for what stands for one thing of the
    model, else empty. tip: what a viewer shows when one points at it. opacity: in [0, 1].
    """

    form: Box | Disc | Curve
    paint: Paint
    kind: str
    name: str = ""
    tip: str = ""
    opacity: float = 1.0


@dataclass(frozen=True)
class Text:
    """One line, `size` pixels high, its middle at height y. anchor: what x is, "start", "middle" or "end".

    halo: with a white rim, to be read across lines.
    """

    x: float
    y: float
    text: str
    size: float
    colour: str
    anchor: str = "start"
    bold: bool = False
    halo: bool = False


@dataclass(frozen=True)
class Scene:
    """The whole picture, `width` x `height` pixels. title, description: for those who can't see it and for searches."""

    width: float
    height: float
    title: str
    description: str
    elements: tuple[Shape | Text, ...]


_EMS = ((" .,:;'!|ijl", 0.32), ("frtI()[]-", 0.39), ("mwMW%@…", 0.95))
"""Widths of letters in DejaVu Sans that are far from the rest's, in heights."""


def text_width(text: str, size: float) -> float:
    """About how wide `text` comes out, in pixels: layouts have to work without a font at hand."""
    return size * sum(_ems(letter) for letter in text)


def _ems(letter: str) -> float:
    for letters, ems in _EMS:
        if letter in letters:
            return ems
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    return 0.7 if letter.isupper() else 0.62


def clipped(text: str, size: float, width: float) -> str:
    """`text`, cut off with an ellipsis where it would be wider than `width` pixels."""
    if text_width(text, size) <= width:
        return text
    while text and text_width(text + "…", size) > width:
        text = text[:-1]
    return text.rstrip() + "…"
