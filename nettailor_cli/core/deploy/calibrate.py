"""Measure what every part of a student takes on this machine: the table behind `--cost latency`.

    stem           images -> x_0
    universal l    act(G_l(x_{l-1}))
    proxy p-l      x_l + A_p^l(pool(x_p))       what the path adds to a node that is there
    head           pooling and a linear classifier for 100 classes

Added up along a graph this is an estimate for comparing graphs, not the network's own time, which `benchmark` measures:
proxies with the same source and stride share their pooling, and the attention's factors are left out. Batch norms are
as they were trained, not folded. Only shapes matter, so the weights are random and no file is needed; parts of equal
shape are measured once.

N images, C channels, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from nettailor_cli.core.backbones.backbone import Backbone, build_random
from nettailor_cli.core.deploy.latency_table import HEAD, STEM, LatencyTable
from nettailor_cli.core.deploy.spread import Spread, warn_of_restlessness
from nettailor_cli.core.deploy.timing import BATCHES, Stopwatch, describe, on_machine, some_images
from nettailor_cli.core.graph import sources_of_proxies
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.proxies import pool
from nettailor_cli.core.scaling import Scaling, between
from nettailor_cli.core.training.precision import Machine

HEAD_CLASSES = 100
"""The classifier is a small part of any network's time; its true size is not known when a table is made."""

Call = Callable[[], object]


def calibrate(
    arch: str,
    size: int,
    machine: Machine,
    progress: Progress,
    *,
    skips: int | None = None,
    proxy_width: int | None = None,
    proxy_depthwise: bool = False,
    batches: Sequence[int] = BATCHES,
    stopwatch: Stopwatch | None = None,
) -> LatencyTable:
    """The latencies of stem, blocks, head and the proxies of `skips` (None: all) of `arch` at `size` pixels.

    At each of `batches`, the parts in turn. `proxy_width`, `proxy_depthwise`: see `proxies.make_proxy`. torch's
    random state stays as it is. Raises UsageError when `size` is too small for `arch`.
    """
    stopwatch = stopwatch or Stopwatch()
    with torch.random.fork_rng(devices=[]):
        backbone = build_random(arch, 0)
        backbone.check_size(size)
        parts = _Parts(backbone, machine, skips, proxy_width, depthwise=proxy_depthwise)
    timings: dict[int, dict[str, Spread]] = {}
    progress.start("measuring", len(batches))
    for batch in batches:
        shape_of, calls = parts.calls(batch, size)
        taken = stopwatch.time(calls, machine)
        timings[batch] = {name: Spread.of(taken[shape]) for name, shape in shape_of.items()}
        progress.advance()
    progress.finish()
    warn_of_restlessness([spread for rows in timings.values() for spread in rows.values()], progress)
    return LatencyTable(
        backbone=arch,
        size=size,
        proxy_width=proxy_width,
        proxy_depthwise=proxy_depthwise,
        machine=describe(machine),
        timings=timings,
    )


class _Parts:
    """The modules of one backbone's densest student, on the machine."""

    def __init__(
        self, backbone: Backbone, machine: Machine, skips: int | None, proxy_width: int | None, *, depthwise: bool
    ) -> None:
        self.backbone, self.machine = on_machine(backbone, machine), machine
        self.head = on_machine(nn.Linear(backbone.features, HEAD_CLASSES), machine)
        self.proxies = {
            (source, sink): on_machine(backbone.make_proxy(source, sink, proxy_width, depthwise=depthwise), machine)
            for sink in range(1, len(backbone.blocks) + 1)
            for source in sources_of_proxies(sink, skips)
        }

    def calls(self, batch: int, size: int) -> tuple[dict[str, str], dict[str, Call]]:
        """Part -> its shape, and shape -> a call of the first part that has it, on `batch` images of `size` pixels."""
        shape_of: dict[str, str] = {}
        calls: dict[str, Call] = {}

        def add(name: str, shape: object, call: Call) -> None:
            shape_of[name] = str(shape)
            calls.setdefault(str(shape), call)

        backbone = self.backbone
        images = some_images(batch, size, self.machine)
        add(STEM, STEM, lambda: backbone.stem(images))
        nodes = self._nodes(images)
        for sink, (block, x) in enumerate(zip(backbone.blocks, nodes[:-1], strict=True), start=1):
            add(f"universal {sink}", (block, x.shape), _universal(backbone, block, x))
        for (source, sink), proxy in self.proxies.items():
            scaling = between(backbone.scalings, source, sink)
            x, node = nodes[source], nodes[sink]
            add(f"proxy {source}-{sink}", (proxy, scaling, x.shape), _proxy(proxy, scaling, x, node))
        add(HEAD, HEAD, lambda: self.head(backbone.pool(nodes[-1])))
        return shape_of, calls

    def _nodes(self, images: Tensor) -> list[Tensor]:
        """x_0..x_L, each (N, C_l, H_l, W_l); of equal shapes only the first is kept, and stands for all."""
        with torch.inference_mode(), self.machine.autocast():
            nodes = [self.backbone.stem(images)]
            first = {nodes[0].shape: nodes[0]}
            for block in self.backbone.blocks:
                x = self.backbone.activation(block(nodes[-1]))
                nodes.append(first.setdefault(x.shape, x))
        return nodes


def _universal(backbone: Backbone, block: nn.Module, x: Tensor) -> Call:
    return lambda: backbone.activation(block(x))


def _proxy(proxy: nn.Module, scaling: Scaling, x: Tensor, node: Tensor) -> Call:
    return lambda: node + proxy(pool(x, scaling))
