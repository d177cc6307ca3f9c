"""fit: teach, tailor, then search for the leanest network within the tolerance. Writes RUN/model.safetensors.

The student is made smaller block by block, with a short training after each (RUN/search/shrink-K); from some of these
networks a full one follows (RUN/search/kK), as `search.probing` asks for them. The search is a function of the
candidates' files, so --resume goes on by doing it again. The trainings, and what they say, are in `stages.trials`.

With several folds everything is done in each of them, on another part of the pictures as val, and the figures that
decide are those of all folds together. What is delivered is the first fold's.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nettailor_cli.core.graph import Graph
from nettailor_cli.core.pruning import drop_weak_proxies, is_whole, remove_blocks
from nettailor_cli.core.search.asked import STUDENT, SWEEP, Plan
from nettailor_cli.core.search.choice import BASELINE, BY_MORE, ROUNDING, Choice, Row, Wanted, choose, most_accurate
from nettailor_cli.core.search.probing import next_probe
from nettailor_cli.core.search.ranking import weakest, without
from nettailor_cli.core.stages.candidate import Delta, Fold
from nettailor_cli.core.stages.trials import Trials, accuracy_of

LOST = 40.0
"""Points at which shrinking ends, see `Trials.floor`: no training brings that back."""

SWAP_REACH = 2
"""How far a block may be from the one whose place it takes."""

DRAWS = 1000
"""Until so many blocks are found that stay, all of them, connected."""

LEANER_PROXIES = 4.0
"""By this factor the threshold of the proxies' alphas is raised for one more candidate at the edge."""


