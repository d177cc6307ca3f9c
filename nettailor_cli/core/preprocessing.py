"""How a picture becomes the tensor that a backbone was trained on: stored with it and with every delta made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nettailor_cli.core.validation import MOST_PIXELS, text

LEAST_STD, LARGEST_MEAN = 1e-6, 1e6
"""On the [0, 1] scale, with much to spare: what is beyond makes infinities of pixels."""

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Scale to [0, 1], resize the short side to `resize`, crop the middle `size`, subtract `mean`, divide by `std`.

    `size` and the derived `resize` are in pixels; `mean` and `std` are per channel (RGB) on the [0, 1] scale.
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    @property
    def resize(self) -> int:
        """Short side before the crop: 256 for 224, and the same ratio at every other size."""
        return round(self.size * 256 / 224)

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std), "resize": self.resize}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        mean, std = (_three(document[key], key) for key in ("mean", "std"))
        if not all(value >= LEAST_STD for value in std):
            raise ValueError(f"std must be at least {LEAST_STD:g}")
        size = document["size"]
        if type(size) is not int or not 8 <= size <= MOST_PIXELS:
            raise ValueError(f"size {size!r} is not a whole number between 8 and {MOST_PIXELS}")
        return cls(size=size, mean=mean, std=std, interpolation=text(document["interpolation"], "interpolation"))


def _three(values: Any, what: str) -> tuple[float, float, float]:
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) <= LARGEST_MEAN for v in values):
        raise ValueError(f"{what} must be numbers up to {LARGEST_MEAN:g}")
    red, green, blue = map(float, values)
    return red, green, blue
