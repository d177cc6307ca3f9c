"""Ctrl-C and SIGTERM: the state is saved, --resume goes on, and the bytes are those of an uninterrupted run."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from nettailor_cli.cli.errors import _explain
from nettailor_cli.cli.signals import StopRequest
from tests.cli.helpers import (
    BASE,
    Workshop,
    command,
    contents,
    log_of,
    nettailor,
    ok,
    refuses,
    replace_bytes,
    stop_after,
    untouched,
)

pytestmark = pytest.mark.slow

TWO = (*BASE, "--epochs", "2")
# 15 training pictures in batches of 8, twice: four steps
FILES = {"teach": "teacher", "tailor": "student", "finetune": "model"}

# what is typed in a run that has everything before the stage
VARIANTS = {
    "teach": ("teach", TWO),
    "teach with patience and jitter": ("teach", (*TWO, "--patience", "1", "--jitter", "0.2")),
    "tailor": ("tailor", TWO),
    "tailor that adapts": ("tailor", (*TWO, "--bn-stats", "adapt", "--hint", "block-local")),
    "finetune": ("finetune", TWO),
}


def prepared(shop: Workshop, stage: str, run: Path) -> Path:
    """A run without what `stage` writes."""
    shop.copy_run(run)
    (run / f"{FILES[stage]}.safetensors").unlink()
    (run / "log.jsonl").unlink()
    return run


def typed(stage: str, run: Path) -> tuple[object, ...]:
    return ("finetune", run / "pruned.safetensors") if stage == "finetune" else (stage, "--run", run)


_whole: dict[str, bytes] = {}


def whole(shop: Workshop, variant: str, place: Path) -> bytes:
    """What an uninterrupted run gives, made once."""
    if variant not in _whole:
        stage, options = VARIANTS[variant]
        run = prepared(shop, stage, place / "whole")
        ok(*typed(stage, run), *options)
        _whole[variant] = (run / f"{FILES[stage]}.safetensors").read_bytes()
    return _whole[variant]


@pytest.mark.parametrize(
    ("variant", "stops"),
    [
        ("teach", (1,)),  # in the first epoch
        ("teach", (2, 1)),  # after its last batch, before validation; then in the second
        ("teach", (4,)),  # after the very last step
        ("teach with patience and jitter", (3,)),
        ("tailor", (1, 2)),
        ("tailor that adapts", (1, 1, 1)),
        ("finetune", (1, 2)),
    ],
    ids=lambda value: value if isinstance(value, str) else "after " + " then ".join(map(str, value)),
)
def test_resumed_gives_the_same_bytes(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variant: str, stops: tuple[int, ...]
) -> None:
    stage, options = VARIANTS[variant]
    expected = whole(shop, variant, tmp_path)
    run = prepared(shop, stage, tmp_path / "run")
    output = run / f"{FILES[stage]}.safetensors"
    resume: tuple[str, ...] = ()
    for number, steps in zip((signal.SIGINT, signal.SIGTERM, signal.SIGINT), stops, strict=False):
        stop_after(monkeypatch, steps, number)
        says = [f"{stage}: stopped in epoch", "state saved", "--resume"]
        refuses(*typed(stage, run), *options, *resume, code=128 + number, says=says)
        assert not output.exists()
        resume = ("--resume",)
    stop_after(monkeypatch, None)
    # the settings are remembered
    assert f"{stage}: goes on at epoch" in ok(*typed(stage, run), "--resume").err
    assert output.read_bytes() == expected
    assert [(line["stage"], line["epoch"]) for line in log_of(run)] == [(stage, 1), (stage, 2)]
    assert not any((run / "checkpoints").iterdir())


def test_tailor_stopped_while_it_teaches(shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`tailor` on an empty run, stopped once in each of its two trainings."""
    config = tmp_path / "short.toml"
    config.write_text("epochs = 2\nbatch_size = 8\nlr = 0.01\n")
    options = ("--config", config, "--device", "cpu", "--precision", "fp32")
    ok("tailor", *shop.start(tmp_path / "whole"), *options)
    run = tmp_path / "run"
    stop_after(monkeypatch, 3)
    refuses("tailor", *shop.start(run), *options, code=130, says=["teach: stopped in epoch 2", "state saved"])
    assert not (run / "teacher.safetensors").exists()
    # without --resume nothing is thrown away
    refuses("tailor", *shop.start(run), *options, says=["unfinished teach", "--resume", "--force"])
    stop_after(monkeypatch, 1 + 2)
    result = refuses("tailor", *shop.start(run), *options, "--resume", code=130, says=["tailor: stopped in epoch 1"])
    assert "teach: goes on at epoch 2" in result.err
    stop_after(monkeypatch, None)
    ok("tailor", *shop.start(run), *options, "--resume")
    for file in ("teacher", "student"):
        name = f"{file}.safetensors"
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert [line["stage"] for line in log_of(run)] == ["teach", "teach", "tailor", "tailor"]


