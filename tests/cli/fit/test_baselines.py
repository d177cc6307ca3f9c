"""nettailor fit --baselines: what the result is compared with"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file

from nettailor_cli.core.delta import read_document
from nettailor_cli.core.settings import flag_of
from tests.cli.fit.common import MACHINE
from tests.cli.helpers import SIZE, Workshop, ok


def test_baselines_stand_beside_the_candidates_and_are_never_chosen(run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--json")
    document = ok("fit", *options, "--baselines").document
    rows = {row["name"]: row for row in document["candidates"]}
    baselines = {name.split("-")[0] for name, row in rows.items() if row["kind"] == "baseline"}
    assert baselines == {"unpruned", "random", "reference", "classifier", "cut"}
    model = read_document(run / "model.safetensors")
    assert model.graph.cost.macs == min(row["macs"] for row in rows.values() if row["kind"] == "candidate")
    (cut,) = (row for name, row in rows.items() if name.startswith("cut"))
    assert cut["blocks"] == list(range(1, len(cut["blocks"]) + 1)) and cut["macs"] < rows["reference"]["macs"]
    assert rows["classifier"]["macs"] == rows["reference"]["macs"] == model.graph.backbone.macs
    chosen = next(row for row in rows.values() if row["macs"] == model.graph.cost.macs)
    assert rows["reference"]["epochs"] == round(chosen["epochs"])
    (random,) = (row for name, row in rows.items() if name.startswith("random"))
    assert len(random["blocks"]) == len(chosen["blocks"])
    assert json.loads((run / "fit.json").read_text())["rows"] == document["candidates"]
    lines = (run / "baselines" / f"reference-{rows['reference']['epochs']}" / "log.jsonl").read_text().splitlines()
    assert {json.loads(line)["part"] for line in lines} == {"reference"} and len(lines) == rows["reference"]["epochs"]
    assert not any("val_accuracy" in line for line in lines)  # its curve is nobody's, and would cost a third more
    again = ok("fit", *options, "--baselines", "--resume").document
    assert again["candidates"] == document["candidates"]


def test_the_reference_is_what_teach_makes_in_as_many_epochs(
    shop: Workshop, run: Path, config: Path, tmp_path: Path
) -> None:
    ok("fit", "--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--baselines")
    (baseline,) = (run / "baselines").glob("reference-*/teacher.safetensors")
    settings = read_document(baseline).settings["teach"]
    flags = [word for name in ("epochs", "batch_size", "lr") for word in (flag_of(name), settings[name])]
    start = ("--backbone", "resnet18", "--weights", shop.weights, "--data", shop.data, "--size", SIZE)
    ok("teach", *start, "--run", tmp_path / "taught", *MACHINE, *flags, "--min-steps", 0)
    taught = load_file(tmp_path / "taught" / "teacher.safetensors")
    assert all(torch.equal(tensor, taught[name]) for name, tensor in load_file(baseline).items())
