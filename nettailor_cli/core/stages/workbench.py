"""The pictures of a task, ready for training on a machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nettailor_cli.core.data import (
    Augmentation,
    Batches,
    Cache,
    Dataset,
    Pictures,
    cores,
    evaluation_batches,
    load_pictures,
    read_dataset,
)
from nettailor_cli.core.data.balance import warnings
from nettailor_cli.core.errors import DataError
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Workbench:
    """What was found, the decoded training pictures, the batches to validate on, and where the work is done."""

    dataset: Dataset
    preprocessing: Preprocessing
    pictures: Pictures
    validation: Batches | None
    machine: Machine
    skipped: int

    def training(self, settings: Settings, seed: int, share: float = 1.0, processes: Processes = ALONE) -> Batches:
        """The training pictures in the batches and augmentation of `settings`; order and crops follow from `seed`.

        `share` of them make an epoch, see `Batches`. Every batch is divided among `processes`.
        """
        return Batches(
            self.pictures,
            self.preprocessing,
            batch_size=settings.batch_size,
            seed=seed,
            augmentation=Augmentation(
                kind=settings.augment, flip=settings.flip, scale=(settings.min_crop, 1.0), jitter=settings.jitter
            ),
            shuffle=True,
            device=self.machine.device,
            share=share,
            among=(processes.rank, processes.count),
        )

    def data_document(self, settings: Settings) -> dict[str, Any]:
        """What the model file says about the images: enough to find the same split again."""
        return {
            **self.dataset.summary(),
            "skipped": self.skipped,
            "digest": self.dataset.digest,
            "split_seed": settings.seed,
            "val_fraction": settings.val_fraction,
            "fold": settings.fold,
            "group": settings.group,
        }


def find_pictures(data: Path, settings: Settings, classes: Sequence[str] | None = None) -> Dataset:
    """What is in the folder `data`, split as `settings` say; no picture is opened yet. Raises DataError."""
    dataset = read_dataset(
        data,
        seed=settings.seed,
        group=settings.group,
        classes=classes,
        val_fraction=settings.val_fraction,
        fold=settings.fold,
    )
    if not dataset.splits.get("train"):
        raise DataError(f"{data} has no pictures to train on", "training needs DIR/train/CLASS or DIR/CLASS folders")
    return dataset


def open_workbench(
    dataset: Dataset,
    settings: Settings,
    preprocessing: Preprocessing,
    machine: Machine,
    progress: Progress,
    home: Path,
) -> Workbench:
    """Check and decode the pictures of `dataset`, or find them in the cache in `home`.

    Raises DataError, before any training, for those that are broken.
    """
    progress.note(
        f"data: {dataset.root.name}, {len(dataset.classes)} classes, "
        + ", ".join(f"{len(examples)} {split}" for split, examples in dataset.splits.items())
    )
    # all splits at once, so that everything that is broken is named in one go; test is only looked at
    train, val, test = (dataset.splits.get(split, ()) for split in ("train", "val", "test"))
    pictures = load_pictures(
        dataset,
        (*train, *val),
        preprocessing.resize,
        workers=settings.workers or cores(),
        progress=progress,
        memory_limit=settings.memory_limit,
        cache=Cache(home, settings.cache_limit),
        skip_bad=settings.skip_bad_images,
        only_check=test,
    )
    in_train = set(train)
    for_training, for_validation = pictures.divide(lambda example: example in in_train)
    lost = {example.label for example in train} - set(for_training.labels.tolist())
    if lost:
        names = ", ".join(dataset.classes[label] for label in sorted(lost))
        raise DataError(f"not one training image can be read of class {names}", "repair them, or remove the class")
    counts = torch.bincount(for_training.labels, minlength=len(dataset.classes)).tolist()
    for warning in warnings(dataset.classes, counts, len(for_validation)):
        progress.warn(warning)
    return Workbench(
        dataset,
        preprocessing,
        for_training,
        evaluation_batches(for_validation, preprocessing, machine.device) if len(for_validation) else None,
        machine,
        skipped=len(pictures.skipped),
    )
