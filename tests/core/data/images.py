"""What the tests of this folder make their pictures with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def random_pixels(seed: int, height: int = 12, width: int = 10) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def write_picture(path: Path, seed: int = 0, height: int = 12, width: int = 10) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(random_pixels(seed, height, width)).save(path)
    return path


def write_folder(root: Path, *names: str) -> Path:
    """A different picture at each of `names`."""
    for seed, name in enumerate(names):
        write_picture(root / name, seed)
    return root
