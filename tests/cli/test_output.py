"""stdout and stderr: --json, --quiet, plain lines, and bars on a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from tests.cli.helpers import BASE, CLASSES, ONE, Result, Workshop, command, nettailor, ok

TRAINING = ("teach", "tailor", "finetune")


def arguments(shop: Workshop, name: str, run: Path, fast: tuple[str, ...] = ONE) -> tuple[object, ...]:
    """A command line that works in the finished run `run`."""
    model = run / "model.safetensors"
    return {
        "teach": ("teach", "--run", run, "--force", *fast),
        "tailor": ("tailor", "--run", run, "--force", *fast),
        "prune": ("prune", run / "student.safetensors", "--force"),
        "finetune": ("finetune", run / "pruned.safetensors", "--force", *fast),
        "inspect": ("inspect", model),
        "evaluate": ("evaluate", model, "--data", shop.data),
        "predict": ("predict", model, shop.data / "test" / CLASSES[0]),
        "backbones list": ("backbones", "list"),
        "backbones verify": ("backbones", "verify"),
        "backbones fetch": ("backbones", "fetch", "resnet18"),
    }[name]


EVERY = (*TRAINING, "prune", "inspect", "evaluate", "predict", "backbones list", "backbones verify", "backbones fetch")


@pytest.mark.parametrize("name", EVERY)
def test_json_is_all_that_is_on_stdout(shop: Workshop, run: Path, name: str) -> None:
    result = ok(*arguments(shop, name, run), "--json")
    document = result.document
    if name in (*TRAINING, "prune"):
        assert Path(document["file"]).parent == run and Path(document["file"]).exists()
        assert {"stage", "totals", "backbone_totals", "removed", "metrics"} <= set(document)
    if name in TRAINING:
        assert f"{name} epoch 1/1, loss " in result.err
    assert "\x1b" not in result.out + result.err


@pytest.mark.parametrize("name", [name for name in EVERY if name != "predict"])  # its rows: test_predict.py
def test_quiet_says_nothing(shop: Workshop, run: Path, name: str) -> None:
    result = ok(*arguments(shop, name, run), "--quiet")
    assert (result.out, result.err) == ("", "")


def test_quiet_still_tells_errors(shop: Workshop, run: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.png").write_bytes(b"")
    good = shop.data / "test" / CLASSES[0] / "00.png"
    options = ("--quiet", "--format", "jsonl")  # a table would fold long paths
    result = nettailor("predict", run / "model.safetensors", good, tmp_path / "broken.png", *options)
    assert "1 of 2 pictures can't be read" in result.err and "broken.png" in result.out


def test_plain_lines_where_there_is_no_terminal(shop: Workshop, run: Path) -> None:
    result = ok(*arguments(shop, "tailor", run, (*BASE, "--epochs", "2")))
    lines = result.err.splitlines()
    epochs = [line for line in lines if line.startswith("tailor epoch")]
    assert len(epochs) == 2
    for number, line in enumerate(epochs, 1):
        pattern = (
            rf"tailor epoch {number}/2, loss [\d.]+, E\[C\] -?[\d.]+, accuracy [\d.]+ %, val [\d.]+ %, \d+ images/s"
        )
        assert re.fullmatch(pattern, line), line
    assert any(line.startswith("machine: cpu") and "as asked" in line for line in lines)
    assert any(line.startswith("data: shapes, 3 classes") for line in lines)
    assert lines[-1] == f"next: nettailor prune {run / 'student.safetensors'}"
    assert f"wrote {run / 'student.safetensors'}" in result.out
    assert "\r" not in result.err


def test_what_it_says_next_works(shop: Workshop, tmp_path: Path) -> None:
    """Every stage names the next command; typed as it stands, it goes through."""

    def following(result: Result) -> tuple[str, ...]:
        line = result.err.strip().splitlines()[-1]
        assert line.startswith("next: nettailor ")
        return tuple(line.split()[2:])

    run = shop.copy_run(tmp_path / "run")
    for name, file in (("teach", "student"), ("tailor", "pruned"), ("prune", "model")):
        told = following(ok(*arguments(shop, name, run)))
        (run / f"{file}.safetensors").unlink()
        fast = () if told[0] == "prune" else ONE
        assert nettailor(*told, *fast).code == 0
    told = following(ok(*arguments(shop, "finetune", run)))
    assert told[0] == "evaluate"
    ok(*[shop.data if word == "DIR" else word for word in told])


class Terminal:
    """A command in a terminal of `columns` x 24, stdout and stderr both."""

    def __init__(self, columns: int, *args: object) -> None:
        self.ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self.child = subprocess.Popen(
            command(*args), stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm"}
        )
        os.close(theirs)
        self.text = ""

    def read(self, until: str = "", seconds: float = 90) -> str:
        """What it shows, until `until` was seen or it ends."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not (until and until in self.text):
            if not select.select([self.ours], [], [], 0.2)[0]:
                continue
            try:
                data = os.read(self.ours, 65536)
            except OSError:  # the other side is closed
                break
            if not data:
                break
            self.text += data.decode("utf-8", "replace")
        return self.text

    def finish(self) -> int:
        self.read()
        code = self.child.wait(60)
        os.close(self.ours)
        return code


def shown(text: str) -> str:
    """Without terminal escapes."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_bars_on_a_narrow_terminal(shop: Workshop, tmp_path: Path) -> None:
    columns = 60
    terminal = Terminal(columns, "teach", *shop.start(tmp_path / "run"), *BASE, "--epochs", "3")
    assert terminal.finish() == 0
    text = shown(terminal.text)
    # a bar over the stage: how many of its steps are done, and its figures
    steps = re.search(r"teach .*?(\d+)/(\d+).*?loss", text)
    assert steps and int(steps[2]) % 3 == 0, text
    assert "teach epoch 3/3, loss" in text.replace("\r\n", " ")  # the line per epoch stays
    assert "wrote" in text
    # nothing that is redrawn is wider than the terminal: it would wrap and leave rubbish
    for line in re.split(r"[\r\n]+", text):
        if re.match(r"teach +\d+/\d+", line):
            assert len(line.rstrip()) <= columns, line
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l") >= 0  # the cursor is back


def test_ctrl_c_on_a_terminal_leaves_it_clean(shop: Workshop, tmp_path: Path) -> None:
    run = tmp_path / "run"
    terminal = Terminal(120, "teach", *shop.start(run), *BASE, "--epochs", "400")
    terminal.read(until="teach epoch 2/400")
    terminal.child.send_signal(signal.SIGINT)
    assert terminal.finish() == 130
    text = shown(terminal.text)
    assert "state saved" in text and "--resume" in text
    assert "━" in text  # wide enough for a bar
    # the bar is taken off before the message, and the cursor is given back
    assert terminal.text.rfind("\x1b[?25h") > terminal.text.rfind("\x1b[?25l") >= 0
    assert (run / "checkpoints").exists()
