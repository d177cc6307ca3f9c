"""What the training stages share: where things are, the pictures, the machine, and how a result is written."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.data import Augmentation, Batches, Dataset, Pictures, load_pictures, read_dataset
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.errors import DataError, UsageError
from nettailor_cli.core.files import check_place
from nettailor_cli.core.preprocessing import Preprocessing
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite
from nettailor_cli.core.settings import Settings, to_document
from nettailor_cli.core.training.checkpoint import check
from nettailor_cli.core.training.evaluate import evaluate
from nettailor_cli.core.training.loop import Run, Trainee, train
from nettailor_cli.core.training.precision import Machine, choose_machine
from nettailor_cli.core.training.tensorboard import TensorBoard

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Job:
    """One training command, as it was asked for.

    data: the folder of pictures; None where an earlier stage's is meant. home: where imported and downloaded backbones
    are kept. backbone, weights, mean, std: see `backbones.store.find`. size: pixels, None for the backbone's own.
    flags: the settings that were typed; preset, config: see `settings.resolve`. stop: see `training.loop.Run`.
    """

    run: RunDirectory
    home: Path
    progress: Progress
    stop: Callable[[], int | None]
    data: Path | None = None
    backbone: str | None = None
    weights: Path | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    preset: str | None = None
    config: Path | None = None
    resume: bool = False
    force: bool = False
    tensorboard: bool = False


@dataclass(frozen=True)
class Workbench:
    """The pictures of a task, ready for training on a machine."""

    dataset: Dataset
    preprocessing: Preprocessing
    pictures: Pictures
    validation: Batches | None
    machine: Machine

    def training(self, settings: Settings) -> Batches:
        """The training pictures in the batches, order and augmentation of `settings`."""
        return Batches(
            self.pictures,
            self.preprocessing,
            batch_size=settings.batch_size,
            seed=settings.seed,
            augmentation=Augmentation(
                kind=settings.augment, flip=settings.flip, scale=(settings.min_crop, 1.0), jitter=settings.jitter
            ),
            shuffle=True,
            device=self.machine.device,
        )

    def data_document(self, settings: Settings) -> dict[str, Any]:
        """What the model file says about the images: enough to find the same split again."""
        return {
            **self.dataset.summary(),
            "digest": self.dataset.digest,
            "split_seed": settings.seed,
            "val_fraction": settings.val_fraction,
            "group": settings.group,
        }


def find_pictures(data: Path, settings: Settings, classes: Sequence[str] | None = None) -> Dataset:
    """What is in the folder `data`, split as `settings` say; no picture is opened yet. Raises DataError."""
    dataset = read_dataset(
        data, seed=settings.seed, group=settings.group, classes=classes, val_fraction=settings.val_fraction
    )
    if not dataset.splits.get("train"):
        raise DataError(f"{data} has no pictures to train on", "training needs DIR/train/CLASS or DIR/CLASS folders")
    return dataset


def open_workbench(job: Job, dataset: Dataset, settings: Settings, preprocessing: Preprocessing) -> Workbench:
    """Settle the machine; check and decode the pictures of `dataset`. Raises DataError before any training."""
    machine = settle_machine(job, settings)
    job.progress.note(
        f"data: {dataset.root.name}, {len(dataset.classes)} classes, "
        + ", ".join(f"{len(examples)} {split}" for split, examples in dataset.splits.items())
    )
    # read together, so that a broken picture in val is named beside those in train
    train, val = dataset.splits["train"], dataset.splits.get("val", ())
    pictures = load_pictures(
        (*train, *val),
        preprocessing.resize,
        workers=settings.workers or cores(),
        progress=job.progress,
        memory_limit=settings.memory_limit,
        skip_bad=settings.skip_bad_images,
    )
    in_train = set(train)
    for_training, for_validation = pictures.divide(lambda example: example in in_train)
    validation = evaluation_batches(for_validation, preprocessing, machine) if len(for_validation) else None
    return Workbench(dataset, preprocessing, for_training, validation, machine)


def cores() -> int:
    """The processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def evaluation_batches(pictures: Pictures, preprocessing: Preprocessing, machine: Machine) -> Batches:
    """Batches of central crops, in order."""
    return Batches(
        pictures,
        preprocessing,
        batch_size=EVALUATION_BATCH,
        seed=0,
        augmentation=None,
        shuffle=False,
        device=machine.device,
    )


