"""A clock that stands still unless it is told to go on, so that no test depends on how quick its machine is."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle

import torch

from nettailor_cli.core.training.precision import Machine

CPU = Machine(torch.device("cpu"), False, "for a test")


class Clock:
    """`takes(ms, ...)` makes a call that lasts as many milliseconds, one after the other, again and again."""

    def __init__(self) -> None:
        self.now = 0.0
        self.order: list[str] = []

    def __call__(self) -> float:
        return self.now

    def takes(self, name: str, *milliseconds: float) -> Callable[..., None]:
        turns = cycle(milliseconds)

        def call(*args: object) -> None:
            self.order.append(name)
            self.now += next(turns) / 1000

        return call
