"""The latency table that a tailoring run minimises: named by the user, kept by the run, or measured on the spot."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.deploy.calibrate import calibrate
from nettailor_cli.core.deploy.latency_table import LatencyTable, machine_line
from nettailor_cli.core.deploy.timing import BATCHES
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.files import read_small
from nettailor_cli.core.graph import Graph
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.strict import LARGEST_TOML
from nettailor_cli.core.training.precision import Machine

LATENCY = "latency"
"""The setting `cost` that needs a table."""


@dataclass(frozen=True)
class Latencies:
    """A table, the bytes of its file, and which of its batch sizes counts."""

    table: LatencyTable
    data: bytes
    batch: int

    @property
    def digest(self) -> str:
        """SHA-256 of the file, in hex: what tells tables apart."""
        return hashlib.sha256(self.data).hexdigest()

    def on(self, graph: Graph, backbone: Backbone, settings: Settings) -> Graph:
        """`graph`, a student's of `backbone`, with its latencies. Raises FileError when the table does not fit."""
        return self.table.on(
            graph,
            backbone=backbone.arch,
            size=backbone.preprocessing.size,
            proxy_width=settings.proxy_width,
            proxy_depthwise=settings.proxy_depthwise,
            batch=self.batch,
        )

    def to_json(self) -> dict[str, Any]:
        """What a model file says of it."""
        return {"digest": self.digest, "machine": machine_line(self.table.machine)}


def settle_latencies(
    job: Job, settings: Settings, backbone: Backbone, machine: Machine, named: Path | None
) -> Latencies | None:
    """The latencies to tailor for, None when the cost is another.

    From the file `named`; else, on --resume, from the one that the run keeps; else measured here, on the machine's
    device, in fp32 as `evaluate` and `predict` compute. Raises UsageError or FileError for a file that is no table.
    """
    if settings.cost != LATENCY:
        if named is not None:
            job.progress.warn("--latency-table has no effect: --cost is not latency")
        return None
    kept = job.run.latencies
    file = named or (kept if job.resume and kept.exists() else None)
    if file is None:
        job.progress.note("latency table: none was named, so this machine is measured")
        measured = calibrate(
            backbone.arch,
            backbone.preprocessing.size,
            replace(machine, bf16=False),
            job.progress,
            proxy_width=settings.proxy_width,
            proxy_depthwise=settings.proxy_depthwise,
            batches=tuple(dict.fromkeys((*BATCHES, settings.latency_batch))),
        )
        data, source = measured.to_toml().encode(), kept
    else:
        data, source = _read(file), file
        job.progress.note(f"latency table: {file}")
    table = LatencyTable.from_toml(data, str(source))
    for line in table.summary():
        job.progress.note(line)
    return Latencies(table, data, settings.latency_batch)


def _read(file: Path) -> bytes:
    try:
        return read_small(file, LARGEST_TOML)
    except OSError as error:
        raise UsageError(f"can't read the latency table {file}: {error.strerror}") from error
