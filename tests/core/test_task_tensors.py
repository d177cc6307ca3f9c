from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.task_tensors import LOGITS, tensors_for


def delta(value: float, *names: str) -> tuple[Graph, dict[str, Tensor]]:
    """A graph over three nodes with these paths ("u2", "0-2"); tensors hold `value`, logits count up from it."""
    paths = []
    for name in names:
        if name[0] == "u":
            paths.append(Path(int(name[1]) - 1, int(name[1]), UNIVERSAL, 0.5, Cost(1, 1)))
        else:
            paths.append(Path(int(name[0]), int(name[2]), PROXY, 0.5, Cost(1, 1)))
    graph = Graph((Cost(1, 1),) * 3, Cost(1, 1), Cost(1, 1), tuple(paths))
    tensors = {"head.weight": torch.full((2,), value), "stem.0.running_mean": torch.full((1,), value)}
    for path in graph.paths:
        home = f"universal.{path.sink}.bn" if path.is_universal else f"proxies.{path.source}-{path.sink}.conv"
        tensors[f"{home}.weight"] = torch.full((1,), value)
    tensors[LOGITS] = value + torch.arange(len(graph.paths), dtype=torch.float32) / 10
    return graph, tensors


def test_a_path_comes_from_the_first_delta_that_has_it() -> None:
    wanted, _ = delta(0, "u1", "0-2", "u3")
    first, second = delta(1, "u1", "1-2", "0-2"), delta(2, "u1", "0-2", "2-3", "u3")
    tensors = tensors_for(wanted, [first, second])
    assert {name: tensor[0].item() for name, tensor in tensors.items() if name != LOGITS} == {
        "head.weight": 1,
        "stem.0.running_mean": 1,
        "universal.1.bn.weight": 1,
        "proxies.0-2.conv.weight": 1,
        "universal.3.bn.weight": 2,
    }
    # of the first: u1, 1-2, 0-2; of the second: u1, 0-2, u3, 2-3 (in canonical order)
    assert tensors[LOGITS].tolist() == pytest.approx([1.0, 1.2, 2.2])


def test_a_block_10_is_not_a_block_1() -> None:
    wanted, _ = delta(0, "u1")
    graph, tensors = delta(1, "u1")
    tensors["universal.10.bn.weight"] = torch.zeros(1)
    assert "universal.10.bn.weight" not in tensors_for(wanted, [(graph, tensors)])


def test_a_path_that_nobody_has() -> None:
    wanted, _ = delta(0, "u2")
    with pytest.raises(KeyError, match="universal 2"):
        tensors_for(wanted, [delta(1, "u1")])
