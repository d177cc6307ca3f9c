"""Pascal VOC 2012: every annotated object cut out by its box, 1000 of each class to train on.

    python examples/recipes/voc2012.py VOCdevkit/VOC2012 TO

ImageSets/Main/train.txt becomes train and val, val.txt becomes test: the boxes of VOC's own test set are not public.
One picture in five of train.txt, by a hash of its name, gives its objects to val, so that no object of one picture is
on both sides. A class with more than --balance objects in train keeps as many, by a hash of their names; one with fewer
has them repeated in turn. val and test stay as they are.

A box is widened by --margin of its width to the left and to the right, of its height above and below, and clipped at
the picture's border; the cut is resized straight to --size. Objects marked "difficult" are left out, as VOC's own
evaluation does (--difficult keeps them); "truncated" and "occluded" ones stay in. The paper says "20 % margin" and
"1000 each", not how either is meant, nor what became of the difficult ones: this is our reading.
"""

from __future__ import annotations

import hashlib
import itertools
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

from common import SIZE, SIZE_OPTION, TEST, TRAIN, VAL, Box, cut, main, present, straight

from nettailor_cli.core.data import Example, divide
from nettailor_cli.core.data.layout import Layout
from nettailor_cli.core.errors import DataError

MARGIN, BALANCE, VAL_FRACTION, SEED = 0.2, 1000, 0.2, 0


def objects(annotation: Path) -> list[tuple[str, Box, bool]]:
    """The objects of one picture in the file's order: class, box without margin, whether it is difficult."""
    try:
        root = ElementTree.parse(present(annotation)).getroot()
    except ElementTree.ParseError as error:
        raise DataError(f"{annotation} is not XML: {error}") from error
    found = []
    for node in root.findall("object"):
        box = node.find("bndbox")
        if box is None:
            raise DataError(f"{annotation}: an object has no box")
        corners = [float(box.findtext(corner, "nan")) for corner in ("xmin", "ymin", "xmax", "ymax")]
        found.append((node.findtext("name", ""), Box.matlab(*corners), node.findtext("difficult", "0").strip() == "1"))
    return found


def read(
    source: Path,
    layout: Layout,
    *,
    margin: float = MARGIN,
    balance: int = BALANCE,
    size: int = SIZE,
    difficult: bool = False,
) -> None:
    def add(split: str, picture: str) -> list[tuple[str, Path]]:
        """Cut the objects of a picture out: their classes and files."""
        added = []
        for index, (name, box, hard) in enumerate(objects(source / "Annotations" / f"{picture}.xml")):
            if difficult or not hard:
                image = cut(source / "JPEGImages" / f"{picture}.jpg", box.with_margin(margin))
                added.append((name, layout.add(split, name, f"{picture}-{index:02}", straight(image, size))))
        return added

    for picture in _pictures(source, "val"):
        add(TEST, picture)
    by_class: dict[str, list[Path]] = defaultdict(list)
    train, val = divide(
        [Example(source, picture, 0) for picture in _pictures(source, "train")], seed=SEED, val_fraction=VAL_FRACTION
    )
    for example in val:
        add(VAL, example.name)
    for example in train:
        for name, file in add(TRAIN, example.name):
            by_class[name].append(file)
    for files in by_class.values():
        _balance(layout, files, balance)


def _pictures(source: Path, image_set: str) -> list[str]:
    return present(source / "ImageSets" / "Main" / f"{image_set}.txt").read_text().split()


def _balance(layout: Layout, files: list[Path], wanted: int) -> None:
    order = sorted(files, key=lambda file: hashlib.sha256(f"{SEED}\n{file.stem}".encode()).digest())
    for file in order[wanted:]:
        layout.remove(file)
    rounds = ((file, turn) for turn in itertools.count(2) for file in order)
    for file, turn in itertools.islice(rounds, max(0, wanted - len(order))):
        layout.again(file, f"{file.stem}-again{turn:03}")


if __name__ == "__main__":
    main(
        read, __doc__,
        ("--margin", {"type": float, "default": MARGIN, "help": "share of the box added on every side (0.2)"}),
        ("--balance", {"type": int, "default": BALANCE, "help": "objects of each class in train (1000)"}),
        SIZE_OPTION,
        ("--difficult", {"action": "store_true", "help": "keep the objects that are marked difficult"}),
    )  # fmt: skip
