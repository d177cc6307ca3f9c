"""Odd pictures, drawn by seed: what cameras, programs, attackers and accidents leave in folders, and what is right.

Each is drawn as an array first and then put into a file, by Pillow or, where Pillow can't write it, byte by byte. What
is to be seen is worked out here from the array, in numpy: no reader has a say in it.

    right      the array, to within `near` levels of 255 on the average (what JPEG and rounding may do)
    refused    an error that names the file
    either     damage that a reader may notice or not: refused, or the very array
    no hash    damage in a format without checksums: refused, or some picture of the right size
"""

from __future__ import annotations

import io
import os
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

Array = np.ndarray
RIGHT, REFUSED, EITHER, NO_HASH = "right", "refused", "either", "no hash"


@dataclass(frozen=True)
class Odd:
    """One file. name: without folder. make: its bytes, or what puts it at a path. shown: uint8 (H, W, 3)."""

    kind: str
    name: str
    make: bytes | Callable[[Path], None]
    expect: str
    shown: Array | None = None
    near: float = 1.0
    in_folders: bool = True  # False: what a walk through a folder passes over, since it is no file


Kind = Callable[[np.random.Generator, int], Iterator[Odd]]
KINDS: dict[str, Kind] = {}
_ONCE: set[str] = set()


def kind(name: str, once: bool = False) -> Callable[[Callable[..., Iterator[tuple]]], None]:
    """Registers a generator of (name, bytes, expectation, array, near): what it yields is made anew in every round.

    once: large or slow files, the same whatever the seed; they are made in the first round only.
    """

    def register(function: Callable[..., Iterator[tuple]]) -> None:
        def make(rng: np.random.Generator, round_: int) -> Iterator[Odd]:
            for file, *rest in function(rng, round_):
                yield Odd(name, file, *rest)

        KINDS[name] = make
        if once:
            _ONCE.add(name)

    return register


def odd_pictures(count: int, seed: int, skip: frozenset[str] = frozenset()) -> list[Odd]:
    """At least `count` of them, every kind in the first round, in later rounds all but those that are made once.

    skip: kinds to leave out. Equal arguments give equal files.
    """
    made: list[Odd] = []
    round_ = 0
    while round_ == 0 or len(made) < count:
        for number, (name, make) in enumerate(KINDS.items()):
            if name not in skip and (round_ == 0 or name not in _ONCE):
                made += make(np.random.default_rng([seed, round_, number]), round_)
        round_ += 1
    return made


# arrays


def size(rng: np.random.Generator) -> tuple[int, int]:
    height, width = rng.integers(9, 70, 2)
    return int(height), int(width)


def noise(rng: np.random.Generator, channels: int = 3, top: int = 256) -> Array:
    """(H, W, channels), every value for itself."""
    return rng.integers(0, top, (*size(rng), channels), np.uint16 if top > 256 else np.uint8)


def smooth(rng: np.random.Generator, channels: int = 3) -> Array:
    """uint8 (H, W, channels) that JPEG keeps nearly: blocks of 16 x 16 with a slight slope."""
    rows, columns = rng.integers(1, 5, 2)
    blocks = np.kron(rng.integers(20, 200, (rows, columns, channels)), np.ones((16, 16, 1)))
    slope = np.add.outer(np.arange(16 * rows), np.arange(16 * columns))[..., None] % 16
    return (blocks + slope).astype(np.uint8)


def on_white(colours: Array, alpha: Array, top: int = 255) -> Array:
    """What is seen of `colours` (0..255) on white; alpha (H, W) on 0..top."""
    share = alpha[..., None].astype(float) / top
    return np.rint(colours * share + 255 * (1 - share)).astype(np.uint8)


def gray(values: Array) -> Array:
    return np.repeat(values.reshape(*values.shape[:2], 1), 3, axis=2).astype(np.uint8)


def upright(array: Array, orientation: int) -> Array:
    """As EXIF defines it: where row 0 and column 0 of the file are in what is seen."""
    return {
        1: array,
        2: array[:, ::-1],  # row 0 top, column 0 right
        3: array[::-1, ::-1],  # bottom, right
        4: array[::-1],  # bottom, left
        5: array.swapaxes(0, 1),  # left, top
        6: array[::-1].swapaxes(0, 1),  # right, top
        7: array[::-1, ::-1].swapaxes(0, 1),  # right, bottom
        8: array[:, ::-1].swapaxes(0, 1),  # left, bottom
    }[orientation]


