"""WikiArt from lists of files: lines "path,class number" for train and val, and a list of classes "number name".

    python examples/recipes/wikiart.py SOURCE TO --lists "WikiArt Dataset/Style" --task style

SOURCE is the unpacked wikiart.zip of the ArtGAN project; its lists, TASK_train.csv, TASK_val.csv and TASK_class.txt for
artist, genre and style, lie in that project's repository. Their val becomes test.

These are NOT the paper's 195 classes with 42,129 + 10,628 pictures: PackNet's and Piggyback's own split was given out
as a folder wikiart/train/CLASS and wikiart/test/CLASS, which the tool reads as it is (--data wikiart); we know of no
list of it.
"""

from __future__ import annotations

import csv
from pathlib import Path

from common import TEST, TRAIN, main, present, table

from nettailor_cli.core.data.layout import Layout
from nettailor_cli.core.errors import DataError


def read(source: Path, layout: Layout, *, lists: Path, task: str = "style") -> None:
    names = table(lists / f"{task}_class.txt")
    for split, file in ((TRAIN, f"{task}_train.csv"), (TEST, f"{task}_val.csv")):
        with present(lists / file).open(encoding="utf-8", newline="") as stream:
            for number, (path, *rest) in enumerate(csv.reader(stream), 1):
                if len(rest) != 1 or rest[0].strip() not in names:
                    raise DataError(f"line {number} of {lists / file} is not a path and one of {len(names)} classes")
                # one file name may stand in several folders of styles
                stem = "-".join(Path(path).with_suffix("").parts)
                layout.add(split, names[rest[0].strip()], stem, source / path)


if __name__ == "__main__":
    main(
        read, __doc__,
        ("--lists", {"type": Path, "required": True, "help": "the folder with the three lists of the task"}),
        ("--task", {"default": "style", "choices": ("artist", "genre", "style"), "help": "(style)"}),
    )  # fmt: skip
