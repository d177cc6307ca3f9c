from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from common import Box, cut, framed, matlab, straight
from PIL import Image

from nettailor_cli.core.data import Augmentation, central_crop, read_square
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.preprocessing import Preprocessing


def test_a_matlab_box_has_its_last_pixel() -> None:
    assert Box.matlab(11, 21, 60, 50) == Box(10, 20, 60, 50)


def test_a_margin_is_a_share_of_the_box_on_every_side() -> None:
    # 50 wide, 30 high; a fifth of each: 10 and 6
    assert Box(10, 20, 60, 50).with_margin(0.2) == Box(0, 14, 70, 56)


@pytest.mark.parametrize(
    ("box", "clipped"),
    [
        (Box(-10, -6, 70, 56), (0, 0, 70, 56)),  # left and top
        (Box(40, 14, 110, 92), (40, 14, 100, 80)),  # right and bottom
        (Box(45.7, 10.2, 50.1, 11.0), (45, 10, 51, 11)),  # fractions go outward
        (Box(120, 90, 130, 95), (99, 79, 100, 80)),  # outside: the nearest pixel
        (Box(5, 5, 5, 5), (5, 5, 6, 6)),  # never empty
    ],
)
def test_a_box_is_clipped_to_a_picture_of_100_by_80(box: Box, clipped: tuple[int, int, int, int]) -> None:
    assert box.within(100, 80) == clipped


def test_a_cut_has_the_pixels_of_the_box(tmp_path: Path) -> None:
    pixels = np.arange(100 * 80, dtype=np.uint16).reshape(80, 100) % 251
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "a.png")
    got = np.asarray(cut(tmp_path / "a.png", Box(3, 4, 8, 6)))
    assert got.shape == (2, 5, 3)
    assert (got[..., 0] == pixels[4:6, 3:8]).all()


@pytest.mark.parametrize(("shown", "size"), [(224, 224), (72, 72), (32, 32), (72, 64)])
def test_the_tool_sees_the_middle_of_a_framed_picture_untouched(shown: int, size: int, tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (shown, shown, 3), dtype=np.uint8)
    framed(Image.fromarray(pixels), size).save(tmp_path / "a.png")
    square = torch.from_numpy(read_square(tmp_path / "a.png", Preprocessing(size=size).resize).copy())
    images = square.permute(2, 0, 1)[None]  # (1, 3, S, S)
    first = (shown - size) // 2
    expected = torch.from_numpy(pixels[first : first + size, first : first + size].copy()).permute(2, 0, 1)[None]
    assert torch.equal((central_crop(images, size) * 255).round().to(torch.uint8), expected)
    none = Augmentation(kind="none", flip=False)
    assert torch.equal(none.apply(images, none.draw(1, 0, 0), size), central_crop(images, size)), "in training, too"


def test_straight_takes_the_whole_picture_whatever_its_shape() -> None:
    wide = Image.new("RGB", (200, 50), (255, 0, 0))
    wide.paste((0, 0, 255), (100, 0, 200, 50))
    pixels = np.asarray(straight(wide, 64))
    assert pixels.shape == (73, 73, 3)
    middle = pixels[36, 4:68]  # the 64 that are seen: red on the left half, blue on the right
    assert (middle[:30] == (255, 0, 0)).all() and (middle[-30:] == (0, 0, 255)).all()


def test_a_file_that_is_no_matlab_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.mat").write_bytes(b"<html>not found</html>" * 20)
    with pytest.raises(DataError, match=r"x\.mat can't be read"):
        matlab(tmp_path / "x.mat")
    with pytest.raises(DataError, match="is missing"):
        matlab(tmp_path / "y.mat")
