"""The Visual Decathlon, version 1.0: annotations/SET_train.json, SET_val.json (COCO's form) and data/SET/...

    python examples/recipes/decathlon.py decathlon-1.0 TO [--sets dtd svhn] [--statistics decathlon_mean_std.pickle]

Makes TO/SET for each of the ten, and TO/statistics.json: mean and standard deviation of the channels of every set, on
the scale 0 to 1, from the pickle that the challenge's authors gave out, read without running it (`pickled.py`), or
measured here on the training pictures.

The challenge's test labels were not public (SET_test_stripped.json). Where annotations/SET_test.json is there, from
labels_test.zip of the authors' repository, train, val and test are the challenge's. Otherwise its val becomes test,
and the tool sets its own val aside from train.

Pictures come with a short side of 72 px (a few: 73). Of the sets that are used at 72 px the middle 72 x 72 is written,
with a border that the tool takes off again (`common.framed`); of those cropped to 64 px the files are linked. For 64 px
the tool resizes to 73, not 72, before it crops.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import TEST, TRAIN, VAL, errors_told, framed, present, summary
from pickled import read_arrays
from PIL import Image

from nettailor_cli.core.data.layout import Layout, laying_out
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.files import write_text

SIZES = {
    "imagenet12": 64, "aircraft": 72, "cifar100": 72, "daimlerpedcls": 72, "dtd": 72, "gtsrb": 72, "vgg-flowers": 64,
    "omniglot": 64, "svhn": 64, "ucf101": 64,
}  # fmt: skip
"""The input size of each set, in the order of the paper's table."""

SHORT_SIDE = 72
Statistics = dict[str, dict[str, list[float]]]


def examples(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Class and file name of every annotated picture of an annotation file."""
    classes = {category["id"]: category["name"] for category in document["categories"]}
    files = {image["id"]: image["file_name"] for image in document["images"]}
    for annotation in document["annotations"]:
        yield classes[annotation["category_id"]], files[annotation["image_id"]]


def read(source: Path, layout: Layout, *, name: str) -> None:
    """One set. Raises DataError."""
    labelled = (source / "annotations" / f"{name}_test.json").exists()
    parts = {TRAIN: TRAIN, VAL: VAL, TEST: TEST} if labelled else {TRAIN: TRAIN, TEST: VAL}
    for split, theirs in parts.items():
        for label, file in examples(_annotations(source / "annotations" / f"{name}_{theirs}.json")):
            path = source / file  # data/SET/train/CLASS/000001.jpg
            stem = f"{path.parent.name}-{path.stem}"
            layout.add(split, label, stem, _middle(path, SIZES[name]) if SIZES[name] == SHORT_SIDE else path)


def _annotations(file: Path) -> dict[str, Any]:
    try:
        document = json.loads(present(file).read_bytes())
    except ValueError as error:
        raise DataError(f"{file} is not JSON: {error}", "unpack the download again") from error
    missing = {"images", "annotations", "categories"} - set(document)
    if missing:
        raise DataError(f"{file} has no {', '.join(sorted(missing))}", "are these annotations without labels?")
    return document


def _middle(path: Path, size: int) -> Image.Image:
    with Image.open(present(path)) as opened:
        image = opened.convert("RGB")
    if min(image.size) != SHORT_SIDE:  # a few of aircraft and dtd have 73
        scale = SHORT_SIDE / min(image.size)
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BILINEAR)
    left, top = (image.width - SHORT_SIDE) // 2, (image.height - SHORT_SIDE) // 2
    return framed(image.crop((left, top, left + SHORT_SIDE, top + SHORT_SIDE)), size)


def measured(source: Path, name: str) -> dict[str, list[float]]:
    """Mean and standard deviation over all pixels of the training pictures."""
    count, total, squares = 0, np.zeros(3), np.zeros(3)
    for _, file in examples(_annotations(source / "annotations" / f"{name}_{TRAIN}.json")):
        with Image.open(present(source / file)) as image:
            pixels = np.asarray(image.convert("RGB"), dtype=np.float64).reshape(-1, 3) / 255
        count, total, squares = count + len(pixels), total + pixels.sum(0), squares + (pixels**2).sum(0)
    mean = total / count
    return {"mean": mean.tolist(), "std": np.sqrt(squares / count - mean**2).tolist()}


def published(file: Path, names: list[str]) -> Statistics:
    """The authors' statistics: a dictionary with SETmean and SETstd, three numbers each."""
    arrays = read_arrays(present(file).read_bytes())
    found = {}
    for name in names:
        values = {what: arrays.get(f"{name}{what}") for what in ("mean", "std")}
        if any(value is None or len(value) != 3 for value in values.values()):
            raise DataError(f"{file} has no mean and std of {name}")
        found[name] = {what: list(map(float, value or ())) for what, value in values.items()}
    return found


def lay_out(source: Path, to: Path, names: list[str], statistics: Path | None = None) -> None:
    """TO/SET for those of `names` that are not there yet, and TO/statistics.json."""
    for name in names:
        if (to / name).exists():
            print(f"{to / name} is there already")
            continue
        with laying_out(to / name) as layout:
            read(source, layout, name=name)
            print(summary(to / name, layout), flush=True)
    values = published(statistics, names) if statistics else {name: measured(source, name) for name in names}
    file = to / "statistics.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    write_text(file, json.dumps({**before, **values}, indent=1))
    print(f"{file}: {'as given out' if statistics else 'measured on train'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="decathlon-1.0")
    parser.add_argument("to", type=Path, metavar="TO")
    parser.add_argument("--sets", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--statistics", type=Path, help="decathlon_mean_std.pickle (default: measured)")
    arguments = parser.parse_args()
    with errors_told():
        lay_out(arguments.source, arguments.to, arguments.sets, arguments.statistics)


if __name__ == "__main__":
    main()
