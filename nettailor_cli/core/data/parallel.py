"""The same work on many items, in threads, results in order. Pillow and hashlib let go of the interpreter lock."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_CHUNK = 16  # items per task: a million pictures must not become a million futures


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_parallel(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[Result]:
    """Yield `work(item)` for every item, in order; what `work` raises is raised here. At least one thread is used.

    When the iterator is left early (an error, Ctrl-C), what has not begun is dropped.
    """

    def work_on(start: int) -> list[Result]:
        return [work(item) for item in items[start : start + _CHUNK]]

    pool = ThreadPoolExecutor(max(1, workers), thread_name_prefix="nettailor-data")
    try:
        for results in pool.map(work_on, range(0, len(items), _CHUNK)):
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)
