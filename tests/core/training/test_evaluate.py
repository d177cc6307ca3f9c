from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from nettailor_cli.core.data import Batch
from nettailor_cli.core.errors import RunFailed
from nettailor_cli.core.training.evaluate import Score, evaluate
from nettailor_cli.core.training.precision import Machine

CPU = Machine(torch.device("cpu"), bf16=False, reason="a test")


class Given:
    """Batches whose "images" are the logits that the network is to give."""

    def __init__(self, logits: Tensor, labels: list[int], sizes: list[int]) -> None:
        self.parts = list(zip(logits.split(sizes), torch.tensor(labels).split(sizes), strict=True))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        return iter([Batch(images, labels) for images, labels in self.parts[start:]])


def score(logits: Tensor, labels: list[int], sizes: list[int] | None = None, top_k: tuple[int, ...] = (1,)) -> Score:
    given = Given(logits, labels, sizes or [len(labels)])
    return evaluate(lambda images: images, nn.Identity(), given, CPU, top_k=top_k)  # type: ignore[arg-type]


def test_accuracy_and_loss_of_a_case_worked_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]]))
    result = score(logits, [0, 1, 2, 1], top_k=(1, 2, 3))
    assert result.accuracy == 50.0
    assert result.top_k == {1: 50.0, 2: 75.0, 3: 100.0}  # the tie of the fourth goes to the earlier, wrong class
    assert result.loss == pytest.approx(-(math.log(0.5) + math.log(0.7) + math.log(0.3) + math.log(0.25)) / 4)
    assert result.images == 4


@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_a_count_by_sorting_whatever_the_batches(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count, classes = 57, 11
    logits = torch.randint(-6, 7, (count, classes), generator=generator).float()  # with many ties
    labels = torch.randint(0, classes, (count,), generator=generator).tolist()
    result = score(logits, labels, [20, 1, 30, 6], top_k=(1, 3, 5, 11))
    hits = dict.fromkeys((1, 3, 5, 11), 0)
    loss = 0.0
    for row, label in zip(logits.tolist(), labels, strict=True):
        ranking = sorted(range(classes), key=lambda c: (-row[c], c))  # of equal logits the earlier class
        for k in hits:
            hits[k] += label in ranking[:k]
        loss += math.log(sum(math.exp(x) for x in row)) - row[label]
    assert result.top_k == pytest.approx({k: 100 * n / count for k, n in hits.items()})
    assert result.accuracy == result.top_k[1]
    assert result.loss == pytest.approx(loss / count, rel=1e-5)
    assert result.images == count
    assert result.labels.tolist() == labels
    assert result.predicted.tolist() == [row.index(max(row)) for row in logits.tolist()]
    assert (result.labels == result.predicted).double().mean().item() * 100 == pytest.approx(result.accuracy)


def test_accuracy_is_there_without_being_asked_for() -> None:
    result = score(torch.tensor([[0.0, 1.0, 2.0]]), [1], top_k=(2,))
    assert result.accuracy == 0.0
    assert result.top_k == {2: 100.0}


def test_an_undecided_network_is_right_for_the_first_class_only() -> None:
    assert score(torch.zeros(4, 4), [0, 1, 2, 3]).accuracy == 25.0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0), (1, 0), (4, 1)])
def test_outputs_that_are_no_numbers_are_an_error_and_never_right(place: tuple[int, int], bad: float) -> None:
    logits = torch.zeros(5, 2)
    logits[place] = bad
    labels = [0, 0, 0, 0, 1]  # the bad one stands in the right class's place each time
    with pytest.raises(RunFailed, match="not finite"):
        score(logits, labels, [2, 2, 1], top_k=(5,))


def test_a_number_is_not_right_beside_one_that_is_none() -> None:
    """NaN would be the largest for argmax, which is what predicts."""
    with pytest.raises(RunFailed, match="not finite"):
        score(torch.tensor([[1.0, 0.0], [1.0, math.nan]]), [0, 0])


def test_a_class_that_is_ruled_out_does_no_harm() -> None:
    result = score(torch.tensor([[1.0, -math.inf, 0.0], [0.0, 1.0, -math.inf]]), [0, 0], top_k=(2,))
    assert result.accuracy == 50.0
    assert result.top_k == {2: 100.0}


def test_the_network_is_scored_in_evaluation_mode_and_without_gradients() -> None:
    network = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.99)).train()
    seen: list[tuple[bool, bool]] = []

    def predict(images: Tensor) -> Tensor:
        seen.append((network.training, torch.is_grad_enabled()))
        return network(images)

    calls: list[int] = []
    given = Given(torch.ones(5, 2), [0] * 5, [2, 3])
    evaluate(predict, network, given, CPU, after_batch=lambda: calls.append(1))  # type: ignore[arg-type]
    assert seen == [(False, False)] * 2
    assert len(calls) == 2
