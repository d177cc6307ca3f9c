"""Random numbers without state: a counter-based generator keyed by (seed, epoch), one far-apart stream per purpose."""

from __future__ import annotations

import numpy as np

SHUFFLE, AUGMENT = 0, 1


def stream(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """The same numbers for the same three integers, always. Streams of two purposes are 2**192 blocks apart."""
    key = np.array([seed % 2**64, epoch % 2**64], np.uint64)
    return np.random.Generator(np.random.Philox(counter=np.array([0, 0, 0, purpose], np.uint64), key=key))
