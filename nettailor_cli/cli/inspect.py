"""nettailor inspect: what a model file keeps, what it costs, where it comes from. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nettailor_cli.cli import options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.figures import macs, millions
from nettailor_cli.cli.output import Output
from nettailor_cli.core.budgets import COUNT, Budget, parse_budget
from nettailor_cli.core.delta import STAGES, TEACHER, ModelDocument, read_document
from nettailor_cli.core.deploy.spread import duration
from nettailor_cli.core.errors import GateNotMet, UsageError
from nettailor_cli.core.graph import NOTHING, total

STEPS = ("teach", "tailor", "prune", "finetune")


def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="a teacher, student, pruned or final model", autocompletion=model_files),
    ],
    max_macs: Annotated[
        str | None,
        typer.Option(
            "--max-macs",
            metavar="BUDGET",
            help="exit 3 when it takes more: 900M, 0.9G, or 40% of the backbone's",
            show_default=False,
        ),
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option("--max-params", metavar="BUDGET", help="the same for parameters", show_default=False),
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FILE.svg", help="draw the architecture", show_default=False)
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option("--png", metavar="FILE.png", help="the same as PNG (needs nettailor[plot])", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace pictures that are there")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the kept blocks, sizes and provenance of a model file."""
    budgets = {
        flag: parse_budget(text, COUNT, flag)
        for flag, text in (("--max-macs", max_macs), ("--max-params", max_params))
        if text is not None
    }
    document = read_document(file)
    output = Output(as_json=as_json, quiet=quiet)
    pictures = {form: path for form, path in (("svg", svg), ("png", png)) if path is not None}
    _draw(document, pictures, output, force=force)
    result = {
        "file": str(file),
        "bytes": file.stat().st_size,
        "pictures": {form: str(path) for form, path in pictures.items()},
        **document.to_json(),
        **summary_document(document),
    }

    def show(console: Console) -> None:
        console.print(_nodes(document))
        show_summary(console, document)
        _show_provenance(console, document, file)

    output.result(result, show)
    _check_gates(document, budgets)


def _check_gates(document: ModelDocument, budgets: Mapping[str, Budget]) -> None:
    """Raises GateNotMet with one line for every budget that is exceeded."""
    cost, whole = document.graph.cost, document.graph.backbone
    measured = {
        "--max-macs": ("MACs", macs, cost.macs, whole.macs),
        "--max-params": ("parameters", millions, cost.parameters, whole.parameters),
    }
    missed = []
    for flag, budget in budgets.items():
        name, shown, value, backbone = measured[flag]
        if not budget.allows(value, backbone):
            missed.append(
                f"{shown(value)} {name} ({100 * value / backbone:.1f} % of the backbone's) are above "
                f"{flag} {budget.text}"
            )
    if missed:
        raise GateNotMet(missed)


def _draw(document: ModelDocument, pictures: Mapping[str, Path], output: Output, *, force: bool) -> None:
    """Draw the picture of each form, then write them to their paths. Raises UsageError before anything is written."""
    if not pictures:
        return
    from nettailor_cli.core.drawing.pictures import draw_architecture
    from nettailor_cli.core.files import write_bytes
    from nettailor_cli.core.run import refuse_to_overwrite

    for form, path in pictures.items():
        if path.suffix.lower() != f".{form}":
            raise UsageError(f"--{form} {path}: the file's name has to end in .{form}")
        refuse_to_overwrite(path, force=force)
    drawn = [(path, draw_architecture(document, form)) for form, path in pictures.items()]
    for path, data in drawn:
        try:
            write_bytes(path, data)
        except UsageError as error:
            raise UsageError(error.message, "name another file") from error
        output.note(f"drawn: {path}")


def summary_document(document: ModelDocument) -> dict[str, Any]:
    """The totals of a model, for --json: `removed` is in percent of the backbone with this task's classifier."""
    graph = document.graph
    cost, whole = graph.cost, graph.backbone
    universal, task = _shares(document)
    measured = cost.latency is not None and whole.latency is not None
    return {
        "stage": document.stage,
        "totals": {
            "parameters": cost.parameters,
            "universal_parameters": universal,
            "task_parameters": task,
            "macs": cost.macs,
            "blocks": len(graph.universal),
            "proxies": len(graph.proxies),
            **({"latency_us": cost.latency} if measured else {}),
        },
        "backbone_totals": {
            "parameters": whole.parameters,
            "macs": whole.macs,
            "blocks": graph.last,
            **({"latency_us": whole.latency} if measured else {}),
        },
        "removed": {
            "parameters": 100 * (1 - cost.parameters / whole.parameters),
            "macs": 100 * (1 - cost.macs / whole.macs),
            "blocks": 100 * (1 - len(graph.universal) / graph.last),
        },
        "metrics": document.metrics,
    }


def _shares(document: ModelDocument) -> tuple[int, int]:
    """Universal parameters and the task's own. A teacher was fine-tuned whole: nothing of it is universal any more."""
    graph = document.graph
    if document.stage == TEACHER:
        return 0, graph.cost.parameters
    return graph.universal_cost.parameters, graph.task_cost.parameters


