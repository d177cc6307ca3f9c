"""The sketches of Eitz et al. (TU Berlin), 250 classes of 80: CLASS/NUMBER.png, the PNG download.

    python examples/recipes/sketch.py png TO [--train train.txt --test test.txt]

A list has a line "CLASS/NUMBER.png" per picture. Without lists, 64 of each class are train and 16 test, by a hash of
their names: 16,000 and 4,000, PackNet's and Piggyback's numbers, not their pictures. Their own split was given out as
a folder sketches/train/CLASS and sketches/test/CLASS, which the tool reads as it is; we know of no list of it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from common import TEST, TRAIN, main, present

from nettailor_cli.core.data.layout import Layout
from nettailor_cli.core.errors import DataError

TRAIN_SHARE = 0.8


def read(source: Path, layout: Layout, *, train: Path | None = None, test: Path | None = None) -> None:
    if (train is None) != (test is None):
        raise DataError("one list alone", "give --train and --test, or neither")
    if train is not None and test is not None:
        chosen = {split: present(file).read_text().splitlines() for split, file in ((TRAIN, train), (TEST, test))}
    else:
        chosen = _parted(source)
    for split, names in chosen.items():
        for name in filter(None, map(str.strip, names)):
            file = source / name
            layout.add(split, file.parent.name, file.stem, file)


def _parted(source: Path) -> dict[str, list[str]]:
    chosen: dict[str, list[str]] = {TRAIN: [], TEST: []}
    for folder in sorted(path for path in present(source).iterdir() if path.is_dir()):
        names = sorted((f"{folder.name}/{file.name}" for file in folder.glob("*.png")), key=_position)
        edge = round(TRAIN_SHARE * len(names))
        chosen[TRAIN] += names[:edge]
        chosen[TEST] += names[edge:]
    return chosen


def _position(name: str) -> bytes:
    return hashlib.sha256(name.encode()).digest()


if __name__ == "__main__":
    main(
        read, __doc__,
        ("--train", {"type": Path, "help": "list of the training pictures"}),
        ("--test", {"type": Path, "help": "list of the test pictures"}),
    )  # fmt: skip
