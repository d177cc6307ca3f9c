from __future__ import annotations

import tomllib
from dataclasses import replace

import pytest

from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import PROXY, UNIVERSAL, Cost, Graph, Path
from tests.core.deploy.tables import MACHINE, PARTS, hand_made, spread

ASKED = {"backbone": "resnet18", "size": 32, "proxy_width": None, "proxy_depthwise": False, "batch": 1}


def graph(blocks: int = 8, sources: tuple[int, ...] = (0, 6)) -> Graph:
    """The chain of all blocks, and proxies into the last node."""
    costs = tuple(Cost(7, 70) for _ in range(blocks))
    paths = [Path(node - 1, node, UNIVERSAL, 0.5, Cost(7, 70)) for node in range(1, blocks + 1)]
    paths += [Path(source, blocks, PROXY, 0.25, Cost(1, 10)) for source in sources]
    return Graph(blocks=costs, stem=Cost(3, 30), head=Cost(2, 20), paths=tuple(paths))


def test_a_table_is_read_back_as_it_was_written() -> None:
    for table in (hand_made(), hand_made(proxy_width=24), hand_made(proxy_depthwise=True)):
        assert LatencyTable.from_toml(table.to_toml(), "here") == table


def test_the_file_is_plain_toml_with_a_row_per_part_and_no_date() -> None:
    text = hand_made().to_toml()
    document = tomllib.loads(text)
    assert document["machine"] == MACHINE
    assert {k: document[k] for k in ("format", "unit", "backbone", "size")} == {
        "format": 1,
        "unit": "microseconds",
        "backbone": "resnet18",
        "size": 32,
    }
    assert set(document) == {"format", "unit", "backbone", "size", "machine", "batch_1", "batch_32"}
    assert document["batch_1"]["proxy 2-5"] == {"median": 125.0, "quartiles": [124.5, 126.5]}
    assert document["batch_32"]["universal 8"]["median"] == 20 * 1008.0
    row = next(line for line in text.splitlines() if "proxy 2-5" in line)
    assert row == '"proxy 2-5"   = { median = 125.0, quartiles = [124.5, 126.5] }'
    assert text == hand_made().to_toml()


def test_a_graph_gets_the_medians_of_its_own_parts_and_nothing_else_changes() -> None:
    before = graph()
    after = hand_made().on(before, **ASKED)
    assert (after.stem, after.head) == (Cost(3, 30, 500.0), Cost(2, 20, 50.0))
    assert [block.latency for block in after.blocks] == [1001.0 + n for n in range(8)]
    assert {path.name: path.cost.latency for path in after.paths} == {
        path.name: PARTS[path.name] for path in before.paths
    }
    assert {path.name: path.cost.latency for path in after.proxies} == {"proxy 0-8": 108.0, "proxy 6-8": 168.0}
    # stem 500, blocks 8 * 1000 + 36, proxies 108 + 168, head 50
    assert after.cost.latency == pytest.approx(500 + 8036 + 276 + 50)
    assert after.backbone.latency == pytest.approx(500 + 8036 + 50)
    assert hand_made().on(before, **{**ASKED, "batch": 32}).cost.latency == pytest.approx(20 * 8862)

    def bare(measured: Graph) -> Graph:
        def plain(cost: Cost) -> Cost:
            return replace(cost, latency=None)

        return Graph(
            tuple(map(plain, measured.blocks)),
            plain(measured.stem),
            plain(measured.head),
            tuple(replace(path, cost=plain(path.cost)) for path in measured.paths),
        )

    assert bare(after) == before


@pytest.mark.parametrize(
    ("asked", "message", "hint"),
    [
        (
            {"backbone": "resnet34"},
            "is of resnet18 at 32 px; resnet34 at 32 px is needed",
            "--backbone resnet34 --size 32",
        ),
        ({"size": 224}, "is of resnet18 at 32 px; resnet18 at 224 px is needed", "--backbone resnet18 --size 224"),
        ({"proxy_width": 24}, "of proxies of width the default; 24 is needed", "--proxy-width 24"),
        ({"proxy_depthwise": True}, "proxies without a depthwise convolution; some with one", "--proxy-depthwise"),
        ({"batch": 8}, "has batch sizes 1, 32, not 8", "--batch 8"),
    ],
)
def test_a_table_of_something_else_is_refused_with_what_to_do(
    asked: dict[str, object], message: str, hint: str
) -> None:
    table = replace(hand_made(), source="mine.toml")
    with pytest.raises(FileError) as caught:
        table.on(graph(), **{**ASKED, **asked})
    assert caught.value.message.startswith("mine.toml ") and message in caught.value.message
    assert f"nettailor benchmark --calibrate --backbone {asked.get('backbone', 'resnet18')}" in caught.value.hint
    assert hint in caught.value.hint and "-o FILE" in caught.value.hint


