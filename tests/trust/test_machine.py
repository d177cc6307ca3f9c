"""What a machine does to commands: two in one run, a full disk, folders that go, clocks set back, pipes that end."""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, NoReturn

import pytest
import torch
from faults import Faults
from torch import Tensor

from nettailor_cli.cli.output import Output
from nettailor_cli.core.data import Batch
from nettailor_cli.core.data.parallel import cores
from nettailor_cli.core.lock import locked
from nettailor_cli.core.progress import SILENT
from nettailor_cli.core.stages.tailor import TailorTrainee
from nettailor_cli.core.stages.teach import TeachTrainee
from nettailor_cli.core.training.loop import Training
from tests.cli.helpers import (
    BASE,
    ONE,
    Result,
    Workshop,
    command,
    contents,
    log_of,
    nettailor,
    ok,
    refuses,
    stop_after,
    untouched,
)
from tests.pair import commands_in_two

pytestmark = pytest.mark.slow

TWO = (*BASE, "--epochs", "2")


class TestTwoInOneRun:
    """The second is told whose the run is, changes nothing, and exits with 2."""

    WRITING: ClassVar = {
        "teach": ("teach", "--run", "RUN", "--force", *ONE),
        "teach again": ("teach", "--run", "RUN", "--resume"),
        "tailor": ("tailor", "--run", "RUN", "--force", *ONE),
        "prune": ("prune", "RUN/student.safetensors", "--force"),
        "prune to elsewhere": ("prune", "RUN/student.safetensors", "-o", "elsewhere.safetensors"),
        "finetune": ("finetune", "RUN/pruned.safetensors", "--force", *ONE),
        "finetune to elsewhere": ("finetune", "RUN/pruned.safetensors", "-o", "elsewhere.safetensors", *ONE),
        "fit": ("fit", "--run", "RUN", "--force", "--config", "none.toml"),
    }

    @pytest.fixture
    def owned(self, run: Path) -> Iterator[Path]:
        with locked(run, SILENT):
            yield run

    @pytest.mark.parametrize("name", WRITING)
    def test_the_second_that_writes_is_refused(self, owned: Path, name: str) -> None:
        args = [word.replace("RUN", str(owned)) for word in self.WRITING[name]]
        with untouched(owned):
            refuses(*args, says=[f"process {os.getpid()} on ", f"is writing into {owned}", f"kill {os.getpid()}"])
        assert not Path("elsewhere.safetensors").exists()

    def test_of_two_processes_together_the_first_says_it_for_both(self, owned: Path, tmp_path: Path) -> None:
        results = commands_in_two("teach", "--run", owned, "--force", *ONE, folder=tmp_path)
        said = "".join(result.err for result in results)
        assert [result.code for result in results] == [2, 2] and said.count("error: ") == 1, said
        assert "is writing into" in said

    def test_reading_goes_on(self, shop: Workshop, owned: Path, tmp_path: Path) -> None:
        model = owned / "model.safetensors"
        with untouched(owned):
            ok("inspect", model)
            ok("evaluate", model, "--data", shop.data)
            ok("predict", model, shop.data / "test")
            ok("export", model, "--format", "safetensors", "-o", tmp_path / "export.safetensors")

    def test_a_run_of_its_own_for_a_second_finetune(self, owned: Path, tmp_path: Path) -> None:
        """What the refusal proposes."""
        given = ("--run", tmp_path / "other", "--teacher", owned / "teacher.safetensors", *ONE)
        data = ("--data", log_data(owned))
        ok("finetune", owned / "pruned.safetensors", *given, *data)
        assert (tmp_path / "other" / "model.safetensors").exists()

    def test_nothing_of_it_stays(self, run: Path) -> None:
        ok("prune", run / "student.safetensors", "--force")
        refuses("teach", "--run", run.parent / "new", "--data", "nowhere")
        assert not (run / ".lock").exists() and not (run.parent / "new").exists()


def log_data(run: Path) -> str:
    found = re.search(r'^data = "(.*)"$', (run / "run.toml").read_text(), re.MULTILINE)
    assert found
    return found[1]


# the disk


def failing(number: int) -> Callable[[str, str], None]:
    """What needs room, or rights, fails."""

    def strike(what: str, path: str) -> None:
        if what not in ("unlink", "remove", "rmdir", "chmod"):
            raise OSError(number, os.strerror(number), path)

    return strike


def count(run: Path, *args: object) -> int:
    """How many times the command changes files of `run`."""
    faults = Faults([run], failing(errno.ENOSPC))
    with faults.watching():
        ok(*args)
    return len(faults.seen)


