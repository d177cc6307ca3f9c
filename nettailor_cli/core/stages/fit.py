"""fit: teach, tailor, then search for the leanest network within the tolerance. Writes RUN/model.safetensors.

The student is made smaller block by block, with a short training after each (RUN/search/shrink-K); from some of these
networks a full one follows (RUN/search/kK), as `search.probing` asks for them. A candidate's file is its record: the
search itself is a function of the files that are there, so --resume goes on by doing it again.

Every candidate has the same number of epochs behind it, the short ones included.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.files import write_text
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.pruning import drop_weak_proxies, remove_blocks
from nettailor_cli.core.search.choice import BASELINE, CANDIDATE, Choice, Row, Wanted, choose
from nettailor_cli.core.search.probe import Probe
from nettailor_cli.core.search.probing import first_probe, next_probe
from nettailor_cli.core.search.ranking import scores, weakest
from nettailor_cli.core.settings import TAILOR, TEACH, Settings
from nettailor_cli.core.stages.carry_out import Part
from nettailor_cli.core.stages.finetune import finetune
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.teacher import Teacher

Delta = tuple[ModelDocument, dict[str, Tensor]]
"""What `delta.read` gives."""

SHRINKING = 0.4
"""Share of the epochs of fine-tuning that taking out all blocks, one by one, would cost."""

RECOVERY = 1.0
"""Points that the full training is trusted to win back over the short one."""

HOPELESS = 8.0
"""Points below what is wanted at which a full training is given up in its second half."""

LOST = 15.0
"""Points below what is wanted at which shrinking ends: no training brings that back."""


GRADUAL, SWEEP = "gradual", "sweep"

SWAP_REACH = 2
"""How far a block may be from the one whose place it takes."""

LEANER_PROXIES = 4.0
"""By this factor the threshold of the proxies' alphas is raised for one more candidate at the edge."""


@dataclass(frozen=True)
class Plan:
    """How to search.

    search: GRADUAL, or SWEEP, the published way: for every number of blocks those with the lowest scores go at once
    and a full training follows. ranking: see search.ranking. threshold: proxies with a smaller alpha go.
    """

    search: str = GRADUAL
    ranking: str = "loss"
    threshold: float = 0.05


