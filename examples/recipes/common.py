"""What the readers of the data sets share: MATLAB files, boxes, pictures that the tool is to show as they are, a main.

The tool resizes a picture's short side to 8/7 of the input size and cuts the middle out (256 and 224 px), for training
as well. Where a protocol resizes a picture straight to the input size, it is written here in that size, with a border
that this very cut takes off again: `framed`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nettailor_cli.core.data.layout import Layout, laying_out
from nettailor_cli.core.errors import DataError, NettailorError
from nettailor_cli.core.preprocessing import Preprocessing

TRAIN, VAL, TEST = "train", "val", "test"


def matlab(path: Path) -> dict[str, Any]:
    """The variables of a .mat file, arrays of length one as their only value. Raises DataError."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise DataError(f"{path.name} is read with scipy", "pip install 'nettailor[recipes]'") from error
    try:
        return loadmat(present(path), squeeze_me=True)
    except (ValueError, NotImplementedError, TypeError, OSError) as error:
        raise DataError(f"{path} can't be read as a MATLAB file: {error}", "download it again") from error


def present(path: Path) -> Path:
    """`path`, which has to be there. Raises DataError."""
    if not path.exists():
        raise DataError(f"{path} is missing", "is SOURCE the folder that the download was unpacked to? See README.md")
    return path


def table(path: Path) -> dict[str, str]:
    """A text file of lines "KEY VALUE", as {key: value}."""
    lines = present(path).read_text(encoding="utf-8").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(" ") for line in lines if line.strip())}


@dataclass(frozen=True)
class Box:
    """Pixels from (left, top) up to, but not with, (right, bottom); the first pixel is 0."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def matlab(cls, xmin: float, ymin: float, xmax: float, ymax: float) -> Box:
        """From corners that are counted from 1 and belong to the box."""
        return cls(xmin - 1, ymin - 1, xmax, ymax)

    def with_margin(self, share: float) -> Box:
        """On every side by `share` of the width (left, right) or height (top, bottom) larger."""
        x, y = share * (self.right - self.left), share * (self.bottom - self.top)
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    def within(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Clipped to the picture, whole pixels: outward, as far as there are any. Never empty."""
        left, top = (min(max(0, int(np.floor(v))), last - 1) for v, last in ((self.left, width), (self.top, height)))
        right = max(left + 1, min(width, int(np.ceil(self.right))))
        bottom = max(top + 1, min(height, int(np.ceil(self.bottom))))
        return left, top, right, bottom


def cut(path: Path, box: Box) -> Image.Image:
    """The part of a picture, in RGB."""
    with Image.open(present(path)) as image:
        return image.convert("RGB").crop(box.within(*image.size))


def straight(image: Image.Image, size: int) -> Image.Image:
    """Resized to size x size, whatever its proportions, and framed: the tool at --size `size` sees just that."""
    return framed(image.resize((size, size), Image.Resampling.BILINEAR), size)


def framed(image: Image.Image, size: int) -> Image.Image:
    """A border of the outermost pixels, so that the tool's resizing changes nothing and its cut is `image`'s middle.

    `image` is square, with at least `size` and at most the 8/7 of it that the tool resizes to.
    """
    wanted, side = Preprocessing(size=size).resize, image.width
    before = (wanted - side) // 2
    border = (before, wanted - side - before)
    return Image.fromarray(np.pad(np.asarray(image), (border, border, (0, 0)), mode="edge"))


Reader = Callable[..., None]
Option = tuple[str, dict[str, Any]]
SIZE = 224
SIZE_OPTION: Option = ("--size", {"type": int, "default": SIZE, "help": f"the input size that it is for ({SIZE})"})
WHOLE_OPTION: Option = ("--whole", {"action": "store_true", "help": "the pictures as they are"})


def main(reader: Reader, doc: str | None, *options: Option) -> None:
    """The command line of a script: SOURCE, TO and `options`, which go to `reader(source, layout, ...)` by name."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="what was downloaded, unpacked")
    parser.add_argument("to", type=Path, metavar="TO", help="the folder to make, for nettailor --data")
    for flag, details in options:
        parser.add_argument(flag, **details)
    arguments = vars(parser.parse_args())
    with errors_told():
        print(lay_out(reader, arguments.pop("source"), arguments.pop("to"), **arguments))


@contextlib.contextmanager
def errors_told() -> Iterator[None]:
    """What is wrong with the files, as one message, and exit code 2."""
    try:
        yield
    except NettailorError as error:
        print(f"error: {error.message}" + (f"\nhint: {error.hint}" if error.hint else ""), file=sys.stderr)
        sys.exit(2)


def lay_out(reader: Reader, source: Path, to: Path, **options: Any) -> str:
    """`to`, made whole or not at all; how many pictures it has, in words."""
    with laying_out(to) as layout:
        reader(source, layout, **options)
        return summary(to, layout)


def summary(to: Path, layout: Layout) -> str:
    images = ", ".join(f"{count} {split}" for split, count in layout.images().items())
    return f"{to}: {len({name for _, name in layout.counts})} classes, {images}"
