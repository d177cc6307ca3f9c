"""Write scikit-learn's handwritten digits as PNGs: DIR/train/0..9 and DIR/test/0..9.

They are real images (UCI's optical digits, 8 x 8 pixels, 17 gray levels); a plain `pip install scikit-learn` brings
them along.

    python examples/digits.py DIR
"""

import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def main(folder: Path) -> None:
    digits = load_digits()
    unfinished = folder.with_name(folder.name + ".unfinished")  # so that an interrupted run leaves no half a set
    shutil.rmtree(unfinished, ignore_errors=True)
    for index, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        split = "test" if index % 4 == 3 else "train"
        picture = Image.fromarray((image * 255 / 16).round().astype(np.uint8))
        path = unfinished / split / str(label) / f"{index:04}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
    unfinished.rename(folder)
    print(f"wrote {len(digits.images)} pictures to {folder}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
