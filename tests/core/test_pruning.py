from __future__ import annotations

import math
import random

import pytest

from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path, untouched
from nettailor_cli.core.pruning import (
    drop_dead,
    drop_weak_proxies,
    is_whole,
    prune,
    prune_to,
    remove_blocks,
)
from tests.core.plain import Triple, free_graph, triple_of, triples

Logits = dict[Triple, float]


def softmax(logits: Logits) -> Logits:
    """Over the paths that merge in the same node."""
    return {
        path: math.exp(a) / sum(math.exp(b) for other, b in logits.items() if other[1] == path[1])
        for path, a in logits.items()
    }


def graph_of(blocks: int, logits: Logits, rng: random.Random) -> Graph:
    costs = tuple(Cost(rng.randint(1, 100), rng.randint(1, 100)) for _ in range(blocks))
    return Graph(
        blocks=costs,
        stem=Cost(10, 10),
        head=Cost(10, 10),
        paths=tuple(
            Path(s, t, UNIVERSAL, alpha, costs[t - 1])
            if kind == "u"
            else Path(s, t, PROXY, alpha, Cost(rng.randint(1, 9), rng.randint(1, 9)))
            for (s, t, kind), alpha in softmax(logits).items()
        ),
    )


def random_case(seed: int) -> tuple[Graph, Logits, random.Random]:
    """A graph with every universal block and some of the proxies, and the logits behind its attention."""
    rng = random.Random(seed)
    blocks = rng.randint(1, 7)
    density = rng.choice([0.0, 0.3, 0.7, 1.0])
    paths = [p for p in triples(blocks, rng.choice([1, 2, 3, None])) if p[2] == "u" or rng.random() < density]
    logits = {path: rng.gauss(0.5 if path[2] == "u" else -0.5, rng.choice([0.5, 3.0])) for path in paths}
    return graph_of(blocks, logits, rng), logits, rng


def kept(graph: Graph) -> set[Triple]:
    return {triple_of(path) for path in graph.paths}


def same(one: Graph, other: Graph) -> bool:
    """Equal, the attention but for rounding."""
    alphas = [path.alpha for path in other.paths]
    return one.with_alphas(alphas) == other and [path.alpha for path in one.paths] == pytest.approx(alphas, rel=1e-12)


def reference_alive(paths: set[Triple], last: int) -> set[Triple]:
    """Paths on some way from the stem's output to the last node: what input and output exclusion leave in the end."""

    def reaches(start: int, step: dict[int, set[int]]) -> set[int]:
        found, todo = {start}, [start]
        while todo:
            for following in step.get(todo.pop(), set()) - found:
                found.add(following)
                todo.append(following)
        return found

    forward: dict[int, set[int]] = {}
    backward: dict[int, set[int]] = {}
    for source, sink, _ in paths:
        forward.setdefault(source, set()).add(sink)
        backward.setdefault(sink, set()).add(source)
    from_stem, to_last = reaches(0, forward), reaches(last, backward)
    return {path for path in paths if path[0] in from_stem and path[1] in to_last}


def reference_prune(logits: Logits, last: int, remove: int, threshold: float) -> set[Triple] | None:
    """PAPER.md: universal blocks first, the softmax over what is left, then the threshold; strongest paths stay."""
    gone = sorted((path for path in logits if path[2] == "u"), key=lambda path: softmax(logits)[path])[:remove]
    alive = reference_alive(logits.keys() - set(gone), last)
    if not alive:
        return None
    alpha = softmax({path: logits[path] for path in alive})
    staying: set[Triple] = set()

    def need(node: int) -> None:
        into = [path for path in alive if path[1] == node]
        strong = {path for path in into if path[2] == "u" or alpha[path] >= threshold}
        for path in strong or ({max(into, key=lambda path: alpha[path])} if into else set()):
            if path not in staying:
                staying.add(path)
                need(path[0])

    need(last)
    return staying


