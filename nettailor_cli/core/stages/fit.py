"""fit: teach, tailor, then search for the leanest network within the tolerance. Writes RUN/model.safetensors.

The student is made smaller block by block, with a short training after each (RUN/search/shrink-K); from some of these
networks a full one follows (RUN/search/kK), as `search.probing` asks for them. The search is a function of the
candidates' files, so --resume goes on by doing it again. Every candidate has the same number of epochs behind it, the
short ones included.

With several folds everything is done in each of them, on another part of the pictures as val, and the figures that
decide are those of all folds together. What is delivered is the first fold's.
"""

from __future__ import annotations

import functools
import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from nettailor_cli.core import delta
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.files import write_text
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.pruning import drop_weak_proxies, is_whole, remove_blocks
from nettailor_cli.core.search.asked import GRADUAL, SWEEP
from nettailor_cli.core.search.choice import (
    BASELINE,
    CANDIDATE,
    ROUNDING,
    Choice,
    Row,
    Wanted,
    choose,
    most_accurate,
    standard_error,
)
from nettailor_cli.core.search.probing import next_probe
from nettailor_cli.core.search.ranking import weakest, without
from nettailor_cli.core.settings import TAILOR, TEACH
from nettailor_cli.core.stages.candidate import Delta, Fold
from nettailor_cli.core.stages.carry_out import Part

SHRINKING = 0.2
"""Share of the epochs of fine-tuning that taking out all blocks, one by one, would cost."""

HOPELESS = 8.0
"""Points, beside chance, below what is wanted at which a full training is given up before its end."""

LOST = 40.0
"""Points, beside chance, below what is wanted at which shrinking ends: no training brings that back."""

SWAP_REACH = 2
"""How far a block may be from the one whose place it takes."""

DRAWS = 1000
"""Until so many blocks are found that stay, all of them, connected."""

