"""examples/results/channels.py: what the rival is asked for, and what is made of it."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.examples.recipes import conftest  # noqa: F401  puts examples/results on the path


@pytest.fixture(scope="module")
def channels() -> Any:
    import channels

    return channels


def test_the_rival_has_the_same_macs_and_epochs_and_is_measured_once(
    channels: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, nine_sets = tmp_path / "out", tmp_path / "nine_sets.csv"
    for name in ("gtsrb-1", "dtd10-1"):  # the run of dtd10 is another than that of its row
        (out / name).mkdir(parents=True)
        (out / name / "model.safetensors").touch()
    tried = [("candidate", 60, 58.0), ("candidate", 40, 57.1), ("baseline", 40, 16.0)]
    fit = {"rows": [{"kind": kind, "macs": macs, "epochs": epochs} for kind, macs, epochs in tried]}
    (out / "gtsrb-1" / "fit.json").write_text(json.dumps(fit))
    rows = [
        {"set": name, "seed": 1, "arch": "resnet18", "size": 64, "precision": "fp32", "macs": macs, "model": 90.0}
        for name, macs in (("gtsrb", 40.0), ("elsewhere", 40.0), ("dtd10", 50.0))
    ]
    with nine_sets.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    asked: list[list[str]] = []

    def run(command: list[Any], **_: Any) -> SimpleNamespace:
        asked.append([str(word) for word in command])
        found = {"macs_share": 0.39, "parameters_share": 0.3, "val": 80.0, "test": 88.5}
        return SimpleNamespace(stdout=json.dumps(found))

    monkeypatch.setattr(channels.subprocess, "run", run)
    model = {"totals": {"macs": 40}, "backbone_totals": {"macs": 100}, "settings": {"teach": {"epochs": 19}}}
    monkeypatch.setattr(channels, "nettailor", lambda *words: model)
    words = ["--data", tmp_path, "--out", out, "--nine-sets", nine_sets, "--results", tmp_path / "channels.csv"]
    monkeypatch.setattr(sys, "argv", ["channels.py", *map(str, words)])
    for _ in range(2):
        channels.main()
    (command,) = asked
    given = dict(zip(command[2::2], command[3::2], strict=True))
    assert float(given["--macs"]) == 0.4 and int(given["--epochs"]) == 57 - 19
    assert (given["--run"], given["--data"]) == (str(out / "gtsrb-1"), str(tmp_path / "gtsrb"))
    lines = capsys.readouterr().out.splitlines()
    assert "| gtsrb | 90.0 | 88.5 | +1.5 | 39 % | 30 % |" in lines
    assert lines[-1] == "mean difference of 1 rows +1.50"
