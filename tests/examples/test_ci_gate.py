"""examples/ci-gate.sh on a tiny model, with the `nettailor` of this checkout on the PATH."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.helpers import CLASSES, TEST_IMAGES, Workshop, make_workshop

pytestmark = pytest.mark.slow

SCRIPT = Path(__file__).parents[2] / "examples" / "ci-gate.sh"
Gate = Callable[..., subprocess.CompletedProcess[str]]

needs_jq = pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return make_workshop(tmp_path_factory.getbasetemp())


@pytest.fixture
def gate(shop: Workshop, tmp_path: Path) -> Gate:
    program = tmp_path / "bin" / "nettailor"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m nettailor_cli "$@"\n')
    program.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("MIN_", "MAX_"))}
    env |= {
        "PYTHONPATH": os.pathsep.join([str(SCRIPT.parents[1]), *sys.path]),
        "PATH": f"{program.parent}:{env['PATH']}",
        "NETTAILOR_HOME": str(shop.home),
        "OMP_NUM_THREADS": "1",
    }

    def run(*args: object, **gates: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(SCRIPT), *map(str, args)],
            env={**env, **gates}, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False,
        )  # fmt: skip

    return run


@needs_jq
def test_gates_met(shop: Workshop, gate: Gate, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    done = gate(
        model, shop.data, "out", MIN_ACCURACY="0", MAX_MACS="150%", MAX_PARAMS="1G", MIN_CLASS_ACCURACY="0"
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    said = done.stdout.splitlines()
    inspected, evaluated = (json.loads((tmp_path / "out" / f"{n}.json").read_text()) for n in ("inspect", "evaluate"))
    share = round(100 * inspected["totals"]["macs"] / inspected["backbone_totals"]["macs"])
    assert said[0].startswith(f"model: {share} % of the MACs, ")
    assert said[1] == f"accuracy {evaluated['accuracy']:.4g} % on test, {TEST_IMAGES} images"
    assert said[2] == "all gates met"
    rows = list(csv.reader((tmp_path / "out" / "confusion.csv").open()))
    assert [[int(cell) for cell in row[1:]] for row in rows[1:]] == evaluated["confusion"]


@needs_jq
def test_every_missed_gate_is_told_in_one_run(shop: Workshop, gate: Gate, tmp_path: Path) -> None:
    gates = {"MIN_ACCURACY": "100.5", "MAX_MACS": "1k", "MAX_PARAMS": "0.1%", "MIN_CLASS_ACCURACY": "101"}
    done = gate(shop.run / "model.safetensors", shop.data, **gates)
    assert done.returncode == 3
    for text in ("--max-macs 1k", "--max-params 0.1%", "--min-accuracy 100.5", "MIN_CLASS_ACCURACY 101", "gate missed"):
        assert text in done.stderr
    rows = json.loads((tmp_path / "reports" / "evaluate.json").read_text())["per_class"]
    for name, row in zip(CLASSES, rows, strict=True):
        assert f'class "{name}": {row["right"]} of 4 images right' in done.stderr
    assert "all gates met" not in done.stdout


@needs_jq
def test_one_missed_gate_is_enough(shop: Workshop, gate: Gate) -> None:
    done = gate(shop.run / "model.safetensors", shop.data, MAX_PARAMS="1", MIN_ACCURACY="0")
    assert done.returncode == 3 and "--max-params 1" in done.stderr and "--min-accuracy" not in done.stderr


@needs_jq
def test_what_is_wrong_is_no_missed_gate(shop: Workshop, gate: Gate, tmp_path: Path) -> None:
    model = shop.run / "model.safetensors"
    for args, gates, says in (
        ((), {}, "usage: "),
        ((tmp_path / "none.safetensors", shop.data), {}, "there is no file"),
        ((model, shop.data), {"MAX_MACS": "12ms"}, "--max-macs 12ms"),
        ((model, tmp_path / "no-data"), {}, "no-data"),
        ((model, shop.data), {"MIN_CLASS_ACCURACY": "much"}, "much is not a number"),
    ):
        done = gate(*args, **gates)
        assert done.returncode == 2 and says in done.stderr, (args, done.stderr)


def test_without_jq_it_says_so(shop: Workshop, gate: Gate, tmp_path: Path) -> None:
    (tmp_path / "few").mkdir()
    for tool in ("env", "bash", "sh"):
        (tmp_path / "few" / tool).symlink_to(str(shutil.which(tool)))
    done = gate(shop.run / "model.safetensors", shop.data, PATH=f"{tmp_path / 'bin'}:{tmp_path / 'few'}")
    assert (done.returncode, done.stdout) == (2, "")
    assert "needs jq" in done.stderr and "apt install jq" in done.stderr
