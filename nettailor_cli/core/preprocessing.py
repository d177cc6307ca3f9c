"""How a picture becomes the tensor that a backbone was trained on: stored with it and with every delta made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    def from_json(cls, document: dict[str, Any]) -> Preprocessing:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        mean, std = (tuple(float(v) for v in document[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not all(v > 0 for v in std):
            raise ValueError("mean and std must be three numbers each, std above zero")
        size = int(document["size"])
        if not 8 <= size <= 4096:
            raise ValueError(f"size {size} is not between 8 and 4096")
        return cls(size=size, mean=mean, std=std, interpolation=str(document["interpolation"]))
