"""SVHN, format 2 (cropped digits, 32 x 32 px): train_32x32.mat and test_32x32.mat, as PNGs in classes 0 to 9.

    python examples/recipes/svhn.py SOURCE TO          # SOURCE holds the two files

X is (32, 32, 3, N), y has labels 1 to 10, of which 10 is the digit 0. The larger "extra" set is not used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import TEST, TRAIN, main, matlab

from nettailor_cli.core.data.layout import Layout


def read(source: Path, layout: Layout) -> None:
    for split in (TRAIN, TEST):
        document = matlab(source / f"{split}_32x32.mat")
        pictures, labels = document["X"], np.atleast_1d(document["y"])
        for index, label in enumerate(labels):
            layout.add(split, str(int(label) % 10), f"{index:06}", np.ascontiguousarray(pictures[..., index]))


if __name__ == "__main__":
    main(read, __doc__)
