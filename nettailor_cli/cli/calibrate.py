"""nettailor benchmark --calibrate, and what it shares with nettailor benchmark MODEL."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from nettailor_cli.cli.inferring import machine_for_inference
from nettailor_cli.cli.output import Output
from nettailor_cli.core.backbones.catalog import parse_name, preprocessing
from nettailor_cli.core.files import check_place, sha256_of, write_text
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.run import refuse_to_overwrite
from nettailor_cli.core.settings import TAILOR

if TYPE_CHECKING:
    from nettailor_cli.core.deploy.timing import Stopwatch
    from nettailor_cli.core.training.precision import Machine


@dataclass(frozen=True)
class Measuring:
    """How to measure, as it was typed."""

    batch: list[int] | None
    seconds: float
    device: str
    precision: str
    threads: int | None

    @property
    def batches(self) -> tuple[int, ...]:
        from nettailor_cli.core.deploy.timing import BATCHES

        return tuple(dict.fromkeys(self.batch or BATCHES))

    def stopwatch(self) -> Stopwatch:
        from nettailor_cli.core.deploy.timing import Stopwatch

        return Stopwatch(seconds=self.seconds)

    @contextlib.contextmanager
    def machine(self) -> Iterator[Machine]:
        """The machine, with as many threads as were asked for inside. Raises UsageError."""
        from nettailor_cli.core.deploy.timing import threads

        with threads(self.threads):
            yield machine_for_inference(self.device, self.precision)


def make_table(
    output: Output,
    measuring: Measuring,
    backbone: str,
    file: Path,
    *,
    size: int | None,
    skips: str | None,
    proxy_width: int | None,
    proxy_depthwise: bool | None,
    force: bool,
) -> None:
    """Measure a backbone's parts and write the latency table `file`."""
    arch = parse_name(backbone).arch
    flags = {"skips": skips or "dense", "proxy_width": proxy_width, "proxy_depthwise": proxy_depthwise}
    student = resolve(TAILOR, flags=flags)
    refuse_to_overwrite(file, force=force)
    check_place(file)
    from nettailor_cli.core.deploy.calibrate import calibrate

    with measuring.machine() as machine:
        table = calibrate(
            arch,
            size or preprocessing(arch).size,
            machine,
            output,
            skips=student.skips,
            proxy_width=student.proxy_width,
            proxy_depthwise=student.proxy_depthwise,
            batches=measuring.batches,
            stopwatch=measuring.stopwatch(),
        )
    write_text(file, table.to_toml())

    def show(console: Console) -> None:
        for line in (*table.summary(), f"wrote {file}"):
            console.print(line, soft_wrap=True)

    output.result({"file": str(file), "digest": sha256_of(file), **table.to_json()}, show)
    if not output.as_json and not output.quiet:
        output.note(f"next: nettailor tailor --cost latency --latency-table {file}")
