"""Several tasks in one process: the backbone is in memory once, beside it what is each task's own.

A switch from one task to another touches small tensors only. Tasks that look at the same picture share what they have
in common, see `core.student.Once`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.backbones.bundled import check_file, read_bundled
from nettailor_cli.core.errors import FileError, UsageError, did_you_mean
from nettailor_cli.core.folding import fold_proxies
from nettailor_cli.core.manifest import Manifest, file_of, read_manifest
from nettailor_cli.core.models import Model, student_among
from nettailor_cli.core.progress import SILENT, Progress
from nettailor_cli.core.student import Once


def load_bundle(folder: Path, *, progress: Progress = SILENT) -> Bundle:
    """The bundle in `folder`, with its backbone in memory; tasks are read when they are first asked for.

    Raises UsageError when there is no bundle, FileError when something in it is damaged.
    """
    manifest = read_manifest(folder)
    return Bundle(folder, manifest, read_bundled(folder, manifest, progress))


class Bundle:
    """Made by `load_bundle`. All its models stand on one and the same backbone, and move to a device together."""

    def __init__(self, folder: Path, manifest: Manifest, backbone: Backbone) -> None:
        self.folder = folder
        self.manifest = manifest
        self._backbone = backbone
        self._models: dict[str, Model] = {}

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of all tasks, in the manifest's order."""
        return tuple(self.manifest.tasks)

    def model(self, task: str) -> Model:
        """The model of `task`, which stays in memory from now on. Raises UsageError for an unknown name, FileError."""
        if task not in self._models:
            self._models[task] = self._read(task)
        return self._models[task]

    def switch(self, task: str) -> Model:
        """The model of `task`, and of all tasks it alone stays in memory. Raises as `model` does."""
        self._models = {task: self.model(task)}
        return self._models[task]

    def logits(self, images: Tensor, tasks: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Task -> logits (N, classes), of all tasks or of `tasks`; what they have in common is computed once.

        `images` (N, 3, size, size) are preprocessed, on the device of the models. The tasks have to be of one size,
        mean and std: for others, and for pictures as they are, see `inference.probabilities_of`. Raises UsageError.
        """
        models = {task: self.model(task) for task in (self.tasks if tasks is None else tasks)}
        if len({model.document.preprocessing for model in models.values()}) > 1:
            raise UsageError("these tasks take pictures of different size, mean or std", "run them apart")
        once = Once(images)
        with torch.inference_mode():
            return {task: model.network(images, once).logits for task, model in models.items()}

    def _read(self, task: str) -> Model:
        if task not in self.manifest.tasks:
            known = f"choose {', '.join(self.tasks)}"
            raise UsageError(f"{self.folder} has no task {task}", did_you_mean(task, self.tasks) or known)
        path = file_of(self.folder, task)
        check_file(path, self.manifest.tasks[task].file.sha256)
        document, tensors = delta.read(path)
        if not self.manifest.serves(document.fingerprint, document.graph.blocks_kept):
            raise FileError(f"{path} stands on another backbone than the bundle's")
        return Model(document, fold_proxies(student_among(document, tensors, self._backbone, source=str(path))))
