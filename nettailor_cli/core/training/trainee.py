"""What is trained, and with which loss: all that the loop has to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from nettailor_cli.core.data import Batch


@dataclass(frozen=True)
class Group:
    """Parameters that share a peak learning rate and a weight decay.

    clip: a longer gradient of all of them together is shortened to this norm; 0: none is.
    """

    parameters: dict[str, nn.Parameter]
    lr: float
    weight_decay: float
    clip: float = 0.0


class Trainee(Protocol):
    """What the loop has to know of the thing that it trains."""

    @property
    def module(self) -> nn.Module:
        """Switched between training and evaluation."""

    def groups(self) -> list[Group]: ...

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        """The figures of one step, 0-dimensional each: "loss" is descended on. `done` is the share of steps done."""

    def predict(self, images: Tensor) -> Tensor:
        """Logits (N, classes), as training computes them."""

    def predict_exactly(self, images: Tensor) -> Tensor:
        """Logits (N, classes), as the file that is written will give them."""

    def figures(self) -> dict[str, Any]:
        """What else an epoch's record should have (the attention), JSON-able."""

    def state(self) -> dict[str, Tensor]:
        """What is trained, by name; the tensors are the live ones."""
