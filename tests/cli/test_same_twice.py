"""One seed, one machine, equal resolved settings: the same bytes, whatever else is different."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import pytest
import torch

from nettailor_cli.core.delta import read_document
from nettailor_cli.core.sealed import read_content
from tests.cli.helpers import SIZE, contents, log_of, make_pictures, ok, refuses, stop_after

pytestmark = pytest.mark.slow

MACHINE = ("--device", "cpu", "--precision", "fp32")
OF_THE_RUN = ("run.toml", "log.jsonl")
"""What tells where the pictures are and how long it took."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures") / "shapes"
    make_pictures(root / "train", 4, seed=1)
    make_pictures(root / "val", 2, seed=2)
    return root


def teach(run: Path, data: Path, *more: object) -> tuple[object, ...]:
    return ("teach", "--data", data, "--size", SIZE, "--run", run, *MACHINE, "--epochs", 1, "--batch-size", 6, *more)


def everything(run: Path, data: Path, workers: int) -> None:
    """All that trains, once, with the package's own backbone."""
    config = run.parent / f"{run.name}.toml"
    config.write_text("epochs = 1\nbatch_size = 6\n")
    given = ("--config", config, "--workers", workers, *MACHINE)
    ok(*teach(run, data, "--workers", workers))
    ok("tailor", "--run", run, *given, "--shared-prefix", 5)  # fewer blocks for fit to try
    ok("prune", run / "student.safetensors", "--remove", 2)
    ok("finetune", run / "pruned.safetensors", *given, "-o", run / "finetuned.safetensors")
    few = ("--max-macs", "90%", "--folds", 1, "--proxy-threshold", 0.01, "--ranking", "alpha")
    ok("fit", "--run", run, *given, *few)


def results(run: Path) -> dict[str, int]:
    return {name: checksum for name, checksum in contents(run).items() if name not in OF_THE_RUN}


