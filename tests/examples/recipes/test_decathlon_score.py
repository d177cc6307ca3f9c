from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from decathlon_score import BASELINE, points, read_errors, score
from protocol import published

from tests.examples.recipes.conftest import EXAMPLES


def errors_of(network: str) -> dict[str, float]:
    return {
        row["set"]: 100 - float(row["accuracy"])
        for row in published("3")
        if row["network"] == network and row["set"] in BASELINE
    }


@pytest.mark.parametrize(("network", "expected"), [("residual adapters", 3412), ("3 skips", 3744)])
def test_the_papers_rows_give_the_papers_scores(network: str, expected: int) -> None:
    errors = errors_of(network)
    assert set(errors) == set(BASELINE)
    assert round(score(errors)) == expected


def test_the_baseline_itself_has_250_points_a_set_and_no_error_1000() -> None:
    assert score({name: 100 - accuracy for name, accuracy in BASELINE.items()}) == pytest.approx(2500)
    assert score(dict.fromkeys(BASELINE, 0.0)) == pytest.approx(10_000)
    assert points("gtsrb", 2 * (100 - 97.53)) == 0
    assert points("gtsrb", 90) == 0, "never below zero"


@pytest.mark.parametrize("errors", [{"dtds": 1.0}, {"dtd": -1.0}, {"dtd": 101.0}, {"dtd": float("nan")}])
def test_what_is_no_error_is_refused(errors: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="dtd"):
        score(errors)


def test_csv_and_json_errors_and_accuracies_are_the_same(tmp_path: Path) -> None:
    texts = {
        "a.csv": "set,error\ndtd,40\ngtsrb,1\n",
        "b.csv": "set,accuracy\ndtd,60\ngtsrb,99\n",
        "c.json": json.dumps({"errors": {"dtd": 40, "gtsrb": 1}}),
        "d.json": json.dumps({"accuracies": {"dtd": 60, "gtsrb": 99}}),
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
        assert read_errors(tmp_path / name) == {"dtd": 40, "gtsrb": 1}, name
    for text in ("set,error\ndtd,40\ndtd,1\n", "name,error\ndtd,40\n", ""):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(ValueError, match=r"bad\.csv"):
            read_errors(tmp_path / "bad.csv")


def test_the_script_prints_the_score_and_names_what_is_missing(tmp_path: Path) -> None:
    script = [sys.executable, str(EXAMPLES / "recipes" / "decathlon_score.py")]
    file = tmp_path / "errors.json"
    file.write_text(json.dumps({"errors": errors_of("3 skips")}))
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.endswith("score 3743.6\n"), done.stderr
    file.write_text(json.dumps({"errors": {"dtd": 40}}))
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, check=False)
    assert "missing, counted as 0: imagenet12, aircraft" in done.stdout
    file.write_text("{")
    done = subprocess.run([*script, str(file)], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ")
