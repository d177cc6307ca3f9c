"""From a trainee to a file: note the settings, train, measure, write."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from nettailor_cli.core import delta
from nettailor_cli.core.backbones.backbone import Backbone
from nettailor_cli.core.delta import ModelDocument
from nettailor_cli.core.settings import Settings, to_document
from nettailor_cli.core.stages.environment import environment_of
from nettailor_cli.core.stages.job import Job
from nettailor_cli.core.stages.workbench import Workbench
from nettailor_cli.core.training.checkpoint import check
from nettailor_cli.core.training.evaluate import evaluate
from nettailor_cli.core.training.loop import Run, Training
from nettailor_cli.core.training.precision import Machine
from nettailor_cli.core.training.processes import Processes
from nettailor_cli.core.training.tensorboard import TensorBoard
from nettailor_cli.core.training.trainee import Trainee

_PASSING = ("workers", "cache_limit", "memory_limit")
"""Settings that change nothing about the result."""


@dataclass(frozen=True)
class Part:
    """One of several trainings of the same stage.

    share: of the training pictures, make one of its epochs. floor: it is given up when its val accuracy (in percent)
    stays below this, see `training.loop.JUDGED`. alike: it is a full training, with the stage's order and crops, so
    that all parts like this one see the same; else they are its own, by `name`.
    """

    name: str
    share: float = 1.0
    floor: float = 0.0
    alike: bool = False


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
    part: Part | None = None,
    afterwards: Callable[[], None] = lambda: None,
) -> ModelDocument:
    """Train, measure on val in fp32, write `output`, drop the checkpoint. `part`: this is one of several of its stage.

    `identity` is what has to be the same, besides settings and pictures, for a checkpoint to be gone on with. `about`
    goes into run.toml's table [run], for the run's later commands; nothing is noted there before everything was found
    to fit. `afterwards` is done to what was trained, before it is measured; `finish` turns the metrics into what the
    file holds. Raises as `training.loop.Training` does.
    """
    checkpoint = job.run.checkpoint(stage, output)
    part = part or Part(stage)
    identity = {
        "stage": stage,
        "part": part.name,
        "share": part.share,
        **({"alike": True} if part.alike else {}),
        "data": bench.dataset.digest,
        **lasting_settings(settings, bench, stage),
        **identity,
    }
    goes_on = job.resume and checkpoint.exists()
    epochs_done = check(checkpoint, identity=identity)["position"]["epoch"] if goes_on else 0

    run = Run(
        checkpoint=checkpoint,
        identity=identity,
        resume=goes_on,
        progress=job.progress,
        log=_logger(job, output),
        stop=job.stop_or_fail,
        processes=job.processes,
    )
    training = bench.training(settings, seed_of(part, stage, settings.seed), part.share, job.processes)
    called = "" if part.name == stage else part.name
    loop = Training(trainee, training, bench.validation, settings, bench.machine, run, stage, part.floor, called)

    def note() -> None:
        job.run.record(
            {
                **({} if about is None else {"run": about}),
                "machine": _machine_document(bench.machine, job.processes),
                # of a part, run.toml keeps what the stage as a whole was asked for
                **({stage: to_document(_resolved(settings, bench), stage)} if part.name == stage else {}),
            }
        )
        # A --resume after a crash must find no older run's checkpoint, nor take what --force replaces for the result.
        if not goes_on and output.exists():
            loop.save()
        elif not goes_on:
            checkpoint.unlink(missing_ok=True)
        job.run.forget_after(stage, output, epochs_done)

    job.processes.alone(note)
    loop.go()
    afterwards()
    metrics: dict[str, Any] = {}
    if (validation := bench.validation) is not None:
        exactly = replace(bench.machine, bf16=False)
        score = job.processes.from_main(lambda: evaluate(trainee.predict_exactly, trainee.module, validation, exactly))
        metrics = {"split": "val", "accuracy": score.accuracy, "loss": score.loss, "images": score.images}
        if called:
            job.progress.note(f"{called}: val accuracy {score.accuracy:.1f} %")
        if loop.given_up:
            metrics |= {"given_up_after_epochs": loop.position.epoch, "given_up_below": part.floor}
    document, tensors = finish(metrics)
    environment = {**document.environment, stage: environment_of(bench.machine, job.processes)}
    document = replace(document, environment=environment)

    def write() -> None:
        job.check_lock()
        delta.write(output, document, tensors)
        checkpoint.unlink(missing_ok=True)

    job.processes.alone(write)
    return document


def lasting_settings(settings: Settings, bench: Workbench, stage: str) -> dict[str, Any]:
    """The settings as the model file keeps them: those that shape the result, with device and precision as resolved."""
    document = to_document(_resolved(settings, bench), stage)
    return {name: value for name, value in document.items() if name not in _PASSING}


def run_table(backbone: Backbone, bench: Workbench) -> dict[str, Any]:
    """What run.toml says of the run as a whole."""
    return {
        "backbone": backbone.name,
        "fingerprint": backbone.fingerprint,
        "data": str(bench.dataset.root.resolve()),
        "preprocessing": backbone.preprocessing.to_json(),
    }


def stage_seed(stage: str, seed: int) -> int:
    """Another number for every stage and seed: no stage sees an earlier one's crops again."""
    return int.from_bytes(hashlib.sha256(f"{stage} {seed}".encode()).digest()[:7], "big")


def seed_of(part: Part, stage: str, seed: int) -> int:
    """Of the order and crops of this `part` of `stage`."""
    return stage_seed(stage if part.alike else part.name, seed)


def generator_for(stage: str, seed: int) -> torch.Generator:
    """Random numbers for the start values of `stage`."""
    return torch.Generator().manual_seed(stage_seed(stage, seed))


def _resolved(settings: Settings, bench: Workbench) -> Settings:
    return replace(settings, device=str(bench.machine.device), precision=bench.machine.precision)


def _machine_document(machine: Machine, processes: Processes) -> dict[str, Any]:
    return {**environment_of(machine, processes), "device": str(machine.device), "reason": machine.reason}


def _logger(job: Job, output: Path) -> Callable[[dict[str, Any]], None]:
    """What takes an epoch's record: log.jsonl always, TensorBoard when asked for; nothing but in the main process."""
    if not job.processes.is_main:
        return lambda record: None
    board = TensorBoard(job.run.path / "tensorboard" / output.stem) if job.tensorboard else None

    def log(record: dict[str, Any]) -> None:
        job.check_lock()
        job.run.log({"file": output.name, **record})
        if board is not None:
            board.log(record)

    return log
