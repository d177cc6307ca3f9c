from __future__ import annotations

import pytest

from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.pruning import remove_blocks
from nettailor_cli.core.search.asked import RANKINGS
from nettailor_cli.core.search.ranking import scores, weakest, without


def graph(*, proxies: bool = True) -> Graph:
    """Three blocks with alphas 0.5, 0.2, 0.4 and 100, 10, 200 MACs; beside each, a proxy of 1 MAC."""
    blocks = (Cost(7, 100), Cost(7, 10), Cost(7, 200))
    alphas = (0.5, 0.2, 0.4)
    paths = [Path(n - 1, n, UNIVERSAL, a, c) for n, (a, c) in enumerate(zip(alphas, blocks, strict=True), start=1)]
    if proxies:
        paths += [Path(n - 1, n, PROXY, 1 - a, Cost(1, 1)) for n, a in enumerate(alphas, start=1)]
    return Graph(blocks=blocks, stem=Cost(0, 50), head=Cost(0, 5), paths=tuple(paths))


def no_loss(graph: Graph) -> float:
    raise AssertionError("a ranking by alpha needs no loss")


def test_by_alpha() -> None:
    assert scores(graph(), "alpha", no_loss) == {1: 0.5, 2: 0.2, 3: 0.4}


def test_by_alpha_per_mac_a_dear_block_goes_before_a_cheap_one() -> None:
    found = scores(graph(), "alpha-cost", no_loss)
    assert found == pytest.approx({1: 0.5 / 100, 2: 0.2 / 10, 3: 0.4 / 200})
    assert weakest(found) == 3


def losses(smaller: Graph) -> float:
    """By what is gone: 1 costs 2.0, 2 costs 0.3, 3 costs 1.5, on top of 0.1."""
    gone = {1, 2, 3} - {path.sink for path in smaller.universal}
    return 0.1 + sum({1: 2.0, 2: 0.3, 3: 1.5}[block] for block in gone)


def test_by_the_loss_without_it() -> None:
    assert scores(graph(), "loss", losses) == pytest.approx({1: 2.1, 2: 0.4, 3: 1.6})


def test_by_the_rise_of_the_loss_per_mac() -> None:
    assert scores(graph(), "loss-cost", losses) == pytest.approx({1: 2.0 / 100, 2: 0.3 / 10, 3: 1.5 / 200})


@pytest.mark.parametrize("ranking", RANKINGS)
def test_a_block_that_nothing_stands_in_for_can_not_go(ranking: str) -> None:
    found = scores(graph(proxies=False), ranking, losses)
    assert found == {} and weakest(found) is None


def test_what_dies_with_a_block_counts_as_saved() -> None:
    """Without the last node's own block, its proxy from the stem is all there is, and blocks 1 and 2 are dead."""
    whole = graph(proxies=False)
    shortcut = Path(0, 3, PROXY, 0.6, Cost(1, 1))
    whole = Graph(whole.blocks, whole.stem, whole.head, (*whole.paths, shortcut))
    assert scores(whole, "alpha-cost", no_loss)[3] == pytest.approx(0.4 / 310)


def test_weak_proxies_come_back_where_the_block_that_they_were_weak_beside_goes() -> None:
    whole = graph()
    lean = whole.keeping(lambda path: path.is_universal or path.sink != 2)
    assert lean.into(2)[0].alpha == 1
    assert 2 not in scores(lean, "alpha", no_loss)
    assert scores(lean, "alpha", no_loss, whole=whole)[2] == 1.0
    smaller = without(lean, 2, whole)
    assert [path.name for path in smaller.into(2)] == ["proxy 1-2"] and smaller.into(2)[0].alpha == 1
    assert without(whole, 1, whole) == remove_blocks(whole, {1}), "nothing comes back where something is left"


def test_proxies_from_nodes_that_are_gone_stay_gone() -> None:
    whole = graph()
    more = [Path(source, sink, PROXY, 0.1, Cost(1, 1)) for source, sink in ((0, 2), (0, 3), (1, 3))]
    whole = Graph(whole.blocks, whole.stem, whole.head, (*whole.paths, *more))
    lean = whole.keeping(lambda path: path.name in ("proxy 0-2", "universal 3"))
    assert [path.name for path in without(lean, 3, whole).into(3)] == ["proxy 2-3", "proxy 0-3"]


def test_of_equal_scores_the_first_block_goes() -> None:
    assert weakest({3: 0.5, 2: 0.5, 1: 0.7}) == 2


def test_an_unknown_ranking() -> None:
    with pytest.raises(ValueError, match="luck"):
        scores(graph(), "luck", losses)


def prefixed() -> Graph:
    """`graph` without the proxy into node 1."""
    whole = graph()
    return Graph(whole.blocks, whole.stem, whole.head, tuple(p for p in whole.paths if p.name != "proxy 0-1"))


@pytest.mark.parametrize("ranking", RANKINGS)
def test_the_shared_prefix_has_no_scores(ranking: str) -> None:
    assert scores(prefixed(), ranking, losses, 1) == {
        block: score for block, score in scores(graph(), ranking, losses).items() if block != 1
    }
    assert scores(prefixed(), ranking, losses, 3) == {}


def test_a_block_without_which_nothing_would_read_the_shared_prefix_can_not_go() -> None:
    """Node 2 has its block from node 1 and a proxy from the stem."""
    whole = graph()
    paths = [p for p in whole.paths if p.name not in ("proxy 0-1", "proxy 1-2")]
    whole = Graph(whole.blocks, whole.stem, whole.head, (*paths, Path(0, 2, PROXY, 0.8, Cost(1, 1))))
    assert scores(whole, "alpha", no_loss) == {1: 0.5, 2: 0.2, 3: 0.4}
    assert scores(whole, "alpha", no_loss, 1) == {3: 0.4}


def test_weak_proxies_come_back_where_the_shared_prefix_was_read_through_the_block_alone() -> None:
    """Node 2 has its block from node 1 and a proxy from the stem; a weak one from node 1 went before."""
    whole = prefixed()
    more = Path(0, 2, PROXY, 0.8, Cost(1, 1))
    whole = Graph(whole.blocks, whole.stem, whole.head, (*whole.paths, more))
    lean = whole.keeping(lambda path: path.name != "proxy 1-2")
    assert 2 in scores(lean, "alpha", no_loss, 1, whole=whole)
    assert {path.name for path in without(lean, 2, whole, 1).into(2)} == {"proxy 0-2", "proxy 1-2"}
    assert {path.name for path in without(lean, 2, whole).into(2)} == {"proxy 0-2"}, "without a prefix it is not needed"
