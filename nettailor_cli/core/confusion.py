"""Which classes a model takes for which: the confusion matrix and what follows from it, class by class.

Legend: C classes, N images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Counts = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class ClassScore:
    """How one class fared. `accuracy` and `precision` are in percent, None where they would be 0 of 0.

    images: of this class; right: of them, taken for it; predicted: images of whatever class that were taken for it.
    accuracy = right / images (others call it recall); precision = right / predicted.
    """

    name: str
    images: int
    right: int
    predicted: int

    @property
    def accuracy(self) -> float | None:
        return 100 * self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        return 100 * self.right / self.predicted if self.predicted else None


@dataclass(frozen=True)
class Confused:
    """`count` images of class `true` were taken for class `predicted`, which is another."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Confusion:
    """counts[i, j]: how many images of class i were taken for class j; shape (C, C), in the order of `classes`."""

    classes: tuple[str, ...]
    counts: Counts

    def per_class(self) -> list[ClassScore]:
        """One score per class, in the order of `classes`."""
        rows = zip(self.classes, self.counts.sum(1), self.counts.diagonal(), self.counts.sum(0), strict=True)
        return [ClassScore(name, int(images), int(right), int(predicted)) for name, images, right, predicted in rows]

    def most_confused(self, limit: int) -> list[Confused]:
        """At most `limit` pairs of a true and a wrongly predicted class, the most frequent first, then by order."""
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:limit]
        pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
        return [Confused(self.classes[i], self.classes[j], int(wrong[i, j])) for i, j in pairs if wrong[i, j]]


def confusion_of(labels: Counts, predicted: Counts, classes: Sequence[str]) -> Confusion:
    """The confusion of N images: `labels` and `predicted` have shape (N,), values in [0, C)."""
    size = len(classes)
    counts = np.bincount(labels * size + predicted, minlength=size * size).reshape(size, size)
    return Confusion(tuple(classes), counts)
