"""Training commands in several processes: one set of files, the same weights everywhere, and they end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nettailor_cli.core.data import Batch
from nettailor_cli.core.errors import RunFailed
from nettailor_cli.core.stages.teach import TeachTrainee
from nettailor_cli.core.training.loop import Training
from tests.cli.helpers import BASE, ONE, Result, Workshop, contents, log_of, ok, refuses
from tests.pair import commands_in_two

pytestmark = pytest.mark.slow

# the classifier alone, the backbone in evaluation mode: the same in any number of processes, to rounding
HEAD = ("--freeze", *BASE, "--epochs", "2")


def both(result: tuple[Result, Result]) -> Result:
    """What the first one said; the second one says nothing, and both go well."""
    first, second = result
    assert (first.code, second.code) == (0, 0), first.err + second.err
    assert (second.out, second.err) == ("", "")
    return first


def one_message(result: tuple[Result, Result], code: int) -> str:
    """The errors of both, one in all."""
    errors = result[0].err + result[1].err
    assert (result[0].code, result[1].code) == (code, code), errors
    assert errors.count("error: ") == 1 and "Traceback" not in errors, errors
    return errors


def before_step(number: int, do: Callable[[], None]) -> None:
    """In a process of its own: `do` this before its step `number` of a teach."""
    losses, steps = TeachTrainee.losses, 0

    def spy(self: TeachTrainee, batch: Batch, done: float) -> Any:
        nonlocal steps
        steps += 1
        if steps == number:
            do()
        return losses(self, batch, done)

    TeachTrainee.losses = spy  # type: ignore[method-assign]


def assert_close(run: Path, other: Path) -> None:
    """The same classifier, to rounding, and the same figures on the way."""
    a, b = (load_file(folder / "teacher.safetensors") for folder in (run, other))
    torch.testing.assert_close(a["fc.weight"], b["fc.weight"], rtol=1e-4, atol=1e-5)
    for first, second in zip(log_of(run), log_of(other), strict=True):
        for name in ("loss", "accuracy", "val_accuracy", "val_loss"):
            assert first[name] == pytest.approx(second[name], rel=1e-4)


@pytest.fixture(scope="module")
def plain(shop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """HEAD in one process."""
    run = tmp_path_factory.mktemp("plain") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETTAILOR_HOME", str(shop.home))
        ok("teach", *shop.start(run), *HEAD)
    return run


def test_torchrun_writes_one_set_of_files(shop: Workshop, tmp_path: Path) -> None:
    """The real launcher, once; with a backbone to import and pictures to decode."""
    run, home = tmp_path / "run", tmp_path / "home"
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    # without "--" torchrun takes our --run for one of its own options, wherever it stands
    args = ("-m", "--", "nettailor_cli", "teach", *shop.start(run), "--weights", shop.weights, *ONE)
    done = subprocess.run(
        [*launcher, *map(str, args)], capture_output=True, text=True, timeout=200, check=False,
        env={**os.environ, "NETTAILOR_HOME": str(home)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert {*contents(run)} == {"teacher.safetensors", "run.toml", "log.jsonl"}
    assert done.stdout.count("wrote ") == 1 and done.stderr.count("2 processes") == 1, done.stderr
    assert len(list((home / "cache").iterdir())) == 1
    [line] = log_of(run)
    assert 0 < line["loss"] < 100 and 0 <= line["val_accuracy"] <= 100
    assert tomllib.loads((run / "run.toml").read_text())["machine"]["processes"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in load_file(run / "teacher.safetensors").values())


def test_two_processes_learn_what_one_does(shop: Workshop, tmp_path: Path, plain: Path) -> None:
    both(commands_in_two("teach", *shop.start(tmp_path / "run"), *HEAD, folder=tmp_path))
    assert_close(tmp_path / "run", plain)


def test_all_end_with_the_same_weights_and_the_same_bytes_twice(shop: Workshop, tmp_path: Path) -> None:
    """Batch norms with local statistics, early stopping, and a teacher that is taught first."""
    files = []
    for number in range(2):
        run, states = tmp_path / f"run{number}", tmp_path / f"states{number}"
        states.mkdir()

        def keep_states(rank: int, states: Path = states) -> None:
            go = Training.go

            def spy(self: Training) -> None:
                go(self)
                torch.save(self.trainee.state(), states / f"{self.what}-{rank}.pt")

            Training.go = spy  # type: ignore[method-assign]

        config = tmp_path / "short.toml"
        config.write_text("epochs = 2\nbatch_size = 8\nlr = 0.01\npatience = 1\n[tailor]\nbn_stats = 'adapt'\n")
        args = ("tailor", *shop.start(run), "--config", config, "--device", "cpu", "--precision", "fp32")
        said = both(commands_in_two(*args, folder=tmp_path, before=keep_states))
        assert "tailor: keeps epoch" in said.err and said.out.count("wrote ") == 1
        for stage, file in (("teach", "teacher"), ("tailor", "student")):
            written = load_file(run / f"{file}.safetensors")
            for rank in range(2):
                state = torch.load(states / f"{stage}-{rank}.pt")
                assert state.keys() == written.keys() and any("running" in name for name in state)
                assert all(torch.equal(state[name], tensor) for name, tensor in written.items())
        files.append([(run / name).read_bytes() for name in ("teacher.safetensors", "student.safetensors")])
        assert {line["stage"] for line in log_of(run)} == {"teach", "tailor"}
    assert files[0] == files[1]


def test_a_signal_to_one_stops_all_and_the_state_is_saved(shop: Workshop, tmp_path: Path, plain: Path) -> None:
    """... once, and gone on with by two processes (the same bytes), and by one (the same to rounding)."""
    whole, run, single = tmp_path / "whole", tmp_path / "run", tmp_path / "single"
    both(commands_in_two("teach", *shop.start(whole), *HEAD, folder=tmp_path))
    for place, number in ((run, signal.SIGTERM), (single, signal.SIGINT)):

        def stop_one(rank: int, number: int = number) -> None:
            if rank == 1:
                before_step(3, lambda: os.kill(os.getpid(), number))

        stopped = commands_in_two("teach", *shop.start(place), *HEAD, folder=tmp_path, before=stop_one)
        errors = one_message(stopped, 128 + number)
        assert "teach: stopped in epoch 2, state saved" in errors and "--resume" in errors
        assert not (place / "teacher.safetensors").exists()
    assert (
        "goes on at epoch 2, batch 2" in both(commands_in_two("teach", "--run", run, "--resume", folder=tmp_path)).err
    )
    assert (run / "teacher.safetensors").read_bytes() == (whole / "teacher.safetensors").read_bytes()
    ok("teach", "--run", single, "--resume")
    assert_close(single, plain)
    assert not any((run / "checkpoints").iterdir()) and not any((single / "checkpoints").iterdir())


def test_one_that_fails_ends_all_with_one_message(shop: Workshop, tmp_path: Path) -> None:
    def fail() -> None:
        raise RunFailed("this machine is on fire")

    def fail_in_one(rank: int) -> None:
        if rank == 1:
            before_step(2, fail)

    result = commands_in_two("teach", *shop.start(tmp_path / "run"), *HEAD, folder=tmp_path, before=fail_in_one)
    assert "this machine is on fire" in one_message(result, 1)
    assert not (tmp_path / "run" / "teacher.safetensors").exists()


def test_a_loss_that_is_not_finite_in_one_stops_all(shop: Workshop, tmp_path: Path) -> None:
    def broken_in_one(rank: int) -> None:
        if rank == 1:
            losses, steps = TeachTrainee.losses, 0

            def breaking(self: TeachTrainee, batch: Batch, done: float) -> Any:
                nonlocal steps
                steps += 1
                figures = losses(self, batch, done)
                return {**figures, "loss": figures["loss"] * (float("nan") if steps == 3 else 1)}

            TeachTrainee.losses = breaking  # type: ignore[method-assign]

    result = commands_in_two("teach", *shop.start(tmp_path / "run"), *HEAD, folder=tmp_path, before=broken_in_one)
    assert "teach: the loss is nan at epoch 2, step 3" in one_message(result, 1)
    assert not (tmp_path / "run" / "teacher.safetensors").exists()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("--batch-size", "1"), "a batch of 1 images can't be divided into 2 parts"),
        (("--data", "/nowhere"), "/nowhere"),
    ],
    ids=["a batch for one", "no pictures"],
)
def test_what_is_wrong_everywhere_is_said_once(
    shop: Workshop, tmp_path: Path, given: tuple[str, str], says: str
) -> None:
    args = ("teach", *shop.start(tmp_path / "run"), *HEAD, *given)
    assert says in one_message(commands_in_two(*args, folder=tmp_path), 2)


def test_fit_in_two_processes(shop: Workshop, run: Path, tmp_path: Path) -> None:
    """Its choices are measured, so that all have to take those of one."""
    config = tmp_path / "short.toml"
    config.write_text("epochs = 8\nbatch_size = 8\nlr = 0.01\n")  # short trainings have 6 of the 15 pictures
    (run / "model.safetensors").unlink()
    args = ("fit", "--run", run, "--max-macs", "60%", "--config", config, "--folds", "1", "--device", "cpu")
    result = commands_in_two(*args, "--precision", "fp32", "--json", folder=tmp_path)
    assert both(result).document["met"] is True
    assert (run / "model.safetensors").exists() and (run / "fit.json").exists()


@pytest.mark.parametrize("name", ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"])
def test_an_environment_that_is_not_torchruns_is_refused(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    for variable in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT"):
        monkeypatch.setenv(variable, "1")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv(name, "first")
    refuses("teach", *shop.start(tmp_path / "run"), *HEAD, says=[f"{name}=first", "torchrun"])


def test_one_process_of_torchruns_is_like_none(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plain: Path
) -> None:
    given = {"RANK": 0, "WORLD_SIZE": 1, "LOCAL_RANK": 0, "MASTER_PORT": 1, "MASTER_ADDR": "127.0.0.1"}
    for variable, value in given.items():
        monkeypatch.setenv(variable, str(value))
    ok("teach", *shop.start(tmp_path / "run"), *HEAD)
    assert (tmp_path / "run" / "teacher.safetensors").read_bytes() == (plain / "teacher.safetensors").read_bytes()
