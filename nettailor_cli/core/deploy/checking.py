"""Whether an exported file computes what the model computes: both run on the same pictures.

N pictures of S x S pixels, K classes.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from nettailor_cli.core.data import BadImage, central_crop, find_images, read_square
from nettailor_cli.core.deploy.standalone import PROBABILITIES, Array, Runner
from nettailor_cli.core.errors import DataError, RunFailed
from nettailor_cli.core.models import Model
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress

PICTURES = 32
"""How many are compared, at most."""

LIMITS = {"fp32": 1e-4, "fp16": 1e-2}
"""The largest difference that is taken for rounding, in probabilities and in logits relative to the largest one."""

_BATCHES = (1, 7)
"""Pictures at a time, in turn: a file has to bear batches of different sizes."""


@dataclass(frozen=True)
class Difference:
    """The largest differences between two networks on the same pictures.

    probabilities: absolute. logits: relative to the largest logit of the original, whatever its sign.
    same_class: on how many of `images` pictures the best class is the same. NaN, or another shape, makes both infinite.
    """

    probabilities: float
    logits: float
    same_class: int
    images: int

    @property
    def largest(self) -> float:
        return max(self.probabilities, self.logits)


def pictures_for(preprocessing: Preprocessing, data: Path | None, progress: Progress) -> tuple[Array, str]:
    """Up to PICTURES squares, uint8 (N, resize, resize, 3), and what they are; drawn ones where there is no `data`.

    From the folder `data`, as many pictures as are wanted at equal distances, whatever class or split they are in.
    Raises DataError when there are none that can be read.
    """
    side = preprocessing.resize
    if data is None:
        return _drawn(side), f"{PICTURES} drawn pictures"
    paths = find_images([data])
    chosen = sorted({round(place) for place in np.linspace(0, len(paths) - 1, PICTURES)})
    squares = []
    for index in chosen:
        try:
            squares.append(read_square(paths[index], side))
        except BadImage as error:
            progress.warn(error.message)
    if not squares:
        raise DataError(f"none of the pictures in {data} can be read")
    return np.stack(squares), f"{len(squares)} pictures of {data}"


def _drawn(side: int) -> Array:
    """Soft patches of colour from coarse to fine, with grain: the same ones each time."""
    rng = np.random.default_rng(0)
    pictures = []
    for index in range(PICTURES):
        cells = 2 + index
        patches = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        smooth = np.asarray(patches.resize((side, side), Image.Resampling.BICUBIC), np.float64)
        grain = rng.normal(0, 2.0 * index, (side, side, 3))
        pictures.append(np.clip(np.rint(smooth + grain), 0, 255).astype(np.uint8))
    return np.stack(pictures)


def compare(model: Model, squares: Array, run: Runner, output: str) -> Difference:
    """`model` and the exported file, as `run` runs it, on `squares` (N, resize, resize, 3).

    `output`: what the file gives, "probabilities" or "logits". Raises RunFailed when the model's logits are not finite.
    """
    preprocessing = model.document.preprocessing
    mean, std = (torch.tensor(v)[:, None, None] for v in (preprocessing.mean, preprocessing.std))
    start = (preprocessing.resize - preprocessing.size) // 2
    cropped = squares[:, start : start + preprocessing.size, start : start + preprocessing.size]
    expected, given, logits = [], [], []
    place = 0
    for count in itertools.cycle(_BATCHES):
        rows = slice(place, place + count)
        unit = central_crop(torch.from_numpy(squares[rows]).permute(0, 3, 1, 2), preprocessing.size)
        with torch.inference_mode():
            expected.append(model.logits((unit - mean) / std).numpy())
        theirs, raw = run(np.ascontiguousarray(cropped[rows]))
        given.append(theirs)
        logits.append(raw)
        place = rows.stop
        if place >= len(squares):
            break
    ours = np.concatenate(expected)
    if not np.isfinite(ours).all():
        raise RunFailed("the model's own outputs are not finite", "nothing was exported")
    return difference(ours, np.concatenate(given), np.concatenate(logits), output)


def difference(expected: Array, given: Array, logits: Array, output: str) -> Difference:
    """The original's logits `expected` (N, K) against what the other network gives as `output`, and its logits."""
    if not expected.shape == given.shape == logits.shape or not np.isfinite([given, logits]).all():
        return Difference(math.inf, math.inf, 0, len(expected))
    expected, logits = expected.astype(np.float64), logits.astype(np.float64)
    probabilities = given if output == PROBABILITIES else _softmax(given.astype(np.float64))
    distance = float(np.abs(expected - logits).max())
    return Difference(
        probabilities=float(np.abs(_softmax(expected) - probabilities).max()),
        logits=distance / float(np.abs(expected).max()) if distance else 0.0,
        same_class=int((expected.argmax(axis=1) == given.argmax(axis=1)).sum()),
        images=len(expected),
    )


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
