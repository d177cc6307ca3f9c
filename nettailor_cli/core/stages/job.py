"""One training command, as it was asked for, and whether there is anything to do."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nettailor_cli.core.data import data_folder
from nettailor_cli.core.errors import FileError, NettailorError, UsageError
from nettailor_cli.core.files import check_place
from nettailor_cli.core.lock import Lock, locked
from nettailor_cli.core.progress import Progress
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite
from nettailor_cli.core.settings import Settings
from nettailor_cli.core.stages.environment import changes_since, environment_of
from nettailor_cli.core.training.precision import Machine, choose_machine
from nettailor_cli.core.training.processes import ALONE, Processes


@dataclass(frozen=True)
class Job:
    """What was typed, and whom the work reports to.

    data: the folder of pictures, or torchvision:NAME; None where an earlier stage's is meant. home: where backbones,
    downloaded sets and decoded pictures are kept. backbone, weights, mean, std: see `backbones.store.find`. size:
    pixels, None for the backbone's own. flags: the settings that were typed; preset, config: see `presets.resolve`.
    stop, processes: see `training.loop.Run`; where there are several, `progress` is silent in all but the main one.
    held: the run, or the one that it is a part of, is this command's, and `lock` is what the main process has of it.
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
    processes: Processes = ALONE
    held: bool = False
    lock: Lock | None = None

    @contextlib.contextmanager
    def holding(self) -> Iterator[Job]:
        """This job with its run locked, for as long as the body runs. A part of one that has it, has it as well.

        Leftovers of commands that were killed are removed. Raises as `lock.locked`, in all processes alike.
        """
        if self.held:
            yield self
            return
        lock: Lock | None = None
        refusal: NettailorError | None = None
        with contextlib.ExitStack() as stack:
            if self.processes.is_main:
                try:
                    lock = stack.enter_context(locked(self.run.path, self.progress))
                except NettailorError as error:
                    refusal = error
            refusal = self.processes.from_main(lambda: refusal)
            if refusal is not None:
                raise refusal
            if self.processes.is_main:
                self.run.remove_leftovers()
            yield replace(self, held=True, lock=lock)

    def check_lock(self) -> None:
        """Raises RunFailed when the run directory was removed meanwhile."""
        if self.lock is not None:
            self.lock.check()

    def stop_or_fail(self) -> int | None:
        """What `stop` gives. Raises as `check_lock`: both are asked after every step."""
        self.check_lock()
        return self.stop()

    def within(self, run: RunDirectory, data: Path) -> Job:
        """The job of a run that is a part of this one: its backbone and arithmetic, on the pictures in `data`.

        It goes on where it was stopped. What it shares is noted in `run`. Raises FileError where that is not known.
        """
        earlier = self.run.read()
        shared = {name: earlier.get(name, {}) for name in ("run", "machine")}  # the backbone by content, the arithmetic
        if not all(shared.values()):
            raise FileError(f"{self.run.toml} does not say how the run was made", "start again: --force")
        self.processes.alone(lambda: run.record(shared))
        return replace(
            self, run=run, data=data, backbone=None, weights=None, mean=None, std=None, size=None, preset=None,
            config=None, resume=True, force=False,
        )  # fmt: skip

    def data_folder(self) -> Path:
        """The folder that was named, or the run's own; a set of torchvision's is downloaded if it has to be.

        Raises UsageError when there is none, or it can't be had.
        """
        if self.data is not None:
            with self.processes.main_first():
                return data_folder(self.data, self.home, self.progress)
        earlier = self.run.read().get("run", {}).get("data")
        if earlier is None:
            raise UsageError("which pictures?", "name their folder with --data DIR")
        return Path(earlier)


def ready_to_write(job: Job, stage: str, output: Path) -> bool:
    """Whether there is anything to do: False when --resume finds the work finished.

    Raises UsageError when `output` or an unfinished run of it is there and neither --resume nor --force was given, and
    when the place can't be written to.
    """
    unfinished = job.run.checkpoint(stage, output).exists()
    if job.resume and output.exists() and not unfinished:
        job.progress.note(f"{output} is finished already")
        return False
    # a checkpoint beside an output: an interrupted --force, which --resume goes on with
    refuse_to_overwrite(output, force=job.force or (job.resume and unfinished))
    check_place(output)
    check_place(job.run.toml)
    if unfinished and not (job.resume or job.force):
        raise UsageError(f"{job.run.path} has an unfinished {stage}", "--resume goes on with it, --force starts again")
    if job.resume and not unfinished:
        job.progress.note(f"{stage}: no checkpoint in {job.run.path}, so it starts from the beginning")
    return True


def settle_machine(job: Job, settings: Settings) -> Machine:
    """Resolve device and precision, as the run's earlier stages did where these were left to us, and say why."""
    machine = job.processes.from_main(lambda: _settled(job, settings))
    job.processes.check_device(machine.device)
    return machine


def _settled(job: Job, settings: Settings) -> Machine:
    earlier = job.run.read().get("machine", {})
    precision, device = settings.precision, settings.device
    machine = None
    if precision == "auto" and earlier.get("precision") in ("fp32", "bf16"):
        machine = choose_machine(device, earlier["precision"], "as in this run's earlier stages")
        if str(machine.device) != earlier.get("device"):
            machine = None
    machine = machine or choose_machine(device, precision)
    now = environment_of(machine, job.processes)
    if job.resume and (changed := changes_since(earlier, now)):
        job.progress.warn(f"{'; '.join(changed)}: the result may differ in the last bits")
    before, count = earlier.get("processes", 1), job.processes.count
    if job.resume and before != count:
        job.progress.warn(f"{count} processes now, {before} before: batch norms see other parts of a batch")
    together = f", {count} processes" if count > 1 else ""
    job.progress.note(f"machine: {machine.reason}, {now['threads']} threads{together}")
    return machine
