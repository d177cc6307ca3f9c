"""A run directory: what log.jsonl keeps, and whose a checkpoint is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from nettailor_cli.core.errors import FileError, UsageError
from nettailor_cli.core.run import RunDirectory, refuse_to_overwrite


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def logged(run: RunDirectory) -> list[tuple[str, str, int]]:
    lines = run.log_file.read_text().splitlines()
    return [(r["stage"], r["file"], r["epoch"]) for r in map(json.loads, lines)]


def test_epochs_that_are_done_again_leave_the_log_and_all_others_stay(run: RunDirectory) -> None:
    for file in ("model4.safetensors", "model5.safetensors"):
        for epoch in (1, 2, 3):
            run.log({"stage": "finetune", "file": file, "epoch": epoch})
    run.log({"stage": "teach", "file": "model4.safetensors", "epoch": 3})
    run.forget_after("finetune", run.path / "model4.safetensors", 1)
    assert logged(run) == [
        ("finetune", "model4.safetensors", 1),
        *(("finetune", "model5.safetensors", epoch) for epoch in (1, 2, 3)),
        ("teach", "model4.safetensors", 3),
    ]


def test_a_line_that_a_crash_cut_short_leaves_the_log(run: RunDirectory) -> None:
    run.log({"stage": "teach", "file": "teacher.safetensors", "epoch": 1})
    with run.log_file.open("a") as stream:
        stream.write('{"stage": "teach", "fi')
    run.forget_after("teach", run.teacher, 1)
    assert logged(run) == [("teach", "teacher.safetensors", 1)]


def test_outputs_of_one_name_in_two_folders_have_a_checkpoint_each(run: RunDirectory, tmp_path: Path) -> None:
    places = [run.model, tmp_path / "a" / "model.safetensors", tmp_path / "b" / "model.safetensors"]
    assert len({run.checkpoint("finetune", place) for place in places}) == 3
    assert run.checkpoint("finetune", run.model) == run.path / "checkpoints" / "finetune-model.safetensors"


def test_a_table_is_replaced_and_the_others_stay_and_none_is_left_out(run: RunDirectory) -> None:
    run.record({"teach": {"lr": 0.5, "group": None}})
    run.record({"tailor": {"lr": 0.25}})
    run.record({"teach": {"epochs": 3}})
    assert run.read() == {"teach": {"epochs": 3}, "tailor": {"lr": 0.25}}


def test_a_damaged_run_toml_is_named(run: RunDirectory) -> None:
    run.path.mkdir()
    run.toml.write_text("[teach\nlr =")
    with pytest.raises(FileError, match=r"run\.toml is damaged"):
        run.read()


def test_what_is_there_is_replaced_by_force_only(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    refuse_to_overwrite(file, force=False)
    file.touch()
    refuse_to_overwrite(file, force=True)
    with pytest.raises(UsageError, match="is there already"):
        refuse_to_overwrite(file, force=False)


def test_a_path_that_is_no_utf8_is_refused_by_name_and_run_toml_stays(run: RunDirectory) -> None:
    run.record({"teach": {"data": "/photos/\x1b[31m\n=\x7f\u202e", "epochs": 1}})
    before = run.toml.read_bytes()
    assert run.read()["teach"]["data"] == "/photos/\x1b[31m\n=\x7f\u202e"
    with pytest.raises(UsageError, match=r'run\.toml can\'t hold data = "/caf\udce9": the name is not valid UTF-8'):
        run.record({"tailor": {"data": os.fsdecode(b"/caf\xe9"), "epochs": 1}})
    assert run.toml.read_bytes() == before


@pytest.mark.parametrize(
    "text",
    [
        "run = 3",
        "[run]\nbackbone = 1",
        '[run]\nfingerprint = "x"\nbackbone = "resnet18.x"',
        f'[run]\nbackbone = "r.x"\nfingerprint = "{"a" * 64}"',
        f'[run]\nbackbone = "r.x"\nfingerprint = "{"a" * 64}"\npreprocessing = 7',
        "[machine]\nthreads = -1",
        "teach = []",
        "[fit]\nflags = 1",
        "a = " + "[" * 5000,
        "a = " + "9" * 5000,
        "a = 1\na = 2",
    ],
    ids=lambda text: text[:30],
)
def test_a_run_toml_that_makes_no_sense_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_text(text)
    with pytest.raises(FileError, match=r"run\.toml is damaged") as caught:
        RunDirectory(tmp_path).read()
    assert "--run" in caught.value.hint
