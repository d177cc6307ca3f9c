"""CUB-200-2011: images.txt, image_class_labels.txt, classes.txt, train_test_split.txt, bounding_boxes.txt and images/.

    python examples/recipes/cub200.py CUB_200_2011 TO

Every line of a list is "ID VALUE"; boxes are "x y width height". As in Piggyback, the bird is cut out by its box and
resized straight to --size; --whole takes the pictures as they are.
"""

from __future__ import annotations

from pathlib import Path

from common import SIZE, SIZE_OPTION, TEST, TRAIN, WHOLE_OPTION, Box, cut, main, straight, table

from nettailor_cli.core.data.layout import Layout


def read(source: Path, layout: Layout, *, size: int = SIZE, whole: bool = False) -> None:
    classes, labels = table(source / "classes.txt"), table(source / "image_class_labels.txt")
    trains, boxes = table(source / "train_test_split.txt"), table(source / "bounding_boxes.txt")
    for number, path in table(source / "images.txt").items():
        file = source / "images" / path
        left, top, width, height = map(float, boxes[number].split())
        picture = file if whole else straight(cut(file, Box(left, top, left + width, top + height)), size)
        layout.add(TRAIN if trains[number] == "1" else TEST, classes[labels[number]], file.stem, picture)


if __name__ == "__main__":
    main(read, __doc__, SIZE_OPTION, WHOLE_OPTION)
