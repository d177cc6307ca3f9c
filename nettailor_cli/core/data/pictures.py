"""Every picture decoded once, squared and kept as uint8; the augmentation of every epoch starts from there.

All of them are looked at before anything is trained, so a broken file costs a minute and not a night. They are kept in
the cache; where that can't be, in memory; where they don't fit there, they are decoded again each time: slower, the
same values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nettailor_cli.core.data.cache import Cache, Keep, NotCached
from nettailor_cli.core.data.cache_file import Pixels
from nettailor_cli.core.data.dataset import UNREADABLE, Dataset, Example, content_of
from nettailor_cli.core.data.decode import BadImage, read_square
from nettailor_cli.core.data.parallel import in_parallel
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.files import size_text
from nettailor_cli.core.progress import Progress

Fetch = Callable[[np.ndarray[Any, Any]], Pixels]
_MENTIONED = 3  # broken files in a warning
_LISTED = 1000  # in an error: enough to repair them in one go; a share that is not mounted has millions


class Pictures:
    """N square pictures and their labels. `fetch` maps indices (M,) to their pixels (M, side, side, 3)."""

    def __init__(
        self,
        examples: Sequence[Example],
        fetch: Fetch,
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
    dataset: Dataset,
    examples: Sequence[Example],
    side: int,
    *,
    workers: int,
    progress: Progress,
    memory_limit: int,
    cache: Cache | None = None,
    skip_bad: bool = False,
    only_check: Sequence[Example] = (),
) -> Pictures:
    """Decode `examples` of `dataset` in `workers` threads to `side` x `side`, or find them in the cache.

    Those of `only_check` are looked at and not returned: what is broken among them comes out with the rest.
    Raises DataError when there is nothing to read, when files are broken (up to 1000 are listed; with `skip_bad` they
    are left out, with a warning) and when a class has none but broken ones.
    """
    if not examples:
        raise DataError("there are no images to read")
    everything = _Reader(dataset, [*examples, *only_check], side, workers, progress)
    fetch, reasons = _load(everything, len(examples), cache, memory_limit)
    bad = [(everything.examples[index], reasons[index]) for index in sorted(reasons)]
    good = [index for index in range(len(examples)) if index not in reasons]
    if bad:
        _report_bad(bad, len(everything.examples), skip_bad, progress)
        kept_labels = {examples[index].label for index in good}
        _refuse_lost_classes(bad, kept_labels | {example.label for example in only_check})
    skipped = [(example.path, reason) for example, reason in bad]
    rows = np.array(good, np.int64)
    return Pictures([examples[index] for index in good], lambda indices: fetch(rows[indices]), skipped)


@dataclass(frozen=True)
class _Reader:
    """Turns files into pixels; indices are positions in `examples`."""

    dataset: Dataset
    examples: Sequence[Example]
    side: int
    workers: int
    progress: Progress

    def read(self, indices: Sequence[int], keep: Keep) -> dict[int, str]:
        """Decode those at `indices` and hand them to `keep`. Index -> reason of those that can't be read."""

        def read(index: int) -> str:
            try:
                keep(index, read_square(self.examples[index].path, self.side))
            except BadImage as error:
                return error.reason
            return ""

        reasons = {}
        self.progress.start("reading images", len(indices))
        for index, reason in zip(indices, in_parallel(read, indices, self.workers), strict=True):
            if reason:
                reasons[index] = reason
            self.progress.advance()
        good = f"{len(indices) - len(reasons)} images read"
        self.progress.finish(good + (f", {len(reasons)} can't be read" if reasons else ""))
        return reasons

    def empty(self, count: int) -> Pixels:
        return np.empty((count, self.side, self.side, 3), np.uint8)


def _load(images: _Reader, used: int, cache: Cache | None, memory_limit: int) -> tuple[Fetch, dict[int, str]]:
    """How to get at the first `used` of `images`; and, of all of them, index -> reason of those that can't be read."""
    why = ""
    if cache is not None:
        try:
            return _from_cache(images, cache)
        except NotCached as error:
            why = f"not in the cache ({error.message}): "
    needed = used * images.side**2 * 3
    what = f"{used} images at {images.side} x {images.side} take {size_text(needed)}"
    if needed <= memory_limit:
        images.progress.note(f"{why}images are kept in memory: {what}, the limit is {size_text(memory_limit)}")
        pixels = images.empty(used)

        def keep(index: int, square: Pixels) -> None:
            if index < used:
                pixels[index] = square

        return pixels.__getitem__, images.read(range(len(images.examples)), keep)
    images.progress.note(
        f"{why}images are decoded as they are used: {what}, more than the memory limit of {size_text(memory_limit)}"
    )
    reasons = images.read(range(len(images.examples)), lambda index, square: None)
    return _Decoder(images), reasons


def _from_cache(images: _Reader, cache: Cache) -> tuple[Fetch, dict[int, str]]:
    """As `_load`. Raises NotCached."""
    cache.check(len(images.examples), images.side)  # before all files are read for their keys
    keys = images.dataset.contents(images.examples, images.progress)
    reasons: dict[int, str] = {}

    def decode(indices: Sequence[int], keep: Keep) -> None:
        def keep_unchanged(index: int, square: Pixels) -> None:
            # a file that was replaced since its key was taken would be in the cache under a wrong one, for good
            path = images.examples[index].path
            if keys[index] == UNREADABLE or content_of(path) != keys[index]:
                raise BadImage(path, "changed while it was read")
            keep(index, square)

        reasons.update(images.read(indices, keep_unchanged))

    rows = cache.rows(keys, images.side, decode, workers=images.workers, progress=images.progress)
    places = [rows.get(key) for key in keys]

    def fetch(indices: np.ndarray[Any, Any]) -> Pixels:
        out = images.empty(len(indices))
        for to, index in zip(out, indices, strict=True):
            place = places[index]
            assert place is not None, "a picture without a reason has its pixels"
            file, row = place
            to[...] = file.pixels[row]
        return out

    return fetch, reasons


class _Decoder:
    """Pixels straight from the files. Its threads end when nothing refers to it any more."""

    def __init__(self, images: _Reader) -> None:
        self._images = images
        self._pool = ThreadPoolExecutor(max(1, images.workers), thread_name_prefix="nettailor-decode")

    def __call__(self, indices: np.ndarray[Any, Any]) -> Pixels:
        images = self._images
        out = images.empty(len(indices))
        squares = self._pool.map(lambda index: read_square(images.examples[index].path, images.side), indices)
        for row, square in zip(out, squares, strict=True):
            row[...] = square
        return out


def _report_bad(bad: Sequence[tuple[Example, str]], total: int, skip_bad: bool, progress: Progress) -> None:
    if skip_bad:
        named = "; ".join(_named(bad, _MENTIONED))
        progress.warn(f"{len(bad)} of {total} images can't be read and are left out: {named}")
    else:
        raise DataError(
            [f"{len(bad)} of {total} images can't be read:", *(f"  {line}" for line in _named(bad, _LISTED))],
            "repair or remove them, or leave them out with --skip-bad-images",
        )


def _refuse_lost_classes(bad: Sequence[tuple[Example, str]], labels_left: set[int]) -> None:
    lost = sorted({example.name.split("/")[0] for example, _ in bad if example.label not in labels_left})
    if lost:
        raise DataError(f"not one image can be read of class {', '.join(lost)}", "repair them, or remove the class")


def _named(bad: Sequence[tuple[Example, str]], limit: int) -> list[str]:
    lines = [f"{example.path}: {reason}" for example, reason in bad[:limit]]
    return lines + ([f"... and {len(bad) - limit} more"] if len(bad) > limit else [])
