from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.task_tensors import LOGITS, check_tensors, tensors_for


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


def whole() -> tuple[Graph, dict[str, Tensor]]:
    graph, tensors = delta(1.5, "u1", "0-2", "u3")
    return graph, {**tensors, "head.bias": torch.zeros(2), "proxies.0-2.bn.running_var": torch.ones(1)}


def test_the_tensors_that_a_graph_asks_for_are_let_through() -> None:
    check_tensors(whole()[0], 2, whole()[1])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        (LOGITS, None, "lacks the tensor 'attention.logits'"),
        (LOGITS, torch.zeros(4), "has shape [4], not [3]"),
        ("head.bias", torch.zeros(3), "has shape [3], not [2]"),
        ("proxies.0-2", None, "lacks the tensors of proxies.0-2"),
        ("proxies.1-2.conv.weight", torch.zeros(1), "'proxies.1-2.conv.weight' that does not belong there"),
        ("universal.2.bn.running_mean", torch.zeros(1), "does not belong there"),
        ("../../x", torch.zeros(1), "does not belong there"),
        ("head.weight", torch.tensor([0.0, torch.nan]), "'head.weight' holds values that are not finite"),
        ("head.weight", torch.tensor([1e300, 0.0], dtype=torch.float64), "not finite"),
        ("head.weight", torch.tensor([torch.inf], dtype=torch.float16), "not finite"),
        ("head.weight", torch.tensor([1]), "not floating-point"),
        ("proxies.0-2.bn.running_var", torch.tensor([-0.5]), "variances below zero"),
    ],
)
def test_other_tensors_are_refused_by_name(name: str, value: Tensor | None, reason: str) -> None:
    graph, tensors = whole()
    changed = {key: tensor for key, tensor in tensors.items() if not key.startswith(name)}
    with pytest.raises(FileError) as caught:
        check_tensors(graph, 2, changed if value is None else {**changed, name: value})
    assert reason in caught.value.message
