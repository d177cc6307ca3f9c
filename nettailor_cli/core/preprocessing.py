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

    `size` and the derived `resize` are in pixels; `mean` and `std` are per channel (RGB) on the [0, 1] scale; `ratio`
    is that of `resize` to `size`.
    """

    size: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"
    ratio: tuple[int, int] = (256, 224)

    @property
    def resize(self) -> int:
        """Short side before the crop: 256 for 224 unless `ratio` says otherwise, and the same ratio at other sizes."""
        return round(self.size * self.ratio[0] / self.ratio[1])

    def to_json(self) -> dict[str, Any]:
        """The usual ratio is left out: such documents are as they were when there was no other."""
        document = {**asdict(self), "mean": list(self.mean), "std": list(self.std), "resize": self.resize}
        own = document.pop("ratio")
        return document if own == Preprocessing.ratio else {**document, "ratio": list(own)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Preprocessing:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        mean, std = (_three(document[key], key) for key in ("mean", "std"))
        if not all(value >= LEAST_STD for value in std):
            raise ValueError(f"std must be at least {LEAST_STD:g}")
        size = document["size"]
        if type(size) is not int or not 8 <= size <= MOST_PIXELS:
            raise ValueError(f"size {size!r} is not a whole number between 8 and {MOST_PIXELS}")
        resize, crop = document.get("ratio", cls.ratio)
        if type(resize) is not int or type(crop) is not int or not 0 < crop <= resize <= 4 * crop:
            raise ValueError(f"ratio {resize!r} to {crop!r} is not between 1 and 4")
        return cls(size, mean, std, text(document["interpolation"], "interpolation"), (resize, crop))


def _three(values: Any, what: str) -> tuple[float, float, float]:
    if not isinstance(values, list) or not all(type(v) in (int, float) and abs(v) <= LARGEST_MEAN for v in values):
        raise ValueError(f"{what} must be numbers up to {LARGEST_MEAN:g}")
    red, green, blue = map(float, values)
    return red, green, blue
