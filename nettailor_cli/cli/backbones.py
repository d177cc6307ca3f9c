"""nettailor backbones: which pretrained networks there are, which are on this machine, and whether they are whole."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nettailor_cli.cli import options
from nettailor_cli.cli.errors import reports_errors
from nettailor_cli.cli.figures import macs, millions
from nettailor_cli.cli.output import Output
from nettailor_cli.core.backbones.catalog import ARCHS, network, torchvision_tags
from nettailor_cli.core.backbones.embedded import embedded
from nettailor_cli.core.backbones.families import TIMM
from nettailor_cli.core.backbones.listing import StoredBackbone, folder, listing
from nettailor_cli.core.errors import FileError, UsageError

app = typer.Typer(
    help="List, fetch and verify pretrained backbones.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def default(context: typer.Context) -> None:
    """List, fetch and verify pretrained backbones."""
    if context.invoked_subcommand is None:
        reports_errors(list_)()


@app.command("list")
@reports_errors
def list_(
    pattern: Annotated[
        str | None, typer.Argument(metavar="[PATTERN]", help="timm's networks instead, e.g. 'timm/*lite*'")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Show what is on this machine, all networks with what they cost, and what torchvision offers."""
    if pattern is not None:
        _list_timms(pattern, Output(as_json=as_json, quiet=quiet))
        return
    home = options.home()
    stored, shipped = listing(home), embedded()
    offered = [f"{arch}.{tag}" for arch in ARCHS for tag in torchvision_tags(arch)]
    document = {
        "home": str(folder(home)),
        "stored": [_document(entry) for entry in stored],
        "embedded": [_document(entry) for entry in shipped],
        "downloadable": offered,
        "networks": [{**asdict(network(arch)), "tags": list(torchvision_tags(arch))} for arch in ARCHS],
    }

    def show(console: Console) -> None:
        table = Table(box=None, pad_edge=False)
        for column in ("on this machine", "fingerprint", "MB", "source"):
            table.add_column(column, overflow="fold")
        for entry in (*shipped, *stored):
            source = "comes with nettailor" if entry in shipped else entry.source
            megabytes = f"{entry.bytes / 1e6:.1f}"
            table.add_row(entry.name, entry.short, megabytes, entry.error or source)
        console.print(table)
        if not stored:
            console.print(f"nothing yet in {folder(home)}", soft_wrap=True)
        console.print()
        console.print("networks: ARCH downloads torchvision's first tag, ARCH.imagenet1k_TAG another")
        console.print(_networks())
        console.print("params and MACs are of the whole network, with 1000 classes, on a picture of so many px")
        console.print("timm's networks (pip install 'nettailor[timm]'): nettailor backbones list 'timm/*lite*'")

    Output(as_json=as_json, quiet=quiet).result(document, show)


def _list_timms(pattern: str, output: Output) -> None:
    if not pattern.startswith(TIMM):
        raise UsageError(f"a pattern has to start with {TIMM}, not {pattern!r}", "nettailor backbones list 'timm/*'")
    from nettailor_cli.core.backbones import timm_catalog

    names = timm_catalog.names(pattern)
    if not names:
        raise UsageError(f"timm has no network {pattern!r}", "nettailor backbones list 'timm/*'")
    offered = [f"{name}.{tag}" for name in names for tag in timm_catalog.tags(name)]
    lines = [" ".join((name, *timm_catalog.tags(name))) for name in names]
    output.result(
        {"timm": names, "downloadable": offered},
        lambda console: console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False),
    )


def _networks() -> Table:
    """One line per network, family by family; at most 60 columns wide."""
    table = Table(box=None, pad_edge=False, collapse_padding=True)
    table.add_column("network", no_wrap=True)
    for column in ("px", "blocks", "params", "MACs"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("tags", overflow="fold")
    for arch in ARCHS:
        known, tags = network(arch), torchvision_tags(arch)
        counts = (str(known.size), str(known.blocks), millions(known.parameters), macs(known.macs))
        table.add_row(arch, *counts, " ".join(tag.removeprefix("imagenet1k_") for tag in tags) or "none")
    return table


def _document(entry: StoredBackbone) -> dict[str, Any]:
    return {
        "name": entry.name,
        "fingerprint": entry.fingerprint,
        "file": str(entry.path),
        "bytes": entry.bytes,
        "mean": list(entry.mean),
        "std": list(entry.std),
        "size": entry.size,
        "source": entry.source,
        "error": entry.error or None,
    }


@app.command("fetch")
@reports_errors
def fetch(
    name: Annotated[str, typer.Argument(metavar="ARCH[.TAG]", help="which backbone")],
    weights: options.Weights = None,
    mean: options.Mean = None,
    std: options.Std = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a backbone from torchvision, or import it from a file, and keep it."""
    from nettailor_cli.core.backbones.store import find

    output = Output(as_json=as_json, quiet=quiet)
    if weights is None and (mean or std):
        raise UsageError("--mean and --std are stored with an imported file", "name it with --weights FILE")
    found = find(
        name,
        home=options.home(),
        weights=weights,
        mean=options.three_numbers(mean, "--mean"),
        std=options.three_numbers(std, "--std"),
        progress=output,
    )
    document = {"name": found.name, "fingerprint": found.fingerprint, "preprocessing": found.preprocessing.to_json()}
    output.result(
        document, lambda console: console.print(f"{found.name} is ready, fingerprint {found.fingerprint[:12]}")
    )


@app.command("verify")
@reports_errors
def verify(as_json: options.Json = False, quiet: options.Quiet = False) -> None:
    """Check every stored backbone against its fingerprint (exit 2 when one is damaged)."""
    from nettailor_cli.core.backbones.store import verify as check

    results = check(options.home())
    document = {
        "backbones": [{"name": s.name, "file": str(s.path), "whole": ok, "message": text} for s, ok, text in results]
    }

    def show(console: Console) -> None:
        for stored, ok, text in results:
            console.print(f"{'ok     ' if ok else 'DAMAGED'} {stored.path.name}: {text}", soft_wrap=True)

    Output(as_json=as_json, quiet=quiet).result(document, show)
    damaged = [stored for stored, ok, _ in results if not ok]
    if damaged:
        raise FileError(
            f"{len(damaged)} of {len(results)} backbones are damaged",
            "delete the file, then fetch it again (the package's own: install it again)",
        )
