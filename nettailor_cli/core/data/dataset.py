"""What was found in a folder: which pictures, of which class, in which split. Nothing here opens a picture.

The digest is over contents and names, not over paths: the same pictures in another place are the same dataset.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from nettailor_cli.core.data.parallel import in_parallel
from nettailor_cli.core.files import sha256_of
from nettailor_cli.core.progress import Progress, Silent

SPLITS = ("train", "val", "test")
UNREADABLE = "unreadable"
_HASHING_THREADS = 8  # reading is what takes the time, and a disk is busy with about this many


@dataclass(frozen=True)
class Example:
    """One picture: where it is, `name` ("CLASS/sub/file.jpg" below its split's folder), `label` (in the class list)."""

    path: Path
    name: str
    label: int


@dataclass(frozen=True)
class Dataset:
    """The pictures of every split that there is (keys out of SPLITS, none of them empty), sorted by name."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, tuple[Example, ...]]
    _contents: dict[Path, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def contents(self, examples: Sequence[Example], progress: Progress | None = None) -> list[str]:
        """The SHA-256 in hex of each one's file, or UNREADABLE. A file is read once, however often it is asked for.

        Whether one that can't be read is an error is for `load_pictures` to say.
        """
        progress = progress or Silent()
        unknown = [example.path for example in examples if example.path not in self._contents]
        progress.start("reading files", len(unknown))
        for path, content in zip(unknown, in_parallel(content_of, unknown, _HASHING_THREADS), strict=True):
            self._contents[path] = content
            progress.advance()
        progress.finish()
        return [self._contents[example.path] for example in examples]

    @cached_property
    def digest(self) -> str:
        """SHA-256 in hex over split, name, class and content of every picture; reads all the files."""
        rows = [(split, example) for split in sorted(self.splits) for example in self.splits[split]]
        contents = self.contents([example for _, example in rows])
        digest = hashlib.sha256()
        for (split, example), content in zip(rows, contents, strict=True):
            # JSON keeps the four apart whatever the names hold, and takes names that are not valid UTF-8
            digest.update(json.dumps([split, example.name, self.classes[example.label], content]).encode() + b"\n")
        return digest.hexdigest()

    def summary(self) -> dict[str, Any]:
        """For a model file: the folder's own name (never where it lies), number of classes, images per split."""
        return {
            "name": self.root.resolve().name,
            "classes": len(self.classes),
            "images": {split: len(examples) for split, examples in self.splits.items()},
        }


def content_of(path: Path) -> str:
    """The SHA-256 of a file in hex, or UNREADABLE."""
    try:
        return sha256_of(path)
    except OSError:
        return UNREADABLE