@pytest.mark.parametrize("seed", range(300))
def test_what_pruning_keeps_is_what_the_rules_keep(seed: int) -> None:
    graph, logits, rng = random_case(seed)
    remove, threshold = rng.randint(0, graph.last), rng.choice([0.0, 0.05, 0.1, 0.3, 0.6, 1.0])
    wanted = reference_prune(logits, graph.last, remove, threshold)
    if wanted is None:
        with pytest.raises(UsageError):
            prune(graph, remove, threshold)
        return
    pruned = prune(graph, remove, threshold)
    result = pruned.graph
    assert pruned.removed == remove
    assert kept(result) == wanted
    result.check()
    assert kept(result) == reference_alive(kept(result), graph.last), "something dead is left"
    weakest = {p.name for p in sorted(graph.universal, key=lambda p: p.alpha)[:remove]}
    assert not weakest & {p.name for p in result.universal}
    alpha = softmax({path: logits[path] for path in kept(result)})
    assert {triple_of(p): p.alpha for p in result.paths} == pytest.approx(alpha, rel=1e-9)
    for path in result.proxies:
        assert path.alpha >= threshold or len(result.into(path.sink)) == 1
    assert (result.blocks, result.stem, result.head) == (graph.blocks, graph.stem, graph.head)
    assert {p.name: p.cost for p in result.paths}.items() <= {p.name: p.cost for p in graph.paths}.items()
    assert same(drop_dead(result), result)


@pytest.mark.parametrize("seed", range(100))
def test_a_pruned_graph_can_be_pruned_again(seed: int) -> None:
    graph, logits, rng = random_case(seed + 1000)
    first = prune(graph, 0, rng.choice([0.0, 0.1, 0.4])).graph
    again = {path: logits[path] for path in kept(first)}
    remove, threshold = rng.randint(0, len(first.universal)), rng.choice([0.0, 0.1, 0.4])
    wanted = reference_prune(again, graph.last, remove, threshold)
    if wanted is None:
        with pytest.raises(UsageError):
            prune(first, remove, threshold)
    else:
        second = prune(first, remove, threshold).graph
        assert kept(second) == wanted
        alpha = softmax({path: logits[path] for path in wanted})
        assert {triple_of(p): p.alpha for p in second.paths} == pytest.approx(alpha, rel=1e-9)


@pytest.mark.parametrize("seed", range(100))
def test_dead_paths_go_to_a_fixed_point_and_doing_it_twice_changes_nothing(seed: int) -> None:
    rng = random.Random(seed)
    blocks = rng.randint(1, 7)
    paths = [path for path in triples(blocks, None) if rng.random() < 0.35]
    graph = graph_of(blocks, {path: rng.gauss(0, 1) for path in paths}, rng)
    once = drop_dead(graph)
    assert kept(once) == reference_alive(set(paths), blocks)
    assert same(drop_dead(once), once)


def test_dead_paths_go_in_chains() -> None:
    # without universal 2, node 2 is not fed; so its proxy to 4 goes; then node 1 is not read; so universal 1 goes
    paths = [(0, 1, "u"), (1, 2, "u"), (0, 3, "p"), (2, 4, "p"), (3, 4, "u")]
    assert kept(remove_blocks(free_graph(4, paths), {2})) == {(0, 3, "p"), (3, 4, "u")}


def three_nodes(last: list[float], universal1: float = 0.95) -> Graph:
    """Nodes 1 and 2 on their universal blocks; node 3 on its block and proxies from 2, 1 and 0 with these alphas."""
    cost = Cost(1, 1)
    paths = [Path(0, 1, UNIVERSAL, universal1, cost), Path(0, 1, PROXY, 1 - universal1, cost)]
    paths += [Path(1, 2, UNIVERSAL, 1.0, cost), Path(2, 3, UNIVERSAL, last[0], cost)]
    paths += [Path(source, 3, PROXY, alpha, cost) for source, alpha in zip((2, 1, 0), last[1:], strict=True)]
    return Graph(blocks=(cost,) * 3, stem=cost, head=cost, paths=tuple(paths))


