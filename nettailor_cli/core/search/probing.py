"""How far to go: which number of removed blocks to train in full next. Needs no torch.

Whether a number is within the tolerance is known only after a full training, so as few as possible are asked for. The
short trainings on the way say where to start; from there in growing steps to the edge, then halving. Accuracy does not
fall strictly with every block, so the neighbours beyond the edge that look no worse than it get their chance too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def first_probe(screened: Sequence[float], wanted: float, recovery: float) -> int:
    """The largest index whose screened accuracy is at least `wanted` minus `recovery`; 0 when there is none.

    screened[k] is the accuracy, in percent, with k blocks removed after the short training; `recovery` is what the full
    one is trusted to win back, in points.
    """
    return max((k for k, accuracy in enumerate(screened) if accuracy >= wanted - recovery), default=0)


def next_probe(tried: Mapping[int, bool], screened: Sequence[float], start: int) -> int | None:
    """The next index to train in full, or None when the edge is known.

    tried: index -> whether it was within the tolerance. start: where to begin, see `first_probe`.
    """
    last = len(screened) - 1
    if not tried:
        return start
    good = max((k for k, within in tried.items() if within), default=None)
    bad = min((k for k, within in tried.items() if not within and (good is None or k > good)), default=None)
    if good is None:
        assert bad is not None
        return None if bad == 0 else max(0, bad - 2 ** (len(tried) - 1))
    if bad is None:
        return None if good == last else min(last, good + 2 ** (len(tried) - 1))
    if bad - good > 1:
        return (good + bad) // 2
    beyond = bad + 1
    if beyond <= last and beyond not in tried and screened[beyond] >= screened[bad]:
        return beyond
    return None
