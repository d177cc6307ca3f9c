"""The paper's procedure, with a command line that only notes what it is asked; and once with the real one, whole."""

from __future__ import annotations

import csv
import importlib
import json
import re
import runpy
import statistics
import sys
from pathlib import Path
from typing import Any

import curves
import protocol
import pytest
import table3
import tool
from protocol import AVERAGE, HERE, Plan, Student, Task, beside, chosen, published

from nettailor_cli.core.config_file import size_in
from nettailor_cli.core.presets import resolve
from nettailor_cli.core.settings import STAGES
from tests.cli import helpers
from tests.examples.recipes.conftest import EXAMPLES


class Commands:
    """In place of the command line: writes the files that are asked for. accuracy: percent on val, by K."""

    def __init__(self, accuracy: dict[int, float], teacher: float = 90.0) -> None:
        self.accuracy, self.teacher, self.asked = accuracy, teacher, list[list[str]]()

    def __call__(self, *words: object, may_miss: bool = False) -> dict[str, Any]:
        said = list(map(str, words))
        self.asked.append(said)
        if said[0] == "inspect":
            k = re.search(r"model(\d+)", said[1])
            value = self.teacher if k is None else self.accuracy[int(k[1])]
            totals = {"parameters": 2e6, "task_parameters": 1e6, "macs": 3e9, "blocks": 16 - int(k[1]) if k else 16}
            return {"metrics": {of: {"accuracy": value} for of in ("teacher", "model")}, "totals": totals}
        if said[0] == "evaluate":
            return {"accuracy": 77.0}
        run = Path(said[said.index("--run") + 1]) if "--run" in said else Path()
        file = {"teach": run / "teacher.safetensors", "tailor": run / "student.safetensors"}.get(said[0])
        (file or Path(said[said.index("-o") + 1])).touch()
        return {}

    def trainings(self) -> list[str]:
        return [said[0] for said in self.asked if said[0] in ("teach", "tailor", "prune", "finetune")]


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return Plan(tmp_path / "out", tmp_path / "data", "resnet34", None, tuple(range(1, 15)), ("--precision", "bf16"))


def use(monkeypatch: pytest.MonkeyPatch, commands: Any) -> None:
    for module in (tool, protocol):
        monkeypatch.setattr(module, "nettailor", commands)


