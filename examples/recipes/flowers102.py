"""Oxford Flowers 102: jpg/image_NNNNN.jpg, imagelabels.mat (a label 1 to 102 per picture), setid.mat (who is where).

    python examples/recipes/flowers102.py SOURCE TO    # SOURCE holds jpg/ and the two .mat files

Classes are 001 to 102: the download has no names for them. As in the paper, and in Piggyback's, trnid and valid
together are train (2040 pictures), of which the tool sets its own val aside; --keep-val leaves the three as they are.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from common import TEST, TRAIN, VAL, main, matlab

from nettailor_cli.core.data.layout import Layout

_IDS = {TRAIN: "trnid", VAL: "valid", TEST: "tstid"}


def read(source: Path, layout: Layout, *, keep_val: bool = False) -> None:
    labels = np.atleast_1d(matlab(source / "imagelabels.mat")["labels"])
    ids = matlab(source / "setid.mat")
    for split, key in _IDS.items():
        for number in np.atleast_1d(ids[key]):
            file = source / "jpg" / f"image_{number:05}.jpg"
            to = TRAIN if split == VAL and not keep_val else split
            layout.add(to, f"{labels[number - 1]:03}", file.stem, file)


if __name__ == "__main__":
    main(read, __doc__, ("--keep-val", {"action": "store_true", "help": "val as published, not in train"}))
