from __future__ import annotations

from dataclasses import replace

import pytest

from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.sharing import common_blocks, macs_together

BLOCKS = (Cost(0, 100), Cost(0, 20), Cost(0, 3))


def graph(universal: list[int], proxied: list[int]) -> Graph:
    paths = [Path(n - 1, n, UNIVERSAL, 0.5, BLOCKS[n - 1]) for n in universal]
    paths += [Path(n - 1, n, PROXY, 0.5, Cost(0, 1)) for n in proxied]
    return Graph(BLOCKS, Cost(0, 1000), Cost(0, 50), tuple(paths))


def task(universal: list[int], proxied: list[int], *, bn_stats: str = "frozen", size: int = 32) -> ModelDocument:
    return ModelDocument(
        stage="model",
        backbone="resnet18.mine",
        fingerprint="f" * 64,
        graph=graph(universal, proxied),
        classes=("a",),
        preprocessing=Preprocessing(size),
        student={"bn_stats": bn_stats},
        data={},
        settings={},
        metrics={},
    )


@pytest.mark.parametrize(
    ("universal", "proxied", "common"),
    [
        ([1, 2, 3], [], (1, 2, 3)),
        ([1, 2, 3], [3], (1, 2, 3)),
        ([1, 2, 3], [2], (1, 2)),
        ([1, 2, 3], [1], (1,)),
        ([2, 3], [1], ()),
        ([1, 3], [2], (1,)),
        ([], [1, 2, 3], ()),
    ],
)
def test_as_far_as_nothing_of_the_task_comes_in(
    universal: list[int], proxied: list[int], common: tuple[int, ...]
) -> None:
    assert common_blocks(graph(universal, proxied)) == common


def test_a_block_with_parts_of_the_tasks_own_is_nobody_elses() -> None:
    whole = graph([1, 2, 3], [])
    first, second, third = whole.paths
    adapted = replace(second, cost=Cost(2, 20), own=Cost(2, 0, 0.0))
    assert common_blocks(replace(whole, paths=(first, adapted, third))) == (1,)


def test_what_is_common_is_counted_once() -> None:
    one, two, three = task([1, 2, 3], [3]), task([1, 2], [2, 3]), task([], [1, 2, 3])
    assert macs_together([one]) == 1000 + 100 + 20 + 3 + 1 + 50
    assert macs_together([one, two]) == 1000 + 100 + 20 + 3 + 1 + 50 + (1 + 1 + 50)
    assert macs_together([one, two, three]) == macs_together([one, two]) + 3 + 50
    # what two tasks share is shared whoever stands between them
    assert macs_together([one, three, one]) == 1000 + 100 + 20 + 3 + 1 + 50 + (3 + 50) + (1 + 50)


def test_other_sizes_and_adapted_statistics_share_nothing() -> None:
    one = task([1, 2, 3], [3])
    alone = one.graph.cost.macs
    for other in (
        task([1, 2, 3], [3], bn_stats="adapt"),
        task([1, 2, 3], [3], size=48),
        replace(one, preprocessing=Preprocessing(32, mean=(0.0, 0.0, 0.0))),
    ):
        assert macs_together([one, other]) == macs_together([other, one]) == 2 * alone
    assert macs_together([]) == 0
