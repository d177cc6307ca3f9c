"""Which side a picture is on is a property of its name: val iff hash(seed, key) < val_fraction, hash uniform in [0, 1).

With a `fold` f above 0, for cross-validation, iff f * val_fraction <= hash < (f + 1) * val_fraction.

So adding or removing a file moves no other. The key is the picture's name or, with a group pattern, what the pattern
finds in it: everything of one group (a track, a patient) is on one side. Two rules come on top, and only they can make
one file's side depend on others; they too move whole groups:
  1. a class that would be in val with all it has keeps its group of the largest hash in train;
  2. if nothing at all is in val, the group of the smallest hash that no class loses its last picture by goes there
     (in fold 0; another fold without pictures is an error).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

from nettailor_cli.core.data.dataset import SPLITS, Dataset, Example
from nettailor_cli.core.data.grouping import group_keys
from nettailor_cli.core.errors import DataError, UsageError


def divide(
    examples: Sequence[Example], *, seed: int, group: str | None = None, val_fraction: float = 0.2, fold: int = 0
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """Part `examples` into (train, val), both in the given order. Every class of `examples` keeps one in train.

    `group` is a regular expression searched in each name: its first capture group is the key, or the whole match when
    it has none. val is empty only where rule 2 finds nothing to move (say, one picture per class).
    Raises UsageError for a pattern that is none or takes too long, a fraction outside (0, 1) and a fold that there is
    not, DataError for a name that the pattern does not match and when everything is one group.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"the validation fraction must lie between 0 and 1, not {val_fraction:g}")
    if not 0 <= fold < folds(val_fraction):
        last = folds(val_fraction) - 1
        raise UsageError(f"--fold {fold}: with a validation fraction of {val_fraction:g} there are folds 0 to {last}")
    keys = [example.name for example in examples] if group is None else group_keys(examples, group)
    position = {key: _position(seed, key) for key in keys}
    if group is not None and len(position) == 1:
        raise DataError(
            f'--group "{group}" puts all {len(keys)} images into one group, "{keys[0]}"',
            "a group is what must not be parted; nothing is left for validation. Provide val/ or another pattern",
        )
    keys_of_class: dict[int, set[str]] = {}
    classes_of_key: dict[str, set[int]] = {}
    for example, key in zip(examples, keys, strict=True):
        keys_of_class.setdefault(example.label, set()).add(key)
        classes_of_key.setdefault(key, set()).add(example.label)

    ascending = sorted(position, key=lambda key: (position[key], key))
    in_val = {key for key in ascending if fold * val_fraction <= position[key] < (fold + 1) * val_fraction}
    for label in sorted(keys_of_class):
        if keys_of_class[label] <= in_val:  # rule 1
            in_val.remove(max(keys_of_class[label], key=lambda key: (position[key], key)))
    if not in_val and fold:
        raise DataError(f"fold {fold} is empty: no group of pictures falls into it", "more groups, or another --fold")
    if not in_val:  # rule 2
        movable = (key for key in ascending if all(len(keys_of_class[label]) > 1 for label in classes_of_key[key]))
        in_val.update(key for key in [next(movable, None)] if key is not None)
    return (
        tuple(example for example, key in zip(examples, keys, strict=True) if key not in in_val),
        tuple(example for example, key in zip(examples, keys, strict=True) if key in in_val),
    )


def folds(val_fraction: float) -> int:
    """How many parts of this size, sharing nothing, there are."""
    return math.floor(1 / val_fraction + 1e-9)


def select(dataset: Dataset, split: str) -> tuple[Example, ...]:
    """The examples of 'train', 'val', 'test', or 'all' of them in this order. DataError when there is no such split."""
    if split == "all":
        return tuple(example for name in SPLITS for example in dataset.splits.get(name, ()))
    if split not in dataset.splits:
        there = [name for name in SPLITS if name in dataset.splits]
        raise DataError(f"{dataset.root} has no {split} images", f"choose --split {' | '.join([*there, 'all'])}")
    return dataset.splits[split]


def _position(seed: int, key: str) -> float:
    """Uniform in [0, 1), the same on every machine. Names need not be valid UTF-8."""
    digest = hashlib.sha256(f"{seed}\n{key}".encode("utf-8", "surrogateescape")).digest()
    return (int.from_bytes(digest[:8], "big") >> 11) / 2**53  # 53 bits: all that a float holds, so never 1.0
