"""Names that files bring along (classes, paths, metadata) on every command that shows them: nothing acts on a terminal.

Nothing is trained: a model file is given hostile names, a folder of pictures has them, and so have the files' paths.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import pty
import re
import subprocess
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nettailor_cli.cli.completion import model_files
from nettailor_cli.core.errors import FileError
from nettailor_cli.core.manifest import MANIFEST, read_manifest
from nettailor_cli.core.sealed import read_content, read_tensors, write_sealed
from tests.cli import helpers
from tests.cli.helpers import Result, command
from tests.core.deploy.tasks import make_tasks

pytestmark = pytest.mark.slow

CLASSES = (
    "\x1b[38;5;201mpink\x1b[2J\x1b]0;title\x07\x1b]52;c;aGk=\x07",
    "[bold red]x[link=http:x]",
    "two\nlines\ttab\rback\x0b\x0c\x85\u2028\u2029",
    "\u202eabc\u2066\u200b\u200d\ufeff\x9b31m\x9d0;t\x9c\x7f\x08" + os.fsdecode(b"\xff\xe9"),
    '=1+1,"q" $x^2$ <&> ]]> -- \ufffe{}%s',
)
NAME = "\x1b[38;5;201m[red]\u202e\x9b\nerror: forged\x7f"
"""Of folders and files."""


@dataclass(frozen=True)
class Hostile:
    """home: with the backbone. model: hostile names inside and out. student: the same, to be pruned. data: pictures."""

    home: Path
    model: Path
    student: Path
    data: Path
    broken: Path


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Hostile:
    root = tmp_path_factory.mktemp("names") / NAME
    tasks = make_tasks(root)
    extra = {
        "data": {"name": NAME, "digest": NAME, "images": {"train": 5}, "split_seed": 0},
        "package": NAME,
        "environment": {"tailor": {"name": NAME, "threads": NAME, "torch": NAME}},
        "settings": {"tailor": {"seed": 0, "latency_batch": 1, "latency_table": {"digest": NAME, "machine": NAME}}},
    }
    files = {}
    for stage in ("model", "student"):
        content = {**read_content(tasks.files["flowers"]), "stage": stage, "classes": list(CLASSES), **extra}
        content["metrics"] = {stage: {"accuracy": 50.0, "split": NAME, "images": 5, "loss": 1.0}}
        files[stage] = root / f"run {NAME}" / f"{stage}.safetensors"
        files[stage].parent.mkdir(exist_ok=True)
        write_sealed(files[stage], content, read_tensors(tasks.files["flowers"]))
    data, broken = root / "pictures", root / "broken"
    rng = np.random.default_rng(0)
    for folder in (data, broken):
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
            for number in range(5):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / name / f"{number}{NAME}.png")
    for name in CLASSES:
        (broken / name / f"bad {NAME}.png").write_bytes(b"no picture")
    return Hostile(tasks.home, files["model"], files["student"], data, broken)


class Screen(io.StringIO):
    """What Python takes for a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(params=["pipe", "terminal"])