def test_proxies_that_are_weak_beside_their_block_are_judged_again_without_it() -> None:
    # PAPER.md: all proxies of the last node were below 0.05 and its block was among the k; nothing was left
    result = prune(three_nodes([0.9, 0.04, 0.03, 0.03]), 1, 0.05).graph
    assert kept(result) == {(0, 1, "u"), (0, 1, "p"), (1, 2, "u"), (2, 3, "p"), (1, 3, "p"), (0, 3, "p")}
    assert [p.alpha for p in result.into(3)] == pytest.approx([0.4, 0.3, 0.3])


def test_the_strongest_path_stays_where_all_are_below_the_threshold() -> None:
    result = prune(three_nodes([0.9, 0.03, 0.04, 0.03]), 1, 0.5).graph
    assert kept(result) == {(0, 1, "u"), (1, 3, "p")}, "node 2 is not needed any more"
    assert [p.alpha for p in result.into(3)] == [1.0]


def test_of_equally_strong_paths_the_one_that_saw_most_of_the_network_stays() -> None:
    weak = drop_weak_proxies(remove_blocks(three_nodes([0.91, 0.03, 0.03, 0.03]), {3}), 0.9)
    assert [triple_of(p) for p in weak.into(3)] == [(2, 3, "p")]


def test_a_threshold_that_is_met_exactly_keeps_the_proxy() -> None:
    graph = three_nodes([0.25, 0.25, 0.25, 0.25], universal1=0.75)
    assert kept(prune(graph, 0, 0.25).graph) == kept(graph)
    assert not prune(graph, 0, 0.2500001).graph.into(3)[1:]


def test_nothing_goes_without_removal_and_threshold() -> None:
    graph, _, _ = random_case(7)
    assert kept(prune(graph, 0, 0.0).graph) == reference_alive(kept(graph), graph.last)


def test_all_blocks_can_go_where_proxies_connect() -> None:
    graph = free_graph(5, triples(5, 1))
    assert kept(prune(graph, 5, 0.05).graph) == {(n - 1, n, "p") for n in range(1, 6)}


@pytest.mark.parametrize("remove", [-1, 4, 100])
def test_removing_too_many_or_too_few_is_refused(remove: int) -> None:
    with pytest.raises(UsageError):
        prune(free_graph(3, triples(3, 1)), remove, 0.05)


def test_cutting_the_output_off_is_refused() -> None:
    graph = untouched((Cost(1, 1),) * 3, Cost(1, 1), Cost(1, 1))
    assert prune(graph, 0, 0.05).graph == graph
    with pytest.raises(UsageError, match="cut the output off"):
        prune(graph, 1, 0.05)


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    graph = free_graph(3, triples(3, 1))
    with pytest.raises(UsageError):
        prune(graph, 1, threshold)
    with pytest.raises(UsageError):
        prune_to(graph, 0.5, threshold)


@pytest.mark.parametrize("seed", range(100))
def test_a_share_of_macs_is_met_with_the_fewest_removals_or_else_by_the_leanest(seed: int) -> None:
    graph, logits, rng = random_case(seed + 2000)
    share, threshold = rng.uniform(0.05, 1.2), rng.choice([0.0, 0.1, 0.5])
    pruned = prune_to(graph, share, threshold)
    spent: list[float] = []
    for remove in range(graph.last + 1):
        paths = reference_prune(logits, graph.last, remove, threshold)
        if paths is not None:
            macs = sum(path.cost.macs for path in graph.paths if triple_of(path) in paths)
            spent.append((graph.stem.macs + graph.head.macs + macs) / graph.backbone.macs)
    fitting = [remove for remove, macs in enumerate(spent) if macs <= share]
    assert pruned.graph.cost.macs / graph.backbone.macs == pytest.approx(spent[pruned.removed])
    if fitting:
        assert pruned.removed == fitting[0]
    else:
        assert spent[pruned.removed] == min(spent)


