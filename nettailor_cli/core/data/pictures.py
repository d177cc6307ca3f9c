"""Every picture decoded once, squared and kept as uint8; the augmentation of every epoch starts from there.

All of them are looked at before anything is trained, so a broken file costs a minute and not a night. Where they don't
fit into memory they are decoded again each time: slower, the same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nettailor_cli.core.data.dataset import Example
from nettailor_cli.core.data.decode import BadImage, read_square
from nettailor_cli.core.data.parallel import in_parallel
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.progress import Progress

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
_MENTIONED = 3  # broken files in a warning


class Pictures:
    """N square pictures and their labels. `fetch` maps indices (M,) to their pixels (M, side, side, 3)."""

    def __init__(
        self,
        examples: Sequence[Example],
        fetch: Callable[[np.ndarray[Any, Any]], Pixels],
        skipped: Sequence[tuple[Path, str]] = (),
    ) -> None:
        self.examples = tuple(examples)
        self.labels = torch.tensor([example.label for example in examples], dtype=torch.int64)  # (N,)
        self.skipped = list(skipped)
        self._fetch = fetch

    def __len__(self) -> int:
        return len(self.examples)

    def take(self, indices: np.ndarray[Any, Any]) -> torch.Tensor:
        """The pictures at `indices` (any order, repeats allowed): uint8, with shape (M, 3, side, side), channels last.

        Raises BadImage when they are decoded as they are used and a file has gone bad since it was checked.
        """
        return torch.from_numpy(self._fetch(indices)).permute(0, 3, 1, 2)

    def divide(self, first: Callable[[Example], bool]) -> tuple[Pictures, Pictures]:
        """Those whose example is `first`, and the others; no pixel is copied."""
        sides: tuple[list[int], list[int]] = ([], [])
        for index, example in enumerate(self.examples):
            sides[not first(example)].append(index)
        return self._part(np.array(sides[0], np.int64)), self._part(np.array(sides[1], np.int64))

    def _part(self, rows: np.ndarray[Any, Any]) -> Pictures:
        return Pictures([self.examples[row] for row in rows], lambda indices: self._fetch(rows[indices]))


def load_pictures(
    examples: Sequence[Example],
    side: int,
    *,
    workers: int,
    progress: Progress,
    memory_limit: int,
    skip_bad: bool = False,
    only_check: Sequence[Example] = (),
) -> Pictures:
    """Decode `examples` in `workers` threads to `side` x `side`, and keep them if they fit into `memory_limit` bytes.

    Those of `only_check` are looked at and not kept: what is broken among them comes out with the rest.
    Raises DataError when there is nothing to read, when files are broken (all of them are listed; with `skip_bad` they
    are left out, with a warning) and when a class has none but broken ones.
    """
    if not examples:
        raise DataError("there are no images to read")
    needed = len(examples) * side * side * 3
    kept_in_memory = needed <= memory_limit
    what = f"{len(examples)} images at {side} x {side} take {_size(needed)}"
    if kept_in_memory:
        progress.note(f"images are kept in memory: {what}, the limit is {_size(memory_limit)}")
    else:
        progress.note(f"images are decoded as they are used: {what}, more than the limit of {_size(memory_limit)}")
    pixels: Pixels = np.empty((len(examples) if kept_in_memory else 0, side, side, 3), np.uint8)

    everything = [*examples, *only_check]

    def read(index: int) -> str:
        """Why it can't be read, or nothing."""
        try:
            square = read_square(everything[index].path, side)
        except BadImage as error:
            return error.reason
        if index < len(pixels):
            pixels[index] = square
        return ""

    good, bad = [], []
    progress.start("reading images", len(everything))
    for index, reason in enumerate(in_parallel(read, range(len(everything)), workers)):
        if reason:
            bad.append((everything[index], reason))
        elif index < len(examples):
            good.append(index)
        progress.advance()
    progress.finish(f"{len(everything) - len(bad)} images read" + (f", {len(bad)} can't be read" if bad else ""))
    if bad:
        _report_bad(bad, len(everything), skip_bad, progress)
        kept_labels = {examples[index].label for index in good}
        _refuse_lost_classes(bad, kept_labels | {example.label for example in only_check})

    kept = [examples[index] for index in good]
    skipped = [(example.path, reason) for example, reason in bad]
    if not kept_in_memory:
        return Pictures(kept, _Decoder([example.path for example in kept], side, workers), skipped)
    for to, index in enumerate(good):  # close the gaps in place: a second array might not fit
        if to != index:
            pixels[to] = pixels[index]
    return Pictures(kept, pixels[: len(kept)].__getitem__, skipped)


class _Decoder:
    """Pixels straight from the files. Its threads end when nothing refers to it any more."""

    def __init__(self, paths: Sequence[Path], side: int, workers: int) -> None:
        self._paths = paths
        self._side = side
        self._pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="nettailor-decode")

    def __call__(self, indices: np.ndarray[Any, Any]) -> Pixels:
        out = np.empty((len(indices), self._side, self._side, 3), np.uint8)
        squares = self._pool.map(lambda index: read_square(self._paths[index], self._side), indices)
        for row, square in zip(out, squares, strict=True):
            row[...] = square
        return out


def _report_bad(bad: Sequence[tuple[Example, str]], total: int, skip_bad: bool, progress: Progress) -> None:
    if skip_bad:
        named = _named(bad, _MENTIONED, "; ")
        progress.warn(f"{len(bad)} of {total} images can't be read and are left out: {named}")
    else:
        raise DataError(
            f"{len(bad)} of {total} images can't be read:\n  " + _named(bad, len(bad), "\n  "),
            "repair or remove them, or leave them out with --skip-bad-images",
        )


def _refuse_lost_classes(bad: Sequence[tuple[Example, str]], labels_left: set[int]) -> None:
    lost = sorted({example.name.split("/")[0] for example, _ in bad if example.label not in labels_left})
    if lost:
        raise DataError(f"not one image can be read of class {', '.join(lost)}", "repair them, or remove the class")


def _named(bad: Sequence[tuple[Example, str]], limit: int, separator: str) -> str:
    lines = [f"{example.path}: {reason}" for example, reason in bad[:limit]]
    return separator.join(lines + ([f"... and {len(bad) - limit} more"] if len(bad) > limit else []))


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