def settle_machine(job: Job, settings: Settings) -> Machine:
    """Resolve device and precision, and say why."""
    machine = choose_machine(settings.device, settings.precision)
    job.progress.note(f"machine: {machine.reason}, {torch.get_num_threads()} threads")
    return machine


def carry_out(
    job: Job,
    stage: str,
    output: Path,
    trainee: Trainee,
    bench: Workbench,
    settings: Settings,
    *,
    identity: dict[str, Any],
    about: Mapping[str, Any] | None = None,
    finish: Callable[[dict[str, Any]], tuple[ModelDocument, dict[str, torch.Tensor]]],
) -> ModelDocument:
    """Train, measure on val in fp32, write `output`, drop the checkpoint.

    `about` goes into run.toml's table [run], for the run's later commands; nothing is noted there before everything
    was found to fit. `finish` turns the metrics into what the file holds. Raises as `training.loop.train` does.
    """
    resolved = replace(settings, device=bench.machine.device.type, precision=bench.machine.precision)
    checkpoint = job.run.checkpoint(stage, output)
    identity = {
        "stage": stage,
        "data": bench.dataset.digest,
        **_lasting(to_document(resolved, stage)),
        **identity,
    }
    if job.resume and checkpoint.exists():
        check(checkpoint, identity=identity)
    if about is not None:
        job.run.record("run", about)
    job.run.record(stage, to_document(resolved, stage))
    run = Run(
        checkpoint=checkpoint,
        identity=identity,
        resume=job.resume,
        progress=job.progress,
        log=_logger(job),
        stop=job.stop,
    )
    train(trainee, bench.training(settings), bench.validation, settings, bench.machine, run, what=stage)
    metrics: dict[str, Any] = {}
    if bench.validation is not None:
        score = evaluate(trainee.predict, trainee.module, bench.validation, replace(bench.machine, bf16=False))
        metrics = {"split": "val", "accuracy": score.accuracy, "loss": score.loss, "images": score.images}
    document, tensors = finish(metrics)
    delta.write(output, document, tensors)
    checkpoint.unlink(missing_ok=True)
    return document


def _logger(job: Job) -> Callable[[dict[str, Any]], None]:
    """What takes an epoch's record: log.jsonl always, TensorBoard when asked for."""
    if not job.tensorboard:
        return job.run.log
    board = TensorBoard(job.run.path / "tensorboard")

    def log(record: dict[str, Any]) -> None:
        job.run.log(record)
        board.log(record)

    return log


def run_table(backbone: Backbone, bench: Workbench) -> dict[str, Any]:
    """What run.toml says of the run as a whole."""
    return {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "data": str(bench.dataset.root.resolve()),
        "preprocessing": backbone.preprocessing.to_json(),
    }


def ready_to_write(job: Job, stage: str, output: Path) -> bool:
    """Whether there is anything to do: False when --resume finds the work finished.

    Raises UsageError when `output` or an unfinished run of it is there and neither --resume nor --force was given.
    """
    if job.resume and output.exists():
        job.progress.note(f"{output} is finished already")
        return False
    refuse_to_overwrite(output, force=job.force)
    check_place(output)
    if job.run.checkpoint(stage, output).exists() and not (job.resume or job.force):
        raise UsageError(f"{job.run.path} has an unfinished {stage}", "--resume goes on with it, --force starts again")
    return True


def stage_settings(settings: Settings, bench: Workbench, stage: str) -> dict[str, Any]:
    """The settings as the model file keeps them: those that shape the result, with device and precision as resolved."""
    resolved = replace(settings, device=bench.machine.device.type, precision=bench.machine.precision)
    return _lasting(to_document(resolved, stage))


def generator_for(stage: str, seed: int) -> torch.Generator:
    """Random numbers for the start values of `stage`: another stream for every stage and seed."""
    number = int.from_bytes(hashlib.sha256(f"{stage} {seed}".encode()).digest()[:7], "big")
    return torch.Generator().manual_seed(number)


def to_machine(module: nn.Module, machine: Machine) -> None:
    """Onto the device, convolutions in the layout that is fast there."""
    module.to(machine.device, memory_format=torch.channels_last)  # type: ignore[call-overload]


def _lasting(document: dict[str, Any]) -> dict[str, Any]:
    """Without what changes nothing about the result."""
    return {key: value for key, value in document.items() if key not in ("workers", "memory_limit")}
