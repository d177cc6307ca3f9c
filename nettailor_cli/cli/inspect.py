"""nettailor inspect: what a model file keeps, what it costs, where it comes from. No torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nettailor_cli.cli import options
from nettailor_cli.cli.output import Output, harmless
from nettailor_cli.core.delta import STAGES, TEACHER, ModelDocument, read_document
from nettailor_cli.core.graph import Cost

STEPS = ("teach", "tailor", "prune", "finetune")


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="a teacher, student, pruned or final model")],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show the kept blocks, sizes and provenance of a model file."""
    document = read_document(file)
    output = Output(as_json=as_json, quiet=quiet)
    result = {"file": str(file), "bytes": file.stat().st_size, **document.to_json(), **summary_document(document)}

    def show(console: Console) -> None:
        console.print(_nodes(document))
        show_summary(console, document)
        _show_provenance(console, document, file)

    output.result(result, show)


def summary_document(document: ModelDocument) -> dict[str, Any]:
    """The totals of a model, for --json: `removed` is in percent of the backbone with this task's classifier."""
    graph = document.graph
    cost, whole = graph.cost, graph.backbone
    universal, task = _shares(document)
    return {
        "stage": document.stage,
        "totals": {
            "parameters": cost.parameters,
            "universal_parameters": universal,
            "task_parameters": task,
            "macs": cost.macs,
            "blocks": len(graph.universal),
            "proxies": len(graph.proxies),
        },
        "backbone_totals": {"parameters": whole.parameters, "macs": whole.macs, "blocks": graph.last},
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
    rows = (
        ("parameters", millions(cost.parameters), millions(whole.parameters), 1 - cost.parameters / whole.parameters),
        ("MACs", macs_text(cost.macs), macs_text(whole.macs), 1 - cost.macs / whole.macs),
        ("blocks", str(len(graph.universal)), str(graph.last), 1 - len(graph.universal) / graph.last),
    )
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
    table.add_row("0", "stem", "", "", millions(graph.stem.parameters), "", macs_text(graph.stem.macs))
    for node in range(1, graph.last + 1):
        paths = graph.into(node)
        if not paths:
            table.add_row(str(node), Text("gone", style="dim"), "", "", "", "", "")
            continue
        universal = next((path for path in paths if path.is_universal), None)
        proxies = [path for path in paths if not path.is_universal]
        own = sum((path.cost for path in proxies), Cost(0, 0))
        cost = sum((path.cost for path in paths), Cost(0, 0))
        table.add_row(
            str(node),
            "kept" if universal else Text("removed", style="dim"),
            f"{universal.alpha:.2f}" if universal else "",
            ", ".join(f"{path.source} ({path.alpha:.2f})" for path in proxies),
            millions(universal.cost.parameters) if universal else "",
            millions(own.parameters) if proxies else "",
            macs_text(cost.macs),
        )
    table.add_row("", "head", "", "", "", millions(graph.head.parameters), macs_text(graph.head.macs))
    return table


def _show_provenance(console: Console, document: ModelDocument, file: Path) -> None:
    names = [harmless(name) for name in document.classes]
    shown = ", ".join(names[:8]) + (f", ... ({len(names) - 8} more)" if len(names) > 8 else "")
    pre = document.preprocessing
    counts = document.data.get("images", {})
    images = ", ".join(f"{counts[split]} {split}" for split in ("train", "val", "test") if split in counts)
    steps = [step for step in STEPS if step in document.settings]
    seeds = {settings.get("seed") for settings in document.settings.values() if "seed" in settings}
    lines = (
        ("backbone", f"{document.backbone}, fingerprint {document.fingerprint[:12]}"),
        ("classes", f"{len(names)}: {shown}"),
        ("input", f"{pre.size} px, mean {list(pre.mean)}, std {list(pre.std)}"),
        ("data", f"{document.data.get('name', '?')}: {images}, digest {str(document.data.get('digest', '?'))[:12]}"),
        (
            "made by",
            f"nettailor {document.package}: {' > '.join(steps)}, seed {', '.join(map(str, seeds))}",
        ),
        ("file", f"{file.stat().st_size / 1e6:.2f} MB, digests checked"),
    )
    for name, text in lines:
        console.print(Text(f"{name:<9} {harmless(text)}"))


def millions(count: int) -> str:
    """A number of parameters, for people."""
    return f"{count / 1e6:.2f} M" if count >= 10_000 else f"{count / 1e3:.1f} k"


def macs_text(count: int) -> str:
    """A number of MACs, for people."""
    return f"{count / 1e9:.3f} G" if count >= 1e8 else f"{count / 1e6:.2f} M"