# files


def saved(array: Array | Image.Image, form: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image = (
        array
        if isinstance(array, Image.Image)
        else Image.fromarray(array[..., 0] if array.shape[2:] == (1,) else array)
    )
    image.save(stream, form, **options)
    return stream.getvalue()


def exif_of(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def chunk(name: bytes, data: bytes, crc: int | None = None) -> bytes:
    return (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data) if crc is None else crc)
    )


def png(
    samples: Array, depth: int, colour: int, *chunks: bytes, interlaced: bool = False, crc: int | None = None
) -> bytes:
    """A PNG file of samples (H, W, C), integers of `depth` bits. colour: 0 gray, 2 RGB, 3 palette, 4 LA, 6 RGBA."""
    height, width = samples.shape[:2]
    passes = [(0, 0, 1, 1)]
    if interlaced:  # Adam7: first row, first column, step down, step right
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = []
    for top, left, down, right in passes:
        part = samples[top::down, left::right]
        for row in part if part.size else []:
            if depth == 16:
                packed = row.astype(">u2").tobytes()
            else:  # the bits of every sample, most significant first
                bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
                packed = np.packbits(bits.astype(np.uint8).ravel()).tobytes()
            rows.append(b"\0" + packed)
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *chunks,
            chunk(b"IDAT", zlib.compress(b"".join(rows)), crc),
            chunk(b"IEND", b""),
        )
    )


def one_colour_png(width: int, height: int, rows: int) -> bytes:
    """One bit per pixel, all white; `rows` of them are there, whatever the header says."""
    packer, data = zlib.compressobj(1), []
    row = b"\0" + b"\xff" * ((width + 7) // 8)
    for _ in range(rows // 1000):
        data.append(packer.compress(row * 1000))
    data += [packer.compress(row * (rows % 1000)), packer.flush()]
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", b"".join(data)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(entries: dict[int, tuple[int, int]], data: bytes, order: str = "<") -> bytes:
    """A TIFF file of one directory, tag -> (type, value), every value in its entry; `data` begins at byte 8."""
    at = 8 + len(data) + len(data) % 2
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", at)
    packed = [
        struct.pack(f"{order}HHI", tag, type_, 1)
        + (struct.pack(f"{order}HH", value, 0) if type_ == 3 else struct.pack(f"{order}I", value))
        for tag, (type_, value) in sorted(entries.items())
    ]
    end = struct.pack(f"{order}I", at)  # the next directory: this one, for ever
    return head + data.ljust(at - 8, b"\0") + struct.pack(f"{order}H", len(packed)) + b"".join(packed) + end


def bmp(
    array: Array, bits: int, data: bytes, compression: int = 0, palette: bytes = b"", top_down: bool = False
) -> bytes:
    height, width = array.shape[:2]
    offset = 14 + 40 + len(palette)
    head = struct.pack("<2sIHHI", b"BM", offset + len(data), 0, 0, offset)
    info = struct.pack(
        "<IiiHHIIiiII", 40, width, -height if top_down else height, 1, bits, compression, len(data), 0, 0,
        len(palette) // 4, 0,
    )  # fmt: skip
    return head + info + palette + data


def padded(rows: Array) -> bytes:
    """Rows of bytes (H, N), each filled up to a multiple of four."""
    return np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()


# colours and depths


@kind("JPEG")
def _(rng, round_):
    a = smooth(rng)
    yield f"q{round_}.jpg", saved(a, "JPEG", quality=97, subsampling=int(rng.integers(0, 3))), RIGHT, a, 4
    yield (
        "optimised.jpeg",
        saved(a, "JPEG", quality=95, subsampling=0, optimize=True, restart_marker_rows=1),
        RIGHT,
        a,
        3,
    )
    yield "as rgb.jpg", saved(a, "JPEG", quality=97, keep_rgb=True), RIGHT, a, 3


@kind("JPEG, progressive")
def _(rng, round_):
    a = smooth(rng)
    yield "p.jpg", saved(a, "JPEG", quality=97, subsampling=0, progressive=True), RIGHT, a, 3


@kind("JPEG, gray")
def _(rng, round_):
    a = smooth(rng, 1)
    yield "g.jpg", saved(a, "JPEG", quality=97), RIGHT, gray(a), 3


@kind("CMYK")
def _(rng, round_):
    inks = smooth(rng, 4)
    c, k = inks[..., :3].astype(float), inks[..., 3:].astype(float)
    a = np.rint((255 - c) * (255 - k) / 255).astype(np.uint8)
    image = Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), inks.tobytes())
    yield "adobe.jpg", saved(image, "JPEG", quality=98), RIGHT, a, 4
    yield "progressive.jpg", saved(image, "JPEG", quality=98, progressive=True), RIGHT, a, 4
    yield "inks.tif", saved(image, "TIFF"), RIGHT, a, 1


