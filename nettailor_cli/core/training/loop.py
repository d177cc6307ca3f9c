"""One loop for teach, tailor and finetune: steps, epochs, validation, checkpoints, interruption.

What is trained, and with which loss, is a `Trainee`'s business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from nettailor_cli.core.data import Batch, Batches
from nettailor_cli.core.errors import Interrupted, RunFailed
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.state import copy_state, snapshot
from nettailor_cli.core.training import checkpoint
from nettailor_cli.core.training.checkpoint import Position
from nettailor_cli.core.training.evaluate import evaluate
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.schedule import rate_factor

CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class Group:
    """Parameters that share a peak learning rate and a weight decay."""

    parameters: dict[str, nn.Parameter]
    lr: float
    weight_decay: float


class Trainee(Protocol):
    """What the loop has to know of the thing that it trains."""

    @property
    def module(self) -> nn.Module:
        """Switched between training and evaluation."""

    def groups(self) -> list[Group]: ...

    def losses(self, batch: Batch, done: float) -> dict[str, Tensor]:
        """The figures of one step, 0-dimensional each: "loss" is descended on. `done` is the share of steps done."""

    def predict(self, images: Tensor) -> Tensor:
        """Logits (N, classes)."""

    def figures(self) -> dict[str, Any]:
        """What else an epoch's record should have (the attention), JSON-able."""

    def state(self) -> dict[str, Tensor]:
        """What is trained, by name; the tensors are the live ones."""


@dataclass(frozen=True)
class Run:
    """Where the loop keeps its state, to whom it reports, and when it has to stop.

    identity: what must be equal for a checkpoint to be gone on with. stop: returns the number of a signal that asked
    for an end, or None. log: takes one record per epoch.
    """

    checkpoint: Path
    identity: Mapping[str, Any]
    resume: bool
    progress: Progress
    log: Callable[[dict[str, Any]], None]
    stop: Callable[[], int | None]


def train(
    trainee: Trainee,
    training: Batches,
    validation: Batches | None,
    settings: Settings,
    machine: Machine,
    run: Run,
    *,
    what: str,
) -> list[dict[str, Any]]:
    """Train in place and return one record per epoch. With `patience`, the best epoch's state is what stays.

    Raises Interrupted after the state was saved, RunFailed when the loss stops being finite.
    """
    groups = trainee.groups()
    optimiser = torch.optim.SGD(
        [{"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay} for g in groups],
        momentum=settings.momentum,
    )
    names = {parameter: name for group in groups for name, parameter in group.parameters.items()}
    position, best = Position(), dict[str, Tensor]()
    if run.resume and run.checkpoint.exists():
        position, saved = checkpoint.load(run.checkpoint, identity=run.identity)
        copy_state(trainee.state(), saved["model"])
        best = saved["best"]
        for parameter, name in names.items():
            if name in saved["momentum"]:
                optimiser.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(
                    saved["momentum"][name]
                )
        run.progress.note(f"{what}: goes on at epoch {position.epoch + 1}, batch {position.batch + 1}")

    def save() -> None:
        momentum = {
            name: optimiser.state[parameter]["momentum_buffer"]
            for parameter, name in names.items()
            if optimiser.state.get(parameter, {}).get("momentum_buffer") is not None
        }
        checkpoint.save(
            run.checkpoint,
            identity=run.identity,
            position=position,
            model=trainee.state(),
            best=best,
            momentum=momentum,
        )

    batches = len(training)
    steps = settings.epochs * batches
    last_saved = time.monotonic()
    while position.epoch < settings.epochs and not _patience_is_over(position, settings):
        trainee.module.train(True)
        run.progress.start(f"{what} {position.epoch + 1}/{settings.epochs}", batches)
        run.progress.advance(position.batch)
        started, seen = time.perf_counter(), 0
        for batch in training.epoch(position.epoch, position.batch):
            step = position.epoch * batches + position.batch
            factor = rate_factor(settings, step, steps, batches)
            for param_group, group in zip(optimiser.param_groups, groups, strict=True):
                param_group["lr"] = group.lr * factor
            with machine.autocast():
                losses = trainee.losses(batch, step / steps)
            figures = {name: value.item() for name, value in losses.items()}
            if not math.isfinite(figures["loss"]):
                raise RunFailed(
                    f"{what}: the loss is {figures['loss']} at epoch {position.epoch + 1}, step {step + 1}",
                    "try a smaller --lr; the last checkpoint is from before, --resume goes on from it",
                )
            optimiser.zero_grad(set_to_none=True)
            losses["loss"].backward()
            optimiser.step()
            images = len(batch.labels)
            seen += images
            for name, value in {**figures, "images": 1.0}.items():
                position.sums[name] = position.sums.get(name, 0.0) + value * images
            position.batch += 1
            run.progress.advance(1, {**_means(position.sums), "images/s": seen / (time.perf_counter() - started)})
            signal = run.stop()
            if signal is not None:
                save()
                raise Interrupted(
                    f"{what}: stopped in epoch {position.epoch + 1}, state saved",
                    "the same command with --resume goes on",
                    signal=signal,
                )
        seconds = time.perf_counter() - started
        score = evaluate(trainee.predict, trainee.module, validation, machine) if validation is not None else None
        record = {
            "stage": what,
            "epoch": position.epoch + 1,
            "epochs": settings.epochs,
            "lr": settings.lr * rate_factor(settings, (position.epoch + 1) * batches - 1, steps, batches),
            **_means(position.sums),
            **({"val_accuracy": score.accuracy, "val_loss": score.loss} if score else {}),
            "images_per_second": seen / seconds,
            "seconds": seconds,
            **trainee.figures(),
        }
        position.records.append(record)
        run.log(record)
        run.progress.finish(_line(record))
        position.epoch, position.batch, position.sums = position.epoch + 1, 0, {}
        if settings.patience and score is not None and score.accuracy > position.best_accuracy:
            position.best_epoch, position.best_accuracy = position.epoch, score.accuracy
            best = snapshot(trainee.state())
        if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
            save()
            last_saved = time.monotonic()
    if settings.patience and best:
        copy_state(trainee.state(), best)
        run.progress.note(f"{what}: keeps epoch {position.best_epoch} (val accuracy {position.best_accuracy:.2f} %)")
    return position.records


def _patience_is_over(position: Position, settings: Settings) -> bool:
    return (
        bool(settings.patience)
        and position.best_epoch >= 0
        and position.epoch - position.best_epoch >= settings.patience
    )


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["images"] for name, value in sums.items() if name != "images"}


def _line(record: Mapping[str, Any]) -> str:
    parts = [f"{record['stage']} epoch {record['epoch']}/{record['epochs']}", f"loss {record['loss']:.3f}"]
    if "expected_complexity" in record:
        parts.append(f"E[C] {record['expected_complexity']:.2f}")
    parts.append(f"accuracy {record['accuracy']:.1f} %")
    if "val_accuracy" in record:
        parts.append(f"val {record['val_accuracy']:.1f} %")
    parts.append(f"{record['images_per_second']:.0f} images/s")
    return ", ".join(parts)
