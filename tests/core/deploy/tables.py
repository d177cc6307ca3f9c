"""Latency tables written by hand, for resnet18 and its 36 proxies."""

from __future__ import annotations

from nettailor_cli.core.deploy.latency_table import LatencyTable
from nettailor_cli.core.deploy.spread import Spread

MACHINE: dict[str, str | int] = {
    "device": "cpu",
    "name": 'A "quick" one',
    "threads": 2,
    "torch": "2.6.0",
    "precision": "fp32",
}
PARTS = {
    "stem": 500.0,
    **{f"universal {sink}": 1000.0 + sink for sink in range(1, 9)},
    **{f"proxy {source}-{sink}": 100.0 + 10 * source + sink for sink in range(1, 9) for source in range(sink)},
    "head": 50.0,
}
"""Microseconds at batch 1; batch 32 takes twenty times as long."""


def spread(median: float) -> Spread:
    return Spread(median, median - 0.5, median + 1.5)


def hand_made(
    size: int = 32, backbone: str = "resnet18", proxy_width: int | None = None, *, proxy_depthwise: bool = False
) -> LatencyTable:
    timings = {
        batch: {name: spread(factor * median) for name, median in PARTS.items()} for batch, factor in ((1, 1), (32, 20))
    }
    return LatencyTable(backbone, size, proxy_width, proxy_depthwise, MACHINE, timings)
