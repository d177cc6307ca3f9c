"""The commands, a module of this package each: loaded when one is called, so that the others cost nothing."""

from __future__ import annotations

import importlib
from typing import Any

import typer

from nettailor_cli.cli.errors import reports_errors

COMMANDS = {
    "teach": "Fine-tune the whole backbone on your pictures: the teacher. Writes RUN/teacher.safetensors.",
    "tailor": "Learn which blocks your task needs (teaches first if the run has no teacher). Writes "
    "RUN/student.safetensors.",
    "prune": "Remove what the attention says is unimportant. Writes RUN/pruned.safetensors.",
    "finetune": "Retrain what pruning left, without the complexity term. Writes RUN/model.safetensors.",
    "fit": "The whole procedure: the leanest network within the tolerance. Writes RUN/model.safetensors.",
    "inspect": "Show the kept blocks, sizes and provenance of a model file.",
    "evaluate": "Measure a model on a folder of pictures: accuracy and loss, also class by class, and what it "
    "confuses.",
    "predict": "Name the most probable classes of pictures.",
    "benchmark": "Measure how long a model takes, beside its backbone and teacher; or, with --calibrate, a backbone's "
    "parts.",
    "export": "Write a standalone network: one file, no backbone beside it, run and compared with the model before it "
    "is kept.",
    "bundle": "Put several tasks and the parts of their backbone that they need into one folder that needs nothing "
    "else.",
    "backbones": "List, fetch and verify pretrained backbones.",
}
"""Name -> what the list of commands says of it: how its own help begins."""


def load(name: str) -> Any:
    """The command `name`, as Typer builds it of its function; of a module with an `app`, the group."""
    module = importlib.import_module(f"nettailor_cli.cli.{name}")
    group: typer.Typer | None = getattr(module, "app", None)
    if group is None:
        group = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
        group.command(name)(reports_errors(getattr(module, name)))
    built = typer.main.get_command(group)
    built.name = name
    return built
