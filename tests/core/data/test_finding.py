from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from nettailor_cli.core.data import find_images, images_from
from nettailor_cli.core.errors import DataError, UsageError

FILES = (
    "b.png",
    "a.JPG",
    "notes.txt",
    ".hidden.png",
    "in/2.webp",
    "in/10.gif",
    "in/deeper/z.tiff",
    "in/deeper/readme",
    "in/.secret/x.png",
    "in2/[odd] name*.png",
    "empty/nothing.md",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*names: str) -> list[str]:
    return [path.as_posix() for path in find_images([Path(name) for name in names])]


def test_a_folder_stands_for_the_visible_images_below_it(folder: Path) -> None:
    inside = ["in/10.gif", "in/2.webp", "in/deeper/z.tiff"]
    assert found("in") == inside
    assert found(".") == ["a.JPG", "b.png", *inside, "in2/[odd] name*.png"]
    assert find_images([folder / "in"]) == [folder / name for name in inside]
    assert found("in/.secret") == ["in/.secret/x.png"]  # named, so meant


def test_what_is_named_is_taken_as_it_is_and_in_this_order(folder: Path) -> None:
    names = ["notes.txt", "in/deeper/z.tiff", ".hidden.png", "b.png", "b.png", "in2/[odd] name*.png"]
    assert found(*names) == names
    assert found("b.png", "in/deeper", "a.JPG") == ["b.png", "in/deeper/z.tiff", "a.JPG"]


@pytest.mark.parametrize(
    "pattern", ["*.png", "*", "in/*", "*/*.webp", "**/*.tiff", "in*/[0-9].*", "**", "i?/**", "in/deeper/*", "*/deeper"]
)
def test_a_pattern_matches_as_fnmatch_does_part_by_part(folder: Path, pattern: str) -> None:
    """Against a second implementation: every visible image, or a folder above it, compared with the pattern."""

    def matches(parts: tuple[str, ...], wanted: tuple[str, ...]) -> bool:
        if not wanted:
            return not parts
        if wanted[0] == "**":
            return any(matches(parts[n:], wanted[1:]) for n in range(len(parts) + 1))
        return bool(parts) and fnmatch.fnmatchcase(parts[0], wanted[0]) and matches(parts[1:], wanted[1:])

    images = [Path(n) for n in sorted(FILES) if Path(n).suffix.lower() in (".png", ".jpg", ".webp", ".gif", ".tiff")]
    visible = [image for image in images if not any(part.startswith(".") for part in image.parts)]
    wanted = Path(pattern).parts
    expected = [i for i in visible if any(matches(i.parts[:n], wanted) for n in range(1, len(i.parts) + 1))]
    # the link is found where the pattern itself leads through it, never by ** or below a folder
    direct = [path for path in find_images([Path(pattern)]) if "loop" not in path.parts]
    assert direct == expected and expected
    assert [folder / path for path in direct] == [
        path for path in find_images([folder / pattern]) if "loop" not in path.parts
    ]


def test_every_image_comes_once_and_a_link_to_a_folder_above_ends(folder: Path) -> None:
    names = found("**")
    assert len(names) == len(set(names)) < 20


def test_nothing_there(folder: Path) -> None:
    for name in ("none.png", "in/none", "x" * 300):
        with pytest.raises(DataError, match=f"no file or folder {name}"):
            find_images([Path("b.png"), Path(name)])
    with pytest.raises(DataError, match="no images in empty"):
        find_images([Path("empty")])
    assert found("empty", "b.png") == ["b.png"]
    for pattern in ("*.jp2", "none/*.png", "empty/*", ".hid*", "in/.secret*/*.md"):
        with pytest.raises(DataError, match="no images match"):
            find_images([Path(pattern)])
    with pytest.raises((UsageError, DataError), match=r"a\*\*"):  # from Python 3.13 on ** inside a name is a *
        find_images([Path("a**b")])


def test_a_stream_of_names_is_taken_one_by_one(folder: Path) -> None:
    taken = []

    def names() -> Iterator[Path]:
        for name in itertools.cycle(("in", "none.png", "*.png", "x" * 300)):
            taken.append(name)
            yield Path(name)

    images = list(itertools.islice(images_from(names()), 6))
    inside = [Path("in/10.gif"), Path("in/2.webp"), Path("in/deeper/z.tiff")]
    assert images == [*inside, Path("none.png"), Path("*.png"), Path("x" * 300)]
    assert len(taken) == 4
