"""nettailor benchmark"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from nettailor_cli.cli import options
from nettailor_cli.cli.calibrate import Measuring, make_table
from nettailor_cli.cli.figures import macs, millions
from nettailor_cli.cli.output import Output
from nettailor_cli.core.budgets import SECONDS, Budget, parse_budget
from nettailor_cli.core.deploy.latency_table import machine_line
from nettailor_cli.core.deploy.spread import duration
from nettailor_cli.core.errors import GateNotMet, UsageError

if TYPE_CHECKING:
    from nettailor_cli.core.deploy.benchmark import Row

_CALIBRATING = "Measuring a backbone's parts (--calibrate)"
_HOW = "nettailor benchmark MODEL, or nettailor benchmark --calibrate --backbone ARCH -o FILE.toml"


def benchmark(
    model: Annotated[
        Path | None,
        typer.Argument(metavar="MODEL", help="a model file: teacher, student, pruned or final", show_default=False),
    ] = None,
    teacher: Annotated[
        Path | None,
        typer.Option("--teacher", metavar="FILE", help="(default: the one beside MODEL)", show_default=False),
    ] = None,
    exported: Annotated[
        list[Path] | None,
        typer.Option(
            "--exported",
            metavar="FILE",
            help="an export to measure beside MODEL; may be given several times (default: MODEL's name as .onnx, .pt2)",
            show_default=False,
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch",
            metavar="N",
            min=1,
            max=65_536,
            help="images at a time; may be given several times (default: 1 and 32)",
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=0, max=3600, help="how long to measure, per batch size")
    ] = 5.0,
    max_latency: Annotated[
        str | None,
        typer.Option(
            "--max-latency",
            metavar="BUDGET",
            help="exit 3 when MODEL takes longer for one image: 12ms, 800us, or 60% of the backbone's",
            show_default=False,
        ),
    ] = None,
    min_throughput: Annotated[
        float | None,
        typer.Option(
            "--min-throughput",
            metavar="N",
            help="exit 3 when MODEL does fewer images per second, at the largest batch",
            show_default=False,
        ),
    ] = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, max=1024, help="CPU threads (default: torch's own)", show_default=False),
    ] = None,
    calibrate: Annotated[
        bool,
        typer.Option(
            "--calibrate",
            help="write a table for tailor --cost latency; needs no weights",
            rich_help_panel=_CALIBRATING,
        ),
    ] = False,
    backbone: Annotated[
        str | None,
        typer.Option(
            "--backbone", metavar="ARCH", help="e.g. resnet18", rich_help_panel=_CALIBRATING, show_default=False
        ),
    ] = None,
    size: Annotated[
        int | None,
        typer.Option(
            "--size",
            metavar="PX",
            help="input size (default: the backbone's own)",
            min=8,
            max=4096,
            rich_help_panel=_CALIBRATING,
            show_default=False,
        ),
    ] = None,
    skips: Annotated[
        str | None,
        typer.Option(
            "--skips",
            metavar="K|dense",
            help="how many nodes back proxies reach (default: dense, which serves all)",
            rich_help_panel=_CALIBRATING,
            show_default=False,
        ),
    ] = None,
    proxy_width: Annotated[
        int | None,
        typer.Option(
            "--proxy-width",
            help="channels inside the proxies, see nettailor tailor",
            rich_help_panel=_CALIBRATING,
            show_default=False,
        ),
    ] = None,
    proxy_depthwise: Annotated[
        bool | None,
        typer.Option(
            "--proxy-depthwise/--no-proxy-depthwise",
            help="proxies with a depthwise convolution, see nettailor tailor",
            rich_help_panel=_CALIBRATING,
            show_default=False,
        ),
    ] = None,
    output_file: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            metavar="FILE.toml",
            help="where to write",
            rich_help_panel=_CALIBRATING,
            show_default=False,
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace what is there", rich_help_panel=_CALIBRATING)] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure how long a model takes, beside its backbone and teacher; or, with --calibrate, a backbone's parts."""
    output = Output(as_json=as_json, quiet=quiet)
    of_models = {
        "MODEL": model, "--teacher": teacher, "--exported": exported, "--max-latency": max_latency,
        "--min-throughput": min_throughput,
    }  # fmt: skip
    of_tables = {
        "--backbone": backbone, "--size": size, "--skips": skips, "--proxy-width": proxy_width,
        "--proxy-depthwise": proxy_depthwise, "-o": output_file, "--force": force or None,
    }  # fmt: skip
    idle = [flag for flag, value in (of_models if calibrate else of_tables).items() if value is not None]
    if idle:
        raise UsageError(f"{', '.join(idle)}: not {'with' if calibrate else 'without'} --calibrate", _HOW)
    measuring = Measuring(batch, seconds, device, precision, threads)
    if calibrate:
        if backbone is None or output_file is None:
            raise UsageError("--calibrate needs --backbone and -o", _HOW)
        make_table(
            output, measuring, backbone, output_file,
            size=size, skips=skips, proxy_width=proxy_width, proxy_depthwise=proxy_depthwise, force=force,
        )  # fmt: skip
    elif model is None:
        raise UsageError("which model?", _HOW)
    else:
        limit = None if max_latency is None else parse_budget(max_latency, SECONDS, "--max-latency")
        if limit is not None and 1 not in measuring.batches:
            raise UsageError("--max-latency is about one image at a time", "add --batch 1")
        rows = _measure(output, measuring, model, teacher, exported)
        _check_gates(rows, limit, min_throughput)


