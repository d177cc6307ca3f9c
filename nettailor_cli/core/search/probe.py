"""Judging a network before it is trained: its loss on a few hundred training pictures, its batch norms measured anew.

Right after a removal accuracy is near chance, because the proxies' statistics are those of another network; measured
anew they give most of it back, and what is left of the loss tells removals apart. To tell them apart, those of each
batch will do, in one pass.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.data import Batch, Batches
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.models import student_from
from nettailor_cli.core.student import Student
from nettailor_cli.core.task_tensors import Source, tensors_for
from nettailor_cli.core.training.norms import enough_values
from nettailor_cli.core.training.precision import Machine, to_machine
from nettailor_cli.core.training.statistics import re_estimate

IMAGES = 256


@dataclass
class Probe:
    """Makes students of `backbone` out of deltas like `document` (what shapes them, their classes) and judges them."""

    backbone: Backbone
    document: ModelDocument
    batches: list[Batch]
    machine: Machine

    def student(self, graph: Graph, sources: Sequence[Source], *, anew: bool = True) -> Student:
        """The network with `graph`, its tensors from `sources`, its batch norms measured `anew`; on the machine."""
        tensors = tensors_for(graph, sources)
        student = student_from(replace(self.document, graph=graph), tensors, self.backbone)
        to_machine(student, self.machine)
        if anew:
            self.re_estimate(student)
        return student

    def re_estimate(self, student: Student) -> None:
        """Measure its batch norms anew: after a dozen steps the moving averages are still those of another network."""
        re_estimate(student, self.batches, self.machine)

    def loss(self, graph: Graph, sources: Sequence[Source]) -> float:
        """Mean cross-entropy of that network on the same pictures, every batch with its own statistics."""
        student, total, images = self.student(graph, sources, anew=False).train(), 0.0, 0
        with enough_values("search"), torch.no_grad(), self.machine.autocast():
            for batch in self.batches:
                logits = student(batch.images).logits.float()
                total += F.cross_entropy(logits, batch.labels, reduction="sum").item()
                images += len(batch.labels)
        return total / images


def some(batches: Batches) -> list[Batch]:
    """The first batches of an epoch, with `IMAGES` pictures or just over."""
    size = max(1, -(-len(batches.pictures) // len(batches)))
    return list(itertools.islice(batches.epoch(0), -(-IMAGES // size)))
