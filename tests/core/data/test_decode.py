from __future__ import annotations

import io
import os
import socket
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nettailor_cli.core.data import BadImage, decode, to_square
from tests.core.data.images import random_pixels

decode_module = sys.modules[decode.__module__]  # its name is hidden by the function's
RGB = random_pixels(1)
GRAY = RGB[..., 0]
AS_GRAY = np.repeat(GRAY[..., None], 3, axis=2)


def shown(path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return colours * share + 255 * (1 - share)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "webp"])
def test_lossless_rgb_comes_out_as_it_is(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(RGB).save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert (shown(path) == RGB).all()


def test_jpeg_comes_out_close(tmp_path):
    smooth = np.linspace(0, 255, 64 * 64 * 3).reshape(64, 64, 3).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=98, subsampling=0)
    assert abs(shown(tmp_path / "a.jpg") - smooth).mean() < 2


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff", "gif"])
def test_gray_becomes_three_equal_channels(tmp_path, suffix):
    Image.fromarray(GRAY).save(tmp_path / f"a.{suffix}")
    assert (shown(tmp_path / f"a.{suffix}") == AS_GRAY).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tiff"])
def test_one_bit_is_black_and_white(tmp_path, suffix):
    Image.fromarray(GRAY > 127).save(tmp_path / f"a.{suffix}")
    assert (shown(tmp_path / f"a.{suffix}") == np.where(AS_GRAY > 127, 255, 0)).all()


@pytest.mark.parametrize("suffix", ["png", "bmp", "gif", "tiff"])
def test_a_palette_is_looked_up(tmp_path, suffix):
    indices = np.arange(120, dtype=np.uint8).reshape(12, 10)
    colours = np.random.default_rng(0).permutation(256 * 3).astype(np.uint8).reshape(256, 3)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / f"a.{suffix}")
    assert (shown(tmp_path / f"a.{suffix}") == colours[indices]).all()


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_the_transparent_entry_of_a_palette_is_white(tmp_path, suffix):
    indices = np.arange(120, dtype=np.uint8).reshape(12, 10)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(bytes([10, 20, 30] * 256))
    image.save(tmp_path / f"a.{suffix}", transparency=7)
    expected = np.where((indices == 7)[..., None], 255, [10, 20, 30])
    assert (shown(tmp_path / f"a.{suffix}") == expected).all()


