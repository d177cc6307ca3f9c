"""Killed again and again, at moments drawn by lot, then resumed: is anything lost, and are the bytes the same?

    python examples/trust/kills.py                                    # 25 runs of each command
    python examples/trust/kills.py --runs 3 --commands teach fit

40 pictures at 32 px and a ResNet-18 of an eighth of the width, with random weights, are made in a temporary folder.
Every command is done once undisturbed. Then RUNS times from the same start, where it is killed several times with
SIGKILL and started again with --resume (`prune`, which has nothing to resume, with --force), until it is done. Moments:

moment     after some time, drawn evenly
temporary  when another file appears that is about to become a file of the run, seen from outside
call       at one of the system calls by which the command changes files, drawn evenly from all; a write half done

Looked at while it runs and after each kill: every file under a final name is whole (digests, syntax; of log.jsonl all
lines but the last). After each kill: the steps done since the last checkpoint, which is written after every step here
(at every fifth run after 60 s, as the tool does it), and that the next attempt begins with the step behind it. In the
end: the same files as of the undisturbed one, with the same bytes, and the same epochs, each once, in log.jsonl.

The commands run through the program's own entry point, in forks of this process, which has loaded torch. CPU, Linux.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import time
import tomllib
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from faults import Faults
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

import nettailor_cli.core.stages.start_fit
from nettailor_cli.__main__ import main as nettailor
from nettailor_cli.core.backbones.torchvision_shim import import_torchvision
from nettailor_cli.core.data.cache_file import read_cache_file
from nettailor_cli.core.sealed import read_content
from nettailor_cli.core.training import loop
from nettailor_cli.core.training.loop import Training

SIZE = 32
WIDTH = 8
CLASSES = ("blue", "green", "grey", "red")
PICTURES = 10  # of each class
COMMANDS = ("teach", "tailor", "prune", "finetune", "fit")
OPTIONS = ("--device", "cpu", "--precision", "fp32", "--workers", "1")
CONFIG = """
batch_size = 8
lr = 0.01
epochs = 3
[finetune]
epochs = 4
"""
OWN_INTERVAL = 5
"""Every so manieth run keeps the tool's interval between checkpoints; the others have one after every step."""

MODES = ("moment", "temporary", "call")
LIMIT = 600.0
"""Seconds after which an attempt is taken to hang."""


models = import_torchvision().models