class TestAnUnfinishedRun:
    @pytest.fixture
    def stopped(self, shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A teach, stopped in its second epoch."""
        run = prepared(shop, "teach", tmp_path / "run")
        stop_after(monkeypatch, 3)
        assert nettailor("teach", "--run", run, *TWO).code == 130
        stop_after(monkeypatch, None)
        return run

    def test_is_not_overwritten(self, shop: Workshop, stopped: Path, tmp_path: Path) -> None:
        with untouched(stopped):
            refuses("teach", "--run", stopped, *TWO, says=["unfinished teach", "--resume", "--force"])
        ok("teach", "--run", stopped, *TWO, "--force")
        assert (stopped / "teacher.safetensors").read_bytes() == whole(shop, "teach", tmp_path)

    def test_goes_on_only_with_its_own_settings(self, shop: Workshop, stopped: Path, tmp_path: Path) -> None:
        with untouched(stopped):
            refuses("teach", "--run", stopped, "--resume", "--lr", "0.5", says=["other settings: lr", "--force"])
        ok("teach", "--run", stopped, "--resume")
        assert (stopped / "teacher.safetensors").read_bytes() == whole(shop, "teach", tmp_path)

    def test_goes_on_only_with_its_own_pictures(self, shop: Workshop, stopped: Path) -> None:
        with untouched(stopped):
            refuses("teach", "--run", stopped, "--resume", "--data", shop.flat, says=["other settings: data"])

    @pytest.mark.parametrize("damage", ["cut", "flipped"])
    def test_with_a_damaged_checkpoint(self, stopped: Path, damage: str) -> None:
        (checkpoint,) = (stopped / "checkpoints").iterdir()
        data = bytearray(checkpoint.read_bytes())
        if damage == "cut":
            del data[-1000:]
        else:
            data[-1000] ^= 1
        replace_bytes(checkpoint, bytes(data))
        with untouched(stopped):
            refuses("teach", "--run", stopped, "--resume", says=[checkpoint.name, "damaged"])

    def test_number_of_workers_may_change(self, shop: Workshop, stopped: Path, tmp_path: Path) -> None:
        ok("teach", "--run", stopped, "--resume", "--workers", "2")
        assert (stopped / "teacher.safetensors").read_bytes() == whole(shop, "teach", tmp_path)


def test_nothing_to_resume(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert "no checkpoint" in ok("teach", *shop.start(run), *TWO, "--resume").err
    assert (run / "teacher.safetensors").read_bytes() == whole(shop, "teach", tmp_path)


@pytest.mark.parametrize(("name", "number"), [("tailor", signal.SIGINT), ("teach", signal.SIGTERM)])
def test_a_real_signal(shop: Workshop, tmp_path: Path, name: str, number: int) -> None:
    options = (*BASE, "--epochs", "4")
    run = prepared(shop, name, tmp_path / "run")
    child = subprocess.Popen(command(*typed(name, run), *options), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    lines = []
    for line in child.stderr:
        lines.append(line)
        if line.startswith(f"{name} epoch 1/4"):
            child.send_signal(number)
    child.stderr.close()
    err = "".join(lines)
    assert child.wait(60) == 128 + number, err
    assert f"error: {name}: stopped in epoch 2" in err and "hint: the same command with --resume" in err
    assert "Traceback" not in err
    file = f"{FILES[name]}.safetensors"
    assert not (run / file).exists() and any((run / "checkpoints").iterdir())
    ok(*typed(name, run), *options, "--resume")
    plain = prepared(shop, name, tmp_path / "plain")
    ok(*typed(name, plain), *options)
    assert (run / file).read_bytes() == (plain / file).read_bytes()


def test_a_signal_before_training_stops_at_once(shop: Workshop, tmp_path: Path) -> None:
    """While pictures are still being read there is nothing to save."""
    run = tmp_path / "run"
    child = subprocess.Popen(command("teach", *shop.start(run), *TWO), stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    child.stderr.readline()  # backbone ...
    child.send_signal(signal.SIGTERM)
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(60) == 143, err
    assert "Traceback" not in err and err.count("error: ") == 1
    assert "teacher.safetensors" not in (contents(run) if run.exists() else {})


def test_ctrl_c_while_weights_are_read_is_no_damage(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "load", lambda *args, **options: os.kill(os.getpid(), signal.SIGINT))
    result = refuses("teach", *shop.start(tmp_path / "run"), "--weights", shop.pth, *TWO, code=130, says=["stopped"])
    assert "damaged" not in result.err


class TestStopRequest:
    @pytest.fixture(autouse=True)
    def handlers(self) -> object:
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        yield
        for number, handler in before.items():
            signal.signal(number, handler)

    def test_before_training(self) -> None:
        StopRequest()
        with pytest.raises(BaseException) as caught:
            os.kill(os.getpid(), signal.SIGTERM)
        assert _explain(caught.value)[2] == 143
        # raised wherever the program happens to be: no `except Exception` on the way may take it for its own
        assert not isinstance(caught.value, Exception)

    def test_while_training(self) -> None:
        stop = StopRequest()
        assert stop() is None
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == signal.SIGINT

    def test_a_second_time(self) -> None:
        """Who insists does not have to wait."""
        stop = StopRequest()
        stop()
        os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(BaseException) as caught:
            os.kill(os.getpid(), signal.SIGINT)
        assert _explain(caught.value)[2] == 130
