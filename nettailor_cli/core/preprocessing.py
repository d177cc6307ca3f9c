"""How a picture becomes the tensor that a backbone was trained on: stored with it and with every delta made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

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
    def from_json(cls, document: dict[str, Any]) -> Preprocessing:
        """Raises KeyError, TypeError or ValueError when the document is not one that `to_json` wrote."""
        mean, std = (tuple(float(v) for v in document[key]) for key in ("mean", "std"))
        if len(mean) != 3 or len(std) != 3 or not all(v > 0 for v in std):
            raise ValueError("mean and std must be three numbers each, std above zero")
        size = int(document["size"])
        if not 8 <= size <= 4096:
            raise ValueError(f"size {size} is not between 8 and 4096")
        resize, crop = document.get("ratio", cls.ratio)
        if type(resize) is not int or type(crop) is not int or not 0 < crop <= resize <= 4 * crop:
            raise ValueError(f"ratio {resize!r} to {crop!r} is not between 1 and 4")
        return cls(size, mean, std, str(document["interpolation"]), (resize, crop))
