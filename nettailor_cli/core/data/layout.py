"""A folder that `read_dataset` reads, laid out picture by picture: TO/SPLIT/CLASS/NAME, or TO/CLASS/NAME.

Pictures that are files become hard links, or copies where the file system has none; arrays are written as PNG.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nettailor_cli.core.data.folders import IMAGE_SUFFIXES
from nettailor_cli.core.errors import DataError, UsageError

NO_SPLIT = ""
_UNFIT = re.compile(r'[\x00-\x1f/\\:*?"<>|]')
"""What some file system or other does not take in a name."""


class Layout:
    """The folder while it is being made. `counts`: pictures so far, by (split, class folder)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.counts: Counter[tuple[str, str]] = Counter()
        self._classes: dict[str, str] = {}

    def add(self, split: str, name: str, file: str, picture: Path | Image.Image | np.ndarray[Any, Any]) -> Path:
        """One picture of class `name` as `file`, without an ending; the path that it got.

        A path is linked when the tool can read such files, else converted; arrays are uint8 (H, W) or (H, W, 3).
        Raises DataError when there is no such file, when one of this name is there already, and when two classes would
        share a folder.
        """
        folder = self._folder_of(name)
        place = self.folder / split / folder
        place.mkdir(parents=True, exist_ok=True)
        linked = isinstance(picture, Path) and picture.suffix.lower() in IMAGE_SUFFIXES
        target = place / (file + (picture.suffix.lower() if isinstance(picture, Path) and linked else ".png"))
        if target.exists():
            raise DataError(f"{split}/{folder} has two pictures called {target.name}")
        if isinstance(picture, Path):
            if not picture.is_file():
                raise DataError(f"{picture} is missing: is the download complete, and unpacked?")
            if linked:
                _link(picture, target)
            else:
                with Image.open(picture) as opened:
                    opened.save(target)
        else:
            image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
            image.save(target)
        self.counts[split, folder] += 1
        return target

    def again(self, path: Path, file: str) -> None:
        """A picture that `add` gave `path` once more, beside itself, under another name."""
        split, folder = path.parent.relative_to(self.folder).parts
        _link(path, path.with_name(file + path.suffix))
        self.counts[split, folder] += 1

    def remove(self, path: Path) -> None:
        """A picture that `add` gave `path`."""
        split, folder = path.parent.relative_to(self.folder).parts
        path.unlink()
        self.counts[split, folder] -= 1

    def images(self) -> dict[str, int]:
        """Pictures per split."""
        found: Counter[str] = Counter()
        for (split, _), count in self.counts.items():
            found[split] += count
        return dict(found)

    def _folder_of(self, name: str) -> str:
        folder = folder_name(name)
        if self._classes.setdefault(folder, name) != name:
            raise DataError(f"the classes {self._classes[folder]!r} and {name!r} would share the folder {folder}")
        return folder


@contextlib.contextmanager
def laying_out(to: Path) -> Iterator[Layout]:
    """A Layout beside `to`, which becomes `to` when the body is through, and goes when it fails.

    Raises UsageError when `to` is there already.
    """
    if to.exists():
        raise UsageError(f"{to} is there already", "remove it, or name another folder")
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{to.name}.", suffix=".unfinished", dir=to.parent))
    try:
        unfinished.chmod(0o755)  # mkdtemp makes it private; data is an ordinary folder
        yield Layout(unfinished)
        unfinished.rename(to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def folder_name(name: str) -> str:
    """A class name as a folder's: "Ram C/V Van" -> "Ram C-V Van". Never hidden, never empty."""
    return _UNFIT.sub("-", name).strip().lstrip(".") or "-"


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, too many links, a file system without them
        shutil.copyfile(source, target)