def test_a_palette_may_be_half_transparent(tmp_path):
    indices = np.array([[0, 1, 2]], np.uint8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette(bytes([100, 0, 0, 0, 100, 0, 0, 0, 100]))
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    expected = on_white(np.array([[[100, 0, 0], [0, 100, 0], [0, 0, 100]]]), np.array([[0, 128, 255]]))
    assert abs(shown(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_alpha_lies_on_white(tmp_path, suffix):
    alpha = np.linspace(0, 255, 120).reshape(12, 10).astype(np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(np.dstack([RGB, alpha])).save(
        path, **({"lossless": True, "exact": True} if suffix == "webp" else {})
    )
    assert abs(shown(path) - on_white(RGB, alpha)).max() <= 1


def test_gray_with_alpha_lies_on_white(tmp_path):
    alpha = np.linspace(0, 255, 120).reshape(12, 10).astype(np.uint8)
    Image.fromarray(np.dstack([GRAY, alpha])).save(tmp_path / "a.png")
    assert abs(shown(tmp_path / "a.png") - on_white(AS_GRAY, alpha)).max() <= 1


@pytest.mark.parametrize(("mode", "key"), [("RGB", (1, 2, 3)), ("L", 9)])
def test_a_transparent_colour_is_white(tmp_path, mode, key):
    image = Image.new(mode, (2, 1), (50, 60, 70) if mode == "RGB" else 50)
    image.putpixel((1, 0), key)
    image.save(tmp_path / "a.png", transparency=key)
    assert shown(tmp_path / "a.png")[0].tolist() == [[50, 60, 70] if mode == "RGB" else [50] * 3, [255] * 3]


@pytest.mark.parametrize("suffix", ["jpg", "tiff"])
def test_cmyk_is_not_inverted(tmp_path, suffix):
    # full cyan, full magenta, no ink, full black; Pillow writes JPEG as Adobe does, inverted
    inks = np.array([[255, 0, 0, 0], [0, 255, 0, 0], [0, 0, 0, 0], [0, 0, 0, 255]], np.uint8)
    picture = np.repeat(np.repeat(inks[None], 16, axis=0), 16, axis=1)
    options = {"quality": 100} if suffix == "jpg" else {}
    Image.frombytes("CMYK", (64, 16), picture.tobytes()).save(tmp_path / f"a.{suffix}", **options)
    expected = [[0, 255, 255], [255, 0, 255], [255, 255, 255], [0, 0, 0]]
    assert abs(shown(tmp_path / f"a.{suffix}")[8, 8::16] - expected).max() <= 3


@pytest.mark.parametrize("suffix", ["png", "tiff"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path, suffix):
    values = np.array([[0, 257, 32768, 65535, 300, 128]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    assert shown(tmp_path / f"a.{suffix}")[0, :, 1].tolist() == [0, 1, 128, 255, 1, 0]


def test_big_endian_and_32_bit_grays_are_scaled_alike(tmp_path):
    values = np.array([[0, 257, 32768, 65535]], np.uint16)
    Image.frombytes("I;16B", (4, 1), values.astype(">u2").tobytes()).save(tmp_path / "big.tiff")
    Image.fromarray(values.astype(np.int32)).save(tmp_path / "wide.tiff")
    for name in ("big.tiff", "wide.tiff"):
        assert shown(tmp_path / name)[0, :, 0].tolist() == [0, 1, 128, 255]
    Image.fromarray(np.array([[0, 70000]], np.int32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match="from 0 to 70000"):
        decode(tmp_path / "a.tiff")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0.0, 0.5, 1.0], [0, 128, 255]), ([0.0, 100.0, 255.0], [0, 100, 255]), ([-3.0, 0.2, 300.0], [0, 0, 255])],
)
def test_floats_are_on_one_or_on_255(tmp_path, values, expected):
    Image.fromarray(np.array([values], np.float32)).save(tmp_path / "a.tiff")
    assert shown(tmp_path / "a.tiff")[0, :, 2].tolist() == expected


def test_floats_that_are_no_numbers_are_bad(tmp_path):
    Image.fromarray(np.array([[0.0, np.nan]], np.float32)).save(tmp_path / "a.tiff")
    with pytest.raises(BadImage, match="no numbers"):
        decode(tmp_path / "a.tiff")


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_an_animation_the_first_frame_is_shown(tmp_path, suffix):
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("#ff0000", "#00ff00", "#0000ff")]
    options = {"lossless": True} if suffix == "webp" else {}
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    assert (shown(tmp_path / f"a.{suffix}") == [255, 0, 0]).all()


# what each orientation says, by hand: where the picture's first row and first column are in what is shown
UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: a[::-1].swapaxes(0, 1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: a[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("suffix", ["png", "webp", "tiff", "jpg"])
def test_every_exif_orientation_is_turned_upright_once(tmp_path, orientation, suffix):
    blocks = np.kron(RGB[:3, :4], np.ones((16, 16, 1), np.uint8))  # so that JPEG keeps the colours
    image = Image.fromarray(blocks)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}.get(suffix, {})
    image.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    expected = UPRIGHT[orientation](blocks)
    got = shown(tmp_path / f"a.{suffix}")
    assert got.shape == expected.shape
    assert abs(got - expected).max() <= (4 if suffix == "jpg" else 0)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_damaged_exif_block_does_not_hide_the_picture(tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert (shown(tmp_path / "a.png") == RGB).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_a_truncated_file_is_bad(tmp_path, suffix):
    whole, half = tmp_path / f"whole.{suffix}", tmp_path / f"half.{suffix}"
    Image.fromarray(random_pixels(0, 100, 100)).save(whole)
    half.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(BadImage) as caught:
        decode(half)
    assert caught.value.path == half
    assert 0 < len(caught.value.reason) < 100


def test_why_a_file_is_bad_is_said_in_few_words(tmp_path):
    def reason(name: str, content: bytes | None) -> str:
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(BadImage) as caught:
            decode(tmp_path / name)
        assert str(tmp_path / name) in caught.value.message
        return caught.value.reason

    assert reason("empty.jpg", b"") == "empty file"
    assert (
        reason("text.jpg", b"<html>404 not found</html>")
        == "not a picture of a known kind (JPEG, PNG, BMP, WebP, GIF, TIFF), or damaged"
    )
    assert reason("gone.jpg", None) == "No such file or directory"
    Image.fromarray(random_pixels(0, 100, 100)).save(tmp_path / "a.jpg")
    assert reason("cut.jpg", (tmp_path / "a.jpg").read_bytes()[:3000]) == "truncated"
    Image.fromarray(RGB).save(tmp_path / "a.eps")  # Pillow would start Ghostscript for it
    assert "not a picture" in reason("eps.jpg", (tmp_path / "a.eps").read_bytes())


def test_what_is_no_file_is_refused_without_waiting(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "device.png").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(tmp_path)  # the path of a socket has to be short
        listening.bind("socket.png")
        for name in ("pipe.png", "device.png", "socket.png"):
            with pytest.raises(BadImage, match="not a file but a pipe, a socket or a device"):
                decode(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(BadImage, match="a folder"):
        decode(tmp_path / "folder.png")
    (tmp_path / "loop.png").symlink_to("loop.png")
    with pytest.raises(BadImage, match="symbolic links"):
        decode(tmp_path / "loop.png")


def test_a_pipe_that_the_shell_hands_over_is_read(tmp_path):
    """nettailor predict MODEL <(...)"""
    stream = io.BytesIO()
    Image.fromarray(RGB).save(stream, "PNG")
    end, other = os.pipe()
    try:
        os.write(other, stream.getvalue())
        os.close(other)
        assert (shown(Path(f"/dev/fd/{end}")) == RGB).all()
    finally:
        os.close(end)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, depth: int, colour: int, row: bytes, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0))
    body = b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"\0" + row))
    return b"\x89PNG\r\n\x1a\n" + header + body + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "row", "key", "expected"),
    [
        (1, 0, b"\xa0", [0], [255, 255, 255, 255]),
        (1, 0, b"\xa0", [1], [255, 0, 255, 0]),
        (2, 0, b"\x1b", [2], [0, 85, 255, 255]),
        (4, 0, b"\x12\x3f", [2], [17, 255, 51, 255]),
        (8, 0, b"\x01\x02\x03\x04", [2], [1, 255, 3, 4]),
        (16, 0, struct.pack(">4H", 257, 514, 515, 0), [514], [1, 255, 2, 0]),
        (8, 2, bytes([9] * 3 + [8] * 9), [9, 9, 9], [255, 8, 8, 8]),
        (16, 2, struct.pack(">12H", *[0x1234] * 3, *[0x5678] * 9), [0x1234] * 3, [255, 0x56, 0x56, 0x56]),
    ],
)
def test_the_transparent_value_of_a_png_is_on_the_scale_of_its_samples(tmp_path, depth, colour, row, key, expected):
    path = tmp_path / "a.png"
    path.write_bytes(png(4, depth, colour, row, chunk(b"tRNS", struct.pack(f">{len(key)}H", *key))))
    assert shown(path)[0].tolist() == [[value] * 3 for value in expected]


