"""What every part of a backbone's student takes on some machine: a readable file, made there and used here. No torch.

    # comments say what the times hold
    format = 1
    unit = "microseconds"
    backbone = "resnet18"
    size = 224

    [machine]
    name = "..."

    [batch_1]
    "stem"        = { median = 812.3, quartiles = [801.1, 830.0] }
    "universal 1" = ...

A row's name is that of its path in the graph, or "stem" or "head". Without a date, so that equal runs look alike.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import tomli_w

from nettailor_cli.core.deploy.spread import Spread, duration
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.graph import Cost, Graph
from nettailor_cli.core.printable import harmless
from nettailor_cli.core.strict import parse_toml

FORMAT = 1
UNIT = "microseconds"
STEM, HEAD = "stem", "head"
_BATCH = "batch_"
_COMMENT = """\
# What the parts of a student take, alone, at each batch size; made by: nettailor benchmark --calibrate
# A block's time holds its activation; a proxy's its pooling and its adding to the node. Batch norms are not folded.
"""


@dataclass(frozen=True)
class LatencyTable:
    """Latencies in microseconds: batch size -> name of the part -> median and quartiles.

    `backbone` is an ARCH (weights don't matter to a clock), `size` in pixels, `proxy_width` that inside proxies (None:
    the default), `proxy_depthwise` whether there is a depthwise convolution in them. `machine` describes where it was
    measured. `source` is how messages call the table.
    """

    backbone: str
    size: int
    proxy_width: int | None
    proxy_depthwise: bool
    machine: Mapping[str, str | int]
    timings: Mapping[int, Mapping[str, Spread]]
    source: str = field(default="the latency table", compare=False)

    def on(
        self, graph: Graph, *, backbone: str, size: int, proxy_width: int | None, proxy_depthwise: bool, batch: int
    ) -> Graph:
        """`graph` with this table's medians at `batch` as latencies of its parts.

        The other arguments say what the graph is of. Raises FileError when the table is of something else or lacks a
        part.
        """
        command = f"nettailor benchmark --calibrate --backbone {backbone} --size {size}"
        command += "" if proxy_width is None else f" --proxy-width {proxy_width}"
        command += " --proxy-depthwise" if proxy_depthwise else ""
        command += f" --batch {batch}" if batch not in self.timings else ""
        hint = f"make one that fits: {command} -o FILE"
        if (self.backbone, self.size) != (backbone, size):
            raise FileError(
                f"{self.source} is of {self.backbone} at {self.size} px; {backbone} at {size} px is needed", hint
            )
        if graph.proxies and self.proxy_width != proxy_width:
            own, needed = (width or "the default" for width in (self.proxy_width, proxy_width))
            raise FileError(f"{self.source} is of proxies of width {own}; {needed} is needed", hint)
        if graph.proxies and self.proxy_depthwise != proxy_depthwise:
            own, needed = ("with" if there else "without" for there in (self.proxy_depthwise, proxy_depthwise))
            raise FileError(
                f"{self.source} is of proxies {own} a depthwise convolution; some {needed} one are needed", hint
            )
        if batch not in self.timings:
            there = ", ".join(map(str, self.timings))
            raise FileError(f"{self.source} has batch sizes {there}, not {batch}", hint)
        medians = {name: spread.median for name, spread in self.timings[batch].items()}
        blocks = [f"universal {node}" for node in range(1, graph.last + 1)]
        parts = dict.fromkeys((STEM, HEAD, *blocks, *(path.name for path in graph.paths)))
        lacking = [name for name in parts if name not in medians]
        if lacking:
            more = f" and {len(lacking) - 1} more" if len(lacking) > 1 else ""
            raise FileError(f"{self.source} has no latency of {lacking[0]}{more} at batch {batch}", hint)

        def measured(cost: Cost, name: str) -> Cost:
            return replace(cost, latency=medians[name])

        return replace(
            graph,
            blocks=tuple(measured(cost, name) for cost, name in zip(graph.blocks, blocks, strict=True)),
            stem=measured(graph.stem, STEM),
            head=measured(graph.head, HEAD),
            paths=tuple(replace(path, cost=measured(path.cost, path.name)) for path in graph.paths),
        )

    def summary(self) -> list[str]:
        """In a line per batch size what the parts take, after one on what was measured where."""
        lines = [f"{self.backbone} at {self.size} px on {machine_line(self.machine)}"]
        for batch, timings in self.timings.items():
            whole = sum(spread.median for name, spread in timings.items() if not name.startswith(("proxy", HEAD)))
            proxies = sorted(spread.median for name, spread in timings.items() if name.startswith("proxy"))
            text = f"batch {batch}: stem and blocks {duration(whole)}"
            if proxies:
                text += f", each of {len(proxies)} proxies {duration(proxies[0])} to {duration(proxies[-1])}"
            lines.append(text)
        return lines

    def to_json(self) -> dict[str, Any]:
        return {
            "unit": UNIT,
            "backbone": self.backbone,
            "size": self.size,
            "proxy_width": self.proxy_width,
            "proxy_depthwise": self.proxy_depthwise,
            "machine": dict(self.machine),
            "batches": {
                str(batch): {name: spread.to_json() for name, spread in timings.items()}
                for batch, timings in self.timings.items()
            },
        }

    def to_toml(self) -> str:
        """Equal tables give equal texts. Times are rounded to a tenth of a microsecond."""
        proxies = {"proxy_width": self.proxy_width, "proxy_depthwise": self.proxy_depthwise or None}
        told = {name: value for name, value in proxies.items() if value is not None}
        head = {"format": FORMAT, "unit": UNIT, "backbone": self.backbone, "size": self.size, **told}
        parts = [_COMMENT + tomli_w.dumps({**head, "machine": dict(self.machine)})]
        for batch, timings in self.timings.items():
            longest = max(map(len, timings)) + 2
            rows = [f"{json.dumps(name):<{longest}} = {_row(spread)}\n" for name, spread in timings.items()]
            parts.append(f"[{_BATCH}{batch}]\n" + "".join(rows))
        return "\n".join(parts)

    @classmethod
    def from_toml(cls, text: str | bytes, source: str) -> LatencyTable:
        """The table in `text` (bytes: UTF-8), which came from `source`. Raises FileError when it is not one."""
        hint = "nettailor benchmark --calibrate makes one"
        try:
            document = parse_toml(text)
            version = document["format"]
            if type(version) is int and version > FORMAT:
                raise FileError(f"{source} is of format {version}, this nettailor reads {FORMAT}", "upgrade nettailor")
            return cls(**_content(document), source=source)
        except KeyError as error:
            raise FileError(f"{source} is not a latency table: it has no {error}", hint) from error
        except (ValueError, TypeError, AttributeError) as error:
            raise FileError(f"{source} is not a latency table: {error}", hint) from error


def machine_line(machine: Mapping[str, str | int]) -> str:
    """The machine in one line: "AMD EPYC (cpu), 2 threads, fp32, torch 2.6.0"."""
    return (
        f"{machine['name']} ({machine['device']}), {machine['threads']} threads, {machine['precision']}, "
        f"torch {machine['torch']}"
    )


def _row(spread: Spread) -> str:
    return f"{{ median = {spread.median:.1f}, quartiles = [{spread.low:.1f}, {spread.high:.1f}] }}"


def _content(document: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a table. Raises KeyError, TypeError or ValueError when they make no sense."""
    if (document["format"], document["unit"]) != (FORMAT, UNIT):
        raise ValueError(f"format {FORMAT} and unit {UNIT!r} are expected")
    width = document.get("proxy_width")
    for name, number in (("size", document["size"]), ("proxy_width", 1 if width is None else width)):
        if type(number) is not int or number < 1:
            raise ValueError(f"{name} is {number!r}, not a whole number above zero")
    depthwise = document.get("proxy_depthwise", False)
    if not isinstance(depthwise, bool):
        raise ValueError(f"proxy_depthwise is {depthwise!r}, not true or false")
    machine = document["machine"]
    if not isinstance(machine, dict) or not all(type(value) in (str, int) for value in machine.values()):
        raise TypeError("[machine] has to hold texts and whole numbers")
    machine_line(machine)  # everything that a reader is told has to be there
    batches = [key for key in document if key.startswith(_BATCH)]
    if not batches:
        raise ValueError(f"it has no table [{_BATCH}1]")
    return {
        "backbone": str(document["backbone"]),
        "size": document["size"],
        "proxy_width": width,
        "proxy_depthwise": depthwise,
        "machine": machine,
        "timings": {
            int(key.removeprefix(_BATCH)): {name: _spread(name, row) for name, row in document[key].items()}
            for key in batches
        },
    }


def _spread(name: str, row: Mapping[str, Any]) -> Spread:
    low, high = row["quartiles"]
    spread = Spread(row["median"], low, high)
    for number in (spread.median, low, high):
        if type(number) not in (int, float):
            raise TypeError(f"{harmless(name)}: {number!r} is not a number")
    if not 0 < low <= spread.median <= high < math.inf:
        raise ValueError(f"{harmless(name)}: times have to be above zero, the median between the quartiles")
    return spread