def say(request: pytest.FixtureRequest, hostile: Hostile, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command whose every word has to be harmless; with and without a terminal."""
    monkeypatch.setenv("NETTAILOR_HOME", str(hostile.home))
    monkeypatch.setenv("TERM", "xterm-256color")
    if request.param == "terminal":
        monkeypatch.setattr(helpers.io, "StringIO", Screen)

    def say(*args: object, code: int = 0) -> Result:
        result = helpers.nettailor(*args)
        assert result.code == code, f"{args}: exit {result.code}\n{result.err}"
        assert "Traceback" not in result.err and "a bug" not in result.err, result.err
        return Result(code, harmless_text(result.out), harmless_text(result.err))

    return say


def harmless_text(text: str) -> str:
    """`text` without rich's own colours and cursor moves; fails when anything else in it acts or is invisible."""
    assert "\x1b[38;5;201" not in text, "a name's own colour"
    plain = re.sub(r"\x1b\[(\d+(;\d+)*)?[mAK]|\x1b\[\?25[lh]|\x1b\]8;;\x1b\\|\r(?=[\n\x1b])", "", text)
    assert not {c for c in plain if c != "\n" and not c.isprintable()}, repr(plain)
    return plain


def unwrapped(text: str) -> str:
    """Without white space: a terminal is narrow."""
    return "".join(text.split())


# showing commands


def test_inspect(say: Any, hostile: Hostile, tmp_path: Path) -> None:
    shown = unwrapped(say("inspect", hostile.model).out)
    assert "\\x1b[38;5;201mpink" in shown and "[boldred]x[link=http:x]" in shown
    document = json.loads(say("inspect", hostile.model, "--json").out)
    assert document["classes"] == list(CLASSES) and document["data"]["name"] == NAME
    assert document["file"] == str(hostile.model)
    drawn = tmp_path / f"{NAME}.svg"
    pytest.importorskip("matplotlib")
    say("inspect", hostile.model, "--svg", drawn, "--png", drawn.with_suffix(".png"), code=0)
    (description,) = ET.parse(drawn).getroot().iter("{http://www.w3.org/2000/svg}desc")
    assert "[bold red]x" in str(description.text) and "<&> ]]>" in str(description.text)
    assert drawn.read_text().replace("\n", "").isprintable()
    Image.open(drawn.with_suffix(".png")).load()
    say("inspect", hostile.model, "--max-macs", "1", "--max-params", "1", code=3)


def test_evaluate(say: Any, hostile: Hostile, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    files = {suffix: tmp_path / f"confusion{NAME}{suffix}" for suffix in (".csv", ".svg", ".png")}
    options = [word for path in files.values() for word in ("--confusion", path)]
    shown = say("evaluate", hostile.model, "--data", hostile.data, "--device", "cpu", *options)
    assert "two\\nlines\\ttab\\rback\\x0b\\x0c\\x85\\u2028\\u2029" in unwrapped(shown.out)
    text = files[".csv"].read_text()
    assert text.replace("\n", "").isprintable() and len(text.splitlines()) == 6
    rows = list(csv.reader(io.StringIO(text)))
    assert [row[0] for row in rows[1:]] == rows[0][1:] and rows[5][0].startswith("'=1+1")
    svg = files[".svg"].read_text()
    assert svg.replace("\n", "").isprintable()
    ET.fromstring(svg)
    document = json.loads(say("evaluate", hostile.model, "--data", hostile.data, "--json").out)
    assert document["classes"] == list(CLASSES)


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_predict(say: Any, hostile: Hostile, form: str) -> None:
    shown = say("predict", hostile.model, hostile.broken, "--format", form, "--top-k", 5, "--device", "cpu", code=2)
    assert "5 of 30 pictures can't be read" in shown.err
    if form == "jsonl":
        rows = [json.loads(line) for line in shown.out.splitlines()]
        assert all(Path(row["image"]).exists() for row in rows) and len(rows) == 30
        assert {c["class"] for row in rows for c in row["classes"]} == set(CLASSES)
    elif form == "csv":
        table = list(csv.DictReader(io.StringIO(shown.out)))
        assert len(table) == 30 and sum(bool(row["error"]) for row in table) == 5
        assert not {cell[0] for row in table for cell in row.values() if cell} & set("=+-@\t\r")
    else:
        assert unwrapped(shown.out).count("error:notapicture") == 5


def test_prune_bundle_export_and_benchmark(say: Any, hostile: Hostile, tmp_path: Path) -> None:
    say("prune", hostile.student, "--remove", 1, "-o", tmp_path / f"pruned {NAME}.safetensors")
    folder = tmp_path / f"bundle {NAME}"
    say("bundle", f"task={hostile.model}", "-o", folder)
    assert (folder / MANIFEST).read_text().replace("\n", "").isprintable()
    say("predict", "--bundle", folder, hostile.data, "--task", "task", "--device", "cpu")
    say("predict", "--bundle", folder, hostile.data, "--task", NAME, "--device", "cpu", code=2)
    say("export", hostile.model, "--format", "safetensors", "-o", tmp_path / f"{NAME}.safetensors")
    say("benchmark", hostile.model, "--seconds", 0, "--batch", 1, "--device", "cpu")


def test_backbones(say: Any, hostile: Hostile) -> None:
    stranger = hostile.home / "backbones" / f"{NAME}-{'0' * 12}.safetensors"
    stranger.write_bytes(b"nothing")
    with contextlib.ExitStack() as then:
        then.callback(stranger.unlink)
        for name in ("list", "verify"):
            say("backbones", name, code=2 if name == "verify" else 0)
            document = json.loads(say("backbones", name, "--json", code=2 if name == "verify" else 0).out)
            assert str(stranger) in [entry["file"] for entry in document["stored" if name == "list" else "backbones"]]
        say("backbones", "fetch", NAME, code=2)


# errors


def test_errors_are_one_message_whatever_the_names(say: Any, hostile: Hostile, tmp_path: Path) -> None:
    def message(*args: object) -> str:
        err: str = say(*args, code=2).err
        assert sum(line.startswith("error: ") for line in err.splitlines()) == 1, err
        return err

    gone = tmp_path / NAME
    message("inspect", gone)
    message("evaluate", hostile.model, "--data", gone)
    message("predict", hostile.model, gone)
    message("predict", hostile.model, tmp_path / f"*{NAME}")
    message("predict", hostile.model, hostile.data, "--format", NAME)
    message("evaluate", hostile.model, "--data", hostile.data, "--split", NAME)
    message("inspect", hostile.model, "--max-macs", NAME)
    message("teach", "--data", hostile.data, "--run", gone, "--config", gone / "x.toml")
    message("teach", "--data", hostile.data, "--run", gone, "--backbone", NAME)
    listed = message("teach", "--data", hostile.broken, "--run", gone, "--size", 32, "--device", "cpu")
    bad = [line for line in listed.splitlines() if line.startswith("  ")]
    assert len(bad) == 5 and all("not a picture" in line for line in bad) and not gone.exists() | (gone / "x").exists()
    single = tmp_path / "single"
    (single / CLASSES[0]).mkdir(parents=True)
    message("teach", "--data", single, "--run", gone)
    (single / f"{NAME} unknown").symlink_to(hostile.data / CLASSES[0])
    message("evaluate", hostile.model, "--data", single)


@pytest.mark.parametrize("words", [("predict", "m", f"-{NAME}"), (NAME,), ("inspect", "a", NAME), ("backbones", NAME)])
def test_wrong_words(say: Any, words: tuple[str, ...]) -> None:
    say(*words, code=2)


# places


@pytest.mark.parametrize(
    "task", ["../../x", "..", "/x", "a/b", "a\\b", ".hidden", NAME, "", "a" * 101, "backbone", "-x"]
)
def test_no_task_of_a_bundle_leads_out_of_its_folder(say: Any, hostile: Hostile, tmp_path: Path, task: str) -> None:
    before = sorted(tmp_path.rglob("*"))
    folder = tmp_path / "inner" / "folder"
    say("bundle", f"{task}={hostile.model}", "-o", folder, code=2)
    assert sorted(tmp_path.rglob("*")) == before
    if task in ("", "-x"):
        return
    say("bundle", f"task={hostile.model}", "-o", folder)
    before = sorted(tmp_path.rglob("*"))
    text = (folder / MANIFEST).read_text().replace('"task"', json.dumps(task))
    (folder / MANIFEST).write_text(text.replace("task.safetensors", json.dumps(f"{task}.safetensors")[1:-1]))
    say("predict", "--bundle", folder, hostile.data, code=2)
    assert sorted(tmp_path.rglob("*")) == before
    with pytest.raises(FileError, match=r"makes no sense|damaged|digest"):
        read_manifest(folder)


def test_completion_offers_no_name_that_acts(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "good.safetensors").touch()
    assert [offer.rpartition("/")[2] for offer in model_files(f"{folder}/")] == ["good.safetensors"]
    (folder / f"{NAME}.safetensors").touch()
    assert model_files(f"{folder}/") == []  # the shell's own completion knows how to quote it


# a true terminal


@contextlib.contextmanager
def terminal(*args: object, **environment: str) -> Iterator[str]:
    ours, theirs = pty.openpty()
    child = subprocess.Popen(
        command(*args), stdin=theirs, stdout=theirs, stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", **environment},
    )  # fmt: skip
    os.close(theirs)
    data = b""
    with contextlib.suppress(OSError):  # how a terminal's end is told
        while part := os.read(ours, 65536):
            data += part
    child.wait(60)
    os.close(ours)
    yield data.decode()


def test_a_true_terminal_gets_no_escape_from_a_name(hostile: Hostile, tmp_path: Path) -> None:
    for args in (("inspect", hostile.model), ("inspect", tmp_path / NAME), ("predict", f"-{NAME}")):
        with terminal(*args, NETTAILOR_HOME=str(hostile.home)) as text:
            shown = harmless_text(text)
            assert "\\x1b[38;5;201m" in unwrapped(shown) or args[0] == "predict"