@pytest.mark.parametrize(
    "suffix", ["rgb.png", "rgba.png", "key.png", "16.png", "float.tiff", "cmyk.tiff", "p.gif", "1.png"]
)
def test_a_large_picture_goes_in_strips_and_comes_out_the_same(tmp_path, suffix, monkeypatch):
    big = random_pixels(3, 70, 30)
    alpha = np.random.default_rng(4).integers(0, 256, (70, 30), np.uint8)
    image, options = {
        "rgb.png": (Image.fromarray(big), {}),
        "rgba.png": (Image.fromarray(np.dstack([big, alpha])), {}),
        "key.png": (Image.fromarray(big), {"transparency": tuple(big[5, 5].tolist())}),
        "16.png": (Image.fromarray(alpha.astype(np.uint16) * 200), {}),
        "float.tiff": (Image.fromarray(alpha.astype(np.float32) * 2 - 40), {}),
        "cmyk.tiff": (Image.frombytes("CMYK", (30, 70), np.dstack([big, alpha]).tobytes()), {}),
        "p.gif": (Image.fromarray(big).quantize(50), {"transparency": 3}),
        "1.png": (Image.fromarray(alpha > 99), {}),
    }[suffix]
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / suffix
    image.save(path, **options, **({} if suffix == "p.gif" else {"exif": exif}))
    whole = shown(path)
    monkeypatch.setattr(decode_module, "_AT_ONCE", 100)
    assert (shown(path) == whole).all()


