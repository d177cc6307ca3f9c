"""One loop for teach, tailor and finetune: steps, epochs, validation, checkpoints, interruption.

What is trained, and with which loss, is a `Trainee`'s business.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nettailor_cli.core.data import Batch, Batches
from nettailor_cli.core.errors import FileError, Interrupted, RunFailed, UsageError, is_out_of_memory
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.state import check_state, copy_state, first_broken, snapshot
from nettailor_cli.core.training import checkpoint
from nettailor_cli.core.training.checkpoint import Position
from nettailor_cli.core.training.evaluate import Score, evaluate
from nettailor_cli.core.training.finite import failed, what_is_broken
from nettailor_cli.core.training.gradients import Gradients
from nettailor_cli.core.training.norms import try_one_picture
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import ALONE, Processes
from nettailor_cli.core.training.schedule import rate_factor
from nettailor_cli.core.training.trainee import Trainee

CHECKPOINT_SECONDS = 60.0
WATCHED, JUDGED = 0.4, 0.6
"""Shares of the epochs: a run is given up from the second on, for the best val accuracy since the first."""


@dataclass(frozen=True)
class Run:
    """Where the loop keeps its state, to whom it reports, and when it has to stop.

    identity: what must be equal for a checkpoint to be gone on with. stop: returns the number of a signal that asked
    for an end, or None. log: takes one record per epoch. resume: go on with the checkpoint, which is there.
    processes: those that train together; the training batches are to be this one's part of them.
    """

    checkpoint: Path
    identity: Mapping[str, Any]
    resume: bool
    progress: Progress
    log: Callable[[dict[str, Any]], None]
    stop: Callable[[], int | None]
    processes: Processes = ALONE


@dataclass
class Training:
    """One stage's training. `what` is the stage's name; without `validation` there is no early stopping.

    `floor`: a val accuracy, in percent; a run that does not come up to it is given up, see `JUDGED`. `part`: what it
    is called in messages where a stage has several trainings.
    """

    trainee: Trainee
    training: Batches
    validation: Batches | None
    settings: Settings
    machine: Machine
    run: Run
    what: str
    floor: float = 0.0
    part: str = ""

    def __post_init__(self) -> None:
        self.batches = len(self.training)  # per epoch
        self.steps = self.settings.epochs * self.batches
        self.processes = self.run.processes
        parts = self.processes.count * self.settings.accumulate
        if self.training.smallest < parts:
            raise UsageError(
                f"{self.what}: a batch of {self.training.smallest} images can't be divided into {parts} parts",
                "choose a larger --batch-size, or fewer processes or --accumulate",
            )
        if self.training.smallest // parts == 1:  # beforehand: it may be the last batch of an epoch
            try_one_picture(self.what, self.trainee.module, self.trainee.predict, self.training.size, self.machine)
        self.gradients = Gradients(self.trainee, self.machine, self.processes, self.settings.accumulate)
        self.groups = self.trainee.groups()
        self.optimiser = torch.optim.SGD(
            [{"params": list(g.parameters.values()), "lr": g.lr, "weight_decay": g.weight_decay} for g in self.groups],
            momentum=self.settings.momentum,
        )
        self.position = Position()
        self.best: dict[str, Tensor] = {}
        self.kept: Position | None = None  # of the checkpoint
        self.saved = time.monotonic()
        self.given_up = False

    def go(self) -> None:
        """Train in place. With `patience`, the best epoch's state is what stays.

        Raises Interrupted after the state was saved, and RunFailed when the loss or a weight is not finite, or memory
        is short: the checkpoint stays as it was.
        """
        if self.run.resume:
            self._restore()
        self.run.progress.start(self.part or self.what, self.steps)
        self.run.progress.advance(self.position.epoch * self.batches + self.position.batch)
        while self.position.epoch < self.settings.epochs and not (self._patience_is_over() or self.given_up):
            try:
                self._epoch()
            except (RuntimeError, MemoryError) as error:
                if is_out_of_memory(error):
                    raise self._too_large(error) from error
                raise
        self.run.progress.finish()
        if self.best:
            copy_state(self.trainee.state(), self.best)
            epoch, accuracy = self.position.best_epoch, self.position.best_accuracy
            self.run.progress.note(f"{self.what}: keeps epoch {epoch} (val accuracy {accuracy:.2f} %)")

    def _too_large(self, error: BaseException) -> RunFailed:
        """What to do when a step does not fit into memory. Other settings are another run, so it starts again."""
        size, parts = self.settings.batch_size, self.settings.accumulate
        smaller = [f"--batch-size {size // 2}"] if size // 2 >= self.processes.count * parts else []
        if self.training.smallest >= 2 * self.processes.count * parts:
            smaller.append(f"--accumulate {2 * parts}")
        less = " or ".join(smaller) or "a smaller --size"
        saved = "the last checkpoint stays, " if self.run.checkpoint.exists() else ""
        return RunFailed(
            f"{self.what}: out of memory in epoch {self.position.epoch + 1}, with --batch-size {size}: "
            + (str(error).strip().split("\n")[0] or type(error).__name__),
            f"the same command with --force and {less}; {saved}--resume goes on once more memory is free",
        )

    def _epoch(self) -> None:
        position = self.position
        self.trainee.module.train(True)
        started, seen = time.perf_counter(), 0
        for batch in self.training.epoch(position.epoch, position.batch):
            figures = self._step(batch)
            images = batch.of
            seen += images
            for name, value in {**figures, "images": 1.0}.items():
                position.sums[name] = position.sums.get(name, 0.0) + value * images
            position.batch += 1
            speed = seen / (time.perf_counter() - started)
            self.run.progress.advance(1, {"epoch": position.epoch + 1, **_means(position.sums), "images/s": speed})
            self._stop_if_asked()
            if self.processes.is_main and time.monotonic() - self.saved > CHECKPOINT_SECONDS:
                self.save()
        self._end_epoch(seen, time.perf_counter() - started)

    def _step(self, batch: Batch) -> dict[str, float]:
        """One descent; its figures."""
        step = self.position.epoch * self.batches + self.position.batch
        factor = rate_factor(self.settings, step, self.steps, self.batches)
        for param_group, group in zip(self.optimiser.param_groups, self.groups, strict=True):
            param_group["lr"] = group.lr * factor
        self.optimiser.zero_grad(set_to_none=True)
        figures = self.gradients(batch, step / self.steps)
        if not math.isfinite(figures["loss"]):
            trouble = f"the loss is {figures['loss']} at epoch {self.position.epoch + 1}, step {step + 1}"
            # in all processes alike: they have added the same figures up
            raise self._failed(f"{trouble} ({what_is_broken(figures)})", self.processes.from_main(lambda: self.kept))
        for group in self.groups:
            if group.clip:
                nn.utils.clip_grad_norm_(group.parameters.values(), group.clip)
        self.optimiser.step()
        return figures

    def _end_epoch(self, seen: int, seconds: float) -> None:
        position = self.position
        if broken := first_broken(self.trainee.state()):
            raise self._failed(self._broken_weight(broken), self.processes.from_main(lambda: self.kept))
        score = None
        if self._is_measured():
            try:
                score = self.processes.from_main(self._validate)
            except RunFailed as error:
                raise self._failed(f"after epoch {position.epoch + 1}, {error.message}", self.kept) from error
        last_step = (position.epoch + 1) * self.batches - 1
        record = {
            "stage": self.what,
            **({"part": self.part} if self.part else {}),
            "epoch": position.epoch + 1,
            "epochs": self.settings.epochs,
            "lr": self.settings.lr * rate_factor(self.settings, last_step, self.steps, self.batches),
            **_means(position.sums),
            **({"val_accuracy": score.accuracy, "val_loss": score.loss} if score else {}),
            "images_per_second": seen / seconds,
            "seconds": seconds,
            **self.trainee.figures(),
        }
        self.run.log(record)
        self.run.progress.line(_line(record))
        position.epoch, position.batch, position.sums = position.epoch + 1, 0, {}
        if score is not None:
            self._judge(score.accuracy)

    def _is_measured(self) -> bool:
        """Whether this epoch ends with a validation: where val is as large as train, it takes a third of the time.

        Every one does; but of a part, whose curve nobody follows and whose end is measured anyway, only those that may
        save it from being given up.
        """
        if self.validation is None or not self.part or self.settings.patience:
            return self.validation is not None
        done, epochs = self.position.epoch + 1, self.settings.epochs
        return WATCHED * epochs < done < epochs and max(0.0, self.position.best_accuracy) < self.floor

    def _judge(self, accuracy: float) -> None:
        """Keep the best epoch where there is patience; give up where nothing has come near the floor lately."""
        position, epochs = self.position, self.settings.epochs
        # while the learning rate is high accuracy jumps by 10 points and more, so no single epoch counts
        if accuracy > position.best_accuracy and (self.settings.patience or position.epoch > WATCHED * epochs):
            position.best_epoch, position.best_accuracy = position.epoch, accuracy
            if self.settings.patience:
                self.best = snapshot(self.trainee.state())
        if JUDGED * epochs < position.epoch < epochs and position.best_accuracy < self.floor:
            self.given_up = True
            self.run.progress.note(f"{self.part or self.what}: given up, val accuracy below {self.floor:.1f} %")

    def _validate(self) -> Score:
        assert self.validation is not None
        return evaluate(self.trainee.predict, self.trainee.module, self.validation, self.machine)

    def _patience_is_over(self) -> bool:
        position, patience = self.position, self.settings.patience
        return patience > 0 and position.best_epoch >= 0 and position.epoch - position.best_epoch >= patience

    def _stop_if_asked(self) -> None:
        signal = self.processes.agreed(self.run.stop())
        if signal is not None:
            self.processes.alone(self.save)
            raise Interrupted(
                f"{self.what}: stopped in epoch {self.position.epoch + 1}, state saved",
                "the same command with --resume goes on",
                signal=signal,
            )

    def save(self) -> None:
        """Write the checkpoint; in the main process. Raises as `files.write_atomically`."""
        momentum = {}
        for name, parameter in self._parameters().items():
            buffer = self.optimiser.state.get(parameter, {}).get("momentum_buffer")
            if buffer is not None:
                momentum[name] = buffer
        state = self.trainee.state()
        if broken := first_broken(state) or first_broken(momentum):
            raise self._failed(self._broken_weight(broken), self.kept)
        checkpoint.save(
            self.run.checkpoint,
            identity=self.run.identity,
            position=self.position,
            model=state,
            best=self.best,
            momentum=momentum,
        )
        self.kept = replace(self.position)
        self.saved = time.monotonic()

    def _restore(self) -> None:
        self.position, saved = checkpoint.load(self.run.checkpoint, identity=self.run.identity)
        self.kept = replace(self.position)
        self._check_saved(saved)
        copy_state(self.trainee.state(), saved["model"])
        self.best = saved["best"]
        for name, parameter in self._parameters().items():
            if name in saved["momentum"]:
                # in the parameter's own layout, as the optimiser would have made it
                buffer = torch.empty_like(parameter).copy_(saved["momentum"][name])
                self.optimiser.state[parameter]["momentum_buffer"] = buffer
        where = f"epoch {self.position.epoch + 1}, batch {self.position.batch + 1}"
        self.run.progress.note(f"{self.what}: goes on at {where}")

    def _broken_weight(self, name: str) -> str:
        place = f"epoch {self.position.epoch + 1}, step {self.position.epoch * self.batches + self.position.batch}"
        return f"the weights are not finite after {place} ({name}), while the loss still was"

    def _failed(self, trouble: str, kept: Position | None) -> RunFailed:
        part = f" ({self.part})" if self.part else ""
        return failed(
            self.what, f"{self.what}{part}: {trouble}", self.settings, self.machine.precision, self.run.checkpoint, kept
        )

    def _check_saved(self, saved: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Raises FileError when the checkpoint's position or momentum can't be this run's."""
        position = self.position
        momentum = {name: p for name, p in self._parameters().items() if name in saved["momentum"]}
        try:
            if position.epoch > self.settings.epochs or position.batch > self.batches:
                raise FileError(f"it stands at epoch {position.epoch + 1}, batch {position.batch + 1}")
            if saved["best"]:
                check_state(self.trainee.state(), saved["best"])
            check_state(momentum, saved["momentum"])
        except FileError as error:
            raise FileError(
                f"{self.run.checkpoint} can't be this run's: {error.message}", "start again with --force"
            ) from error

    def _parameters(self) -> dict[str, nn.Parameter]:
        return {name: parameter for group in self.groups for name, parameter in group.parameters.items()}


def _means(sums: Mapping[str, float]) -> dict[str, float]:
    return {name: value / sums["images"] for name, value in sums.items() if name != "images"}


def _line(record: Mapping[str, Any]) -> str:
    parts = [
        f"{record.get('part', record['stage'])} epoch {record['epoch']}/{record['epochs']}",
        f"loss {record['loss']:.3f}",
    ]
    if "expected_complexity" in record:
        parts.append(f"E[C] {record['expected_complexity']:.2f}")
    parts.append(f"accuracy {record['accuracy']:.1f} %")
    if "val_accuracy" in record:
        parts.append(f"val {record['val_accuracy']:.1f} %")
    parts.append(f"{record['images_per_second']:.0f} images/s")
    return ", ".join(parts)