@kind("YCCK")
def _(rng, round_):
    """As Adobe writes it: inks inverted, and 255 minus those as YCbCr. So it is the YCbCr of the inks, and 255 - K.

    Pillow writes CMYK, inverted, under Adobe's mark with transform 0; 2 says that it is YCCK.
    """
    inks = smooth(rng, 4)
    c, k = inks[..., :3].astype(float), inks[..., 3].astype(float)
    y = c @ [0.299, 0.587, 0.114]
    stored = np.stack([y, 128 + (c[..., 2] - y) / 1.772, 128 + (c[..., 0] - y) / 1.402, 255 - k], axis=-1)
    given = 255 - np.clip(np.rint(stored), 0, 255).astype(np.uint8)
    data = saved(Image.frombytes("CMYK", (inks.shape[1], inks.shape[0]), given.tobytes()), "JPEG", quality=98)
    mark = data.index(b"Adobe") + 11
    a = np.rint((255 - c) * (255 - k[..., None]) / 255).astype(np.uint8)
    yield "ycck.jpg", data[:mark] + b"\2" + data[mark + 1 :], RIGHT, a, 5


@kind("16 bits")
def _(rng, round_):
    g, rgb, alpha = noise(rng, 1, 65536), noise(rng, 3, 65536), rng.integers(0, 65536)
    interlaced = bool(round_ % 2)
    yield "gray.png", png(g, 16, 0, interlaced=interlaced), RIGHT, gray(np.rint(g / 257)), 0.01
    yield "rgb.png", png(rgb, 16, 2, interlaced=interlaced), RIGHT, np.rint(rgb / 257).astype(np.uint8), 1
    key = int(g[3, 3, 0])
    data = png(g, 16, 0, chunk(b"tRNS", struct.pack(">H", key)))
    yield "gray key.png", data, RIGHT, np.where(g == key, 255, gray(np.rint(g / 257))).astype(np.uint8), 0.01
    both = np.full_like(rgb[..., :1], alpha)
    seen = on_white(rgb / 257, both[..., 0], 65535)
    yield "rgba.png", png(np.concatenate([rgb, both], axis=2), 16, 6), RIGHT, seen, 1
    g = noise(rng, 1, 65536)
    image = Image.fromarray(g[..., 0])
    for name, options in {"16.tif": {}, "lzw.tif": {"compression": "tiff_lzw"}, "big.tif": {"big_tiff": True}}.items():
        yield name, saved(image, "TIFF", **options), RIGHT, gray(np.rint(g / 257)), 0.01
    order = tiff(
        {256: (4, g.shape[1]), 257: (4, g.shape[0]), 258: (3, 16), 259: (3, 1), 262: (3, 1), 273: (4, 8), 277: (3, 1),
         278: (4, g.shape[0]), 279: (4, g.size * 2)},
        g.astype(">u2").tobytes(), ">",
    )  # fmt: skip
    yield "motorola, one directory for ever.tif", order, RIGHT, gray(np.rint(g / 257)), 0.01


