"""How blocks change height and width, and the pooling that does the same. Needs no torch.

Whatever slides a window of kernel k with stride s and padding p over H positions gives floor((H - d) / s) + 1 of them,
with d = k - 2p. Two in a row are one of stride s1 * s2 and d = d1 + s1 * (d2 - 1), at every size: so a pooling of that
stride and that d lands exactly where a row of blocks does. d = 1 rounds up (3x3 with padding 1), d = s rounds down (2x2
without), d = 3 is a 3x3 without padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Scaling:
    """H -> floor((H - inset) / stride) + 1, in height and width alike."""

    stride: int = 1
    inset: int = 1  # d above

    def then(self, following: Scaling) -> Scaling:
        """Both in a row."""
        return Scaling(self.stride * following.stride, self.inset + self.stride * (following.inset - 1))

    def of(self, size: int) -> int:
        return (size - self.inset) // self.stride + 1

    @property
    def changes(self) -> bool:
        return self != Scaling()

    @property
    def window(self) -> tuple[int, int, int]:
        """Kernel, stride and padding of a pooling that scales like this: the smallest kernel that leaves no gap.

        For strided convolutions with padding that is PAPER.md's kernel s + 1 and padding s // 2.
        """
        kernel = max(self.stride, self.inset)
        kernel += (kernel - self.inset) % 2
        return kernel, self.stride, (kernel - self.inset) // 2


def between(scalings: Sequence[Scaling], source: int, sink: int) -> Scaling:
    """The scaling from node `source` to node `sink`; `scalings` are those of blocks 1..L."""
    whole = Scaling()
    for scaling in scalings[source:sink]:
        whole = whole.then(scaling)
    return whole
