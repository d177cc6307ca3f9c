"""Tiny-ImageNet in its own layout, laid out as `nettailor --data` reads it: links, no copies.

    python examples/pretrain/tiny_imagenet.py tiny-imagenet-200 runs/tiny_imagenet/data

SOURCE has train/CLASS/images/*.JPEG, val/images/*.JPEG and val/val_annotations.txt (file name and class, tabs between).
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path


def lay_out(source: Path, to: Path) -> dict[str, int]:
    """TO/train/CLASS and TO/val/CLASS/*.JPEG as links into `source`; how many pictures each split has."""
    for folder in sorted((source / "train").iterdir()):
        link(to / "train" / folder.name, folder / "images")
    for line in (source / "val" / "val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        link(to / "val" / name / file, source / "val" / "images" / file)
    return {split: sum(1 for _ in (to / split).glob("*/*.JPEG")) for split in ("train", "val")}


def link(place: Path, target: Path) -> None:
    if not target.exists():
        sys.exit(f"{target} is missing: this is not Tiny-ImageNet's own folder")
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.is_symlink():
        place.symlink_to(target.resolve())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("to", type=Path)
    arguments = parser.parse_args()
    print(lay_out(arguments.source, arguments.to))
