"""A model's architecture as a file."""

from __future__ import annotations

from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.drawing.architecture import architecture
from nettailor_cli.core.drawing.forms import PNG


def draw_architecture(document: ModelDocument, form: str) -> bytes:
    """The architecture of a model as a file in `form`, "svg" or "png". Equal documents give equal bytes.

    Raises UsageError when it is to be a PNG and matplotlib is not installed; SVG needs nothing.
    """
    scene = architecture(document)
    if form == PNG:
        from nettailor_cli.core.drawing.png import to_png

        return to_png(scene)
    from nettailor_cli.core.drawing.svg import to_svg

    return to_svg(scene).encode()
