from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from typing import Any

import pytest

from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path, sources_of_proxies, untouched

BLOCKS = (Cost(100, 1000), Cost(200, 2000), Cost(400, 4000))


def example() -> Graph:
    return Graph(
        blocks=BLOCKS,
        stem=Cost(7, 70),
        head=Cost(11, 12),
        paths=(
            Path(0, 3, PROXY, 0.1, Cost(3, 4)),
            Path(0, 1, UNIVERSAL, 0.9, BLOCKS[0]),
            Path(2, 3, PROXY, 0.3, Cost(5, 6)),
            Path(2, 3, UNIVERSAL, 0.6, BLOCKS[2]),
            Path(0, 1, PROXY, 0.1, Cost(1, 2)),
            Path(1, 2, PROXY, 1.0, Cost(2, 3)),
        ),
    )


def test_paths_stand_by_sink_universal_first_then_proxies_from_near_to_far() -> None:
    assert [path.name for path in example().paths] == [
        "universal 1",
        "proxy 0-1",
        "proxy 1-2",
        "universal 3",
        "proxy 2-3",
        "proxy 0-3",
    ]


def test_costs_add_up() -> None:
    graph = example()
    assert graph.backbone == Cost(7 + 700 + 11, 70 + 7000 + 12)
    assert graph.universal_cost == Cost(7 + 100 + 400, 70 + 1000 + 4000)
    assert graph.task_cost == Cost(11 + 1 + 2 + 3 + 5, 12 + 2 + 3 + 4 + 6)
    assert graph.cost == Cost(507 + 22, 5070 + 27)


def test_a_teachers_graph_is_every_block_alone_in_its_node() -> None:
    graph = untouched(BLOCKS, Cost(7, 70), Cost(11, 12))
    assert [(p.source, p.sink, p.kind, p.alpha) for p in graph.paths] == [
        (0, 1, UNIVERSAL, 1.0),
        (1, 2, UNIVERSAL, 1.0),
        (2, 3, UNIVERSAL, 1.0),
    ]
    assert graph.cost == graph.backbone
    graph.check()


def test_keeping_renormalises_each_node_by_itself() -> None:
    kept = example().keeping(lambda path: path.name not in ("universal 3", "proxy 0-1"))
    assert {path.name: path.alpha for path in kept.paths} == pytest.approx(
        {"universal 1": 1.0, "proxy 1-2": 1.0, "proxy 2-3": 0.75, "proxy 0-3": 0.25}
    )


@pytest.mark.parametrize(
    ("node", "skips", "sources"),
    [(1, 1, [0]), (1, 3, [0]), (4, 1, [3]), (4, 3, [3, 2, 1]), (4, None, [3, 2, 1, 0]), (2, 5, [1, 0])],
)
def test_proxies_come_from_the_closest_nodes_the_stem_included(
    node: int, skips: int | None, sources: list[int]
) -> None:
    assert list(sources_of_proxies(node, skips)) == sources


def test_a_graph_survives_json_exactly() -> None:
    graph = example().with_alphas([0.1 + 0.2, 0.7, 1.0, math.pi / 10, 5e-324, 1 / 3])
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph


def change(key: str, value: Any, path: int = 0) -> dict[str, Any]:
    document = copy.deepcopy(example().to_json())
    document["paths"][path][key] = value
    return document


def without_path(*numbers: int) -> dict[str, Any]:
    document = copy.deepcopy(example().to_json())
    document["paths"] = [p for number, p in enumerate(document["paths"]) if number not in numbers]
    return document


@pytest.mark.parametrize(
    "document",
    [
        change("alpha", 1.01),
        change("alpha", -0.01),
        change("alpha", math.nan),
        change("kind", "other"),
        change("source", 1),
        change("source", -1),
        change("sink", 4),
        change("sink", 1.0),
        change("source", True, path=3),
        change("macs", -1),
        change("own", {"parameters": 1, "macs": 10**9}),  # more than there is of it
        change("own", {"parameters": 10**9, "macs": 0}),
        change("own", {"parameters": 1, "macs": 0}, path=1),  # all of a proxy is the task's own
        change("own", 7),
        change("parameters", 1.5),
        change("kind", UNIVERSAL, path=1),  # twice universal 1
        change("kind", UNIVERSAL, path=5),  # a universal block from 0 to 3
        without_path(3, 4, 5),  # nothing leads into the last node
        without_path(2),  # node 2 is read, but nothing leads into it
        {**example().to_json(), "blocks": []},
        {**example().to_json(), "paths": []},
    ],
)
def test_a_document_that_is_no_graph_is_refused(document: dict[str, Any]) -> None:
    Graph.from_json(example().to_json())
    with pytest.raises((KeyError, TypeError, ValueError)):
        Graph.from_json(document)


def test_alphas_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="5 alphas for 6 paths"):
        example().with_alphas([0.2] * 5)


def measured() -> Graph:
    """`example` with a latency of a tenth of the MACs everywhere."""

    def timed(cost: Cost) -> Cost:
        return replace(cost, latency=cost.macs / 10)

    graph = example()
    return Graph(
        blocks=tuple(map(timed, graph.blocks)),
        stem=timed(graph.stem),
        head=timed(graph.head),
        paths=tuple(replace(path, cost=timed(path.cost)) for path in graph.paths),
    )


def test_latencies_add_up_where_all_are_known_and_are_unknown_otherwise() -> None:
    graph = measured()
    assert graph.cost == Cost(507 + 22, 5070 + 27, pytest.approx(509.7))
    assert graph.backbone.latency == pytest.approx(7 + 700 + 1.2)
    assert graph.keeping(lambda path: path.is_universal).task_cost.latency == pytest.approx(1.2)  # the head alone
    assert replace(graph, head=Cost(1, 1)).cost.latency is None
    assert example().cost.latency is None


def test_latencies_go_through_json_and_pruning_and_files_without_them_stay_as_they_were() -> None:
    graph = measured()
    assert Graph.from_json(json.loads(json.dumps(graph.to_json()))) == graph
    kept = graph.keeping(lambda path: path.source != 2).with_alphas([0.5, 0.5, 1.0, 1.0])
    assert [path.cost.latency for path in kept.paths] == [100.0, 0.2, 0.3, 0.4]
    assert "latency_us" not in json.dumps(example().to_json())


@pytest.mark.parametrize("latency", ["1", -1.0, math.nan, math.inf, True, [1.0]])
def test_a_latency_that_is_no_time_is_refused(latency: object) -> None:
    document = measured().to_json()
    document["paths"][0]["latency_us"] = latency
    with pytest.raises(ValueError, match="microseconds"):
        Graph.from_json(document)
