"""Accuracy and loss of a network over batches: the one place where they are computed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nettailor_cli.core.data import Batches
from nettailor_cli.core.errors import RunFailed
from nettailor_cli.core.training.precision import Machine


@dataclass(frozen=True)
class Score:
    """accuracy: top-1 in percent; top_k: k -> percent; loss: mean cross-entropy; images: N, how many were judged.

    labels, predicted: the right class and the most probable one of each, on the CPU, both with shape (N,).
    """

    accuracy: float
    top_k: dict[int, float]
    loss: float
    images: int
    labels: Tensor = field(repr=False, compare=False)
    predicted: Tensor = field(repr=False, compare=False)


def evaluate(
    predict: Callable[[Tensor], Tensor],
    module: nn.Module,
    batches: Batches,
    machine: Machine,
    *,
    top_k: tuple[int, ...] = (1,),
    after_batch: Callable[[], None] = lambda: None,
) -> Score:
    """Score the logits of `predict` over all of `batches`, `module` in evaluation mode. Every k is at least 1."""
    module.eval()
    ranks: list[Tensor] = []
    pairs: list[Tensor] = []  # (2, images of the batch): labels and predicted
    losses = 0.0
    for batch in batches.epoch(0):
        with torch.inference_mode(), machine.autocast():
            logits = predict(batch.images).float()
        losses += F.cross_entropy(logits, batch.labels, reduction="sum").item()
        ranks.append(_ranks(logits, batch.labels))
        pairs.append(torch.stack((batch.labels, logits.argmax(dim=1))))  # of equal logits the first, as in _ranks
        after_batch()
    if not math.isfinite(losses):
        raise RunFailed("the network's outputs are not finite", "a smaller --lr may help")
    rank = torch.cat(ranks)
    shares = {k: 100.0 * (rank < k).double().mean().item() for k in (1, *top_k)}
    labels, predicted = torch.cat(pairs, dim=1).cpu()
    return Score(shares[1], {k: shares[k] for k in top_k}, losses / len(rank), len(rank), labels, predicted)


def _ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes stand before the right one: (N,). Of equal logits the earlier class wins; NaN is never right."""
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    before = ((logits > own) | ((logits == own) & earlier)).sum(dim=1)
    return before.masked_fill(own[:, 0].isnan(), logits.shape[1])