def test_without_memory_the_picture_is_named(tmp_path, monkeypatch):
    def none(image, key, path):
        raise MemoryError

    Image.fromarray(RGB).save(tmp_path / "a.png")
    monkeypatch.setattr(decode_module, "_as_rgb", none)
    with pytest.raises(MemoryError, match=r"a\.png, 10 x 12 pixels"):
        decode(tmp_path / "a.png")


def test_a_tile_that_is_larger_than_any_picture_may_be_is_refused(tmp_path):
    def tag(number: int, value: int) -> bytes:
        return struct.pack("<HHII", number, 4, 1, value)

    entries = {256: 8, 257: 8, 258: 8, 259: 8, 262: 1, 277: 1, 322: 40000, 323: 40000, 324: 8, 325: 100}
    data = b"II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(tag(*entry) for entry in entries.items())
    (tmp_path / "a.tiff").write_bytes(data + bytes(200))
    with pytest.raises(BadImage, match="too large: tiles of 40000 x 40000 pixels"):
        decode(tmp_path / "a.tiff")


def test_a_decompression_bomb_is_refused_before_it_goes_off(tmp_path):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    for limit in (Image.MAX_IMAGE_PIXELS, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
            with pytest.raises(BadImage, match="too large"):
                decode(tmp_path / "a.png")


def test_a_jpeg_read_for_a_side_stays_twice_as_large_and_looks_the_same(tmp_path):
    y, x = np.mgrid[0:800, 0:1200]
    smooth = np.dstack([x * 255 / 1200, y * 255 / 800, (x + y) * 255 / 2000]).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=95)
    reduced = decode(tmp_path / "a.jpg", 64)
    assert reduced.size == (300, 200)
    whole = to_square(decode(tmp_path / "a.jpg"), 64).astype(int)
    assert abs(to_square(reduced, 64) - whole).max() <= 2


@pytest.mark.parametrize("size", [(300, 200), (200, 300), (97, 131), (40, 30), (64, 64)])
def test_a_square_is_resize_then_centre_crop(size):
    side = 64
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    smooth = np.dstack([x * 255 / size[0], y * 255 / size[1], 127 + 120 * np.sin(x / 9) * np.cos(y / 7)]).astype(
        np.uint8
    )
    image = Image.fromarray(smooth)
    scale = side / min(size)
    resized = image.resize((round(size[0] * scale), round(size[1] * scale)), Image.Resampling.BILINEAR)
    left, top = (resized.width - side) // 2, (resized.height - side) // 2
    plain = np.asarray(resized.crop((left, top, left + side, top + side))).astype(int)
    square = to_square(image, side)
    assert square.shape == (side, side, 3)
    assert square.dtype == np.uint8
    assert abs(square - plain).mean() < 3  # half a pixel of the crop at most


def test_a_square_of_even_sizes_is_exactly_the_crop():
    image = Image.fromarray(random_pixels(5, 128, 256))
    plain = np.asarray(image.resize((128, 64), Image.Resampling.BILINEAR).crop((32, 0, 96, 64)))
    assert (to_square(image, 64) == plain).all()


@pytest.mark.parametrize("size", [(20000, 1), (1, 20000)])
def test_a_line_of_pixels_takes_no_memory(tmp_path, size):
    Image.new("RGB", size, (10, 20, 30)).save(tmp_path / "a.png")
    tracemalloc.start()
    square = to_square(decode(tmp_path / "a.png", 256), 256)
    assert (square == [10, 20, 30]).all()
    # Pillow's own memory is not traced; had it made 5 million x 256 pixels, it would have failed
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()