@pytest.fixture(scope="module")
def first(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`everything` in this process."""
    folder = tmp_path_factory.mktemp("first")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NETTAILOR_HOME", str(folder / "home"))
        everything(folder / "run", pictures, workers=1)
    return folder / "run"


def test_all_stages_in_other_surroundings(first: Path, pictures: Path, tmp_path: Path) -> None:
    """Another process, run directory, copy of the pictures, home (so they are decoded anew), number of workers, seed of
    Python's hashes, working directory, time zone, locale and umask."""
    data, run = tmp_path / "elsewhere" / "shapes", tmp_path / "deep" / "er" / "run"
    shutil.copytree(pictures, data)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    work = f"from pathlib import Path; from tests.cli.test_same_twice import everything as e; e(Path({str(run)!r}), "
    work += f"Path({str(data)!r}), 3)"
    environment = {
        **os.environ, "NETTAILOR_HOME": str(tmp_path / "home"), "PYTHONHASHSEED": "12345", "TZ": "Asia/Kathmandu",
        "LC_ALL": "C", "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", work], env=environment, cwd=tmp_path, umask=0o077, timeout=300, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = results(first)
    models = {f"{name}.safetensors" for name in ("teacher", "student", "pruned", "finetuned", "model")}
    assert models <= set(expected) and "fit.json" in expected and any(name.startswith("search/") for name in expected)
    assert results(run) == expected
    # what may differ in the two others
    told, own = (tomllib.loads((folder / "run.toml").read_text()) for folder in (first, run))
    assert told["run"].pop("data") != own["run"].pop("data")
    for table in (*told.values(), *own.values()):
        table.pop("workers", None)
        table.pop("flags", None), table.pop("config", None)  # of fit: as typed
    assert told == own
    times = {"seconds", "images_per_second"}
    for a, b in zip(log_of(first), log_of(run), strict=True):
        assert {k: v for k, v in a.items() if k not in times} == {k: v for k, v in b.items() if k not in times}


@pytest.mark.parametrize("surroundings", ["from the cache", "no cache", "listed in reverse", "other times"])
def test_pictures_come_the_same_from_anywhere(
    first: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, surroundings: str
) -> None:
    more: tuple[object, ...] = ()
    data = pictures
    if surroundings == "from the cache":
        monkeypatch.setenv("NETTAILOR_HOME", str(first.parent / "home"))
    else:
        monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
        more = ("--cache-limit", 0)
    if surroundings == "listed in reverse":
        reverse_listings(monkeypatch)
    if surroundings == "other times":
        data = tmp_path / "shapes"
        shutil.copytree(pictures, data)
        for number, file in enumerate(sorted(data.rglob("*.png"))):
            os.utime(file, (number, 10**9 - number))
    ok(*teach(tmp_path / "run", data, *more))
    assert results(tmp_path / "run")["teacher.safetensors"] == results(first)["teacher.safetensors"]


def reverse_listings(patch: pytest.MonkeyPatch) -> None:
    """Folders list what they hold in reverse order: no file system promises any."""
    scandir, listdir = os.scandir, os.listdir

    class Reversed:
        def __init__(self, entries: Any) -> None:
            with entries:
                self.entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def __exit__(self, *_: object) -> None: ...

        def __iter__(self) -> Iterator[Any]:
            return iter(self.entries)

        def close(self) -> None: ...

    patch.setattr(os, "scandir", lambda *given: Reversed(scandir(*given)))
    patch.setattr(os, "listdir", lambda *given: sorted(listdir(*given), reverse=True))


def test_the_name_of_the_folder_is_all_that_a_file_has_of_the_place(
    first: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(first.parent / "home"))
    data = tmp_path / "other name"
    shutil.copytree(pictures, data)
    ok(*teach(tmp_path / "run", data))
    a, b = (read_content(folder / "teacher.safetensors") for folder in (first, tmp_path / "run"))
    assert (a["data"].pop("name"), b["data"].pop("name")) == ("shapes", "other name")
    assert a == b
    text = json.dumps(a)
    assert str(tmp_path) not in text and str(first.parent) not in text and str(Path.home()) not in text


def test_a_model_file_says_how_it_came_about(first: Path) -> None:
    """Seed, resolved settings, versions, threads: in the file, and in what inspect shows."""
    file = first / "finetuned.safetensors"
    document = read_document(file)
    for stage in ("teach", "tailor", "finetune"):
        settings, made = document.settings[stage], document.environment[stage]
        assert settings["seed"] == 0 and settings["precision"] == "fp32" and settings["device"] == "cpu"
        assert settings["batch_size"] == 6 and settings["lr"] == 0.02 and settings["augment"] == "resized-crop"
        assert made["threads"] == torch.get_num_threads() and made["torch"] == torch.__version__
        assert (made["python"], made["numpy"]) == (platform.python_version(), np.__version__)
        assert made["pillow"] == PIL.__version__ and made["nettailor"] == document.package
    shown = " ".join(ok("inspect", file).out.split())
    for part in ("seed 0", f"torch {torch.__version__}", f"python {platform.python_version()}", "1 threads", "pillow "):
        assert part in shown, part
    assert ok("inspect", file, "--json").document["environment"] == document.environment
    machine = tomllib.loads((first / "run.toml").read_text())["machine"]
    assert machine["threads"] == 1 and machine["precision"] == "fp32" and machine["torch"] == torch.__version__


def test_resumed_with_other_threads_it_says_so_and_goes_on(
    first: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NETTAILOR_HOME", str(first.parent / "home"))
    run = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        stop_after(patch, 2)
        refuses(*teach(run, pictures), code=130)
    toml = (run / "run.toml").read_text()
    (run / "run.toml").write_text(toml.replace(f'torch = "{torch.__version__}"', 'torch = "1.0"'))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    try:
        said = ok("teach", "--run", run, "--resume").err
    finally:
        torch.set_num_threads(threads)
    warning = (
        f"warning: {threads + 1} threads now, {threads} before; torch {torch.__version__} now, 1.0 before: the result"
    )
    assert warning in said and said.count("warning") == 1
    assert read_document(run / "teacher.safetensors").environment["teach"]["threads"] == threads + 1
