"""The run that the tests of fit search, and short trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nettailor_cli.core import delta
from nettailor_cli.core.pruning import remove_blocks
from nettailor_cli.core.task_tensors import tensors_for
from tests.cli.helpers import Workshop

CONFIG = """
batch_size = 8
lr = 0.001
[teach]
epochs = 1
[tailor]
epochs = 1
[finetune]
epochs = 2
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.toml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def run(shop: Workshop, tmp_path: Path) -> Path:
    """A run with a teacher and a student, whose last four blocks are gone: a search takes a third of the time."""
    run = shop.copy_run(tmp_path / "run")
    for name in ("pruned", "model"):
        (run / f"{name}.safetensors").unlink()
    document, tensors = delta.read(run / "student.safetensors")
    graph = remove_blocks(document.graph, {5, 6, 7, 8})
    (run / "student.safetensors").unlink()  # a link
    delta.write(
        run / "student.safetensors", replace(document, graph=graph), tensors_for(graph, [(document.graph, tensors)])
    )
    return run
