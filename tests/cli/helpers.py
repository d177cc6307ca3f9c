"""What the tests of the command line share: the tool in this process or a process of its own, pictures, weights."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import typer
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import Tensor, nn

from nettailor_cli.cli import training
from nettailor_cli.cli.app import app
from nettailor_cli.core.backbones.backbone import build_random

CLASSES = ("blue disc", "green bar", "red square")  # as the tool sorts them
SIZE = 32
TEST_IMAGES = 12
BASE = ("--batch-size", "8", "--lr", "0.01", "--device", "cpu", "--precision", "fp32", "--workers", "1")
ONE = (*BASE, "--epochs", "1")
"""One short epoch on the CPU."""


@dataclass(frozen=True)
class Result:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """Its stdout as one JSON document; fails when anything else is there."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document


@functools.cache
def _built() -> Callable[..., Any]:
    """What `app()` builds anew at each call."""
    return typer.main.get_command(app)


def nettailor(*args: object) -> Result:
    """Run a command in this process, its signal handlers taken back afterwards."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                _built()([str(arg) for arg in args], prog_name="nettailor")
            except SystemExit as exit_:
                code = exit_.code or 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return Result(code, out.getvalue(), err.getvalue())


def ok(*args: object) -> Result:
    """`nettailor`, which has to succeed."""
    result = nettailor(*args)
    assert result.code == 0, f"{args}: exit {result.code}\n{result.err}"
    return result


def refuses(*args: object, code: int = 2, says: Sequence[str] = ()) -> Result:
    """`nettailor`, which has to fail with one message that holds every text of `says`, and no traceback."""
    result = nettailor(*args)
    assert result.code == code, f"{args}: exit {result.code}, not {code}\n{result.out}\n{result.err}"
    assert "Traceback" not in result.err and "a bug" not in result.err, result.err
    assert result.err.count("error:") + result.err.count("─ Error ─") == 1, result.err
    unwrapped = " ".join(result.err.replace("│", " ").split())
    for text in says:
        assert text.lower() in unwrapped.lower(), f"{text!r} is not in: {unwrapped}"
    return result


def command(*args: object) -> list[str]:
    """The same in a process of its own."""
    return [sys.executable, "-m", "nettailor_cli", *map(str, args)]


def process(*args: object, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), capture_output=True, text=True, timeout=100, check=False, **options)


# pictures


def picture(name: str, rng: np.random.Generator) -> Image.Image:
    """A shape in its colour, somewhere, on noise."""
    image = Image.fromarray(rng.integers(60, 200, (SIZE, SIZE, 3), dtype=np.uint8))
    draw = ImageDraw.Draw(image)
    x, y = (int(v) for v in rng.integers(2, 12, 2))
    match name:
        case "blue disc":
            draw.ellipse((x, y, x + 16, y + 16), fill=(30, 30, 230))
        case "green bar":
            draw.rectangle((x, y, x + 18, y + 6), fill=(30, 220, 30))
        case _:
            draw.rectangle((x, y, x + 14, y + 14), fill=(230, 30, 30))
    return image


def make_pictures(folder: Path, count: int, seed: int, classes: Sequence[str] = CLASSES) -> None:
    """`count` pictures of each of `classes` in folder/CLASS."""
    rng = np.random.default_rng(seed)
    for name in classes:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for index in range(count):
            picture(name, rng).save(folder / name / f"{index:02}.png")


# weights


def random_state(seed: int) -> dict[str, Tensor]:
    """resnet18 in fp16 under torchvision's names, its batch norms fitted to noise, so that values stay in bounds."""
    backbone = build_random("resnet18", seed)
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        backbone.train()(torch.randn(32, 3, SIZE, SIZE, generator=generator))
    state = backbone.eval().state()
    return {key: value.half() for key, value in state.items() if value.is_floating_point()}


# a workshop: everything that a test may look at, made once


@dataclass(frozen=True)
class Workshop:
    """data: train/ and test/. flat: the classes at the top. weights, pth: the same backbone. home: with it imported.

    run: teach, tailor, prune --remove 3 and finetune, one epoch each. results: what each of them said.
    """

    root: Path
    data: Path
    flat: Path
    weights: Path
    pth: Path
    home: Path
    run: Path
    results: dict[str, Result]

    def copy_run(self, to: Path) -> Path:
        """A run of one's own. The model files are links, which is harmless: the tool never writes into a file."""

        def copy(source: str, target: str) -> None:
            os.link(source, target) if source.endswith(".safetensors") else shutil.copyfile(source, target)

        shutil.copytree(self.run, to, copy_function=copy)
        return to

    def start(self, run: Path) -> tuple[object, ...]:
        """The options of a new run."""
        return ("--backbone", "resnet18", "--data", self.data, "--size", SIZE, "--run", run)


@functools.cache
def make_workshop(temporary: Path) -> Workshop:
    """One per session, whichever test module asks first, under the session's temporary folder."""
    root = temporary / "workshop"
    data, flat, home, run = root / "shapes", root / "flat", root / "home", root / "run"
    make_pictures(data / "train", 8, seed=1)
    make_pictures(data / "test", TEST_IMAGES // 3, seed=2)
    make_pictures(flat, 8, seed=1)
    state = random_state(0)
    weights, pth = root / "resnet18-test.safetensors", root / "resnet18-test.pth"
    save_file(state, weights)
    torch.save(state, pth)
    shop = Workshop(root, data, flat, weights, pth, home, run, {})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETTAILOR_HOME", str(home))
        for stage, args in (
            ("teach", ("teach", *shop.start(run), "--weights", weights, *ONE)),
            ("tailor", ("tailor", "--run", run, *ONE)),
            ("prune", ("prune", run / "student.safetensors", "--remove", "3")),
            ("finetune", ("finetune", run / "pruned.safetensors", *ONE)),
        ):
            shop.results[stage] = ok(*args)
    return shop


# files


def contents(folder: Path) -> dict[str, int]:
    """Every file below `folder` with a checksum of its bytes (a quick one: nobody forges anything here)."""
    return {
        str(path.relative_to(folder)): zlib.crc32(path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def untouched(folder: Path) -> Iterator[None]:
    """What is done inside must leave every file of `folder` as it is, and add none."""
    before = contents(folder)
    yield
    assert contents(folder) == before


def replace_bytes(path: Path, data: bytes) -> None:
    """A new file at `path`; others that link to the old one keep it."""
    path.unlink()
    path.write_bytes(data)


def log_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


# signals


def stop_after(patch: pytest.MonkeyPatch, steps: int | None, number: int = signal.SIGINT) -> None:
    """From here on a training command is asked to stop after so many steps (None: never), as by signal `number`."""

    def request() -> Callable[[], int | None]:
        done = 0

        def stop() -> int | None:
            nonlocal done
            done += 1
            return number if done == steps else None

        return stop

    patch.setattr(training, "StopRequest", request)
