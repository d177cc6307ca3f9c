"""The picture files that somebody names: files, folders, patterns, or a stream of names that is still going on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from nettailor_cli.core.data.folders import IMAGE_SUFFIXES
from nettailor_cli.core.errors import DataError, UsageError

_MAGIC = frozenset("*?[")


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The image files among `paths`: first comes what the first path stands for, and within that by name.

    A folder stands for the images anywhere below it; a pattern (*, ?, [abc], and ** for folders at any depth) for the
    images that it matches and those below the folders that it matches. What is there under the very name is no pattern.
    A file that is named is taken whatever its ending is, what a folder or a pattern brings by its ending, and never
    when it is hidden. Raises DataError when a path is not there or nothing is found, UsageError for a wrong pattern.
    """
    found: list[Path] = []
    for path in paths:
        if _exists(path):
            found += _images_of(path)
        elif _MAGIC.isdisjoint(str(path)):
            raise DataError(f"there is no file or folder {path}")
        else:
            found += _matches(path)
    if not found:
        raise DataError(f"no images in {', '.join(map(str, paths))}")
    return found


def images_from(names: Iterable[Path]) -> Iterator[Path]:
    """The same for names as they come, none of them a pattern. One that is not there is passed on, to fail alone."""
    for name in names:
        yield from _images_of(name) if _exists(name) else [name]


def _images_of(path: Path) -> list[Path]:
    return _visible_images(path, path.rglob("*")) if path.is_dir() else [path]


def _matches(pattern: Path) -> list[Path]:
    first = next(place for place, part in enumerate(pattern.parts) if not _MAGIC.isdisjoint(part))
    base, rest = Path(*pattern.parts[:first]), str(Path(*pattern.parts[first:]))
    try:
        matches = sorted(base.glob(rest))
    except ValueError as error:  # "**" inside a name
        raise UsageError(f"{pattern} is no pattern: {error}") from error
    images = _visible_images(base, (image for match in matches for image in _images_of(match)))
    if not images:
        raise DataError(f"no images match {pattern}")
    return images


def _visible_images(top: Path, files: Iterable[Path]) -> list[Path]:
    """Those of `files`, all of them below `top`, that end like an image and are not hidden: by name, each once."""
    return sorted(
        {
            file
            for file in files
            if file.suffix.lower() in IMAGE_SUFFIXES
            and not any(part.startswith(".") for part in file.relative_to(top).parts)
            and file.is_file()
        }
    )


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that no file system would take
        return False
