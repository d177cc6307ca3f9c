"""How far to go: which number of removed blocks to train in full next. Needs no torch.

What a number is worth is known only after a full training, so as few as possible are asked for. The short trainings on
the way say where to look: a full one wins most of the difference between two of them back, and what it is between two
numbers is told from one that was trained in full already. Accuracy does not fall strictly with every block, so the
neighbours beyond the edge that look no worse than it get their chance too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

LEFT = 0.3
"""Of a difference between two short trainings, so much is left of it between the full ones."""

MENDED = 0.1
"""Of the errors after a short training with no block removed, a full one is expected to mend so much."""


def next_probe(tried: Mapping[int, float], screened: Sequence[float], wanted: float) -> int | None:
    """The next number of removed blocks to train in full, or None when the edge is known.

    tried: number -> the full training's accuracy. screened[k]: the accuracy with k blocks removed after the short
    training. Everything in percent.
    """
    last = len(screened) - 1

    def hopeful(known: Mapping[int, float], numbers: range) -> list[int]:
        """Those of `numbers` that come up to what is wanted, told from each of `known`."""
        return [
            k for k in numbers if all(full + LEFT * (screened[k] - screened[i]) >= wanted for i, full in known.items())
        ]

    if not tried:
        # half of them or more: what went too far is a short training, and soon given up
        promised = hopeful({0: screened[0] + MENDED * (100 - screened[0])}, range(last + 1))
        return max((len(screened) // 2, *promised))
    good = max((k for k, full in tried.items() if full >= wanted), default=None)
    bad = min((k for k, full in tried.items() if full < wanted and (good is None or k > good)), default=None)
    growing = 2 ** (len(tried) - 1)  # whatever the short trainings say, the edge is not crept up to
    if good is None:
        assert bad is not None
        # not where the short trainings say: on both sets where that was far below, the neighbour would have done
        return None if bad == 0 else bad - _at_most_half(growing, bad)
    if bad is None:
        above = hopeful({good: tried[good]}, range(good + 1, last + 1))
        return None if good == last else max(good + _at_most_half(growing, last - good), max(above, default=good))
    gap = bad - good
    if gap > 1:
        third = -(-gap // 3)
        guess = max(hopeful({good: tried[good], bad: tried[bad]}, range(good + 1, bad)), default=good + gap // 2)
        return min(max(guess, good + third), bad - third)
    beyond = bad + 1
    if beyond <= last and beyond not in tried and screened[beyond] >= screened[bad]:
        return beyond
    return None


def _at_most_half(step: int, way: int) -> int:
    """`step`, but no more than half of a `way` of one or more, rounded up."""
    return min(step, -(-way // 2))
