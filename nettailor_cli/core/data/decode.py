"""A file into the picture that a person sees: 8-bit RGB, upright, on white where it is transparent.

Only common formats are tried: Pillow knows others that start foreign programs (EPS), whatever the file's name says.
Colour profiles are not applied.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from nettailor_cli.core.errors import DataError

_VERSION = 1  # to be raised with every change of what `read_square` gives for a file
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
_MOST_PIXELS = 178_956_970  # where Pillow, too, suspects a decompression bomb; half a gigabyte as RGB
_ORIENTATION = 0x0112  # the EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BadImage(DataError):
    """A file that can't be shown. `reason` is short and for people."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def decode(path: Path, side: int | None = None) -> Image.Image:
    """The picture in mode RGB; of an animation, the first frame. Raises BadImage, also for more than 179 M pixels.

    With `side`, a large JPEG may come at a half, a quarter or an eighth of its size, several times faster, as long as
    its short side stays at least twice `side`: enough for `to_square`.

    16- and 32-bit gray values are on the scale 0..65535. Float values are on 0..1 or, when one lies above 1, on 0..255.
    """
    try:
        with Image.open(path, formats=_FORMATS) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise BadImage(path, f"too large: {image.width} x {image.height} pixels")
            if side is not None:
                image.draft(None, (2 * side, 2 * side))  # for JPEG; the others do nothing
            image.load()
            return _as_rgb(_upright(image), path)
    except (BadImage, MemoryError):
        raise
    # whatever a damaged file makes Pillow stumble over: struct.error, SyntaxError, IndexError, ...
    except Exception as error:
        raise BadImage(path, _reason(path, error)) from error


def to_square(image: Image.Image, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """The central square of an RGB picture at `side` x `side`: uint8, with shape (side, side, 3).

    The same as resizing the short side to `side` (bilinear, antialiased) and cropping the centre, up to rounding (the
    long side's resized length, half a pixel of the crop), but nothing outside the square is ever computed: a picture
    of 20000 x 1 would become 5 million x 256 on the way.
    """
    short = min(image.size)
    left, top = (image.width - short) / 2, (image.height - short) / 2
    square = image.resize((side, side), Image.Resampling.BILINEAR, box=(left, top, left + short, top + short))
    return np.asarray(square)


def read_square(path: Path, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`decode` and `to_square`: what training, evaluation and prediction all start from. Raises BadImage."""
    return to_square(decode(path, side), side)


def decoder_version() -> str:
    """What `read_square`'s pixels depend on besides file and side: equal texts, equal pixels."""
    libraries = {name: features.version(name) for name in ("libjpeg_turbo", "jpg", "webp", "libtiff")}
    return f"decoder {_VERSION}, Pillow {PIL.__version__}, {libraries}"


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its EXIF tag says; to be called after load(), for Pillow then has turned a TIFF already."""
    try:
        turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a viewer, too, shows a picture whose EXIF block is damaged, and as it lies
        turn = None
    return image if turn is None else image.transpose(turn)


def _as_rgb(image: Image.Image, path: Path) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_gray_to_8_bits(np.asarray(image), path)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _gray_to_8_bits(values: np.ndarray[Any, Any], path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Pillow's own conversion would clip at 255. `values` has shape (H, W): integers or floats."""
    if not np.isfinite(values).all():
        raise BadImage(path, "has values that are no numbers")
    low, high = values.min(), values.max()
    if values.dtype.kind == "f":
        scaled = np.clip(values * (255.0 if high <= 1 else 1.0), 0, 255)
    elif low < 0 or high > 65535:
        raise BadImage(path, f"has gray values from {low} to {high}, outside 0 to 65535")
    else:
        scaled = values / 257.0
    return np.rint(scaled).astype(np.uint8)


def _reason(path: Path, error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too large: more than {_MOST_PIXELS // 10**6} million pixels"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if path.stat().st_size == 0 else "not a picture, or damaged from the start"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({(text.splitlines() or [type(error).__name__])[0][:80]})"
