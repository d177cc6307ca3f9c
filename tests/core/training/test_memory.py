from __future__ import annotations

import torch

from nettailor_cli.core.training.memory import Memory


class Counted:
    def __init__(self, size: int = 4) -> None:
        self.calls, self.size = 0, size

    def __call__(self) -> torch.Tensor:
        self.calls += 1
        return torch.full((self.size,), float(self.calls))


def test_what_was_computed_at_a_place_is_not_computed_again() -> None:
    memory, compute = Memory(), Counted()
    assert [memory.recall(place, compute)[0].item() for place in [(0, 0), (0, 1), (0, 0), (0, 1)]] == [1, 2, 1, 2]
    assert compute.calls == 2


def test_beyond_its_limit_it_computes_every_time() -> None:
    memory, compute = Memory(limit=40), Counted()  # 16 bytes each
    for _ in range(2):
        for number in range(3):
            memory.recall((0, number), compute)
    assert compute.calls == 4 and len(memory.held) == 2 and memory.size == 32


def test_what_is_forgotten_makes_room() -> None:
    memory, compute = Memory(limit=16), Counted()
    memory.recall((0, 0), compute)
    memory.forget()
    memory.recall((0, 1), compute)
    memory.recall((0, 1), compute)
    assert compute.calls == 2 and memory.size == 16


def test_a_batch_without_a_place_is_not_remembered() -> None:
    memory, compute = Memory(), Counted()
    memory.recall((), compute)
    memory.recall((), compute)
    assert compute.calls == 2 and not memory.held
