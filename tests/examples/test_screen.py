"""examples/studies/screen.py: one factor at a time."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from nettailor_cli.core.presets import resolve
from nettailor_cli.core.settings import STAGES, checked, fields_of

STUDIES = Path(__file__).parents[2] / "examples" / "studies"
sys.path.append(str(STUDIES))

import screen  # noqa: E402

LEVELS = screen.read_levels(STUDIES / "factors.toml")


@pytest.mark.parametrize("level", LEVELS, ids=lambda level: level.label)
def test_every_level_is_one_that_the_tool_has_and_not_its_default(level: screen.Level) -> None:
    assert level.settings and level.settings.keys() <= {*STAGES}
    for stage, settings in level.settings.items():
        usual = resolve(stage, flags={})
        for name, value in settings.items():
            assert name in fields_of(stage)
            assert checked(name, value) != getattr(usual, name), f"{name} is {value!r} anyway"


def test_no_level_stands_twice() -> None:
    assert len({level.label for level in LEVELS}) == len({str(level.settings) for level in LEVELS}) == len(LEVELS)


def test_the_line_runs_from_point_to_point_and_is_level_beyond_its_ends() -> None:
    line = [(60.0, 90.0), (20.0, 50.0), (40.0, 70.0)]
    assert [screen.between(line, x) for x in (10, 20, 30, 40, 55, 60, 99)] == [50, 50, 60, 70, 85, 90, 90]
    assert screen.between([(5.0, 1.0), (5.0, 3.0), (6.0, 4.0)], 5.0) == 1.0


def row(macs: float, accuracy: float, loss: float, **more: Any) -> dict[str, Any]:
    return {"factor": "skips", "level": "1", "macs": macs, "accuracy": accuracy, "loss": loss, **more}


def test_a_candidate_is_compared_at_its_own_macs() -> None:
    line = [row(20, 50, 2.0), row(60, 90, 1.0)]
    better = screen.compared(row(40, 75, 1.25), line)
    assert (better["accuracy_difference"], better["loss_difference"]) == (5, -0.25)
    assert all(screen.compared(own, line)["accuracy_difference"] == 0 for own in line)


def test_the_table_has_a_line_per_level_the_largest_gain_first() -> None:
    line = [row(20, 50, 2.0, factor="default", level=""), row(60, 90, 1.0, factor="default", level="")]
    rows = [row(40, 71, 1.5), row(40, 68, 1.6), row(60, 95, 0.5, factor="entropy")]  # +1, -2; +0, +0.1
    shown = screen.table([screen.compared(own, line) for own in (*line, *rows)]).splitlines()
    assert shown[2] == "| entropy | 1 | +5.0 | -0.500 | 1 of 1 | 60 % |"
    assert shown[3] == "| skips | 1 | -0.5 ± 2.1 | +0.050 ± 0.071 | 1 of 2 | 40 % |"
    assert len(shown) == 4


@pytest.mark.parametrize(
    ("stage", "teacher", "student"),
    [("teach", "x.y", "x.y"), ("tailor", "default", "x.y"), ("finetune", "default", "default")],
)
def test_a_level_shares_what_comes_before_the_stage_that_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, teacher: str, student: str
) -> None:
    made: dict[str, list[Path]] = {}

    def make(file: Path, command: str, *words: object) -> dict[str, Any]:
        made.setdefault(command, []).append(file)
        metrics = {name: {"accuracy": 1.0, "loss": 1.0, "images": 1} for name in ("teacher", "student", "model")}
        totals = {"macs": 1, "parameters": 1, "task_parameters": 1}
        return {"totals": totals, "backbone_totals": totals, "graph": {"paths": []}, "metrics": metrics}

    monkeypatch.setattr(screen, "make", make)
    place = screen.Place(tmp_path, "digits", 0, (), "fp32")
    rows = list(place.candidates(screen.Level("x", "y", {stage: {"lr": 0.5}}), (4, 6)))
    assert [row["k"] for row in rows] == [4, 6]
    assert made["tailor"] == [tmp_path / student / "student.safetensors"]
    assert made["prune"] == [tmp_path / student / f"pruned{k}.safetensors" for k in (4, 6)]
    assert made["finetune"] == [tmp_path / "x.y" / f"model{k}.safetensors" for k in (4, 6)]
    # who has no teacher of its own is given the default's, which was made before
    assert made.get("teach", [tmp_path / "default" / "teacher.safetensors"]) == [
        tmp_path / teacher / "teacher.safetensors"
    ]
