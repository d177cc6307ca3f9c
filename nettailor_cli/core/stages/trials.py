"""fit's trainings, short and full, in every fold, and the rows that their figures make.

Every candidate has the same number of epochs behind it, the short trainings on the way to it included. Full ones see
the same batches, those of a retraining outside of fit.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.files import write_text
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.search.asked import GRADUAL, Plan
from nettailor_cli.core.search.choice import BASELINE, CANDIDATE, ROUNDING, Row, Wanted, standard_error
from nettailor_cli.core.settings import TAILOR, TEACH
from nettailor_cli.core.stages.candidate import Delta, Fold
from nettailor_cli.core.stages.carry_out import Part

SHRINKING = 0.2
"""Share of the epochs of fine-tuning that taking out all blocks, one by one, would cost."""

FEWEST = 2.0
"""So many epochs where there are few: up to twice that share."""

HOPELESS = 8.0
"""Points at which a full training is given up before its end, see `Trials.floor`."""

UNPRUNED = "unpruned"
"""The name of the student's row."""


@dataclass
class Trials:
    """What was tried in `folds`, by name; the first fold's run directory is where the results go.

    least: the accuracy that a candidate of any use has, percent. unshrunk: that of every fold's student after a short
    training, by the fold's id. cut_short: candidates that were not trained in every fold, because they could not come
    up to `least` any more.
    """

    folds: Sequence[Fold]
    plan: Plan
    wanted: Wanted
    rows: dict[str, Row] = field(default_factory=dict)
    unshrunk: dict[int, float] = field(default_factory=dict)
    cut_short: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.main = self.folds[0]
        self.epochs = self.main.settings.epochs
        together = max(SHRINKING * self.epochs, min(2 * SHRINKING * self.epochs, FEWEST))
        self.length = together / self.main.student[0].graph.last  # of a short training, in epochs
        self.least = self.wanted.accuracy or 0.0

    def aim_at(self, accuracy: float) -> None:
        """A candidate with this accuracy is of use, though it may not be within the tolerance of the teacher."""
        self.least = min(self.wanted.accuracy or 0.0, accuracy)

    def unpruned(self) -> Row:
        """The student as it was tailored, as a baseline."""
        documents = [fold.student[0] for fold in self.folds]
        measured = [replace(d, metrics={delta.MODEL: d.metrics["student"]}) for d in documents]
        return self.row(UNPRUNED, measured, self._epochs_before(), kind=BASELINE)

    def short(self, fold: Fold, name: str, graph: Graph, before: list[Delta], k: int) -> Delta:
        """The network with `graph`, made of `before`, after a short training."""
        epochs = math.ceil(self.length)
        part = Part(name, share=self.length / epochs)
        made = fold.trained(graph, before, part, epochs, self._pruned(k, self.plan.proxy_threshold))
        self.unshrunk.setdefault(id(fold), accuracy_of(made[0]))  # the first short training takes no block out
        return made

    def full(
        self,
        name: str,
        made: Callable[[Fold], tuple[Graph, list[Delta]]],
        k: int,
        short: float,
        *,
        proxy_threshold: float | None = None,
        kind: str = CANDIDATE,
    ) -> Row:
        """The row of the candidate `name`, trained in full in every fold where that was not done yet.

        `made`: its graph in a fold, and what it is made of. `short`: epochs that its short trainings took; the full one
        has the rest.
        """
        epochs = max(1, round(self.epochs - short))
        pruned = self._pruned(k, self.plan.proxy_threshold if proxy_threshold is None else proxy_threshold)
        documents: list[ModelDocument] = []
        self.cut_short.discard(name)
        for fold in self.folds:
            # the whole student is what is left when all else fails
            hopeless = k > 0 and kind == CANDIDATE and self.plan.search == GRADUAL
            part = Part(name, floor=self.floor(fold, HOPELESS) if hopeless else 0.0, alike=True)
            documents.append(fold.trained(*made(fold), part, epochs, pruned)[0])
            if _given_up(documents[-1]):
                break
            if hopeless and self._is_out_of_reach(documents):
                self.cut_short.add(name)
                break
        done = documents[-1].metrics[delta.MODEL].get("given_up_after_epochs", epochs)
        row = self.rows[name] = self.row(name, documents, self._epochs_before() + short + done, kind=kind)
        self.record([*self.rows.values()])
        if len(documents) > 1:
            accuracy = f"{row.accuracy:.1f} ± {row.standard_error:.1f} %"
            self.main.job.progress.note(f"{name}: val accuracy {accuracy} over {len(documents)} folds")
        return row

    def _is_out_of_reach(self, documents: Sequence[ModelDocument]) -> bool:
        """Whether these folds have so many errors that even without one in the others too few would be right."""
        if self.wanted.has_budget or len(documents) == len(self.folds):
            return False
        images = sum(fold.images for fold in self.folds)
        metrics = [document.metrics[delta.MODEL] for document in documents]
        wrong = sum((1 - metric["accuracy"] / 100) * metric["images"] for metric in metrics)
        return 100 * (1 - wrong / images) < self.least - ROUNDING

    def floor(self, fold: Fold, points: float) -> float:
        """So many points, and two standard errors, below what is wanted in this fold, or its student if that is worse.

        0 where no accuracy is wanted, and inside a budget, where the best may be far below. It does not change with the
        aim, so that --resume gives up what was given up before.
        """
        if self.wanted.tolerance is None or self.wanted.has_budget:
            return 0.0
        accuracy = min(fold.teacher_accuracy - self.wanted.tolerance, self.unshrunk[id(fold)])
        return max(0.0, accuracy - points - 2 * standard_error(fold.teacher_accuracy, fold.images))

    def _pruned(self, k: int, proxy_threshold: float) -> dict[str, object]:
        return {"remove": k, "proxy_threshold": proxy_threshold, "ranking": self.plan.ranking}

    def row(self, name: str, documents: Sequence[ModelDocument], epochs: float, *, kind: str = CANDIDATE) -> Row:
        """The figures of all folds together; the costs are the first one's."""
        metrics = [document.metrics[delta.MODEL] for document in documents]
        graph = documents[0].graph
        file = self.main.job.run.student if name == UNPRUNED else self.main.file(name)
        costs = self.costs(graph)
        return replace(
            costs,
            name=name,
            kind=kind,
            accuracy=self.mean(documents),
            images=sum(metric["images"] for metric in metrics),
            bytes=file.stat().st_size + 4 * graph.universal_cost.parameters if file.exists() else costs.bytes,
            epochs=epochs,
            given_up=any(map(_given_up, documents)) or len(documents) < len(self.folds),
        )

    @staticmethod
    def costs(graph: Graph) -> Row:
        """A row that has only what can be known before a training."""
        blocks = graph.blocks_kept
        macs, parameters = graph.cost.macs, graph.cost.parameters
        return Row("", CANDIDATE, blocks, 0.0, 0, macs, parameters, 4 * parameters, 0.0, latency=graph.cost.latency)

    @staticmethod
    def mean(documents: Sequence[ModelDocument]) -> float:
        """Accuracy over all pictures of all folds, percent."""
        return accuracy_together([document.metrics[delta.MODEL] for document in documents])

    def _epochs_before(self) -> float:
        """Of teaching and tailoring."""
        settings = self.main.student[0].settings
        return float(sum(settings.get(stage, {}).get("epochs", 0) for stage in (TEACH, TAILOR)))

    def record(self, rows: Sequence[Row]) -> None:
        """What was wanted, and `rows`, in RUN/fit.json."""
        document = {"wanted": vars(self.wanted), "plan": vars(self.plan), "rows": [row.to_json() for row in rows]}
        file, text = self.main.job.run.path / "fit.json", json.dumps(document, indent=1) + "\n"
        self.main.job.processes.alone(lambda: write_text(file, text))


def _given_up(document: ModelDocument) -> bool:
    return "given_up_after_epochs" in document.metrics[delta.MODEL]


def accuracy_together(metrics: Sequence[Mapping[str, Any]]) -> float:
    """Over all the pictures that these were measured on, percent."""
    return float(sum(m["accuracy"] * m["images"] for m in metrics) / sum(m["images"] for m in metrics))


def accuracy_of(document: ModelDocument) -> float:
    return float(document.metrics[delta.MODEL]["accuracy"])
