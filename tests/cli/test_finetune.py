"""nettailor finetune"""

from __future__ import annotations

import tomllib
from pathlib import Path

import torch
from safetensors.torch import load_file

from nettailor_cli.core.delta import read_document
from tests.cli.helpers import ONE, Workshop, contents, log_of, make_pictures, ok, refuses, untouched


def test_trains_what_is_left(shop: Workshop) -> None:
    pruned, model = (read_document(shop.run / f"{stage}.safetensors") for stage in ("pruned", "model"))
    assert model.stage == "model"
    assert [path.name for path in model.graph.paths] == [path.name for path in pruned.graph.paths]
    before, after = (load_file(shop.run / f"{stage}.safetensors") for stage in ("pruned", "model"))
    assert before.keys() == after.keys()
    assert not torch.equal(before["head.weight"], after["head.weight"])
    assert set(model.metrics) == {"teacher", "student", "model"}
    assert set(model.settings) == {"teach", "tailor", "prune", "finetune"}
    assert log_of(shop.run)[-1]["stage"] == "finetune"


def test_other_output(shop: Workshop, run: Path, tmp_path: Path) -> None:
    before = contents(run)
    result = ok("finetune", run / "pruned.safetensors", "-o", tmp_path / "other" / "mine.safetensors", *ONE, "--json")
    assert result.document["file"] == str(tmp_path / "other" / "mine.safetensors")
    assert (tmp_path / "other" / "mine.safetensors").read_bytes() == (run / "model.safetensors").read_bytes()
    assert contents(run)["model.safetensors"] == before["model.safetensors"]


def test_unwritable_output_is_noticed_before_training(shop: Workshop, run: Path) -> None:
    (run / "blocker").write_text("a file")
    with untouched(run):
        args = ("finetune", run / "pruned.safetensors", "-o", run / "blocker" / "model.safetensors", *ONE)
        refuses(*args, says=["can't write"])


def test_carries_on_what_tailor_was_told(shop: Workshop, run: Path) -> None:
    ok("tailor", "--run", run, *ONE, "--force", "--hint", "block-local", "--gamma2", "4", "--no-flip")
    ok("prune", run / "student.safetensors", "--remove", "2", "--force")
    ok("finetune", run / "pruned.safetensors", *ONE, "--force")
    used = tomllib.loads((run / "run.toml").read_text())["finetune"]
    assert (used["hint"], used["gamma2"], used["flip"]) == ("block-local", 4.0, False)


def test_preset_paper(shop: Workshop, run: Path) -> None:
    args = ("--preset", "paper", "--epochs", "1", "--precision", "fp32", "--force")
    ok("finetune", run / "pruned.safetensors", *args)
    used = read_document(run / "model.safetensors").settings["finetune"]
    assert (used["schedule"], used["lr"], used["batch_size"], used["hint"]) == ("step", 0.01, 32, "block-local")


def test_teacher_is_missing(shop: Workshop, run: Path) -> None:
    (run / "teacher.safetensors").unlink()
    with untouched(run):
        args = ("finetune", run / "pruned.safetensors", "--force", *ONE)
        refuses(*args, says=["there is no teacher", "--teacher FILE", "--no-teacher"])
    ok("finetune", run / "pruned.safetensors", "--force", *ONE, "--teacher", shop.run / "teacher.safetensors")
    assert (run / "model.safetensors").read_bytes() == (shop.run / "model.safetensors").read_bytes()
    ok("finetune", run / "pruned.safetensors", "--force", *ONE, "--no-teacher")
    assert (run / "model.safetensors").read_bytes() != (shop.run / "model.safetensors").read_bytes()


def test_what_it_does_not_take(shop: Workshop, run: Path, tmp_path: Path) -> None:
    make_pictures(tmp_path / "other", 4, seed=7, classes=("cat", "dog"))
    with untouched(run):
        refuses("finetune", run / "teacher.safetensors", "--force", *ONE, says=["is a teacher"])
        refuses("finetune", run / "nothing.safetensors", "--force", *ONE, says=["there is no file"])
        args = ("finetune", run / "pruned.safetensors", "--force", *ONE)
        refuses(*args, "--data", tmp_path / "other", says=["cat"])
        refuses(*args, "--data", tmp_path / "none", says=["none"])
        refuses(*args, "--gamma1", "3", says=["--gamma1"])  # no complexity term in this stage
    refuses("finetune", run / "pruned.safetensors", *ONE, says=["is there already", "--force"])


def test_pruned_file_without_its_run(shop: Workshop, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "pruned.safetensors"
    alone.parent.mkdir()
    alone.write_bytes((shop.run / "pruned.safetensors").read_bytes())
    refuses("finetune", alone, *ONE, says=["which pictures?", "--data"])
    ok("finetune", alone, *ONE, "--data", shop.data, "--teacher", shop.run / "teacher.safetensors")
    assert (alone.parent / "model.safetensors").read_bytes() == (shop.run / "model.safetensors").read_bytes()


def test_what_is_idle_without_a_teacher_or_without_its_nodes_is_named(run: Path) -> None:
    options = ("finetune", run / "pruned.safetensors", *ONE, "--force")
    assert "--hint-weights has no effect" in ok(*options, "--no-teacher", "--hint-weights", "equal").err
    assert "no effect" not in ok(*options, "--no-teacher", "--hint-weights", "logits").err, "as it is anyway"
    told = ok(*options, "--hint", "block-local").err
    assert "--hint has no effect: the hint has the logits alone (--hint-weights equal" in told
