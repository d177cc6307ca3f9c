"""matplotlib as an option, set up so that equal inputs give equal bytes wherever the same version of it runs.

No pyplot: figures of our own, which no user's settings and no window system can change.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nettailor_cli.core.drawing.forms import PNG, SVG
from nettailor_cli.core.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PIXELS_PER_INCH = 100
"""A picture's size is given in pixels of this size; a PNG has `SHARPNESS` times as many each way."""
SHARPNESS = 2

_SETTINGS = {
    "svg.hashsalt": "nettailor",  # else the names of its parts are drawn by lot
    "svg.fonttype": "none",  # texts stay texts
    "text.parse_math": False,  # a name with two dollars in it is no formula
}
_METADATA = {SVG: {"Date": None, "Creator": None}, PNG: {"Software": None}}


def check_plotting() -> None:
    """Raises UsageError when matplotlib is not installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        message = "matplotlib is not installed, and this picture needs it"
        raise UsageError(message, "pip install 'nettailor[plot]'") from error


@contextlib.contextmanager
def figure(width: float, height: float) -> Iterator[Figure]:
    """An empty figure of so many pixels, to be drawn and saved inside. Raises UsageError without matplotlib."""
    check_plotting()
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context(["default", _SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # shown as a box: no reason to speak up
        drawn = Figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH)
        FigureCanvasAgg(drawn)
        yield drawn


def saved(figure: Figure, form: str) -> bytes:
    """The file of `figure` in one of `FORMATS`."""
    stream = io.BytesIO()
    figure.savefig(stream, format=form, dpi=SHARPNESS * PIXELS_PER_INCH, metadata=_METADATA[form])
    return stream.getvalue()