@dataclass
class Search:
    """The search in one run directory, over the student that lies there."""

    job: Job
    student: Delta
    teacher: Teacher
    teacher_digest: str
    settings: Settings
    bench: Workbench
    probe: Probe
    plan: Plan
    wanted: Wanted

    def __post_init__(self) -> None:
        self.folder = self.job.run.path / "search"
        self.share = min(1.0, SHRINKING * self.settings.epochs / self.student[0].graph.last)
        self.rows: dict[str, Row] = {}

    def go(self) -> tuple[Choice, list[Row]]:
        """Try candidates until the edge of the tolerance is known; RUN/fit.json has the rows after each.

        What was chosen, and all rows from the largest to the leanest.
        """
        if self.plan.search == SWEEP:
            self._sweep()
        else:
            self._gradually()
        rows = sorted(self.rows.values(), key=lambda row: -row.macs)
        return choose(rows, self.wanted), rows

    def _sweep(self) -> None:
        document, tensors = self.student
        ranks = self._scores(document.graph, tensors)
        order = sorted(ranks, key=lambda block: (ranks[block], block))
        for k in range(1, len(order) + 1):
            smaller = remove_blocks(document.graph, order[:k])
            if smaller.into(smaller.last):
                graph = drop_weak_proxies(smaller, self.plan.threshold)
                self._full(f"sweep-{k:02d}", graph, [self.student], k, short=0.0)

    def _gradually(self) -> None:
        chain = self._shrink()
        if self.wanted.accuracy is None:
            # accuracy falls with the blocks: the first two that the budget affords
            inside = [k for k, state in enumerate(chain) if self.wanted.affords(self._row("", state[0], 0.0))]
            for affordable in (inside or [len(chain) - 1])[:2]:
                self._full_of(chain, affordable)
            return
        tried: dict[int, bool] = {}
        screened = [_accuracy(document) for document, _ in chain]
        start = first_probe(screened, self.wanted.accuracy, RECOVERY)
        while (k := next_probe(tried, screened, start)) is not None:
            tried[k] = self._is_good(self._full_of(chain, k))
        good = max((k for k, within in tried.items() if within), default=0)
        if good + 1 < len(chain):
            self._swapped(chain, good + 1)
        self._with_fewer_proxies(chain, good)

    def _shrink(self) -> list[Delta]:
        """The student with 0, 1, 2, ... blocks removed, each after a short training."""
        document, tensors = self.student
        graph = drop_weak_proxies(document.graph, self.plan.threshold)
        chain = [self._short("shrink-00", graph, [self.student], 0)]
        floor = -1.0 if self.wanted.accuracy is None else self.wanted.accuracy - LOST
        while max(_accuracy(document) for document, _ in chain[-2:]) >= floor:
            document, tensors = chain[-1]
            name = f"shrink-{len(chain):02d}"
            if self.file(name).exists():
                chain.append(delta.read(self.file(name)))
                continue
            ranks = self._scores(document.graph, tensors)
            block = weakest(ranks)
            if block is None:
                break
            self.job.progress.note(f"search: block {block} goes ({self.plan.ranking} {ranks[block]:.3g})")
            smaller = drop_weak_proxies(remove_blocks(document.graph, {block}), self.plan.threshold)
            chain.append(self._short(name, smaller, [chain[-1]], len(chain)))
        return chain

    def _scores(self, graph: Graph, tensors: dict[str, Tensor]) -> dict[int, float]:
        return scores(graph, self.plan.ranking, lambda smaller: self.probe.loss(smaller, [(graph, tensors)]))

    def _swapped(self, chain: list[Delta], k: int) -> None:
        """At the first k that is not good enough, try other blocks: the swap with the lowest loss, if one helps."""
        document, tensors = chain[k]
        whole = self.student[0].graph
        sources = [(document.graph, tensors), (whole, self.student[1])]
        kept = {path.sink for path in document.graph.universal}
        losses: dict[tuple[int, int], float] = {}
        for out in kept:
            for into in {path.sink for path in whole.universal} - kept:
                graph = self._with_blocks(kept - {out} | {into})
                if abs(out - into) <= SWAP_REACH and graph and graph.cost.macs <= document.graph.cost.macs:
                    losses[out, into] = self.probe.loss(graph, sources)
        if not losses or min(losses.values()) >= self.probe.loss(document.graph, sources):
            return
        out, into = min(losses, key=lambda pair: (losses[pair], pair))
        graph = self._with_blocks(kept - {out} | {into})
        assert graph is not None
        self.job.progress.note(f"search: block {into} in the place of {out}")
        name = f"{k:02d}-swap-{out}-{into}"
        state = self._short(f"shrink-{name}", graph, [chain[k], self.student], k)
        self._full(f"k{name}", state[0].graph, [state], k, short=(k + 2) * self.share)

    def _with_blocks(self, blocks: set[int]) -> Graph | None:
        """The student with these universal blocks alone, weak proxies dropped; None when that is not connected."""
        whole = self.student[0].graph
        graph = remove_blocks(whole, {path.sink for path in whole.universal} - blocks)
        if not graph.into(graph.last) or len(graph.universal) != len(blocks):
            return None
        return drop_weak_proxies(graph, self.plan.threshold)

    def _with_fewer_proxies(self, chain: list[Delta], k: int) -> None:
        """One more candidate at the edge: the same blocks, a higher threshold for the proxies."""
        threshold = min(1.0, LEANER_PROXIES * self.plan.threshold)
        graph = drop_weak_proxies(chain[k][0].graph, threshold)
        if len(graph.paths) < len(chain[k][0].graph.paths):
            name = f"k{k:02d}-t{threshold:g}"
            self._full(name, graph, [chain[k]], k, short=(k + 1) * self.share, threshold=threshold)

    def unpruned(self) -> Row:
        """The student as it was tailored, as a baseline."""
        document = self.student[0]
        metrics = {delta.MODEL: document.metrics["student"]}
        return replace(
            self._row("", replace(document, metrics=metrics), self._epochs_before()), name="unpruned", kind=BASELINE
        )

    def random(self, k: int) -> Row:
        """A baseline: k blocks that a die chose, gone at once, with a full training."""
        document, _ = self.student
        draws = random.Random(self.settings.seed)
        while True:
            blocks = draws.sample([path.sink for path in document.graph.universal], k)
            smaller = remove_blocks(document.graph, blocks)
            if smaller.into(smaller.last):
                graph = drop_weak_proxies(smaller, self.plan.threshold)
                return self._full(f"random-{k:02d}", graph, [self.student], k, short=0.0, kind=BASELINE)

    def _is_good(self, row: Row) -> bool:
        return not row.given_up and self.wanted.accepts(row)

    def _short(self, name: str, graph: Graph, before: list[Delta], k: int) -> Delta:
        """The network with `graph`, made of `before`, after a short training."""
        settings = replace(self.settings, epochs=1, patience=0)
        return self._train(graph, before, settings, Part(name, share=self.share), k, self.plan.threshold)

    def _full_of(self, chain: list[Delta], k: int) -> Row:
        return self._full(f"k{k:02d}", chain[k][0].graph, [chain[k]], k, short=(k + 1) * self.share)

    def _full(
        self,
        name: str,
        graph: Graph,
        before: list[Delta],
        k: int,
        *,
        short: float,
        threshold: float | None = None,
        kind: str = CANDIDATE,
    ) -> Row:
        """The row of the candidate `name`, trained in full if that was not done yet.

        `short`: epochs that its short trainings took; the full one has the rest.
        """
        epochs = max(1, round(self.settings.epochs - short))
        floor = 0.0
        if self.wanted.accuracy is not None and self.plan.search == GRADUAL and kind == CANDIDATE:
            floor = max(0.0, self.wanted.accuracy - HOPELESS)
        settings, part = replace(self.settings, epochs=epochs), Part(name, floor=floor)
        document, _ = self._train(graph, before, settings, part, k, threshold or self.plan.threshold)
        self.rows[name] = replace(self._row(name, document, self._epochs_before() + short + epochs), kind=kind)
        self._record()
        return self.rows[name]

    def _train(
        self, graph: Graph, before: list[Delta], settings: Settings, part: Part, k: int, threshold: float
    ) -> Delta:
        """Train the network with `graph`, made of `before`, unless its file is there: then that."""
        output = self.file(part.name)
        if not output.exists():
            document = before[0][0]
            same = graph == document.graph
            sources = [(earlier.graph, tensors) for earlier, tensors in before]
            student = self.probe.student(graph, sources, anew=not same)
            prune = {"remove": k, "proxy_threshold": threshold, "ranking": self.plan.ranking}
            pruned = replace(
                document,
                stage=delta.PRUNED,
                graph=student.attended_graph(),
                settings={**document.settings, "prune": prune},
                metrics={key: metric for key, metric in document.metrics.items() if key != delta.MODEL},
            )
            finetune(
                replace(self.job, resume=True), pruned, student, self.teacher, self.teacher_digest, settings,
                self.bench, output, part,
            )  # fmt: skip
        return delta.read(output)

    def _row(self, name: str, document: ModelDocument, epochs: float) -> Row:
        graph, metric = document.graph, document.metrics[delta.MODEL]
        own = self.file(name).stat().st_size if name else 4 * graph.task_cost.parameters
        return Row(
            name=name,
            kind=CANDIDATE,
            blocks=tuple(path.sink for path in graph.universal),
            accuracy=metric["accuracy"],
            images=metric["images"],
            macs=graph.cost.macs,
            parameters=graph.cost.parameters,
            bytes=own + 4 * graph.universal_cost.parameters,
            epochs=epochs,
            given_up="given_up_after_epochs" in metric,
        )

    def _epochs_before(self) -> float:
        """Of teaching and tailoring."""
        settings = self.student[0].settings
        return float(sum(settings.get(stage, {}).get("epochs", 0) for stage in (TEACH, TAILOR)))

    def file(self, name: str) -> Path:
        return self.folder / f"{name}.safetensors"

    def _record(self) -> None:
        rows = [row.to_json() for row in self.rows.values()]
        document = {"wanted": vars(self.wanted), "plan": vars(self.plan), "rows": rows}
        write_text(self.job.run.path / "fit.json", json.dumps(document, indent=1) + "\n")


def _accuracy(document: ModelDocument) -> float:
    return float(document.metrics[delta.MODEL]["accuracy"])
