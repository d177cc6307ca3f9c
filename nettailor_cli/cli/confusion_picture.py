"""A confusion matrix as a picture. matplotlib is loaded here and nowhere else; no window is ever opened.

A row's colours are shares of that row, so that a class with few images is seen as well as one with many.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from nettailor_cli.core.confusion import Confusion
from nettailor_cli.core.printable import harmless

_NUMBERED = 25
"""Up to so many classes every cell has its number."""

_NAMED = 100
"""Up to so many classes rows and columns have their names."""

_LETTERS = 30
"""Of a name that is longer the end is cut off."""


def draw(confusion: Confusion) -> Figure:
    """Rows are the true classes, columns what they were taken for."""
    counts, size = confusion.counts, len(confusion.classes)
    images = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, images, out=np.zeros(counts.shape), where=images > 0)  # (C, C), range [0, 1]
    names = [_short(harmless(name)) for name in confusion.classes] if size <= _NAMED else []
    inches = max(3.0, 0.3 * size) + 0.08 * max(map(len, names)) if names else 10.0
    figure = Figure(figsize=(inches + 1, inches), layout="constrained", dpi=120)
    axes = figure.add_subplot()
    drawn = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(drawn, label="share of the true class")
    axes.set_xlabel("taken for")
    axes.set_ylabel("true class")
    # parse_math: a $ in a class name is a dollar
    axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), names, parse_math=False)
    if size <= _NUMBERED:
        for i, j in np.argwhere(counts):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
    return figure


def save(figure: Figure, path: Path, form: str) -> None:
    """Write `figure` as `form` ("png", "svg"): the same figure gives the same bytes."""
    # letters that the font lacks are drawn as boxes, and a first use builds an index of fonts: neither is worth a word
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    undated = {"Date": None} if form == "svg" else {}
    with warnings.catch_warnings(), matplotlib.rc_context({"svg.hashsalt": "nettailor"}):
        warnings.simplefilter("ignore")
        figure.savefig(path, format=form, metadata=undated)


def _short(name: str) -> str:
    return name if len(name) <= _LETTERS else name[: _LETTERS - 3] + "..."
