"""nettailor bundle"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nettailor_cli.cli import options
from nettailor_cli.cli.completion import model_files
from nettailor_cli.cli.figures import macs
from nettailor_cli.cli.output import Output
from nettailor_cli.core.errors import UsageError
from nettailor_cli.core.manifest import file_of, name_of

if TYPE_CHECKING:
    from nettailor_cli.core.deploy.bundling import Bundled


def bundle(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="[NAME=]MODEL...",
            help="students, pruned or final models of one backbone (NAME: of the task; default: the file's or run's)",
            autocompletion=model_files,
        ),
    ],
    folder: Annotated[Path, typer.Option("-o", "--output", metavar="FOLDER", help="where to write")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="compare on pictures below DIR (default: drawn ones)", show_default=False
        ),
    ] = None,
    fp16: Annotated[
        bool,
        typer.Option("--fp16", help="store weights in half precision: half the bytes, rounded; computed in fp32"),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="replace the bundle that is there", rich_help_panel="Running")
    ] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Put several tasks and the parts of their backbone that they need into one folder that needs nothing else.

    A task of it is a model file, FOLDER/TASK.safetensors, for every command that takes a MODEL; predict --bundle FOLDER
    names pictures for all tasks at once. All are run and compared with the originals before the folder is kept.
    """
    output = Output(as_json=as_json, quiet=quiet)
    named = _named(models)
    from nettailor_cli.core.deploy.bundling import write_bundle

    done = write_bundle(named, folder, home=options.home(), progress=output, fp16=fp16, data=data, force=force)
    output.result(_document(done), lambda console: _show(console, done))


def _named(models: Sequence[str]) -> dict[str, Path]:
    """Task -> file. Raises UsageError when two tasks would have one name."""
    named: dict[str, Path] = {}
    for text in models:
        given = None if Path(text).exists() else re.fullmatch(r"([^/=]*)=(.+)", text, re.DOTALL)
        name, path = (given[1], Path(given[2])) if given else (name_of(Path(text)), Path(text))
        if name in named:
            raise UsageError(f"two tasks are called {name}: {named[name]} and {path}", "name them: NAME=FILE")
        named[name] = path
    return named


def _document(done: Bundled) -> dict[str, Any]:
    manifest = done.manifest
    document = manifest.to_json()
    tasks = {
        name: {
            **document["tasks"][name],
            "file": str(file_of(done.folder, name)),
            "blocks_alone": list(manifest.alone(name)),
            "check": {
                "images": found.images,
                "same_class": found.same_class,
                "probabilities": found.probabilities,
                "logits": found.logits,
            },
        }
        for name, found in done.differences.items()
    }
    return {
        "folder": str(done.folder),
        "precision": manifest.precision,
        "bytes": manifest.bytes,
        "finetuned_bytes": done.finetuned_bytes,
        "backbone": document["backbone"],
        "tasks": tasks,
        "macs": {"one_by_one": done.macs, "together": done.macs_together},
        "check": {"pictures": done.pictures, "limit": done.limit},
    }


def _show(console: Console, done: Bundled) -> None:
    manifest = done.manifest
    table = Table(box=None, pad_edge=False)
    for column in ("task", "classes", "blocks", "it alone keeps", "bytes", "differs by"):
        table.add_column(column, justify="left" if column == "task" else "right", no_wrap=column != "blocks")
    for name, task in manifest.tasks.items():
        table.add_row(
            name,
            str(task.classes),
            _numbers(task.blocks),
            _numbers(manifest.alone(name)),
            _megabytes(task.file.bytes),
            f"{done.differences[name].largest:.1e}",
        )
    table.add_row("backbone", "", _numbers(manifest.blocks), "", _megabytes(manifest.file.bytes), "")
    console.print(table)
    count = len(manifest.tasks)
    whole = done.finetuned_bytes
    console.print(
        f"{_megabytes(manifest.bytes)} in all, {100 * manifest.bytes / whole:.1f} % of {count} fine-tuned networks in "
        f"{manifest.precision} ({_megabytes(whole)})",
        soft_wrap=True,
    )
    console.print(
        f"on one picture all tasks together take {macs(done.macs_together)} MACs, one by one {macs(done.macs)}",
        soft_wrap=True,
    )
    console.print(f"compared with the originals on {done.pictures}; {done.limit:g} is allowed", soft_wrap=True)
    console.print(f"wrote {done.folder}", soft_wrap=True)


def _numbers(blocks: Sequence[int]) -> str:
    return " ".join(map(str, blocks)) or "-"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB"