def show_summary(console: Console, document: ModelDocument) -> None:
    """Totals against the backbone, and the accuracies that were measured."""
    graph = document.graph
    cost, whole = graph.cost, graph.backbone
    table = Table(box=None, pad_edge=False)
    for column in ("", document.stage, "backbone", "removed"):
        table.add_column(column, justify="left" if not column else "right")
    rows = [
        ("parameters", millions(cost.parameters), millions(whole.parameters), 1 - cost.parameters / whole.parameters),
        ("MACs", macs(cost.macs), macs(whole.macs), 1 - cost.macs / whole.macs),
        ("blocks", str(len(graph.universal)), str(graph.last), 1 - len(graph.universal) / graph.last),
    ]
    if cost.latency is not None and whole.latency:
        row = ("latency", duration(cost.latency), duration(whole.latency), 1 - cost.latency / whole.latency)
        rows.append(row)
    for name, own, theirs, removed in rows:
        table.add_row(name, own, theirs, f"{100 * removed:.1f} %" if removed >= 0 else f"{-100 * removed:.1f} % more")
    console.print(table)
    universal, task = _shares(document)
    console.print(f"{millions(universal)} universal parameters, {millions(task)} this task's own")
    for name in (stage for stage in STAGES if stage in document.metrics):
        metric = document.metrics[name]
        measured = (
            f"{metric['accuracy']:.2f} % on {metric['split']} ({metric['images']} images), loss {metric['loss']:.3f}"
        )
        console.print(f"{name}: {measured}")


def _nodes(document: ModelDocument) -> Table:
    """One row per node: the universal block if it is kept, and the proxies with their sources."""
    graph = document.graph
    table = Table(box=None, pad_edge=False, title_justify="left")
    table.add_column("node")
    table.add_column("block")
    table.add_column("alpha", justify="right")
    table.add_column("proxies from (alpha)")
    table.add_column("universal", justify="right")
    table.add_column("task", justify="right")
    table.add_column("MACs", justify="right")
    table.add_row("0", "stem", "", "", millions(graph.stem.parameters), "", macs(graph.stem.macs))
    for node in range(1, graph.last + 1):
        paths = graph.into(node)
        if not paths:
            table.add_row(str(node), Text("gone", style="dim"), "", "", "", "", "")
            continue
        universal = next((path for path in paths if path.is_universal), None)
        proxies = [path for path in paths if not path.is_universal]
        own = total(path.task_cost for path in paths)
        cost = total(path.cost for path in paths)
        table.add_row(
            str(node),
            "kept" if universal else Text("removed", style="dim"),
            f"{universal.alpha:.2f}" if universal else "",
            ", ".join(f"{path.source} ({path.alpha:.2f})" for path in proxies),
            millions(universal.universal_cost.parameters) if universal else "",
            millions(own.parameters) if own.parameters else "",
            macs(cost.macs),
        )
    if graph.pooling.parameters:
        table.add_row("", "pooling", "", "", millions(graph.pooling.parameters), "", macs(graph.pooling.macs))
    table.add_row("", "head", "", "", "", millions(graph.head.parameters), macs(graph.head.macs))
    return table


def _show_provenance(console: Console, document: ModelDocument, file: Path) -> None:
    names = document.classes
    shown = ", ".join(names[:8]) + (f", ... ({len(names) - 8} more)" if len(names) > 8 else "")
    pre = document.preprocessing
    counts = document.data.get("images", {})
    images = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if split in counts)
    steps = [step for step in STEPS if step in document.settings]
    seeds = {settings.get("seed") for settings in document.settings.values() if "seed" in settings}
    lines = [
        ("backbone", f"{document.backbone}, fingerprint {document.fingerprint[:12]}"),
        ("classes", f"{len(names)}: {shown}"),
        ("input", f"{pre.size} px, mean {list(pre.mean)}, std {list(pre.std)}"),
        ("data", f"{document.data.get('name', '?')}: {images}, digest {str(document.data.get('digest', '?'))[:12]}"),
        (
            "made by",
            f"nettailor {document.package}: {' > '.join(steps)}, seed {', '.join(map(str, seeds))}",
        ),
        *_environments(document),
        ("file", f"{file.stat().st_size / 1e6:.2f} MB, digests checked"),
    ]
    tailored = document.settings.get("tailor", {})
    if "latency_table" in tailored:
        table = tailored["latency_table"]
        text = f"the parts' sum at batch {tailored['latency_batch']}, table {table['digest'][:12]}: {table['machine']}"
        lines.append(("latency", text))
    own = ["scales and shifts"] if document.shaping["bn_affine"] == "tuned" else []
    own += [f"adapters of rank {rank}"] if (rank := document.shaping["adapter_rank"]) else []
    if own and any(path.own != NOTHING for path in document.graph.universal):
        lines.append(("inside", f"{' and '.join(own)} of the task's own in the universal blocks"))
    if prefix := document.shared_prefix:
        lines.append(("prefix", f"blocks 1 to {prefix} alone, never pruned: tasks on one backbone can share them"))
    for name, text in lines:
        console.print(f"{name:<9} {text}")


def _environments(document: ModelDocument) -> list[tuple[str, str]]:
    """Machine and versions of every stage, as lines of the provenance; once where they are the same in all."""
    stages_of: dict[tuple[str, str], list[str]] = {}  # machine and versions -> those that were made so
    for stage in (step for step in STEPS if step in document.environment):
        made = document.environment[stage]
        known = [str(made[what]) for what in ("name", "device", "simd", "precision") if what in made]
        counts = [f"{made[what]} {what}" for what in ("threads", "processes") if what in made]
        versions = [f"{what} {made[what]}" for what in ("torch", "python", "numpy", "pillow") if what in made]
        stages_of.setdefault((", ".join(known + counts), ", ".join(versions)), []).append(stage)
    lines = []
    for (machine, packages), stages in stages_of.items():
        of = f"{', '.join(stages)}: " if len(stages_of) > 1 else ""
        lines += [("made on", of + machine), ("made with", of + packages)]
    return lines