class TestSharedPrefix:
    """Blocks 1..N stand alone in their nodes, as tailor --shared-prefix makes them."""

    def case(self, seed: int) -> tuple[Graph, Logits, int, random.Random]:
        rng = random.Random(seed)
        blocks = rng.randint(1, 8)
        prefix = rng.randint(1, blocks)
        paths = [p for p in triples(blocks, rng.choice([1, 2, 3, None])) if p[2] == "u" or p[1] > prefix]
        logits = {path: rng.gauss(0.0, rng.choice([0.5, 3.0])) for path in paths}
        return graph_of(blocks, logits, rng), logits, prefix, rng

    @pytest.mark.parametrize("seed", range(200))
    def test_stays_whatever_is_removed(self, seed: int) -> None:
        graph, logits, prefix, rng = self.case(seed)
        chain = {(n - 1, n, "u") for n in range(1, prefix + 1)}
        removed = rng.randint(0, graph.last - prefix)
        threshold = rng.choice([0.0, 0.1, 0.6, 1.0])
        pruned = prune(graph, removed, threshold, prefix).graph
        pruned.check()
        assert kept(pruned) >= chain and is_whole(pruned, prefix)
        assert same(pruned, drop_dead(pruned)), "the prefix is in use: it is on a way to the output"
        # what goes by rank are the weakest of the others
        alphas = {p.sink: p.alpha for p in graph.universal if p.sink > prefix}
        gone = sorted(alphas, key=lambda block: alphas[block])[:removed]
        assert not {*gone} & {*pruned.blocks_kept}
        # where the usual rules leave the prefix in use they are all there is
        others = {p: a for p, a in logits.items() if p not in {(n - 1, n, "u") for n in gone}}
        usual = reference_prune(others, graph.last, 0, threshold)
        assert usual is not None and kept(pruned) >= usual
        if chain <= usual:
            assert kept(pruned) == usual
        # and again, on what is left
        for more in range(len(pruned.blocks_kept) - prefix + 1):
            try:
                again = prune(pruned, more, threshold, prefix).graph
            except UsageError as error:
                assert "cut the output off" in error.message
            else:
                assert kept(again) >= chain

    def test_is_not_there_to_be_removed(self) -> None:
        graph = graph_of(4, dict.fromkeys(triples(4, 1)[:1] + triples(4, 1)[2:], 0.0), random.Random(0))
        with pytest.raises(UsageError, match="has 3 universal blocks beside the 1 of its shared prefix") as caught:
            prune(graph, 4, 0.0, 1)
        assert caught.value.hint == "choose 0 to 3"
        assert prune(graph, 3, 0.0, 1).graph.blocks_kept == (1,)
        assert prune_to(graph, 1e-9, 0.0, 1).graph.blocks_kept == (1,)

    def test_something_goes_on_reading_it(self) -> None:
        """By hand: node 3 has a strong proxy from the stem and a weak one from node 2, which lives on node 1 alone."""
        free = free_graph(3, [(0, 1, "u"), (1, 2, "p"), (2, 3, "p"), (0, 3, "p")])
        graph = free.with_alphas([1.0, 1.0, 0.04, 0.96])
        assert kept(drop_weak_proxies(graph, 0.05)) == {(0, 3, "p")}
        assert kept(drop_weak_proxies(graph, 0.05, 1)) == kept(graph)
        assert kept(drop_weak_proxies(graph, 0.05, 0)) == {(0, 3, "p")}

    def test_of_several_ways_out_the_strongest_stays(self) -> None:
        free = free_graph(3, [(0, 1, "u"), (1, 2, "p"), (0, 2, "p"), (2, 3, "p"), (1, 3, "p"), (0, 3, "p")])
        graph = free.with_alphas([1.0, 0.02, 0.98, 0.9, 0.03, 0.07])
        # into node 2 from 1: 0.02; into node 3 from 1: 0.03
        assert kept(drop_weak_proxies(graph, 0.05)) == {(0, 2, "p"), (2, 3, "p"), (0, 3, "p")}
        wanted = {(0, 1, "u"), (0, 2, "p"), (2, 3, "p"), (1, 3, "p"), (0, 3, "p")}
        assert kept(drop_weak_proxies(graph, 0.05, 1)) == wanted