class Narrow(models.ResNet):  # type: ignore[name-defined,misc]
    """torchvision's ResNet-18 with residual blocks of WIDTH, 2 WIDTH, ... channels."""

    def __init__(self) -> None:
        super().__init__(models.resnet.BasicBlock, [2, 2, 2, 2])
        self.fc = nn.Linear(8 * WIDTH, 1000)

    def _make_layer(self, block: Any, planes: int, blocks: int, stride: int = 1, dilate: bool = False) -> nn.Sequential:
        return super()._make_layer(block, planes * WIDTH // 64, blocks, stride, dilate)


# what a command starts from


@dataclass
class Place:
    """Everything in one folder: pictures, weights, the starts of the commands and what undisturbed ones give."""

    root: Path

    def __post_init__(self) -> None:
        self.data, self.weights, self.config = (
            self.root / "shapes",
            self.root / "narrow.safetensors",
            self.root / "c.toml",
        )

    def make(self) -> None:
        draws = np.random.default_rng(0)
        for label, name in enumerate(CLASSES):
            (self.data / name).mkdir(parents=True)
            for index in range(PICTURES):
                pixels = draws.integers(0, 120, (SIZE, SIZE, 3)) + np.array([60 * (label == c) for c in (2, 1, 3)])
                Image.fromarray(pixels.astype(np.uint8)).save(self.data / name / f"{index:02}.png")
        torch.manual_seed(0)
        network = Narrow()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 1.0
        with torch.no_grad():
            network.train()(torch.randn(32, 3, SIZE, SIZE))  # statistics that fit the weights
        save_file({k: v for k, v in network.state_dict().items() if v.is_floating_point()}, self.weights)
        self.config.write_text(CONFIG)

    def start(self, command: str) -> Path:
        """The folder with run/ and home/ that `command` starts from."""
        return self.root / "starts" / command

    def whole(self, command: str) -> Path:
        """The same after `command`, undisturbed."""
        return self.root / "whole" / command

    def typed(self, command: str, place: Path, *, again: bool) -> list[str]:
        """What is typed in `place`, the first time or after a kill."""
        run = place / "run"
        begin = ["--backbone", "resnet18", "--weights", self.weights, "--data", self.data, "--size", SIZE, "--run", run]
        train = [*OPTIONS, "--config", self.config, *(["--resume"] if again else [])]
        words: dict[str, list[object]] = {
            "teach": ["teach", *begin, *train],
            "tailor": ["tailor", "--run", run, *train],
            "prune": ["prune", run / "student.safetensors", "--remove", 3, *(["--force"] if again else [])],
            "finetune": ["finetune", run / "pruned.safetensors", *train],
            "fit": ["fit", *begin, *train, "--tolerance", 20, "--folds", 1],
        }
        return [str(word) for word in words[command]]


# one attempt


@dataclass
class Attempt:
    """A command in a fork of this process. `watch` is called over and over until it ends, or asks for its end.

    at: the operation on files at which it is killed; or, with `error`, from which on every one that needs room on the
    disk fails with that number.
    """

    args: Sequence[str]
    place: Path
    trace: Path
    interval: float | None = None
    at: int = 0
    error: int = 0
    code: int | None = None
    killed: bool = False
    looks: int = 0
    operations: int = 0
    said: str = ""

    def go(self, watch: Callable[[float], bool]) -> None:
        shared = mmap.mmap(-1, 8)
        output = self.place / "said.txt"
        output.touch()
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            self._be_the_command(shared, output)
        ended = 0
        while ended == 0:
            if watch(time.monotonic() - started):
                os.kill(child, signal.SIGKILL)
                ended, status = os.waitpid(child, 0)
            else:
                ended, status = os.waitpid(child, os.WNOHANG)
            assert time.monotonic() - started < LIMIT, f"{self.args} hangs"
        self.killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        self.code = os.waitstatus_to_exitcode(status)
        self.operations = struct.unpack("<q", shared[:8])[0]
        self.said = output.read_text()
        output.unlink()

    def _be_the_command(self, shared: mmap.mmap, output: Path) -> None:
        code: Any = 70
        try:
            said = os.open(output, os.O_WRONLY)
            os.dup2(said, 1)
            os.dup2(said, 2)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.environ["NETTAILOR_HOME"] = str(self.place / "home")
            if self.interval is not None:
                loop.CHECKPOINT_SECONDS = self.interval
            self._trace_steps()
            folders = [self.place / "run", self.place / "home"]
            faults = Faults(folders, self._strike, self.at, lasting=self.error != 0)
            sys.argv = ["nettailor", *self.args]
            with faults.watching():
                try:
                    nettailor()
                except SystemExit as exit_:
                    code = exit_.code or 0
            shared[:8] = struct.pack("<q", len(faults.seen))
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:  # noqa: BLE001
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def _strike(self, what: str, path: str) -> None:
        if not self.error:
            os.kill(os.getpid(), signal.SIGKILL)
        if what not in ("unlink", "remove", "rmdir", "chmod"):
            raise OSError(self.error, os.strerror(self.error), path)

    def _trace_steps(self) -> None:
        """A line to the trace after every step: whose checkpoint, and how many steps it has behind it."""
        step, handle = Training._step, os.open(self.trace, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        def traced(self: Training, batch: Any) -> dict[str, float]:
            figures = step(self, batch)
            done = self.position.epoch * self.batches + self.position.batch + 1
            os.write(handle, f"{self.run.checkpoint}\t{done}\t{self.batches}\n".encode())
            return figures

        Training._step = traced  # type: ignore[method-assign]


# what must hold


class Broken(Exception):
    """Something that must hold does not."""


def check_file(path: Path) -> None:
    """Raises Broken when what has a final name is not whole."""
    try:
        match path.suffix:
            case ".safetensors" if path.parent.name == "backbones":
                backbone_content(path)
            case ".safetensors":
                read_content(path)
            case ".pixels":
                cached = read_cache_file(path, int(path.name.split("px")[0]))
                if cached is None or not all(cached.is_whole(row) for row in range(len(cached.pixels))):
                    raise Broken(f"{path} is damaged")
            case ".toml":
                tomllib.loads(path.read_text())
            case ".json":
                json.loads(path.read_text())
            case ".jsonl":
                lines = path.read_text().split("\n")
                for line in lines[:-1]:
                    json.loads(line)
            case ".svg":
                ElementTree.parse(path)
            case ".png":
                with Image.open(path) as image:
                    image.load()
            case _:
                raise Broken(f"what is {path}?")
    except Broken:
        raise
    except Exception as error:
        raise Broken(f"{path} can't be read: {error!r}") from error


def backbone_content(path: Path) -> tuple[dict[str, str], dict[str, bytes]]:
    """Metadata, which safetensors writes in no fixed order, and the tensors' bytes."""
    with safe_open(path, "pt") as file:
        return file.metadata(), {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118


def final_files(place: Path) -> Iterator[Path]:
    for folder in ("run", "home"):
        for path in (place / folder).rglob("*"):
            if not path.name.startswith(".") and path.is_file():
                yield path


def temporaries(place: Path) -> set[str]:
    """Files that are to become others."""
    found: set[str] = set()
    folders = [str(place / "run"), str(place / "home")]
    while folders:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name.endswith(".tmp"):
                    found.add(entry.path)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
    return found


class Looks:
    """Every file under a final name is read again when it is another than before."""

    def __init__(self, place: Path) -> None:
        self.place, self.known, self.count = place, {}, 0  # type: ignore[var-annotated]

    def __call__(self) -> None:
        for path in final_files(self.place):
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                state = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self.known.get(path) != state:
                    self._check(path)
                    self.known[path] = state
                    self.count += 1

    def _check(self, path: Path) -> None:
        """By a link of our own: what is read in several goes must not be replaced in between."""
        link = self.place.parent / "looked-at" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        os.link(path, link)
        check_file(link)


def log_of(run: Path) -> list[tuple[Any, ...]]:
    """All that log.jsonl says but the times."""
    records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    timed = ("seconds", "images_per_second")
    return [tuple(sorted((k, json.dumps(v)) for k, v in record.items() if k not in timed)) for record in records]


def compare(place: Path, whole: Path) -> None:
    """Raises Broken unless everything in `place` is as in `whole`."""
    trees = [{str(f.relative_to(p)): f for f in p.rglob("*") if f.is_file()} for p in (place, whole)]
    if trees[0].keys() != trees[1].keys():
        raise Broken(f"other files than of an undisturbed run: {sorted(trees[0].keys() ^ trees[1].keys())}")
    for name, file in trees[0].items():
        if name == "run/log.jsonl":
            if log_of(place / "run") != log_of(whole / "run"):
                raise Broken(f"{file} has other epochs than that of an undisturbed run")
        elif name.startswith("home/backbones/"):
            if backbone_content(file) != backbone_content(trees[1][name]):
                raise Broken(f"{file} has another content than that of an undisturbed run")
        elif file.read_bytes() != trees[1][name].read_bytes():
            raise Broken(f"{file} has other bytes than that of an undisturbed run")


# the trial


@dataclass
class Figures:
    """Of one command."""

    runs: int = 0
    kills: Counter[str] = field(default_factory=Counter)
    kills_per_run: list[int] = field(default_factory=list)
    while_writing: int = 0
    half_written: int = 0
    resumed_from_checkpoint: int = 0
    steps_lost: Counter[int] = field(default_factory=Counter)
    steps_lost_of_own_interval: list[int] = field(default_factory=list)
    looks: int = 0


@dataclass
class Undisturbed:
    """How long it takes, how many times it changes files, how many of them are written beside and renamed."""

    seconds: float
    operations: int
    files: int


@dataclass
class Ledger:
    """What each training of a run has behind it, by its checkpoint: steps that it holds, and steps of an epoch."""

    kept: dict[Path, int] = field(default_factory=dict)
    epoch: dict[Path, int] = field(default_factory=dict)

    def check_order(self, trace: Path) -> list[Path]:
        """Raises Broken unless every training went on with the step behind its checkpoint. Those at work, in order."""
        done: dict[Path, list[int]] = {}
        for line in trace.read_text().splitlines() if trace.exists() else ():
            name, step, batches = line.split("\t")
            done.setdefault(Path(name), []).append(int(step))
            self.epoch[Path(name)] = int(batches)
        for checkpoint, steps in done.items():
            first = self.kept.get(checkpoint, 0) + 1
            if steps != list(range(first, first + len(steps))):
                raise Broken(f"{checkpoint.name} had {first - 1} steps, done were then {steps}")
        self.last = {checkpoint: steps[-1] for checkpoint, steps in done.items()}
        return list(done)

    def after_a_kill(self, trace: Path, interval: float | None, figures: Figures) -> None:
        """Raises Broken when more was lost than has to be."""
        at_work = self.check_order(trace)
        self.kept = {}
        for checkpoint in self.epoch:
            if checkpoint.exists():
                position = read_content(checkpoint)["position"]
                self.kept[checkpoint] = position["epoch"] * self.epoch[checkpoint] + position["batch"]
        figures.resumed_from_checkpoint += bool(self.kept)
        if at_work and not _output_of(at_work[-1]).exists():
            lost = self.last[at_work[-1]] - self.kept.get(at_work[-1], 0)
            if interval is None:
                figures.steps_lost_of_own_interval.append(lost)
                return
            figures.steps_lost[lost] += 1
            if not 0 <= lost <= 1:
                raise Broken(f"{at_work[-1].name}: {lost} steps lost, and there is a checkpoint after each")


def _output_of(checkpoint: Path) -> Path:
    """What the training writes whose checkpoint this is: STAGE-NAME.safetensors."""
    run, name = checkpoint.parent.parent, checkpoint.name.partition("-")[2]
    part = name.rpartition("-")[0] + ".safetensors"  # of a candidate, with a digest behind its name
    return run / name if name.count("-") == 0 else run / "search" / part


def trial(command: str, number: int, place: Place, plain: Undisturbed, draws: random.Random, figures: Figures) -> bool:
    """One run with its kills. False when it was over before the second. Raises Broken."""
    folder, trace = place.root / "trial", place.root / "trace"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(place.start(command), folder)
    interval = None if number % OWN_INTERVAL == OWN_INTERVAL - 1 else 0.0
    wanted, kills, ledger = draws.randint(2, 5), 0, Ledger()
    looks, left = Looks(folder), set()  # type: ignore[var-annotated]
    while True:
        trace.unlink(missing_ok=True)
        mode = draws.choice(MODES) if kills < wanted else "none"
        share = draws.uniform(0, 0.6)
        at = draws.randint(1, max(1, round(0.6 * plain.operations))) if mode == "call" else 0
        nth = draws.randint(1, max(1, round(0.6 * plain.files)))
        seen: set[str] = set()

        def watch(
            seconds: float, mode: str = mode, seen: set[str] = seen, share: float = share, nth: int = nth
        ) -> bool:
            if mode == "temporary":
                seen |= temporaries(folder)  # looked for without a pause: such a file does not live long
                return len(seen) >= nth
            looks()
            return mode == "moment" and seconds > share * plain.seconds

        attempt = Attempt(place.typed(command, folder, again=kills > 0), folder, trace, interval, at)
        attempt.go(watch)
        looks()
        if not attempt.killed:
            break
        kills += 1
        figures.kills[mode] += 1
        new, left = temporaries(folder) - left, temporaries(folder)
        figures.while_writing += bool(new)
        figures.half_written += any(not _whole(Path(path)) for path in new)
        ledger.after_a_kill(trace, interval, figures)
    figures.looks += looks.count
    if attempt.code != 0:
        raise Broken(f"{' '.join(attempt.args)}: exit {attempt.code} after {kills} kills\n{attempt.said}")
    ledger.check_order(trace)
    compare(folder, place.whole(command))
    if kills < 2:
        return False
    figures.runs += 1
    figures.kills_per_run.append(kills)
    return True


def _whole(temporary: Path) -> bool:
    """Whether it has all that it is to have."""
    name = temporary.name[1:-13]  # .NAME.12345678.tmp
    copy = temporary.parent / name if temporary.stat().st_size else None
    if copy is None:
        return False
    with tempfile.TemporaryDirectory() as other:
        copy = Path(other) / temporary.parent.name / name
        copy.parent.mkdir()
        shutil.copyfile(temporary, copy)
        try:
            check_file(copy)
        except Broken:
            return False
    return True


def undisturbed(command: str, place: Place) -> Undisturbed:
    """Do `command` once, from its start to `place.whole`."""
    folder = place.whole(command)
    shutil.copytree(place.start(command), folder)
    attempt = Attempt(place.typed(command, folder, again=False), folder, place.root / "trace", 0.0)
    started, seen = time.monotonic(), set()  # type: ignore[var-annotated]

    def watch(_: float) -> bool:
        seen.update(temporaries(folder))
        return False

    attempt.go(watch)
    assert attempt.code == 0, attempt.said
    return Undisturbed(time.monotonic() - started, attempt.operations, len(seen))


def prepare(place: Place, commands: Sequence[str]) -> dict[str, Undisturbed]:
    """`commands`, and what has to go before, once and undisturbed: each one's result is the next one's start."""
    place.make()
    done = {}
    for folder in (place.start("teach"), place.start("fit")):
        folder.mkdir(parents=True)
    for number, (command, following) in enumerate(zip(COMMANDS, (*COMMANDS[1:4], None, None), strict=True)):
        if command not in commands and (following is None or not {*COMMANDS[number:4]} & {*commands}):
            continue
        done[command] = undisturbed(command, place)
        if following is not None:
            shutil.copytree(place.whole(command), place.start(following))
    return done


def main(args: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=25, metavar="N", help="of each command (default: 25)")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--seed", type=int, default=0, help="of the lot")
    given = parser.parse_args(args)
    get_ready()
    with tempfile.TemporaryDirectory(prefix="kills-") as temporary:
        place = Place(Path(temporary))
        plain = prepare(place, given.commands)
        for command in given.commands:
            figures, draws = Figures(), random.Random(f"{command} {given.seed}")
            number = short = 0
            while figures.runs < given.runs:
                try:
                    short += not trial(command, number, place, plain[command], draws, figures)
                except Broken as error:
                    sys.exit(f"{command}, run {number}, seed {given.seed}: {error}")
                number += 1
                print(f"{command}: {figures.runs} of {given.runs} runs", file=sys.stderr, flush=True)
            print(json.dumps(summary(command, plain[command], figures, short)), flush=True)


def get_ready() -> None:
    """What this process has to be before it forks."""
    assert nettailor_cli.core.stages.start_fit, "loaded once, for all forks"
    torch.set_num_threads(1)
    models.resnet18 = lambda weights=None: Narrow()


def summary(command: str, plain: Undisturbed, figures: Figures, short: int) -> dict[str, Any]:
    return {
        "command": command,
        "undisturbed": {"seconds": round(plain.seconds, 2), "file_operations": plain.operations},
        "runs": figures.runs,
        "over_before_the_second_kill": short,
        "kills": sum(figures.kills.values()),
        "kills_per_run": [min(figures.kills_per_run), max(figures.kills_per_run)],
        "by": dict(sorted(figures.kills.items())),
        "while_a_file_was_written": figures.while_writing,
        "of_these_half_written": figures.half_written,
        "with_a_checkpoint_to_go_on_with": figures.resumed_from_checkpoint,
        "steps_lost": {str(lost): count for lost, count in sorted(figures.steps_lost.items())},
        "steps_lost_with_the_interval_of_60_s": figures.steps_lost_of_own_interval,
        "files_looked_at": figures.looks,
        "same_bytes": figures.runs + short,
    }


if __name__ == "__main__":
    main()
