"""--compile: the same figures through what was compiled, and the network as it is where nothing can be."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._dynamo.exc import TorchDynamoException

from nettailor_cli.core.progress import Silent
from nettailor_cli.core.training.compiling import Compiled

IMAGES = torch.ones(1)


class Said(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Doubling(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_what_was_compiled_is_what_runs_and_that_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: lambda x: network(x) + 1)
    said = Said()
    network = Compiled(Doubling(), said)
    assert [network(IMAGES).item() for _ in range(2)] == [3, 3]
    assert said.notes == ["--compile: Doubling is compiled"] and said.warnings == []


def test_where_it_can_not_be_compiled_the_network_runs_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def compile_nothing(network: nn.Module):
        def forward(x: torch.Tensor) -> torch.Tensor:
            tries.append(x)
            raise TorchDynamoException("no C++ compiler here\n\nSet something else")

        return forward

    monkeypatch.setattr(torch, "compile", compile_nothing)
    said = Said()
    network = Compiled(Doubling(), said)
    assert [network(IMAGES).item() for _ in range(2)] == [2, 2]
    assert len(tries) == 1 and said.notes == []
    [warning] = said.warnings
    assert "Doubling runs as it is" in warning and warning.endswith("no C++ compiler here")


def test_an_error_of_the_network_itself_stays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)
    network = Compiled(nn.Linear(2, 2), Said())
    with pytest.raises(RuntimeError):
        network(IMAGES)
