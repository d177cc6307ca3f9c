"""nettailor fit --folds: cross-validation"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nettailor_cli.core.delta import read_document
from tests.cli.fit.common import MACHINE
from tests.cli.helpers import Workshop, ok, refuses


def test_folds_are_runs_of_their_own_whose_figures_are_taken_together(shop: Workshop, run: Path, config: Path) -> None:
    options = ("--run", run, *MACHINE, "--config", config, "--tolerance", 100, "--folds", 2, "--json")
    result = ok("fit", *options)
    document = result.document
    assert document["folds"] == 2
    name, together = document["candidates"][0]["name"], "val accuracy [0-9.]+ ± [0-9.]+ % over 2 folds"
    for said in (f"{name} epoch 1/2, .*", f"fold 1: {name} epoch 1/2, .*", f"{name}: {together}"):
        assert re.search(f"^{said}$", result.err, re.MULTILINE), said
    other = run / "folds" / "1"
    mine, theirs = (read_document(where / "student.safetensors").data for where in (run, other))
    assert (mine["fold"], theirs["fold"]) == (0, 1) and mine["digest"] != theirs["digest"]
    for row in document["candidates"][:-1]:
        metrics = [
            read_document(where / "search" / f"{row['name']}.safetensors").metrics["model"] for where in (run, other)
        ]
        right = sum(metric["accuracy"] * metric["images"] for metric in metrics)
        assert row["images"] == sum(metric["images"] for metric in metrics)
        assert row["accuracy"] == pytest.approx(right / row["images"])
    # val of a fold is not val of the other: evaluate finds each fold's own again
    for where in (run, other):
        file = where / "student.safetensors"
        shown = ok("evaluate", file, "--data", shop.data, "--split", "val", "--json")
        assert shown.document["images"] == read_document(file).metrics["student"]["images"]


def test_too_few_val_pictures_for_the_tolerance_mean_cross_validation(run: Path, config: Path) -> None:
    """9 pictures of val: 20 points are less than two of them, 90 are more."""
    options = ("--run", run, *MACHINE, "--config", config)
    assert ok("fit", *options, "--tolerance", 90, "--json").document["folds"] == 1
    (run / "model.safetensors").unlink()
    result = ok("fit", *options, "--tolerance", 20, "--max-macs", "200%", "--resume", "--json")
    assert result.document["folds"] == 3 and "cross-validation with up to 3 folds" in result.err
    assert "has no effect" not in result.err
    (run / "model.safetensors").unlink()
    result = ok("fit", *options, "--tolerance", 20, "--preset", "quick", "--resume", "--json")
    assert result.document["folds"] == 1 and "no cross-validation with --preset quick" in result.err


def test_more_folds_than_there_are(run: Path) -> None:
    refuses("fit", "--run", run, "--folds", 6, says=["--folds 6", "5 parts"])
    assert not (run / "search").exists()
