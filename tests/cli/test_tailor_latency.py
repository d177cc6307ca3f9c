"""nettailor tailor --cost latency: which table it takes, what it keeps, what it refuses."""

from __future__ import annotations

import hashlib
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from nettailor_cli.core.delta import read_document
from nettailor_cli.core.stages import latencies
from tests.cli.helpers import ONE, Workshop, contents, ok, refuses, stop_after, untouched
from tests.core.deploy.tables import PARTS, hand_made

ARGS = ("--cost", "latency", *ONE)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    file = tmp_path / "table.toml"
    file.write_text(hand_made().to_toml())
    return file


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """One entry per measurement on the spot, which finds what is in the table made by hand."""
    calls: list[Any] = []

    def calibrate(*args: Any, **options: Any) -> Any:
        calls.append(args)
        return hand_made()

    monkeypatch.setattr(latencies, "calibrate", calibrate)
    return calls


@pytest.fixture
def taught(shop: Workshop, tmp_path: Path) -> Path:
    """A run with a teacher, and nothing else yet."""
    run = tmp_path / "run"
    run.mkdir()
    (run / "teacher.safetensors").hardlink_to(shop.run / "teacher.safetensors")
    shutil.copyfile(shop.run / "run.toml", run / "run.toml")
    return run


def test_from_a_table_to_a_pruned_file_that_adds_up_its_latencies(shop: Workshop, taught: Path, table: Path) -> None:
    err = ok("tailor", "--run", taught, *ARGS, "--latency-table", table).err
    assert f"latency table: {table}" in err and 'A "quick" one (cpu)' in err
    document = read_document(taught / "student.safetensors")
    digest = hashlib.sha256(table.read_bytes()).hexdigest()
    own = document.settings["tailor"]
    assert (own["cost"], own["latency_batch"], own["latency_table"]["digest"]) == ("latency", 1, digest)
    assert (taught / "latency.toml").read_bytes() == table.read_bytes()
    assert tomllib.loads((taught / "run.toml").read_text())["run"]["latency_table"] == digest
    assert {path.name: path.cost.latency for path in document.graph.paths} == {
        path.name: PARTS[path.name] for path in document.graph.paths
    }
    # another objective, another student
    usual, other = load_file(shop.run / "student.safetensors"), load_file(taught / "student.safetensors")
    assert not torch.equal(usual["attention.logits"], other["attention.logits"])

    ok("prune", taught / "student.safetensors", "--remove", "3")
    pruned = read_document(taught / "pruned.safetensors").graph
    expected = PARTS["stem"] + PARTS["head"] + sum(PARTS[path.name] for path in pruned.paths)
    result = ok("inspect", taught / "pruned.safetensors", "--json").document
    assert result["totals"]["latency_us"] == pytest.approx(expected)
    assert result["backbone_totals"]["latency_us"] == pytest.approx(500 + 8036 + 50)
    lines = [" ".join(line.split()) for line in ok("inspect", taught / "pruned.safetensors").out.splitlines()]
    assert f"latency {expected / 1000:.2f} ms 8.59 ms {100 * (1 - expected / 8586):.1f} %" in lines
    assert any(line.startswith("latency") and digest[:12] in line and "batch 1" in line for line in lines)


def test_measured_on_the_spot_or_named_the_same_table_gives_the_same_bytes(
    taught: Path, table: Path, measured: list[Any]
) -> None:
    err = ok("tailor", "--run", taught, *ARGS).err
    assert "so this machine is measured" in err and "stem and blocks 8.54 ms" in err and len(measured) == 1
    first = (taught / "student.safetensors").read_bytes()
    assert (taught / "latency.toml").read_text() == hand_made().to_toml()
    ok("tailor", "--run", taught, *ARGS, "--force", "--latency-table", taught / "latency.toml")
    assert (taught / "student.safetensors").read_bytes() == first and len(measured) == 1


def test_a_run_that_goes_on_takes_the_table_that_it_kept(
    taught: Path, table: Path, measured: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = taught.parent / "whole"
    shutil.copytree(taught, whole)
    ok("tailor", "--run", whole, *ARGS, "--latency-table", table)
    stop_after(monkeypatch, 2)
    refuses("tailor", "--run", taught, *ARGS, code=130, says=["--resume"])
    assert len(measured) == 1 and (taught / "latency.toml").exists()
    stop_after(monkeypatch, None)
    # another table is another run
    other = taught.parent / "other.toml"
    other.write_text(table.read_text().replace("median = 500.0", "median = 500.1"))
    with untouched(taught):
        refuses("tailor", "--run", taught, "--resume", "--latency-table", other, says=["latency_table", "--force"])
    ok("tailor", "--run", taught, "--resume")
    assert len(measured) == 1
    assert (taught / "student.safetensors").read_bytes() == (whole / "student.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('backbone = "resnet18"', 'backbone = "resnet34"', "is of resnet34 at 32 px; resnet18 at 32 px is needed"),
        ("size = 32", "size = 224", "is of resnet18 at 224 px"),
        ('"proxy 5-8"', '"proxy 5-9"', "has no latency of proxy 5-8"),
        ("format = 1", "format = 9", "is of format 9"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_before_anything_is_taught(
    shop: Workshop, tmp_path: Path, table: Path, old: str, new: str, says: str
) -> None:
    table.write_text(table.read_text().replace(old, new))
    run = tmp_path / "none-yet"
    says_too = "upgrade" if "format" in old else "nettailor benchmark --calibrate --backbone resnet18 --size 32"
    refuses("tailor", *shop.start(run), *ARGS, "--latency-table", table, says=[says, says_too])
    assert not run.exists()


def test_a_batch_that_the_table_lacks_and_a_table_that_is_not_there(taught: Path, table: Path, tmp_path: Path) -> None:
    args = ("tailor", "--run", taught, *ARGS)
    refuses(*args, "--latency-table", table, "--latency-batch", "8", says=["has batch sizes 1, 32, not 8", "--batch 8"])
    refuses(*args, "--latency-table", tmp_path / "no.toml", says=["can't read the latency table", "no.toml"])
    assert {*contents(taught)} == {"teacher.safetensors", "run.toml"}


def test_flags_that_another_cost_makes_idle_are_named(taught: Path, table: Path) -> None:
    err = ok("tailor", "--run", taught, *ONE, "--latency-table", table, "--latency-batch", "32").err
    assert "--latency-table has no effect: --cost is not latency" in err
    assert "--latency-batch has no effect: the cost is not latency" in err
    assert not (taught / "latency.toml").exists()
    assert "latency_us" not in str(read_document(taught / "student.safetensors").graph.to_json())
