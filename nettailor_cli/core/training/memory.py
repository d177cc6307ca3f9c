"""What trainings on the same batches have in common is computed once: the teacher's logits, while `fit` searches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

LIMIT = 2**28
"""In bytes; what does not fit is computed every time."""


@dataclass
class Memory:
    """Tensors by the place of the batch (see `data.Batch`) that they were computed from.

    It serves trainings whose batches, crops included, are the same at every place.
    """

    limit: int = LIMIT
    held: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    size: int = 0

    def recall(self, place: tuple[int, ...], compute: Callable[[], Tensor]) -> Tensor:
        """What `compute` gives, or gave at this place before."""
        if place in self.held:
            return self.held[place]
        computed = compute()
        size = computed.numel() * computed.element_size()
        if place and self.size + size <= self.limit:
            self.held[place] = computed
            self.size += size
        return computed

    def forget(self) -> None:
        """Give all of it back."""
        self.held.clear()
        self.size = 0