def _measure(
    output: Output, measuring: Measuring, file: Path, teacher_file: Path | None, exported: list[Path] | None
) -> dict[str, Row]:
    """Measure and show; the rows by name."""
    from nettailor_cli.core.deploy.benchmark import benchmark, contenders, exported_beside, student_beside, teacher_of
    from nettailor_cli.core.deploy.timing import describe
    from nettailor_cli.core.models import load_model

    with measuring.machine() as machine:
        model = load_model(file, home=options.home(), progress=output)
        teacher = teacher_of(model, file, teacher_file, output)
        student = student_beside(model, file, options.home(), output)
        if machine.device.type != "cpu":
            if exported:
                raise UsageError("--exported: exported files run on the CPU", "--device cpu")
            exported = []
        size = model.document.preprocessing.size
        rows = benchmark(
            contenders(
                model,
                machine,
                teacher=teacher,
                student=student,
                exported=exported_beside(file) if exported is None else exported,
            ),
            size,
            machine,
            output,
            batches=measuring.batches,
            stopwatch=measuring.stopwatch(),
        )
        described = describe(machine)
    document = {"file": str(file), "size": size, "machine": described, "rows": [row.to_json() for row in rows]}

    def show(console: Console) -> None:
        console.print(f"{size} px on {machine_line(described)}", soft_wrap=True)
        for batch in measuring.batches:
            console.print(_table(rows, batch))

    output.result(document, show)
    return {row.name: row for row in rows}


def _table(rows: Sequence[Row], batch: int) -> Table:
    rounds = rows[0].measurements[batch].rounds
    table = Table(box=None, pad_edge=False, title_justify="left", title_style="")
    table.title = f"batch {batch}: medians of {rounds} rounds, [quartiles]"
    for column in ("", "latency", "images/s", f"x {rows[0].name}", "MACs", "parameters"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in rows:
        measured = row.measurements[batch]
        latency, speed = measured.latency, measured.speed
        table.add_row(
            row.name,
            f"{duration(latency.median)} [{duration(latency.low)}, {duration(latency.high)}]",
            f"{measured.throughput:.1f}",
            f"{speed.median:.2f} [{speed.low:.2f}, {speed.high:.2f}]",
            macs(row.cost.macs),
            millions(row.cost.parameters),
        )
    return table


def _check_gates(rows: Mapping[str, Row], max_latency: Budget | None, min_throughput: float | None) -> None:
    """Raises GateNotMet with a line for every limit that the model misses."""
    row, missed = rows["model"], []
    if max_latency is not None:
        whole, latency = (r.measurements[1].latency.median for r in (rows["backbone"], row))
        if not max_latency.allows(latency / 1e6, whole / 1e6):
            missed.append(
                f"{duration(latency)} at batch 1 ({100 * latency / whole:.1f} % of the backbone's) are above "
                f"--max-latency {max_latency.text}"
            )
    if min_throughput is not None:
        largest = row.measurements[max(row.measurements)]
        if not largest.throughput >= min_throughput:  # NaN is no gate to pass
            missed.append(
                f"{largest.throughput:.1f} images/s at batch {largest.batch} are below "
                f"--min-throughput {min_throughput:g}"
            )
    if missed:
        raise GateNotMet(missed)
