"""Stanford Cars (196 classes), from either of the two forms in which it was given out.

    python examples/recipes/stanford_cars.py SOURCE TO

devkit      devkit/cars_train_annos.mat, devkit/cars_meta.mat, cars_test_annos_withlabels.mat (beside devkit/ or in it),
            cars_train/ and cars_test/
one file    cars_annos.mat, car_ims/

Boxes are corners counted from 1. As in Piggyback, the car is cut out by its box and resized straight to --size;
--whole takes the pictures as they are. The original page is gone; torchvision reads the first form, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import SIZE, SIZE_OPTION, TEST, TRAIN, WHOLE_OPTION, Box, cut, main, matlab, straight

from nettailor_cli.core.data.layout import Layout


def annotations(source: Path) -> Iterator[tuple[str, str, Path, Box]]:
    """Split, class, file and box of every picture."""
    if (source / "cars_annos.mat").exists():
        document = matlab(source / "cars_annos.mat")
        names = _names(document)
        for row in np.atleast_1d(document["annotations"]):
            yield (
                TEST if row["test"] else TRAIN,
                names[row["class"] - 1],
                source / str(row["relative_im_path"]),
                _box(row),
            )
        return
    devkit = source / "devkit"
    names = _names(matlab(devkit / "cars_meta.mat"))
    labels = "cars_test_annos_withlabels.mat"
    test = source / labels if (source / labels).exists() else devkit / labels
    for split, file in ((TRAIN, devkit / "cars_train_annos.mat"), (TEST, test)):
        for row in np.atleast_1d(matlab(file)["annotations"]):
            yield split, names[row["class"] - 1], source / f"cars_{split}" / str(row["fname"]), _box(row)


def read(source: Path, layout: Layout, *, size: int = SIZE, whole: bool = False) -> None:
    for split, name, file, box in annotations(source):
        layout.add(split, name, file.stem, file if whole else straight(cut(file, box), size))


def _names(document: dict[str, Any]) -> list[str]:
    return [str(name) for name in np.atleast_1d(document["class_names"])]


def _box(row: Any) -> Box:
    return Box.matlab(*(float(row[f"bbox_{corner}"]) for corner in ("x1", "y1", "x2", "y2")))


if __name__ == "__main__":
    main(read, __doc__, SIZE_OPTION, WHOLE_OPTION)