UNPRUNED = "unpruned"
"""The name of the student's row."""

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
    """The search over the students of `folds`; the first one's run directory is where the results go."""

    folds: Sequence[Fold]
    plan: Plan
    wanted: Wanted
    rows: dict[str, Row] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.main = self.folds[0]
        self.epochs = self.main.settings.epochs
        self.prefix = self.main.student[0].shared_prefix
        self.aim = self.wanted.aim
        self.length = SHRINKING * self.epochs / self.main.student[0].graph.last  # of a short training, in epochs

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

    def unpruned(self) -> Row:
        """The student as it was tailored, as a baseline."""
        documents = [fold.student[0] for fold in self.folds]
        measured = [replace(d, metrics={delta.MODEL: d.metrics["student"]}) for d in documents]
        return self._row(UNPRUNED, measured, self._epochs_before(), kind=BASELINE)

    def random(self, kept: int) -> Row:
        """A baseline: as many blocks, but a die chose them; the others gone at once, with a full training."""
        whole = {*self.main.student[0].graph.blocks_kept}
        prefix = range(1, self.prefix + 1)
        rest = sorted(whole - {*prefix})
        draws = random.Random(self.main.settings.seed)
        for _ in range(DRAWS):
            blocks = {*prefix, *draws.sample(rest, kept - self.prefix)}
            if all(self._with(fold, blocks) is not None for fold in self.folds):
                break
        gone = sorted(whole - blocks)
        name = f"random-{len(gone):02d}"
        return self._full(name, lambda fold: (self._without(fold, gone), [fold.student]), len(gone), 0.0, kind=BASELINE)

    # the two searches

    def _sweep(self) -> None:
        orders = {}
        for fold in self.folds:
            ranks = fold.scores(fold.student, self.plan.ranking)
            orders[id(fold)] = [block for _, block in sorted((score, block) for block, score in ranks.items())]

        def made(fold: Fold, k: int) -> tuple[Graph, list[Delta]]:
            return self._without(fold, orders[id(fold)][:k]), [fold.student]

        for k in range(min(map(len, orders.values())) + 1):
            graphs = [made(fold, k)[0] for fold in self.folds]
            if all(is_whole(graph, self.prefix) for graph in graphs):
                self._full(f"sweep-{k:02d}", functools.partial(made, k=k), k, 0.0)

    def _gradually(self) -> None:
        chains = self._shrink()
        length = min(map(len, chains.values()))

        def full(k: int) -> Row:
            return self._full(f"k{k:02d}", lambda fold: self._state(chains, fold, k), k, (k + 1) * self.length)

        graphs = [document.graph for document, _ in chains[id(self.main)][:length]]
        inside = [k for k, graph in enumerate(graphs) if self.wanted.affords(self._costs(graph))]
        if self.wanted.accuracy is not None:
            self._find_the_edge(chains, length, full)
        if self.wanted.accuracy is None or not any(map(self._will_do, self.rows.values())):
            # accuracy falls with the blocks: the first two that the budget affords
            affordable = 0
            for k in inside or [length - 1]:
                affordable += self.wanted.affords(full(k))
                if affordable == 2:
                    break

    def _will_do(self, row: Row) -> bool:
        """Whether `row` is all that was wanted, if not all that was aimed at."""
        return self.wanted.affords(row) and self.wanted.accepts(row) and not row.given_up

    def _find_the_edge(self, chains: dict[int, list[Delta]], length: int, full: Callable[[int], Row]) -> None:
        """Full trainings around the number of blocks from which on the tolerance is missed.

        Where nothing comes up to the aim, the tolerance of the most accurate candidate counts: a network as large as
        the backbone and not quite as good is of no use to anybody.
        """
        screened = [self._mean([chain[k][0] for chain in chains.values()]) for k in range(length)]
        known: dict[int, Row] = {}
        good = self._edge(screened, full, known)
        if good is None and self.wanted.tolerance is not None:
            best = most_accurate(self.rows.values())
            self.aim = self.wanted.near(best.accuracy)
            tolerance, reached = f"{self.wanted.tolerance:g} points", f"{best.name} with {best.accuracy:.1f} %"
            self.main.job.progress.note(
                f"search: nothing is within {tolerance} of the better of teacher and student; from {reached} it goes on"
            )
            good = self._edge(screened, full, known)
        if good is None:
            return
        if good + 1 < length and len(self.folds) == 1:  # with several folds each would swap other blocks
            self._swapped(chains[id(self.main)][good + 1], good + 1)
        self._with_fewer_proxies(chains, good)

    def _edge(self, screened: list[float], full: Callable[[int], Row], known: dict[int, Row]) -> int | None:
        """The largest number of blocks to go for which a full training comes up to the aim; None: not even none.

        `known` are the rows of earlier full trainings, for another aim; new ones are put in.
        """
        assert self.aim is not None
        tried = {k: row.accuracy for k, row in known.items() if not row.given_up}
        while (k := next_probe(tried, screened, self.aim - ROUNDING)) is not None:
            row = known[k] = full(k)
            # what was given up is not good enough, whatever the aim became
            tried[k] = min(row.accuracy, self.aim - 1.0) if row.given_up else row.accuracy
        return max((k for k, accuracy in tried.items() if accuracy >= self.aim - ROUNDING), default=None)

    def _shrink(self) -> dict[int, list[Delta]]:
        """For every fold, its student with 0, 1, 2, ... blocks removed, each after a short training."""
        chains: dict[int, list[Delta]] = {}
        for fold in self.folds:
            floor = self._floor(fold, LOST) if self.wanted.excess(self._costs(fold.student[0].graph)) == 0 else 0.0
            chain = chains[id(fold)] = [self._short(fold, "shrink-00", self._without(fold, []), [fold.student], 0)]
            while max(_accuracy(document) for document, _ in chain[-2:]) >= floor:
                name, k = f"shrink-{len(chain):02d}", len(chain)
                if fold.file(name).exists():  # which block went is in the file
                    chain.append(self._short(fold, name, chain[-1][0].graph, [chain[-1]], k))
                    continue
                ranks = fold.scores(chain[-1], self.plan.ranking)
                block = weakest(ranks)
                if block is None:
                    break
                fold.job.progress.note(f"search: block {block} goes ({self.plan.ranking} {ranks[block]:.3g})")
                smaller = self._without_weak(without(chain[-1][0].graph, block, fold.student[0].graph, self.prefix))
                chain.append(self._short(fold, name, smaller, [chain[-1], fold.student], k))
        return chains

    def _swapped(self, state: Delta, k: int) -> None:
        """At the first k that is not good enough, try other blocks: the swap with the lowest loss, if one helps."""
        fold = self.main
        swap = fold.job.processes.from_main(lambda: self._best_swap(state))
        if swap is None:
            return
        out, into = swap
        better = self._with(fold, {path.sink for path in state[0].graph.universal} - {out} | {into})
        assert better is not None
        fold.job.progress.note(f"search: block {into} in the place of {out}")
        name = f"{k:02d}-swap-{out}-{into}"
        short = self._short(fold, f"shrink-{name}", better, [state, fold.student], k)
        self._full(f"k{name}", lambda _: (short[0].graph, [short]), k, (k + 2) * self.length)

    def _best_swap(self, state: Delta) -> tuple[int, int] | None:
        """Which block to take out and which into its place, for a lower loss at no more MACs; None: no such swap."""
        fold, graph = self.main, state[0].graph
        whole = fold.student[0].graph
        sources = [(graph, state[1]), (whole, fold.student[1])]
        kept = {*graph.blocks_kept}
        losses: dict[tuple[int, int], float] = {}
        for out in kept:
            for into in {*whole.blocks_kept} - kept:
                other = self._with(fold, kept - {out} | {into})
                if abs(out - into) <= SWAP_REACH and other is not None and other.cost.macs <= graph.cost.macs:
                    losses[out, into] = fold.loss(other, sources)
        if not losses or min(losses.values()) >= fold.loss(graph, sources):
            return None
        return min(losses, key=lambda pair: (losses[pair], pair))

    def _with_fewer_proxies(self, chains: dict[int, list[Delta]], k: int) -> None:
        """One more candidate at the edge: the same blocks, a higher threshold for the proxies."""
        threshold = min(1.0, LEANER_PROXIES * self.plan.threshold)

        def leaner(fold: Fold) -> tuple[Graph, list[Delta]]:
            graph, before = self._state(chains, fold, k)
            return drop_weak_proxies(graph, threshold, self.prefix), before

        if len(leaner(self.main)[0].paths) < len(self._state(chains, self.main, k)[0].paths):
            self._full(f"k{k:02d}-t{threshold:g}", leaner, k, (k + 1) * self.length, threshold=threshold)

    # graphs

    def _without(self, fold: Fold, blocks: Sequence[int]) -> Graph:
        """The fold's student without these blocks and weak proxies; it may be unconnected."""
        graph = remove_blocks(fold.student[0].graph, blocks)
        return self._without_weak(graph) if is_whole(graph, self.prefix) else graph

    def _without_weak(self, graph: Graph) -> Graph:
        return drop_weak_proxies(graph, self.plan.threshold, self.prefix)

    def _with(self, fold: Fold, blocks: set[int]) -> Graph | None:
        """The fold's student with just these blocks; None when it can't have all of them and be connected."""
        whole = fold.student[0].graph
        graph = self._without(fold, sorted({*whole.blocks_kept} - blocks))
        return graph if is_whole(graph, self.prefix) and len(graph.universal) == len(blocks) else None

    @staticmethod
    def _state(chains: dict[int, list[Delta]], fold: Fold, k: int) -> tuple[Graph, list[Delta]]:
        state = chains[id(fold)][k]
        return state[0].graph, [state]

    # trainings

    def _short(self, fold: Fold, name: str, graph: Graph, before: list[Delta], k: int) -> Delta:
        """The network with `graph`, made of `before`, after a short training."""
        epochs = math.ceil(self.length)
        part = Part(name, share=self.length / epochs)
        return fold.trained(graph, before, part, epochs, self._pruned(k, self.plan.threshold))

    def _full(
        self,
        name: str,
        made: Callable[[Fold], tuple[Graph, list[Delta]]],
        k: int,
        short: float,
        *,
        threshold: float | None = None,
        kind: str = CANDIDATE,
    ) -> Row:
        """The row of the candidate `name`, trained in full in every fold where that was not done yet.

        `made`: its graph in a fold, and what it is made of. `short`: epochs that its short trainings took; the full one
        has the rest.
        """
        epochs = max(1, round(self.epochs - short))
        pruned = self._pruned(k, self.plan.threshold if threshold is None else threshold)
        documents: list[ModelDocument] = []
        for fold in self.folds:
            # the whole student is what is left when all else fails
            hopeless = k > 0 and kind == CANDIDATE and self.plan.search == GRADUAL
            part = Part(name, floor=self._floor(fold, HOPELESS) if hopeless else 0.0, alike=True)
            documents.append(fold.trained(*made(fold), part, epochs, pruned)[0])
            if _given_up(documents[-1]) or (hopeless and self._is_out_of_reach(documents)):
                break
        done = documents[-1].metrics[delta.MODEL].get("given_up_after_epochs", epochs)
        self.rows[name] = self._row(name, documents, self._epochs_before() + short + done, kind=kind)
        self._record()
        return self.rows[name]

    def _is_out_of_reach(self, documents: Sequence[ModelDocument]) -> bool:
        """Whether these folds have so many errors that even without one in the others too few would be right."""
        if self.aim is None or self.wanted.accuracy is None or len(documents) == len(self.folds):
            return False
        images = sum(fold.student[0].metrics["teacher"]["images"] for fold in self.folds)
        metrics = [document.metrics[delta.MODEL] for document in documents]
        wrong = sum((1 - metric["accuracy"] / 100) * metric["images"] for metric in metrics)
        return 100 * (1 - wrong / images) < min(self.aim, self.wanted.accuracy) - ROUNDING

    def _floor(self, fold: Fold, points: float) -> float:
        """So many points, and two standard errors, below what is wanted in this fold; 0 where no accuracy is.

        Never lower, whatever the aim: what was given up once stays so, after --resume as well.
        """
        if self.wanted.tolerance is None:
            return 0.0
        images = fold.student[0].metrics["teacher"]["images"]
        accuracy = fold.teacher_accuracy - self.wanted.tolerance - points
        return max(0.0, accuracy - 2 * standard_error(fold.teacher_accuracy, images))

    def _pruned(self, k: int, threshold: float) -> dict[str, object]:
        return {"remove": k, "proxy_threshold": threshold, "ranking": self.plan.ranking}

    # figures

    def _row(self, name: str, documents: Sequence[ModelDocument], epochs: float, *, kind: str = CANDIDATE) -> Row:
        """The figures of all folds together; the costs are the first one's."""
        metrics = [document.metrics[delta.MODEL] for document in documents]
        graph, file = documents[0].graph, self.main.file(name)
        costs = self._costs(graph)
        return replace(
            costs,
            name=name,
            kind=kind,
            accuracy=self._mean(documents),
            images=sum(metric["images"] for metric in metrics),
            bytes=file.stat().st_size + 4 * documents[0].graph.universal_cost.parameters
            if file.exists()
            else costs.bytes,
            epochs=epochs,
            given_up=any(map(_given_up, documents)) or len(documents) < len(self.folds),
        )

    @staticmethod
    def _costs(graph: Graph) -> Row:
        """A row that has only what can be known before a training."""
        blocks = graph.blocks_kept
        macs, parameters = graph.cost.macs, graph.cost.parameters
        return Row("", CANDIDATE, blocks, 0.0, 0, macs, parameters, 4 * parameters, 0.0, latency=graph.cost.latency)

    @staticmethod
    def _mean(documents: Sequence[ModelDocument]) -> float:
        """Accuracy over all pictures of all folds, percent."""
        images = [document.metrics[delta.MODEL]["images"] for document in documents]
        return sum(_accuracy(d) * n for d, n in zip(documents, images, strict=True)) / sum(images)

    def _epochs_before(self) -> float:
        """Of teaching and tailoring."""
        settings = self.main.student[0].settings
        return float(sum(settings.get(stage, {}).get("epochs", 0) for stage in (TEACH, TAILOR)))

    def _record(self) -> None:
        rows = [row.to_json() for row in self.rows.values()]
        document = {"wanted": vars(self.wanted), "plan": vars(self.plan), "rows": rows}
        file, text = self.main.job.run.path / "fit.json", json.dumps(document, indent=1) + "\n"
        self.main.job.processes.alone(lambda: write_text(file, text))


def _given_up(document: ModelDocument) -> bool:
    return "given_up_after_epochs" in document.metrics[delta.MODEL]


def _accuracy(document: ModelDocument) -> float:
    return float(document.metrics[delta.MODEL]["accuracy"])
