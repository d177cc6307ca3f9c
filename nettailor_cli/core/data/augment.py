"""A whole batch augmented at once, on its device. What happens to a picture depends on (seed, epoch, its index) alone.

All random numbers of an epoch are one table, a row per picture of the dataset; so going on in the middle of an epoch
needs no state. N pictures of S x S pixels in, N of size x size out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from nettailor_cli.core.data.streams import AUGMENT, stream
from nettailor_cli.core.errors import UsageError

KINDS = ("resized-crop", "crop", "none")
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, what Pillow calls gray

_ATTEMPTS = 10
# the columns of the table, each uniform in [0, 1)
_AREAS = slice(0, _ATTEMPTS)
_RATIOS = slice(_ATTEMPTS, 2 * _ATTEMPTS)
_TOP, _LEFT, _FLIP = range(2 * _ATTEMPTS, 2 * _ATTEMPTS + 3)
_JITTER = slice(_FLIP + 1, _FLIP + 4)
_COLUMNS = _FLIP + 4

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Augmentation:
    """How pictures vary from epoch to epoch.

    kind: 'resized-crop': a random box, resampled; 'crop': a random window; 'none': the central one, as in evaluation.
    flip: left and right change places in half of the cases.
    scale, ratio: share of the picture's area and width / height of a resized-crop's box (log-uniform), (low, high).
    jitter: brightness, contrast and saturation, in this order, times a factor from U(1 - jitter, 1 + jitter) each.

    Raises UsageError for an unknown kind or a range that makes no sense.
    """

    kind: str = "resized-crop"
    flip: bool = True
    scale: tuple[float, float] = (0.35, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    jitter: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f'there is no augmentation "{self.kind}"', f"choose {' | '.join(KINDS)}")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UsageError(f"scale {self.scale} is not a range within 0 to 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UsageError(f"ratio {self.ratio} is not a range of positive numbers")
        if not 0 <= self.jitter <= 1:
            raise UsageError(f"jitter {self.jitter:g} is not within 0 to 1")

    def draw(self, count: int, seed: int, epoch: int) -> Array:
        """The random numbers of one epoch for a dataset of `count` pictures: float32, a row per picture, in [0, 1)."""
        return stream(seed, epoch, AUGMENT).random((count, _COLUMNS), dtype=np.float32)

    def apply(self, images: torch.Tensor, draws: Array, size: int) -> torch.Tensor:
        """`images` uint8 (N, 3, S, S) and their rows of the table -> float32 (N, 3, size, size) in [0, 1].

        Raises ValueError when a 'crop' or 'none' asks for more than there is (size > S).
        """
        flips = torch.from_numpy(draws[:, _FLIP] < 0.5 if self.flip else np.zeros(len(draws), bool)).to(images.device)
        if self.kind == "resized-crop":
            boxes = torch.from_numpy(self.boxes(draws, images.shape[-1])).to(images.device)
            out = _resample(images, boxes, flips, size)
        else:
            spare = _spare(images.shape[-1], size)
            if self.kind == "crop":
                corners = np.floor(draws[:, [_TOP, _LEFT]].astype(np.float64) * (spare + 1)).astype(np.int64)
            else:
                corners = np.full((len(draws), 2), spare // 2)
            out = _windows(images, torch.from_numpy(corners).to(images.device), flips, size)
        return _jitter(out, self.jitter, draws[:, _JITTER]) if self.jitter else out

    def boxes(self, draws: Array, side: int) -> Array:
        """Rows of the table -> boxes in a picture of `side` x `side`: int64 (N, 4) as top, left, height, width.

        The distribution of torchvision's RandomResizedCrop: the first of ten attempts that fits into the picture, else
        the largest central box with the nearest allowed ratio.
        """
        u = draws.astype(np.float64)
        area = side * side * (self.scale[0] + u[:, _AREAS] * (self.scale[1] - self.scale[0]))  # (N, attempts)
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        ratio = np.exp(low + u[:, _RATIOS] * (high - low))
        heights, widths = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
        fits = (heights > 0) & (heights <= side) & (widths > 0) & (widths <= side)
        first = np.arange(len(u)), fits.argmax(axis=1)

        nearest = min(max(1.0, self.ratio[0]), self.ratio[1])  # to the picture's own ratio, 1
        height = np.where(fits.any(axis=1), heights[first], max(1, round(side / max(nearest, 1.0))))
        width = np.where(fits.any(axis=1), widths[first], max(1, round(side * min(nearest, 1.0))))
        top = np.where(fits.any(axis=1), np.floor(u[:, _TOP] * (side - height + 1)), (side - height) // 2)
        left = np.where(fits.any(axis=1), np.floor(u[:, _LEFT] * (side - width + 1)), (side - width) // 2)
        return np.stack([top, left, height, width], axis=1).astype(np.int64)


def central_crop(images: torch.Tensor, size: int) -> torch.Tensor:
    """`images` uint8 (N, 3, S, S) -> float32 (N, 3, size, size) in [0, 1]: the middle pixels as they are.

    Raises ValueError when size > S.
    """
    start = _spare(images.shape[-1], size) // 2
    return images[:, :, start : start + size, start : start + size].float() / 255


def _spare(side: int, size: int) -> int:
    if size > side:
        raise ValueError(f"can't cut {size} x {size} pixels out of {side} x {side}")
    return side - size


def _resample(images: torch.Tensor, boxes: torch.Tensor, flips: torch.Tensor, size: int) -> torch.Tensor:
    """Each box (top, left, height, width) stretched to size x size: crop, bilinear resize, flip, all in one go."""
    side = images.shape[-1]
    steps = (torch.arange(size, device=images.device, dtype=torch.float32) + 0.5) / size  # centres of the new pixels

    def coordinates(start: torch.Tensor, length: torch.Tensor) -> torch.Tensor:
        """Along one axis, where to look, on the scale -1..1 of grid_sample: (N, size)."""
        start, length = start[:, None].float(), length[:, None].float()
        # not beyond the box's outermost pixel centres: a crop knows nothing of what lay outside it
        return ((start + (steps * length - 0.5).clamp(min=0).minimum(length - 1)) * 2 + 1) / side - 1

    top, left, height, width = boxes.unbind(1)
    y, x = coordinates(top, height), coordinates(left, width)
    x = torch.where(flips[:, None], x.flip(1), x)
    grid = torch.stack(torch.broadcast_tensors(x[:, None, :], y[:, :, None]), dim=-1)  # (N, size, size, 2)
    return F.grid_sample(images.float() / 255, grid, mode="bilinear", align_corners=False).clamp_(0, 1)


def _windows(images: torch.Tensor, corners: torch.Tensor, flips: torch.Tensor, size: int) -> torch.Tensor:
    """The size x size pixels from each corner (top, left) on, exactly."""
    steps = torch.arange(size, device=images.device)
    rows = corners[:, 0, None] + steps  # (N, size)
    columns = corners[:, 1, None] + torch.where(flips[:, None], steps.flip(0), steps)
    pictures = torch.arange(len(images), device=images.device)
    pixels = images.permute(0, 2, 3, 1)[pictures[:, None, None], rows[:, :, None], columns[:, None, :]]
    return pixels.permute(0, 3, 1, 2).float() / 255


def _jitter(images: torch.Tensor, strength: float, draws: Array) -> torch.Tensor:
    """Brightness, contrast (about the picture's mean gray), saturation (about each pixel's gray), clamped each time."""
    factors = torch.from_numpy(1 + strength * (2 * draws - 1)).to(images.device)  # (N, 3), within 1 +- strength
    brightness, contrast, saturation = factors[:, :, None, None, None].unbind(1)  # (N, 1, 1, 1) each
    images = (images * brightness).clamp_(0, 1)
    middle = _gray(images).mean(dim=(2, 3), keepdim=True)
    images = torch.lerp(middle, images, contrast).clamp_(0, 1)
    return torch.lerp(_gray(images), images, saturation).clamp_(0, 1)


def _gray(images: torch.Tensor) -> torch.Tensor:
    red, green, blue = _LUMA
    return images[:, 0:1] * red + images[:, 1:2] * green + images[:, 2:3] * blue  # (N, 1, H, W)
