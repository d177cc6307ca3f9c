from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nettailor_cli.core.data.layout import NO_SPLIT, folder_name, laying_out
from nettailor_cli.core.errors import DataError, UsageError


def source(folder: Path, name: str = "a.jpg") -> Path:
    path = folder / name
    Image.new("RGB", (4, 4), (9, 9, 9)).save(path)
    return path


def test_files_are_linked_and_arrays_written_as_png(tmp_path: Path) -> None:
    picture = source(tmp_path)
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    with laying_out(tmp_path / "data") as layout:
        layout.add("train", "one", "x", picture)
        layout.add("train", "two", "y", pixels)
        layout.add(NO_SPLIT, "two", "gray", pixels[..., 0])
        assert layout.images() == {"train": 2, "": 1}
    assert (tmp_path / "data/train/one/x.jpg").samefile(picture)
    assert (np.asarray(Image.open(tmp_path / "data/train/two/y.png")) == pixels).all()
    assert np.asarray(Image.open(tmp_path / "data/two/gray.png")).shape == (4, 4)


def test_where_there_are_no_links_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*_: object) -> None:
        raise OSError(18, "another disk")

    monkeypatch.setattr(os, "link", no_link)
    picture = source(tmp_path)
    with laying_out(tmp_path / "data") as layout:
        layout.add("train", "one", "x", picture)
    copied = tmp_path / "data/train/one/x.jpg"
    assert copied.read_bytes() == picture.read_bytes() and not copied.samefile(picture)


def test_files_that_the_tool_does_not_read_become_png(tmp_path: Path) -> None:
    picture = source(tmp_path, "a.ppm")
    with laying_out(tmp_path / "data") as layout:
        layout.add("train", "one", "x", picture)
    assert np.asarray(Image.open(tmp_path / "data/train/one/x.png")).tolist() == np.full((4, 4, 3), 9).tolist()


def test_again_and_remove_change_the_counts(tmp_path: Path) -> None:
    with laying_out(tmp_path / "data") as layout:
        path = layout.add("train", "one", "x", source(tmp_path))
        layout.again(path, "x-2")
        layout.again(path, "x-3")
        layout.remove(path)
        assert layout.counts == {("train", "one"): 2}
    assert sorted(path.name for path in (tmp_path / "data/train/one").iterdir()) == ["x-2.jpg", "x-3.jpg"]


def test_what_fails_leaves_nothing_and_what_is_there_stays(tmp_path: Path) -> None:
    picture = source(tmp_path)
    with pytest.raises(DataError, match="missing"), laying_out(tmp_path / "data") as layout:
        layout.add("train", "one", "x", picture)
        layout.add("train", "one", "y", tmp_path / "none.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["a.jpg"]
    (tmp_path / "data").mkdir()
    with pytest.raises(UsageError, match="already"), laying_out(tmp_path / "data"):
        pass


def test_names_that_clash_are_refused(tmp_path: Path) -> None:
    picture = source(tmp_path)
    with pytest.raises(DataError, match="two pictures called"), laying_out(tmp_path / "data") as layout:
        layout.add("train", "one", "x", picture)
        layout.add("train", "one", "x", picture)
    with pytest.raises(DataError, match="share the folder a-b"), laying_out(tmp_path / "data") as layout:
        layout.add("train", "a/b", "x", picture)
        layout.add("train", "a-b", "y", picture)


@pytest.mark.parametrize(
    ("name", "folder"),
    [("Ram C/V Van", "Ram C-V Van"), (".hidden", "hidden"), (" x ", "x"), ("..", "-"), ('a:b*c?"', "a-b-c--")],
)
def test_folder_names(name: str, folder: str) -> None:
    assert folder_name(name) == folder