class TestADiskThatFails:
    """From every moment on, or some; `examples/trust/full_disk.py` has all of every command."""

    @pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 1), (errno.EROFS, 2)], ids=["full", "read-only"])
    def test_at_every_moment_of_prune(self, run: Path, number: int, code: int) -> None:
        args = ("prune", run / "student.safetensors", "--force")
        operations = count(run, *args)
        before, went = contents(run), {0: 0, code: 0}
        for at in range(1, operations + 1):
            with Faults([run], failing(number), at, lasting=True).watching():
                result = nettailor(*args)
            went[result.code] += 1
            if result.code:
                assert result.err.count("error: ") == 1 and os.strerror(number) in result.err, result.err
                assert str(run) in result.err and "Traceback" not in result.err and "a bug" not in result.err
            assert contents(run) == before  # prune gives the same bytes again
        assert went[code] > 10 and went[0] > 0  # at the end there is nothing left to write

    def test_at_some_moments_of_tailor_and_resume_goes_on(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nettailor_cli.core.training.loop.CHECKPOINT_SECONDS", 0.0)
        args = ("tailor", "--run", run, *ONE)
        operations = count(run, *args, "--force")
        whole = contents(run)
        for at in (operations // 4, operations // 2):
            (run / "student.safetensors").unlink()
            with Faults([run], failing(errno.ENOSPC), at, lasting=True).watching():
                refuses(*args, code=1, says=[str(run), "No space left on device", "--resume"])
            assert not (run / "student.safetensors").exists() and not [*run.rglob(".*")]
            ok(*args, "--resume")
            assert {**contents(run), "log.jsonl": 0} == {**whole, "log.jsonl": 0}  # times are in it


def test_force_that_was_cut_short_is_gone_on_with_and_not_taken_for_finished(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = (run / "teacher.safetensors").read_bytes()

    def die(self: Training) -> NoReturn:
        raise KeyboardInterrupt  # before the clock's first checkpoint

    with monkeypatch.context() as patch:
        patch.setattr(Training, "go", die)
        assert nettailor("teach", "--run", run, *TWO, "--force").code == 130
    assert (run / "teacher.safetensors").read_bytes() == older
    assert "goes on at epoch 1, batch 1" in ok("teach", "--run", run, "--resume").err
    assert (run / "teacher.safetensors").read_bytes() != older


@pytest.mark.parametrize("moment", [1, 3])
def test_a_run_directory_that_is_removed_meanwhile(run: Path, monkeypatch: pytest.MonkeyPatch, moment: int) -> None:
    """... is not made again piece by piece."""
    step, steps = Training._step, 0

    def removing(self: Training, batch: Batch) -> dict[str, float]:
        nonlocal steps
        steps += 1
        if steps == moment:
            shutil.rmtree(run)
        return step(self, batch)

    monkeypatch.setattr(Training, "_step", removing)
    refuses("teach", "--run", run, *TWO, "--force", code=1, says=[f"{run} was removed", "start again"])
    assert not run.exists()


# time, cores, places


def test_a_clock_that_is_set_back_changes_nothing(
    shop: Workshop, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour before every look at it; the cache is of the year 2100, what is written now of 1970."""
    args = ("tailor", "--run", run, *TWO, "--patience", "1", "--force")
    ok(*args)
    whole = (run / "student.safetensors").read_bytes()
    now = time.time()

    def backwards() -> float:
        nonlocal now
        now -= 3600
        return now

    monkeypatch.setattr(time, "time", backwards)
    home = tmp_path / "home"
    shutil.copytree(shop.home, home)
    monkeypatch.setenv("NETTAILOR_HOME", str(home))
    for path in (home / "cache").iterdir():
        os.utime(path, (4102444800, 4102444800))
    stop_after(monkeypatch, 3)
    refuses(*args, code=130)
    for path in run.rglob("*"):
        os.utime(path, (0, 0))
    stop_after(monkeypatch, None)
    assert "from the cache" in ok("tailor", "--run", run, "--resume").err
    assert (run / "student.safetensors").read_bytes() == whole
    assert all(line["images_per_second"] > 0 for line in log_of(run))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no way to leave a process one core")
def test_on_one_core_there_is_one_worker() -> None:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_no_home_is_said_with_what_to_set(run: Path, shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(number: int) -> NoReturn:
        raise KeyError(number)

    monkeypatch.delenv("NETTAILOR_HOME")
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", nobody)
    says = ["there is no home directory", "set NETTAILOR_HOME"]
    refuses("evaluate", run / "model.safetensors", "--data", shop.data, says=says)
    refuses("teach", *shop.start(run.parent / "new"), *ONE, says=says)
    ok("inspect", run / "model.safetensors")  # needs none


# memory


class TestOutOfMemory:
    ERRORS = (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1.00 GiB free.\nmore"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 5 GB)"),
        MemoryError(),
    )

    def at_step(self, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> None:
        losses, steps = TailorTrainee.losses, 0

        def breaking(trainee: TailorTrainee, batch: Batch, done: float) -> dict[str, Tensor]:
            nonlocal steps
            steps += 1
            if steps == number:
                raise error
            return losses(trainee, batch, done)

        monkeypatch.setattr(TailorTrainee, "losses", breaking)

    @pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
    def test_half_the_batch_is_proposed(self, run: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        self.at_step(monkeypatch, 1, error)
        says = ["tailor: out of memory in epoch 1, with --batch-size 8", "--force and --batch-size 4 or --accumulate 2"]
        result = refuses("tailor", "--run", run, *TWO, "--force", code=1, says=says)
        assert len(result.err.split("error: ")[1].splitlines()) == 2  # message and hint

    def test_the_last_checkpoint_stays(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("nettailor_cli.core.training.loop.CHECKPOINT_SECONDS", 0.0)
        args = ("tailor", "--run", run, *TWO)
        ok(*args, "--force")
        whole = (run / "student.safetensors").read_bytes()
        (run / "student.safetensors").unlink()
        with monkeypatch.context() as patch:
            self.at_step(patch, 4, self.ERRORS[0])
            refuses(*args, code=1, says=["in epoch 2", "the last checkpoint stays, --resume goes on"])
        assert "goes on at epoch 2, batch 2" in ok(*args, "--resume").err
        assert (run / "student.safetensors").read_bytes() == whole

    def test_what_can_not_be_halved_is_not_proposed(self, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def breaking(trainee: TeachTrainee, batch: Batch, done: float) -> NoReturn:
            raise self.ERRORS[0]

        monkeypatch.setattr(TeachTrainee, "losses", breaking)
        small = ("--batch-size", "7", "--accumulate", "4", "--freeze")  # no batch norm is trained on single pictures
        hint = refuses("teach", "--run", run, *TWO, *small, "--force", code=1).err.split("hint: ")[1]
        assert "--force and a smaller --size" in hint and "--batch-size" not in hint and "--accumulate" not in hint


# who listens


def piped(args: tuple[object, ...], reader: str, *, errors: bool = False, **environment: str) -> Result:
    """The command's output into `reader`, a shell command; with `errors` its stderr as well."""
    both = "2>&1" if errors else ""
    typed = " ".join(f"'{word}'" for word in command(*args))
    script = f"set -o pipefail; {typed} {both} | {reader}; echo ${{PIPESTATUS[0]}} >&3"
    status_out, status_in = os.pipe()
    env = {**os.environ, **environment, "PYTHONPATH": os.pathsep.join(sys.path)}
    shell = f"exec 3>&{status_in}; {script}"
    done = subprocess.run(
        ["bash", "-c", shell], capture_output=True, check=False, pass_fds=[status_in], env=env, timeout=100
    )
    os.close(status_in)
    with os.fdopen(status_out) as stream:
        out, err = (text.decode(errors="replace") for text in (done.stdout, done.stderr))
        return Result(int(stream.read()), out, err)


class TestWhoListens:
    def test_a_reader_that_has_seen_enough(self, run: Path) -> None:
        result = piped(("inspect", run / "model.safetensors"), "head -n 1")
        assert result.code == 0 and result.out.startswith("node") and result.err == ""
        assert piped(("inspect", run / "model.safetensors"), "true") == Result(0, "", "")

    def test_predictions_that_nobody_wants_any_more(self, shop: Workshop, run: Path) -> None:
        args = ("predict", run / "model.safetensors", shop.data / "test", "--format", "csv", "--batch-size", 1)
        result = piped(args, "head -n 1")
        assert result.code == 0 and result.out.startswith("image,class_1")
        assert "Traceback" not in result.err and "ignored" not in result.err and "error" not in result.err

    def test_an_error_that_nobody_hears_keeps_its_exit_code(self) -> None:
        assert piped(("inspect", "nothing"), "true", errors=True).code == 2

    @pytest.mark.parametrize("where", ["a pipe without a reader", "/dev/full"])
    def test_progress_that_nobody_can_read_stops_nothing(self, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
        read, write = os.pipe()
        os.close(read)
        handle = write if "pipe" in where else os.open(where, os.O_WRONLY)
        broken = os.fdopen(handle, "w", buffering=1)
        monkeypatch.setattr(sys, "stderr", broken)
        output = Output()
        for say in (output.note, output.warn, output.line, output.finish, output.error):
            say("what nobody reads")
        with contextlib.suppress(OSError):
            broken.close()

    @pytest.mark.parametrize("args", [("--help",), ("--version",), ("inspect", "MODEL")], ids=lambda args: args[0])
    def test_a_full_disk_as_standard_output(self, run: Path, args: tuple[str, ...]) -> None:
        args = tuple(word.replace("MODEL", str(run / "model.safetensors")) for word in args)
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                command(*args), stdout=full, stderr=subprocess.PIPE, text=True, check=False,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            )  # fmt: skip
        assert done.returncode == 1 and "No space left" in done.stderr and "Traceback" not in done.stderr, done.stderr

    @pytest.mark.parametrize(
        "environment",
        [
            {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
            {"PYTHONIOENCODING": "ascii"},
            {"PYTHONIOENCODING": "iso-8859-1", "LANG": "de_DE.ISO-8859-1"},
        ],
        ids=["C", "ascii", "latin-1"],
    )
    def test_an_encoding_without_our_characters(self, run: Path, environment: dict[str, str]) -> None:
        model = run / "grün ✓.safetensors"
        (run / "model.safetensors").rename(model)
        for args in (("--help",), ("inspect", model)):
            result = piped(args, "cat", **environment)
            assert result.code == 0 and result.err == "" and len(result.out) > 200
        result = piped(("inspect", run / "grün ✗"), "cat", errors=True, **environment)
        assert result.code == 2 and "error: there is no file" in result.out and "Traceback" not in result.out
