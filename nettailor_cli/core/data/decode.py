"""A file into the picture that a person sees: 8-bit RGB, upright, on white where it is transparent.

Only common formats are tried: Pillow knows others that start foreign programs (EPS), whatever the file's name says.
Colour profiles are not applied; CMYK and YCCK are as Adobe writes them, inks inverted. Samples of 16 bits are brought
to 8, gray ones to the nearest value, coloured ones as Pillow does, cut off. Of an animation or of several pages, the
first is shown. Checksums are those of the format: PNG has them, and a JPEG in which bytes have changed is what it is.

Memory: at most 16 bytes per pixel while a picture is read (PNG 8, lossy or lossless WebP and progressive JPEG 16), and
179 M pixels are the most: 3 GB. Of pictures above 17 M pixels only one at a time is read, however many threads there
are; a JPEG that is read at a part of its size counts as that part.
"""

from __future__ import annotations

import contextlib
import stat
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image, UnidentifiedImageError, features

from nettailor_cli.core.errors import DataError

_VERSION = 2  # to be raised with every change of what `read_square` gives for a file
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF", "TIFF")
_NO_PICTURE = "not a picture of a known kind (JPEG, PNG, BMP, WebP, GIF, TIFF), or damaged"
_MOST_PIXELS = 178_956_970  # where Pillow, too, suspects a decompression bomb; half a gigabyte as RGB
_LARGE = 2**24  # pixels
_AT_ONCE = 2**20  # pixels of a large picture that are brought to RGB at a time
_one_large_picture = threading.Lock()
_OPEN_FILES = (Path("/dev/fd"), Path("/proc/self/fd"))
_TILE = (322, 323)  # the TIFF tags TileWidth and TileLength
_DEPTHS = {"1": 1, "P;1": 1, "P;2": 2, "P;4": 4, "L;2": 2, "L;4": 4}  # Pillow's names of a PNG's samples
_DEFLATE = 1032  # bytes at most that one byte unpacks to
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


Key = int | tuple[int, ...] | None
"""The gray value or colour that is transparent, if there is one."""


class BadImage(DataError):
    """A file that can't be shown. `reason` is short and for people."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


def decode(path: Path, side: int | None = None) -> Image.Image:
    """The picture in mode RGB. Raises BadImage, also for more than 179 M pixels and for what is no file (a pipe).

    With `side`, a large JPEG may come at a half, a quarter or an eighth of its size, several times faster, as long as
    its short side stays at least twice `side`: enough for `to_square`.

    16- and 32-bit gray values are on the scale 0..65535. Float values are on 0..1 or, when one lies above 1, on 0..255.
    Raises MemoryError, with the picture's name, when there is too little memory.
    """
    size = ""
    try:
        _refuse_what_may_wait(path)
        with Image.open(path, formats=_FORMATS) as image:
            size = f", {image.width} x {image.height} pixels"
            _refuse_too_large(image, path)
            _refuse_what_can_not_be_there(image, path)
            key, whole = _transparent_value(image), image.size
            if side is not None:
                image.draft(None, (2 * side, 2 * side))  # for JPEG; the others do nothing
            width, height = whole if image.info.get("progressive") else image.size  # what has to be in memory at once
            with _one_large_picture if width * height > _LARGE else contextlib.nullcontext():
                image.load()
                turn = _turn(image)  # after load(), for Pillow then has turned a TIFF already
                rgb = _as_rgb(image, key, path)
        return rgb if turn is None else rgb.transpose(turn)
    except BadImage:
        raise
    except MemoryError as error:
        raise MemoryError(f"{path}{size}") from error
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


def _refuse_what_may_wait(path: Path) -> None:
    """A named pipe opens when somebody writes into it, a device may give bytes for ever."""
    mode = path.stat().st_mode
    if stat.S_ISDIR(mode):
        raise BadImage(path, "a folder")
    handed_over = stat.S_ISFIFO(mode) and path.parent in _OPEN_FILES  # by the shell: nettailor predict MODEL <(...)
    if not stat.S_ISREG(mode) and not handed_over:
        raise BadImage(path, "not a file but a pipe, a socket or a device")


def _refuse_too_large(image: Image.Image, path: Path) -> None:
    if image.width * image.height > _MOST_PIXELS:
        raise BadImage(
            path, f"too large: {image.width} x {image.height} pixels, {_MOST_PIXELS // 10**6} million at most"
        )
    # room for a whole tile is taken, however small the picture is that it belongs to
    width, height = (getattr(image, "tag_v2", {}).get(tag, 0) for tag in _TILE)
    if width * height > _MOST_PIXELS:
        raise BadImage(path, f"too large: tiles of {width} x {height} pixels")


def _refuse_what_can_not_be_there(image: Image.Image, path: Path) -> None:
    """A PNG that claims more than it can hold: Pillow makes what is missing black, if the packed data have an end."""
    if image.format == "PNG" and (size := path.stat().st_size):  # a pipe has none
        row = image.width * len(image.getbands()) * _depth(image) // 8
        if image.height * row > size * _DEFLATE:
            raise BadImage(path, f"truncated, or lying: {image.width} x {image.height} pixels can't be in {size} bytes")


def _depth(image: Image.Image) -> int:
    """Bits per sample in the file of a PNG; before load()."""
    raw = str(image.tile[0][3])  # type: ignore[attr-defined]
    return 16 if "16" in raw else _DEPTHS.get(raw, 8)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What its EXIF tag says."""
    try:
        return _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - a viewer, too, shows a picture whose EXIF block is damaged, and as it lies
        return None


