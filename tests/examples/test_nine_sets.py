"""examples/results/nine_sets.py: what it keeps, and what it makes of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from scipy.stats import spearmanr

from tests.examples.recipes import conftest  # noqa: F401  puts examples/results on the path


@pytest.fixture(scope="module")
def nine_sets() -> Any:
    import nine_sets

    return nine_sets


def row(name: str, seed: int, model: float, macs: float) -> dict[str, Any]:
    return {
        "set": name, "seed": seed, "arch": "resnet18", "size": 64, "precision": "fp32",
        "met": "True", "blocks": "3", "macs": macs, "parameters": 20.0, "seconds": 60.0,
        "reference": 90.0, "model": model, "unpruned": 91.0, "classifier": 100 - macs, "cut": 80.0, "random": 70.0,
    }  # fmt: skip


def test_a_row_comes_back_as_it_was_kept_and_is_not_measured_again(
    nine_sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results.csv"
    assert nine_sets.measured(results) == []
    kept = [row("gtsrb", 0, 89.5, 40.0), row("gtsrb", 1, 91.0, 44.0)]
    for each in kept:
        nine_sets.keep(each, results)
    assert nine_sets.measured(results) == kept
    asked: list[tuple[str, int]] = []

    def measure(name: str, seed: int, arguments: SimpleNamespace) -> dict[str, Any]:
        asked.append((name, seed))
        return {**row(name, seed, 90.0, 50.0), "size": arguments.size}

    monkeypatch.setattr(nine_sets, "measure", measure)
    words = ["--data", tmp_path, "--weights", tmp_path, "--out", tmp_path / "out", "--results", results]
    words += ["--precision", "fp32"]
    monkeypatch.setattr(
        sys, "argv", ["nine_sets.py", *map(str, words), "--sets", "gtsrb", "dtd10", "--seeds", "1", "2"]
    )
    nine_sets.main()
    assert asked == [("dtd10", 1), ("gtsrb", 2), ("dtd10", 2)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].startswith("| gtsrb | 90.0 ± 0.0 | 90.2 ± 0.8 | +0.2 ± 0.8 | 45 % | 20 % | 3, 3, 3 |")
    assert "mean difference +0.08" in lines[-1]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--size", "96"])
    nine_sets.main()
    assert asked[3:] == [("gtsrb", 1), ("dtd10", 1), ("gtsrb", 2), ("dtd10", 2)], "another size is another measurement"


def test_with_the_reference_alone_the_other_baselines_stay_empty_and_out_of_the_means(
    nine_sets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[tuple[Any, ...]] = []
    chosen = {"name": "k03", "kind": "candidate", "epochs": 54.4}
    fitted = {
        "met": True, "chosen": "k03", "teacher_accuracy": 90.0, "candidates": [{**chosen, "name": "k04"}, chosen],
        "totals": {"blocks": 3, "macs": 40, "parameters": 20, "task_parameters": 10},
        "backbone_totals": {"macs": 100, "parameters": 100},
    }  # fmt: skip
    run = tmp_path / "out" / "gtsrb-0"
    run.mkdir(parents=True)
    (run / "log.jsonl").write_text("")

    def nettailor(*words: Any, may_miss: bool = False) -> dict[str, Any]:
        commands.append(words)
        if words[0] == "teach":
            (words[words.index("--run") + 1] / "teacher.safetensors").parent.mkdir(parents=True)
            (words[words.index("--run") + 1] / "teacher.safetensors").touch()
        return fitted

    monkeypatch.setattr(nine_sets, "nettailor", nettailor)
    monkeypatch.setattr(nine_sets, "on_test", lambda file, data: 80.0 if "reference" in file.parent.name else 82.0)
    results = tmp_path / "results.csv"
    words = ["--data", tmp_path, "--weights", tmp_path, "--out", tmp_path / "out", "--results", results]
    monkeypatch.setattr(
        sys, "argv", ["nine_sets.py", *map(str, words), "--sets", "gtsrb", "--seeds", "0", "--reference-alone"]
    )
    nine_sets.main()
    assert [command[0] for command in commands] == ["fit", "teach"]
    assert commands[1][commands[1].index("--epochs") + 1] == 54
    (measured,) = nine_sets.measured(results)
    assert (measured["reference"], measured["model"], measured["cut"]) == (80.0, 82.0, "")
    kept = {**measured, **row("gtsrb", 1, 82.0, 40.0), "precision": "auto", "reference": 80.0, "cut": 60.0}
    nine_sets.show([{**measured, "classifier": 40.0}, kept])
    assert "| 50.0 ± 14.1 | 60.0 | 70.0 |" in capsys.readouterr().out


def test_rank_correlation_is_scipys(nine_sets: Any) -> None:
    a, b = [3.0, 1.0, 2.0, 2.0, 5.0], [1.0, 1.0, 4.0, 2.0, 9.0]
    assert nine_sets.spearman(a, b) == pytest.approx(spearmanr(a, b).statistic)


def test_the_seconds_of_training_are_those_of_all_folds_and_of_no_baseline(nine_sets: Any, tmp_path: Path) -> None:
    for folder, lines in (
        (tmp_path, [("teacher", 2.0), ("k03", 1.5), ("random-03", 9.0)]),
        (tmp_path / "folds" / "1", [("teacher", 3.0)]),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        records = [json.dumps({"file": f"{name}.safetensors", "seconds": seconds}) for name, seconds in lines]
        (folder / "log.jsonl").write_text("\n".join(records) + "\n")
    assert nine_sets.seconds_of_training(tmp_path) == 6.5