def test_k_is_the_largest_within_half_a_point_of_the_fine_tuned_network_on_val(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    falling = {k: 90.0 if k <= 5 else 89.5 if k <= 9 else 89.4 for k in plan.candidates}
    commands = Commands(falling)
    use(monkeypatch, commands)
    assert chosen([Student(Task(plan, "svhn", 0), "3")]) == 9
    assert commands.trainings().count("finetune") <= 4, "14 candidates by bisection"
    assert not any(said[0] == "evaluate" for said in commands.asked), "test is not looked at"


def test_where_no_k_is_within_it_the_best_of_those_tried_is_taken(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, Commands({k: 80.0 - k for k in plan.candidates}))
    assert chosen([Student(Task(plan, "svhn", 0), "3")]) == 1


def test_the_stages_are_the_papers_and_nothing_is_made_twice(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands({4: 90.0, 5: 90.0})
    use(monkeypatch, commands)
    student = Student(Task(plan, "svhn", 7), "dense")
    student.model(4)
    run = plan.out / "svhn-7"
    folder = run / "dense-skips"
    config = HERE / "configs" / "svhn.toml"
    common = ["--data", plan.data / "svhn", "--preset", "paper", "--config", config, "--seed", 7]
    start, last = ["--backbone", "resnet34"], ["--precision", "bf16", "--resume"]
    teacher = ["--teacher", run / "teacher.safetensors"]
    expected: list[list[object]] = [
        ["teach", "--run", run, *start, *common, *last],
        ["tailor", "--run", folder, "--skips", "dense", *teacher, *start, *common, *last],
        ["prune", folder / "student.safetensors", "--remove", 4, "-o", folder / "pruned4.safetensors"],
        ["finetune", folder / "pruned4.safetensors", "-o", folder / "model4.safetensors", *teacher, *common, *last],
    ]
    made = [said for said in commands.asked if said[0] != "inspect"]
    assert made == [list(map(str, words)) for words in expected]
    student.model(4)
    Student(student.task, "dense").model(5)
    assert commands.trainings()[4:] == ["prune", "finetune"]


def test_without_a_teacher_none_is_taught(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands({4: 90.0})
    use(monkeypatch, commands)
    student = Student(Task(plan, "svhn", 0), "3", with_teacher=False)
    student.model(4)
    assert commands.trainings() == ["tailor", "prune", "finetune"]
    assert all("--no-teacher" in said for said in commands.asked if said[0] in ("tailor", "finetune"))
    assert student.run.name == "3-skips-no-teacher" and student.network == "3 skips, no teacher"


@pytest.mark.parametrize(
    "config", sorted((EXAMPLES / "recipes" / "configs").glob("*.toml")), ids=lambda path: path.stem
)
def test_every_config_is_one_for_every_stage(config: Path) -> None:
    size = size_in(config)
    settings = [resolve(stage, flags={}, config=config, preset="paper") for stage in STAGES]
    assert size == (224 if "decathlon" not in config.stem else 72 if "72" in config.stem else 64)
    assert [s.flip for s in settings] == [config.stem != "svhn"] * 3
    if config.stem == "svhn":
        assert [(s.epochs, s.step_epochs) for s in settings] == [(20, 8)] * 3
    elif "pretrain" not in config.stem:
        assert [(s.epochs, s.step_epochs) for s in settings] == [(50, 20), (50, 20), (60, 20)]


def test_every_set_of_every_table_has_a_config() -> None:
    for name in ("table1", "table2", "curves"):
        for set_name in importlib.import_module(name).SETS:
            assert (HERE / "configs" / f"{set_name}.toml").is_file()


@pytest.mark.parametrize("table", ["2", "3"])
def test_the_published_rows_have_the_papers_averages(table: str) -> None:
    rows = published(table)
    for average in (row for row in rows if row["set"] == AVERAGE):
        own = [row for row in rows if row["network"] == average["network"] and row["set"] != AVERAGE]
        for column, rounding in (("accuracy", 0.0101), ("parameters_m", 0.05), ("gflops", 0.005)):
            if average[column] and own[0][column]:  # of rounded figures, so within a digit of the last place
                measured = statistics.mean(float(row[column]) for row in own)
                assert measured == pytest.approx(float(average[column]), abs=rounding), average


def test_the_published_rows_are_complete() -> None:
    assert len(published("1")) == 3 * 5
    assert len(published("2")) == 5 * 5 + 5
    assert len(published("3")) == 10 * 5 + 5


def row(name: str, network: str, seed: int, k: int | str, test: float) -> dict[str, Any]:
    costs = {"parameters_m": 6.0, "task_parameters_m": 2.0, "gmacs": 2.0, "blocks": 9}
    return {"set": name, "network": network, "seed": seed, "k": k, "tried": "", "val": 1.0, "test": test, **costs}


def test_measured_stands_beside_published() -> None:
    rows = [row("svhn", "3 skips", seed, 7, test) for seed, test in enumerate((96.0, 97.0))]
    lines = beside(rows, "1").splitlines()
    assert "| svhn | 3 skips | 96.5 ± 0.7 / 96.53 | 6.00 / 5.65 | 2.00 / 1.94 | 9 / 9 | 7 |" in lines
    assert "| svhn | dense | - / 96.13 | - / 4.01 | - / 1.22 | - / 5 |  |" in lines
    assert not any("voc2012" in line for line in lines)


def test_averages_stand_there_when_all_sets_were_measured() -> None:
    names = importlib.import_module("table2").SETS
    rows = [
        row(name, "3 skips", seed, 7, 80.0 + place + 2 * seed) for place, name in enumerate(names) for seed in (0, 1)
    ]
    lines = beside(rows, "2").splitlines()
    assert "| average | 3 skips | 83.0 ± 1.4 / 84.47 | 6.00 / 13.1 | 2.00 / 3.20 | 9 / - |  |" in lines
    assert not any("average" in line for line in beside(rows[:-2], "2").splitlines())


def test_curves_have_a_line_per_k_and_a_column_per_network() -> None:
    rows = [row("svhn", "fine-tuned", 0, "", 99.0)]
    rows += [row("svhn", name, 0, k, 90 + k) for name in ("3 skips", "3 skips, no teacher") for k in (3, 7)]
    text = curves.curves(rows)
    assert text.splitlines()[:5] == [
        "| svhn: K | 3 skips | 3 skips, no teacher |",
        "|---|---|---|",
        "| 3 | 93.00 | 93.00 |",
        "| 7 | 97.00 | 97.00 |",
        "test accuracy in percent; fine-tuned 99.00",
    ]
    assert "published, Table 1, 3 skips: 96.53 with 9 of 18 blocks" in text


def test_the_scores_of_table_3() -> None:
    ours = [of for of in published("3") if of["network"] == "3 skips" and of["set"] != AVERAGE]
    rows = [row(of["set"], "3 skips", 0, 7, float(of["accuracy"])) for of in ours]
    text = table3.scores(rows)
    assert "| measured | 10 of 10 | 79.64 | 3744 |" in text
    assert "| residual adapters | 10 of 10 | 78.08 | 3412 |" in text


def test_the_decathlons_sets_have_their_size_statistics_and_flips(plan: Plan) -> None:
    plan.data.mkdir()
    values = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    (plan.data / "statistics.json").write_text(json.dumps({"gtsrb": values, "ucf101": values}))
    gtsrb, ucf101 = (table3.task_of(plan, name, 0) for name in ("gtsrb", "ucf101"))
    assert (gtsrb.config, ucf101.config) == ("decathlon_72", "decathlon_64")
    assert (gtsrb.words, ucf101.words) == (("--no-flip",), ())
    assert gtsrb.only_new == ("--mean=0.100000,0.200000,0.300000", "--std=0.400000,0.500000,0.600000")


def test_table_1_in_miniature_with_the_real_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done: list[str] = []

    def nettailor(*words: object, may_miss: bool = False) -> dict[str, Any]:
        done.append(str(words[0]))
        return helpers.ok(*words, "--json").document  # in this process

    use(monkeypatch, nettailor)
    monkeypatch.setenv("NETTAILOR_HOME", str(tmp_path / "home"))
    out = tmp_path / "out"
    argv = ["table1.py", "--miniature", "--out", str(out), "--sets", "svhn", "--skips", "1"]

    def run() -> str:
        monkeypatch.setattr(sys, "argv", argv)
        runpy.run_path(str(EXAMPLES / "recipes" / "table1.py"), run_name="__main__")
        return capsys.readouterr().out

    first = run()
    assert "| svhn | 1 skip | " in first and " / 96.60 |" in first
    with (out / "miniature" / "table1.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(r["set"], r["network"], r["k"] != "") for r in rows] == [
        ("svhn", "fine-tuned", False),
        ("svhn", "1 skip", True),
    ]
    assert int(rows[1]["blocks"]) == 8 - int(rows[1]["k"])
    assert done.count("teach") == done.count("tailor") == 1
    done.clear()
    assert run().splitlines()[-9:] == first.splitlines()[-9:]
    assert set(done) == {"inspect"}, "everything was there"