@kind("1, 2 and 4 bits")
def _(rng, round_):
    for depth in (1, 2, 4):
        g = noise(rng, 1, 2**depth)
        seen = gray(g.astype(int) * 255 // (2**depth - 1))
        yield f"gray {depth}.png", png(g, depth, 0, interlaced=bool(rng.integers(0, 2))), RIGHT, seen, 0.01
        key = int(g[2, 2, 0])
        data = png(g, depth, 0, chunk(b"tRNS", struct.pack(">H", key)))
        yield f"gray {depth} key.png", data, RIGHT, np.where(g == key, 255, seen).astype(np.uint8), 0.01
    bits = noise(rng, 1, 2).astype(bool)
    for form, options in (("BMP", {}), ("TIFF", {"compression": "group4"}), ("TIFF", {"compression": "packbits"})):
        yield f"1 bit.{form.lower()}", saved(bits, form, **options), RIGHT, gray(bits * 255), 0.01


@kind("palette")
def _(rng, round_):
    for depth in (1, 2, 4, 8):
        colours = rng.integers(0, 256, (2**depth, 3), np.uint8)
        alpha = rng.integers(0, 256, 2**depth, np.uint8)
        index = noise(rng, 1, 2**depth)
        palette = chunk(b"PLTE", colours.tobytes())
        seen = colours[index[..., 0]]
        yield f"{depth}.png", png(index, depth, 3, palette, interlaced=bool(rng.integers(0, 2))), RIGHT, seen, 0.01
        transparent = png(index, depth, 3, palette, chunk(b"tRNS", alpha.tobytes()))
        yield f"{depth} alpha.png", transparent, RIGHT, on_white(seen, alpha[index[..., 0]]), 1
    image = Image.fromarray(index[..., 0]).convert("P")
    image.putpalette(colours.tobytes())
    yield "8.gif", saved(image, "GIF", optimize=False), RIGHT, seen, 0.01
    key = int(index[0, 0, 0])
    data = saved(image, "GIF", transparency=key, optimize=False, interlace=1)
    yield "8 key.gif", data, RIGHT, np.where(index == key, 255, seen).astype(np.uint8), 0.01
    yield "8.bmp", saved(image, "BMP"), RIGHT, seen, 0.01
    yield "8.tif", saved(image, "TIFF"), RIGHT, seen, 0.01


@kind("transparency")
def _(rng, round_):
    a = noise(rng)
    alpha = rng.integers(0, 256, a.shape[:2], np.uint8)
    rgba, la = np.dstack([a, alpha]), np.dstack([a[..., 0], alpha])
    yield "rgba.png", png(rgba, 8, 6, interlaced=bool(round_ % 2)), RIGHT, on_white(a, alpha), 1
    yield "la.png", png(la, 8, 4), RIGHT, on_white(gray(a[..., 0]), alpha), 1
    yield "rgba.webp", saved(rgba, "WEBP", lossless=True, exact=True), RIGHT, on_white(a, alpha), 1
    yield "rgba.tif", saved(rgba, "TIFF"), RIGHT, on_white(a, alpha), 1
    key = a[1, 1]
    data = png(a, 8, 2, chunk(b"tRNS", struct.pack(">HHH", *key.tolist())))
    yield "key.png", data, RIGHT, np.where((a == key).all(axis=2, keepdims=True), 255, a).astype(np.uint8), 0.01


@kind("interlaced")
def _(rng, round_):
    a = noise(rng)
    yield "adam7.png", png(a, 8, 2, interlaced=True), RIGHT, a, 0.01
    yield "one pixel.png", png(a[:1, :1], 8, 2, interlaced=True), RIGHT, a[:1, :1], 0.01


@kind("WebP")
def _(rng, round_):
    a, b = noise(rng), smooth(rng)
    yield "lossless.webp", saved(a, "WEBP", lossless=True), RIGHT, a, 0.01
    yield "lossy.webp", saved(b, "WEBP", quality=95), RIGHT, b, 8


@kind("TIFF")
def _(rng, round_):
    a = noise(rng)
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield f"{compression}.tif", saved(a, "TIFF", compression=compression), RIGHT, a, 0.01
    b = smooth(rng)
    yield "jpeg.tif", saved(b, "TIFF", compression="jpeg", quality=97), RIGHT, b, 5
    pages = [Image.fromarray(np.roll(a, n, axis=0)) for n in range(1, 4)]
    yield "pages.tiff", saved(a, "TIFF", save_all=True, append_images=pages), RIGHT, a, 0.01
    f = rng.random(size(rng), np.float32)
    yield "float to 1.tif", saved(Image.fromarray(f), "TIFF"), RIGHT, gray(np.rint(f * 255)), 0.01
    yield "float to 255.tif", saved(Image.fromarray(f * 255), "TIFF"), RIGHT, gray(np.rint(f * 255)), 0.01
    f[0, 0] = np.nan
    yield "float with a hole.tif", saved(Image.fromarray(f), "TIFF"), REFUSED
    wide = np.array([[0, 70_000]], np.int32)
    yield "32 bits.tif", saved(Image.fromarray(wide), "TIFF"), REFUSED


@kind("BMP")
def _(rng, round_):
    a = noise(rng)
    bgr = a[..., ::-1].reshape(len(a), -1)
    yield "24.bmp", bmp(a, 24, padded(bgr[::-1])), RIGHT, a, 0.01
    yield "24 top down.bmp", bmp(a, 24, padded(bgr), top_down=True), RIGHT, a, 0.01
    four = np.dstack([a[..., ::-1], np.zeros(a.shape[:2], np.uint8)]).reshape(len(a), -1)
    yield "32.bmp", bmp(a, 32, padded(four[::-1])), RIGHT, a, 0.01
    five = a >> 3
    packed = (five[..., 0].astype("<u2") << 10) | (five[..., 1].astype("<u2") << 5) | five[..., 2]
    rows = padded(np.ascontiguousarray(packed[::-1]).view(np.uint8))
    yield "16.bmp", bmp(a, 16, rows), RIGHT, np.rint(five.astype(int) * 255 / 31).astype(np.uint8), 1
    lines = np.repeat(rng.integers(0, 4, len(a), np.uint8), 2).reshape(-1, 2)[:, :1]  # a colour per row
    colours = rng.integers(0, 256, (4, 3), np.uint8)
    table = np.dstack([colours[None, :, ::-1], np.zeros((1, 4), np.uint8)]).tobytes()
    data = b"".join(bytes([a.shape[1], int(line), 0, 0]) for line in lines[::-1, 0]) + b"\0\1"
    seen = np.repeat(colours[lines[:, 0]][:, None], a.shape[1], axis=1)
    yield "rle.bmp", bmp(a, 8, data, compression=1, palette=table), RIGHT, seen, 0.01


@kind("animated")
def _(rng, round_):
    colours = rng.integers(0, 256, (3, 3), np.uint8)
    frames = [np.broadcast_to(colour, (*size(rng), 3)).copy() for colour in colours[:1]]
    frames += [np.broadcast_to(colour, frames[0].shape).copy() for colour in colours[1:]]
    images = [Image.fromarray(frame) for frame in frames]
    more = {"save_all": True, "append_images": images[1:]}
    yield "a.gif", saved(images[0], "GIF", **more), RIGHT, frames[0], 0.01
    yield "a.webp", saved(images[0], "WEBP", lossless=True, **more), RIGHT, frames[0], 0.01
    yield "a.png", saved(images[0], "PNG", **more), RIGHT, frames[0], 0.01
    two = [Image.fromarray(smooth(rng)) for _ in range(2)]
    yield (
        "several.jpg",
        saved(two[0], "MPO", save_all=True, append_images=two[1:], quality=97),
        RIGHT,
        np.asarray(two[0]),
        5,
    )


# EXIF


@kind("EXIF rotation")
def _(rng, round_):
    a, b = noise(rng), smooth(rng)
    for turn in range(1, 9):
        form, options = (("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}))[(turn + round_) % 3]
        yield f"{turn}.{form.lower()}", saved(a, form, exif=exif_of(turn), **options), RIGHT, upright(a, turn), 0.01
        yield f"{turn}.jpg", saved(b, "JPEG", quality=97, subsampling=0, exif=exif_of(turn)), RIGHT, upright(b, turn), 3


@kind("EXIF, broken")
def _(rng, round_):
    a = smooth(rng)
    good = exif_of(6).tobytes()
    wrong = {
        "nine": exif_of(9).tobytes(),
        "nothing": b"Exif\0\0",
        "noise": b"Exif\0\0" + rng.bytes(200),
        "noise in a frame": b"Exif\0\0MM\0*" + rng.bytes(200),
        "a directory for ever": b"Exif\0\0II*\0\x08\0\0\0\1\0\x69\x87\4\0\1\0\0\0\x08\0\0\0\x08\0\0\0",
        "nowhere": b"Exif\0\0MM\0*\xff\xff\xff\xff",
    }
    for name, exif in wrong.items():
        yield f"{name}.jpg", saved(a, "JPEG", quality=97, subsampling=0, exif=exif), RIGHT, a, 3
    cut = good[: int(rng.integers(8, len(good)))]
    # where it is cut decides whether the tag can still be read: either way it is a right one
    turned = "\x06" in cut.decode("latin-1") and len(cut) >= len(good) - 4
    yield "cut.png", saved(a, "PNG", exif=cut), RIGHT, upright(a, 6) if turned else a, 3


# damage


def forms(rng: np.random.Generator) -> dict[str, tuple[bytes, Array]]:
    a, b = noise(rng), smooth(rng)
    return {
        "jpg": (saved(b, "JPEG", quality=97, subsampling=0), b),
        "progressive.jpg": (saved(b, "JPEG", quality=97, subsampling=0, progressive=True), b),
        "png": (saved(a, "PNG"), a),
        "gif": (saved(gray(a[..., 0]), "GIF"), gray(a[..., 0])),
        "bmp": (saved(a, "BMP"), a),
        "webp": (saved(a, "WEBP", lossless=True), a),
        "lzw.tif": (saved(a, "TIFF", compression="tiff_lzw"), a),
        "raw.tif": (saved(a, "TIFF"), a),
    }


@kind("truncated")
def _(rng, round_):
    for suffix, (data, a) in forms(rng).items():
        for place in (int(rng.integers(1, len(data))), len(data) - int(rng.integers(1, 30)), len(data) // 2):
            yield f"{place} of {len(data)}.{suffix}", data[:place], EITHER, a, 4


@kind("PNG, checksums")
def _(rng, round_):
    a = noise(rng)
    data = png(a, 8, 2)
    yield "crc of the pixels.png", png(a, 8, 2, crc=1), EITHER, a, 0.01
    yield "crc of a text.png", png(a, 8, 2, chunk(b"tEXt", b"a\0b", crc=1)), EITHER, a, 0.01
    yield "crc of the header.png", data[:29] + b"\0\0\0\0" + data[33:], REFUSED
    start, end = data.index(b"IDAT") + 4, data.rindex(b"IEND") - 8
    for _n in range(3):
        place = int(rng.integers(start, end))
        yield f"bit at {place}.png", data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :], EITHER, a, 0.01
    stored = saved(a, "PNG", compress_level=0)
    place = int(rng.integers(len(stored) // 2, len(stored) - 60))
    yield "bit of a pixel.png", stored[:place] + bytes([stored[place] ^ 4]) + stored[place + 1 :], EITHER, a, 0.01


@kind("bytes changed, no checksum")
def _(rng, round_):
    for suffix, (data, a) in forms(rng).items():
        if suffix == "png":
            continue
        changed = bytearray(data)
        for place in rng.integers(len(data) // 2, len(data), 5):
            changed[place] ^= int(rng.integers(1, 256))
        yield f"changed.{suffix}", bytes(changed), NO_HASH, a


@kind("no picture")
def _(rng, round_):
    a = noise(rng)
    for name, data in {
        "empty.jpg": b"", "empty.png": b"", "one byte.gif": b"G", "text.jpg": b"not a picture\n" * 9,
        "page.png": b"<!DOCTYPE html><html>404</html>", "vector.png": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "document.jpg": b"%PDF-1.7\n", "script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
        "archive.png": b"PK\3\4" + rng.bytes(99), "noise.webp": rng.bytes(999), "nul.bmp": bytes(999),
        "signature alone.png": b"\x89PNG\r\n\x1a\n", "start alone.jpg": b"\xff\xd8\xff",
        "phone.jpg": b"\0\0\0\x18ftypheic\0\0\0\0" + rng.bytes(200), "riff.webp": b"RIFF\xff\xff\xff\xffWEBPVP8 ",
    }.items():  # fmt: skip
        yield name, data, REFUSED
    for form, suffix in (("ICO", "png"), ("PPM", "jpg"), ("TGA", "bmp")):  # kinds that are not read
        yield f"{form}.{suffix}", saved(a, form), REFUSED
    deep = rng.integers(0, 65536, (5, 5, 3)).astype(">u2").tobytes()
    yield "16 bits.ppm.tif", b"P6 5 5 65535\n" + deep, REFUSED


@kind("wrong extension")
def _(rng, round_):
    names = list(made := forms(rng))
    for form, other in zip(names, names[1:] + names[:1], strict=True):
        data, a = made[form]
        yield f"{form} as.{other.rpartition('.')[2].upper()}", data, RIGHT, a, 4


@kind("beside the picture")
def _(rng, round_):
    a, b = noise(rng), smooth(rng)
    profile = rng.bytes(900_000)
    yield "profile.jpg", saved(b, "JPEG", quality=97, subsampling=0, icc_profile=profile), RIGHT, b, 3
    yield "profile.png", saved(a, "PNG", icc_profile=profile), RIGHT, a, 0.01
    comment = b"\xff\xfe\xff\xff" + bytes(65533)
    jpeg = saved(b, "JPEG", quality=97, subsampling=0)
    yield "comments.jpg", jpeg[:2] + comment * 20 + jpeg[2:], RIGHT, b, 3
    yield "text.png", png(a, 8, 2, chunk(b"tEXt", b"a\0" + b"b" * 2_000_000)), RIGHT, a, 0.01
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(20_000_000), 1))
    yield "text bomb.png", png(a, 8, 2, bomb), REFUSED
    yield "profile bomb.png", png(a, 8, 2, chunk(b"iCCP", bomb[8:-4])), REFUSED
    yield "behind.jpg", jpeg + rng.bytes(5000), RIGHT, b, 3
    yield "behind.png", png(a, 8, 2) + b"<?php ?>" * 99, RIGHT, a, 0.01


# sizes


@kind("one pixel")
def _(rng, round_):
    a = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (1, 1, 3)).copy()
    for form in ("PNG", "BMP", "TIFF", "GIF", "WEBP", "JPEG"):
        exact = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(form, {})
        yield f"1.{form.lower()}", saved(a, form, **exact), RIGHT, a, 3


@kind("oblong")
def _(rng, round_):
    line = rng.integers(0, 256, (1, 20_000, 3), np.uint8)
    for a, name in ((line, "20000 x 1"), (line.swapaxes(0, 1), "1 x 20000")):
        a = np.ascontiguousarray(a)
        yield f"{name}.png", png(a, 8, 2), RIGHT, a, 0.01
        yield f"{name}.tif", saved(Image.fromarray(a), "TIFF", compression="tiff_lzw"), RIGHT, a, 0.01
        yield f"{name}.bmp", saved(Image.fromarray(a), "BMP"), RIGHT, a, 0.01
        flat = np.broadcast_to(a[:1, :1], a.shape).copy()
        yield f"{name}.jpg", saved(Image.fromarray(flat), "JPEG", quality=97), RIGHT, flat, 4


@kind("bomb, lying header")
def _(rng, round_):
    """A few bytes that claim to be gigabytes."""
    yield "30000 x 30000.png", one_colour_png(30_000, 30_000, 0), REFUSED
    yield "2 GB.png", one_colour_png(2**31 - 1, 2**31 - 1, 9), REFUSED
    jpeg = saved(smooth(rng), "JPEG", quality=97)
    start = jpeg.index(b"\xff\xc0") + 5
    yield "65500 x 65500.jpg", jpeg[:start] + struct.pack(">HH", 65_500, 65_500) + jpeg[start + 4 :], REFUSED
    gif = saved(gray(noise(rng, 1)[..., 0]), "GIF")
    yield "65535 x 65535.gif", gif[:6] + b"\xff\xff\xff\xff" + gif[10:], REFUSED
    yield "100000 x 100000.bmp", bmp(np.empty((100_000, 100_000, 0)), 24, bytes(99)), REFUSED
    run = bmp(np.empty((1, 170_000_000, 0)), 8, b"\0\2\xff\xff" * 9, compression=1, palette=bytes(1024))
    yield "170000000 x 1, jumps.bmp", run, NO_HASH, np.broadcast_to(np.uint8(0), (1, 170_000_000, 3))
    entries = {256: (4, 60_000), 257: (4, 60_000), 258: (3, 8), 259: (3, 1), 262: (3, 1), 273: (4, 8), 279: (4, 8)}
    yield "60000 x 60000.tif", tiff(entries, bytes(8)), REFUSED
    tile = {256: (4, 8), 257: (4, 8), 258: (3, 8), 259: (3, 8), 262: (3, 1), 322: (4, 40_000), 323: (4, 40_000)}
    yield "tiles.tif", tiff(tile | {324: (4, 8), 325: (4, 99)}, zlib.compress(bytes(99_999))), REFUSED
    box = b"VP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + (16_383).to_bytes(3, "little") * 2
    yield "16384 x 16384.webp", b"RIFF" + struct.pack("<I", 4 + len(box)) + b"WEBP" + box, REFUSED


@kind("bomb, honest", once=True)
def _(rng, round_):
    """What they claim is there, packed well."""
    yield "30000 x 30000.png", one_colour_png(30_000, 30_000, 30_000), REFUSED
    yield "20000 x 20000.png", one_colour_png(20_000, 20_000, 20_000), REFUSED


@kind("large", once=True)
def _(rng, round_):
    """Below the limit: read, or refused when most of it is missing."""
    yield "12000 x 12000.png", one_colour_png(12_000, 12_000, 12_000), RIGHT, white(12_000), 0.01
    yield "13000 x 13000, all but one row missing.png", one_colour_png(13_000, 13_000, 1), REFUSED
    for name, options in {"p.jpg": {"progressive": True, "subsampling": 0}, "b.jpg": {}}.items():
        yield (
            f"12000 x 12000 {name}",
            saved(Image.new("RGB", (12_000, 12_000), "white"), "JPEG", **options),
            RIGHT,
            white(12_000),
            1,
        )
    flat = Image.new("RGBA", (12_000, 12_000), "white")
    yield "12000 x 12000.webp", saved(flat, "WEBP", lossless=True, method=0, quality=0), RIGHT, white(12_000), 0.01


def white(side: int) -> Array:
    return np.broadcast_to(np.uint8(255), (side, side, 3))


# names and what is no file


@kind("name", once=True)
def _(rng, round_):
    a = noise(rng)
    for name in (
        "with spaces", " leading", "trailing ", "two\nlines", "tab\there", "\r", "-rf", "--help", "it's", 'a "quote"',
        "$(reboot)", "`id`", "%s%n", "[a-c]*?", "{}", "back\\slash", "semi;colon", "=1+1", "@SUM(1)", "[red]markup",
        "[link=x]", "$x^2$", "<&amp;>", "\u732b", "\u0633\u06af", "\u05db\u05dc\u05d1", "\U0001f408", "e\u0301",
        "\u202egnp", "zero\u200bwidth", "\x1b[31mred", "\x1b]0;title\x07", "\x1b]52;c;aGk=\x07", "\x9b31m", "del\x7f",
        "\ufffe", os.fsdecode(b"latin caf\xe9"), os.fsdecode(b"\xff\xfe\x80"), "n" * 240, "con", "nul", "a.tar.gz",
        "a..b",
    ):  # fmt: skip
        yield f"{name}.png", png(a, 8, 2), RIGHT, a, 0.01


def link(target: str) -> Callable[[Path], None]:
    return lambda path: path.symlink_to(target)


def listening(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has to be short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@kind("links and no files")
def _(rng, round_):
    a = noise(rng)

    def linked(path: Path) -> None:
        path.with_suffix(".data").write_bytes(png(a, 8, 2))
        path.symlink_to(f"{path.stem}.data")

    def linked_pipe(path: Path) -> None:
        os.mkfifo(path.with_suffix(".pipe"))
        path.symlink_to(f"{path.stem}.pipe")

    yield "linked.png", linked, RIGHT, a, 0.01
    yield "nowhere.png", link("gone.png"), REFUSED
    yield "itself.png", link("itself.png"), REFUSED
    yield "to a folder.png", link("."), REFUSED, None, 0, False
    yield "up.png", link(".."), REFUSED, None, 0, False
    yield "zeros.png", link("/dev/zero"), REFUSED, None, 0, False
    yield "null.png", link("/dev/null"), REFUSED, None, 0, False
    yield "terminal.png", link("/dev/tty"), REFUSED, None, 0, False
    yield "pipe.png", os.mkfifo, REFUSED, None, 0, False
    yield "linked pipe.png", linked_pipe, REFUSED, None, 0, False
    yield "socket.png", listening, REFUSED, None, 0, False
    yield "a folder.png", Path.mkdir, REFUSED, None, 0, False