def test_the_width_of_proxies_matters_only_where_there_are_some() -> None:
    hand_made(proxy_width=24).on(graph(sources=()), **ASKED)
    with pytest.raises(FileError, match="of width 24; the default is needed"):
        hand_made(proxy_width=24).on(graph(), **ASKED)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        (("proxy 0-8",), "no latency of proxy 0-8 at batch 1"),
        (("proxy 0-8", "universal 3", "stem"), "no latency of stem and 2 more at batch 1"),
        (("head",), "no latency of head at batch 1"),
    ],
)
def test_a_table_that_lacks_a_part_is_refused(missing: tuple[str, ...], message: str) -> None:
    rows = {name: spread(median) for name, median in PARTS.items() if name not in missing}
    with pytest.raises(FileError) as caught:
        replace(hand_made(), timings={1: rows}).on(graph(), **ASKED)
    assert message in caught.value.message and "nettailor benchmark --calibrate" in caught.value.hint


def test_parts_that_the_graph_does_not_have_do_no_harm() -> None:
    smaller = hand_made().on(graph(blocks=3, sources=(1,)), **ASKED)
    assert smaller.cost.latency == pytest.approx(500 + 3006 + 113 + 50)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("format = 1", "format = 2", "is of format 2, this nettailor reads 1"),
        ('unit = "microseconds"', 'unit = "seconds"', "unit 'microseconds'"),
        ('unit = "microseconds"', "", "has no 'unit'"),
        ("size = 32", 'size = "32"', "size is '32'"),
        ("size = 32", "size = 0", "size is 0"),
        ("[machine]", "[machines]", "has no 'machine'"),
        ("threads = 2", "", "has no 'threads'"),
        ("[batch_1]", "[batch_one]", "invalid literal"),
        ("median = 125.0", "median = -125.0", "proxy 2-5: times have to be above zero"),
        ("median = 125.0", "median = 999.0", "proxy 2-5"),
        ("median = 125.0", "median = nan", "proxy 2-5"),
        ("median = 125.0", "median = true", "proxy 2-5: True is not a number"),
        ("median = 125.0, ", "", "has no 'median'"),
        ("quartiles = [124.5, 126.5]", "quartiles = [124.5]", "not enough values"),
        ("format = 1", "format 1", "is not a latency table: Expected"),
        ("[machine]", "[batch_7]\nstem = 3\n[machine]", "is not a latency table"),
        ("[machine]", "batch_7 = 3\n[machine]", "is not a latency table"),
    ],
)
def test_a_damaged_table_is_refused_and_the_message_says_where(old: str, new: str, message: str) -> None:
    text = hand_made().to_toml()
    assert text.count(old) >= 1
    with pytest.raises(FileError) as caught:
        LatencyTable.from_toml(text.replace(old, new, 1), "mine.toml")
    assert "mine.toml" in caught.value.message and message in caught.value.message


def test_a_file_without_any_batch_is_no_table() -> None:
    text = hand_made().to_toml()
    with pytest.raises(FileError, match="has no table \\[batch_1\\]"):
        LatencyTable.from_toml(text[: text.index("[batch_1]")], "mine.toml")


def test_the_summary_says_what_was_measured_where() -> None:
    first, second, third = hand_made().summary()
    assert first == 'resnet18 at 32 px on A "quick" one (cpu), 2 threads, fp32, torch 2.6.0'
    # stem 500 and blocks 8036; the quickest proxy is 0-1 (101), the slowest 7-8 (178)
    assert second == "batch 1: stem and blocks 8.54 ms, each of 36 proxies 101 us to 178 us"
    assert third.startswith("batch 32: stem and blocks 171 ms, each of 36 proxies 2.02 ms to 3.56 ms")