@dataclass
class Search:
    """The search over the students of `folds`; the first one's run directory is where the results go."""

    folds: Sequence[Fold]
    plan: Plan
    wanted: Wanted

    def __post_init__(self) -> None:
        self.trials = Trials(self.folds, self.plan, self.wanted)
        self.main = self.folds[0]
        self.prefix = self.main.student[0].shared_prefix
        self.aim = self.wanted.aim

    def go(self) -> tuple[Choice, list[Row]]:
        """Try candidates until the edge of the tolerance is known; RUN/fit.json has the rows after each.

        What was chosen, and all rows from the largest to the leanest.
        """
        if self.plan.search == SWEEP:
            self._sweep()
        else:
            self._gradually()
        rows = sorted(self.trials.rows.values(), key=lambda row: -row.macs)
        return choose(rows, self.wanted), rows

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
        return self.trials.full(
            name, lambda fold: (self._without(fold, gone), [fold.student]), len(gone), 0.0, kind=BASELINE
        )

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
                self.trials.full(f"sweep-{k:02d}", functools.partial(made, k=k), k, 0.0)

    def _gradually(self) -> None:
        chains = self._shrink()
        length = min(map(len, chains.values()))

        def full(k: int) -> Row:
            return self.trials.full(
                f"k{k:02d}", lambda fold: self._state(chains, fold, k), k, (k + 1) * self.trials.length
            )

        graphs = [document.graph for document, _ in chains[id(self.main)][:length]]
        inside = [k for k, graph in enumerate(graphs) if self.wanted.affords(self.trials.costs(graph))]
        if self.wanted.accuracy is not None:
            self._find_the_edge(chains, length, full)
        if self.wanted.has_budget and not any(map(self._will_do, self.trials.rows.values())):
            # accuracy falls with the blocks: the first two that the budget affords
            affordable = 0
            for k in inside or [length - 1]:
                affordable += self.wanted.affords(full(k))
                if affordable == 2:
                    break

    def _will_do(self, row: Row) -> bool:
        """Whether `row` is inside the budget and comes up to the aim."""
        return self._comes_up(row) and self.wanted.affords(row)

    def _comes_up(self, row: Row) -> bool:
        """Whether `row` was trained to its end and comes up to the aim."""
        return self.aim is not None and row.accuracy >= self.aim - ROUNDING and not row.given_up

    def _find_the_edge(self, chains: dict[int, list[Delta]], length: int, full: Callable[[int], Row]) -> None:
        """Full trainings around the number of blocks from which on the tolerance is missed.

        Where nothing comes up to the aim, the tolerance of the most accurate candidate counts, for as long as that is
        so: a network as large as the backbone and not quite as good is of no use to anybody.
        """
        screened = [self.trials.mean([chain[k][0] for chain in chains.values()]) for k in range(length)]
        known: dict[int, Row] = {}
        lowered = False
        while True:
            if (k := self._next(known, screened)) is not None:
                known[k] = full(k)
            elif lowered or self._good(known):
                break
            else:
                lowered = True
                # with several folds a candidate ends where the aim is out of reach: by now it may not be
                known = {k: row for k, row in known.items() if row.name not in self.trials.cut_short}
            if lowered:
                self._aim_at_the_best(known)
        good = max(self._good(known))
        if good + 1 < length and len(self.folds) == 1:  # with several folds each would swap other blocks
            self._swapped(chains[id(self.main)][good + 1], good + 1)
        self._with_fewer_proxies(chains, good)

    def _next(self, known: dict[int, Row], screened: list[float]) -> int | None:
        """See `next_probe`. What was given up is not good enough, whatever the aim became."""
        assert self.aim is not None
        tried = {k: min(row.accuracy, self.aim - 1.0) if row.given_up else row.accuracy for k, row in known.items()}
        return next_probe(tried, screened, self.aim - ROUNDING)

    def _good(self, known: dict[int, Row]) -> list[int]:
        """The numbers of removed blocks for which a full training comes up to the aim."""
        return [k for k, row in known.items() if self._comes_up(row)]

    def _aim_at_the_best(self, known: dict[int, Row]) -> None:
        """From now on what is within the tolerance of the most accurate of `known` will do; see `within_reach`."""
        assert self.aim is not None
        best, before, note = most_accurate(known.values()), self.aim, self.main.job.progress.note
        self.aim = self.wanted.within_reach(best)
        self.trials.aim_at(self.aim)
        reached = f"{best.name} with {best.accuracy:.1f} %"
        if self.aim < before:
            whose = "better of teacher and student" if self.wanted.aims_at == STUDENT else "teacher"
            within = f"within {self.wanted.tolerance or 0:g} points of the {whose}"
            within += BY_MORE if self.wanted.accepts(best) and self.wanted.aims_at != STUDENT else ""
            note(f"search: nothing is {within}; from {reached} it goes on")
        elif before < self.aim == self.wanted.aim:
            note(f"search: {reached} comes up to what was aimed at after all")

    def _shrink(self) -> dict[int, list[Delta]]:
        """For every fold, its student with 0, 1, 2, ... blocks removed, each after a short training."""
        chains: dict[int, list[Delta]] = {}
        for fold in self.folds:
            first = self.trials.short(fold, "shrink-00", self._without(fold, []), [fold.student], 0)
            chain = chains[id(fold)] = [first]
            floor = self.trials.floor(fold, LOST)
            while max(accuracy_of(document) for document, _ in chain[-2:]) >= floor:
                name, k = f"shrink-{len(chain):02d}", len(chain)
                if fold.file(name).exists():  # which block went is in the file
                    chain.append(self.trials.short(fold, name, chain[-1][0].graph, [chain[-1]], k))
                    continue
                ranks = fold.scores(chain[-1], self.plan.ranking)
                block = weakest(ranks)
                if block is None:
                    break
                fold.job.progress.note(f"search: block {block} goes ({self.plan.ranking} {ranks[block]:.3g})")
                smaller = self._without_weak(without(chain[-1][0].graph, block, fold.student[0].graph, self.prefix))
                chain.append(self.trials.short(fold, name, smaller, [chain[-1], fold.student], k))
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
        short = self.trials.short(fold, f"shrink-{name}", better, [state, fold.student], k)
        self.trials.full(f"k{name}", lambda _: (short[0].graph, [short]), k, (k + 2) * self.trials.length)

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
        threshold = min(1.0, LEANER_PROXIES * self.plan.proxy_threshold)

        def leaner(fold: Fold) -> tuple[Graph, list[Delta]]:
            graph, before = self._state(chains, fold, k)
            return drop_weak_proxies(graph, threshold, self.prefix), before

        if len(leaner(self.main)[0].paths) < len(self._state(chains, self.main, k)[0].paths):
            self.trials.full(
                f"k{k:02d}-t{threshold:g}", leaner, k, (k + 1) * self.trials.length, proxy_threshold=threshold
            )

    # graphs

    def _without(self, fold: Fold, blocks: Sequence[int]) -> Graph:
        """The fold's student without these blocks and weak proxies; it may be unconnected."""
        graph = remove_blocks(fold.student[0].graph, blocks)
        return self._without_weak(graph) if is_whole(graph, self.prefix) else graph

    def _without_weak(self, graph: Graph) -> Graph:
        return drop_weak_proxies(graph, self.plan.proxy_threshold, self.prefix)

    def _with(self, fold: Fold, blocks: set[int]) -> Graph | None:
        """The fold's student with just these blocks; None when it can't have all of them and be connected."""
        whole = fold.student[0].graph
        graph = self._without(fold, sorted({*whole.blocks_kept} - blocks))
        return graph if is_whole(graph, self.prefix) and len(graph.universal) == len(blocks) else None

    @staticmethod
    def _state(chains: dict[int, list[Delta]], fold: Fold, k: int) -> tuple[Graph, list[Delta]]:
        state = chains[id(fold)][k]
        return state[0].graph, [state]
