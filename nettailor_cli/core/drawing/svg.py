"""A scene as SVG, written directly: it is a small text format, and `inspect --svg` should start at once.

A shape that stands for something in the model has its kind as class, its name as id and a <title> that viewers show.
"""

from __future__ import annotations

from nettailor_cli.core.drawing.scene import Box, Curve, Disc, Scene, Shape, Text
from nettailor_cli.core.printable import harmless

FONTS = "DejaVu Sans, Verdana, Helvetica, Arial, sans-serif"
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&apos;"}
_BASELINE = 0.36
"""From a text's middle down to its baseline, in heights: `dominant-baseline` is not known to every viewer."""


def to_svg(scene: Scene) -> str:
    """The scene as an SVG document. Equal scenes give equal texts."""
    size = f'width="{_number(scene.width)}" height="{_number(scene.height)}"'
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} '
        f'viewBox="0 0 {_number(scene.width)} {_number(scene.height)}" font-family="{FONTS}" role="img">',
        f"<title>{_escape(scene.title)}</title>",
        f"<desc>{_escape(scene.description)}</desc>",
        f'<rect class="background" {size} fill="#ffffff"/>',
        *(_text(element) if isinstance(element, Text) else _shape(element) for element in scene.elements),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _shape(shape: Shape) -> str:
    tag, where = _form(shape.form)
    paint = shape.paint
    attributes = [f'class="{_escape(shape.kind)}"']
    if shape.name:
        attributes.append(f'id="{_escape(shape.name.replace(" ", "-"))}"')
    attributes += [where, f'fill="{paint.fill or "none"}"']
    if paint.stroke:
        attributes.append(f'stroke="{paint.stroke}" stroke-width="{_number(paint.width)}"')
        if paint.dashed:
            attributes.append('stroke-dasharray="3 3"')
    if shape.opacity < 1:
        attributes.append(f'opacity="{_number(shape.opacity, 4)}"')
    start = f"<{tag} {' '.join(attributes)}"
    return f"{start}><title>{_escape(shape.tip)}</title></{tag}>" if shape.tip else f"{start}/>"


def _form(form: Box | Disc | Curve) -> tuple[str, str]:
    """The element's name and its geometry."""
    match form:
        case Box(x, y, width, height, radius):
            corner = f' rx="{_number(radius)}"' if radius else ""
            size = f'width="{_number(width)}" height="{_number(height)}"'
            return "rect", f'x="{_number(x)}" y="{_number(y)}" {size}{corner}'
        case Disc(x, y, radius):
            return "circle", f'cx="{_number(x)}" cy="{_number(y)}" r="{_number(radius)}"'
        case Curve(pieces):
            return "path", f'd="{" ".join(_piece(piece) for piece in pieces)}"'


def _piece(points: tuple[tuple[float, float], ...]) -> str:
    first, *rest = (f"{_number(x)} {_number(y)}" for x, y in points)
    return f"M{first} {'C' if len(rest) == 3 else 'L'}{' '.join(rest)}"


def _text(text: Text) -> str:
    attributes = [
        f'x="{_number(text.x)}" y="{_number(text.y + _BASELINE * text.size)}"',
        f'font-size="{_number(text.size)}" fill="{text.colour}"',
    ]
    if text.anchor != "start":
        attributes.append(f'text-anchor="{text.anchor}"')
    if text.bold:
        attributes.append('font-weight="bold"')
    if text.halo:
        attributes.append('stroke="#ffffff" stroke-width="5" stroke-linejoin="round" paint-order="stroke"')
    return f"<text {' '.join(attributes)}>{_escape(text.text)}</text>"


def _number(value: float, decimals: int = 2) -> str:
    """Without decimals that say nothing."""
    text = f"{value:.{decimals}f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _escape(text: str) -> str:
    return "".join(_ENTITIES.get(c, c) for c in harmless(text))