def _as_rgb(image: Image.Image, key: Key, path: Path) -> Image.Image:
    """Every pixel by itself, so a large picture goes in strips: what lies between it and RGB is never whole."""
    if image.mode == "F" or image.mode.startswith("I"):
        white = _white(image, path)
        to_rgb = partial(_gray_to_rgb, white=white, key=key)
    else:
        to_rgb = partial(_colours_to_rgb, key=key)
    if image.width * image.height <= _AT_ONCE:
        return to_rgb(image)
    out = Image.new("RGB", image.size)
    for box in _strips(image):
        out.paste(to_rgb(image.crop(box)), box)
    return out


def _strips(image: Image.Image) -> Iterator[tuple[int, int, int, int]]:
    """Boxes of whole rows that have about _AT_ONCE pixels each."""
    rows = max(1, _AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        yield 0, top, image.width, min(top + rows, image.height)


def _transparent_value(image: Image.Image) -> Key:
    """The gray value or the colour that a PNG says is transparent, on the scale of its pixels; before load().

    Pillow leaves it as the file has it: of 4 bits per sample, 2 is the value that comes out as 34.
    """
    key = image.info.get("transparency")
    if image.format != "PNG" or image.mode not in ("1", "L", "I", "I;16", "RGB") or key is None:
        return None
    depth = _depth(image)
    if image.mode == "RGB":
        return tuple(value >> 8 for value in key) if depth == 16 else tuple(key)
    return int(key) * 255 // (2**depth - 1) if depth < 8 else int(key)


def _colours_to_rgb(part: Image.Image, key: Key) -> Image.Image:
    if not part.has_transparency_data:
        return part.convert("RGB")
    if key is not None:
        part.info["transparency"] = key
    part = part.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", part.size, "white"), part).convert("RGB")


def _white(image: Image.Image, path: Path) -> float:
    """Which gray value is white. Raises BadImage when there is none for all that the picture has."""
    low, high = np.inf, -np.inf
    for box in _strips(image):
        values = np.asarray(image.crop(box))
        if not np.isfinite(values).all():
            raise BadImage(path, "has values that are no numbers")
        low, high = min(low, values.min()), max(high, values.max())
    if image.mode == "F":
        return 1.0 if high <= 1 else 255.0
    if low < 0 or high > 65535:
        raise BadImage(path, f"has gray values from {low} to {high}, outside 0 to 65535")
    return 65535.0


def _gray_to_rgb(part: Image.Image, white: float, key: Key) -> Image.Image:
    """Integers or floats to 8 bits; Pillow's own conversion would clip all of them at 255."""
    values = np.asarray(part)  # (H, W)
    scaled = np.clip(values * (255 / white), 0, 255) if values.dtype.kind == "f" else values / (white / 255)
    if key is not None:
        scaled = np.where(values == key, 255, scaled)
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _reason(path: Path, error: Exception) -> str:
    text = str(error).strip()
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"too large: more than {_MOST_PIXELS // 10**6} million pixels: make it smaller"
    if "MAX_TEXT" in text:
        return "has more text, or a larger colour profile, than Pillow takes"
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if path.stat().st_size == 0 else _NO_PICTURE
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return "truncated"
    return f"damaged ({(text.splitlines() or [type(error).__name__])[0][:80]})"
